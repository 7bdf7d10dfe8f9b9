"""Families of generated worlds, each as its parts: one after the other, they number all edges of a world.

An impossible request is refused at once, with the largest possible one; nothing is drawn before edges are asked for.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numba as nb
import numpy as np

from hgscale import rng
from hgscale.errors import ConfigError
from hgscale.hypergraph.sampling import alias_table, chosen, scaled
from hgscale.hypergraph.subsets import MAX_RANK, rank, unrank
from hgscale.hypergraph.worlds.blocks import BLOCK_LAWS, block, block_groups
from hgscale.hypergraph.worlds.parts import (
    SHARD_EDGES,
    AddressedPart,
    DrawnSubsets,
    ExchangedPart,
    Part,
    Subsets,
    check_nodes,
    check_size,
    edge_key,
)
from hgscale.hypergraph.worlds.weights import LAWS, WeightLaw
from hgscale.rng import open_unit, random_bits

# Up to this many candidate edges, all are listed: a race among them is then exact however dense the request.
_MAX_LISTED = 1_000_000
# Of more, all are listed where a quarter or more are edges, which drawing them might not find; up to what memory holds.
_MAX_LISTED_IF_DENSE = 100_000_000


# ---- uniform ----


def uniform(
    num_nodes: int, num_edges: int | None, size: int, sizes: Mapping[int, float] | None, seed: int
) -> tuple[Part, ...]:
    """Edges drawn uniformly without replacement, of one size or of several; one part a size.

    Args:
        num_nodes: n.
        num_edges: exact number of edges.
        size: k, nodes in every edge.
        sizes: size -> share of the edges (normalised here; counts rounded by largest remainder), in place of one size.
        seed: of the world; the same seed gives the same edges.

    Raises:
        ConfigError: a size outside [1, n], a share that leaves no edge, or more edges than there are sets.
    """
    check_nodes(num_nodes, at_least=1)
    num_edges = _given(num_edges, "uniform")
    shares = {size: 1.0} if sizes is None else dict(sorted(sizes.items()))
    _check_shares(num_nodes, shares)
    counts = _apportion(num_edges, shares)
    capacity = {size: math.comb(num_nodes, size) for size in shares}
    if any(counts[size] > capacity[size] for size in shares):
        most = _most_edges(shares, capacity)
        raise ConfigError(
            f"world.num_edges={num_edges} with shares {_shares_text(shares)} of {num_nodes} nodes asks for more sets "
            f"than there are; at most {most}"
        )
    empty = [size for size in shares if counts[size] == 0]
    if empty:
        raise ConfigError(
            f"world.num_edges={num_edges} leaves no edge of size {empty[0]} under shares {_shares_text(shares)}; "
            f"raise world.num_edges or drop that size"
        )
    # Beyond 64-bit ranks any feasible request is so sparse that repeats are rare; draw whole sets.
    return tuple(
        (Subsets if capacity[size] <= MAX_RANK else DrawnSubsets)(size, counts[size], num_nodes, seed)
        for size in shares
    )


# ---- trees and graphs ----


def star(num_nodes: int, num_edges: int | None = None) -> tuple[AddressedPart]:
    """Pairs {0, i}: line-graph diameter 1.

    Raises:
        ConfigError: for another number of edges than a tree has, here and below.
    """
    return _tree("star", num_nodes, num_edges, at_least=2)


def chain(num_nodes: int, num_edges: int | None = None) -> tuple[AddressedPart]:
    """Pairs {i, i + 1}: line-graph diameter n - 2."""
    return _tree("chain", num_nodes, num_edges, at_least=2)


def cross(num_nodes: int, num_edges: int | None = None) -> tuple[AddressedPart]:
    """Four arms out of node 0, as equal as n allows: line-graph diameter 9 at n = 20 (arms of 5, 5, 5 and 4 pairs)."""
    return _tree("cross", num_nodes, num_edges, at_least=5)


Shape = Literal["star", "chain", "cross"]


def _tree(shape: Shape, num_nodes: int, num_edges: int | None, at_least: int) -> tuple[AddressedPart]:
    check_nodes(num_nodes, at_least)
    if num_edges not in (None, num_nodes - 1):
        raise ConfigError(
            f"world.num_edges={num_edges}: a {shape} of {num_nodes} nodes has exactly {num_nodes - 1} edges; leave it "
            "null"
        )
    return (Tree(2, num_nodes - 1, shape),)


@dataclass(frozen=True)
class Tree(AddressedPart):
    """Node j + 1 hangs on a node before it."""

    shape: Shape

    def rows_at(self, index: np.ndarray) -> np.ndarray:
        parents = {"star": np.zeros_like(index), "chain": index, "cross": np.maximum(index - 3, 0)}[self.shape]
        return np.stack([parents, index + 1], axis=1).astype(np.int32)


def gnm(num_nodes: int, num_edges: int | None, seed: int) -> tuple[AddressedPart]:
    """A connected graph: a uniformly random spanning tree, and further pairs drawn uniformly from the rest.

    Every connected graph with that many edges can come out, those with many spanning trees more often.

    Args:
        num_nodes: n >= 2.
        num_edges: m in [n - 1, C(n, 2)]; None takes the density of the paper, int(0.2 n (n - 1) / 2).
        seed: of the world.

    Raises:
        ConfigError: too few edges to connect the nodes, or more than there are pairs.

    Source: the density and the name from the worlds of arXiv 2406.11249; the drawing is ours.
    """
    check_nodes(num_nodes, at_least=2)
    pairs = math.comb(num_nodes, 2)
    shown = f"{num_edges}" if num_edges is not None else f"null (int(0.2 n (n - 1) / 2) = {int(0.2 * pairs)})"
    wanted = int(0.2 * pairs) if num_edges is None else num_edges
    if not num_nodes - 1 <= wanted <= pairs:
        raise ConfigError(
            f"world.num_edges={shown} cannot make a connected graph of world.num_nodes={num_nodes}; "
            f"at least {num_nodes - 1} and at most {pairs}"
        )
    return (ConnectedGraph(2, wanted, num_nodes, seed),)


@dataclass(frozen=True)
class ConnectedGraph(AddressedPart):
    """The pairs of a tree by rank, then pairs out of the rest in the order of a permutation."""

    num_nodes: int
    seed: int

    def rows_at(self, index: np.ndarray) -> np.ndarray:
        tree = self._tree_ranks
        ranks = tree[np.minimum(index, len(tree) - 1)]
        others = index >= len(tree)
        num_free = math.comb(self.num_nodes, 2) - len(tree)
        if others.any():
            free = rng.permute(index[others] - len(tree), num_free, edge_key(self.seed, self.size))
            # The f-th free rank is f plus the taken ranks below it; taken[i] - i counts the free ranks below taken[i].
            ranks[others] = free + np.searchsorted(tree - np.arange(len(tree)), free, side="right")
        return unrank(ranks, self.num_nodes, 2)

    @property
    def table_bytes(self) -> int:
        return 64 * self.num_nodes  # sequence, degrees, pairs, ranks and what sorts them

    @functools.cached_property
    def _tree_ranks(self) -> np.ndarray:
        """[n - 1] int64, ascending."""
        draw = rng.stream(self.seed, "world/tree")
        tree = tree_from_pruefer(draw.integers(0, self.num_nodes, size=self.num_nodes - 2), self.num_nodes)
        return np.sort(rank(np.sort(tree, axis=1), self.num_nodes))


@nb.njit(cache=True)
def tree_from_pruefer(sequence: np.ndarray, num_nodes: int) -> np.ndarray:
    """[n - 1, 2] int64: the tree of a Pruefer sequence [n - 2]; a bijection, so uniform in gives uniform out."""
    degree = np.ones(num_nodes, dtype=np.int64)
    for node in sequence:
        degree[node] += 1
    tree = np.empty((num_nodes - 1, 2), dtype=np.int64)
    scan = 0
    while degree[scan] != 1:
        scan += 1
    leaf = scan
    for i in range(num_nodes - 2):
        node = sequence[i]
        tree[i, 0], tree[i, 1] = leaf, node
        degree[node] -= 1
        if degree[node] == 1 and node < scan:
            leaf = node
        else:
            scan += 1
            while degree[scan] != 1:
                scan += 1
            leaf = scan
    tree[num_nodes - 2, 0], tree[num_nodes - 2, 1] = leaf, num_nodes - 1
    return tree


# ---- power law ----


def power_law(
    num_nodes: int, num_edges: int | None, size: int, power_law_exponent: float, seed: int
) -> tuple[Part, ...]:
    """Edges drawn in turn without replacement, a set's chance in proportion to the product of its nodes' pulls.

    Node i pulls with (i + 1)^(-1 / (x - 1)), x being the exponent, so degrees have a tail P(degree > d) of about
    d^(1 - x) while the request is sparse; node 0 is the hub. As edges are distinct, hubs flatten out in dense requests.

    Args:
        num_nodes: n.
        num_edges: exact number of edges.
        size: k, nodes in every edge.
        power_law_exponent: of the degree law; over 2 (finite mean).
        seed: of the world.

    Raises:
        ConfigError: more edges than there are sets.

    Source: derived here from the Chung-Lu picture: k independent draws by pull, kept when all differ.
    """
    check_nodes(num_nodes, at_least=1)
    num_edges, exponent = _given(num_edges, "power_law"), power_law_exponent
    total = check_size(num_nodes, size, num_edges)
    if not 2 < exponent < math.inf:
        raise ConfigError(f"world.power_law_exponent={exponent} is outside (2, inf); 2.5 is usual")
    listed = total <= max(_MAX_LISTED, min(4 * num_edges, _MAX_LISTED_IF_DENSE))
    return ((RacedSets if listed else PulledSets)(size, num_edges, num_nodes, exponent, seed),)


@dataclass(frozen=True)
class RacedSets(AddressedPart):
    """Few enough sets to list: each has an exponential clock of its pull, and the first to ring are the edges.

    The first m of independent exponential clocks are m draws without replacement in proportion to their rates.
    """

    num_nodes: int
    exponent: float
    seed: int

    def rows_at(self, index: np.ndarray) -> np.ndarray:
        return unrank(self._ranks[index], self.num_nodes, self.size)

    @property
    def table_bytes(self) -> int:
        return 32 * math.comb(self.num_nodes, self.size)  # times, their order and what concatenates them

    @functools.cached_property
    def _ranks(self) -> np.ndarray:
        """[E] int64, ascending: the ranks of the edges."""
        total = math.comb(self.num_nodes, self.size)
        pieces = [self._log_times(np.arange(lo, min(lo + SHARD_EDGES, total))) for lo in range(0, total, SHARD_EDGES)]
        return np.sort(np.argpartition(np.concatenate(pieces), self.num_edges - 1)[: self.num_edges])

    def _log_times(self, ranks: np.ndarray) -> np.ndarray:
        """[r] float64: when the clocks of these sets ring."""
        rows = unrank(ranks, self.num_nodes, self.size)
        log_rate = _log_pull(self.num_nodes, self.exponent)[rows].sum(axis=1)
        times: np.ndarray = np.log(_clocks(ranks, edge_key(self.seed, self.size))) - log_rate
        return times


@dataclass(frozen=True)
class PulledSets(ExchangedPart):
    """Proposals are k independent nodes by pull, kept where all differ."""

    num_nodes: int
    exponent: float
    seed: int

    def propose(self, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.empty((hi - lo, self.size), dtype=np.int32)
        kept = _draw_pulled(lo, edge_key(self.seed, self.size), self._alias, rows)
        return rows[kept], np.arange(lo, hi)[kept]

    @property
    def table_bytes(self) -> int:
        return 48 * self.num_nodes  # the alias table and what builds it

    @functools.cached_property
    def _alias(self) -> np.ndarray:
        pull = np.exp(_log_pull(self.num_nodes, self.exponent))
        return alias_table(pull / pull.sum())


def _log_pull(num_nodes: int, exponent: float) -> np.ndarray:
    """[n] float64."""
    return -np.log(np.arange(1, num_nodes + 1)) / (exponent - 1)


@nb.njit(cache=True)
def _clocks(counters: np.ndarray, key: np.uint64) -> np.ndarray:
    """[r] float64: exponential variables of rate 1."""
    out = np.empty(len(counters))
    for i in range(len(counters)):
        out[i] = -np.log(open_unit(random_bits(key, np.uint64(counters[i]))))
    return out


@nb.njit(cache=True)
def _draw_pulled(first: int, key: np.uint64, alias: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Fill rows with proposals first, first + 1, ..., nodes ascending; [r] bool: whether all nodes differ."""
    kept = np.ones(len(rows), dtype=np.bool_)
    num_nodes, size = np.uint64(len(alias)), rows.shape[1]
    for i in range(len(rows)):
        counter = np.uint64(first + i) * np.uint64(size)
        for j in range(size):
            word = scaled(random_bits(key, counter + np.uint64(j)), num_nodes)
            node = np.int64(chosen(word, alias[word >> np.uint64(32)]))
            place = j
            while place > 0 and rows[i, place - 1] > node:
                rows[i, place] = rows[i, place - 1]
                place -= 1
            rows[i, place] = node
            if place > 0 and rows[i, place - 1] == node:
                kept[i] = False
                break
    return kept


