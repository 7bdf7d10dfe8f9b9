"""A worker's share of each global batch: a pure function of the step, wherever it is evaluated. Knows no torch."""

from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numba as nb
import numpy as np

from hgscale.data.masking import Batch, Masker
from hgscale.hypergraph.sampling import Sampler
from hgscale.pretrain.task import PretrainTask
from hgscale.rng import key, random_bits

WORD = 2**64


@dataclass(frozen=True)
class Share:
    """What one worker trains on in one step.

    Attributes:
        step: counted from 0.
        micro_batches: its samples, masked.
        ids_hash: ``ids_hash`` of the ids that were drawn for them.
    """

    step: int
    micro_batches: tuple[Batch, ...]
    ids_hash: int


@dataclass(frozen=True)
class Shares:
    """The shares of one worker. Small when pickled: whoever evaluates them opens the world.

    Attributes:
        task: the config.
        merge: samples that show the same share a row, see ``data.masking.Masker``.
        rank: of the worker.
        world_size: number of workers.
    """

    task: PretrainTask
    merge: bool = True
    rank: int = 0
    world_size: int = 1

    def at(self, step: int) -> Share:
        """The share of one step."""
        stream = self.task.stream()
        positions = stream.positions(step, self.rank, self.world_size)
        ids, visits = stream.ids(positions), stream.visits(positions)
        num_micro = self.task.train.num_micro(self.world_size)
        parts = zip(np.split(ids, num_micro), np.split(visits, num_micro), strict=True)
        return Share(step, tuple(self._masker.batch(*part) for part in parts), ids_hash(step, ids, visits))

    @cached_property
    def sampler(self) -> Sampler:
        """Of the task's samples."""
        return self.task.target_world.sampler(self.task.samples.seed)

    @cached_property
    def _masker(self) -> Masker:
        # ZeRO 3 puts a module's weights together whenever it is called: all workers must call it equally often.
        engine = self.task.engine
        in_step = engine.name == "deepspeed" and engine.zero_stage == 3 and self.world_size > 1
        return Masker(self.sampler, self.task.objective, self.merge, every_bucket=in_step)


class Source(Protocol):
    """Who evaluates shares for a worker: the worker itself, or others for it."""

    def __call__(self, shares: Shares, start_step: int) -> Generator[Share, None, None]:
        """The shares of steps ``start_step`` to the last, in order; closing it ends what works for it."""


def in_process(shares: Shares, start_step: int) -> Generator[Share, None, None]:
    """Evaluate each share when it is asked for."""
    for step in range(start_step, shares.task.train.num_steps):
        yield shares.at(step)


def ids_hash(step: int, ids: np.ndarray, visits: np.ndarray) -> int:
    """Which samples a step trains on, and at which visits, as one number in [0, 2**64).

    The sum, modulo 2**64, of a random word for each (step, visit, id). So the hashes of all workers' shares of a step
    add up to that of the global batch, however it is cut, and those of steps to that of the history. A sample that is
    lost, repeated, replaced, or moved to another step changes the sum, but for one chance in 2**64.

    Args:
        step: counted from 0.
        ids: [b] int64.
        visits: [b] int64, how often each has been seen before.

    Source: derived here; a sum, unlike an exclusive or, does not cancel what stands twice.
    """
    return int(_sum_of_words(ids, visits, key(0, "ids hash"), step))


@nb.njit(cache=True)
def _sum_of_words(ids: np.ndarray, visits: np.ndarray, hash_key: np.uint64, step: int) -> np.uint64:
    total, step_key = np.uint64(0), random_bits(hash_key, np.uint64(step))
    for i in range(len(ids)):
        total += random_bits(random_bits(step_key, np.uint64(visits[i])), np.uint64(ids[i]))
    return total
