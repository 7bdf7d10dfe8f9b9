"""What every generated world is, and how counts of draws are held against a law."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import chi2

from hgscale.hypergraph.structure import Hypergraph


def edges_of(world: Hypergraph) -> list[tuple[int, ...]]:
    return [world.edge(e) for e in range(world.num_edges)]


def assert_is_world(world: Hypergraph, num_nodes: int, num_edges: int) -> None:
    """Exact number of distinct edges over known nodes, canonical, weights summing to 1.

    The canonical form is checked against ``from_arrays``, which sorts for itself, on edges and nodes in reverse order.
    """
    edges = edges_of(world)
    assert len(set(edges)) == world.num_edges == num_edges
    assert world.num_nodes == num_nodes
    again = Hypergraph.from_edges([edge[::-1] for edge in edges[::-1]], world.weights[::-1], num_nodes)
    assert again.digest == world.digest
    assert (world.offsets.dtype, world.nodes.dtype, world.weights.dtype) == (np.int64, np.int32, np.float64)
    # A sum of E numbers of 53 bits near 1 is off by at most E 2^-53.
    assert abs(math.fsum(world.weights) - 1) <= num_edges * 2**-53


def assert_law(counts: Mapping, expected: Mapping) -> None:
    """Counts of independent draws follow the expected ones: chi-square at a level of 1e-6, the seeds being fixed."""
    assert set(counts) <= set(expected)
    statistic = sum((counts[value] - number) ** 2 / number for value, number in expected.items())
    assert statistic <= chi2.isf(1e-6, len(expected) - 1)
