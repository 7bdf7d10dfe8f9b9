"""A worker's share of each global batch: a pure function of the step, wherever it is evaluated. Knows no torch."""

from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from hgscale.data.masking import Batch, Masker
from hgscale.data.stream import ids_hash
from hgscale.hypergraph.structure import Sampler
from hgscale.pretrain.task import PretrainTask


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
