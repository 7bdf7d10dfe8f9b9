import dataclasses
from itertools import combinations
from math import log, sqrt

import numpy as np
import pytest
from scipy import stats

from hgscale.errors import ConfigError
from hgscale.hypergraph.recovery import any_order, conditionals, one_mask
from hgscale.hypergraph.recovery import readout as recovery
from hgscale.hypergraph.recovery.readout import ReadoutConfig
from hgscale.hypergraph.structure import Hypergraph
from tests.unit.hypergraph.oracles import Oracle, all_supports, brute_chain, make_world, swap_connected

PAIR_READ_OUTS = (one_mask.bfs, one_mask.stationary, one_mask.least_squares, any_order.chain)


# Exact conditionals give back the world


@pytest.mark.parametrize("num_nodes", [3, 4])
def test_every_connected_pair_world_is_recovered_exactly_and_every_other_one_refused(num_nodes):
    pairs = list(combinations(range(num_nodes), 2))
    supports = [s for num in range(1, len(pairs) + 1) for s in combinations(pairs, num)]
    for i, support in enumerate(supports):
        world = make_world(support, num_nodes, seed=i)
        for method in PAIR_READ_OUTS:
            if method is any_order.chain or swap_connected(support):
                recovered = method(Oracle(world), world)
                np.testing.assert_allclose(recovered.on_support, world.weights, rtol=0, atol=1e-10)
                assert recovered.off_support_mass < 1e-10
            else:
                with pytest.raises(ConfigError, match="use method chain"):
                    method(Oracle(world), world)


@pytest.mark.parametrize(("num_nodes", "num_edges"), [(4, 1), (4, 2), (4, 3), (4, 4), (5, 2), (5, 4)])
def test_every_3_uniform_world_is_recovered_exactly_by_chain_and_by_least_squares_where_swaps_connect_it(
    num_nodes, num_edges
):
    for i, support in enumerate(all_supports(num_nodes, 3, num_edges)):
        world = make_world(support, num_nodes, seed=i)
        recovered = any_order.chain(Oracle(world), world)
        np.testing.assert_allclose(recovered.on_support, world.weights, rtol=0, atol=1e-10)
        if swap_connected(support):
            recovered = one_mask.least_squares(Oracle(world), world)
            np.testing.assert_allclose(recovered.on_support, world.weights, rtol=0, atol=1e-10)
            assert recovered.off_support_mass < 1e-10
        else:
            with pytest.raises(ConfigError, match="of size 3 fall into"):
                one_mask.least_squares(Oracle(world), world)


def test_mixed_sizes_are_recovered_exactly():
    sets = [s for size in (1, 2, 3, 4) for s in combinations(range(4), size)]
    rng = np.random.default_rng(5)
    num_connected = 0
    for i in range(60):
        support = [sets[j] for j in rng.choice(len(sets), size=int(rng.integers(1, 9)), replace=False)]
        world = make_world(support, 4, seed=i)
        recovered = any_order.chain(Oracle(world), world, exact_size=i % 5)  # every order of an exact oracle is right
        np.testing.assert_allclose(recovered.on_support, world.weights, rtol=0, atol=1e-10)
        of_size = [
            [world.edge(e) for e in range(world.num_edges) if len(world.edge(e)) == k] for k in world.distinct_sizes
        ]
        if all(swap_connected(edges) for edges in of_size):
            num_connected += 1
            recovered = one_mask.least_squares(Oracle(world), world)
            np.testing.assert_allclose(recovered.on_support, world.weights, rtol=0, atol=1e-10)
    assert num_connected >= 10


def test_a_large_edge_is_recovered_from_its_random_orders():
    world = make_world([tuple(range(9)), tuple(range(3, 12)), (0, 1)], 12)
    recovered = any_order.chain(Oracle(world), world, num_orders=3)
    np.testing.assert_allclose(recovered.on_support, world.weights, rtol=0, atol=1e-10)
    assert recovered.incompatibility == pytest.approx(0, abs=1e-6)  # a root of round-off


