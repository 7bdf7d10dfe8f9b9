"""How often the 95% intervals of hgscale.study.fit hold the truth, and what a fit costs beside scipy's curve_fit.

    python tests/bench/bench_fit.py                      # 1,000 repetitions of every case: about 5 minutes of a core
    python tests/bench/bench_fit.py --repetitions 100

Synthetic curves follow y = offset + (x / 1000)**-0.5 times log-normal noise; "shared" noise gives half of its variance
to a factor of the seed's own. In the tables:

- holds: share of repetitions in which the interval of the exponent holds -0.5 (wanted: 92% to 98%), and amplitude: that
  of the amplitude at x = 1, which is on the safe side where no offset was chosen
- own: the same, were the interval that of the chosen law alone, as if there had been no choice
- offset: share in which an offset was chosen, and in how many of these its interval holds the true one
- half: median half-width
- none, half: share and half-width where the fit was told that there is no offset, which is true where it is 0

Beside them stands the percentile bootstrap over seeds, of log-linear fits to curves without offset.
"""

import argparse
import itertools
import time
from dataclasses import dataclass

import numpy as np
from rounds import CLOCK, alternate, spread
from scipy.optimize import curve_fit

from hgscale.errors import ConfigError
from hgscale.rng import stream
from hgscale.study.fit import PowerLaw, fit_power_law

EXPONENT = -0.5
X = {num_points: np.geomspace(1e3, 1e6, num_points) for num_points in (5, 8)}
AMPLITUDE = 1e3**-EXPONENT
NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Case:
    """What the curves of one line are like."""

    num_seeds: int
    num_points: int
    offset: float = 0.0
    shared: bool = True
    noise: float = 0.05
    missing: float = 0.0


CASES = [
    *(Case(*case) for case in itertools.product((3, 5, 10), (5, 8), (0.0, 0.1), (False, True), (0.01, 0.05, 0.15))),
    *(Case(*case, missing=0.1) for case in itertools.product((3, 5, 10), (5, 8), (0.0, 0.1))),
    *(Case(*case) for case in itertools.product((3, 5, 10), (8,), (0.001, 0.003, 0.01, 0.03))),
]


def curves(case: Case, index: int) -> np.ndarray:
    """Values [s p] of one repetition."""
    generator = stream(index, str(case))
    normal = generator.standard_normal((case.num_seeds, case.num_points))
    if case.shared:
        normal = np.sqrt(0.5) * (normal + generator.standard_normal((case.num_seeds, 1)))
    power = (X[case.num_points] / 1e3) ** EXPONENT
    y = (case.offset + power) * np.exp(case.noise * normal - case.noise**2 / 2)
    y[generator.random(y.shape) < case.missing] = np.nan
    return y


def holds(fit: PowerLaw) -> bool:
    """Whether the interval holds the true exponent."""
    return fit.exponent_low <= EXPONENT <= fit.exponent_high


def coverage(case: Case, num_repetitions: int) -> tuple[float, str]:
    """Share of intervals that hold the exponent, and the line of the table."""
    x, fits, plain, num_refused = X[case.num_points], [], [], 0
    for index in range(num_repetitions):
        y = curves(case, index)
        try:
            fits.append(fit_power_law(x, y))
        except ConfigError:  # too much is missing
            num_refused += 1
            continue
        plain.append(fit_power_law(x, y, offset="none"))
    share = np.mean([holds(fit) for fit in fits])
    own = np.mean([holds(fit if fit.offset > 0 else other) for fit, other in zip(fits, plain, strict=True)])
    amplitude = np.mean([fit.amplitude_low <= AMPLITUDE <= fit.amplitude_high for fit in fits])
    chosen = [fit.offset_low <= case.offset <= fit.offset_high for fit in fits if fit.offset_low is not None]
    half, half_plain = (np.median([fit.exponent_high - fit.exponent_low for fit in laws]) / 2 for laws in (fits, plain))
    columns = (
        f"{case.num_seeds:5} {case.num_points:6} {case.offset:6} {'shared' if case.shared else 'own':>6} "
        f"{case.noise:5.0%} {case.missing:7.0%} {share:7.1%} {amplitude:9.1%} {own:6.1%} "
        f"{len(chosen) / len(fits):7.1%} {np.mean(chosen) if chosen else np.nan:6.1%} {half:7.4f}"
        f"{np.mean([holds(fit) for fit in plain]):7.1%} {half_plain:7.4f}"
    )
    return float(share), columns + (f"  refused {num_refused}" if num_refused else "")


