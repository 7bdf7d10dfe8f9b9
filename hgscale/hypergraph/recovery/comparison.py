"""All that a run says about a read-out: its error, what counting achieves, plain and smoothed, what the model knows.

The numbers are flat and end in ``summary.json``. None is one that was not measured or does not exist.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hgscale.errors import ConfigError
from hgscale.hypergraph import bounds
from hgscale.hypergraph.identify import line_graph_diameter
from hgscale.hypergraph.recovery.conditionals import Conditionals, Recovered, find_edges, support_threshold
from hgscale.hypergraph.recovery.estimators import Estimator, Law, rows, sample_of
from hgscale.hypergraph.recovery.readout import (
    WHOLE_LAW,
    ReadOut,
    ReadoutConfig,
    definite,
    estimate,
    l1_error,
    log_of,
    mean_log,
    read_held_out,
    read_out,
    sampled_edges,
    sparse_l1,
)
from hgscale.hypergraph.structure import Hypergraph, World
from hgscale.hypergraph.worlds.config import WorldConfig, weight_groups
from hgscale.hypergraph.worlds.implicit import weight_pieces

SPARSE_COUNT = 0.1
"""A node set that N samples are expected to hold less often than this is dropped from the sparse reading."""

_MAX_WALKED = 2_000_000  # incidences walked for the line graph's diameter: less than a tenth of a second


@dataclass(frozen=True)
class Comparison:
    """What a read-out gave: numbers by name, and the recovered hypergraph where every edge was compared."""

    metrics: dict[str, Any]
    recovered: Recovered | None


def read_and_compare(
    conditionals: Conditionals,
    world: Hypergraph,
    config: ReadoutConfig,
    counts: np.ndarray,
    seed: int,
    origin: WorldConfig | None = None,
    held_out: Hypergraph | None = None,
    estimators: Sequence[str] = (),
) -> Comparison:
    """Read out, and lay the error beside the floor and beside counting on the very samples the model saw.

    Args:
        conditionals: the model.
        world: the truth.
        config: of the read-out.
        counts: [E] how often each edge was among the samples the model saw.
        seed: of random orders and sampled edges.
        origin: what the world was built from. Give it at the end of a run: it adds what takes longer or is asked for
            once, smoothed counting, the floor of hidden classes, capacity, shape.
        held_out: the part of the world's file that is held out; compared where ``origin`` is given as well.
        estimators: import paths of a user's, beside those that are built in; used where ``origin`` is given.

    Raises:
        ConfigError: if the method cannot read this world.
        DataError: if nothing was counted.
    """
    num_samples = int(counts.sum())
    list_from = None if origin is None else sparse_from(world, num_samples)
    result = read_out(conditionals, world, config, seed, list_from, num_samples)
    if origin is None:
        return Comparison(_error(result) | _counting(result, world, counts), result.recovered)
    laws = _laws(world, counts, estimators)
    metrics = _compared(result, world, counts, laws, weight_groups(origin, world))
    metrics |= dict.fromkeys(_held_out_keys(estimators))
    if held_out is not None:
        metrics |= _held_out_references(laws, world, held_out)
        metrics |= _held_out_model(conditionals, world, held_out, result, config, seed)
    return Comparison(metrics, result.recovered)


def sparse_from(world: Hypergraph, num_samples: int) -> float:
    """The weight from which sets off the support are sought, so that the sparse reading has all of its own."""
    return min(SPARSE_COUNT / max(1, num_samples), support_threshold(world))


def compare(
    result: ReadOut,
    world: Hypergraph,
    counts: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    estimators: Sequence[str] = (),
) -> dict[str, Any]:
    """Lay what was read out of a model beside the truth, and beside what others make of the same samples.

    Args:
        result: of ``read_out``.
        world: the truth.
        counts: [E] integers, how often each edge was among the samples the model saw, in the order of the world: as
            ``world.sampler(seed).counts(ids)`` gives them.
        groups: [E] integers from 0, edges that are known to weigh the same; for ``structured_floor_l1``.
        estimators: import paths of your own, beside the built-in ones.

    Returns:
        Numbers by name, errors as l1 in [0, 2] and likelihoods in nats per sample, as ``summary.json`` has them; None
        where one was not measured or does not exist. ``recovery_l1``: of the model; ``count_floor_l1``: expected of
        counting, ``count_l1``: of counting these very samples; ``ratio_to_floor``, ``ratio_to_count``: the first over
        these two.

    Raises:
        ConfigError: if the counts are not one an edge, or an estimator cannot be imported.
        DataError: if nothing was counted.
    """
    counts = np.asarray(counts)
    if not isinstance(world, Hypergraph) or counts.shape != (world.num_edges,):
        raise ConfigError(
            f"compare: counts of shape {counts.shape} for {world.num_edges} edges; give one count for each edge of a "
            "world that is held in memory"
        )
    return _compared(result, world, counts, _laws(world, counts, estimators), groups)


def _laws(world: Hypergraph, counts: np.ndarray, estimators: Sequence[str]) -> list[tuple[Estimator, Law]]:
    sample = sample_of(world, counts)
    return [(row, row.law(sample)) for row in rows(estimators)]


def _compared(
    result: ReadOut,
    world: Hypergraph,
    counts: np.ndarray,
    laws: Sequence[tuple[Estimator, Law]],
    groups: np.ndarray | None,
) -> dict[str, Any]:
    """All that is said of a world itself."""
    num_samples = int(counts.sum())
    metrics = _error(result) | _counting(result, world, counts) | dict.fromkeys(_OTHER_READINGS)
    metrics |= _other_reading(result, world, SPARSE_COUNT / num_samples, metrics["count_floor_l1"])
    metrics |= _references(laws, world)
    return metrics | _structure(result, world, groups, num_samples)


def read_and_estimate(
    conditionals: Conditionals,
    world: World,
    config: ReadoutConfig,
    count: Callable[[np.ndarray], np.ndarray],
    num_samples: int,
    seed: int,
    estimators: Sequence[str] = (),
) -> Comparison:
    """``read_and_compare`` of a world that is not held in memory: on edges drawn by weight.

    The floor of counting is that of the whole world. What counting achieved is estimated on the same edges as the
    model's error: counting puts all its weight on edges of the world, so that ``estimate`` holds for it as well. What
    would need an array over all edges is None.

    Args:
        conditionals: the model.
        world: the truth.
        config: of the read-out.
        count: distinct edges [d] int64, ascending -> how often each was among the samples the model saw [d].
        num_samples: N, how many these samples were.
        seed: of random orders and sampled edges.
        estimators: import paths of a user's, whose numbers are None here.

    Raises:
        ConfigError: if the method needs all edges.
    """
    config = definite(world, config)
    result = read_out(conditionals, world, config, seed)
    sums = bounds.weight_sums(weight_pieces(world, num_samples), num_samples)
    distinct, back = np.unique(sampled_edges(world, config, seed), return_inverse=True)
    weights, counted = world.weights_of(distinct)[back], count(distinct)[back]
    counting = estimate(weights, log_of(counted / num_samples)).l1
    metrics = _error(result) | {
        "count_floor_l1": sums.count_floor,
        "count_l1": counting,
        "ratio_to_floor": _ratio(result.error.recovery_l1, sums.count_floor),
        "ratio_to_count": _ratio(result.error.recovery_l1, counting),
        "half_norm": sums.half_norm,
        "num_samples": num_samples,
        "num_nodes": world.num_nodes,
        "num_edges": world.num_edges,
        "entropy_nats": sums.entropy_nats,
        "kappa": world.kappa,
    }
    return Comparison(dict.fromkeys(_need_all_edges(estimators)) | metrics, None)


def _error(result: ReadOut) -> dict[str, Any]:
    """The error of the read-out by itself."""
    error = asdict(result.error)
    list_from = None if result.cut is WHOLE_LAW else result.cut.least
    return error | {
        "readout": error.pop("method"),
        "list_from": list_from,
        "num_edges_compared": error.pop("num_edges"),
    }


def _counting(result: ReadOut, world: Hypergraph, counts: np.ndarray) -> dict[str, Any]:
    """The error beside what counting as many samples achieves in expectation, and what counting these did."""
    num_samples = int(counts.sum())
    floor, counting = bounds.count_floor(world.weights, num_samples), bounds.count_l1(world.weights, counts)
    return {
        "count_floor_l1": floor,
        "count_l1": counting,
        "ratio_to_floor": _ratio(result.error.recovery_l1, floor),
        "ratio_to_count": _ratio(result.error.recovery_l1, counting),
        "half_norm": bounds.half_norm(world.weights),
        "num_samples": num_samples,
        "num_nodes": world.num_nodes,
        "num_edges": world.num_edges,
    }


def _other_reading(result: ReadOut, world: Hypergraph, drop_below: float, floor: float) -> dict[str, float | None]:
    """The same model read the other way: of a law the list of what the samples would hold, of a list the law."""
    law = result.law
    if law is None or not result.method.lists:
        return {}
    listed = result.cut is not WHOLE_LAW
    name, error = (
        ("dense", l1_error(world.weights, law.on_support)) if listed else ("sparse", sparse_l1(world, law, drop_below))
    )
    return {f"{name}_l1": error, f"{name}_ratio_to_floor": None if error is None else _ratio(error, floor)}


def _references(laws: Sequence[tuple[Estimator, Law]], world: Hypergraph) -> dict[str, float | None]:
    """What smoothed counting of the very samples achieves; of plain counting ``_counting`` says it."""
    numbers: dict[str, float | None] = {}
    for row, law in laws:
        if row.smooth:
            on_support = law.of(world)
            numbers[f"{row.key}_l1"] = l1_error(world.weights, on_support, law.unassigned)
            numbers[f"{row.key}_log_likelihood"] = mean_log(world.weights, log_of(on_support))
    return numbers


def _structure(
    result: ReadOut, world: Hypergraph, groups: np.ndarray | None, num_samples: int
) -> dict[str, float | None]:
    """Where structure could help, how much the model knows, and the shape of the world."""
    log_likelihood = result.error.log_likelihood
    return {
        "structured_floor_l1": (
            None if groups is None else bounds.structured_floor(world.weights, groups, num_samples)
        ),
        "capacity_bits": None if log_likelihood is None else bounds.capacity_bits(world, log_likelihood),
        "entropy_nats": -float(world.weights @ np.log(world.weights)),
        "kappa": world.kappa,
        "line_graph_diameter": _diameter(world),
    }


def _diameter(world: Hypergraph) -> int | None:
    """Of the line graph; None where it is infinite, or takes long to find."""
    if 2 * len(world.nodes) > _MAX_WALKED:
        return None
    diameter = line_graph_diameter(world, max_exact=_MAX_WALKED)
    return int(diameter.value_low) if diameter.exact and np.isfinite(diameter.value_low) else None


_OTHER_READINGS = ("sparse_l1", "sparse_ratio_to_floor", "dense_l1", "dense_ratio_to_floor")


def _held_out_keys(estimators: Sequence[str] = ()) -> list[str]:
    """What is said of a held-out part."""
    of_world = ["l1", "log_likelihood", "world_l1", "new_edge_frac", "new_size_frac"]
    return [f"heldout_{name}" for name in of_world + [key for row in rows(estimators) for key in _keys(row)]]


def _keys(row: Estimator) -> list[str]:
    return [f"{row.key}_l1", f"{row.key}_log_likelihood"] if row.smooth else [f"{row.key}_l1"]


def _need_all_edges(estimators: Sequence[str]) -> list[str]:
    """What is None of a world that is not held in memory."""
    of_laws = [key for row in rows(estimators) if row.smooth for key in _keys(row)]
    of_world = ["structured_floor_l1", "capacity_bits", "line_graph_diameter"]
    return [*_OTHER_READINGS, *of_laws, *of_world, *_held_out_keys(estimators)]


def _held_out_model(
    conditionals: Conditionals,
    world: Hypergraph,
    held_out: Hypergraph,
    result: ReadOut,
    config: ReadoutConfig,
    seed: int,
) -> dict[str, float | None]:
    """The model against the held-out part; nothing where the read-out cannot tell."""
    error = read_held_out(conditionals, world, held_out, result, config, seed)
    return {} if error is None else {"heldout_l1": error.l1, "heldout_log_likelihood": error.log_likelihood}


def _held_out_references(
    laws: Sequence[tuple[Estimator, Law]], world: Hypergraph, held_out: Hypergraph
) -> dict[str, float | None]:
    """The held-out part beside the world itself, and beside counting the samples, plain and smoothed.

    Log-likelihoods are means over the held-out samples of sizes that the world has: no law here knows other sizes.
    """
    at, weights = find_edges(world, held_out), held_out.weights
    known = np.isin(held_out.sizes, world.distinct_sizes)
    numbers: dict[str, float | None] = {
        "heldout_world_l1": l1_error(weights, np.where(at >= 0, world.weights[at], 0)),
        "heldout_new_edge_frac": float(weights[at < 0].sum()),
        "heldout_new_size_frac": float(weights[~known].sum()),
    }
    for row, law in laws:
        probabilities = law.of(held_out)
        numbers[f"heldout_{row.key}_l1"] = l1_error(weights, probabilities, law.unassigned)
        if row.smooth:
            numbers[f"heldout_{row.key}_log_likelihood"] = mean_log(weights[known], log_of(probabilities[known]))
    return numbers


def _ratio(error: float, reference: float) -> float | None:
    """None where there is nothing to err about: a world of one edge."""
    return error / reference if reference > 0 else None
