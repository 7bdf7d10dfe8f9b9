"""Power laws over a study's axes: point estimates against scipy's, intervals against known laws."""

from dataclasses import astuple

import numpy as np
import pytest
import scipy.stats
from scipy.optimize import curve_fit

from hgscale.errors import ConfigError
from hgscale.rng import stream
from hgscale.study.fit import Offset, PowerLaw, fit_power_law, geometric_ratio, mean_interval, paired_difference

X = np.geomspace(1e3, 1e6, 8)
SEARCHED = 1e-7  # how finely the exponent is searched where ln(x_high / x_low) is above 1


def law(x: np.ndarray, exponent: float, offset: float) -> np.ndarray:
    """offset + a power that is 1 at the first x [p]."""
    return offset + (x / x[0]) ** exponent


def noisy(
    curve: np.ndarray, num_seeds: int, noise: float, repetition: int, *, shared: bool = False, missing: float = 0.0
) -> np.ndarray:
    """[s p] log-normal about the curve, of mean 1; half of the variance may be a factor of the seed's own."""
    generator = stream(repetition, "synthetic curves", num_seeds)
    normal = generator.standard_normal((num_seeds, len(curve)))
    if shared:
        normal = np.sqrt(0.5) * (normal + generator.standard_normal((num_seeds, 1)))
    y = curve * np.exp(noise * normal - noise**2 / 2)
    y[generator.random(y.shape) < missing] = np.nan
    return y


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.5, 1.5])
@pytest.mark.parametrize("offset", [0.0, 0.02])
def test_a_law_without_noise_is_found_again_and_its_offset_with_it(exponent, offset):
    fit = fit_power_law(X, np.tile(law(X, exponent, offset), (3, 1)))
    assert fit.exponent == pytest.approx(exponent, abs=SEARCHED)
    # An error of the exponent moves powers by it times ln(x), at most 14, and y at the first x is about 1.
    assert fit.amplitude == pytest.approx(1e3**-exponent, rel=14 * SEARCHED)
    assert fit.offset == pytest.approx(offset, abs=14 * SEARCHED)
    assert (fit.offset > 0) == (offset > 0)
    assert (fit.num_points, fit.num_seeds, fit.x_low, fit.x_high) == (8, 3, X[0], X[-1])
    assert fit.max_residual < 14 * SEARCHED


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_scipy_finds_the_same_law_in_the_same_means(offset):
    mean = noisy(law(X, -0.5, offset), 1, 0.05, 0)[0]
    y = mean * np.array([[0.9], [1.0], [1.1]])  # seeds scatter alike at each x, so that points weigh 1 / mean**2

    def model(u, exponent, amplitude, *c):
        return sum(c) + amplitude * u**exponent

    free = offset > 0
    known, _ = curve_fit(model, X / X[0], mean, [-0.4, 1.0] + [0.05] * free, sigma=mean, xtol=1e-14, ftol=1e-14)
    fit = fit_power_law(X, y, offset="free" if free else "none")
    assert fit.exponent == pytest.approx(known[0], abs=1e-6)  # curve_fit's own convergence
    assert fit.amplitude * X[0] ** fit.exponent == pytest.approx(known[1], rel=1e-5)
    assert fit.offset == pytest.approx(sum(known[2:]), abs=1e-6)
    assert fit.max_residual == pytest.approx(np.abs(mean / model(X / X[0], *known) - 1).max(), rel=1e-4)


def test_without_offset_the_interval_is_that_over_one_exponent_a_seed():
    exponents = -0.5 + 1e-3 * np.array([-1.3, 0.2, 0.9, -0.4, 1.1])
    fit = fit_power_law(X, np.stack([2 * (X / X[0]) ** exponent for exponent in exponents]), offset="none")
    known = scipy.stats.ttest_1samp(exponents, 0).confidence_interval()
    # A mean of powers is a power up to the square of how much they differ: 1e-3 times half of ln(x) is 3.5e-3.
    assert fit.exponent == pytest.approx(exponents.mean(), abs=3.5e-3**2)
    assert (fit.exponent_low, fit.exponent_high) == pytest.approx(known, abs=3.5e-3**2)


def test_points_at_which_seeds_scatter_weigh_less():
    scatter = np.array([[-1.0], [0.0], [1.0]]) * np.where(X > 1e5, 0.3, 0.01)
    curve = law(X, -0.5, 0.0) * np.where(X > 1e5, 1.2, 1.0)  # the last points lie off the law
    towards, away = (fit_power_law(X, curve * (1 + seeds), offset="none") for seeds in (scatter, scatter[:, ::-1]))
    assert abs(towards.exponent + 0.5) < 0.7 * abs(away.exponent + 0.5)


