from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hgscale.hypergraph.sampling import alias_table
from hgscale.hypergraph.structure import EdgeSampler, Hypergraph

# One draw in ten million of an ideal source falls outside; seeds are fixed, so these tests never flicker.
P_VALUE = 1e-7
EPSILON = 2.0**-52


def pairs(weights: np.ndarray) -> Hypergraph:
    """As many pairs as there are weights, over as few nodes as hold them."""
    num_nodes = int(np.ceil((1 + np.sqrt(1 + 8 * len(weights))) / 2))
    left, right = np.triu_indices(num_nodes, 1)
    nodes = np.stack([left, right], axis=1)[: len(weights)]
    return Hypergraph.from_arrays(2 * np.arange(len(weights) + 1), nodes.ravel(), weights)


def mixed() -> Hypergraph:
    return Hypergraph.from_edges([[0], [1, 2], [0, 1, 2], [2, 3, 4], [0, 2, 3, 5]], [1, 2, 3, 4, 5])


def implied_probabilities(table: np.ndarray) -> np.ndarray:
    """What a uniform slot and a 32-bit coin make of a table."""
    keep = (table & np.uint64(2**32 - 1)).astype(np.float64) / 2**32
    alias = (table >> np.uint64(32)).astype(np.int64)
    return (keep + np.bincount(alias, weights=1 - keep, minlength=len(table))) / len(table)


