"""What a world is, and the one held in memory: a weighted hypergraph in CSR form, checked, canonical, hashable."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from hgscale.errors import DataError
from hgscale.hypergraph.sampling import alias_table, draw_by_table, gather_shuffled
from hgscale.rng import key

MAX_EDGE_SIZE = 2**15
MAX_NODES = 2**31  # ids are int32
PAD = -1  # stands for no node, where rows of nodes have different lengths


@dataclass(frozen=True)
class Rows:
    """The nodes of b chosen edges, in place: edge i of them holds ``nodes[offsets[index[i]]:offsets[index[i] + 1]]``.

    Attributes:
        index: [b] int64.
        offsets: int64, ascending.
        nodes: int32, ascending within an edge.
    """

    index: np.ndarray
    offsets: np.ndarray
    nodes: np.ndarray

    @cached_property
    def sizes(self) -> np.ndarray:
        """[b] int64, nodes in each chosen edge."""
        sizes: np.ndarray = self.offsets[self.index + 1] - self.offsets[self.index]
        return sizes

    def of_size(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Which of the chosen edges have this size, [a] int64, and their nodes, [a size] int32."""
        at = np.flatnonzero(self.sizes == size)
        return at, self.nodes[self.offsets[self.index[at]][:, None] + np.arange(size)]

    def shuffled(self, ids: np.ndarray, size: int, order_key: np.uint64) -> np.ndarray:
        """The nodes of samples [b] whose edges all have one size, in each sample's own order.  -> [b size] int32.

        ``order_key`` is ``key(seed, "sample/order")``, whatever kind of world the rows are of.
        """
        nodes = np.empty((len(ids), size), dtype=np.int32)
        gather_shuffled(ids, self.index, order_key, self.offsets, self.nodes, nodes)
        return nodes


class World(Protocol):
    """What training and recovery ask of a world: weighted edges by their number, wherever they are kept.

    ``Hypergraph`` holds them in memory, ``data.disk.shards`` on disk, ``implicit`` nowhere: it computes them.
    """

    @property
    def num_nodes(self) -> int:
        """n; node ids run from 0."""

    @property
    def num_edges(self) -> int:
        """E; edges are numbered from 0."""

    @property
    def distinct_sizes(self) -> tuple[int, ...]:
        """The sizes that occur, ascending."""

    @property
    def max_size(self) -> int:
        """The largest of them."""

    @property
    def kappa(self) -> float:
        """Largest weight over smallest weight."""

    @property
    def digest(self) -> str:
        """32 hex digits that name the world."""

    def rows(self, edges: np.ndarray) -> Rows:
        """The nodes of edges [b] int64."""

    def weights_of(self, edges: np.ndarray) -> np.ndarray:
        """[b] float64: the weights of edges [b] int64; those of all edges sum to 1."""

    def weight_chunks(self) -> Iterator[np.ndarray]:
        """The weights of all edges, piece by piece."""

    def sampler(self, seed: int) -> "Sampler":
        """The samples of this world under one seed."""


class Sampler(Protocol):
    """The samples of a world under one seed: sample i is a pure function of (world, seed, i)."""

    @property
    def world(self) -> World:
        """The world that they are drawn from."""

    def draw(self, ids: np.ndarray) -> np.ndarray:
        """The edge of each sample.  ids [b] int64, not negative -> [b] int64 in [0, E)."""

    def shuffled(self, ids: np.ndarray, edges: np.ndarray, size: int) -> np.ndarray:
        """The nodes of samples whose edges have one size, in each sample's own order.  [b], [b] -> [b size] int32."""