def test_a_missing_value_is_absent():
    curve = law(X, -0.5, 0.1)
    y = np.tile(curve, (4, 1))
    y[0, 2] = y[1, 5] = y[1, 6] = np.nan
    assert fit_power_law(X, y).exponent == pytest.approx(-0.5, abs=SEARCHED)
    noise = noisy(curve, 4, 0.05, 0)
    noise[0, 2] = np.nan
    padded = np.full((5, 9), np.nan)
    padded[1:, 1:] = noise
    assert fit_power_law(np.insert(X, 0, 10.0), padded) == fit_power_law(X, noise)
    assert fit_power_law(X, noise) != fit_power_law(X, np.nan_to_num(noise))


def test_the_order_of_seeds_and_of_points_is_nothing():
    y = noisy(law(X, -0.5, 0.0), 5, 0.1, 0, missing=0.1)
    fit, turned = fit_power_law(X, y), fit_power_law(X[::-1], y[[3, 1, 4, 0, 2], ::-1])
    for name in ("exponent", "exponent_low", "exponent_high", "max_residual"):
        assert getattr(turned, name) == pytest.approx(getattr(fit, name), abs=10 * SEARCHED), name


def test_an_offset_is_chosen_where_it_shows():
    plain = fit_power_law(X, noisy(law(X, -0.5, 0.0), 5, 0.05, 0))
    plateau = fit_power_law(X, noisy(law(X, -0.5, 0.1), 5, 0.05, 0))
    assert (plain.offset, plain.offset_low, plain.offset_high) == (0.0, None, None)
    assert plateau.offset_low is not None
    assert plateau.offset_high is not None
    assert 0 < plateau.offset_low < 0.1 < plateau.offset_high
    assert plateau.exponent_low < -0.5 < plateau.exponent_high


@pytest.mark.parametrize("exponent", [-0.5, 0.5])
def test_an_offset_that_does_not_show_moves_only_the_steep_end(exponent):
    y = noisy(law(X, exponent, 0.0), 5, 0.05, 3)
    auto, none = fit_power_law(X, y), fit_power_law(X, y, offset="none")
    assert auto.offset == 0.0
    assert auto.exponent == none.exponent
    if exponent < 0:
        assert auto.exponent_high == none.exponent_high
        assert auto.exponent_low < none.exponent_low
    else:
        assert auto.exponent_low == none.exponent_low
        assert auto.exponent_high > none.exponent_high


def test_free_keeps_an_offset_that_auto_does_not_see():
    curves = [noisy(law(X, -0.5, 0.002), 5, 0.05, repetition) for repetition in range(10)]
    pairs = [(fit_power_law(X, y), fit_power_law(X, y, offset="free")) for y in curves]
    assert any(auto.offset == 0 < free.offset for auto, free in pairs)
    assert all(free.offset == auto.offset for auto, free in pairs if auto.offset > 0)


def test_a_curve_that_does_not_change_has_exponent_0_and_no_offset():
    for height in (3.0, 0.1, 1 / 3):
        fit = fit_power_law(X, np.full((3, 8), height))
        assert (fit.offset, fit.exponent) == (0.0, pytest.approx(0.0, abs=SEARCHED))
    for repetition in range(20):
        fit = fit_power_law(X, noisy(np.full(8, 3.0), 5, 0.05, repetition))
        assert fit.exponent_low <= 0 <= fit.exponent_high or fit.exponent == pytest.approx(0, abs=0.05)


def test_at_is_the_formula():
    fit = PowerLaw(
        exponent=-0.5, exponent_low=-0.6, exponent_high=-0.4, amplitude=2.0, amplitude_low=1.0, amplitude_high=3.0,
        offset=0.25, offset_low=0.1, offset_high=0.4, x_low=1.0, x_high=16.0, num_points=5, num_seeds=3,
        max_residual=0.0,
    )  # fmt: skip
    np.testing.assert_array_equal(fit.at(np.array([[1.0, 4.0, 16.0]])), [[2.25, 1.25, 0.75]])


