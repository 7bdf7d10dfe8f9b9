"""Recovery: read a hypergraph out of a model by one of several methods, and say how far it is from the truth.

All numbers are derived here.
"""

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numba as nb
import numpy as np
from scipy.special import stdtrit

from hgscale import config as configs
from hgscale import plugins
from hgscale.errors import ConfigError
from hgscale.hypergraph.recovery.conditionals import (
    Conditionals,
    Recovered,
    WeightedEdges,
    find_edges,
    support_threshold,
)
from hgscale.hypergraph.recovery.methods import METHODS, Asks, Method, try_out
from hgscale.hypergraph.recovery.one_mask import num_swap_components
from hgscale.hypergraph.structure import Hypergraph, World
from hgscale.plugins import late_failures
from hgscale.rng import key

SAMPLED_EDGES = 2000  # read of a world that is not held in memory, unless the config says how many


@dataclass(frozen=True, kw_only=True)
class RecoveryError:
    """Distance of what was recovered from the truth. A number is None where it was not measured."""

    method: str
    """Read-out."""
    recovery_l1: float
    """sum over all node sets of |w - p|, in [0, 2]: l1_on_support + off_support_mass."""
    recovery_l1_low: float | None = None
    """Lower end of its 95% interval, where it was estimated from sampled edges."""
    recovery_l1_high: float | None = None
    """Upper end of that interval."""
    recovery_tv: float
    """Total variation: half of recovery_l1."""
    l1_on_support: float
    """The part of recovery_l1 on the world's edges."""
    off_support_mass: float
    """Recovered weight on what is no edge of the world."""
    l1_renormalised: float | None
    """l1 on the support after what was recovered there is scaled to sum to 1; None where nothing was."""
    support_precision: float | None = None
    """Share of the edges recovered at support_threshold(world) or more that are edges of the world."""
    support_recall: float | None = None
    """Share of the world's edges of at least twice support_threshold(world) that are recovered at that threshold."""
    log_likelihood: float | None = None
    """sum_e w_e log p_e, nats per fresh sample of the world; None where an edge of the world got no weight. Of a list
    it is that of the law it was cut from."""
    incompatibility: float | None = None
    """Disagreement of the conditionals among themselves; the method says in which measure."""
    num_edges: int
    """Edges compared: all, or those sampled."""


@dataclass(frozen=True)
class Estimate:
    """A recovery error estimated from sampled edges. The interval is for the l1, at 95%."""

    l1: float
    l1_low: float
    l1_high: float
    l1_on_support: float
    off_support_mass: float
    l1_renormalised: float | None
    num_edges: int


@dataclass(frozen=True)
class HeldOutError:
    """Distance of what was recovered from the law of samples that the model's world was not made of."""

    l1: float
    """sum over all node sets of |w' - p|, in [0, 2]."""
    log_likelihood: float | None
    """Mean log p of a held-out sample of a size that the model knows, in nats; None where one of them got no weight."""


@dataclass(frozen=True)
class Cut:
    """Which node sets a list keeps of a law, those of ``least`` or more, and what they weigh together in that law."""

    least: float = 0.0
    total: float = 1.0

    def weights(self, probabilities: np.ndarray) -> np.ndarray:
        """Weights of edges in the list, from those in the law [E] -> [E]; of an empty list, all 0."""
        return np.where(probabilities >= self.least, probabilities, 0) / (self.total or 1.0)

    def listed(self, law: Recovered) -> Recovered:
        """The list, laid beside the same world."""
        on, off = self.weights(law.on_support), law.off_edges
        assert off is not None
        kept = [weights >= self.least for weights in off.weights]
        off_edges = WeightedEdges(
            tuple(edges[chosen] for edges, chosen in zip(off.edges, kept, strict=True)),
            tuple(self.weights(weights[chosen]) for weights, chosen in zip(off.weights, kept, strict=True)),
        )
        off_mass = max(0.0, 1 - float(on.sum()))
        return Recovered(on, off_mass, off_edges, law.incompatibility, f"{law.method}-list")


WHOLE_LAW = Cut()
"""Every set is kept, as it is."""


