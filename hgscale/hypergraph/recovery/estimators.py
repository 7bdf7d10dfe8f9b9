"""What a learned law is compared with: laws over all node sets, from the samples alone; and the table of them.

Counting gives each edge its share of the samples. Smoothed counting discounts what was counted, and the mass this frees
goes to a back-off law, which is positive on every set. An estimator is told what was drawn, and what a model is told as
well: the nodes there are, and the sizes that edges have. It sees nothing of the truth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from hgscale import plugins
from hgscale.errors import ConfigError, DataError, RunError
from hgscale.hypergraph.recovery.conditionals import SUM_TOLERANCE, find_edges
from hgscale.hypergraph.structure import Hypergraph

TURING_DEVIATIONS = 1.65  # Gale's rule: Turing's estimate for as long as it is this many deviations off the line
_LEAST_REST = 1e-12  # back-off mass of the unseen sets below which it is round-off: the seen edges are all there are


@dataclass(frozen=True)
class Sample:
    """What an estimator is told.

    Attributes:
        edges: the distinct edges that were drawn; their weights are their shares of the samples.
        counts: [S] int64, how often each was drawn, at least once.
        sizes: the sizes that edges have, ascending; some may not have been drawn.
    """

    edges: Hypergraph
    counts: np.ndarray
    sizes: tuple[int, ...]

    def counts_of(self, edges: Hypergraph) -> np.ndarray:
        """[E] int64: how often other edges on the same nodes were drawn."""
        at = find_edges(self.edges, edges)
        return np.where(at >= 0, self.counts[at], 0)


def sample_of(world: Hypergraph, counts: np.ndarray) -> Sample:
    """What was drawn of a world: nothing of its weights, and of its edges only those.

    Raises:
        DataError: if a count is negative or nothing was counted.
    """
    counts = np.asarray(counts)
    _frequencies(counts)
    drawn = counts > 0
    offsets = np.concatenate([[0], np.cumsum(world.sizes[drawn])])
    nodes, kept = world.nodes[np.repeat(drawn, world.sizes)], counts[drawn]
    return Sample(Hypergraph(offsets, nodes, kept / kept.sum(), world.num_nodes), kept, world.distinct_sizes)


@dataclass(frozen=True)
class Law:
    """What an estimator answers.

    Attributes:
        of: any edges on the same nodes -> [E] float64, the probability of each.
        unassigned: probability that it gives to no node set; with all sets it sums to 1.
    """

    of: Callable[[Hypergraph], np.ndarray]
    unassigned: float = 0.0


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
        probabilities: np.ndarray = np.exp(log_norm + np.add.reduceat(self.log_theta[edges.nodes], edges.offsets[:-1]))
        return probabilities


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
        probabilities: np.ndarray = self.fixed[at] + self.share[at] * self.back_off.of(edges)
        return probabilities


def back_off(sample: Sample) -> BackOff:
    """The back-off law of samples: frequencies of sizes and of nodes, one half added to each count.

    Source: derived here. The polynomials come from e_j over nodes 0..v = e_j over 0..v-1 plus theta_v times e_(j-1)
    over 0..v-1, in logs, all of whose terms are positive: nothing cancels.
    """
    edges, largest, sizes = sample.edges, sample.sizes[-1], list(sample.sizes)
    nodes = np.bincount(edges.nodes, weights=np.repeat(sample.counts, edges.sizes), minlength=edges.num_nodes)
    log_theta = np.log((nodes + 0.5) / (nodes + 0.5).mean())
    of_size = np.bincount(edges.sizes, weights=sample.counts, minlength=largest + 1)[sizes] + 0.5
    log_norm = np.full(largest + 1, -np.inf)
    log_norm[sizes] = np.log(of_size / of_size.sum()) - log_symmetric_polynomials(log_theta, largest)[sizes]
    return BackOff(log_theta, log_norm)


def log_symmetric_polynomials(log_theta: np.ndarray, max_size: int) -> np.ndarray:
    """[max_size + 1] float64: log e_k(theta), k = 0 ... max_size, from the logs of theta [n]; see ``back_off``."""
    values = np.zeros(max_size + 1)
    prefix = np.zeros(len(log_theta) + 1)  # log e_j over the first v nodes, j = 0 to begin with
    for size in range(1, max_size + 1):
        prefix = np.concatenate([[-np.inf], np.logaddexp.accumulate(log_theta + prefix[:-1])])
        values[size] = prefix[-1]
    return values


def counting(sample: Sample) -> Law:
    """Each edge has its share of the samples, and an edge that was not drawn has nothing."""
    return Law(lambda edges: sample.counts_of(edges) / sample.counts.sum())


def good_turing(sample: Sample) -> Law:
    """``good_turing_law`` of the samples."""
    return _smoothed(sample, good_turing_law(sample))


def absolute_discounting(sample: Sample) -> Law:
    """``absolute_discounting_law`` of the samples."""
    return _smoothed(sample, absolute_discounting_law(sample))


def _smoothed(sample: Sample, law: SmoothedLaw) -> Law:
    return Law(lambda edges: law.of(edges, sample.counts_of(edges)))


def good_turing_law(sample: Sample) -> SmoothedLaw:
    """Simple Good-Turing, its unseen mass spread over the unseen sets by the back-off.

    With n_r edges seen r times each and N samples, all unseen sets have p_0 = n_1 / N together, and one of them
    p_0 q(e) / (1 - sum of q over the seen edges). An edge seen r times has (1 - p_0) r* / sum_r n_r r*. At first r* is
    Turing's (r + 1) n_(r+1) / n_r; from the first r on where that is undefined, or within 1.65 standard deviations of
    the other, it is r (1 + 1/r)^(b + 1), b being the slope of log Z_r over log r by least squares and Z_r = n_r over
    half the distance of the counts that occur below and above r.

    Cases the source leaves open, decided here: n_1 counts as N - 1 where every edge was seen once, or nothing would be
    left for what was seen, and as 1 where none was, or nothing would be left for what was not, and fresh samples could
    have no log-likelihood. Where every set was seen, p_0 is 0.

    Source: the simple Good-Turing estimator of Gale and Sampson (1995) after their released programs, whose two tables
    the tests repeat; handing the unseen mass to unseen sets by a back-off is Katz's way.
    """
    times, num_times = _frequencies(sample.counts)
    q = back_off(sample)
    rest = 1 - float(q.of(sample.edges).sum())
    num_samples = int(times @ num_times)
    once = int(num_times[0]) if times[0] == 1 else 0
    unseen = min(max(once, 1), num_samples - 1) / num_samples if rest > _LEAST_REST else 0.0
    adjusted = _adjusted_counts(times, num_times)
    fixed = (1 - unseen) * adjusted / (num_times @ adjusted)
    share = np.zeros(len(times) + 1)
    share[0] = unseen / rest if unseen > 0 else 0.0
    return SmoothedLaw(q, np.concatenate([[0], times]), np.concatenate([[0.0], fixed]), share)


def absolute_discounting_law(sample: Sample) -> SmoothedLaw:
    """Absolute discounting: p(e) = max(c_e - d, 0) / N + (d S / N) q(e), S being the number of edges seen.

    The discount is d = n_1 / (n_1 + 2 n_2), n_r edges having been seen r times. Where none was seen once it is 1 / S:
    one sample's mass goes to the back-off, and fresh samples have a log-likelihood (decided here).

    Source: the absolute discounting of Ney, Essen and Kneser (1994) in its usual interpolated form.
    """
    times, num_times = _frequencies(sample.counts)
    num_samples = int(times @ num_times)
    once, twice = (int(num_times[times == r].sum()) for r in (1, 2))
    num_seen = int(num_times.sum())
    discount = once / (once + 2 * twice) if once else 1 / num_seen
    fixed = np.concatenate([[0.0], (times - discount) / num_samples])
    share = np.full(len(fixed), discount * num_seen / num_samples)
    return SmoothedLaw(back_off(sample), np.concatenate([[0], times]), fixed, share)


def _frequencies(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The counts over 0 that occur, ascending [R], and how many edges have each [R]."""
    counts = np.asarray(counts)
    if counts.size == 0 or counts.min() < 0 or counts.max() == 0:
        raise DataError(
            f"counting: {counts.sum()} samples over {counts.size} edges; "
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
    adjusted: np.ndarray = np.where(np.logical_and.accumulate(apart), turing, line)
    return adjusted


# The table


@dataclass(frozen=True)
class Estimator:
    """A row: an estimator, and what its numbers are called.

    Attributes:
        estimate: what was drawn -> a law.
        key: before ``_l1`` and ``_log_likelihood`` in a summary.
        smooth: it gives a probability to sets that were not drawn, so that a log-likelihood says something.
    """

    estimate: Callable[[Sample], Law]
    key: str
    smooth: bool = True
    path: str | None = None

    def law(self, sample: Sample) -> Law:
        """Its law of a sample; a user's that fails, now or when it is asked, is one line.

        Raises:
            RunError: if it fails.
        """
        if self.path is None:
            return self.estimate(sample)
        where = f"estimators: {self.path}"
        with plugins.late_failures(where):
            law = self.estimate(sample)

        def of(edges: Hypergraph) -> np.ndarray:
            with plugins.late_failures(where):
                return law.of(edges)

        return Law(of, law.unassigned)


PROTOCOL = "my_estimator(edges, counts, num_nodes, sizes) -> law, with law(edges) -> probabilities"
"""A user's estimator; it may leave out arguments but ``edges`` and ``counts``.

Args: edges, the distinct edges that were drawn, a list of tuples of node ids; counts [S], how often each was drawn;
num_nodes; sizes, those that edges have, ascending.
Returns: a function of any list of tuples of node ids, ascending in a tuple, that gives the probability of each. Over
all node sets of these sizes it sums to 1, less what its attribute ``unassigned`` says (by default 0).
"""


def adapted(path: str, function: Any) -> Estimator:
    """The row of a user's estimator.

    Raises:
        ConfigError: if it is no function of edges and counts.
    """
    if not callable(function) or not {"edges", "counts"} <= set(plugins.keywords(function)):
        raise ConfigError(f"estimators: {path} is no function of edges and counts; {PROTOCOL} is wanted")

    def estimate(sample: Sample) -> Law:
        offered = {
            "edges": _tuples(sample.edges),
            "counts": sample.counts.copy(),  # theirs to change: others are asked about the same samples
            "num_nodes": sample.edges.num_nodes,
            "sizes": sample.sizes,
        }
        law = function(**plugins.arguments(function, offered, {}, path, "estimators"))
        if not callable(law):
            raise RunError(f"estimators: {path} gave {type(law).__name__}; {PROTOCOL} is wanted")
        return Law(lambda edges: _checked(path, law(_tuples(edges)), edges), float(getattr(law, "unassigned", 0.0)))

    return Estimator(estimate, path.rpartition(":")[2], path=path)


ESTIMATORS = plugins.Table(
    "estimator",
    {
        "counting": Estimator(counting, "count", smooth=False),
        "good_turing": Estimator(good_turing, "good_turing"),
        "absolute_discounting": Estimator(absolute_discounting, "absolute_discounting"),
    },
    adapted,
)


def rows(own: Sequence[str] = ()) -> list[Estimator]:
    """All that are built in, and a user's.

    Args:
        own: import paths.

    Raises:
        ConfigError: if one cannot be imported, or two have the same name.
    """
    found = [ESTIMATORS.get(name, "estimators") for name in (*ESTIMATORS, *own)]
    keys = [row.key for row in found]
    for number, key in enumerate(keys):
        if key in keys[:number] or key in _TAKEN:
            raise ConfigError(f"estimators={own[number - len(keys)]}: there are numbers named {key} already; rename it")
    return found


_TAKEN = ("count_floor", "recovery", "sparse", "dense", "structured_floor", "world")


def check_estimators(own: Sequence[str], sizes: tuple[int, ...]) -> None:
    """Call a user's estimators on a tiny sample, before anything starts.

    Args:
        own: import paths.
        sizes: of edges in the world; the trial has the smallest.

    Raises:
        ConfigError: if one fails, or its law does not sum to 1 over all node sets.
    """
    if not own:
        return
    tried = sizes[:2] if sizes[:2][-1] <= _MOST_TRIED else sizes[:1]
    every = [nodes for size in tried for nodes in combinations(range(tried[-1] + 2), size)]
    world = Hypergraph.from_edges(every, None, tried[-1] + 2)
    counts = np.zeros(len(every), dtype=np.int64)
    counts[: len(every) // 2 + 1 : 2] = 1 + np.arange(len(counts[: len(every) // 2 + 1 : 2])) % 3
    for name, row in zip(own, rows(own)[len(list(ESTIMATORS)) :], strict=True):
        try:
            law = row.estimate(sample_of(world, counts))
            total = float(law.of(world).sum())
        except (ConfigError, RunError) as error:
            raise ConfigError(str(error)) from None
        except plugins.FAILURES as error:  # whatever the plug-in's own code raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ConfigError(f"estimators: {name} fails on a tiny sample ({reason}); {PROTOCOL} is wanted") from None
        if abs(total + law.unassigned - 1) > SUM_TOLERANCE:
            raise ConfigError(
                f"estimators: {name} gave a law that sums to {total:g} over all node sets, and leaves "
                f"{law.unassigned:g} unassigned, together not 1; {PROTOCOL} is wanted"
            )


_MOST_TRIED = 6  # nodes of the larger of two sizes: the trial goes through all sets


def _tuples(edges: Hypergraph) -> list[tuple[int, ...]]:
    return [edges.edge(e) for e in range(edges.num_edges)]


def _checked(path: str, answer: Any, edges: Hypergraph) -> np.ndarray:
    """The probabilities that a user's law gave, or a RunError in one line."""
    try:
        found = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        raise RunError(f"estimators: the law of {path} gave {type(answer).__name__}; {PROTOCOL} is wanted") from None
    if found.shape != (edges.num_edges,):
        raise RunError(
            f"estimators: the law of {path} gave shape {found.shape} for {edges.num_edges} edges; {PROTOCOL} is wanted"
        )
    wrong = ~((found >= 0) & (found <= 1 + SUM_TOLERANCE))
    if wrong.any():
        raise RunError(f"estimators: the law of {path} gave the probability {found[wrong][0]}; {PROTOCOL} is wanted")
    return found
