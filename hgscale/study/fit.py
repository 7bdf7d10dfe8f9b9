"""Power laws through the curves of a study, and means over seeds, all with 95% intervals.

The intervals say what other seeds would have given. They hold because whole curves are independent between seeds;
within a seed nothing is assumed, since its points share a world and, samples being nested, most of their data.

Percentiles of a bootstrap over so few seeds are too close together: with five they hold the truth 83% of the time
(``tests/bench/bench_fit.py``, where the intervals below do so 93% to 97% of the time). So a parameter's variance is
estimated by leaving out one seed at a time, the jackknife, and the interval is Student's t with one freedom less than
there are seeds. Where the parameter is linear in the data this is the textbook interval over one fit a seed, and what
the bootstrap over seeds gives once its variance is corrected by s / (s - 1) (derived here: both are then the variance
of a mean). Elsewhere simulation checks it.

Axes: p points, s seeds, r = 1 + s replicates (all seeds, then without each one), g exponents tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import polygamma, stdtrit

from hgscale.errors import ConfigError

CONFIDENCE = 0.95
MIN_SEEDS = 3  # two leave one freedom, and no room for a missing value
MIN_POINTS = {"none": 3, "auto": 4, "free": 4}  # one more than there are parameters
STEEPEST = 30.0  # largest |exponent| x ln(x_high / x_low): what is steeper is a step, not a law
TREND_SPREAD = 0.5  # see _precisions
NUM_GRIDS = 8  # of exponents, each ten times finer: the last leaves less than 1e-7 / ln(x_high / x_low)
ROUNDING = 1e-6  # a difference of exponents below this is none
TINY = 1e-300

Values = Sequence[float | None] | np.ndarray
Offset = Literal["auto", "none", "free"]


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval; low and high are NaN where one value says nothing of the others."""

    mean: float
    low: float
    high: float
    num: int


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """y = offset + amplitude * x**exponent with offset >= 0, fitted to the mean over seeds; intervals are 95%.

    They hold if the mean follows such a law from ``x_low`` to ``x_high``, which ``max_residual`` is there to judge:
    seeds that agree on a curve of another shape give narrow intervals all the same.
    """

    exponent: float
    """Negative for a learning curve."""

    exponent_low: float
    exponent_high: float

    amplitude: float
    """At x = 1, which may be far from any point; 0 or infinity where an end of the interval is unknown."""

    amplitude_low: float
    amplitude_high: float

    offset: float
    """What is left as the power vanishes; 0 where the law without offset was chosen, its ends being None then."""

    offset_low: float | None
    offset_high: float | None

    x_low: float
    x_high: float
    num_points: int
    num_seeds: int

    max_residual: float
    """Largest |mean y / fitted y - 1| over the points."""

    def at(self, x: np.ndarray) -> np.ndarray:
        """Fitted y at x, of any shape."""
        return self.offset + self.amplitude * np.asarray(x, dtype=np.float64) ** self.exponent


@dataclass(frozen=True)
class _Fits:
    """One law for each replicate [r], x being divided by its geometric mean."""

    exponent: np.ndarray
    offset: np.ndarray
    amplitude: np.ndarray


def fit_power_law(x: np.ndarray, y: np.ndarray, *, offset: Offset = "auto") -> PowerLaw:
    """Fit y = c + a x**b by variable projection: the best c and a of a given b are linear, and b is searched.

    Means over seeds are fitted by least squares of relative residuals, see ``_precisions``.

    The offset c is chosen if y changes with x at all, and the exponent with c is steeper than that without by more than
    chance allows (Hausman's comparison: where there is no offset, the two differ by chance alone). The exponent's
    interval is honest after the choice. Since c >= 0, an offset too small to be seen makes the law look flatter than it
    is, never steeper: so without c, the end towards 0 is that of the fit without c, and the other the further one of
    both fits' ends. (Each fit's own interval would be chosen most where it is wrong.) Which way an offset moves the
    amplitude depends on where x = 1 lies, so its interval is then the hull of both fits'.

    What ``auto`` and ``free`` cost is width: about 1.7 times for 8 points over three decades, and without limit over
    less than one decade or for a curve that hardly changes. Where theory knows that there is no offset, say ``none``.

    Args:
        x: [p], positive.
        y: [s p], the value of each seed at each x, NaN where missing; the mean at each x must be positive.
        offset: "none" leaves c out, "free" keeps it wherever its estimate is positive, "auto" chooses.

    Raises:
        ConfigError: with less than 3 seeds, or with less than 3 points ("none") or 4 (else) at which two seeds or more
            have a value; or if x or a mean of y is not positive.

    Source: derived here; variable projection, the jackknife and Hausman's comparison are textbook methods.
    """
    x, y = _usable(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), offset)
    centre = np.log(x).mean()
    log_x = np.log(x) - centre
    means, counts = _replicates(y)
    weights = counts * _precisions(log_x, y)
    fits = _search(log_x, means, weights, with_offset=False)
    low, high = _ends(fits.exponent)
    low_a, high_a = _ends(_log_amplitude(fits, centre))
    low_c, high_c = None, None
    if offset != "none":
        free = _search(log_x, means, weights, with_offset=True)
        free_low, free_high = _ends(free.exponent)
        free_low_a, free_high_a = _ends(_log_amplitude(free, centre))
        changes = max(low, -high) > ROUNDING
        if changes and _bends(fits, free, by_chance=offset == "auto"):
            fits, (low, high), (low_a, high_a) = free, (free_low, free_high), (free_low_a, free_high_a)
            low_c, high_c = _ends(free.offset)
            low_c = max(low_c, 0.0)
        else:
            low = min(low, free_low) if low < 0 else low
            high = max(high, free_high) if high > 0 else high
            low_a, high_a = min(low_a, free_low_a), max(high_a, free_high_a)
    fitted = fits.offset[0] + fits.amplitude[0] * np.exp(fits.exponent[0] * log_x)
    with np.errstate(over="ignore"):  # the end of an amplitude may be infinite
        amplitude, amplitude_low, amplitude_high = np.exp([_log_amplitude(fits, centre)[0], low_a, high_a])
    return PowerLaw(
        exponent=float(fits.exponent[0]),
        exponent_low=low,
        exponent_high=high,
        amplitude=float(amplitude),
        amplitude_low=float(amplitude_low),
        amplitude_high=float(amplitude_high),
        offset=float(fits.offset[0]),
        offset_low=low_c,
        offset_high=high_c,
        x_low=float(x.min()),
        x_high=float(x.max()),
        num_points=len(x),
        num_seeds=len(y),
        max_residual=float(np.abs(means[0] / fitted - 1).max()),
    )