@dataclass(frozen=True)
class ReadOut:
    """What was read out of a model, and its error.

    Attributes:
        method: the row of the read-out.
        error: distance from the world, of what was recovered.
        recovered: the law, or the list that was cut from it; None where only sampled edges were read.
        law: a weight for every node set, as the model has it; None likewise.
        cut: what made the list of the law.
    """

    method: Method
    error: RecoveryError
    recovered: Recovered | None
    law: Recovered | None
    cut: Cut = WHOLE_LAW


@dataclass(frozen=True, kw_only=True)
class ReadoutConfig:
    """How a hypergraph is read out of a model."""

    method: str = "auto"
    """Read-out: bfs, stationary, least_squares, chain, or your own as package.module:function; auto takes stationary
    for connected worlds of pairs, chain for all others (where the objective is one_mask, least_squares)."""
    bfs_threshold: float = 1e-2
    """bfs: conditional probability from which a pair counts as an edge; the paper's is 1e-2."""
    allow_unidentified: bool = False
    """least_squares: read a world that one mask does not identify as well; groups of edges that no mask compares share
    the mass by number, and the error stops at a plateau."""
    num_orders: int = 6
    """chain: random orders averaged for an edge of more than exact_size nodes."""
    exact_size: int = 6
    """chain: largest edge that is averaged over all its orders; costs up to 2^size contexts per edge."""
    max_candidates: int | None = None
    """chain: node sets kept per step of the search for edges off the support; 0: no search, null: twice the edges, at
    least 50,000."""
    sampled_edges: int | None = None
    """chain: edges drawn by weight to estimate the error from, with an interval; null compares every edge of a world
    held in memory, and draws 2,000 of any other."""
    min_count: float | None = None
    """stationary, chain: node sets that the N samples would hold less often than this are dropped, and the rest scaled
    to 1: a list of edges in place of a law over all sets, which an l1 is better served by where N is small. Null drops
    none. Log-likelihoods are of the law."""
    seed: int | None = None
    """chain, or your own: seed of random orders and sampled edges; null takes the run's."""
    config: dict[str, Any] = field(default_factory=dict)
    """Your own: arguments by name."""

    def __post_init__(self) -> None:
        if not 0 < self.bfs_threshold < 1:
            raise ConfigError(
                f"readout.bfs_threshold={self.bfs_threshold}; a probability in (0, 1) is wanted, such as 0.01"
            )
        for name, value, least in (
            ("num_orders", self.num_orders, 1),
            ("exact_size", self.exact_size, 0),
            ("max_candidates", self.max_candidates, 0),
            ("sampled_edges", self.sampled_edges, 2),
        ):
            if value is not None and value < least:
                raise ConfigError(f"readout.{name}={value}; at least {least} is wanted")
        if self.min_count is not None and not 0 < self.min_count < np.inf:
            raise ConfigError(
                f"readout.min_count={self.min_count}; a positive number of samples is wanted, such as 0.1"
            )
        for hindered, why in (
            (self.max_candidates == 0, "max_candidates=0, which finds no sets to list; set max_candidates to null"),
            (self.sampled_edges is not None, "sampled_edges, which lists no sets; set sampled_edges to null"),
        ):
            if self.min_count is not None and hindered:
                raise ConfigError(f"readout.min_count={self.min_count} with {why}, or min_count to null")
        if not plugins.is_path(self.method):
            _refuse_ignored(self, AUTO if self.method == "auto" else (self.method,), f"readout.method={self.method}")

    def decides(self) -> dict[str, Any]:
        """What decides numbers, for a fingerprint: a user's read-out counts by its source."""
        return configs.to_dict(self) | {"method": plugins.identified(self.method, "readout.method")}


AUTO = ("stationary", "chain")
"""What ``auto`` may take, where any number of nodes is hidden in the training."""


def _refuse_ignored(config: ReadoutConfig, methods: tuple[str, ...], because: str) -> None:
    """Refuse fields that are set and that none of these read-outs uses."""
    used = {name for method in methods for name in METHODS.get(method, "readout.method").fields}
    ignored = [f.name for f in dataclasses.fields(config) if f.name != "method" and f.name not in used]
    configs.refuse_ignored(config, ignored, "readout", because)


