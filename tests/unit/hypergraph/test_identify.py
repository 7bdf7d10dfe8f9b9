"""Swap graph, line graph and inspect, against pair-by-pair brute force and networkx."""

import itertools
import json
import math
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgscale.data.inspect import InspectConfig, inspect
from hgscale.errors import ConfigError
from hgscale.hypergraph.identify import Diameter, identifiability, line_graph_diameter, swap_components
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds.config import WorldConfig, build_world
from hgscale.hypergraph.worlds.inspect import InspectResult

small_worlds = st.lists(st.sets(st.integers(0, 7), min_size=1, max_size=5), min_size=1, max_size=14).map(
    lambda edges: Hypergraph.from_edges([sorted(edge) for edge in edges])
)


def graph_of_pairs(world: Hypergraph, joined) -> nx.Graph:
    """The graph on edge indices whose pairs satisfy a rule, tried one by one."""
    edges = [set(world.edge(e)) for e in range(world.num_edges)]
    graph = nx.empty_graph(world.num_edges)
    graph.add_edges_from((e, f) for e, f in itertools.combinations(graph, 2) if joined(edges[e], edges[f]))
    return graph


def one_swap_apart(e: set, f: set) -> bool:
    return len(e) == len(f) == len(e & f) + 1


# ---- swap graph ----


@given(world=small_worlds)
def test_swap_components_are_those_of_the_graph_built_pair_by_pair(world: Hypergraph) -> None:
    swap = swap_components(world)
    pieces = list(nx.connected_components(graph_of_pairs(world, one_swap_apart)))
    assert swap.num_components == len(pieces)
    assert swap.largest_frac == max(map(len, pieces)) / world.num_edges
    found = {frozenset(np.flatnonzero(swap.labels == label).tolist()) for label in range(swap.num_components)}
    assert found == {frozenset(piece) for piece in pieces}


def test_edges_of_one_node_are_all_compared() -> None:
    assert swap_components(Hypergraph.from_edges([[0], [3], [5]])).num_components == 1


def test_swap_components_take_edges_of_24_nodes() -> None:
    base = list(range(24))
    edges = [base, [*base[1:], 30], [*base[2:], 30, 31], list(range(40, 64))]
    assert swap_components(Hypergraph.from_edges(edges)).labels.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("num_edges", "low", "high"),
    [
        # FACTS 4 gives .002 and .001, components of a few edges. An edge has 3 x 997 neighbours among C(1000, 3) sets,
        # so each edge of the world meets .036 and .18 others: far below 1, where no large component can form.
        (2_000, 0.001, 0.003),
        (10_000, 0.0004, 0.0015),
        pytest.param(50_000, 0.0004, 0.0015, marks=pytest.mark.slow),
        # A pair of nodes lies in Poisson(200,000 x 3 / C(1000, 2) = 1.20) other triples. Followed from a triple, it
        # ends with chance q = exp(-1.20 (1 - q^2)) = .348, so 1 - q^3 = .958 of the triples are in the giant
        # component, which is FACTS' number. Seeds 0 to 3 gave .957 to .9586; .003 is allowed.
        pytest.param(200_000, 0.955, 0.961, marks=pytest.mark.slow),
    ],
)
def test_sparse_random_triples_are_not_compared_by_one_mask(num_edges: int, low: float, high: float) -> None:
    world = build_world(WorldConfig(generator="uniform", num_nodes=1000, num_edges=num_edges))
    assert low <= swap_components(world).largest_frac <= high


# ---- identifiability ----


def one_mask_conditionals(world: Hypergraph) -> dict[tuple[tuple[int, ...], int], float]:
    """p(node | the others of its edge), counted by hand."""
    joint: dict[tuple[tuple[int, ...], int], float] = {}
    for e in range(world.num_edges):
        edge = world.edge(e)
        for node in edge:
            joint[tuple(other for other in edge if other != node), node] = float(world.weights[e])
    # The number of nodes shown tells the size, so contexts of different sizes are different contexts.
    total: dict[tuple[int, ...], float] = {}
    for (context, _), weight in joint.items():
        total[context] = total.get(context, 0.0) + weight
    return {(context, node): weight / total[context] for (context, node), weight in joint.items()}


