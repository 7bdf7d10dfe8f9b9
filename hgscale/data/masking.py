"""Masking, and batches as the model wants them: distinct contexts, bucketed by size.

A context is what one masked row shows: the set of visible nodes and how many are hidden. Sets have no order, so samples
that share a context share the whole forward pass; a batch holds each context once, with the summed weight of every
node that was hidden behind it. This is the exact gradient of the global batch at the cost of its distinct contexts.

Models with positions (BERT) do see an order: they get one row per sample, nodes in the sample's own order.

The mask of a sample is a function of (sample, visit). At its first visit every mask of the objective is equally likely;
from visit to visit the number hidden is rotated, and then which nodes are hidden, so that over some visits every sample
has shown itself evenly. Each single mask keeps its law, and the noise that independent masks would add to a corpus
cancels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numba as nb
import numpy as np

from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import PAD, Rows, Sampler
from hgscale.plugins import Table, identified, is_path
from hgscale.rng import below, key, random_bits


@dataclass(frozen=True)
class Objective:
    """How many nodes a visit to a sample hides, and what each of them weighs in the loss.

    Attributes:
        hidden: size -> numbers in [1, size]. A sample takes them in turn, one a visit, from a place that is drawn; so a
            number that stands twice is hidden twice as often.
        weight: (size, number hidden) -> loss weight of each hidden node, positive.
        trains: the questions that a read-out may ask afterwards. one_mask: with one node hidden; any_order: with any
            number, and then ``hidden`` must hold every number from 1 to the size.
    """

    hidden: Callable[[int], Sequence[int]]
    weight: Callable[[int, int], float]
    trains: Literal["one_mask", "any_order"]

    def law(self, sizes: Sequence[int], where: str) -> "Law":
        """The numbers and weights of all sizes, as kernels read them.

        Raises:
            ConfigError: naming the member that is not as described above; ``where`` is the field and its value.
        """
        known = set(sizes)
        offsets = np.zeros(max(known) + 2, dtype=np.int64)
        numbers: list[int] = []
        weights: list[float] = []
        for size in range(len(offsets) - 1):
            if size in known:
                asked = range(1, size + 1 if self.trains == "any_order" else 2)
                turns = [int(number) for number in self.hidden(size)]
                if not all(1 <= number <= size for number in turns) or not set(asked) <= set(turns):
                    raise ConfigError(
                        f"{where}: hidden({size}) is {turns}; give numbers from 1 to {size}, and for "
                        f"trains={self.trains} each of {', '.join(map(str, asked))}"
                    )
                each = [float(self.weight(size, number)) for number in turns]
                if not all(0 < weight < math.inf for weight in each):
                    raise ConfigError(f"{where}: weight({size}, number) is {each}; give positive numbers")
                numbers += turns
                weights += each
            offsets[size + 1] = len(numbers)
        return Law(offsets, np.array(numbers, dtype=np.int64), np.array(weights))


class Law(NamedTuple):
    """An ``Objective`` over the sizes of a world.

    The turns of size s are ``offsets[s]`` to ``offsets[s + 1]``; numbers [n] int64 hidden, weights [n] float64.
    """

    offsets: np.ndarray
    numbers: np.ndarray
    weights: np.ndarray


def _objective(path: str, found: Any) -> Objective:
    if not isinstance(found, Objective):
        raise ConfigError(
            f"objective.masking={path} is a {type(found).__name__}; name a hgscale.data.masking.Objective(hidden, "
            "weight, trains)"
        )
    return found


OBJECTIVES: Table[Objective] = Table(
    "objective",
    {
        "random_subset": Objective(
            hidden=lambda size: range(1, size + 1), weight=lambda size, hidden: size / hidden, trains="any_order"
        ),
        "one_mask": Objective(hidden=lambda size: (1,), weight=lambda size, hidden: 1.0, trains="one_mask"),
    },
    _objective,
)
"""The objectives by name."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is hidden, and how often it is drawn anew."""

    masking: str = "random_subset"
    """random_subset hides 1 to all nodes, each number equally likely, weighted by size / hidden: the any-order
    likelihood, which identifies every world. one_mask hides one node (the paper's). Or the import path of an
    Objective, as my_package.masks:mine."""

    redraw: bool = True
    """Change the mask of a sample at every visit; false keeps one mask per sample for ever (the paper's: another
    statistic)."""

    seed: int = 0
    """Seed of the masks."""

    def __post_init__(self) -> None:
        if not is_path(self.masking):
            self.objective()

    def objective(self) -> Objective:
        """What ``masking`` names.

        Raises:
            ConfigError: if there is none of that name.
        """
        return OBJECTIVES.get(self.masking, "objective.masking")

    def law(self, sizes: Sequence[int]) -> Law:
        """What ``masking`` hides of edges of these sizes.

        Raises:
            ConfigError: if there is none of that name, or a member of a plug-in is not as ``Objective`` says.
        """
        return self.objective().law(sizes, f"objective.masking={self.masking}")

    def decides(self) -> dict[str, Any]:
        """What of it decides numbers, for a fingerprint."""
        masking = identified(self.masking, "objective.masking")
        return {"masking": masking, "redraw": self.redraw, "seed": self.seed}