def check_readout(world: World, config: ReadoutConfig, trained: Asks = "any_order") -> ReadoutConfig:
    """Refuse, before anything is trained, a read-out that could not be made, or an ignored field.

    Args:
        world: the truth.
        config: of the read-out; a user's own is called on a tiny world.
        trained: what the objective teaches a model to answer: "one_mask", or "any_order".

    Returns:
        The config with a definite method, see ``definite``.

    Raises:
        ConfigError: naming the field and the repair.
    """
    clear = definite(world, config, trained)
    method = METHODS.get(clear.method, "readout.method")
    if isinstance(world, Hypergraph):
        method.check(world, clear.allow_unidentified)
    asks_more = method.asks == "any_order"
    if method.plugin:
        asks_more = try_out(clear.method, method, world.distinct_sizes, clear.config) > 1
    if asks_more and trained == "one_mask":
        raise ConfigError(
            f"readout.method={config.method} asks about several hidden nodes, which objective.masking never "
            "trains; set readout.method to stationary or least_squares, or objective.masking to random_subset"
        )
    return clear


def definite(world: World, config: ReadoutConfig, trained: Asks = "any_order") -> ReadoutConfig:
    """The same read-out, its ``auto`` made definite, and how many edges are drawn of a world that is not held.

    Raises:
        ConfigError: if the method ignores a field that is set, or needs all edges, and they are not held.
    """
    name = _method_for(world, config, trained)
    here = "" if config.method == name else f" ({name} for this world)"
    _refuse_ignored(config, (name,), f"readout.method={config.method}{here}")
    config = dataclasses.replace(config, method=name)
    if isinstance(world, Hypergraph):
        return config
    held = f"this world of {world.num_edges} edges is not held in memory"
    if config.min_count is not None:
        raise ConfigError(
            f"readout.min_count={config.min_count} compares every edge, and {held}; set readout.min_count to null, or "
            "world.load to memory"
        )
    if METHODS.get(config.method, "readout.method").log_prob is None:
        raise ConfigError(
            f"readout.method={config.method} compares every edge, and {held}; set readout.method to chain, or "
            "world.load to memory"
        )
    return config if config.sampled_edges is not None else dataclasses.replace(config, sampled_edges=SAMPLED_EDGES)


def _method_for(world: World, config: ReadoutConfig, trained: Asks) -> str:
    """What ``auto`` takes, or the method that is named."""
    if config.method != "auto":
        return config.method
    pairs = world.distinct_sizes == (2,)
    if trained == "one_mask":
        return "stationary" if pairs else "least_squares"
    if config.sampled_edges is not None or not isinstance(world, Hypergraph):
        return "chain"
    return "stationary" if pairs and num_swap_components(world.edges_of_size(2)) == 1 else "chain"


def read_out(
    conditionals: Conditionals,
    world: World,
    config: ReadoutConfig,
    seed: int = 0,
    list_from: float | None = None,
    num_samples: int | None = None,
) -> ReadOut:
    """Read a hypergraph out of a model and compare it with the world.

    A list (``config.min_count``) begins no lower than where the search for edges off the support is sure to have found
    them all, so that a search that met ``config.max_candidates`` shortens it.

    Args:
        conditionals: the model.
        world: the truth; one that is not held in memory is read as ``definite`` says.
        config: method and its numbers.
        seed: used where ``config.seed`` is null.
        list_from: stationary and chain: weight from which edges off the support are listed, at most
            ``support_threshold(world)``, which None means. A list has none below its own least weight.
        num_samples: N, samples the model saw; needed where ``config.min_count`` is given.

    Raises:
        ConfigError: if the method cannot read this world.
        RunError: if an iterative solver does not converge.
    """
    _check_nodes(conditionals, world)
    config = definite(world, config)
    method = METHODS.get(config.method, "readout.method")
    seed = seed if config.seed is None else config.seed
    if config.sampled_edges is not None or not isinstance(world, Hypergraph):
        return ReadOut(method, _sampled_error(method, conditionals, world, config, seed), None, None)
    if config.min_count is None:
        law = _read_law(method, conditionals, world, config, seed, list_from)
        return ReadOut(method, errors(world, law), law, law)
    if not num_samples:
        raise ConfigError(f"readout.min_count={config.min_count}: without num_samples no weight is a count; give it")
    least = config.min_count / num_samples
    law = _read_law(method, conditionals, world, config, seed, least)
    cut = cut_of(law, least)
    recovered = cut.listed(law)
    error = dataclasses.replace(errors(world, recovered), log_likelihood=errors(world, law).log_likelihood)
    return ReadOut(method, error, recovered, law, cut)