@dataclass(frozen=True, eq=False)
class Hypergraph:
    """Edges as sets of nodes, with weights that sum to 1, in canonical order.

    Canonical: nodes ascend within an edge; edges ascend by size, then by nodes; no edge stands twice. Build one with
    ``from_arrays`` or ``from_edges``, which check and bring to this form.

    Attributes:
        offsets: [E + 1] int64; edge e holds ``nodes[offsets[e]:offsets[e + 1]]``.
        nodes: [nnz] int32 node ids in [0, num_nodes).
        weights: [E] float64, positive, summing to 1.
        num_nodes: number of nodes, those in no edge included.
        labels: name of each node, or None where nodes are just numbers.
    """

    offsets: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    num_nodes: int
    labels: tuple[str, ...] | None = None

    @staticmethod
    def from_arrays(
        offsets: np.ndarray,
        nodes: np.ndarray,
        weights: np.ndarray,
        num_nodes: int | None = None,
        labels: Sequence[str] | None = None,
        where: str = "hypergraph",
    ) -> "Hypergraph":
        """Check, sort, merge duplicates (their weights add), drop nothing but edges of weight 0, and normalise.

        Args:
            offsets: [E + 1] integers, ascending from 0 to nnz.
            nodes: [nnz] integers in [0, num_nodes), in any order within an edge.
            weights: [E] finite, non-negative, not all 0.
            num_nodes: defaults to the number of labels, else the largest id + 1.
            labels: name of each node.
            where: what to call this input in errors (a file, a generator).

        Raises:
            DataError: naming ``where`` and the first offending edge.
        """
        offsets = np.asarray(offsets, dtype=np.int64)
        nodes = np.asarray(nodes)
        weights = np.asarray(weights, dtype=np.float64)
        num_nodes = _check(offsets, nodes, weights, num_nodes, labels, where)
        offsets, nodes, weights = _canonical(offsets, nodes.astype(np.int32), weights)
        return Hypergraph(offsets, nodes, weights, num_nodes, None if labels is None else tuple(labels))

    @staticmethod
    def from_edges(
        edges: Iterable[Sequence[int] | Sequence[str]],
        weights: Sequence[float] | np.ndarray | None = None,
        num_nodes: int | None = None,
        labels: Sequence[str] | None = None,
        where: str = "hypergraph",
    ) -> "Hypergraph":
        """Build from one sequence of node ids, or of names, per edge; without weights each counts 1.

        Names become the labels, in the order of the alphabet or of ``labels`` where these are given. See
        ``from_arrays``.
        """
        edges = list(edges)
        if edges and all(isinstance(node, str) for edge in edges for node in edge):
            labels = sorted({str(node) for edge in edges for node in edge}) if labels is None else labels
            ids = {name: node for node, name in enumerate(labels)}
            unknown = next((node for edge in edges for node in edge if node not in ids), None)
            if unknown is not None:
                raise DataError(f"{where}: node {unknown} is none of the labels; add it or mend the name")
            edges = [[ids[str(node)] for node in edge] for edge in edges]
        rows = [np.asarray(edge) if len(edge) else np.zeros(0, dtype=np.int64) for edge in edges]
        sizes = np.array([row.size for row in rows], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        nodes = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        values = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
        return Hypergraph.from_arrays(offsets, nodes, values, num_nodes, labels, where)

    @property
    def num_edges(self) -> int:
        return len(self.weights)

    @cached_property
    def sizes(self) -> np.ndarray:
        """[E] int64, nodes in each edge; ascending, by the canonical order."""
        return np.diff(self.offsets)

    @cached_property
    def distinct_sizes(self) -> tuple[int, ...]:
        """The sizes that occur, ascending."""
        return tuple(int(size) for size in np.unique(self.sizes))

    @property
    def max_size(self) -> int:
        return int(self.sizes[-1])

    @property
    def kappa(self) -> float:
        """Largest weight over smallest weight."""
        return float(self.weights.max() / self.weights.min())

    def span(self, size: int) -> slice:
        """The contiguous range of edge indices that have this size."""
        lo, hi = np.searchsorted(self.sizes, [size, size + 1])
        return slice(int(lo), int(hi))

    def edges_of_size(self, size: int) -> np.ndarray:
        """[E_size, size] int32: the edges of one size, in canonical order (a view)."""
        span = self.span(size)
        return self.nodes[self.offsets[span.start] : self.offsets[span.stop]].reshape(-1, size)

    def size_law(self) -> np.ndarray:
        """[max_size + 1] float64: total weight of the edges of each size."""
        return np.bincount(self.sizes, weights=self.weights, minlength=self.max_size + 1)

    def edge(self, index: int) -> tuple[int, ...]:
        """The nodes of one edge, ascending."""
        return tuple(int(node) for node in self.nodes[self.offsets[index] : self.offsets[index + 1]])

    def rows(self, edges: np.ndarray) -> Rows:
        """The nodes of edges [b] int64, without a copy."""
        return Rows(edges, self.offsets, self.nodes)

    def weights_of(self, edges: np.ndarray) -> np.ndarray:
        """[b] float64: the weights of edges [b] int64."""
        weights: np.ndarray = self.weights[edges]
        return weights

    def weight_chunks(self) -> Iterator[np.ndarray]:
        """All weights, in one piece."""
        yield self.weights

    def sampler(self, seed: int) -> "EdgeSampler":
        """The samples of this world under one seed."""
        return EdgeSampler(self, seed)

    @cached_property
    def digest(self) -> str:
        """sha256 of nodes, edges and weights (32 hex digits; labels are names, not structure, and do not enter)."""
        sha = hashlib.sha256(f"hypergraph/1 {self.num_nodes} {self.num_edges}".encode())
        for array in (self.offsets, self.nodes, self.weights):
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()[:32]


class EdgeSampler:
    """The samples of a world held in memory, under one seed."""

    def __init__(self, world: Hypergraph, seed: int) -> None:
        self.world = world
        self._table = alias_table(world.weights)
        self._edge_key = key(seed, "sample/edge")
        self._order_key = key(seed, "sample/order")

    def draw(self, ids: np.ndarray) -> np.ndarray:
        """The edge of each sample.  ids [b] int64, not negative -> [b] int64 in [0, E)."""
        edges = np.empty(len(ids), dtype=np.int64)
        draw_by_table(np.ascontiguousarray(ids, dtype=np.int64), self._edge_key, self._table, edges)
        return edges

    def draw_nodes(self, ids: np.ndarray, size: int) -> np.ndarray:
        """Draw and gather in a world whose edges all have this size, nodes ascending.  ids [b] -> [b size] int32."""
        return self.world.nodes.reshape(-1, size).take(self.draw(ids), axis=0)

    def shuffled(self, ids: np.ndarray, edges: np.ndarray, size: int) -> np.ndarray:
        """The nodes of samples whose edges have one size, in each sample's own order.  [b], [b] -> [b size] int32."""
        return self.world.rows(edges).shuffled(ids, size, self._order_key)

    def counts(self, ids: np.ndarray) -> np.ndarray:
        """[E] int64: how often each edge stands among these samples."""
        return np.bincount(self.draw(ids), minlength=self.world.num_edges)


def edge_text(nodes: Iterable[int]) -> str:
    """An edge as a reader writes it: {0, 3, 7}."""
    return "{" + ", ".join(str(int(node)) for node in nodes) + "}"


def _check(
    offsets: np.ndarray,
    nodes: np.ndarray,
    weights: np.ndarray,
    num_nodes: int | None,
    labels: Sequence[str] | None,
    where: str,
) -> int:
    """Refuse what is not a weighted hypergraph; return the number of nodes."""
    if len(weights) == 0:
        raise DataError(f"{where}: no edges; a world needs at least one")
    if len(offsets) != len(weights) + 1 or offsets[0] != 0 or offsets[-1] != len(nodes):
        counts = f"{len(weights)} weights and {len(offsets) - 1} edges over {len(nodes)} node entries"
        raise DataError(f"{where}: {counts} do not fit together; give one weight per edge")
    if not np.issubdtype(nodes.dtype, np.integer):
        raise DataError(f"{where}: node ids are {nodes.dtype}; integers are wanted")
    sizes = np.diff(offsets)

    def shown(e: int) -> str:
        return f"{where}: edge {e} {edge_text(nodes[offsets[e] : offsets[e + 1]])}"

    if (sizes <= 0).any():
        raise DataError(f"{where}: edge {int(np.argmax(sizes <= 0))} is empty; remove it or give its nodes")
    if (sizes > MAX_EDGE_SIZE).any():
        e = int(np.argmax(sizes))
        raise DataError(f"{where}: edge {e} has {sizes[e]} nodes; at most {MAX_EDGE_SIZE} are supported")
    if labels is not None and num_nodes is not None and len(labels) != num_nodes:
        raise DataError(f"{where}: {len(labels)} labels for {num_nodes} nodes; give one each")
    if num_nodes is None:
        num_nodes = len(labels) if labels is not None else int(nodes.max()) + 1
    if num_nodes > MAX_NODES:
        raise DataError(f"{where}: {num_nodes} nodes; at most {MAX_NODES} are supported; number them from 0 up")
    bad = (nodes < 0) | (nodes >= num_nodes)
    if bad.any():
        at = int(np.argmax(bad))
        e = int(np.searchsorted(offsets, at, side="right") - 1)
        ids = f"ids run from 0 to {num_nodes - 1}"
        raise DataError(f"{shown(e)} holds node {nodes[at]}; {ids}; raise num_nodes or mend the id")
    owner = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((nodes, owner))
    repeated = (np.diff(nodes[order]) == 0) & (np.diff(owner[order]) == 0)
    if repeated.any():
        e = int(owner[order][1:][repeated][0])
        raise DataError(f"{shown(e)} holds a node twice; an edge is a set: remove the repetition")
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        e = int(np.argmax(bad))
        raise DataError(f"{shown(e)} has weight {weights[e]}; finite and not negative is wanted")
    with np.errstate(over="ignore"):
        total = weights.sum()
    if total <= 0 or not np.isfinite(total):
        raise DataError(f"{where}: the weights sum to {total}; a positive finite sum is wanted")
    return int(num_nodes)


def _canonical(
    offsets: np.ndarray, nodes: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort nodes within edges and edges by (size, nodes), merge equal edges, drop zero weights, normalise."""
    sizes = np.diff(offsets)
    merged_nodes, merged_sizes, merged_weights = [], [], []
    for size in np.unique(sizes):
        chosen = np.flatnonzero((sizes == size) & (weights > 0))
        chosen = chosen[np.argsort(weights[chosen])]  # equal edges add up in this order, so to the same bits
        if chosen.size == 0:
            continue
        rows = np.sort(nodes[offsets[chosen][:, None] + np.arange(size)], axis=1)
        rows, group = unique_rows(rows)
        merged_nodes.append(rows.ravel())
        merged_sizes.append(np.full(len(rows), size))
        merged_weights.append(np.bincount(group, weights=weights[chosen]))
    new_weights = np.concatenate(merged_weights)
    new_offsets = np.concatenate([[0], np.cumsum(np.concatenate(merged_sizes))]).astype(np.int64)
    # Divide only when needed: a canonical hypergraph must come back from a file with the same bits and digest.
    total = new_weights.sum()
    if abs(total - 1.0) > 1e-12:
        new_weights = new_weights / total
    return new_offsets, np.concatenate(merged_nodes).astype(np.int32), new_weights


def unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows in lexicographic order, and for each input row the index of its distinct row.

    Args:
        rows: [r, k] integers.

    Returns:
        distinct: [d, k], ascending lexicographically; group: [r] int64 in [0, d).
    """
    order = np.lexsort(rows.T[::-1])
    ordered = rows[order]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.empty(len(rows), dtype=np.int64)
    group[order] = np.cumsum(first) - 1
    return ordered[first], group
