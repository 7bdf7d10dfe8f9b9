"""Batches of a world as torch tensors, for any torch loop, and as rows of tokens, for any trainer of language models.

The samples and masks are those that ``hgscale pretrain`` draws from the same seeds.

Axes: c contexts, s visible nodes, t targets, v nodes of the world, n tokens of a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hgscale.data.masking import Masker, ObjectiveConfig
from hgscale.data.stream import SamplesConfig, Stream
from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import PAD, World
from hgscale.hypergraph.tokens import CLS_ID, MASK_ID, NUM_MARKS, PAD_ID, SEP_ID

if TYPE_CHECKING:
    from datasets import IterableDataset

NO_LABEL = -100  # what transformers takes no loss of
_MOST_COUNTED = 1 << 22  # samples that the law of sizes is counted in
_CHUNK = 1 << 18


@dataclass(frozen=True)
class TensorBatch:
    """A rank's share of a global batch, as distinct contexts.

    With log-probabilities ``logp`` [c v] of which node is hidden behind each context, the share of the batch's loss in
    nats per sample is ``-(weights * logp[rows, targets]).sum() * scale``; the shares of all ranks add up.

    Attributes:
        visible: [c s] int64, visible nodes ascending, -1 behind them; s is at least 1.
        num_masked: [c] int64, hidden nodes, at least 1.
        rows: [t] int64, the context of each target.
        targets: [t] int64, hidden nodes.
        weights: [t] float32, the loss weight of each target, summed over the samples that share it.
        size_counts: [max_size + 1] float32, samples of each size, for a model of sizes.
        scale: 1 / global_batch.
    """

    visible: Tensor
    num_masked: Tensor
    rows: Tensor
    targets: Tensor
    weights: Tensor
    size_counts: Tensor
    scale: float

    def to(self, device: torch.device | str) -> "TensorBatch":
        """The same batch on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return TensorBatch(**moved, scale=self.scale)