def _read_law(
    method: Method,
    conditionals: Conditionals,
    world: Hypergraph,
    config: ReadoutConfig,
    seed: int,
    list_from: float | None,
) -> Recovered:
    """What the method gives to the world's edges, and to all other sets together."""
    with late_failures(f"readout.method={config.method}") if method.plugin else nullcontext():
        return method.read(conditionals, world, **_given(method.read, config, seed, list_from=list_from))


def _given(function: Any, config: ReadoutConfig, seed: int, **more: Any) -> dict[str, Any]:
    """The arguments of a built-in function that the config has."""
    offered = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)} | {"seed": seed} | more
    return {name: value for name, value in offered.items() if name in plugins.keywords(function)}


def read_held_out(
    conditionals: Conditionals,
    world: Hypergraph,
    held_out: Hypergraph,
    result: ReadOut,
    config: ReadoutConfig,
    seed: int = 0,
) -> HeldOutError | None:
    """Compare what was read out of a model with another hypergraph on the same nodes.

    Edges that the two share are not read again. Where edges are sampled, they are here as well; where the result is a
    list, l1 is of that list, and the log-likelihood of the law.

    Args:
        conditionals: the model.
        world: the truth that it was read out against.
        held_out: the other hypergraph.
        result: of ``read_out``.
        config: as it was there.
        seed: as it was there.

    Returns:
        None for read-outs that give no probability to an arbitrary node set: all built-in ones but chain.
    """
    if result.method.log_prob is None:
        return None
    _check_nodes(conditionals, held_out)
    seed = seed if config.seed is None else config.seed
    if result.law is None:
        drawn, log_p, _ = _read_sampled(result.method, conditionals, held_out, config, seed)
        l1, weights = estimate(held_out.weights[drawn], log_p).l1, np.ones(len(drawn))
    else:
        drawn, weights = np.arange(held_out.num_edges), held_out.weights
        shared = find_edges(world, held_out)
        log_p = np.empty(held_out.num_edges)
        log_p[shared >= 0] = log_of(result.law.on_support[shared[shared >= 0]])
        new = np.flatnonzero(shared < 0)
        log_p[new], _ = _read_edges(result.method, conditionals, held_out, new, config, seed)
        l1 = l1_error(weights, result.cut.weights(np.exp(log_p)))
    known = np.isin(held_out.sizes[drawn], conditionals.sizes)
    return HeldOutError(l1, mean_log(weights[known], log_p[known]))


# Comparing with the truth


def l1_error(weights: np.ndarray, on_support: np.ndarray, unassigned: float = 0.0) -> float:
    """sum over all node sets of |w - p|, of laws w that is all on these edges [E] and p that is [E] on them.

    ``unassigned`` is what p gives to no set at all.
    """
    return float(np.abs(weights - on_support).sum()) + max(0.0, 1 - float(on_support.sum()) - unassigned)


def cut_of(law: Recovered, least: float) -> Cut:
    """The cut that leaves the sets of ``least`` or more, or of the weight from which all are known, if that is more.

    A softmax gives something to every set; a hypergraph is a list.

    Args:
        law: its edges off the support were searched.
        least: weight, above 0.
    """
    assert law.off_edges is not None
    least = max(least, law.off_edges.missing_below)
    every = np.concatenate([law.on_support, *law.off_edges.weights])
    return Cut(least, float(every[every >= least].sum()))