def test_off_support_mass_of_least_squares_is_that_of_a_pair_model_with_one_edge_too_many():
    truth = Hypergraph.from_edges([(0, 1), (1, 2), (2, 3), (0, 3)], [0.4, 0.3, 0.2, 0.1])
    believed = Hypergraph.from_edges([(0, 1), (1, 2), (2, 3), (0, 3), (0, 2)], [0.32, 0.24, 0.16, 0.08, 0.2])
    for method in PAIR_READ_OUTS:
        recovered = method(Oracle(believed), truth, **({"max_candidates": 99} if method is any_order.chain else {}))
        assert recovered.off_support_mass == pytest.approx(0.2, abs=1e-10)
        np.testing.assert_allclose(recovered.on_support, 0.8 * truth.weights, atol=1e-10)
        assert [edges.tolist() for edges in recovered.off_edges.edges] == [[[0, 2]]]
        assert recovered.off_edges.weights[0] == pytest.approx([0.2], abs=1e-10)
        error = recovery.errors(truth, recovered)
        assert error.recovery_l1 == pytest.approx(0.4)  # 0.2 missing on the support, 0.2 off it
        assert error.l1_renormalised == pytest.approx(0, abs=1e-9)
        assert (error.support_precision, error.support_recall) == (0.8, 1.0)


def test_blocks_do_not_change_a_read_out(monkeypatch):
    world = make_world(list(combinations(range(6), 3)), 6)
    pairs = make_world(list(combinations(range(6), 2)), 6)
    oracle, pair_oracle = Oracle(world, noise=0.3, leak=0.1), Oracle(pairs, noise=0.3, leak=0.1)

    def everything():
        return [
            any_order.chain(oracle, world, max_candidates=50),
            any_order.chain(oracle, world, exact_size=2),
            one_mask.least_squares(oracle, world),
            one_mask.stationary(pair_oracle, pairs),
        ]

    whole = everything()
    monkeypatch.setattr(conditionals, "BLOCK_ENTRIES", 40)
    monkeypatch.setattr(any_order, "BLOCK_ENTRIES", 40)
    for one, other in zip(whole, everything(), strict=True):
        np.testing.assert_array_equal(one.on_support, other.on_support)
        assert one.off_support_mass == other.off_support_mass


def test_a_size_the_model_does_not_know_gets_no_weight():
    world = make_world([(0, 1), (1, 2), (0, 1, 2)], 3)
    for method in (any_order.chain, one_mask.least_squares):
        recovered = method(Oracle(world, sizes=(2,)), world)
        np.testing.assert_allclose(recovered.on_support, [*world.weights[:2], 0], atol=1e-10)
        assert recovered.off_support_mass == pytest.approx(world.weights[2], abs=1e-10)


# Errors


def test_errors_are_those_computed_by_hand():
    world = Hypergraph.from_edges([(0, 1), (0, 2), (1, 2)], [0.5, 0.3, 0.2])
    off = conditionals.WeightedEdges((np.array([[0, 3], [1, 3]]),), (np.array([0.15, 0.05]),))
    error = recovery.errors(world, conditionals.Recovered(np.array([0.5, 0.25, 0.05]), 0.2, off, 0.3, "chain"))
    assert error.l1_on_support == pytest.approx(0.2)
    assert error.recovery_l1 == pytest.approx(0.4)
    assert error.recovery_tv == pytest.approx(0.2)
    assert error.l1_renormalised == pytest.approx(0.125 + 0.0125 + 0.1375)
    assert error.support_precision == pytest.approx(2 / 3)  # at 0.1: {0,1} and {0,2} right, {0,3} wrong
    assert error.support_recall == pytest.approx(2 / 3)
    assert (error.num_edges, error.incompatibility) == (3, 0.3)
    nothing = recovery.errors(world, conditionals.Recovered(np.zeros(3), 1.0, None, None, "bfs"))
    assert (nothing.recovery_l1, nothing.support_recall) == (2, 0)
    assert (nothing.l1_renormalised, nothing.support_precision) == (None, None)