def mean_interval(values: Values) -> Interval | None:
    """Mean over seeds with Student's t; missing values (None, NaN) are left out, and None is the mean of none."""
    given = np.asarray(values, dtype=np.float64)
    given = given[~np.isnan(given)]
    if given.size == 0:
        return None
    mean = float(given.mean())
    if given.size == 1 or not np.isfinite(mean):
        return Interval(mean, np.nan, np.nan, given.size)
    half = _quantile(given.size) * float(given.std(ddof=1)) / np.sqrt(given.size)
    return Interval(mean, float(mean - half), float(mean + half), given.size)


def paired_difference(a: Values, b: Values) -> Interval | None:
    """Mean over seeds of a - b, a [s] and b [s] in one order of seeds; a seed that lacks either is left out."""
    return mean_interval(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))


def geometric_ratio(a: Values, b: Values) -> Interval | None:
    """exp of the mean over seeds of ln(a / b), a geometric mean with an interval that is even on a log scale.

    a [s] and b [s] are in one order of seeds; a seed that lacks either is left out.

    Raises:
        ConfigError: if a value is not positive.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if (a <= 0).any() or (b <= 0).any():
        lowest = np.nanmin([a, b])
        raise ConfigError(f"ratio over seeds: got a value of {lowest:g}, wanted positive ones; take the difference")
    logs = mean_interval(np.log(a) - np.log(b))
    if logs is None:
        return None
    return Interval(float(np.exp(logs.mean)), float(np.exp(logs.low)), float(np.exp(logs.high)), logs.num)


def _usable(x: np.ndarray, y: np.ndarray, offset: Offset) -> tuple[np.ndarray, np.ndarray]:
    """x and y without points and seeds that have no value, if the rest can be fitted."""
    assert y.shape == (len(y), len(x)), f"x {x.shape}, y {y.shape}"
    if offset not in MIN_POINTS:
        raise ConfigError(f"power law: offset={offset}, wanted one of {', '.join(MIN_POINTS)}")
    given = ~np.isnan(y)
    x, y = x[given.any(axis=0)], y[np.ix_(given.any(axis=1), given.any(axis=0))]
    if len(y) < MIN_SEEDS:
        raise ConfigError(f"power law: {len(y)} seeds have values, wanted at least {MIN_SEEDS}; add seeds")
    num_points, wanted = len(np.unique(x[(~np.isnan(y)).sum(axis=0) > 1])), MIN_POINTS[offset]
    if num_points < wanted:
        hint = "" if offset == "none" else f", or {MIN_POINTS['none']} and offset='none'"
        raise ConfigError(
            f"power law: {num_points} values of x have two seeds or more, wanted at least {wanted}; add values{hint}"
        )
    for name, values in (("x", x), ("a mean of y", np.nanmean(y, axis=0))):
        if not ((values > 0) & np.isfinite(values)).all():
            worst = values[~((values > 0) & np.isfinite(values))][0]
            raise ConfigError(f"power law: {name} is {worst:g}, wanted positive and finite; leave that point out")
    return x, y


def _replicates(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means [r p] and numbers [r p] of the values of all seeds, then without each one; the mean of no value is 0."""
    given = ~np.isnan(y)
    values = np.where(given, y, 0.0)
    leave_out = 1 - np.eye(1 + len(y), len(y), k=-1)  # row 0 leaves out none
    counts = leave_out @ given
    return leave_out @ values / np.maximum(counts, 1), counts


