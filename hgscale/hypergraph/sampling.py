"""Draw edges by weight: sample i (its edge, the order of its nodes) is a pure function of (world, seed, i).

The alias method (Walker 1977; table by Vose 1991) over one 64-bit word per sample: the product ``bits * E / 2**64`` has
the slot as its integer part, and the next 32 bits of its fraction are the coin, so one hash serves both.
"""

from typing import Protocol

import numba as nb
import numpy as np

from hgscale.hypergraph.structure import Hypergraph, Rows, World
from hgscale.rng import below, key, random_bits


class Sampler(Protocol):
    """The samples of a world under one seed."""

    @property
    def world(self) -> World:
        """The world that they are drawn from."""

    def draw(self, ids: np.ndarray) -> np.ndarray:
        """The edge of each sample.  ids [b] int64, not negative -> [b] int64 in [0, E)."""

    def shuffled(self, ids: np.ndarray, edges: np.ndarray, size: int) -> np.ndarray:
        """The nodes of samples whose edges have one size, in each sample's own order.  [b], [b] -> [b size] int32."""


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
        _draw(np.ascontiguousarray(ids, dtype=np.int64), self._edge_key, self._table, edges)
        return edges

    def draw_nodes(self, ids: np.ndarray, size: int) -> np.ndarray:
        """Draw and gather in a world whose edges all have this size, nodes ascending.  ids [b] -> [b size] int32."""
        return self.world.nodes.reshape(-1, size).take(self.draw(ids), axis=0)

    def shuffled(self, ids: np.ndarray, edges: np.ndarray, size: int) -> np.ndarray:
        """The nodes of samples whose edges have one size, in each sample's own order.  [b], [b] -> [b size] int32."""
        return shuffled_rows(self.world.rows(edges), ids, size, self._order_key)

    def counts(self, ids: np.ndarray) -> np.ndarray:
        """[E] int64: how often each edge stands among these samples."""
        return np.bincount(self.draw(ids), minlength=self.world.num_edges)


def shuffled_rows(rows: Rows, ids: np.ndarray, size: int, order_key: np.uint64) -> np.ndarray:
    """The nodes of samples [b] whose edges all have one size, in each sample's own order.  -> [b size] int32.

    ``order_key`` is ``key(seed, "sample/order")``, whatever kind of world the rows are of.
    """
    nodes = np.empty((len(ids), size), dtype=np.int32)
    _gather_shuffled(ids, rows.index, order_key, rows.offsets, rows.nodes, nodes)
    return nodes


def alias_table(weights: np.ndarray) -> np.ndarray:
    """Vose's table, one 64-bit word per slot: the alias in the upper half, the 32-bit threshold in the lower.

    Args:
        weights: [E] positive, summing to 1, E < 2**31.

    Returns:
        [E] uint64. A slot keeps its own edge when the coin is below the threshold. The probability of an edge is off by
        at most 2**-32 / E per slot that leads to it.
    """
    return _build_table(np.asarray(weights, dtype=np.float64))


@nb.njit(cache=True)
def _build_table(weights: np.ndarray) -> np.ndarray:
    size = len(weights)
    scaled = weights * (size / weights.sum())
    table = np.empty(size, dtype=np.uint64)
    small = np.empty(size, dtype=np.int64)
    large = np.empty(size, dtype=np.int64)
    num_small = num_large = 0
    for i in range(size):
        if scaled[i] < 1.0:
            small[num_small] = i
            num_small += 1
        else:
            large[num_large] = i
            num_large += 1
    while num_small > 0 and num_large > 0:
        num_small -= 1
        lo, hi = small[num_small], large[num_large - 1]
        threshold = np.uint64(min(scaled[lo] * 4294967296.0, 4294967295.0))
        table[lo] = (np.uint64(hi) << np.uint64(32)) | threshold
        scaled[hi] = (scaled[hi] + scaled[lo]) - 1.0
        if scaled[hi] < 1.0:
            num_large -= 1
            small[num_small] = hi
            num_small += 1
    # What is left keeps its own slot; rounding alone decides in which of the two lists it ended.
    for i in range(num_small):
        table[small[i]] = (np.uint64(small[i]) << np.uint64(32)) | np.uint64(4294967295)
    for i in range(num_large):
        table[large[i]] = (np.uint64(large[i]) << np.uint64(32)) | np.uint64(4294967295)
    return table


@nb.njit(cache=True)
def _draw(ids: np.ndarray, edge_key: np.uint64, table: np.ndarray, edges: np.ndarray) -> None:
    # Two passes over the output: the first waits for no memory, so the compiler turns it into vector instructions; the
    # second is a run of independent loads, whose cache misses overlap.
    size, low = np.uint64(len(table)), np.uint64(0xFFFFFFFF)
    words = edges.view(np.uint64)
    for i in range(len(ids)):
        bits = random_bits(edge_key, np.uint64(ids[i]))
        # floor(bits * size / 2**64) in the upper half, the first 32 bits of the fraction in the lower.
        words[i] = (bits >> np.uint64(32)) * size + (((bits & low) * size) >> np.uint64(32))
    for i in range(len(ids)):
        slot, coin = words[i] >> np.uint64(32), words[i] & low
        entry = table[slot]
        edges[i] = np.int64(slot if coin < (entry & low) else entry >> np.uint64(32))


@nb.njit(cache=True)
def _gather_shuffled(
    ids: np.ndarray,
    index: np.ndarray,
    order_key: np.uint64,
    offsets: np.ndarray,
    edge_nodes: np.ndarray,
    nodes: np.ndarray,
) -> None:
    """Fisher-Yates with one word per swap, counted from the sample's own key."""
    for i in range(len(ids)):
        sample_key = random_bits(order_key, np.uint64(ids[i]))
        start = offsets[index[i]]
        for j in range(nodes.shape[1]):
            other = np.int64(below(random_bits(sample_key, np.uint64(j)), np.uint64(j + 1)))
            nodes[i, j] = nodes[i, other]
            nodes[i, other] = edge_nodes[start + j]