def test_support_threshold_is_half_the_smallest_weight_unless_the_lightest_edges_hold_next_to_nothing():
    threshold = conditionals.support_threshold
    assert threshold(Hypergraph.from_edges([(0,), (1,)], [1, 3])) == pytest.approx(0.125)
    assert threshold(Hypergraph.from_edges([(0,), (1,), (2,)], [1e-9, 1, 3])) == pytest.approx(0.125)
    assert threshold(Hypergraph.from_edges([(0,)])) == 0.5


def test_one_statistic_per_sample_carries_the_error_on_and_off_the_support():
    rng = np.random.default_rng(0)
    weights, p = rng.dirichlet(np.ones(50)), 0.9 * rng.dirichlet(np.ones(50))
    exact = np.abs(weights - p).sum() + 1 - p.sum()
    assert (weights * 2 * np.maximum(0, 1 - p / weights)).sum() == pytest.approx(exact)
    drawn = rng.choice(50, size=200_000, p=weights)
    result = recovery.estimate(weights[drawn], np.log(p[drawn]))
    assert result.l1_low < exact < result.l1_high
    # The ratios' own standard errors: 4 of them.
    ratio = p[drawn] / weights[drawn]
    assert result.off_support_mass == pytest.approx(0.1, abs=4 * ratio.std() / sqrt(200_000))
    assert result.l1_on_support == pytest.approx(np.abs(weights - p).sum(), abs=4 * ratio.std() / sqrt(200_000))
    assert result.l1_renormalised == pytest.approx(np.abs(weights - p / 0.9).sum(), abs=8 * ratio.std() / sqrt(200_000))


def test_the_interval_of_an_estimate_covers_the_exact_error_19_times_in_20():
    world = make_world(list(combinations(range(8), 3)), 8)
    oracle = Oracle(world, noise=0.4, leak=0.1)
    log_p, _ = any_order.chain_log_prob(oracle, world.edges_of_size(3))
    exact = np.abs(world.weights - np.exp(log_p)).sum() + 1 - np.exp(log_p).sum()
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        drawn = rng.choice(world.num_edges, size=100, p=world.weights)
        result = recovery.estimate(world.weights[drawn], log_p[drawn])
        covered += result.l1_low <= exact <= result.l1_high
    assert 180 <= covered <= 198  # 190 +- 3 standard deviations of a binomial(200, 0.95), 3.1


def rare(share: float) -> tuple[np.ndarray, np.ndarray]:
    """1,000 equal edges, of which a share is recovered exactly and the rest hardly at all: weights and recovered."""
    weights = np.full(1000, 1e-3)
    return weights, np.where(np.arange(1000) < 1000 * share, weights, 1e-3 * weights)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_the_interval_covers_where_nearly_all_edges_are_lost_or_nearly_none(share):
    weights, p = rare(share)
    exact = 2 * (1 - p.sum())
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        drawn = rng.integers(1000, size=500)
        result = recovery.estimate(weights[drawn], np.log(p[drawn]))
        covered += result.l1_low <= exact <= result.l1_high
    # 4 deviations of a binomial(200, 0.95) below 190.
    assert covered >= 190 - 4 * sqrt(200 * 0.95 * 0.05)


def test_the_interval_is_that_of_the_binomial_likelihood_where_draws_lie_at_the_ends():
    x = np.repeat([0.0, 2.0], [95, 5])
    low, high = recovery.mean_interval(x, largest=2.0)
    limit = stats.t.ppf(0.975, 99) ** 2 / 2
    for mean in (low, high):
        share = mean / 2
        lost = 5 * log(0.05 / share) + 95 * log(0.95 / (1 - share))
        assert lost == pytest.approx(limit, rel=1e-6)
    assert low < x.mean() < high


@pytest.mark.parametrize("value", [0.0, 0.5, 2.0])
def test_draws_that_are_all_alike_leave_what_may_have_been_missed_open(value):
    low, high = recovery.mean_interval(np.full(100, value), largest=2.0)
    limit = stats.t.ppf(0.975, 99) ** 2 / 2
    missed = 1 - np.exp(-limit / 100)  # a share of the law of which 100 draws hold nothing so likely
    assert low == pytest.approx(value * (1 - missed), rel=1e-6)
    assert high == pytest.approx(value + (2 - value) * missed, rel=1e-6)