@dataclass(frozen=True)
class Contexts:
    """One bucket of distinct contexts.

    Attributes:
        visible: [c s] int64 visible nodes ascending, PAD at the end; s may be 0.
        num_masked: [c] int64, hidden nodes, at least 1.
        rows: [t] int64 in [0, c), the context of each target.
        targets: [t] int64, hidden nodes.
        weights: [t] float32, the loss weight of each target.
        visible_slots, target_slots: [c s] and [t] int64, where visible nodes and targets stand, for models with
            positions; None for sets.
    """

    visible: np.ndarray
    num_masked: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    visible_slots: np.ndarray | None = None
    target_slots: np.ndarray | None = None


@dataclass(frozen=True)
class Batch:
    """A micro-batch: its contexts by bucket, and how often each size occurs (for the size head).

    Attributes:
        buckets: contexts of similar width.
        size_counts: [max_size + 1] float32, samples of each size.
        num_samples: samples in it.
    """

    buckets: tuple[Contexts, ...]
    size_counts: np.ndarray
    num_samples: int


class Masker:
    """Masks samples, each by its id and visit, and gathers them into batches."""

    def __init__(
        self, sampler: Sampler, config: ObjectiveConfig, merge: bool = True, every_bucket: bool = False
    ) -> None:
        """``merge`` shares equal contexts, for models that see sets; else one row per sample, in the sample's order.

        ``every_bucket`` gives each batch all buckets there can be, so that as many passes are made in every batch.
        """
        self.sampler = sampler
        self.config = config
        self.merge = merge
        self.every_bucket = every_bucket
        self._key = key(config.seed, "mask")
        self._law = config.law(sampler.world.distinct_sizes)

    def batch(self, ids: np.ndarray, visits: np.ndarray) -> Batch:
        """Mask samples at their n-th visits, counted from 0.  ids [b], visits [b] int64 -> Batch."""
        world = self.sampler.world
        edges = self.sampler.draw(ids)
        rows = world.rows(edges)
        size_counts = np.bincount(rows.sizes, minlength=world.max_size + 1).astype(np.float32)
        if self.merge:
            buckets = self._merged(ids, visits, rows)
        else:
            buckets = [bucket for _, bucket in self._in_order(ids, visits, edges, rows.sizes)]
        return Batch(tuple(buckets), size_counts, len(ids))

    def in_order(self, ids: np.ndarray, visits: np.ndarray) -> Iterator[tuple[np.ndarray, Contexts]]:
        """The buckets of ``batch`` without merging, each with the places [c] of its rows among the samples."""
        edges = self.sampler.draw(ids)
        return self._in_order(ids, visits, edges, self.sampler.world.rows(edges).sizes)

    def _masked(self, ids: np.ndarray, visits: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The visit [b] whose mask each sample takes, and how many nodes that hides [b]."""
        visits = visits if self.config.redraw else np.zeros_like(visits)
        num_masked = np.empty(len(ids), dtype=np.int64)
        _draw_num_masked(sizes, ids, visits, self._key, self._law, num_masked)
        return visits, num_masked

    def _merged(self, ids: np.ndarray, visits: np.ndarray, rows: Rows) -> list[Contexts]:
        visits, num_masked = self._masked(ids, visits, rows.sizes)
        visible_of = rows.sizes - num_masked
        buckets = []
        for lo, hi in padded_widths(int(self.sampler.world.max_size)):
            chosen = np.flatnonzero((visible_of >= lo) & (visible_of <= hi))
            if chosen.size:
                arrays = _gather_contexts(
                    rows.index[chosen],
                    ids[chosen],
                    visits[chosen],
                    self._key,
                    self._law,
                    rows.offsets,
                    rows.nodes,
                    num_masked[chosen],
                    hi,
                )
                buckets.append(Contexts(*arrays))
            elif self.every_bucket:
                buckets.append(_without_targets(hi))
        return buckets

    def _in_order(
        self, ids: np.ndarray, visits: np.ndarray, edges: np.ndarray, sizes: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Contexts]]:
        visits, num_masked = self._masked(ids, visits, sizes)
        for size in self.sampler.world.distinct_sizes:
            for hidden in range(1, size + 1):
                chosen = np.flatnonzero((sizes == size) & (num_masked == hidden))
                if chosen.size:
                    nodes = self.sampler.shuffled(ids[chosen], edges[chosen], size)
                    yield chosen, self._positional(nodes, hidden, ids[chosen], visits[chosen])

    def _positional(self, nodes: np.ndarray, hidden: int, ids: np.ndarray, visits: np.ndarray) -> Contexts:
        """Rows of one size and one number hidden; which slots are hidden is drawn as for sets."""
        num_rows, size = nodes.shape
        is_visible = np.empty((num_rows, size), dtype=np.bool_)
        _draw_visible(ids, visits, self._key, self._law, is_visible)
        slots = np.broadcast_to(np.arange(size), nodes.shape)
        rows = np.repeat(np.arange(num_rows), hidden)
        first = self._law.offsets[size]
        turn = first + np.argmax(self._law.numbers[first:] == hidden)
        return Contexts(
            visible=nodes[is_visible].reshape(num_rows, -1).astype(np.int64),
            num_masked=np.full(num_rows, hidden),
            rows=rows,
            targets=nodes[~is_visible].astype(np.int64),
            weights=np.full(len(rows), self._law.weights[turn], dtype=np.float32),
            visible_slots=slots[is_visible].reshape(num_rows, -1),
            target_slots=slots[~is_visible],
        )


def _without_targets(width: int) -> Contexts:
    """A bucket that weighs nothing: one context, of no visible nodes, behind which nothing is asked for."""
    none = np.empty(0, dtype=np.int64)
    visible = np.full((1, width), PAD, dtype=np.int64)
    return Contexts(visible, np.ones(1, dtype=np.int64), rows=none, targets=none, weights=np.empty(0, dtype=np.float32))


def padded_widths(max_size: int) -> list[tuple[int, int]]:
    """Ranges of visible counts that share a bucket, padded to the upper end: 0 to 4, then doubling.

    A pad costs one masked key and a bucket a whole pass over the model, so small sets are not split further.
    """
    ranges, lo, hi = [], 0, 4
    while lo < max_size:
        ranges.append((lo, min(hi, max_size - 1)))
        lo, hi = hi + 1, 2 * hi
    return ranges


@nb.njit(cache=True)
def _turn(sample_key: np.uint64, visit: int, size: int, law: Law) -> tuple[int, int]:
    """Which turn of the law a visit takes, and how often by then the sample has taken them all."""
    first, num_turns = law.offsets[size], law.offsets[size + 1] - law.offsets[size]
    turn = visit + int(below(random_bits(sample_key, np.uint64(0)), np.uint64(num_turns)))
    return first + turn % num_turns, turn // num_turns


@nb.njit(cache=True)
def _mask(sample_key: np.uint64, visit: int, size: int, law: Law, order: np.ndarray, is_visible: np.ndarray) -> float:
    """Which nodes of an edge a visit shows: a window that goes round a random order of them, a new one each time round.

    Fills the first ``size`` entries of ``order`` (scratch) and ``is_visible``. Returns the weight of a hidden node.
    """
    turn, window = _turn(sample_key, visit, size, law)
    num_hidden = law.numbers[turn]
    order_key = random_bits(sample_key, np.uint64(1 + window // size))
    for j in range(size):
        other = np.int64(below(random_bits(order_key, np.uint64(j)), np.uint64(j + 1)))
        order[j] = order[other]
        order[other] = j
    at = window % size
    for j in range(size):
        is_visible[order[at]] = j >= num_hidden
        at = at + 1 if at + 1 < size else 0
    return float(law.weights[turn])


@nb.njit(cache=True)
def _draw_num_masked(
    sizes: np.ndarray, ids: np.ndarray, visits: np.ndarray, mask_key: np.uint64, law: Law, num_masked: np.ndarray
) -> None:
    for i in range(len(sizes)):
        turn, _ = _turn(random_bits(mask_key, np.uint64(ids[i])), visits[i], sizes[i], law)
        num_masked[i] = law.numbers[turn]


@nb.njit(cache=True)
def _draw_visible(ids: np.ndarray, visits: np.ndarray, mask_key: np.uint64, law: Law, is_visible: np.ndarray) -> None:
    num_rows, size = is_visible.shape
    order = np.empty(size, dtype=np.int64)
    for i in range(num_rows):
        _mask(random_bits(mask_key, np.uint64(ids[i])), visits[i], size, law, order, is_visible[i])


@nb.njit(cache=True)
def _gather_contexts(
    index: np.ndarray,
    ids: np.ndarray,
    visits: np.ndarray,
    mask_key: np.uint64,
    law: Law,
    offsets: np.ndarray,
    nodes: np.ndarray,
    num_masked: np.ndarray,
    width: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mask each sample, then merge equal contexts and, within a context, equal targets.

    Returns visible [c width] (PAD at the end), num_masked [c], and rows, targets, weights [t], in order of first use.
    Two open-addressing tables find what is already there; entries are compared in full, so a hash collision costs a
    probe and never merges what differs.
    """
    num_samples = len(index)
    num_targets = np.sum(num_masked)
    context_table = np.full(_table_size(num_samples), -1, dtype=np.int64)
    target_table = np.full(_table_size(num_targets), -1, dtype=np.int64)
    visible = np.full((num_samples, width), PAD, dtype=np.int64)
    row_masked = np.empty(num_samples, dtype=np.int64)
    rows = np.empty(num_targets, dtype=np.int64)
    targets = np.empty(num_targets, dtype=np.int64)
    sums = np.zeros(num_targets, dtype=np.float64)
    hidden_nodes = np.empty(np.max(num_masked), dtype=np.int64)
    max_size = np.max(num_masked) + width
    order, is_visible = np.empty(max_size, dtype=np.int64), np.empty(max_size, dtype=np.bool_)
    num_rows = num_entries = 0
    for i in range(num_samples):
        start, size, hidden = offsets[index[i]], offsets[index[i] + 1] - offsets[index[i]], num_masked[i]
        weight = _mask(random_bits(mask_key, np.uint64(ids[i])), visits[i], size, law, order, is_visible)
        num_visible = num_hidden = 0
        content = np.uint64(hidden)
        # Write the row where the next new context would stand; if it is not new, the next sample overwrites it.
        for j in range(size):
            node = np.int64(nodes[start + j])
            if is_visible[j]:
                visible[num_rows, num_visible] = node
                num_visible += 1
                content = random_bits(content, np.uint64(node))
            else:
                hidden_nodes[num_hidden] = node
                num_hidden += 1
        for j in range(num_visible, width):
            visible[num_rows, j] = PAD
        row_masked[num_rows] = hidden
        row = _find_row(context_table, content, visible, row_masked, num_rows)
        if row == num_rows:
            num_rows += 1
        for j in range(hidden):
            entry = _find_target(target_table, rows, targets, row, hidden_nodes[j], num_entries)
            if entry == num_entries:
                num_entries += 1
            sums[entry] += weight
    return (
        visible[:num_rows].copy(),
        row_masked[:num_rows].copy(),
        rows[:num_entries].copy(),
        targets[:num_entries].copy(),
        sums[:num_entries].astype(np.float32),
    )


@nb.njit(cache=True)
def _table_size(num_entries: int) -> int:
    size = 16
    while size < 2 * num_entries:
        size *= 2
    return size


@nb.njit(cache=True)
def _find_row(table: np.ndarray, content: np.uint64, visible: np.ndarray, row_masked: np.ndarray, new: int) -> int:
    """The row equal to row ``new``, which is entered when there is none."""
    slot = np.int64(content & np.uint64(len(table) - 1))
    while table[slot] >= 0:
        row = table[slot]
        same = row_masked[row] == row_masked[new]
        for j in range(visible.shape[1]):
            same = same and visible[row, j] == visible[new, j]
        if same:
            return int(row)
        slot = (slot + 1) & (len(table) - 1)
    table[slot] = new
    return new


@nb.njit(cache=True)
def _find_target(table: np.ndarray, rows: np.ndarray, targets: np.ndarray, row: int, target: int, new: int) -> int:
    """The entry of (row, target), which is entered as ``new`` when there is none."""
    content = random_bits(np.uint64(row), np.uint64(target))
    slot = np.int64(content & np.uint64(len(table) - 1))
    while table[slot] >= 0:
        entry = table[slot]
        if rows[entry] == row and targets[entry] == target:
            return int(entry)
        slot = (slot + 1) & (len(table) - 1)
    table[slot] = new
    rows[new] = row
    targets[new] = target
    return new
