"""What read-outs have in common: how they ask a model for conditionals, and the hypergraph that they answer with.

A model answers one kind of question: some nodes of an edge are visible, a given number is hidden; which node is hidden?
``one_mask`` asks it with one node hidden, ``any_order`` with any number; ``recovery`` compares what they read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hgscale.hypergraph.structure import Hypergraph, unique_rows

SUM_TOLERANCE = 1e-6  # by which what a user's function gives may sum to other than 1
BLOCK_ENTRIES = 10_000_000  # floats held at once: rows asked of a model times nodes, or nodes in a block of edges


class Conditionals(Protocol):
    """What a model, or an exact oracle, answers."""

    @property
    def num_nodes(self) -> int:
        """V, nodes it knows; ids run from 0."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Edge sizes it knows."""

    def size_law(self) -> np.ndarray:
        """[max_size + 1] float64: probability of each edge size."""

    def log_probs(self, visible: np.ndarray, num_masked: int) -> np.ndarray:
        """Which node is hidden?

        Args:
            visible: [c, s] integers, rows of distinct nodes; s may be 0.
            num_masked: hidden nodes, at least 1: the edge has s + num_masked.

        Returns:
            [c, V] float64: log probability that a node is the hidden one, drawn uniformly among the hidden ones;
            -inf on visible nodes; rows logsumexp to 0.
        """


class OracleConditionals:
    """The exact conditionals of a world held in memory: what a perfect model of it answers; for small worlds.

    Where no edge fits what is visible, every node that is not visible is equally likely.
    """

    def __init__(self, world: Hypergraph) -> None:
        self._world = world
        self.num_nodes, self.sizes = world.num_nodes, world.distinct_sizes

    def size_law(self) -> np.ndarray:
        """[max_size + 1] float64: total weight of the edges of each size."""
        return self._world.size_law()

    def log_probs(self, visible: np.ndarray, num_masked: int) -> np.ndarray:
        """See ``Conditionals``."""
        size = visible.shape[1] + num_masked
        edges, weights = self._world.edges_of_size(size), self._world.weights[self._world.span(size)]
        holds = np.zeros((len(edges), self.num_nodes), dtype=bool)
        np.put_along_axis(holds, edges.astype(np.int64), True, axis=1)
        rows = np.zeros((len(visible), self.num_nodes))
        for row, nodes in zip(rows, visible, strict=True):
            row += weights[holds[:, nodes].all(axis=1)] @ holds[holds[:, nodes].all(axis=1)]
            row[nodes] = 0
            if row.sum() == 0:
                row[np.isin(np.arange(self.num_nodes), nodes, invert=True)] = 1
        with np.errstate(divide="ignore"):
            logs: np.ndarray = np.log(rows / rows.sum(axis=1, keepdims=True))
            return logs


@dataclass(frozen=True)
class WeightedEdges:
    """Edges with weights that need not sum to 1.

    Attributes:
        edges: one array [c, size] per size, nodes ascending within an edge.
        weights: one array [c] float64 per size.
        missing_below: lighter edges may be missing, as a search met its limit; 0 where it did not.
    """

    edges: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]
    missing_below: float = 0.0

    @property
    def num_edges(self) -> int:
        return sum(len(weights) for weights in self.weights)


@dataclass(frozen=True)
class Recovered:
    """A hypergraph read out of conditionals, laid beside the world it should be.

    Attributes:
        on_support: [E] float64, recovered weight of each edge of the world, in canonical order.
        off_support_mass: total recovered weight of everything else; with ``on_support`` it sums to 1.
        off_edges: edges off the support of at least ``support_threshold(world)``; None where none were searched.
        incompatibility: how far the conditionals are from any one hypergraph, 0 where they agree; its meaning is the
            method's (see there); None where the method has none.
        method: the read-out.
    """

    on_support: np.ndarray
    off_support_mass: float
    off_edges: WeightedEdges | None
    incompatibility: float | None
    method: str


def support_threshold(world: Hypergraph) -> float:
    """The weight from which an edge counts as recovered: half of the smallest, the lightest 1% of the mass left out.

    Half of the smallest weight is the cut between an edge and none. Where weights fall off without limit the smallest
    says nothing, so the edges that are lightest and hold at most 1% of the mass together do not decide it.
    """
    ascending = np.sort(world.weights)
    below = np.cumsum(ascending) - ascending
    return float(ascending[below <= 0.01][-1]) / 2


# Asking a model


def ask_in_blocks(
    conditionals: Conditionals, contexts: np.ndarray, num_masked: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Log probabilities [c, V] of contexts [C, s], in blocks of at most BLOCK_ENTRIES floats: (rows, block)."""
    step = max(1, BLOCK_ENTRIES // conditionals.num_nodes)
    for start in range(0, len(contexts), step):
        rows = slice(start, min(len(contexts), start + step))
        yield rows, conditionals.log_probs(contexts[rows], num_masked)


def ask_questions(
    conditionals: Conditionals, contexts: np.ndarray, num_masked: int, which: np.ndarray, nodes: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The blocks with the questions p(nodes[i] | contexts[which[i]]) that fall into each.

    Yields:
        first context of the block, block [c, V], flat positions i of its questions [q], their rows [q] and columns [q].
    """
    order = np.argsort(which, axis=None, kind="stable")
    flat_which, flat_nodes = which.ravel()[order], nodes.ravel()[order]
    for rows, block in ask_in_blocks(conditionals, contexts, num_masked):
        lo, hi = np.searchsorted(flat_which, [rows.start, rows.stop])
        yield rows.start, block, order[lo:hi], flat_which[lo:hi] - rows.start, flat_nodes[lo:hi]


def pick_log_probs(
    conditionals: Conditionals, contexts: np.ndarray, num_masked: int, which: np.ndarray, nodes: np.ndarray
) -> np.ndarray:
    """log p(nodes[i] | contexts[which[i]]), in the shape of ``which``; each context is asked once."""
    picked = np.empty(which.shape)
    for _, block, entries, row, node in ask_questions(conditionals, contexts, num_masked, which, nodes):
        picked.flat[entries] = block[row, node]
    return picked


# Sets of nodes


def distinct_sets(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``unique_rows``, also for rows of no nodes."""
    if rows.shape[1] == 0:
        return rows[:1], np.zeros(len(rows), dtype=np.int64)
    return unique_rows(rows)


def drop_one(sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct subsets [d, s - 1] of sets [c, s] less one node, and [c, s] which of them dropping column j gives."""
    num, size = sets.shape
    columns = np.array([[i for i in range(size) if i != j] for j in range(size)], dtype=np.int64).reshape(
        size, size - 1
    )
    smaller, group = distinct_sets(sets[:, columns].reshape(num * size, size - 1))
    return smaller, group.reshape(num, size)


def match_edges(edges: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[r] index among distinct edges [E, s] of each row [r, s] (nodes ascending), -1 where it is none of them."""
    distinct, group = unique_rows(np.concatenate([edges, rows]))
    index = np.full(len(distinct), -1)
    index[group[: len(edges)]] = np.arange(len(edges))
    found: np.ndarray = index[group[len(edges) :]]
    return found


def find_edges(world: Hypergraph, other: Hypergraph) -> np.ndarray:
    """[E of other] int64: where each edge of another hypergraph on the same nodes stands in this one, -1 if nowhere."""
    index = np.full(other.num_edges, -1)
    for size in other.distinct_sizes:
        found = match_edges(world.edges_of_size(size), other.edges_of_size(size))
        index[other.span(size)] = np.where(found >= 0, found + world.span(size).start, -1)
    return index