def test_log_likelihood_is_the_mean_log_of_what_fresh_samples_get_and_missing_where_one_gets_nothing():
    world = Hypergraph.from_edges([(0, 1), (0, 2), (1, 2)], [0.5, 0.3, 0.2])
    error = recovery.errors(world, conditionals.Recovered(np.array([0.5, 0.25, 0.05]), 0.2, None, None, "chain"))
    assert error.log_likelihood == pytest.approx(0.5 * log(0.5) + 0.3 * log(0.25) + 0.2 * log(0.05))
    error = recovery.errors(world, conditionals.Recovered(np.array([0.5, 0.5, 0.0]), 0.0, None, None, "bfs"))
    assert error.log_likelihood is None


# read_out


def test_auto_reads_connected_pairs_by_their_stationary_law_and_all_else_by_chain():
    for edges, method in (
        ([(0, 1), (1, 2)], "stationary"),
        ([(0, 1), (2, 3)], "chain"),
        ([(0, 1), (1, 2), (0, 1, 2)], "chain"),
    ):
        world = make_world(edges, 4)
        result = recovery.read_out(Oracle(world), world, ReadoutConfig())
        assert result.error.method == result.recovered.method == method
        assert result.error.recovery_l1 < 1e-10
        assert result.error.support_precision == result.error.support_recall == 1


@pytest.mark.parametrize("method", ["bfs", "stationary", "least_squares", "chain"])
def test_read_out_runs_the_method_that_is_asked_for(method):
    world = make_world([(0, 1), (1, 2), (0, 2)], 3)
    oracle = Oracle(world, noise=0.3)
    result = recovery.read_out(oracle, world, ReadoutConfig(method=method))
    expected = {f.__name__: f for f in PAIR_READ_OUTS}[method](oracle, world)
    np.testing.assert_array_equal(result.recovered.on_support, expected.on_support)
    assert result.error.recovery_l1 == recovery.errors(world, expected).recovery_l1


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("bfs", {"bfs_threshold": 0.3}),
        ("chain", {"num_orders": 2}),
        ("chain", {"exact_size": 4}),
        ("chain", {"seed": 5}),
        ("chain", {"max_candidates": 0}),
    ],
)
def test_every_field_of_the_config_changes_the_read_out(method, fields):
    size = 2 if method == "bfs" else 4
    world = make_world(list(combinations(range(5), size)), 5)
    oracle = Oracle(world, noise=0.4)
    base = {"method": method} if method == "bfs" else {"method": method, "exact_size": 3}
    changed = ReadoutConfig(**(base | fields))
    plain = recovery.read_out(oracle, world, ReadoutConfig(**base))
    assert recovery.read_out(oracle, world, changed).error != plain.error


