"""Smoothed counting: laws over all node sets, learned from how often each edge was drawn, that know no support.

What was counted is discounted, and the mass this frees goes to a back-off law, which is positive on every set. Known
besides the counts is what a model is told as well: the nodes there are, and the sizes that edges have.
"""

from dataclasses import dataclass

import numpy as np

from hgscale.errors import DataError
from hgscale.hypergraph.structure import Hypergraph

TURING_DEVIATIONS = 1.65  # Gale's rule: Turing's estimate for as long as it is this many deviations off the line
_LEAST_REST = 1e-12  # back-off mass of the unseen sets below which it is round-off: the seen edges are all there are


@dataclass(frozen=True)
class BackOff:
    """A law over all node sets of the sizes that it knows: q(S) = law(|S|) prod_{v in S} theta_v / e_|S|(theta).

    Given its size, S is what independent coins of odds theta_v show (the conditional Bernoulli law), e_k being the
    elementary symmetric polynomial: the sum of those products over all sets of k nodes.

    Attributes:
        log_theta: [n] float64, log of each node's odds.
        log_norm: [max_size + 1] float64, log of law(k) / e_k(theta); -inf for sizes that do not occur.
    """

    log_theta: np.ndarray
    log_norm: np.ndarray

    def of(self, edges: Hypergraph) -> np.ndarray:
        """[E] float64: probability of each edge; 0 for a size that the law does not know."""
        known = edges.sizes < len(self.log_norm)
        log_norm = np.where(known, self.log_norm[np.where(known, edges.sizes, 0)], -np.inf)
        return np.exp(log_norm + np.add.reduceat(self.log_theta[edges.nodes], edges.offsets[:-1]))


@dataclass(frozen=True)
class SmoothedLaw:
    """A law over all node sets in which an edge's probability follows from its count and its back-off probability.

    Attributes:
        back_off: where the discounted mass goes.
        counts: [R] int64, the counts that occur, ascending from 0.
        fixed: [R] float64, probability of one edge of that count, without its part of the back-off.
        share: [R] float64, by how much its back-off probability is multiplied and added.
    """

    back_off: BackOff
    counts: np.ndarray
    fixed: np.ndarray
    share: np.ndarray

    def of(self, edges: Hypergraph, counts: np.ndarray) -> np.ndarray:
        """[E] float64: probability of each edge, from how often it was counted [E] (0: never).

        All node sets together have probability 1, so what these edges do not get is elsewhere.
        """
        at = np.searchsorted(self.counts, counts)
        return self.fixed[at] + self.share[at] * self.back_off.of(edges)


def back_off(world: Hypergraph, counts: np.ndarray) -> BackOff:
    """The back-off law of samples: frequencies of sizes and of nodes, one half added to each count.

    Args:
        world: names the edges that were counted; of its own are used the number of nodes and the sizes, no weights.
        counts: [E] integers, draws of each edge.

    Source: derived here. The polynomials come from e_j over nodes 0..v = e_j over 0..v-1 plus theta_v times e_(j-1)
    over 0..v-1, in logs, all of whose terms are positive: nothing cancels.
    """
    nodes = np.bincount(world.nodes, weights=np.repeat(counts, world.sizes), minlength=world.num_nodes)
    log_theta = np.log((nodes + 0.5) / (nodes + 0.5).mean())
    sizes = list(world.distinct_sizes)
    of_size = np.bincount(world.sizes, weights=counts)[sizes] + 0.5
    log_norm = np.full(world.max_size + 1, -np.inf)
    log_norm[sizes] = np.log(of_size / of_size.sum()) - log_symmetric_polynomials(log_theta, world.max_size)[sizes]
    return BackOff(log_theta, log_norm)


def log_symmetric_polynomials(log_theta: np.ndarray, max_size: int) -> np.ndarray:
    """[max_size + 1] float64: log e_k(theta), k = 0 ... max_size, from the logs of theta [n]; see ``back_off``."""
    values = np.zeros(max_size + 1)
    prefix = np.zeros(len(log_theta) + 1)  # log e_j over the first v nodes, j = 0 to begin with
    for size in range(1, max_size + 1):
        prefix = np.concatenate([[-np.inf], np.logaddexp.accumulate(log_theta + prefix[:-1])])
        values[size] = prefix[-1]
    return values


