"""What counting achieves in expectation (the "floor" that errors are divided by), and what knowing nothing achieves."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph.structure import Hypergraph


def count_floor(weights: np.ndarray, num_samples: int) -> float:
    """Expected l1 error of counting: minimax, not a lower bound, since on a given world other estimators do better.

    Args:
        weights: [E] float64, summing to 1.
        num_samples: N, i.i.d. edges drawn by weight.

    Returns:
        E sum_e |w_e - count_e / N| in [0, 2]; exact for every N, edges that were never drawn included.

    Raises:
        ConfigError: if num_samples < 1.
        DataError: if the weights are no distribution.

    Source: De Moivre's closed form of the mean absolute deviation of a binomial, with m = floor(N w) + 1:
    E|X - N w| = 2 m C(N, m) w^m (1-w)^(N-m+1). Since m C(N, m) = N C(N-1, m-1), this is 2 N w (1-w) P(Y = m-1) for Y
    binomial (N-1, w), which keeps 15 digits at N = 1e15, where a difference of log-gammas keeps none.
    """
    _check(weights, num_samples)
    return float(np.sum(_mean_deviations(weights, num_samples)))


def structured_floor(weights: np.ndarray, groups: np.ndarray, num_samples: int) -> float:
    """Expected l1 error of counting when the edges and their groups of equal weight are known, the weights not.

    The estimator counts groups and spreads a group's mass evenly over its edges. All of them are then off by the same,
    so the error is that of the group masses, ``count_floor`` of them: derived here.

    Args:
        weights: [E] float64, summing to 1, equal within a group.
        groups: [E] integers from 0, the group of each edge.
        num_samples: N, i.i.d. edges drawn by weight.

    Raises:
        ConfigError: if num_samples < 1.
        DataError: if the weights are no distribution.
    """
    return count_floor(np.bincount(groups, weights=weights), num_samples)


def half_norm(weights: np.ndarray) -> float:
    """(sum_e sqrt(w_e))^2 of weights [E]: the effective number of edges, E itself where they are equal.

    Error curves of different worlds fall on one another when drawn over N / half_norm (derived here: counts being close
    to normal, the floor tends to sqrt(2 / (pi N)) sum_e sqrt(w_e (1 - w_e)), with 1 - w_e near 1).
    """
    return float(np.sum(np.sqrt(weights)) ** 2)


def count_estimate(counts: np.ndarray) -> np.ndarray:
    """The counting oracle: the weights [E] that counting gives, from how often each edge was drawn.

    Args:
        counts: [E] integers, draws of each edge among the very samples the model saw, in canonical order.

    Raises:
        DataError: if a count is negative or nothing was counted.
    """
    counts = np.asarray(counts)
    if counts.size == 0 or counts.min() < 0 or counts.sum() == 0:
        raise DataError(
            f"count_estimate: {counts.sum()} samples over {counts.size} edges; "
            "give how often each edge was drawn, with at least one sample in all"
        )
    shares: np.ndarray = counts / counts.sum()
    return shares


def count_l1(weights: np.ndarray, counts: np.ndarray) -> float:
    """l1 error in [0, 2] of counting these very samples, for weights [E] and counts [E]; on average ``count_floor``."""
    return float(np.abs(weights - count_estimate(counts)).sum())


@dataclass(frozen=True)
class WeightSums:
    """What depends on the weights of a world alone."""

    count_floor: float
    """``count_floor`` of them."""
    half_norm: float
    """``half_norm`` of them."""
    entropy_nats: float
    """-sum_e w_e log w_e."""


def weight_sums(pieces: Iterable[tuple[np.ndarray, np.ndarray]], num_samples: int) -> WeightSums:
    """Sums over the weights of a world that no memory holds, met piece by piece.

    Args:
        pieces: (weights [p], how many edges have each [p]); over all pieces these weights, each so many times, sum to
            1. A number need not be whole: a quadrature goes through a few weights that stand for many.
        num_samples: N of the floor.

    Raises:
        ConfigError: if num_samples < 1.
        DataError: if the weights are no distribution.
    """
    num = total = floor = roots = entropy = 0.0
    least = np.inf
    for weights, numbers in pieces:
        num += float(numbers.sum())
        total += float(numbers @ weights)
        floor += float(numbers @ _mean_deviations(weights, max(1, num_samples)))
        roots += float(numbers @ np.sqrt(weights))
        entropy -= float(numbers @ (weights * np.log(weights)))
        least = min(least, float(weights.min()))
    _check_total(num, total, least, num_samples)
    return WeightSums(floor, roots**2, entropy)


def blank_log_likelihood(world: Hypergraph) -> float:
    """Nats per sample of a law that knows only the nodes and the law of sizes: sum_e w_e log u_e.

    u_e = law(|e|) / C(n, |e|): given its size, every node set is as likely as any other.
    """
    law, sizes = world.size_law()[list(world.distinct_sizes)], np.array(world.distinct_sizes)
    log_sets = gammaln(world.num_nodes + 1) - gammaln(sizes + 1) - gammaln(world.num_nodes - sizes + 1)
    return float(law @ (np.log(law) - log_sets))


def capacity_bits(world: Hypergraph, log_likelihood: float) -> float:
    """Bits that a law knows about a world beyond knowing nothing: E sum_e w_e log2(p_e / u_e).

    p_e is its probability of edge e and u_e that of a law that knows only nodes and sizes (``blank_log_likelihood``).
    Being right about E equal edges among M sets of one size is worth E log2(M / E), which is E log2(e) less than the
    information in which sets they are, log2 C(M, E), while E is far below M. Below 0 where the law is worse than u.

    Args:
        world: the truth.
        log_likelihood: sum_e w_e log p_e, nats per sample.

    Source: derived here; to be compared with the 2 bits per parameter of arXiv 2404.05405.
    """
    return world.num_edges * (log_likelihood - blank_log_likelihood(world)) / float(np.log(2))


def _mean_deviations(weights: np.ndarray, num_samples: int) -> np.ndarray:
    """[E] float64: E |w_e - count_e / N|; see ``count_floor``."""
    at_mean = binom.pmf(np.floor(num_samples * weights), num_samples - 1, weights)
    means: np.ndarray = 2 * weights * (1 - weights) * at_mean
    return means


def _check(weights: np.ndarray, num_samples: int) -> None:
    _check_total(np.size(weights), float(np.sum(weights)), float(np.min(weights, initial=np.inf)), num_samples)


def _check_total(num: float, total: float, least: float, num_samples: int) -> None:
    if num_samples < 1:
        raise ConfigError(f"num_samples={num_samples}; the floor of counting needs at least 1 sample")
    if not (least >= 0 and abs(total - 1) < 1e-6):
        raise DataError(
            f"{num:.0f} weights, the least {least}, sum to {total}; "
            "weights >= 0 summing to 1 are wanted: divide by the sum"
        )
