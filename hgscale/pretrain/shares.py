"""The samples and masks that one worker of a pre-training sees in a step. Knows no torch."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from hgscale.data.masking import Masker
from hgscale.data.stream import ids_hash
from hgscale.hypergraph.structure import Sampler
from hgscale.pretrain.task import PretrainTask
from hgscale.train.shares import Share


@dataclass(frozen=True)
class PretrainShares:
    """``train.shares.Shares`` of a pre-training.

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

    @property
    def num_steps(self) -> int:
        return self.task.train.num_steps

    @property
    def global_batch(self) -> int:
        return self.task.train.global_batch

    def fresh(self) -> Self:
        """Without the opened world."""
        return replace(self, task=self.task.fresh())

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
