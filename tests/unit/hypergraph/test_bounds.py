from itertools import combinations, product
from math import comb, log2, pi, prod, sqrt

import numpy as np
import pytest

from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph import bounds
from hgscale.hypergraph.structure import Hypergraph

UNEVEN = np.array([0.5, 0.25, 0.125, 0.1, 0.025])


def asymptotic_floor(weights: np.ndarray, num_samples: int) -> float:
    """The limit where N w_e >> 1 for most edges, each count being close to normal."""
    return sqrt(2 / (pi * num_samples)) * float(np.sqrt(weights * (1 - weights)).sum())


@pytest.mark.parametrize("num_samples", [1, 2, 3, 5])
def test_floor_is_the_mean_error_over_every_possible_draw(num_samples):
    weights = np.array([0.6, 0.3, 0.1])
    expected = 0.0
    for draw in product(range(3), repeat=num_samples):
        probability = prod(weights[e] for e in draw)
        expected += probability * sum(abs(weights[e] - draw.count(e) / num_samples) for e in range(3))
    assert bounds.count_floor(weights, num_samples) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("num_samples", [7, 10, 100, 400])
def test_floor_is_the_sum_of_binomial_mean_absolute_deviations(num_samples):
    expected = 0.0
    for w in UNEVEN.tolist():  # N w is a whole number for some of these: the boundary of De Moivre's form
        for x in range(num_samples + 1):
            expected += comb(num_samples, x) * w**x * (1 - w) ** (num_samples - x) * abs(x / num_samples - w)
    assert bounds.count_floor(UNEVEN, num_samples) == pytest.approx(expected, rel=1e-11)


def test_floor_is_the_mean_of_simulated_errors():
    weights = np.random.default_rng(0).dirichlet(np.full(200, 0.3))
    draws = np.random.default_rng(1).multinomial(500, weights, size=2000)
    simulated = np.abs(draws / 500 - weights).sum(axis=1)
    standard_error = simulated.std(ddof=1) / sqrt(2000)
    assert abs(bounds.count_floor(weights, 500) - simulated.mean()) < 4 * standard_error
    by_count_l1 = np.mean([bounds.count_l1(weights, counts) for counts in draws])
    assert by_count_l1 == pytest.approx(simulated.mean(), rel=1e-12)


def test_floor_tends_to_the_asymptotic_formula_and_uniform_weights_to_its_closed_form():
    # Edgeworth's correction to a binomial's mean deviation is of relative order 1 / (N w (1-w)), here below 41 / N.
    for num_samples in (10**3, 10**5, 10**7, 10**13):
        exact, limit = bounds.count_floor(UNEVEN, num_samples), asymptotic_floor(UNEVEN, num_samples)
        assert exact == pytest.approx(limit, rel=41 / num_samples + 1e-12)
    uniform = np.full(38, 1 / 38)
    assert asymptotic_floor(uniform, 80_000) == pytest.approx(sqrt(2 * 37 / (pi * 80_000)))


def test_floor_reaches_the_mass_that_was_never_drawn_where_the_asymptotic_formula_exceeds_2():
    rare = np.full(10**6, 1e-6)
    assert bounds.count_floor(rare, 100) == pytest.approx(2.0, abs=3e-4)  # 2 (1 - w)^N up to terms of order N / E
    assert asymptotic_floor(rare, 100) > 2


def test_one_edge_has_no_error():
    assert bounds.count_floor(np.ones(1), 3) == 0


def test_half_norm_of_equal_weights_is_their_number():
    assert bounds.half_norm(np.full(17, 1 / 17)) == pytest.approx(17)
    assert bounds.half_norm(np.array([0.81, 0.01])) == pytest.approx(1.0)


def test_floor_never_rises_with_the_number_of_samples():
    floors = [bounds.count_floor(UNEVEN, n) for n in range(1, 300)]
    assert np.diff(floors).max() < 1e-14


def test_counting_oracle_divides_counts_by_their_sum():
    assert bounds.count_estimate(np.array([3, 0, 1])).tolist() == [0.75, 0, 0.25]
    assert bounds.count_l1(np.array([0.5, 0.25, 0.25]), np.array([3, 0, 1])) == pytest.approx(0.5)


def test_structured_floor_is_the_mean_error_of_spreading_each_groups_count_over_its_edges():
    groups = np.array([0, 1, 0, 2, 1, 0, 0, 2])
    weights = np.array([0.4 / 4, 0.25 / 2, 0.4 / 4, 0.35 / 2, 0.25 / 2, 0.4 / 4, 0.4 / 4, 0.35 / 2])
    draws = np.random.default_rng(0).multinomial(30, weights, size=4000)
    errors = np.zeros(len(draws))
    for group in range(3):
        members = groups == group
        estimate = draws[:, members].sum(axis=1) / 30 / members.sum()
        errors += np.abs(weights[members][None, :] - estimate[:, None]).sum(axis=1)
    standard_error = errors.std(ddof=1) / sqrt(len(errors))
    assert abs(bounds.structured_floor(weights, groups, 30) - errors.mean()) < 4 * standard_error
    assert bounds.structured_floor(weights, np.arange(8), 30) == pytest.approx(bounds.count_floor(weights, 30))
    assert bounds.structured_floor(weights, np.zeros(8, dtype=int), 30) == pytest.approx(0, abs=1e-15)


def test_capacity_of_a_perfect_model_of_a_uniform_world_is_the_bits_that_point_out_its_edges():
    world = Hypergraph.from_edges(list(combinations(range(9), 3))[::7], None, 9)
    perfect = -np.log(world.num_edges)
    assert bounds.capacity_bits(world, perfect) == pytest.approx(12 * log2(84 / 12))
    assert bounds.capacity_bits(world, bounds.blank_log_likelihood(world)) == 0
    assert bounds.capacity_bits(world, perfect - 99) < 0


def test_knowing_nothing_is_knowing_the_law_of_sizes_and_that_all_sets_of_a_size_are_alike():
    edges = [(1,), (0, 2), (1, 3), (0, 1, 2, 3, 4, 5)]
    world = Hypergraph.from_edges(edges, [0.4, 0.2, 0.1, 0.3], 6)
    expected = 0.4 * np.log(0.4 / 6) + 0.3 * np.log(0.3 / 15) + 0.3 * np.log(0.3)
    assert bounds.blank_log_likelihood(world) == pytest.approx(expected)
    entropy = -sum(w * log2(w) for w in (0.4, 0.2, 0.1, 0.3))
    bits = 4 * (-expected / np.log(2) - entropy)
    assert bounds.capacity_bits(world, -entropy * np.log(2)) == pytest.approx(bits)


def test_bad_requests_are_refused():
    with pytest.raises(ConfigError, match="num_samples=0"):
        bounds.count_floor(UNEVEN, 0)
    with pytest.raises(DataError, match="2 weights"):
        bounds.count_floor(np.array([1.0, 1.0]), 5)
    with pytest.raises(DataError, match="0 samples"):
        bounds.count_estimate(np.zeros(4, dtype=int))