def test_read_out_from_sampled_edges_brackets_the_exact_error_and_asks_for_no_more_than_was_drawn():
    world = make_world([*combinations(range(6), 3), *combinations(range(6), 2)], 6)
    oracle = Oracle(world, noise=0.4, leak=0.1)
    exact = recovery.read_out(oracle, world, ReadoutConfig(max_candidates=0)).error
    result = recovery.read_out(oracle, world, ReadoutConfig(sampled_edges=400), seed=3)
    error = result.error
    assert result.recovered is None
    assert error.recovery_l1_low < exact.recovery_l1 < error.recovery_l1_high
    assert error.recovery_l1_high - error.recovery_l1_low < 0.1
    assert error.off_support_mass == pytest.approx(exact.off_support_mass, abs=0.1)
    assert error.incompatibility == pytest.approx(exact.incompatibility, rel=0.2)
    assert error.log_likelihood == pytest.approx(exact.log_likelihood, abs=0.2)  # logs of p vary by about 1
    assert error.num_edges == 400
    oracle.num_asked = 0
    recovery.read_out(oracle, world, ReadoutConfig(sampled_edges=2))
    assert oracle.num_asked <= 2 * 7  # at most 7 proper subsets of each
    by_config = recovery.read_out(oracle, world, ReadoutConfig(sampled_edges=400, seed=3), seed=8).error
    assert by_config == error
    assert recovery.read_out(oracle, world, ReadoutConfig(sampled_edges=400), seed=4).error != error


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"bfs_threshold": 0.0}, "bfs_threshold=0.0"),
        ({"num_orders": 0}, "num_orders=0"),
        ({"max_candidates": -1}, "max_candidates=-1"),
        ({"sampled_edges": 1}, "sampled_edges=1"),
        ({"sampled_edges": 9, "method": "bfs"}, "sampled_edges=9 has no meaning with readout.method=bfs; leave it out"),
        ({"min_count": 0.0}, "min_count=0.0; a positive number"),
        ({"min_count": float("nan")}, "min_count=nan; a positive number"),
        (
            {"min_count": 0.1, "method": "least_squares"},
            "min_count=0.1 has no meaning with readout.method=least",
        ),
        ({"num_orders": 2, "method": "stationary"}, "num_orders=2 has no meaning with readout.method=stationary"),
        ({"bfs_threshold": 0.1, "method": "chain"}, "bfs_threshold=0.1 has no meaning with readout.method=chain"),
        ({"allow_unidentified": True}, "allow_unidentified=True has no meaning with readout.method=auto"),
        ({"config": {"a": 1}, "method": "chain"}, "config={'a': 1} has no meaning with readout.method=chain"),
        ({"method": "chian"}, "readout.method=chian is no read-out; did you mean chain?"),
        ({"min_count": 0.1, "max_candidates": 0}, "set max_candidates to null, or min_count to null"),
        ({"min_count": 0.1, "sampled_edges": 9}, "set sampled_edges to null, or min_count to null"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        ReadoutConfig(**fields)


def test_what_cannot_be_read_is_refused_by_a_check_that_asks_no_model():
    pairs, mixed = make_world([(0, 1), (1, 2)], 3), make_world([(0, 1), (1, 2), (0, 1, 2)], 3)
    apart = make_world([(0, 1), (2, 3)], 4)
    for world, fields, trained, complaint in (
        (mixed, {"method": "stationary"}, "one_mask", "method stationary reads pairs; this world has sizes 2, 3"),
        (mixed, {"method": "bfs"}, "any_order", "method bfs reads pairs; this world has sizes 2, 3"),
        (apart, {"method": "stationary"}, "any_order", "the 2 edges of size 2 fall into 2 groups"),
        (apart, {}, "one_mask", "method stationary: the 2 edges of size 2 fall into 2 groups"),
        (apart, {"method": "least_squares"}, "one_mask", "the 2 edges of size 2 fall into 2 groups"),
        (pairs, {"method": "chain"}, "one_mask", "asks about several hidden nodes"),
        (pairs, {"num_orders": 2}, "any_order", r"num_orders=2 has no meaning with readout.method=auto \(stationary"),
        (mixed, {"min_count": 0.1}, "one_mask", r"min_count=0.1 has no meaning with readout.method=auto \(least_sq"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            recovery.check_readout(world, ReadoutConfig(**fields), trained)
    for world, fields, trained, method in (
        (pairs, {}, "one_mask", "stationary"),
        (mixed, {}, "one_mask", "least_squares"),
        (mixed, {"num_orders": 2}, "any_order", "chain"),
        (apart, {"method": "least_squares", "allow_unidentified": True}, "one_mask", "least_squares"),
    ):
        assert recovery.check_readout(world, ReadoutConfig(**fields), trained).method == method


class OnDisk:
    """A world that is not held in memory, as far as anybody can tell who asks it by the protocol."""

    def __init__(self, world):
        self.held = world

    def __getattr__(self, name):
        if name in ("weights", "nodes", "offsets", "sizes", "edges_of_size", "span"):
            raise AssertionError(f"{name}: an array over all edges")
        return getattr(self.held, name)


def test_a_world_that_is_not_held_is_read_from_2000_edges_unless_the_config_says_how_many():
    held = make_world([*combinations(range(5), 3), *combinations(range(5), 2)], 5)
    oracle = Oracle(held, noise=0.4, leak=0.1)
    error = recovery.read_out(oracle, OnDisk(held), ReadoutConfig()).error
    assert error.num_edges == 2000
    assert error == recovery.read_out(oracle, held, ReadoutConfig(sampled_edges=2000)).error
    assert recovery.read_out(oracle, OnDisk(held), ReadoutConfig(sampled_edges=30)).error.num_edges == 30
    with pytest.raises(ConfigError, match=r"method=least_squares .* set readout\.method to chain"):
        recovery.read_out(oracle, OnDisk(held), ReadoutConfig(method="least_squares"))


def test_sampled_edges_are_no_samples_of_a_training_under_the_same_seed():
    world = make_world(list(combinations(range(20), 3)), 20)
    drawn = recovery.sampled_edges(world, ReadoutConfig(sampled_edges=500), seed=0)
    assert (drawn == world.sampler(0).draw(np.arange(500))).mean() < 0.05
    assert recovery.sampled_edges(world, ReadoutConfig(sampled_edges=20), seed=0).tolist() == drawn[:20].tolist()


def test_read_outs_refuse_worlds_that_they_cannot_read():
    triples = make_world([(0, 1, 2), (1, 2, 3)], 4)
    for method in ("bfs", "stationary"):
        with pytest.raises(ConfigError, match=f"method {method} reads pairs; this world has sizes 3"):
            recovery.read_out(Oracle(triples), triples, ReadoutConfig(method=method))
    with pytest.raises(ConfigError, match="knows 4 nodes and the world has 5"):
        recovery.read_out(Oracle(triples), make_world([(0, 4)], 5), ReadoutConfig())
    with pytest.raises(ConfigError, match="at least 2"):
        recovery.estimate(np.ones(1), np.zeros(1))


# Held-out edges


HELD_OUT = Hypergraph.from_edges([(0, 1), (2, 3), (1, 2, 4), (0, 3, 5), (0, 1, 2, 3)], [4, 2, 1, 2, 1], 6)


def held_out_case(**fields):
    """A model of pairs and triples, its world, the config of a read-out and its result."""
    world = make_world([(0, 1), (1, 2), (2, 5), (1, 2, 4), (0, 3, 4)], 6)
    oracle = Oracle(world, noise=0.4, leak=0.2)
    config = ReadoutConfig(method="chain", max_candidates=0, **fields)
    return oracle, world, config, recovery.read_out(oracle, world, config)


def test_every_edge_is_found_in_another_hypergraph_or_not_at_all():
    world = make_world([(0, 1), (1, 2), (2, 5), (1, 2, 4), (0, 3, 4)], 6)
    at = conditionals.find_edges(world, HELD_OUT)
    assert [world.edge(e) if e >= 0 else None for e in at] == [(0, 1), None, None, (1, 2, 4), None]
    assert [HELD_OUT.edge(e) for e in range(5)][3] == (1, 2, 4)


def test_held_out_error_is_over_all_sets_and_its_log_likelihood_over_known_sizes():
    oracle, world, config, result = held_out_case()
    p = np.array([brute_chain(oracle, HELD_OUT.edge(e))[0] if len(HELD_OUT.edge(e)) < 4 else 0 for e in range(5)])
    oracle.num_asked = 0
    error = recovery.read_held_out(oracle, world, HELD_OUT, result, config)
    w = HELD_OUT.weights
    assert error.l1 == pytest.approx(np.abs(w - p).sum() + 1 - p.sum())
    assert error.log_likelihood == pytest.approx(w[:4] @ np.log(p[:4]) / w[:4].sum())
    assert oracle.num_asked <= 3 + 7  # subsets of one new pair and one new triple: what was read is not read again


def test_held_out_edges_are_sampled_where_edges_are():
    oracle, world, config, result = held_out_case(sampled_edges=3000)
    exact = recovery.read_held_out(*held_out_case()[:2], HELD_OUT, *reversed(held_out_case()[2:]))
    error = recovery.read_held_out(oracle, world, HELD_OUT, result, config)
    # The statistic lies in [0, 2] and logs of p within 3 of one another: 4 standard errors of 3000.
    assert error.l1 == pytest.approx(exact.l1, abs=4 / sqrt(3000))
    assert error.log_likelihood == pytest.approx(exact.log_likelihood, abs=4 * 1.5 / sqrt(3000))


def test_held_out_edges_of_new_sizes_alone_or_impossible_ones_have_no_log_likelihood():
    oracle, world, config, result = held_out_case()
    alone = Hypergraph.from_edges([(0, 1, 2, 3)], None, 6)
    assert recovery.read_held_out(oracle, world, alone, result, config) == recovery.HeldOutError(2.0, None)
    exact = Oracle(world)
    result = recovery.read_out(exact, world, config)
    impossible = Hypergraph.from_edges([(0, 1), (0, 2)], None, 6)
    error = recovery.read_held_out(exact, world, impossible, result, config)
    assert error.log_likelihood is None
    shared = abs(0.5 - result.recovered.on_support[0])
    assert error.l1 == pytest.approx(shared + 0.5 + 1 - result.recovered.on_support[0])


@pytest.mark.parametrize("method", ["bfs", "stationary", "least_squares"])
def test_read_outs_of_one_mask_say_nothing_about_held_out_edges(method):
    world = make_world([(0, 1), (1, 2), (0, 2)], 3)
    oracle, config = Oracle(world), ReadoutConfig(method=method)
    assert recovery.read_held_out(oracle, world, world, recovery.read_out(oracle, world, config), config) is None


def test_the_sparse_reading_drops_light_sets_and_scales_the_rest():
    world = Hypergraph.from_edges([(0, 1), (1, 2), (2, 3)], [0.5, 0.3, 0.2])
    off = conditionals.WeightedEdges((np.array([[0, 2], [0, 3]]),), (np.array([0.1, 0.01]),))
    recovered = conditionals.Recovered(np.array([0.5, 0.3, 0.04]), 0.16, off, None, "chain")
    # Kept are 0.5, 0.3 and, off the support, 0.1: 0.9 in all.
    by_hand = abs(0.5 - 5 / 9) + abs(0.3 - 3 / 9) + 0.2 + 1 / 9
    assert recovery.sparse_l1(world, recovered, least=0.05) == pytest.approx(by_hand, rel=1e-12)
    assert recovery.sparse_l1(world, recovered, least=0.9) is None
    cut_short = conditionals.WeightedEdges(off.edges, off.weights, missing_below=1.0)
    for unknown in (None, cut_short):
        assert recovery.sparse_l1(world, dataclasses.replace(recovered, off_edges=unknown), least=0.05) is None


# Lists


def every_weight(oracle, num_nodes):
    """The law of an oracle over all sets, by going through them."""
    sets = [s for size in oracle.sizes for s in combinations(range(num_nodes), size)]
    return {s: brute_chain(oracle, s)[0] for s in sets}


def list_by_hand(oracle, num_nodes, least):
    kept = {s: p for s, p in every_weight(oracle, num_nodes).items() if p >= least}
    total = sum(kept.values())
    return {s: p / total for s, p in kept.items()}


def l1_by_hand(world, law):
    truth = {world.edge(e): world.weights[e] for e in range(world.num_edges)}
    return sum(abs(truth.get(s, 0) - law.get(s, 0)) for s in truth.keys() | law.keys())


@pytest.mark.parametrize("min_count", [0.5, 1.0, 3.0])
def test_a_list_holds_what_the_samples_would_hold_and_sums_to_1(min_count):
    oracle, world, _, plain = held_out_case()
    config = ReadoutConfig(method="chain", min_count=min_count)
    result = recovery.read_out(oracle, world, config, num_samples=50)
    listed, error = list_by_hand(oracle, 6, min_count / 50), result.error
    assert 0 < len(listed) < len(every_weight(oracle, 6))
    assert error.method == result.recovered.method == "chain-list"
    found = {world.edge(e): p for e, p in enumerate(result.recovered.on_support) if p > 0}
    for edges, weights in zip(result.recovered.off_edges.edges, result.recovered.off_edges.weights, strict=True):
        found |= {tuple(edge): p for edge, p in zip(edges.tolist(), weights.tolist(), strict=True)}
    assert found == pytest.approx(listed)
    assert error.recovery_l1 == pytest.approx(l1_by_hand(world, listed)) == pytest.approx(2 * error.recovery_tv)
    assert error.off_support_mass == pytest.approx(1 - result.recovered.on_support.sum())
    assert error.log_likelihood == pytest.approx(plain.error.log_likelihood)  # of the law: no edge is impossible
    held_out = recovery.read_held_out(oracle, world, HELD_OUT, result, config)
    assert held_out.l1 == pytest.approx(l1_by_hand(HELD_OUT, listed))
    of_law = recovery.read_held_out(oracle, world, HELD_OUT, plain, config).log_likelihood
    assert held_out.log_likelihood == pytest.approx(of_law)


def test_a_list_of_pairs_is_read_from_their_stationary_law():
    world = make_world([(0, 1), (1, 2), (2, 3), (0, 3)], 4)
    law = recovery.read_out(Oracle(world, leak=0.02), world, ReadoutConfig(), list_from=1e-9).recovered
    result = recovery.read_out(Oracle(world, leak=0.02), world, ReadoutConfig(min_count=1.0), num_samples=20)
    assert (law.off_edges.num_edges, result.recovered.off_edges.num_edges) == (2, 0)
    assert result.error.method == "stationary-list"
    np.testing.assert_allclose(result.recovered.on_support, law.on_support / law.on_support.sum(), rtol=1e-9)
    assert result.error.off_support_mass == pytest.approx(0, abs=1e-12)
    assert result.error.support_precision == 1


def test_a_search_that_met_its_limit_shortens_the_list():
    world = Hypergraph.from_edges(list(combinations(range(5), 3)), [2.0**-i for i in range(10)])
    oracle = Oracle(world, noise=0.5)
    config = ReadoutConfig(method="chain", min_count=0.01, max_candidates=8)
    result = recovery.read_out(oracle, world, config, num_samples=10)
    assert result.cut.least == result.law.off_edges.missing_below > 0.001
    listed = list_by_hand(oracle, 5, result.cut.least)
    assert len(listed) == 3
    assert result.error.recovery_l1 == pytest.approx(l1_by_hand(world, listed))


def test_a_list_without_sets_has_recovered_nothing():
    world = make_world([(0, 1), (1, 2)], 3)
    config = ReadoutConfig(method="chain", min_count=50.0)
    error = recovery.read_out(Oracle(world), world, config, num_samples=10).error
    assert (error.recovery_l1, error.off_support_mass) == (2.0, 1.0)
    assert (error.l1_renormalised, error.support_precision, error.support_recall) == (None, None, 0.0)


def test_a_list_needs_to_know_how_many_samples_there_were_and_every_edge():
    world = make_world([(0, 1), (1, 2)], 3)
    with pytest.raises(ConfigError, match=r"min_count=0\.1: without num_samples"):
        recovery.read_out(Oracle(world), world, ReadoutConfig(min_count=0.1))
    with pytest.raises(ConfigError, match=r"min_count=0\.1 compares every edge, .* set readout\.min_count to null"):
        recovery.read_out(Oracle(world), OnDisk(world), ReadoutConfig(min_count=0.1), num_samples=10)


def test_edges_off_the_support_are_listed_down_to_the_weight_asked_for():
    world = Hypergraph.from_edges([(0, 1), (1, 2), (2, 3)], [0.5, 0.3, 0.2])
    for method in ("stationary", "chain"):
        config = ReadoutConfig(method=method)
        few, many = (
            recovery.read_out(Oracle(world, leak=0.01), world, config, list_from=least).recovered.off_edges
            for least in (None, 1e-6)
        )
        assert (few.num_edges, many.num_edges) == (0, 3)  # of 6 pairs 3 are no edges
