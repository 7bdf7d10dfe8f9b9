from itertools import combinations
from math import comb, factorial, sqrt

import numpy as np
import pytest

from hgscale.hypergraph.recovery import any_order
from hgscale.hypergraph.recovery import readout as recovery
from hgscale.hypergraph.structure import Hypergraph
from tests.unit.hypergraph.oracles import Oracle, all_supports, brute_chain, make_world

# chain


@pytest.mark.parametrize(
    "support", [all_supports(5, 3, 6)[40], all_supports(5, 2, 5)[7], all_supports(6, 4, 5)[900], ((0,), (2,))]
)
def test_dynamic_programming_is_the_sum_over_all_permutations(support):
    world = make_world(support, 6)
    oracle = Oracle(world, noise=0.7, leak=0.2)
    log_p, spread = any_order.chain_log_prob(oracle, np.array(support))
    for e, edge in enumerate(support):
        p, products = brute_chain(oracle, edge)
        assert np.exp(log_p[e]) == pytest.approx(p, rel=1e-12)
        assert spread[e] == pytest.approx(products.std() / products.mean(), abs=1e-7)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_chain_is_normalised_over_all_sets_whatever_the_conditionals(size):
    world = make_world(all_supports(5, size, 4)[0], 5)
    log_p, _ = any_order.chain_log_prob(
        Oracle(world, noise=1.0, leak=0.3), np.array(list(combinations(range(5), size)))
    )
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-12)


def test_off_support_mass_of_chain_is_the_sum_over_all_other_sets():
    world = make_world([(0, 1), (1, 2), (0, 1, 2), (2, 3, 4), (0, 3, 4)], 5)
    oracle = Oracle(world, noise=0.5, leak=0.1)
    recovered = any_order.chain(oracle, world)
    support = {world.edge(e) for e in range(world.num_edges)}
    others = [s for size in (2, 3) for s in combinations(range(5), size) if s not in support]
    assert recovered.off_support_mass == pytest.approx(sum(brute_chain(oracle, s)[0] for s in others), abs=1e-12)
    products = [brute_chain(oracle, world.edge(e))[1] for e in range(world.num_edges)]
    spread = np.array([values.std() / values.mean() for values in products])
    p = recovered.on_support
    assert recovered.incompatibility == pytest.approx((p * spread).sum() / p.sum(), rel=1e-6)


def test_sampled_orders_are_unbiased_and_differ_by_seed():
    world = make_world(all_supports(6, 4, 4)[0], 6)
    oracle = Oracle(world, noise=0.5, leak=0.2)
    edges = np.array([world.edge(e) for e in range(4)])
    exact, _ = any_order.chain_log_prob(oracle, edges)
    many = np.repeat(edges, 2000, axis=0)  # each copy draws its own two orders
    log_p, spread = any_order.chain_log_prob(oracle, many, num_orders=2, exact_size=3)
    draws = np.exp(log_p).reshape(4, 2000)
    standard_error = draws.std(axis=1, ddof=1) / sqrt(2000)
    assert (np.abs(draws.mean(axis=1) - np.exp(exact)) < 4 * standard_error).all()
    variance = ((spread * np.exp(log_p)) ** 2).reshape(4, 2000).mean(axis=1)  # (n - 1) makes it unbiased as well
    products = [brute_chain(oracle, edge)[1] * factorial(4) for edge in edges.tolist()]
    expected = np.array([values.var() for values in products])
    assert variance == pytest.approx(expected, rel=0.2)  # 2000 draws: about 3% of standard error each
    one, _ = any_order.chain_log_prob(oracle, edges, num_orders=2, exact_size=3, seed=1)
    again, _ = any_order.chain_log_prob(oracle, edges, num_orders=2, exact_size=3, seed=1)
    other, _ = any_order.chain_log_prob(oracle, edges, num_orders=2, exact_size=3, seed=2)
    assert (one == again).all()
    assert (one != other).any()


