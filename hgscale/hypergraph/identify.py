"""What the conditionals of a world can tell: which weights one mask compares, and how far edges lie apart.

Swap graph: two edges of equal size are joined where they share all nodes but one, since a model that sees the shared
nodes and one mask compares exactly those. Line graph: two edges are joined where they share any node.
"""

import math
from dataclasses import dataclass

import numba as nb
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hgscale import rng
from hgscale.hypergraph.structure import Hypergraph, unique_rows


@dataclass(frozen=True)
class SwapComponents:
    """Connected components of the swap graph.

    Attributes:
        num_components: how many there are; at least one per size, as edges of different sizes are never joined.
        largest_frac: edges of the largest component over all edges.
        labels: [E] int64 in [0, num_components), ascending with size.
    """

    num_components: int
    largest_frac: float
    labels: np.ndarray


@dataclass(frozen=True)
class Identifiability:
    """Whether the weights of a world follow from its one-mask conditionals.

    Attributes:
        num_components: of the swap graph.
        largest_frac: share of the edges in its largest component.
        one_mask: within every size, one-mask conditionals fix all weights up to a factor. With one size that is
            everything; with several the law of sizes must be known besides.
        reason: why, in words.
        remedy: what training must add to recover the world; empty where nothing is missing.
    """

    num_components: int
    largest_frac: float
    one_mask: bool
    reason: str
    remedy: str


@dataclass(frozen=True)
class Diameter:
    """Bounds of the largest distance between two edges in the line graph, edges that share a node being at distance 1.

    Attributes:
        value_low: the diameter is at least this; infinite where the line graph is not connected.
        value_high: and at most this.
    """

    value_low: float
    value_high: float

    @property
    def exact(self) -> bool:
        """Whether the two bounds are equal."""
        return self.value_low == self.value_high


def swap_components(world: Hypergraph) -> SwapComponents:
    """Connected components of the swap graph.  Memory of the order of nnz; all edges of size 1 are joined.

    The subset of an edge without one node is known by 128 bits: the sum of one random word per remaining node. Two
    subsets fall on one word with chance 2^-128 a pair, which no world that fits a memory will see.
    """
    words = rng.stream(0, "identify/subsets").integers(2**64, size=(world.num_nodes, 2), dtype=np.uint64)
    labels = np.empty(world.num_edges, dtype=np.int64)
    num_components = 0
    for size in world.distinct_sizes:
        of_nodes = words[world.edges_of_size(size)]
        subsets = of_nodes.sum(axis=1, keepdims=True, dtype=np.uint64) - of_nodes
        _, group = unique_rows(subsets.reshape(-1, 2))
        # Bipartite: edges against their subsets. A subset that two edges share joins them.
        count, num_subsets = len(of_nodes), int(group.max()) + 1
        shape = (count + num_subsets, count + num_subsets)
        pairs = (np.repeat(np.arange(count), size), count + group)
        found, of_all = connected_components(coo_array((np.ones(len(group), dtype=bool), pairs), shape), directed=False)
        labels[world.span(size)] = num_components + of_all[:count]
        num_components += int(found)
    return SwapComponents(num_components, float(np.bincount(labels).max() / world.num_edges), labels)


def identifiability(world: Hypergraph) -> Identifiability:
    """Whether one-mask conditionals identify the weights, and what to do where they do not.

    Within a size they give the ratios of weights along the swap graph, and so all weights iff it is connected there.
    Edges of different sizes are never compared, since the number of nodes shown tells the size (derived here).
    """
    swap = swap_components(world)
    sizes = world.distinct_sizes
    pieces = swap.num_components
    connected = pieces == len(sizes)
    mixed = len(sizes) > 1
    if connected:
        reason = (
            f"edges of size {sizes[0]} are all compared"
            if not mixed
            else f"edges of equal size are all compared, but not those of sizes {_sizes_text(sizes)} with one another"
        )
    else:
        reason = (
            f"the swap graph has {pieces} components, the largest with {swap.largest_frac:.3g} of the edges, and "
            f"weights are compared only inside one"
        )
    remedies = []
    if not connected:
        remedies.append("mask random-size subsets and read out with chain")
    if mixed:
        remedies.append("learn the law of sizes with a size head")
    return Identifiability(pieces, swap.largest_frac, connected, reason, "; ".join(remedies))