def sparse_l1(world: Hypergraph, law: Recovered, least: float) -> float | None:
    """l1 in [0, 2] of the list of all sets of ``least`` or more.

    None where not all of them are known, or there are none.
    """
    if law.off_edges is None or law.off_edges.missing_below > least:
        return None
    cut = cut_of(law, least)
    return l1_error(world.weights, cut.weights(law.on_support)) if cut.total > 0 else None


def mean_log(weights: np.ndarray, log_probs: np.ndarray) -> float | None:
    """Mean of log p [E] by weight [E]; None where it is minus infinity, or there is nothing to average."""
    if not np.all(log_probs > -np.inf) or weights.sum() == 0:
        return None
    return float(weights @ log_probs / weights.sum())


def log_of(probabilities: np.ndarray) -> np.ndarray:
    """[E] float64: logs, -inf of 0."""
    with np.errstate(divide="ignore"):
        logs: np.ndarray = np.log(probabilities)
        return logs


def errors(world: Hypergraph, recovered: Recovered) -> RecoveryError:
    """Distance of a recovered hypergraph from the world.

    Precision is None where edges off the support were not searched down to the threshold, or nothing was recovered.
    """
    on, w = recovered.on_support, world.weights
    l1_on = float(np.abs(w - on).sum())
    l1 = l1_on + recovered.off_support_mass
    threshold = support_threshold(world)
    found = int((on >= threshold).sum())
    precision = None
    if recovered.off_edges is not None and recovered.off_edges.missing_below <= threshold:
        found_off = sum(int((weights >= threshold).sum()) for weights in recovered.off_edges.weights)
        precision = found / (found + found_off) if found + found_off else None
    return RecoveryError(
        method=recovered.method,
        recovery_l1=l1,
        recovery_tv=l1 / 2,
        l1_on_support=l1_on,
        off_support_mass=recovered.off_support_mass,
        l1_renormalised=float(np.abs(w - on / on.sum()).sum()) if on.sum() > 0 else None,
        support_precision=precision,
        support_recall=float((on[w >= 2 * threshold] >= threshold).mean()),
        log_likelihood=mean_log(w, log_of(on)),
        incompatibility=recovered.incompatibility,
        num_edges=world.num_edges,
    )


def estimate(weights: np.ndarray, log_probs: np.ndarray) -> Estimate:
    """Recovery error from edges drawn by weight, for worlds too large to go through.

    With r = p(e) / w(e) the l1 is E|1 - r| + (1 - E r), on the support and off it, so one statistic per sample carries
    both: x = |1 - r| + 1 - r = 2 max(0, 1 - r), bounded in [0, 2] however heavy the tail of r. The interval is
    ``mean_interval``, which holds as well where nearly all edges are lost or nearly all are right.

    Args:
        weights: [n] float64, true weight of each drawn edge (an edge stands as often as it was drawn).
        log_probs: [n] float64, log of the model's normalised probability of each, as from ``chain_log_prob``.

    Raises:
        ConfigError: if fewer than 2 edges are given.
    """
    num = len(weights)
    if num < 2:
        raise ConfigError(f"sampled_edges={num}; an interval needs at least 2, and 50 to be right")
    ratio = np.exp(log_probs - np.log(weights))
    x = 2 * np.maximum(0, 1 - ratio)
    low, high = mean_interval(x, largest=2.0)
    mean = float(ratio.mean())
    return Estimate(
        l1=float(x.mean()),
        l1_low=low,
        l1_high=high,
        l1_on_support=float(np.abs(1 - ratio).mean()),
        off_support_mass=min(1.0, max(0.0, 1 - mean)),
        l1_renormalised=float(np.abs(1 - ratio / mean).mean()) if mean > 0 else None,
        num_edges=num,
    )