def percentile_bootstrap(num_seeds: int, num_repetitions: int) -> float:
    """Share of percentile intervals that hold the exponent; 8 points, no offset, 5% noise.

    The bootstrap of a log-linear fit is a matrix product: the slope of a mean is the mean of the seeds' slopes.
    """
    log_x = np.log(X[8])
    slope = (log_x - log_x.mean()) / np.sum((log_x - log_x.mean()) ** 2)
    num_held = 0
    for index in range(num_repetitions):
        slopes = np.log(curves(Case(num_seeds, 8), index)) @ slope
        drawn = stream(index, "bootstrap").integers(num_seeds, size=(NUM_RESAMPLES, num_seeds))
        low, high = np.percentile(slopes[drawn].mean(axis=1), [2.5, 97.5])
        num_held += low <= EXPONENT <= high
    return num_held / num_repetitions


def law(x: np.ndarray, exponent: float, amplitude: float, offset: float) -> np.ndarray:
    """What curve_fit is given."""
    return offset + amplitude * x**exponent


def scipy_jackknife(y: np.ndarray) -> np.ndarray:
    """Exponents [1 + s] with offset, of all seeds and without each one, by curve_fit."""
    means = [y.mean(axis=0), *(np.delete(y, seed, axis=0).mean(axis=0) for seed in range(len(y)))]
    bounds = ([-5, 0, -1], [5, np.inf, np.inf])
    start = (-0.3, 1.0, 0.0)
    return np.array([curve_fit(law, X[8] / 1e3, mean, start, sigma=mean, bounds=bounds)[0][0] for mean in means])


def beside_scipy(num_rounds: int) -> None:
    """The same estimate on curves without noise, and the time of a fit with its interval."""
    clean = np.tile(law(X[8] / 1e3, EXPONENT, 1.0, 0.1), (5, 1))
    ours, scipys = fit_power_law(X[8], clean), scipy_jackknife(clean)[0]
    print(f"without noise: ours {ours.exponent:.9f}, curve_fit {scipys:.9f}, true {EXPONENT:.9f}")
    assert abs(ours.exponent - scipys) < 1e-6, "not the same estimate"
    noisy = [curves(Case(5, 8, 0.1), index) for index in range(10)]
    seconds = alternate(
        {
            "hgscale": lambda: [fit_power_law(X[8], y) for y in noisy],
            "curve_fit": lambda: [scipy_jackknife(y) for y in noisy],
        },
        num_rounds,
    )
    print(f"clock: {CLOCK}")
    for name, spent in seconds.items():
        print(f"{name:<10} {spread(spent / len(noisy) * 1e3, ' ms')} a fit of 5 seeds and 8 points with its interval")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--num_rounds", type=int, default=15)
    args = parser.parse_args()
    beside_scipy(args.num_rounds)
    for num_seeds in (3, 5, 10):
        share = percentile_bootstrap(num_seeds, args.repetitions)
        print(f"percentile bootstrap over {num_seeds} seeds holds the exponent in {share:.1%}")
    print("seeds points offset        noise missing   holds amplitude    own offset, holds    half   none    half")
    start, shares = time.process_time(), []
    for case in CASES:
        share, line = coverage(case, args.repetitions)
        shares.append(share)
        print(line, flush=True)
    print(
        f"{len(CASES)} cases, {time.process_time() - start:.0f} s of CPU: holds {min(shares):.1%} to {max(shares):.1%}"
    )


if __name__ == "__main__":
    main()