@given(world=small_worlds)
def test_worlds_that_differ_by_a_factor_per_component_have_equal_conditionals(world: Hypergraph) -> None:
    labels = swap_components(world).labels
    other = Hypergraph(world.offsets, world.nodes, world.weights * (1.0 + labels), world.num_nodes)
    assert one_mask_conditionals(other) == pytest.approx(one_mask_conditionals(world), rel=1e-12)


@given(world=small_worlds)
def test_worlds_that_differ_within_a_component_have_different_conditionals(world: Hypergraph) -> None:
    labels = swap_components(world).labels
    largest = np.flatnonzero(labels == np.argmax(np.bincount(labels)))
    if len(largest) < 2:
        return
    weights = world.weights.copy()
    weights[largest[0]] *= 2
    other = Hypergraph(world.offsets, world.nodes, weights, world.num_nodes)
    assert one_mask_conditionals(other) != pytest.approx(one_mask_conditionals(world), rel=1e-6)


@pytest.mark.parametrize(
    ("edges", "one_mask", "reason", "remedies"),
    [
        ([[0, 1], [1, 2]], True, "edges of size 2 are all compared", []),
        ([[0, 1], [2, 3]], False, "2 components, the largest with 0.5 of the edges", ["random-size subsets"]),
        ([[0, 1], [1, 2], [0, 1, 2]], True, "not those of sizes 2 and 3 with one another", ["size head"]),
        (
            [[0, 1], [2, 3], [0, 1, 2], [0, 1, 2, 3]],
            False,
            "4 components, the largest with 0.25",
            ["random-size subsets", "size head"],
        ),
    ],
)
def test_identifiability_says_why_and_what_to_do(
    edges: list[list[int]], one_mask: bool, reason: str, remedies: list[str]
) -> None:
    known = identifiability(Hypergraph.from_edges(edges))
    assert known.one_mask is one_mask
    assert reason in known.reason
    assert bool(known.remedy) == bool(remedies)
    assert all(remedy in known.remedy for remedy in remedies)


# ---- line graph ----


@pytest.mark.parametrize(("generator", "diameter"), [("star", 1), ("cross", 9), ("chain", 18)])
def test_line_graph_diameters_of_the_paper(generator: str, diameter: int) -> None:
    world = build_world(WorldConfig(generator=generator, num_nodes=20))
    assert line_graph_diameter(world) == Diameter(diameter, diameter)


def networkx_diameter(world: Hypergraph) -> float:
    line_graph = graph_of_pairs(world, lambda e, f: bool(e & f))
    return nx.diameter(line_graph) if nx.is_connected(line_graph) else math.inf


@given(world=small_worlds)
def test_line_graph_diameter_is_that_of_networkx_and_infinite_where_not_connected(world: Hypergraph) -> None:
    diameter = line_graph_diameter(world)
    assert diameter.exact
    assert diameter.value_low == diameter.value_high == networkx_diameter(world)


@pytest.mark.parametrize("seed", range(8))
def test_bounds_hold_the_diameter_when_searches_are_few(seed: int) -> None:
    world = build_world(WorldConfig(num_nodes=60, num_edges=75, seed=seed))
    diameter = networkx_diameter(world)
    assert line_graph_diameter(world) == Diameter(diameter, diameter)
    bounds = line_graph_diameter(world, max_exact=1)
    assert bounds.value_low <= diameter <= bounds.value_high
    # Two searches: the lower bound is an eccentricity, at least half the diameter, and the upper at most twice it.
    assert bounds.value_low >= diameter / 2
    assert bounds.value_high <= 2 * diameter


