"""Drawing by weight, on plain arrays: the alias method, and the order of the nodes of a sample.

The alias method (Walker 1977; table by Vose 1991) over one 64-bit word per sample: the product ``bits * E / 2**64`` has
the slot as its integer part, and the next 32 bits of its fraction are the coin, so one hash serves both.
"""

import numba as nb
import numpy as np

from hgscale.rng import below, random_bits


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


@nb.njit(inline="always", cache=True)
def scaled(bits: np.uint64, size: np.uint64) -> np.uint64:
    """floor(bits * size / 2**64) in the upper half, the first 32 bits of the fraction in the lower; size < 2**32."""
    return (bits >> np.uint64(32)) * size + (((bits & np.uint64(0xFFFFFFFF)) * size) >> np.uint64(32))


@nb.njit(inline="always", cache=True)
def chosen(word: np.uint64, entry: np.uint64) -> np.uint64:
    """The slot of a ``scaled`` word or the alias in that slot's entry, by the coin."""
    low = np.uint64(0xFFFFFFFF)
    return word >> np.uint64(32) if (word & low) < (entry & low) else entry >> np.uint64(32)


@nb.njit(cache=True)
def draw_by_table(ids: np.ndarray, edge_key: np.uint64, table: np.ndarray, edges: np.ndarray) -> None:
    """The edge of each sample, by an alias table [E] uint64.  ids [b] int64 -> edges [b] int64."""
    # Two passes over the output: the first waits for no memory, so the compiler turns it into vector instructions; the
    # second is a run of independent loads, whose cache misses overlap.
    size, words = np.uint64(len(table)), edges.view(np.uint64)
    for i in range(len(ids)):
        words[i] = scaled(random_bits(edge_key, np.uint64(ids[i])), size)
    for i in range(len(ids)):
        edges[i] = np.int64(chosen(words[i], table[words[i] >> np.uint64(32)]))


@nb.njit(cache=True)
def gather_shuffled(
    ids: np.ndarray,
    index: np.ndarray,
    order_key: np.uint64,
    offsets: np.ndarray,
    edge_nodes: np.ndarray,
    nodes: np.ndarray,
) -> None:
    """The nodes of edges [b] of one size, each row in its sample's own order -> nodes [b size].

    Fisher-Yates with one word per swap, counted from the sample's own key; ``index``, ``offsets`` and ``edge_nodes``
    are those of ``structure.Rows``.
    """
    for i in range(len(ids)):
        sample_key = random_bits(order_key, np.uint64(ids[i]))
        start = offsets[index[i]]
        for j in range(nodes.shape[1]):
            other = np.int64(below(random_bits(sample_key, np.uint64(j)), np.uint64(j + 1)))
            nodes[i, j] = nodes[i, other]
            nodes[i, other] = edge_nodes[start + j]