def mean_interval(x: np.ndarray, largest: float) -> tuple[float, float]:
    """95% interval of the mean of a law on [0, largest], from independent draws x [n].

    The means that some law on [0, largest] has under which x is not too unlikely: the empirical likelihood ratio
    (Owen 1988), of laws that may also lie where no x is. So it is Student's where x is close to normal, the binomial's
    likelihood interval where x is nearly always at one end, and never a single point. Where less than about five x are
    of a rare kind that matters, it holds in 85 to 99% of the cases, as counts so small allow no better.
    """
    mean, limit = float(x.mean()), float(stdtrit(len(x) - 1, 0.975)) ** 2 / 2
    ends = []
    for end in (0.0, largest):
        outside, inside = end, mean
        for _ in range(40 if end != mean else 0):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if _unlikelihood(x, middle, largest) > limit else (outside, middle)
        ends.append(inside)
    return ends[0], ends[1]


@nb.njit(cache=True)
def _unlikelihood(x: np.ndarray, mean: float, largest: float) -> float:
    """Log likelihood that x [n] loses, at least, under laws on [0, largest] of this mean in (0, largest).

    By duality max_t sum log(1 + t (x - mean)) over t for which no log on [0, largest] is of a negative number (derived
    here with a multiplier for the mean); concave in t, so the slope is halved to 0.
    """
    low, high = -1 / (largest - mean), 1 / mean
    for _ in range(40):
        middle, slope = (low + high) / 2, 0.0
        for value in x:
            slope += (value - mean) / (1 + middle * (value - mean))
        if slope > 0:
            low = middle
        else:
            high = middle
    lost: float = np.log1p(low * (x - mean)).sum()
    return lost


def sampled_edges(world: World, config: ReadoutConfig, seed: int = 0) -> np.ndarray:
    """[n] int64: the edges that ``read_out`` draws by weight, an edge as often as it is drawn.

    They are other samples than those of any training: these have the seeds that configs give, small numbers.

    Args:
        world: the truth.
        config: of a read-out with ``sampled_edges``, as ``definite`` makes it.
        seed: used where ``config.seed`` is null.
    """
    assert config.sampled_edges is not None
    seed = seed if config.seed is None else config.seed
    return world.sampler(int(key(seed, "recovery edges"))).draw(np.arange(config.sampled_edges))


def _sampled_error(
    method: Method, conditionals: Conditionals, world: World, config: ReadoutConfig, seed: int
) -> RecoveryError:
    """Error of the read-out on edges drawn by weight."""
    drawn, log_p, spread = _read_sampled(method, conditionals, world, config, seed)
    result = estimate(world.weights_of(drawn), log_p)
    return RecoveryError(
        method=config.method,
        recovery_l1=result.l1,
        recovery_l1_low=result.l1_low,
        recovery_l1_high=result.l1_high,
        recovery_tv=result.l1 / 2,
        l1_on_support=result.l1_on_support,
        off_support_mass=result.off_support_mass,
        l1_renormalised=result.l1_renormalised,
        log_likelihood=mean_log(np.ones(len(drawn)), log_p),
        incompatibility=float(spread.mean()),
        num_edges=result.num_edges,
    )


def _read_sampled(
    method: Method, conditionals: Conditionals, world: World, config: ReadoutConfig, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges drawn by weight [n], the log probability of each and its spread; an edge drawn twice is read once."""
    drawn = sampled_edges(world, config, seed)
    distinct, back = np.unique(drawn, return_inverse=True)
    log_p, spread = _read_edges(method, conditionals, world, distinct, config, seed)
    return drawn, log_p[back], spread[back]


def _read_edges(
    method: Method, conditionals: Conditionals, world: World, chosen: np.ndarray, config: ReadoutConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log probability of the chosen edges [c] of a world, and its spread."""
    log_prob = method.log_prob
    assert log_prob is not None
    log_p, spread = np.empty(len(chosen)), np.empty(len(chosen))
    of_chosen = world.rows(chosen)
    for size in np.unique(of_chosen.sizes):
        at, rows = of_chosen.of_size(size)
        log_p[at], spread[at] = log_prob(conditionals, rows, **_given(log_prob, config, seed))
    return log_p, spread


def _check_nodes(conditionals: Conditionals, world: World) -> None:
    if conditionals.num_nodes != world.num_nodes:
        raise ConfigError(
            f"the model knows {conditionals.num_nodes} nodes and the world has {world.num_nodes}; "
            "read a model out against the world it was trained on"
        )