# ---- numbers and refusals ----


def _apportion(num_edges: int, shares: Mapping[int, float]) -> dict[int, int]:
    """Whole counts that sum to ``num_edges``: floors, and the rest to the largest remainders, smaller sizes first."""
    total = sum(shares.values())
    exact = {size: num_edges * share / total for size, share in shares.items()}
    counts = {size: int(value) for size, value in exact.items()}
    by_remainder = sorted(shares, key=lambda size: (counts[size] - exact[size], size))
    for size in by_remainder[: num_edges - sum(counts.values())]:
        counts[size] += 1
    return counts


def _most_edges(shares: Mapping[int, float], capacity: Mapping[int, int]) -> int:
    """The largest number of edges whose apportionment fits; rounding moves it a little above min capacity / share."""
    total = sum(shares.values())
    most = int(min((min(capacity[size], MAX_RANK) + 1) * total / share for size, share in shares.items()))
    while any(count > capacity[size] for size, count in _apportion(most, shares).items()):
        most -= 1
    return most


def _shares_text(shares: Mapping[int, float]) -> str:
    return "{" + ", ".join(f"{size}: {share:g}" for size, share in shares.items()) + "}"


def _given(num_edges: int | None, family: str) -> int:
    """The number of edges of a family that cannot know it."""
    if num_edges is None:
        raise ConfigError(f"world.num_edges=null: generator {family} needs a number; give one")
    if num_edges < 1:
        raise ConfigError(f"world.num_edges={num_edges} is below 1; a world needs an edge")
    return num_edges