def _precisions(log_x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 / variance of one value at each x [p], up to a factor.

    Errors scatter by a fraction of themselves, one that may change with x: the variance is mean**2 x**k. A few seeds
    tell k poorly, and weights that follow chance make intervals too narrow. So k is the slope of the log of the seeds'
    relative variances, shrunk to 0 as a normal prior has it by which the log variance changes by TREND_SPREAD
    (standard deviation) from the middle to an end of the range. A log variance of n freedoms has variance
    trigamma(n / 2), chi-square being a gamma. Derived here.
    """
    given = ~np.isnan(y)
    mean = np.nanmean(y, axis=0)
    freedoms = given.sum(axis=0) - 1
    squares = np.nansum((y / mean - 1) ** 2, axis=0)
    told = (freedoms > 0) & (squares > ROUNDING**2)
    if not told.any():
        return np.asarray(mean**-2.0)
    trust = 1 / polygamma(1, freedoms[told] / 2)
    place = log_x[told] / (np.ptp(log_x) / 2)
    place -= np.average(place, weights=trust)
    log_variance = np.log(squares[told] / freedoms[told])
    slope = np.sum(trust * place * log_variance) / (np.sum(trust * place**2) + TREND_SPREAD**-2)
    return np.asarray(mean**-2.0 * np.exp(-slope * log_x / (np.ptp(log_x) / 2)))


def _search(log_x: np.ndarray, means: np.ndarray, weights: np.ndarray, *, with_offset: bool) -> _Fits:
    """The exponents of least squares: the best of a grid, and around it the best of ever finer ones."""
    rows, steepest = np.arange(len(means)), STEEPEST / np.ptp(log_x)
    grid, step = np.linspace(-steepest, steepest, 121)[None].repeat(len(means), axis=0), steepest / 60
    nearby = np.linspace(-1, 1, 21)
    for _ in range(NUM_GRIDS):
        loss, offset, amplitude = _project(grid, log_x, means, weights, with_offset)
        best = rows, loss.argmin(axis=1)
        found = _Fits(grid[best], offset[best], amplitude[best])
        grid = np.clip(found.exponent[:, None] + step * nearby, -steepest, steepest)
        step /= 10
    return found


def _project(
    exponent: np.ndarray, log_x: np.ndarray, means: np.ndarray, weights: np.ndarray, with_offset: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted squares, offset and amplitude of the best law with each exponent, all [r g].

    The offset may be negative: were it held at 0, replicates would differ too little. The law that is reported has a
    positive one, or none.
    """
    power = np.expm1(exponent[..., None] * log_x)  # less 1, to keep its digits near exponent 0
    middle_power, middle = -np.ones_like(exponent), np.zeros((len(means), 1))
    if with_offset:
        shares = weights / weights.sum(axis=1, keepdims=True)
        middle_power, middle = (power @ shares[:, :, None])[..., 0], (shares * means).sum(axis=1, keepdims=True)
    side, rise = power - middle_power[..., None], means - middle
    squares = (side**2 @ weights[:, :, None])[..., 0]
    products = (side @ (weights * rise)[:, :, None])[..., 0]
    amplitude = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)  # exponent 0: all offset
    loss = (rise[:, None] - amplitude[..., None] * side) ** 2 @ weights[:, :, None]
    return loss[..., 0], middle - amplitude * (1 + middle_power), amplitude


def _bends(fits: _Fits, free: _Fits, *, by_chance: bool) -> bool:
    """Whether the law with offset is steeper than that without, and by more than chance if chance is to be allowed."""
    steeper = (free.exponent - fits.exponent) * np.sign(fits.exponent[0])
    least = _half_width(steeper) if by_chance else 0.0
    return bool(steeper[0] > least + ROUNDING and free.offset[0] > 0 and free.amplitude[0] > 0)


def _log_amplitude(fits: _Fits, centre: float) -> np.ndarray:
    """Log of the amplitude at x = 1 [r]; where an offset takes all, so that there is none, next to minus infinity."""
    return np.asarray(np.log(np.maximum(fits.amplitude, TINY)) - fits.exponent * centre)


def _ends(estimates: np.ndarray) -> tuple[float, float]:
    """The interval of an estimate, from its replicates [r]."""
    half = _half_width(estimates)
    return float(estimates[0] - half), float(estimates[0] + half)


def _half_width(estimates: np.ndarray) -> float:
    """Student's t times the jackknife's standard error; the s estimates that lack a seed vary s - 1 times less."""
    without = estimates[1:]
    num_seeds = len(without)
    return _quantile(num_seeds) * float(np.sqrt((num_seeds - 1) * without.var()))


def _quantile(num_seeds: int) -> float:
    """Of Student's t, for an interval over seeds."""
    return float(stdtrit(num_seeds - 1, (1 + CONFIDENCE) / 2))
