"""Coverage of the 95% interval of the recovery error that is estimated from sampled edges, against the exact error.

    python tests/bench/bench_coverage.py [--repetitions 200]

Worlds that can be gone through, held in memory or computed from edge numbers, and laws that stand in for models: the
weights, disturbed, part of the mass off the support. The exact error is the sum over all edges; a repetition draws
edges with a new seed. Binomial noise of the coverage over 200 repetitions: 1.5 points at 95%.
"""

import argparse
import os
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from hgscale.data.worlds import open_world
from hgscale.hypergraph.recovery.readout import estimate, l1_error, log_of
from hgscale.hypergraph.structure import World
from hgscale.hypergraph.worlds.config import WorldConfig

EDGES = 20_000
SAMPLED = (100, 500, 2000)

WORLDS = {
    "uniform, implicit": WorldConfig(
        generator="uniform", num_nodes=200, num_edges=EDGES, weights="uniform", load="implicit"
    ),
    "zipf, implicit": WorldConfig(generator="uniform", num_nodes=200, num_edges=EDGES, weights="zipf", load="implicit"),
    "two_level, memory": WorldConfig(generator="uniform", num_nodes=200, num_edges=EDGES, kappa=10),
}

Law = Callable[[np.ndarray, np.random.Generator], np.ndarray]
LAWS: dict[str, Law] = {
    "noise 0.3, 10% off": lambda w, random: 0.9 * scaled(w * np.exp(random.normal(0, 0.3, len(w)))),
    "noise 1, 50% off": lambda w, random: 0.5 * scaled(w * np.exp(random.normal(0, 1, len(w)))),
    "counted, 3 samples an edge": lambda w, random: random.poisson(3 * len(w) * w) / (3 * len(w)),
    "one edge in 50 learned": lambda w, random: np.where(random.random(len(w)) < 0.02, w, 1e-4 * w),
    "one edge in 50 lost": lambda w, random: np.where(random.random(len(w)) < 0.02, 0, w),
    "noise 0.02": lambda w, random: 0.999 * scaled(w * np.exp(random.normal(0, 0.02, len(w)))),
}


def scaled(law: np.ndarray) -> np.ndarray:
    return law / law.sum()


def coverage(world: World, law: Law, num_sampled: int, num_repetitions: int) -> tuple[float, float, float]:
    """The exact error, the mean width of the interval, and how often the error is in it."""
    weights = world.weights_of(np.arange(world.num_edges))
    recovered = law(weights, np.random.default_rng(0))
    recovered /= max(1.0, recovered.sum())
    exact, log_p = l1_error(weights, recovered), log_of(recovered)
    num_covered, width = 0, 0.0
    for repetition in range(num_repetitions):
        drawn = world.sampler(repetition).draw(np.arange(num_sampled))
        result = estimate(weights[drawn], log_p[drawn])
        num_covered += result.l1_low <= exact <= result.l1_high
        width += (result.l1_high - result.l1_low) / num_repetitions
    return exact, width, num_covered / num_repetitions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    options = parser.parse_args()
    print(f"{'world':<18} {'law':<27} {'exact l1':>8}  " + "  ".join(f"{f'{n} edges':>17}" for n in SAMPLED))
    everything = []
    for world_name, config in WORLDS.items():
        world = open_world(config)
        for law_name, law in LAWS.items():
            cells = [coverage(world, law, num, options.repetitions) for num in SAMPLED]
            everything += [covered for _, _, covered in cells]
            shown = "  ".join(f"{covered:6.1%} (+-{width / 2:.4f})" for _, width, covered in cells)
            print(f"{world_name:<18} {law_name:<27} {cells[0][0]:8.4f}  {shown}", flush=True)
    print(f"\nmean {np.mean(everything):.1%}, least {min(everything):.1%}, most {max(everything):.1%}")


if __name__ == "__main__":
    main()
