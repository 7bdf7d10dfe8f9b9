"""Laws of weights: functions of an edge's number, with the law they promise."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hgscale.errors import ConfigError
from hgscale.hypergraph.worlds.weights import (
    DirichletLaw,
    TwoLevelLaw,
    UniformLaw,
    WeightLaw,
    ZipfLaw,
    check_even,
    mass_of,
)

P_VALUE = 1e-7  # one draw in ten million of an ideal source falls outside; seeds are fixed


def weights_of(law: WeightLaw, num_edges: int) -> np.ndarray:
    return law.of(np.arange(num_edges), np.zeros((num_edges, 1), dtype=np.int32))


@pytest.mark.parametrize(
    "law",
    [UniformLaw(), TwoLevelLaw(3.0, 0), ZipfLaw(1000, 1.3, 0), DirichletLaw(1.0, 0), DirichletLaw(0.4, 0)],
)
def test_a_weight_is_a_function_of_the_edges_number(law: WeightLaw) -> None:
    weights = weights_of(law, 1000)
    index = np.array([999, 0, 1, 1, 517])
    np.testing.assert_array_equal(law.of(index, np.zeros((5, 3), dtype=np.int32)), weights[index])
    assert (weights > 0).all()


@pytest.mark.parametrize(
    "make", [lambda s: TwoLevelLaw(3.0, s), lambda s: ZipfLaw(100, 1.0, s), lambda s: DirichletLaw(2.0, s)]
)
def test_the_seed_decides_the_weights(make) -> None:
    assert weights_of(make(0), 100).tolist() == weights_of(make(0), 100).tolist()
    assert weights_of(make(0), 100).tolist() != weights_of(make(1), 100).tolist()


@given(num_edges=st.integers(2, 50), kappa=st.sampled_from([1.5, 3.0, 1e6]), seed=st.integers(0, 30))
def test_two_levels_both_occur(num_edges: int, kappa: float, seed: int) -> None:
    assert set(weights_of(TwoLevelLaw(kappa, seed), num_edges)) == {1.0, kappa}


def test_two_levels_come_equally_often_and_the_first_edges_take_turns() -> None:
    weights = weights_of(TwoLevelLaw(3.0, 0), 10_000)
    # Five standard deviations of a binomial with chance 1/2: 5 x 50.
    assert abs((weights > 1).sum() - 5000) <= 250
    heavy = sum(weights_of(TwoLevelLaw(3.0, seed), 1)[0] > 1 for seed in range(2000))
    assert abs(heavy - 1000) <= 5 * math.sqrt(500)


def test_zipf_weights_are_the_powers_of_all_ranks_dealt_at_random() -> None:
    law = ZipfLaw(1000, 1.2, 0)
    weights, ranks = weights_of(law, 1000), np.arange(1, 1001)
    np.testing.assert_allclose(np.sort(weights)[::-1], ranks**-1.2, rtol=1e-14)
    # A random order has rank correlation 0 within 5 / sqrt(E - 1).
    assert abs(np.corrcoef(np.argsort(np.argsort(weights)), ranks)[0, 1]) < 5 / math.sqrt(999)
    assert set(weights_of(ZipfLaw(10, 0.0, 0), 10)) == {1.0}


@pytest.mark.parametrize("num_edges", [7, 10**5, 10**15])
def test_the_edge_of_a_rank_has_that_rank(num_edges: int) -> None:
    law = ZipfLaw(num_edges, 1.0, 3)
    places = np.array([0, 1, num_edges // 2, num_edges - 1])
    np.testing.assert_array_equal(law.ranks(law.edges_at(places)), places + 1)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.9999, 1.0, 1.5, 30.0])
def test_dirichlet_weights_are_gamma_variables(alpha: float) -> None:
    num_edges = 50_000
    weights = weights_of(DirichletLaw(alpha, 1), num_edges)
    assert stats.kstest(weights, "gamma", args=(alpha,)).pvalue > P_VALUE
    # Mean and variance are alpha; the variance of (g - alpha)^2 is 2 alpha^2 + 6 alpha. Five standard deviations.
    assert abs(weights.mean() - alpha) < 5 * math.sqrt(alpha / num_edges)
    variance = ((weights - alpha) ** 2).mean()
    assert abs(variance - alpha) < 5 * math.sqrt((2 * alpha**2 + 6 * alpha) / num_edges)


def test_dirichlet_weights_of_neighbouring_edges_are_independent() -> None:
    for alpha in (0.5, 1.0, 2.0):
        ranks = np.argsort(np.argsort(weights_of(DirichletLaw(alpha, 0), 20_000)))
        assert abs(np.corrcoef(ranks[1:], ranks[:-1])[0, 1]) < 5 / math.sqrt(20_000)


@given(st.lists(st.floats(1e-300, 1e300), max_size=30))
def test_masses_are_exact_but_for_one_rounding_and_a_square_of_it(values: list[float]) -> None:
    mass = mass_of(np.array(values, dtype=np.float64))
    exact = sum(map(Fraction, values), Fraction(0))
    # Neumaier: one rounding of the result, and E^2 of the square of one for what is carried.
    assert abs(Fraction(mass) - exact) <= exact * (Fraction(1, 2**53) + Fraction(30**2, 2**105))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoLevelLaw(0.5, 0), r"world\.kappa=0\.5 is outside"),
        (lambda: TwoLevelLaw(math.inf, 0), r"world\.kappa=inf is outside"),
        (lambda: ZipfLaw(10, -1.0, 0), r"world\.zipf_exponent=-1\.0 is outside"),
        (lambda: DirichletLaw(0.0, 0), r"world\.dirichlet_alpha=0\.0 "),
        (lambda: DirichletLaw(math.nan, 0), r"world\.dirichlet_alpha=nan "),
    ],
)
def test_laws_that_there_are_not_are_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_weights_that_a_float_cannot_hold_apart_are_refused() -> None:
    law = ZipfLaw(10, 3.0, 0)
    check_even(law, 1e-300, 1.0, 10)
    for smallest, total in ((0.0, 1.0), (1e-300, 1e10), (1.0, math.inf), (1.0, math.nan)):
        with pytest.raises(ConfigError, match=r"world\.zipf_exponent=3\.0 makes weights of 10 edges too uneven"):
            check_even(law, smallest, total, 10)