def table_bound(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[E]: each slot rounds its threshold by 2**-32 at most, against the edges it leads to.

    Besides, the largest remainder, at most E max w, is rounded twice in each of E steps.
    """
    leads_here = 1 + np.bincount((table >> np.uint64(32)).astype(np.int64), minlength=len(table))
    return 2.0**-32 / len(table) * leads_here + 2 * EPSILON * len(table) * weights.max() / weights.sum()


def chi_square_p(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """The p-value of counts, with cells whose expectation is below 5 pooled, as the chi-square law asks."""
    expected = counts.sum() * probabilities
    rare = expected < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    if expected[-1] < 1e-9:
        assert observed[-1] == 0
        observed, expected = observed[:-1], expected[:-1]
    return stats.chisquare(observed, expected).pvalue if len(expected) > 1 else 1.0


WEIGHTS = {
    "one edge": np.ones(1),
    "two equal": np.ones(2),
    "seven in the ratio 1 to 7": np.arange(1.0, 8.0),
    "one edge in a million": np.array([1e-6, 1.0, 1e-3, 1e-6, 2.0]),
    "Zipf over 1,000": 1 / np.arange(1.0, 1001.0),
    "100,000 uneven": np.random.default_rng(0).gamma(0.5, size=100_000) + 1e-12,
    "100,000 and one heavy": np.append(np.full(99_999, 1e-9), 1.0),
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_the_alias_table_holds_the_weights_to_32_bits(weights):
    table = alias_table(weights)
    error = np.abs(implied_probabilities(table) - weights / weights.sum())
    assert (error <= table_bound(table, weights)).all()
    assert error.max() < 2.0**-32 + 1e-10


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=40))
def test_the_alias_table_of_any_weights_holds_them(weights):
    weights = np.array(weights)
    table = alias_table(weights)
    error = np.abs(implied_probabilities(table) - weights / weights.sum())
    assert (error <= table_bound(table, weights)).all()


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
@pytest.mark.parametrize("seed", [0, 1])
def test_edges_are_drawn_by_weight(weights, seed):
    world = pairs(weights)
    counts = EdgeSampler(world, seed).counts(np.arange(1_000_000))
    assert counts.sum() == 1_000_000
    assert chi_square_p(counts, world.weights) > P_VALUE


def test_neighbouring_samples_are_independent():
    world = pairs(np.array([1.0, 2.0, 3.0]))
    drawn = EdgeSampler(world, seed=0).draw(np.arange(300_000))
    counts = np.bincount(3 * drawn[::2] + drawn[1::2], minlength=9)
    assert chi_square_p(counts, np.outer(world.weights, world.weights).ravel()) > P_VALUE


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_a_sample_is_a_function_of_its_id_alone(ids, random):
    sampler = EdgeSampler(mixed(), seed=3)
    order = list(range(len(ids)))
    random.shuffle(order)
    ids = np.array(ids)
    edges = sampler.draw(ids)
    assert sampler.draw(ids[order]).tolist() == edges[order].tolist()
    cut = random.randint(0, len(ids))
    assert np.concatenate([sampler.draw(ids[:cut]), sampler.draw(ids[cut:])]).tolist() == edges.tolist()


def test_samples_of_smaller_n_are_a_prefix_of_those_of_larger_n():
    sampler = EdgeSampler(mixed(), seed=0)
    drawn = sampler.draw(np.arange(1000))
    for num_samples in (0, 1, 17, 1000):
        assert sampler.counts(np.arange(num_samples)).tolist() == np.bincount(drawn[:num_samples], minlength=5).tolist()


def test_seeds_draw_different_samples():
    ids = np.arange(64)
    assert EdgeSampler(mixed(), 0).draw(ids).tolist() != EdgeSampler(mixed(), 1).draw(ids).tolist()


def test_draw_nodes_gives_the_nodes_of_the_drawn_edges():
    world = pairs(np.arange(1.0, 50.0))
    sampler = EdgeSampler(world, seed=5)
    ids = np.arange(1300)[::-1]
    expected = [world.edge(e) for e in sampler.draw(ids)]
    assert [tuple(row) for row in sampler.draw_nodes(ids, 2).tolist()] == expected


def test_shuffling_keeps_the_nodes_of_each_edge():
    world = mixed()
    sampler = EdgeSampler(world, seed=5)
    ids = np.arange(500)
    edges = sampler.draw(ids)
    for size in world.distinct_sizes:
        chosen = world.sizes[edges] == size
        rows = sampler.shuffled(ids[chosen], edges[chosen], size)
        assert [tuple(sorted(row)) for row in rows.tolist()] == [world.edge(e) for e in edges[chosen]]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_order_of_the_nodes_is_equally_likely_whatever_the_edge(size):
    edges = list(combinations(range(size + 1), size))[:2]
    world = Hypergraph.from_edges(edges)
    sampler = EdgeSampler(world, seed=0)
    ids = np.arange(100_000)
    drawn = sampler.draw(ids)
    rows = sampler.shuffled(ids, drawn, size)
    places = np.searchsorted(np.arange(size + 1), rows)
    code = drawn * (size + 1) ** size + (places * (size + 1) ** np.arange(size)).sum(axis=1)
    possible = [
        e * (size + 1) ** size + sum(node * (size + 1) ** i for i, node in enumerate(order))
        for e in (0, 1)
        for order in permutations(world.edge(e))
    ]
    counts = np.array([(code == c).sum() for c in possible])
    assert counts.sum() == len(ids)
    assert chi_square_p(counts, np.full(len(possible), 1 / len(possible))) > P_VALUE


def test_the_order_of_a_sample_is_a_function_of_its_id_alone():
    sampler = EdgeSampler(Hypergraph.from_edges([[0, 1, 2, 3, 4]]), seed=0)
    ids = np.arange(200)
    edges = np.zeros(200, dtype=np.int64)
    rows = sampler.shuffled(ids, edges, 5)
    assert sampler.shuffled(ids[::-1].copy(), edges, 5)[::-1].tolist() == rows.tolist()
    assert sampler.shuffled(ids[150:], edges[150:], 5).tolist() == rows[150:].tolist()


def test_the_samples_of_a_world_are_the_same_by_every_door():
    world, ids = mixed(), np.arange(300)
    sampler = world.sampler(7)
    drawn = sampler.draw(ids)
    assert sampler.world is world
    assert drawn.tolist() == EdgeSampler(world, 7).draw(ids).tolist()
    rows = world.rows(drawn)
    assert rows.sizes.tolist() == world.sizes[drawn].tolist()
    at, triples = rows.of_size(3)
    assert [tuple(row) for row in triples.tolist()] == [world.edge(e) for e in drawn[at]]
    assert {len(world.edge(e)) for e in drawn[at]} == {3}
    assert world.weights_of(drawn).tolist() == world.weights[drawn].tolist()
    assert sum(weights.sum() for weights in world.weight_chunks()) == pytest.approx(1)