@dataclass(frozen=True)
class Batches:
    """The batches of steps ``start_step`` to ``num_steps``: an iterable, and a map-style dataset for a DataLoader.

    A DataLoader takes it with ``batch_size=None`` and without shuffling. See ``batches`` for the attributes.
    """

    world: World
    stream: Stream
    objective: ObjectiveConfig
    sample_seed: int
    num_steps: int
    start_step: int
    rank: int
    world_size: int

    def __len__(self) -> int:
        """Steps."""
        return self.num_steps - self.start_step

    def __getitem__(self, index: int) -> TensorBatch:
        """The batch of step ``start_step + index``."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = self._masker.batch(*self._samples(self.start_step + index))
        width = max(1, *(bucket.visible.shape[1] for bucket in batch.buckets))
        visible = [
            np.pad(bucket.visible, ((0, 0), (0, width - bucket.visible.shape[1])), constant_values=PAD)
            for bucket in batch.buckets
        ]
        first = np.cumsum([0, *map(len, visible)])
        rows = [bucket.rows + start for bucket, start in zip(batch.buckets, first, strict=False)]
        return TensorBatch(
            visible=torch.from_numpy(np.concatenate(visible)),
            num_masked=torch.from_numpy(np.concatenate([bucket.num_masked for bucket in batch.buckets])),
            rows=torch.from_numpy(np.concatenate(rows)),
            targets=torch.from_numpy(np.concatenate([bucket.targets for bucket in batch.buckets])),
            weights=torch.from_numpy(np.concatenate([bucket.weights for bucket in batch.buckets])),
            size_counts=torch.from_numpy(batch.size_counts),
            scale=1.0 / self.stream.batch_size,
        )

    def __iter__(self) -> Iterator[TensorBatch]:
        """The batches in order."""
        return (self[index] for index in range(len(self)))

    @cached_property
    def sizes(self) -> dict[int, float]:
        """The law of sizes among the samples (the first four million of them), as ``ModelConditionals`` takes it."""
        counts = np.zeros(self.world.max_size + 1, dtype=np.int64)
        most = min(self.stream.num_seen(self.num_steps), _MOST_COUNTED)
        for start in range(0, most, _CHUNK):
            ids = self.stream.ids(np.arange(start, min(start + _CHUNK, most)))
            sizes = self.world.rows(self._masker.sampler.draw(ids)).sizes
            counts += np.bincount(sizes, minlength=len(counts))
        return {int(size): float(counts[size] / most) for size in np.flatnonzero(counts)}

    def counts(self) -> np.ndarray:
        """[E] int64: how often each edge is among the samples of all steps, each sample once; for ``hgscale.compare``.

        It holds a number per edge: for worlds in memory.
        """
        counts = np.zeros(self.world.num_edges, dtype=np.int64)
        num_seen = self.stream.num_seen(self.num_steps)
        for start in range(0, num_seen, _CHUNK):
            ids = self.stream.ids(np.arange(start, min(start + _CHUNK, num_seen)))
            counts += np.bincount(self._masker.sampler.draw(ids), minlength=len(counts))
        return counts

    @property
    def vocab_size(self) -> int:
        """Tokens of the rows of ``as_dataset``: four marks, then the nodes; see ``hypergraph.tokens``."""
        return self.world.num_nodes + NUM_MARKS

    def as_dataset(self) -> "IterableDataset":
        """One row per sample, for masked language models of transformers: ``Trainer`` takes it as it is.

        A row holds ``input_ids``, ``attention_mask`` and ``labels``, each [max_size + 2]: ``[CLS]``, the nodes in the
        sample's own order with ``[MASK]`` where they are hidden, ``[SEP]``, padding. Samples come in the order of the
        stream. Transformers weighs hidden nodes alike, where ``TensorBatch.weights`` weighs samples alike; both losses
        are least at the same conditionals.
        """
        from datasets import Features, IterableDataset, List, Value

        names = ("input_ids", "attention_mask", "labels")
        return IterableDataset.from_generator(self._rows, Features({name: List(Value("int64")) for name in names}))

    def _rows(self) -> Iterator[dict[str, np.ndarray]]:
        for step in range(self.start_step, self.num_steps):
            yield from self._rows_of(step)

    def _rows_of(self, step: int) -> Iterator[dict[str, np.ndarray]]:
        ids, visits = self._samples(step)
        input_ids = np.full((len(ids), self.world.max_size + 2), PAD_ID, dtype=np.int64)
        labels = np.full_like(input_ids, NO_LABEL)
        for places, bucket in self._masker.in_order(ids, visits):
            assert bucket.visible_slots is not None
            assert bucket.target_slots is not None
            size = bucket.visible.shape[1] + int(bucket.num_masked[0])
            inputs = np.full((len(places), size + 2), MASK_ID, dtype=np.int64)
            inputs[:, 0], inputs[:, -1] = CLS_ID, SEP_ID
            np.put_along_axis(inputs, bucket.visible_slots + 1, bucket.visible + NUM_MARKS, axis=1)
            input_ids[places, : size + 2] = inputs
            labels[places[bucket.rows], bucket.target_slots + 1] = bucket.targets + NUM_MARKS
        attention_mask = (input_ids != PAD_ID).astype(np.int64)
        for row in range(len(ids)):
            yield {"input_ids": input_ids[row], "attention_mask": attention_mask[row], "labels": labels[row]}

    def _samples(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and visits of this rank's share."""
        positions = self.stream.positions(step, self.rank, self.world_size)
        return self.stream.ids(positions), self.stream.visits(positions)

    @cached_property
    def _masker(self) -> Masker:
        return Masker(self.world.sampler(self.sample_seed), self.objective)

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be made again, so that it is small to send."""
        return {name: value for name, value in vars(self).items() if name not in ("_masker", "sizes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The inverse of ``__getstate__``."""
        vars(self).update(state)


def batches(
    world: World,
    num_samples: int | None = None,
    *,
    global_batch: int,
    num_steps: int,
    masking: str = "random_subset",
    redraw: bool = True,
    sample_seed: int = 0,
    mask_seed: int = 0,
    order_seed: int = 0,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Batches:
    """Batches of samples of a world, masked: what ``hgscale pretrain`` trains on, for a loop of your own.

    Args:
        world: where edges are drawn from.
        num_samples: N, edges drawn in all, or None for fresh ones for ever.
        global_batch: samples of a step, over all ranks.
        num_steps: steps in all.
        masking, redraw: as in ``ObjectiveConfig``.
        sample_seed, mask_seed, order_seed: ``samples.seed``, ``objective.seed`` and ``train.seed`` of a pre-training.
        start_step: the first step that is given: where a loop goes on that was stopped.
        rank, world_size: which share of each step is given, of how many.

    Raises:
        ConfigError: if the batch cannot be shared out, is larger than the corpus, or an argument is out of its range.
    """
    for name, value, least, most in (
        ("num_steps", num_steps, 1, None),
        ("start_step", start_step, 0, num_steps),
        ("world_size", world_size, 1, None),
        ("rank", rank, 0, world_size - 1),
    ):
        if value < least or (most is not None and value > most):
            wanted = f"at least {least}" if most is None else f"{least} to {most}"
            raise ConfigError(f"batches: {name}={value} is out of range; give {wanted}")
    objective = ObjectiveConfig(masking=masking, redraw=redraw, seed=mask_seed)
    objective.law(world.distinct_sizes)
    stream = Stream(SamplesConfig(num_samples=num_samples).num_samples, global_batch, order_seed)
    stream.positions(0, rank, world_size)
    return Batches(world, stream, objective, sample_seed, num_steps, start_step, rank, world_size)
