"""Families: exact numbers of distinct edges, drawn by the law they promise, refused where impossible."""

import itertools
import math
from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds import families
from hgscale.hypergraph.worlds.config import WorldConfig, build_world, parts_of
from hgscale.hypergraph.worlds.families import tree_from_pruefer
from tests.unit.hypergraph.laws import assert_is_world, assert_law, edges_of


def uniform(num_nodes: int, num_edges: int, sizes: int | dict[int, float], seed: int) -> Hypergraph:
    shape = {"size": sizes} if isinstance(sizes, int) else {"sizes": sizes}
    return build_world(
        WorldConfig(
            generator="uniform", num_nodes=num_nodes, num_edges=num_edges, weights="uniform", seed=seed, **shape
        )
    )


def gnm(num_nodes: int, num_edges: int | None, seed: int) -> Hypergraph:
    return build_world(WorldConfig(num_nodes=num_nodes, num_edges=num_edges, seed=seed))


def power_law(num_nodes: int, num_edges: int, size: int, exponent: float, seed: int) -> Hypergraph:
    return build_world(
        WorldConfig(
            generator="power_law",
            num_nodes=num_nodes,
            num_edges=num_edges,
            size=size,
            power_law_exponent=exponent,
            seed=seed,
        )
    )


def tree(generator: str, num_nodes: int) -> Hypergraph:
    return build_world(WorldConfig(generator=generator, num_nodes=num_nodes))


# ---- uniform ----


@given(num_nodes=st.integers(1, 9), data=st.data())
def test_uniform_gives_exactly_the_edges_asked_for_up_to_all_sets(num_nodes: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, num_nodes))
    num_edges = data.draw(st.integers(1, math.comb(num_nodes, size)))
    world = uniform(num_nodes, num_edges, size, seed=data.draw(st.integers(0, 5)))
    assert_is_world(world, num_nodes, num_edges)
    assert world.distinct_sizes == (size,)


def test_uniform_gives_all_20_triples_of_6_nodes() -> None:
    assert edges_of(uniform(6, 20, 3, seed=1)) == list(itertools.combinations(range(6), 3))


@pytest.mark.parametrize(
    ("num_nodes", "num_edges", "sizes"),
    [
        (100, 500, 60),  # C(100, 60) is beyond 64-bit ranks, and repeated nodes would be the rule in naive draws
        (10**6, 2000, 4),
        (10**6, 2000, 3),
        (66, 1000, 33),  # just beyond the largest rank
        (64, 1000, 32),  # just within
        (100, 100, 99),  # all of them; C(c, j) on the way overflows 64 bits
    ],
)
def test_uniform_is_exact_on_both_sides_of_64_bit_ranks(num_nodes: int, num_edges: int, sizes: int) -> None:
    assert_is_world(uniform(num_nodes, num_edges, sizes, seed=2), num_nodes, num_edges)


def test_uniform_refuses_more_edges_than_sets_and_names_the_most() -> None:
    with pytest.raises(ConfigError, match=r"world\.num_edges=21 .*at most 20$"):
        uniform(6, 21, 3, seed=0)