def _check_shares(num_nodes: int, shares: Mapping[int, float]) -> None:
    if not shares:
        raise ConfigError("world.sizes={} is empty; give size: share, as {2: 0.5, 3: 0.5}")
    for size, share in shares.items():
        check_size(num_nodes, size, None)
        if not 0 < share < math.inf:
            raise ConfigError(f"world.sizes gives size {size} the share {share}; a positive finite number is wanted")


# ---- the table ----


@dataclass(frozen=True)
class Family:
    """A generator. Each function gets fields of the config by the names of its arguments.

    Attributes:
        parts: makes the edges.
        law_field: the field that names the law of the weights.
        laws: what that field may name.
        groups: (world, ...) -> [E] int64, the edges that weigh the same by construction; None where none do.
    """

    parts: Callable[..., tuple[Part, ...]]
    law_field: str = "weights"
    laws: Mapping[str, Callable[..., WeightLaw]] = field(default_factory=lambda: LAWS)
    groups: Callable[..., np.ndarray] | None = None


FAMILIES: Mapping[str, Family] = {
    "uniform": Family(uniform),
    "gnm": Family(gnm),
    "star": Family(star),
    "cross": Family(cross),
    "chain": Family(chain),
    "power_law": Family(power_law),
    "block": Family(block, "block_law", BLOCK_LAWS, block_groups),
}
"""What ``world.generator`` may name."""