def test_a_long_chain_takes_few_searches_to_be_exact() -> None:
    world = build_world(WorldConfig(generator="chain", num_nodes=2000))
    assert line_graph_diameter(world, max_exact=4 * len(world.nodes)) == Diameter(1998, 1998)


def test_few_searches_say_that_they_are_not_exact() -> None:
    world = build_world(WorldConfig(generator="uniform", num_nodes=100, num_edges=1000))
    assert not line_graph_diameter(world, max_exact=1).exact
    assert line_graph_diameter(world).exact


# ---- inspect ----


def inspected(**world) -> InspectResult:
    return inspect(InspectConfig(world=WorldConfig(**world), num_samples=(100, 1000)))


def test_inspect_describes_a_world_as_counted_by_hand() -> None:
    # A star of 4 nodes: three pairs of weight 1/3.
    result = inspected(generator="star", num_nodes=4, weights="uniform")
    assert (result.num_nodes, result.num_isolated, result.num_edges) == (4, 0, 3)
    assert [(row.size, row.num_edges) for row in result.sizes] == [(2, 3)]
    assert result.sizes[0].weight == pytest.approx(1)
    assert result.kappa == 1
    assert result.entropy_nats == pytest.approx(math.log(3))
    assert result.half_norm == pytest.approx(3)
    assert result.diameter == Diameter(1, 1)
    assert result.identifiability.one_mask
    assert list(result.count_floors) == [100, 1000]
    # FACTS 2, uniform weights: sqrt(2 (m - 1) / (pi N)); its next term is of relative order 1 / (N w) = 0.003.
    assert result.count_floors[1000] == pytest.approx(math.sqrt(2 * 2 / (math.pi * 1000)), rel=0.003)


def test_inspect_reports_each_size_and_isolated_nodes() -> None:
    result = inspected(generator="uniform", num_nodes=500, num_edges=20, sizes={2: 1.0, 3: 3.0}, weights="uniform")
    assert [(row.size, row.num_edges) for row in result.sizes] == [(2, 5), (3, 15)]
    assert [row.weight for row in result.sizes] == pytest.approx([0.25, 0.75])
    assert result.num_isolated >= 500 - 5 * 2 - 15 * 3


def test_inspect_is_json_even_where_the_diameter_is_infinite() -> None:
    result = inspected(generator="uniform", num_nodes=500, num_edges=20)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["diameter"] == {"low": None, "high": None, "exact": True, "connected": False}
    assert plain["num_edges"] == 20
    assert set(plain["count_floors"]) == {"100", "1000"}
    connected = inspected(generator="chain", num_nodes=20).to_dict()
    assert connected["diameter"] == {"low": 18, "high": 18, "exact": True, "connected": True}


def test_inspect_text_is_aligned_and_says_what_matters() -> None:
    text = inspected(generator="uniform", num_nodes=500, num_edges=20).text()
    lines = text.splitlines()
    column = len("floor at N=1,000  ")
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines)
    for words in ("20", "not connected", "does not identify", "random-size subsets", "500 (4", "in no edge"):
        assert words in text
    assert "identifies the weights" in inspected(generator="chain", num_nodes=20).text()


def test_inspect_sums_up_many_sizes(tmp_path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("".join(",".join(str(node) for node in range(size)) + "\n" for size in range(1, 25)))
    text = inspected(path=str(path), format="edges").text()
    assert "24 sizes, 1 to 24" in text
    assert "of size" not in text.split("one mask")[0]


def test_inspect_refuses_a_sample_size_below_one() -> None:
    with pytest.raises(ConfigError, match="num_samples=0 is below 1"):
        InspectConfig(num_samples=(10, 0))


def test_inspect_loads_no_torch() -> None:
    code = (
        "import sys; from hgscale.data.inspect import inspect, InspectConfig; inspect(InspectConfig()).text();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