@pytest.mark.parametrize(
    ("x", "y", "offset", "message"),
    [
        (X, np.ones((2, 8)), "auto", "2 seeds have values, wanted at least 3; add seeds"),
        (X, np.vstack([np.ones((2, 8)), np.full((3, 8), np.nan)]), "none", "2 seeds have values, wanted at least 3"),
        (X[:3], np.ones((5, 3)), "auto", "3 values of x .* at least 4; add values, or 3 and offset='none'"),
        (X[:2], np.ones((5, 2)), "none", "2 values of x .* at least 3; add values$"),
        (X[:0], np.ones((5, 0)), "none", "0 seeds"),
        ([1, 1, 2, 2], np.ones((5, 4)), "none", "2 values of x"),
        ([1, 2, 3], [[1, 1, 1], [1, 1, np.nan], [1, 1, np.nan]], "none", "2 values of x have two seeds or more"),
        ([0, 1, 2, 3], np.ones((3, 4)), "none", "x is 0, wanted positive"),
        ([1, 2, 3, 4], np.tile([1, 1, 1, 0], (3, 1)), "none", "a mean of y is 0, wanted positive"),
        ([1, 2, 3, 4], np.tile([1, 1, 1, np.inf], (3, 1)), "none", "a mean of y is inf"),
        (X, np.ones((3, 8)), "some", "offset=some, wanted one of none, auto, free"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_what_is_needed(x, y, offset, message):
    with pytest.raises(ConfigError, match=message):
        fit_power_law(np.asarray(x, dtype=float), np.asarray(y, dtype=float), offset=offset)


def hits(
    num_repetitions: int,
    x: np.ndarray,
    exponent: float,
    offset: float,
    num_seeds: int,
    noise: float,
    *,
    told: Offset = "auto",
    **kinds,
) -> int:
    """How often the interval holds the exponent."""
    curve, found = law(x, exponent, offset), 0
    for repetition in range(num_repetitions):
        fit = fit_power_law(x, noisy(curve, num_seeds, noise, repetition, **kinds), offset=told)
        found += fit.exponent_low <= exponent <= fit.exponent_high
    return found


@pytest.mark.parametrize(("offset", "told"), [(0.0, "auto"), (0.1, "auto"), (0.0, "none"), (0.1, "free")])
def test_intervals_hold_the_exponent_in_92_to_98_percent_of_1000_repetitions(offset, told):
    assert 920 <= hits(1000, X, -0.5, offset, num_seeds=5, noise=0.05, shared=True, told=told) <= 980


@pytest.mark.parametrize(
    ("x", "exponent", "offset", "num_seeds", "noise", "kinds"),
    [
        (X[:5], -0.5, 0.0, 3, 0.15, {"shared": True}),
        (X, -0.5, 0.03, 3, 0.01, {}),
        (X, -0.5, 0.0, 5, 0.05, {"shared": True, "missing": 0.1}),
        (X, -0.5, 0.1, 5, 0.15, {"missing": 0.05}),
        (X[:5], -1.0, 0.01, 10, 0.05, {}),
        (np.array([50.0, 100, 200, 400, 800]), 0.5, 1.0, 5, 0.05, {}),
    ],
)
def test_intervals_hold_the_exponent_in_other_cases_too(x, exponent, offset, num_seeds, noise, kinds):
    # 200 repetitions at 92% or 98% give fewer or more than these in 1 of 10,000 tries.
    fewest, most = scipy.stats.binom.ppf(1e-4, 200, 0.92), scipy.stats.binom.isf(1e-4, 200, 0.98)
    assert fewest <= hits(200, x, exponent, offset, num_seeds, noise, **kinds) <= most


def test_intervals_stay_honest_after_the_choice_and_would_not_without_care():
    exponent, num_chosen, careful, careless = -0.5, 0, 0, 0
    for repetition in range(200):
        y = noisy(law(X, exponent, 0.003), 5, 0.05, repetition)  # an offset that half of the repetitions miss
        fit = fit_power_law(X, y)
        own = fit if fit.offset > 0 else fit_power_law(X, y, offset="none")
        num_chosen += fit.offset > 0
        careful += fit.exponent_low <= exponent <= fit.exponent_high
        careless += own.exponent_low <= exponent <= own.exponent_high
    assert 20 < num_chosen < 180
    assert careful >= scipy.stats.binom.ppf(1e-4, 200, 0.92)
    assert careless < 120


def test_mean_interval_is_students():
    values = np.array([0.3, 0.1, 0.25, 0.4])
    low, high = scipy.stats.t.interval(0.95, 3, loc=values.mean(), scale=scipy.stats.sem(values))
    found = mean_interval([0.3, None, 0.1, 0.25, float("nan"), 0.4])
    assert found is not None
    assert (found.mean, found.low, found.high, found.num) == pytest.approx((values.mean(), low, high, 4), rel=1e-12)


def test_one_value_has_a_mean_and_no_interval_and_none_have_nothing():
    for values, mean, num in (([2.0, None], 2.0, 1), ([1.0, -np.inf], -np.inf, 2)):
        found = mean_interval(values)
        assert found is not None
        assert (found.mean, found.num) == (mean, num)
        assert np.isnan([found.low, found.high]).all()
    assert mean_interval([None, float("nan")]) is None
    assert mean_interval([]) is None


def test_pairs_are_compared_seed_by_seed():
    a, b = np.array([1.0, 2.1, 2.9, np.nan]), np.array([0.5, 1.4, 2.5, 7.0])
    difference, ratio = paired_difference(a, b), geometric_ratio(a, b)
    known = scipy.stats.ttest_rel(a[:3], b[:3]).confidence_interval()
    known_logs = scipy.stats.ttest_rel(np.log(a[:3]), np.log(b[:3])).confidence_interval()
    assert astuple(difference) == pytest.approx(((a - b)[:3].mean(), *known, 3), rel=1e-12)
    assert astuple(ratio) == pytest.approx((scipy.stats.gmean((a / b)[:3]), *np.exp(known_logs), 3), rel=1e-12)


def test_ratios_need_positive_values_and_a_pair():
    assert geometric_ratio([None, 2.0], [1.0, None]) is None
    with pytest.raises(ConfigError, match="got a value of 0, wanted positive"):
        geometric_ratio([1.0, 0.0], [1.0, 1.0])