def test_shared_contexts_are_asked_once():
    world = make_world(list(combinations(range(6), 4)), 6)
    oracle = Oracle(world)
    any_order.chain(oracle, world)
    assert oracle.num_asked == sum(comb(6, size) for size in range(4))  # every set of 0 to 3 nodes, for 15 edges


# candidates


def found_edges(found):
    return {
        tuple(edge): weight
        for edges, weights in zip(found.edges, found.weights, strict=True)
        for edge, weight in zip(edges.tolist(), weights, strict=True)
    }


def test_candidates_of_exact_conditionals_are_the_support():
    sets = [s for size in (1, 2, 3, 4) for s in combinations(range(5), size)]
    rng = np.random.default_rng(2)
    for i in range(80):
        support = [sets[j] for j in rng.choice(len(sets), size=int(rng.integers(1, 12)), replace=False)]
        world = make_world(support, 5, seed=i)
        found = any_order.candidates(Oracle(world), float(world.weights.min()) / 2, 10**6)
        assert found.missing_below == 0
        assert found_edges(found) == pytest.approx(
            {world.edge(e): world.weights[e] for e in range(world.num_edges)}, abs=1e-10
        )


def test_candidates_drop_what_is_lighter_than_asked_for():
    world = Hypergraph.from_edges([(0, 1, 2), (0, 1, 3), (2, 3, 4)], [0.6, 0.3, 0.1])
    assert set(found_edges(any_order.candidates(Oracle(world), 0.2, 100))) == {(0, 1, 2), (0, 1, 3)}


def test_candidates_of_noisy_conditionals_are_the_sets_whose_chain_probability_is_large_enough():
    sets = list(combinations(range(6), 3))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        world = make_world([sets[j] for j in rng.choice(20, size=7, replace=False)], 6, seed)
        oracle = Oracle(world, noise=0.2, leak=0.1, seed=seed)
        expected = {s: p for s in sets if (p := brute_chain(oracle, s)[0]) >= 0.01}
        assert found_edges(any_order.candidates(oracle, 0.01, 10**6)) == pytest.approx(expected, rel=1e-9)


def test_candidates_of_large_edges_follow_prefixes_not_every_subset():
    world = make_world([tuple(range(14)), tuple(range(2, 16)), (0, 3, 5)], 16)
    oracle = Oracle(world)
    found = any_order.candidates(oracle, 0.01, 10**6)
    assert set(found_edges(found)) == {world.edge(e) for e in range(3)}
    assert oracle.num_asked < 14 * 3 * 20  # a few prefixes and six orders per edge; the subsets are 2 x 16,384


def test_a_search_that_is_cut_short_misses_only_edges_below_the_weight_that_it_names():
    sets = [s for size in (2, 3, 4) for s in combinations(range(7), size)]
    cut = lost = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        support = [sets[j] for j in rng.choice(len(sets), size=30, replace=False)]
        world = Hypergraph.from_edges(support, rng.dirichlet(np.full(30, 0.3)), num_nodes=7)
        found = any_order.candidates(Oracle(world), 1e-6, int(rng.integers(4, 40)))
        for at in range(world.num_edges):
            if world.edge(at) not in found_edges(found):
                lost += 1
                assert world.weights[at] <= max(1e-6, found.missing_below)
        cut += 0 < found.missing_below < world.weights.max()
    assert cut > 20  # what it names is worth something
    assert lost > 100


def test_a_search_that_is_cut_short_says_so_and_gives_no_precision():
    world = make_world(list(combinations(range(5), 2)), 5)
    assert any_order.candidates(Oracle(world), 0.01, 3).missing_below > 0.1
    error = recovery.errors(world, any_order.chain(Oracle(world), world, max_candidates=3))
    assert error.support_precision is None
    assert recovery.errors(world, any_order.chain(Oracle(world), world, max_candidates=20)).support_precision == 1
    assert recovery.errors(world, any_order.chain(Oracle(world), world)).support_precision is None
