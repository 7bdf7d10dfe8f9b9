"""Generators: exact numbers of distinct edges, drawn by the law they promise, refused where impossible."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from hgscale.errors import ConfigError
from hgscale.hypergraph import generators
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


# ---- uniform ----


@given(num_nodes=st.integers(1, 9), data=st.data())
def test_uniform_gives_exactly_the_edges_asked_for_up_to_all_sets(num_nodes: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, num_nodes))
    num_edges = data.draw(st.integers(1, math.comb(num_nodes, size)))
    world = generators.uniform(num_nodes, num_edges, size, seed=data.draw(st.integers(0, 5)))
    assert_is_world(world, num_nodes, num_edges)
    assert world.distinct_sizes == (size,)


def test_uniform_gives_all_20_triples_of_6_nodes() -> None:
    assert edges_of(generators.uniform(6, 20, 3, seed=1)) == list(itertools.combinations(range(6), 3))


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
    assert_is_world(generators.uniform(num_nodes, num_edges, sizes, seed=2), num_nodes, num_edges)


def test_uniform_refuses_more_edges_than_sets_and_names_the_most() -> None:
    with pytest.raises(ConfigError, match=r"world\.num_edges=21 .*at most 20$"):
        generators.uniform(6, 21, 3, seed=0)


@given(
    num_nodes=st.integers(3, 8), shares=st.lists(st.sampled_from([0.1, 0.25, 0.5, 1.0, 3.0]), min_size=3, max_size=3)
)
def test_the_most_edges_that_a_refusal_of_mixed_sizes_names_is_the_most(num_nodes: int, shares: list[float]) -> None:
    sizes = dict(zip((1, 2, 3), shares, strict=True))
    with pytest.raises(ConfigError, match=r"at most \d+$") as refusal:
        generators.uniform(num_nodes, 2**num_nodes, sizes, seed=0)
    most = int(str(refusal.value).split()[-1])
    for num_edges in range(most + 1, 2**num_nodes):
        with pytest.raises(ConfigError, match="at most"):
            generators.uniform(num_nodes, num_edges, sizes, seed=0)
    counts = generators._apportion(most, sizes)
    if min(counts.values()) > 0:
        assert_is_world(generators.uniform(num_nodes, most, sizes, seed=0), num_nodes, most)
    else:
        with pytest.raises(ConfigError, match="leaves no edge"):  # so few edges that a small share rounds to none
            generators.uniform(num_nodes, most, sizes, seed=0)


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ({2: 0.5, 3: 0.3, 5: 0.2}, {2: 50, 3: 30, 5: 20}),
        ({3: 3, 2: 5, 5: 2}, {2: 50, 3: 30, 5: 20}),  # neither order nor total of the shares matter
        ({2: 1, 3: 1, 4: 1}, {2: 34, 3: 33, 4: 33}),  # the remainder goes to the smaller size
    ],
)
def test_mixed_sizes_come_in_their_shares(sizes: dict[int, float], counts: dict[int, int]) -> None:
    world = generators.uniform(20, 100, sizes, seed=0)
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
        generators.uniform(10, 10, sizes, seed=0)


@pytest.mark.parametrize(
    ("num_nodes", "size", "num_edges"),
    [
        (5, 2, 1),  # ranks drawn
        (5, 2, 8),  # ranks left out drawn
    ],
)
def test_uniform_draws_every_world_equally_often(num_nodes: int, size: int, num_edges: int) -> None:
    worlds = list(itertools.combinations(itertools.combinations(range(num_nodes), size), num_edges))
    draws = 60 * len(worlds)
    counts = Counter(tuple(edges_of(generators.uniform(num_nodes, num_edges, size, seed))) for seed in range(draws))
    assert_law(counts, dict.fromkeys(worlds, 60))


def test_floyds_subsets_are_equally_likely_and_may_differ_in_nodes_by_row() -> None:
    draw = np.random.default_rng(0)
    rows = generators._random_subsets(np.tile([4, 5], 6000), 3, 12_000, draw)
    for parity, num_nodes in ((0, 4), (1, 5)):
        counts = Counter(map(tuple, rows[parity::2].tolist()))
        assert_law(counts, dict.fromkeys(itertools.combinations(range(num_nodes), 3), 6000 / math.comb(num_nodes, 3)))


def assert_law(counts: Mapping, expected: Mapping) -> None:
    """Counts of independent draws follow the expected ones: chi-square at a level of 1e-6, the seeds being fixed."""
    assert set(counts) <= set(expected)
    statistic = sum((counts[value] - number) ** 2 / number for value, number in expected.items())
    assert statistic <= chi2.isf(1e-6, len(expected) - 1)


@given(num_nodes=st.integers(1, 9), data=st.data())
def test_ranks_number_the_subsets_in_lexicographic_order(num_nodes: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, num_nodes))
    subsets = np.array(list(itertools.combinations(range(num_nodes), size)))
    np.testing.assert_array_equal(generators._unrank(np.arange(len(subsets)), num_nodes, size), subsets)
    np.testing.assert_array_equal(generators._rank(subsets, num_nodes), np.arange(len(subsets)))


# ---- gnm ----


@given(num_nodes=st.integers(2, 12), data=st.data())
def test_gnm_is_connected_with_exactly_the_edges_asked_for(num_nodes: int, data: st.DataObject) -> None:
    num_edges = data.draw(st.integers(num_nodes - 1, math.comb(num_nodes, 2)))
    world = generators.gnm(num_nodes, num_edges, seed=data.draw(st.integers(0, 5)))
    assert_is_world(world, num_nodes, num_edges)
    graph = nx.Graph(edges_of(world))
    assert len(graph) == num_nodes
    assert nx.is_connected(graph)


@pytest.mark.parametrize(("num_nodes", "num_edges"), [(10, 9), (20, 38), (50, 245), (100, 990)])
def test_gnm_has_the_density_of_the_paper_unless_told(num_nodes: int, num_edges: int) -> None:
    assert generators.gnm(num_nodes, None, seed=0).num_edges == num_edges


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
        generators.gnm(6, num_edges, seed=0)


def test_pruefer_sequences_give_the_trees_that_networkx_gives() -> None:
    for num_nodes in (2, 3, 4, 5):
        for sequence in itertools.product(range(num_nodes), repeat=num_nodes - 2):
            tree = generators._tree_from_pruefer(np.array(sequence, dtype=np.int64), num_nodes)
            expected = nx.from_prufer_sequence(list(sequence)) if num_nodes > 2 else nx.path_graph(2)
            assert {frozenset(pair) for pair in tree.tolist()} == {frozenset(pair) for pair in expected.edges}


def test_gnm_draws_trees_equally_often_and_then_pairs_equally_often() -> None:
    # 4 nodes: 16 trees, each with 3 free pairs. A 4-edge graph comes out with (its spanning trees) / 48: the 3 cycles
    # have 4 trees each and the 12 triangles with a tail 3 each, so 3 x 4 + 12 x 3 = 48.
    counts = Counter(tuple(edges_of(generators.gnm(4, 4, seed))) for seed in range(4800))
    graphs = itertools.combinations(itertools.combinations(range(4), 2), 4)
    spanning = {graph: 4 if set(Counter(itertools.chain(*graph)).values()) == {2} else 3 for graph in graphs}
    assert_law(counts, {graph: 100 * number for graph, number in spanning.items()})
    trees = [graph for graph in itertools.combinations(itertools.combinations(range(4), 2), 3) if spans(graph)]
    counts = Counter(tuple(edges_of(generators.gnm(4, 3, seed))) for seed in range(1600))
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

    assert nx.is_isomorphic(graph(generators.star(num_nodes)), nx.star_graph(num_nodes - 1))
    assert nx.is_isomorphic(graph(generators.chain(num_nodes)), nx.path_graph(num_nodes))
    cross = graph(generators.cross(num_nodes))
    assert cross.degree(0) == 4
    arms = sorted(len(arm) for arm in nx.connected_components(cross.subgraph(range(1, num_nodes))))
    assert len(arms) == 4
    assert arms[-1] - arms[0] <= 1
    assert all(degree <= 2 for node, degree in cross.degree if node != 0)


@pytest.mark.parametrize(("family", "least"), [(generators.star, 2), (generators.chain, 2), (generators.cross, 5)])
def test_trees_of_too_few_nodes_are_refused(family, least: int) -> None:
    assert family(least).num_edges == least - 1
    with pytest.raises(ConfigError, match=rf"world\.num_nodes={least - 1} is outside \[{least}, "):
        family(least - 1)


# ---- power law ----


@given(num_nodes=st.integers(2, 8), exponent=st.sampled_from([2.01, 2.5, 6.0]), data=st.data())
def test_power_law_gives_exactly_the_edges_asked_for_up_to_all_sets(
    num_nodes: int, exponent: float, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, num_nodes))
    num_edges = data.draw(st.integers(1, math.comb(num_nodes, size)))
    world = generators.power_law(num_nodes, num_edges, size, exponent, seed=data.draw(st.integers(0, 5)))
    assert_is_world(world, num_nodes, num_edges)


@pytest.mark.parametrize("max_listed", [0, 10**6])
def test_power_law_draws_sets_by_the_product_of_pulls_listed_or_not(
    monkeypatch: pytest.MonkeyPatch, max_listed: int
) -> None:
    monkeypatch.setattr(generators, "_MAX_LISTED", max_listed)
    pull = [(i + 1) ** (-1 / 1.5) for i in range(5)]
    chance = {pair: pull[pair[0]] * pull[pair[1]] for pair in itertools.combinations(range(5), 2)}
    total = sum(chance.values())
    chance = {pair: value / total for pair, value in chance.items()}
    # Two draws without replacement, the second among what is left.
    expected = Counter()
    for first, second in itertools.permutations(chance, 2):
        expected[frozenset((first, second))] += chance[first] * chance[second] / (1 - chance[first])
    draws = 4000
    counts = Counter(frozenset(edges_of(generators.power_law(5, 2, 2, 2.5, seed))) for seed in range(draws))
    assert_law(counts, {world: draws * share for world, share in expected.items()})


def test_power_law_degrees_follow_the_exponent() -> None:
    # Expected degrees are in proportion to (i + 1)^(-1 / (exponent - 1)) where edges are few; compare two bands of
    # nodes whose degrees sum to d and D: log(d / D) is off by about sqrt(1/d + 1/D), 5 of which are allowed.
    for exponent in (2.5, 4.0):
        world = generators.power_law(100_000, 20_000, 2, exponent, seed=3)
        degree = np.bincount(world.nodes, minlength=100_000)
        pull = np.arange(1, 100_001) ** (-1 / (exponent - 1))
        near, far = slice(10, 1000), slice(10_000, 100_000)
        got = math.log(degree[near].sum() / degree[far].sum())
        wanted = math.log(pull[near].sum() / pull[far].sum())
        assert abs(got - wanted) <= 5 * math.sqrt(1 / degree[near].sum() + 1 / degree[far].sum())


def test_power_law_refuses_the_impossible_and_what_it_cannot_find(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"world\.num_edges=57 .*at most 56$"):
        generators.power_law(8, 57, 3, 2.5, seed=0)
    with pytest.raises(ConfigError, match=r"world\.power_law_exponent=2\.0 is outside \(2, inf\)"):
        generators.power_law(8, 10, 3, 2.0, seed=0)
    monkeypatch.setattr(generators, "_MAX_DRAWS_PER_EDGE", 1)
    monkeypatch.setattr(generators, "_MAX_LISTED", 0)
    with pytest.raises(ConfigError, match=r"world\.num_edges=2000 is too dense .*ask for at most (\d+)$") as refusal:
        generators.power_law(150, 2000, 2, 2.01, seed=0)
    most = int(str(refusal.value).split()[-1])
    assert 0 < most < 2000


# ---- block ----


@given(num_nodes=st.integers(4, 9), num_blocks=st.integers(2, 3), data=st.data())
def test_block_weights_depend_on_classes_alone_and_split_the_mass_as_asked(
    num_nodes: int, num_blocks: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(2, math.ceil(num_nodes / num_blocks)))
    total = math.comb(num_nodes, size)
    num_edges = data.draw(st.none() | st.integers(2, total))
    ratio = data.draw(st.sampled_from([0.25, 1.0, 5.0]))
    world = generators.block(num_nodes, num_edges, size, num_blocks, ratio, seed=data.draw(st.integers(0, 5)))
    assert_is_world(world, num_nodes, num_edges or total)
    classes = generators.block_of(num_nodes, num_blocks)
    assert np.ptp(np.bincount(classes, minlength=num_blocks)) <= 1
    inside = np.array([len({classes[node] for node in edge}) == 1 for edge in edges_of(world)])
    assert len(set(world.weights[inside])) == len(set(world.weights[~inside])) == 1
    # Two sums of at most E numbers, each off by at most E 2^-53 relatively, and their quotient.
    assert world.weights[inside].sum() / world.weights[~inside].sum() == pytest.approx(ratio, rel=200 * 2**-53)


@pytest.mark.parametrize("max_listed", [0, 10**6])
def test_block_draws_each_kind_of_edge_equally_often_listed_or_not(
    monkeypatch: pytest.MonkeyPatch, max_listed: int
) -> None:
    monkeypatch.setattr(generators, "_MAX_LISTED", max_listed)
    # 7 nodes in classes of 4 and 3: 5 triples inside and 30 across; of 7 edges 1 is inside and 6 are across.
    draws = 1500
    counts = Counter(edge for seed in range(draws) for edge in edges_of(generators.block(7, 7, 3, 2, 1.0, seed)))
    inside = {edge: count for edge, count in counts.items() if max(edge) < 4 or min(edge) >= 4}
    assert_law(inside, dict.fromkeys([*itertools.combinations(range(4), 3), (4, 5, 6)], draws / 5))
    across = {edge: count for edge, count in counts.items() if edge not in inside}
    assert len(across) == 30
    # Drawn six at a time without replacement, counts vary less than a binomial, five of whose deviations are allowed.
    assert all(abs(count - draws / 5) <= 5 * math.sqrt(draws * 0.2 * 0.8) for count in across.values())


def test_block_holds_beyond_64_bit_ranks() -> None:
    world = generators.block(3000, 2000, 8, 2, 1.0, seed=0)  # about 2000 / 2^7 = 16 edges are inside a class
    assert_is_world(world, 3000, 2000)
    classes = generators.block_of(3000, 2)
    assert {frozenset(classes[list(edge)].tolist()) for edge in edges_of(world)} == {
        frozenset({0}),
        frozenset({1}),
        frozenset({0, 1}),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 21, 3, 2, 1.0), r"world\.num_edges=21 .*at most 20$"),
        ((6, 1, 3, 2, 1.0), r"world\.num_edges=1 .*at least 2$"),
        ((6, 5, 1, 2, 1.0), r"world\.size=1 .*at least 2$"),
        ((6, 5, 3, 1, 1.0), r"world\.num_blocks=1 is outside \[2, "),
        ((6, 5, 3, 3, 1.0), r"world\.num_blocks=3 makes classes of at most 2 nodes"),
        ((6, 5, 3, 2, 0.0), r"world\.within_ratio=0\.0 "),
    ],
)
def test_block_refuses_what_has_no_inside_or_no_across(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generators.block(*arguments, seed=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: generators.uniform(10**5, 10**10, 3, seed=0),
        lambda: generators.gnm(10**6, None, seed=0),
        lambda: generators.power_law(10**5, 10**10, 3, 2.5, seed=0),
        lambda: generators.block(10**5, None, 3, 4, 1.0, seed=0),
    ],
)
def test_worlds_beyond_memory_are_refused_not_begun(make) -> None:
    with pytest.raises(ConfigError, match=r"more than one memory holds; at most 2147483647$"):
        make()


# ---- weights ----


@given(num_edges=st.integers(2, 200), kappa=st.sampled_from([1.0, 1.5, 3.0, 1e6]), seed=st.integers(0, 20))
def test_two_levels_both_occur_so_kappa_is_what_was_asked(num_edges: int, kappa: float, seed: int) -> None:
    weights = generators.two_level_weights(num_edges, kappa, seed)
    assert len(set(weights)) == (1 if kappa == 1 else 2)
    # Two quotients, each rounded once, and their quotient: within 3 half-units in the last place.
    assert weights.max() / weights.min() == pytest.approx(kappa, rel=3 * 2**-53)
    assert math.fsum(weights) == pytest.approx(1, abs=num_edges * 2**-53)


def test_two_levels_come_equally_often() -> None:
    weights = generators.two_level_weights(10_000, 3.0, seed=0)
    # Five standard deviations of a binomial with chance 1/2: 5 x 50.
    assert abs((weights > weights.mean()).sum() - 5000) <= 250


def test_zipf_weights_fall_with_rank_and_are_dealt_at_random() -> None:
    weights = generators.zipf_weights(1000, 1.2, seed=0)
    ranks = np.arange(1, 1001)
    np.testing.assert_allclose(np.sort(weights)[::-1] * ranks**1.2, weights.max(), rtol=1e-12)
    # A random order has rank correlation 0 within 5 / sqrt(E - 1).
    assert abs(np.corrcoef(np.argsort(np.argsort(weights)), ranks)[0, 1]) < 5 / math.sqrt(999)
    assert set(generators.zipf_weights(10, 0.0, seed=0)) == {0.1}


@pytest.mark.parametrize("alpha", [0.3, 1.0, 30.0])
def test_dirichlet_weights_have_the_second_moment_of_their_law(alpha: float) -> None:
    num_edges = 20_000
    weights = generators.dirichlet_weights(num_edges, alpha, seed=1)
    # E sum w^2 = (alpha + 1) / (E alpha + 1); by the delta method the relative spread of the sum is that of a mean of
    # gamma^2 over E draws, below sqrt(E[g^4] / E[g^2]^2 / E), of which 5 are allowed.
    expected = (alpha + 1) / (num_edges * alpha + 1)
    fourth = (alpha + 2) * (alpha + 3) / (alpha * (alpha + 1))
    assert (weights**2).sum() == pytest.approx(expected, rel=5 * math.sqrt(fourth / num_edges))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: generators.two_level_weights(10, 0.5, 0), r"world\.kappa=0\.5 is outside"),
        (lambda: generators.two_level_weights(10, 1e308, 0), r"world\.kappa=1e\+308 .*too uneven"),
        (lambda: generators.zipf_weights(10, -1.0, 0), r"world\.zipf_exponent=-1\.0 is outside"),
        (lambda: generators.zipf_weights(10, 400.0, 0), r"world\.zipf_exponent=400\.0 .*too uneven"),
        (lambda: generators.dirichlet_weights(10, 0.0, 0), r"world\.dirichlet_alpha=0\.0 "),
        (lambda: generators.dirichlet_weights(10, 1e-4, 0), r"world\.dirichlet_alpha=0\.0001 .*too uneven"),
    ],
)
def test_weights_that_no_law_or_no_float_has_are_refused(draw, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draw()


def test_reweigh_keeps_edges_and_normalises() -> None:
    world = generators.star(4)
    heavier = generators.reweigh(world, np.array([1.0, 1.0, 2.0]))
    assert heavier.weights.tolist() == [0.25, 0.25, 0.5]
    assert edges_of(heavier) == edges_of(world)
    assert heavier.digest != world.digest


# ---- seeds ----


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: generators.uniform(100, 500, 3, seed),
        lambda seed: generators.uniform(100, 500, {2: 1, 5: 1}, seed),
        lambda seed: generators.uniform(10**6, 500, 6, seed),
        lambda seed: generators.gnm(30, 60, seed),
        lambda seed: generators.power_law(100, 500, 3, 2.5, seed),
        lambda seed: generators.power_law(10_000, 500, 3, 2.5, seed),
        lambda seed: generators.block(60, 500, 3, 4, 1.0, seed),
    ],
)
def test_the_seed_and_nothing_else_decides_the_edges(make) -> None:
    np.random.seed(0)
    first = make(0).digest
    np.random.seed(1)
    assert make(0).digest == first
    assert make(1).digest != first


@given(num_patterns=st.integers(1, 30), kappa=st.sampled_from([1.0, 3.0, 1e6]), seed=st.integers(0, 20))
def test_pattern_weights_are_one_per_pattern_from_one_to_kappa(num_patterns: int, kappa: float, seed: int) -> None:
    patterns = np.concatenate([np.arange(num_patterns), np.arange(num_patterns)[::-1], np.zeros(5, dtype=int)])
    weights = generators.pattern_weights(patterns, kappa, seed)
    assert all(len(set(weights[patterns == p])) == 1 for p in range(num_patterns))
    # exp and log are off by a unit or two in the last place of a number below 14.
    assert weights.max() / weights.min() == pytest.approx(kappa if num_patterns > 1 else 1, rel=1e-13)
    assert math.fsum(weights) == pytest.approx(1, abs=len(weights) * 2**-53)


def test_pattern_weights_are_even_in_logs() -> None:
    weights = generators.pattern_weights(np.arange(10_000), math.e**2, seed=0)
    # log w is uniform on an interval of length 2: mean of the quarter points, 5 standard deviations of a share.
    shares = np.histogram(np.log(weights / weights.min()), bins=4, range=(0, 2.0001))[0] / 10_000
    assert np.abs(shares - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / 10_000)


def test_pattern_weights_refuse_a_kappa_below_one() -> None:
    with pytest.raises(ConfigError, match=r"world\.kappa=0\.5 is outside"):
        generators.pattern_weights(np.arange(3), 0.5, seed=0)


@pytest.mark.parametrize(
    "law",
    [
        lambda seed: generators.pattern_weights(np.arange(100), 3.0, seed),
        lambda seed: generators.two_level_weights(100, 3.0, seed),
        lambda seed: generators.zipf_weights(100, 1.0, seed),
        lambda seed: generators.dirichlet_weights(100, 1.0, seed),
    ],
)
def test_the_seed_decides_the_weights(law) -> None:
    assert law(0).tolist() == law(0).tolist() != law(1).tolist()