def good_turing(world: Hypergraph, counts: np.ndarray) -> SmoothedLaw:
    """Simple Good-Turing, its unseen mass spread over the unseen sets by the back-off.

    With n_r edges seen r times each and N samples, all unseen sets have p_0 = n_1 / N together, and one of them
    p_0 q(e) / (1 - sum of q over the seen edges). An edge seen r times has (1 - p_0) r* / sum_r n_r r*. At first r* is
    Turing's (r + 1) n_(r+1) / n_r; from the first r on where that is undefined, or within 1.65 standard deviations of
    the other, it is r (1 + 1/r)^(b + 1), b being the slope of log Z_r over log r by least squares and Z_r = n_r over
    half the distance of the counts that occur below and above r.

    Cases the source leaves open, decided here: n_1 counts as N - 1 where every edge was seen once, or nothing would be
    left for what was seen, and as 1 where none was, or nothing would be left for what was not, and fresh samples could
    have no log-likelihood. Where every set was seen, p_0 is 0.

    Args:
        world: names the edges that were counted; of its own are used the number of nodes and the sizes, no weights.
        counts: [E] integers, draws of each edge.

    Raises:
        DataError: if a count is negative or nothing was counted.

    Source: the simple Good-Turing estimator of Gale and Sampson (1995) after their released programs, whose two tables
    the tests repeat; handing the unseen mass to unseen sets by a back-off is Katz's way.
    """
    times, num_times = _frequencies(counts)
    q = back_off(world, counts)
    rest = 1 - float(q.of(world)[counts > 0].sum())
    num_samples = int(times @ num_times)
    once = int(num_times[0]) if times[0] == 1 else 0
    unseen = min(max(once, 1), num_samples - 1) / num_samples if rest > _LEAST_REST else 0.0
    adjusted = _adjusted_counts(times, num_times)
    fixed = (1 - unseen) * adjusted / (num_times @ adjusted)
    share = np.zeros(len(times) + 1)
    share[0] = unseen / rest if unseen > 0 else 0.0
    return SmoothedLaw(q, np.concatenate([[0], times]), np.concatenate([[0.0], fixed]), share)


def absolute_discounting(world: Hypergraph, counts: np.ndarray) -> SmoothedLaw:
    """Absolute discounting: p(e) = max(c_e - d, 0) / N + (d S / N) q(e), S being the number of edges seen.

    The discount is d = n_1 / (n_1 + 2 n_2), n_r edges having been seen r times. Where none was seen once it is 1 / S:
    one sample's mass goes to the back-off, and fresh samples have a log-likelihood (decided here).
    Arguments and errors as in ``good_turing``.

    Source: the absolute discounting of Ney, Essen and Kneser (1994) in its usual interpolated form.
    """
    times, num_times = _frequencies(counts)
    num_samples = int(times @ num_times)
    once, twice = (int(num_times[times == r].sum()) for r in (1, 2))
    num_seen = int(num_times.sum())
    discount = once / (once + 2 * twice) if once else 1 / num_seen
    fixed = np.concatenate([[0.0], (times - discount) / num_samples])
    share = np.full(len(fixed), discount * num_seen / num_samples)
    return SmoothedLaw(back_off(world, counts), np.concatenate([[0], times]), fixed, share)


def _frequencies(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The counts over 0 that occur, ascending [R], and how many edges have each [R]."""
    counts = np.asarray(counts)
    if counts.size == 0 or counts.min() < 0 or counts.max() == 0:
        raise DataError(
            f"smoothed counting: {counts.sum()} samples over {counts.size} edges; "
            "give how often each edge was drawn, with at least one sample in all"
        )
    return np.unique(counts[counts > 0], return_counts=True)


def _adjusted_counts(times: np.ndarray, num_times: np.ndarray) -> np.ndarray:
    """[R] float64: Gale and Sampson's r*, not yet normalised, of counts [R] that num_times [R] edges have."""
    if len(times) == 1:
        return times.astype(np.float64)  # One point makes no line, and no difference: r* is normalised away.
    below = np.concatenate([[0], times[:-1]])
    above = np.concatenate([times[1:], [2 * times[-1] - times[-2]]])
    slope = np.polyfit(np.log(times), np.log(2 * num_times / (above - below)), 1)[0]
    line = times * (1 + 1 / times) ** (slope + 1)
    num_next = np.concatenate([np.where(np.diff(times) == 1, num_times[1:], 0), [0]])
    turing = (times + 1) * num_next / num_times
    deviation = (times + 1) / num_times * np.sqrt(num_next * (1 + num_next / num_times))
    apart = (num_next > 0) & (np.abs(turing - line) > TURING_DEVIATIONS * deviation)
    return np.where(np.logical_and.accumulate(apart), turing, line)