def line_graph_diameter(world: Hypergraph, max_exact: int = 500_000_000) -> Diameter:
    """The diameter of the line graph, or bounds where finding it costs too much.

    Breadth-first searches from chosen edges; each tightens, by the triangle inequality, what the eccentricity of every
    other edge can be: between max(d, ecc - d) and ecc + d at distance d from a source of eccentricity ecc. Sources are
    in turn those that may lie farthest out and those that may lie most central. Done when no edge can beat the largest
    eccentricity seen (derived here).

    Args:
        world: any world.
        max_exact: incidences (edge, node) walked before giving up on an exact answer; at least two searches are made.

    Returns:
        Equal bounds where exact; infinite ones where some edges are not connected at all.
    """
    node_offsets, node_edges = _edges_of_nodes(world)
    low = np.zeros(world.num_edges, dtype=np.int64)
    high = np.full(world.num_edges, world.num_edges, dtype=np.int64)
    largest = 0
    open_edges = np.arange(world.num_edges)
    for search in range(max(2, max_exact // len(world.nodes))):
        by_bound = np.argmax(high[open_edges]) if search % 2 else np.argmin(low[open_edges])
        source = int(open_edges[by_bound])
        distance = _distances(source, world.offsets, world.nodes, node_offsets, node_edges)
        if distance.min() < 0:
            return Diameter(math.inf, math.inf)
        farthest = int(distance.max())
        largest = max(largest, farthest)
        np.maximum(low, np.maximum(distance, farthest - distance), out=low)
        np.minimum(high, farthest + distance, out=high)
        open_edges = np.flatnonzero(high > largest)
        if len(open_edges) == 0:
            return Diameter(largest, largest)
    return Diameter(largest, int(high.max()))


def _edges_of_nodes(world: Hypergraph) -> tuple[np.ndarray, np.ndarray]:
    """The edges that hold each node, in CSR form: [n + 1] int64 and [nnz] int64."""
    order = np.argsort(world.nodes, kind="stable")
    counts = np.bincount(world.nodes, minlength=world.num_nodes)
    edges = np.repeat(np.arange(world.num_edges), world.sizes)[order]
    return np.concatenate([[0], np.cumsum(counts)]), edges


@nb.njit(cache=True)
def _distances(
    source: int, offsets: np.ndarray, nodes: np.ndarray, node_offsets: np.ndarray, node_edges: np.ndarray
) -> np.ndarray:
    """[E] int64: line-graph distance of every edge from one, -1 where there is no path.  Walks each incidence once."""
    distance = np.full(len(offsets) - 1, -1, dtype=np.int64)
    seen = np.zeros(len(node_offsets) - 1, dtype=np.bool_)
    queue = np.empty(len(distance), dtype=np.int64)
    queue[0], distance[source], head, tail = source, 0, 0, 1
    while head < tail:
        edge = queue[head]
        head += 1
        for i in range(offsets[edge], offsets[edge + 1]):
            node = nodes[i]
            if seen[node]:
                continue
            seen[node] = True
            for j in range(node_offsets[node], node_offsets[node + 1]):
                other = node_edges[j]
                if distance[other] < 0:
                    distance[other] = distance[edge] + 1
                    queue[tail] = other
                    tail += 1
    return distance


def _sizes_text(sizes: tuple[int, ...]) -> str:
    """Sizes as a reader writes them: 2, 3 and 5."""
    *first, last = (str(size) for size in sizes)
    return f"{', '.join(first)} and {last}" if first else last