@given(
    num_nodes=st.integers(3, 8), shares=st.lists(st.sampled_from([0.1, 0.25, 0.5, 1.0, 3.0]), min_size=3, max_size=3)
)
def test_the_most_edges_that_a_refusal_of_mixed_sizes_names_is_the_most(num_nodes: int, shares: list[float]) -> None:
    sizes = dict(zip((1, 2, 3), shares, strict=True))
    with pytest.raises(ConfigError, match=r"at most \d+$") as refusal:
        uniform(num_nodes, 2**num_nodes, sizes, seed=0)
    most = int(str(refusal.value).split()[-1])
    for num_edges in range(most + 1, 2**num_nodes):
        with pytest.raises(ConfigError, match="at most"):
            uniform(num_nodes, num_edges, sizes, seed=0)
    counts = families._apportion(most, sizes)
    if min(counts.values()) > 0:
        assert_is_world(uniform(num_nodes, most, sizes, seed=0), num_nodes, most)
    else:
        with pytest.raises(ConfigError, match="leaves no edge"):  # so few edges that a small share rounds to none
            uniform(num_nodes, most, sizes, seed=0)


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ({2: 0.5, 3: 0.3, 5: 0.2}, {2: 50, 3: 30, 5: 20}),
        ({3: 3, 2: 5, 5: 2}, {2: 50, 3: 30, 5: 20}),  # neither order nor total of the shares matter
        ({2: 1, 3: 1, 4: 1}, {2: 34, 3: 33, 4: 33}),  # the remainder goes to the smaller size
    ],
)
def test_mixed_sizes_come_in_their_shares(sizes: dict[int, float], counts: dict[int, int]) -> None:
    world = uniform(20, 100, sizes, seed=0)
    assert_is_world(world, 20, 100)
    assert Counter(world.sizes.tolist()) == counts


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, r"world\.sizes=\{\} is empty"),
        ({2: 0.0, 3: 1.0}, r"world\.sizes gives size 2 the share 0\.0"),
        ({2: 0.01, 3: 1.0}, r"world\.num_edges=10 leaves no edge of size 2"),
        ({11: 1.0}, r"world\.size=11 is outside \[1, 10\]"),
        (0, r"world\.size=0 is outside \[1, 10\]"),
    ],
)
def test_sizes_that_no_world_has_are_refused(sizes: int | dict[int, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        uniform(10, 10, sizes, seed=0)


@pytest.mark.parametrize(
    ("num_nodes", "size", "num_edges"),
    [
        (5, 2, 1),
        (5, 2, 3),
        (5, 2, 8),
        (5, 4, 2),  # by what they leave out
    ],
)
@pytest.mark.parametrize("by_rank", [True, False])  # or whole sets drawn
def test_uniform_draws_every_world_equally_often(
    monkeypatch: pytest.MonkeyPatch, num_nodes: int, size: int, num_edges: int, by_rank: bool
) -> None:
    monkeypatch.setattr(families, "MAX_RANK", 2**62 if by_rank else num_edges)
    worlds = list(itertools.combinations(itertools.combinations(range(num_nodes), size), num_edges))
    draws = 60 * len(worlds)
    counts = Counter(tuple(edges_of(uniform(num_nodes, num_edges, size, seed))) for seed in range(draws))
    assert_law(counts, dict.fromkeys(worlds, 60))


# ---- gnm ----


@given(num_nodes=st.integers(2, 12), data=st.data())
def test_gnm_is_connected_with_exactly_the_edges_asked_for(num_nodes: int, data: st.DataObject) -> None:
    num_edges = data.draw(st.integers(num_nodes - 1, math.comb(num_nodes, 2)))
    world = gnm(num_nodes, num_edges, seed=data.draw(st.integers(0, 5)))
    assert_is_world(world, num_nodes, num_edges)
    graph = nx.Graph(edges_of(world))
    assert len(graph) == num_nodes
    assert nx.is_connected(graph)


@pytest.mark.parametrize(("num_nodes", "num_edges"), [(10, 9), (20, 38), (50, 245), (100, 990)])
def test_gnm_has_the_density_of_the_paper_unless_told(num_nodes: int, num_edges: int) -> None:
    assert gnm(num_nodes, None, seed=0).num_edges == num_edges


@pytest.mark.parametrize(
    ("num_edges", "message"),
    [
        (4, r"world\.num_edges=4 .*at least 5 and at most 15$"),
        (16, r"world\.num_edges=16 .*at least 5 and at most 15$"),
        (None, r"world\.num_edges=null \(int\(0\.2 n \(n - 1\) / 2\) = 3\) .*at least 5 and at most 15$"),
    ],
)
def test_gnm_refuses_what_cannot_be_connected_or_simple(num_edges: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gnm(6, num_edges, seed=0)


def test_pruefer_sequences_give_the_trees_that_networkx_gives() -> None:
    for num_nodes in (2, 3, 4, 5):
        for sequence in itertools.product(range(num_nodes), repeat=num_nodes - 2):
            tree = tree_from_pruefer(np.array(sequence, dtype=np.int64), num_nodes)
            expected = nx.from_prufer_sequence(list(sequence)) if num_nodes > 2 else nx.path_graph(2)
            assert {frozenset(pair) for pair in tree.tolist()} == {frozenset(pair) for pair in expected.edges}


def test_gnm_draws_trees_equally_often_and_then_pairs_equally_often() -> None:
    # 4 nodes: 16 trees, each with 3 free pairs. A 4-edge graph comes out with (its spanning trees) / 48: the 3 cycles
    # have 4 trees each and the 12 triangles with a tail 3 each, so 3 x 4 + 12 x 3 = 48.
    counts = Counter(tuple(edges_of(gnm(4, 4, seed))) for seed in range(4800))
    graphs = itertools.combinations(itertools.combinations(range(4), 2), 4)
    spanning = {graph: 4 if set(Counter(itertools.chain(*graph)).values()) == {2} else 3 for graph in graphs}
    assert_law(counts, {graph: 100 * number for graph, number in spanning.items()})
    trees = [graph for graph in itertools.combinations(itertools.combinations(range(4), 2), 3) if spans(graph)]
    counts = Counter(tuple(edges_of(gnm(4, 3, seed))) for seed in range(1600))
    assert_law(counts, dict.fromkeys(trees, 100))


def spans(pairs: tuple[tuple[int, int], ...]) -> bool:
    graph = nx.Graph(pairs)
    return len(graph) == 4 and nx.is_connected(graph)


# ---- trees ----


@pytest.mark.parametrize("num_nodes", [5, 6, 8, 20])
def test_trees_of_pairs_are_the_graphs_they_are_called_after(num_nodes: int) -> None:
    def graph(world: Hypergraph) -> nx.Graph:
        assert_is_world(world, num_nodes, num_nodes - 1)
        return nx.Graph(edges_of(world))

    assert nx.is_isomorphic(graph(tree("star", num_nodes)), nx.star_graph(num_nodes - 1))
    assert nx.is_isomorphic(graph(tree("chain", num_nodes)), nx.path_graph(num_nodes))
    cross = graph(tree("cross", num_nodes))
    assert cross.degree(0) == 4
    arms = sorted(len(arm) for arm in nx.connected_components(cross.subgraph(range(1, num_nodes))))
    assert len(arms) == 4
    assert arms[-1] - arms[0] <= 1
    assert all(degree <= 2 for node, degree in cross.degree if node != 0)


@pytest.mark.parametrize(("family", "least"), [("star", 2), ("chain", 2), ("cross", 5)])
def test_trees_of_too_few_nodes_are_refused(family: str, least: int) -> None:
    assert tree(family, least).num_edges == least - 1
    with pytest.raises(ConfigError, match=rf"world\.num_nodes={least - 1} is outside \[{least}, "):
        tree(family, least - 1)


# ---- power law ----


@given(num_nodes=st.integers(2, 8), exponent=st.sampled_from([2.01, 2.5, 6.0]), data=st.data())
def test_power_law_gives_exactly_the_edges_asked_for_up_to_all_sets(
    num_nodes: int, exponent: float, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, num_nodes))
    num_edges = data.draw(st.integers(1, math.comb(num_nodes, size)))
    world = power_law(num_nodes, num_edges, size, exponent, seed=data.draw(st.integers(0, 5)))
    assert_is_world(world, num_nodes, num_edges)


@pytest.mark.parametrize("max_listed", [0, 10**6])
def test_power_law_draws_sets_by_the_product_of_pulls_listed_or_not(
    monkeypatch: pytest.MonkeyPatch, max_listed: int
) -> None:
    monkeypatch.setattr(families, "_MAX_LISTED", max_listed)
    pull = [(i + 1) ** (-1 / 1.5) for i in range(5)]
    chance = {pair: pull[pair[0]] * pull[pair[1]] for pair in itertools.combinations(range(5), 2)}
    total = sum(chance.values())
    chance = {pair: value / total for pair, value in chance.items()}
    # Two draws without replacement, the second among what is left.
    expected = Counter()
    for first, second in itertools.permutations(chance, 2):
        expected[frozenset((first, second))] += chance[first] * chance[second] / (1 - chance[first])
    draws = 4000
    counts = Counter(frozenset(edges_of(power_law(5, 2, 2, 2.5, seed))) for seed in range(draws))
    assert_law(counts, {world: draws * share for world, share in expected.items()})


def test_power_law_degrees_follow_the_exponent() -> None:
    # Expected degrees are in proportion to (i + 1)^(-1 / (exponent - 1)) where edges are few; compare two bands of
    # nodes whose degrees sum to d and D: log(d / D) is off by about sqrt(1/d + 1/D), 5 of which are allowed.
    for exponent in (2.5, 4.0):
        world = power_law(100_000, 20_000, 2, exponent, seed=3)
        degree = np.bincount(world.nodes, minlength=100_000)
        pull = np.arange(1, 100_001) ** (-1 / (exponent - 1))
        near, far = slice(10, 1000), slice(10_000, 100_000)
        got = math.log(degree[near].sum() / degree[far].sum())
        wanted = math.log(pull[near].sum() / pull[far].sum())
        assert abs(got - wanted) <= 5 * math.sqrt(1 / degree[near].sum() + 1 / degree[far].sum())


def test_power_law_refuses_the_impossible() -> None:
    with pytest.raises(ConfigError, match=r"world\.num_edges=57 .*at most 56$"):
        power_law(8, 57, 3, 2.5, seed=0)
    with pytest.raises(ConfigError, match=r"world\.power_law_exponent=2\.0 is outside \(2, inf\)"):
        power_law(8, 10, 3, 2.0, seed=0)


def test_power_law_is_listed_where_it_is_dense_and_drawn_where_it_is_sparse() -> None:
    def kind(num_nodes: int, num_edges: int) -> str:
        part = parts_of(WorldConfig(generator="power_law", num_nodes=num_nodes, num_edges=num_edges))[0]
        return type(part).__name__

    assert kind(180, 10) == "RacedSets"  # C(180, 3) is below a million
    assert kind(190, 10) == "PulledSets"
    assert kind(190, math.comb(190, 3) // 4 + 1) == "RacedSets"
    assert kind(10**4, math.comb(10**4, 3)) == "PulledSets"  # more than memory holds


def test_more_edges_than_there_are_numbers_are_refused() -> None:
    config = WorldConfig(generator="uniform", num_nodes=10**6, num_edges=2**62 + 1, size=5)
    with pytest.raises(ConfigError, match=r"world\.num_edges is 4611686018427387905, .*at most 2\^62"):
        parts_of(config)
    with pytest.raises(ConfigError, match=r"at most 2\^62"):
        parts_of(WorldConfig(generator="block", num_nodes=10**6, size=5))


def test_an_edge_of_an_enormous_world_is_found_by_its_number() -> None:
    part = parts_of(WorldConfig(generator="uniform", num_nodes=10**6, num_edges=10**15))[0]
    rows = part.rows(10**15 - 1000, 10**15)
    assert len(np.unique(rows, axis=0)) == 1000
    assert rows.shape == (1000, 3)
