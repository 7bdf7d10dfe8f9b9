"""Worlds with planted classes: their edges inside and across classes, and what these weigh."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numba as nb
import numpy as np

from hgscale import rng
from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import Hypergraph, unique_rows
from hgscale.hypergraph.subsets import MAX_RANK, random_subsets, unrank
from hgscale.hypergraph.worlds.parts import (
    AddressedPart,
    ExchangedPart,
    Part,
    Subsets,
    check_nodes,
    check_size,
    edge_key,
)
from hgscale.hypergraph.worlds.weights import WeightLaw, check_kappa
from hgscale.rng import open_unit, random_bits

# Up to this many ways to fall into classes, all are listed to find the extreme ones.
_MAX_LISTED_PATTERNS = 100_000


def block(num_nodes: int, num_edges: int | None, size: int, num_blocks: int, seed: int) -> tuple[Part, ...]:
    """A planted partition: edges inside classes in one part, edges across classes in another.

    Node i is of class i * num_blocks // n. Edges are drawn uniformly inside and across, as many of each as their share
    of all C(n, k) sets (at least one of each): the support says nothing about the classes, the weights do. With
    ``num_edges=None`` every set is an edge, so that the classes alone give the whole world (block-constant).

    Args:
        num_nodes: n.
        num_edges: exact number of edges, or None for all C(n, size).
        size: k >= 2.
        num_blocks: classes, as equal as n allows.
        seed: of the world.

    Raises:
        ConfigError: more edges than there are sets, fewer than two, or classes too small to hold an edge.
    """
    check_nodes(num_nodes, at_least=2)
    if not 2 <= num_blocks <= num_nodes:
        raise ConfigError(f"world.num_blocks={num_blocks} is outside [2, world.num_nodes={num_nodes}]")
    total = check_size(num_nodes, size, num_edges)
    inside = num_within(num_nodes, num_edges, size, num_blocks)
    if num_edges is None:
        return (Subsets(size, total, num_nodes, seed),)
    fits = _num_inside(num_nodes, size, num_blocks) <= MAX_RANK
    return (
        (InnerSets if fits else DrawnInnerSets)(size, inside, num_nodes, num_blocks, seed),
        CrossingSets(size, num_edges - inside, num_nodes, num_blocks, seed),
    )


@dataclass(frozen=True)
class InnerSets(AddressedPart):
    """Sets inside one class, uniform among all, in the order of a permutation of (class, rank in the class)."""

    num_nodes: int
    num_blocks: int
    seed: int

    def rows_at(self, index: np.ndarray) -> np.ndarray:
        members = _members(self.num_nodes, self.num_blocks)
        lengths, kind = np.unique(members, return_inverse=True)
        capacities = np.array([math.comb(int(length), self.size) for length in lengths])[kind]
        starts = np.concatenate([[0], np.cumsum(capacities)])
        ranks = rng.permute(index, int(starts[-1]), edge_key(self.seed, self.size))
        owner = np.searchsorted(starts, ranks, side="right") - 1
        return _in_classes(
            members,
            owner,
            lambda chosen, count: unrank(ranks[chosen] - starts[owner[chosen]], count, self.size),
            self.size,
        )


@dataclass(frozen=True)
class DrawnInnerSets(ExchangedPart):
    """Sets inside one class, uniform among more than there are ranks."""

    num_nodes: int
    num_blocks: int
    seed: int

    def propose(self, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
        members = _members(self.num_nodes, self.num_blocks)
        total = _num_inside(self.num_nodes, self.size, self.num_blocks)
        lengths, kind = np.unique(members, return_inverse=True)
        chances = np.array([math.comb(int(length), self.size) / total for length in lengths])[kind]
        counters, key = np.arange(lo, hi), edge_key(self.seed, self.size)
        coins = _coins(counters, rng.key(self.seed, "world/class", self.size))
        owner = np.minimum(np.searchsorted(np.cumsum(chances), coins, side="right"), np.flatnonzero(chances)[-1])
        rows = _in_classes(
            members,
            owner,
            lambda chosen, count: random_subsets(counters[chosen], count, self.size, key),
            self.size,
        )
        return rows, counters


@dataclass(frozen=True)
class CrossingSets(ExchangedPart):
    """Sets that meet at least two classes, uniform among all: those among all sets, in the order of a permutation.

    Where ranks are too many for one, whole sets are drawn.
    """

    num_nodes: int
    num_blocks: int
    seed: int

    def propose(self, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
        total = math.comb(self.num_nodes, self.size)
        key = rng.key(self.seed, "world/across", self.size)
        counters = np.arange(lo, min(hi, total))
        if total <= MAX_RANK:
            rows = unrank(rng.permute(counters, total, key), self.num_nodes, self.size)
        else:
            rows = random_subsets(counters, self.num_nodes, self.size, key)
        ends = block_of(rows[:, [0, -1]], self.num_nodes, self.num_blocks)
        crossing = ends[:, 0] != ends[:, 1]  # classes are runs: the ends tell
        return rows[crossing], counters[crossing]

    @property
    def max_proposals(self) -> int:
        total = math.comb(self.num_nodes, self.size)
        return total if total <= MAX_RANK else super().max_proposals


def _members(num_nodes: int, num_blocks: int) -> np.ndarray:
    """[B] int64: nodes of each class; node i is of class floor(i B / n), so class c begins at ceil(c n / B)."""
    return np.diff(-(-np.arange(num_blocks + 1) * num_nodes // num_blocks))


def _in_classes(
    members: np.ndarray, owner: np.ndarray, draw: Callable[[np.ndarray, int], np.ndarray], size: int
) -> np.ndarray:
    """[r, size] int32: rows within a class each, made together for all classes of one length and shifted.

    Args:
        members: [B] int64, nodes of each class.
        owner: [r] int64, the class of each row.
        draw: given rows ([c] int64) and the number of nodes of their classes, their nodes counted from 0.
        size: nodes in a row.
    """
    first = np.cumsum(members) - members
    rows = np.empty((len(owner), size), dtype=np.int32)
    for count in np.unique(members[owner]):
        chosen = np.flatnonzero(members[owner] == count)
        rows[chosen] = draw(chosen, int(count)) + first[owner[chosen], None]
    return rows


def _num_inside(num_nodes: int, size: int, num_blocks: int) -> int:
    """Sets of a size that lie inside one class; classes have one of two lengths."""
    least, longer = divmod(num_nodes, num_blocks)
    return longer * math.comb(least + 1, size) + (num_blocks - longer) * math.comb(least, size)


def num_within(num_nodes: int, num_edges: int | None, size: int, num_blocks: int) -> int:
    """How many edges of a block world lie inside a class."""
    total, inside = math.comb(num_nodes, size), _num_inside(num_nodes, size, num_blocks)
    if size < 2:
        raise ConfigError(f"world.size={size} cannot lie across classes; generator block needs at least 2")
    if inside == 0:
        raise ConfigError(
            f"world.num_blocks={num_blocks} makes classes of at most {-(-num_nodes // num_blocks)} nodes, which hold "
            f"no edge of world.size={size}; take fewer blocks or a smaller size"
        )
    wanted = total if num_edges is None else num_edges
    if wanted < 2:
        raise ConfigError(f"world.num_edges={wanted} cannot lie both inside and across classes; at least 2")
    return min(max(round(wanted * (inside / total)), 1, wanted - (total - inside)), wanted - 1, inside)


@nb.njit(cache=True)
def _coins(counters: np.ndarray, key: np.uint64) -> np.ndarray:
    """[r] float64 in (0, 1)."""
    out = np.empty(len(counters))
    for i in range(len(counters)):
        out[i] = open_unit(random_bits(key, np.uint64(counters[i])))
    return out


@dataclass(frozen=True)
class BlockLaw(WeightLaw):
    """One weight inside classes and one across, so that the two kinds have masses in the ratio asked for."""

    num_nodes: int
    num_blocks: int
    within: float
    """Weight of an edge inside a class."""
    across: float
    """Weight of an edge across classes."""

    def of(self, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
        ends = block_of(rows[:, [0, -1]], self.num_nodes, self.num_blocks)
        return np.where(ends[:, 0] == ends[:, 1], self.within, self.across)  # classes are runs: the ends tell


def two_level_blocks(num_nodes: int, num_edges: int, size: int, num_blocks: int, within_ratio: float) -> BlockLaw:
    """One weight inside classes and one across, whose masses have the ratio ``within_ratio``.

    Raises:
        ConfigError: if the ratio is not positive and finite.
    """
    if not 0 < within_ratio < math.inf:
        raise ConfigError(f"world.within_ratio={within_ratio} is not a positive finite number")
    inside = num_within(num_nodes, num_edges, size, num_blocks)
    return BlockLaw(num_nodes, num_blocks, within_ratio / inside, 1 / (num_edges - inside))


@dataclass(frozen=True)
class PatternLaw(WeightLaw):
    """One weight for each way to fall into classes: kappa^u, u uniform, stretched so that max / min is kappa.

    The stretch is over all ways that n nodes allow. Where they are too many to list it is left out: the extremes of
    so many u lie within about 1e-5 of 0 and 1.

    Raises:
        ConfigError: if kappa is below 1 or not finite.
    """

    num_nodes: int
    num_blocks: int
    size: int
    kappa: float
    seed: int

    def __post_init__(self) -> None:
        check_kappa(self.kappa)

    @property
    def setting(self) -> str:  # type: ignore[override]
        return f"world.kappa={self.kappa}"

    def of(self, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
        low, high = self._extremes
        level = self._levels(block_of(rows, self.num_nodes, self.num_blocks)) - low
        return np.exp(level / max(high - low, np.finfo(np.float64).tiny) * math.log(self.kappa))

    def _levels(self, classes: np.ndarray) -> np.ndarray:
        return _pattern_levels(np.ascontiguousarray(classes), rng.key(self.seed, "world/weights"))

    @functools.cached_property
    def _extremes(self) -> tuple[float, float]:
        if math.comb(self.num_blocks + self.size - 1, self.size) > _MAX_LISTED_PATTERNS:
            return 0.0, 1.0
        members = np.bincount(block_of(np.arange(self.num_nodes), self.num_nodes, self.num_blocks))
        ways = itertools.combinations_with_replacement(range(self.num_blocks), self.size)
        classes = np.array([way for way in ways if all(way.count(c) <= members[c] for c in set(way))], dtype=np.int64)
        levels = self._levels(classes)
        return float(levels.min()), float(levels.max())


def block_of(nodes: np.ndarray, num_nodes: int, num_blocks: int) -> np.ndarray:
    """The planted class of each node, an array of any shape; classes are runs of ids, their lengths within 1."""
    return nodes.astype(np.int64) * num_blocks // num_nodes


BLOCK_LAWS: Mapping[str, Callable[..., WeightLaw]] = {"two_level": two_level_blocks, "random": PatternLaw}
"""What ``world.block_law`` may name."""


def block_groups(world: Hypergraph, num_blocks: int, block_law: str) -> np.ndarray:
    """[E] int64 from 0: the edges of a ``block`` world that weigh the same by construction."""
    return class_patterns(world, num_blocks, within_only=block_law == "two_level")


def class_patterns(world: Hypergraph, num_blocks: int, within_only: bool = False) -> np.ndarray:
    """[E] int64 from 0: which edges of a ``block`` world fall into classes in the same way.

    Two edges do where they have as many nodes in every class; with ``within_only`` where both or neither lie inside one
    class (1 or 0). Patterns are numbered as they ascend, nodes of an edge being ordered.
    """
    rows = block_of(world.edges_of_size(world.max_size), world.num_nodes, num_blocks)
    if within_only:
        inside: np.ndarray = (rows[:, 0] == rows[:, -1]).astype(np.int64)
        return inside
    return unique_rows(rows)[1]


@nb.njit(cache=True)
def _pattern_levels(classes: np.ndarray, key: np.uint64) -> np.ndarray:
    """[b, k] int64 classes, ascending -> [b] float64 in (0, 1), one number for each multiset of classes."""
    levels = np.empty(len(classes))
    for i in range(len(classes)):
        word = key
        for d in range(classes.shape[1]):
            word = random_bits(word, np.uint64(classes[i, d]))
        levels[i] = open_unit(word)
    return levels
