"""What reports say of pre-trainings: errors of recovery, beside those of counting and its floor."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hgscale.train.reports import (
    Beside,
    Collapse,
    Column,
    Density,
    Derived,
    Exponents,
    Fitted,
    Lines,
    Look,
    Measures,
    Method,
    Plateau,
    Ratios,
    SameData,
    Shares,
    Summary,
    Told,
)

WORDS = {
    "recovery_l1": "learned l1",
    "sparse_l1": "learned l1, sparse",
    "dense_l1": "learned l1, dense",
    "count_l1": "counting l1",
    "count_floor_l1": "floor l1",
    "good_turing_l1": "Good-Turing l1",
    "absolute_discounting_l1": "absolute discounting l1",
    "structured_floor_l1": "structured floor l1",
    "published_l1": "published l1",
    "ratio_to_floor": "ratio to floor",
    "sparse_ratio_to_floor": "ratio to floor, sparse",
    "dense_ratio_to_floor": "ratio to floor, dense",
    "ratio_to_count": "ratio to counting",
    "ratio_to_best_count": "ratio to best counting",
    "sparse_ratio_to_best_count": "ratio to best counting, sparse",
    "dense_ratio_to_best_count": "ratio to best counting, dense",
    "ratio_to_structured_floor": "ratio to structured floor",
    "published_ratio_to_floor": "published ratio to floor",
    "support_precision": "support precision",
    "support_recall": "support recall",
    "log_likelihood": "log-likelihood, nats",
    "good_turing_log_likelihood": "Good-Turing log-likelihood, nats",
    "absolute_discounting_log_likelihood": "absolute discounting log-likelihood, nats",
    "best_log_likelihood": "log-likelihood of the world itself, nats",
    "heldout_l1": "held-out: learned l1",
    "heldout_count_l1": "held-out: counting l1",
    "heldout_good_turing_l1": "held-out: Good-Turing l1",
    "heldout_absolute_discounting_l1": "held-out: absolute discounting l1",
    "heldout_world_l1": "held-out: l1 of the whole trained part",
    "heldout_log_likelihood": "held-out: log-likelihood, nats",
    "heldout_good_turing_log_likelihood": "held-out: Good-Turing log-likelihood, nats",
    "heldout_absolute_discounting_log_likelihood": "held-out: absolute discounting log-likelihood, nats",
    "capacity_bits": "capacity, bits",
    "bits_per_parameter": "bits per parameter",
    "num_samples": "samples N",
    "num_edges": "edges",
    "num_nodes": "nodes",
    "half_norm": "half-norm",
    "line_graph_diameter": "line-graph diameter",
    "readout.method": "read-out",
}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _over(numerator: str, *denominators: str) -> Derived:
    """A ratio of summary fields, to the least of several denominators; None where one is missing or nothing is left."""

    def ratio(summary: Summary) -> float | None:
        above, below = _number(summary.get(numerator)), [_number(summary.get(name)) for name in denominators]
        # NaN is neither above 0 nor below: what is missing gives no ratio.
        return above / min(below) if math.isfinite(above) and all(part > 0 for part in below) else None

    return ratio


COUNTING = ("count_l1", "good_turing_l1", "absolute_discounting_l1")
DERIVED: dict[str, Derived] = {
    "ratio_to_best_count": _over("recovery_l1", *COUNTING),
    "sparse_ratio_to_best_count": _over("sparse_l1", *COUNTING),
    "dense_ratio_to_best_count": _over("dense_l1", *COUNTING),
    "ratio_to_structured_floor": _over("recovery_l1", "structured_floor_l1"),
    "published_ratio_to_floor": _over("published_l1", "count_floor_l1"),
    "samples_per_half_norm": _over("num_samples", "half_norm"),
    "parameters_per_edge": _over("num_parameters", "num_edges"),
    "best_log_likelihood": lambda summary: None if (h := summary.get("entropy_nats")) is None else -h,
}

FLOOR = Look("count_floor_l1", "floor", "black", "--", kept=True)
LEARNED = Look("recovery_l1", "learned", "blue")
ERRORS = (
    Look("structured_floor_l1", "structured floor", "grey", ":"),
    FLOOR,
    Look("absolute_discounting_l1", "absolute discounting", "pink"),
    Look("good_turing_l1", "Good-Turing", "green"),
    Look("count_l1", "counting", "orange"),
    LEARNED,
)
LIKELIHOODS = (
    Look("best_log_likelihood", "the world itself", "black", "--"),
    Look("absolute_discounting_log_likelihood", "absolute discounting", "pink"),
    Look("good_turing_log_likelihood", "Good-Turing", "green"),
    Look("log_likelihood", "learned", "blue"),
)
HELD_OUT_ERRORS = (
    Look("heldout_world_l1", "the whole trained part", "black", "--"),
    Look("heldout_absolute_discounting_l1", "absolute discounting", "pink"),
    Look("heldout_good_turing_l1", "Good-Turing", "green"),
    Look("heldout_count_l1", "counting", "orange"),
    Look("heldout_l1", "learned", "blue"),
)
HELD_OUT_LIKELIHOODS = tuple(Look(f"heldout_{one.measure}", one.word, one.color, one.style) for one in LIKELIHOODS[1:])
CAPACITY = ("capacity_bits", "bits_per_parameter")

PANELS = (
    Lines(
        name="error",
        title="Error",
        caption="Error against the truth, beside what counting gives on the very samples (counting) and in "
        "expectation (floor): the lower the better, and a learned curve on the floor wastes no sample.",
        looks=ERRORS,
        label="l1 error",
        log=True,
        against_x=True,
        only_in_rows=(Look("published_l1", "published", "pink"),),
        caption_of_rows="Error of each setting against the truth, learned and by counting: the further left the "
        "better.",
    ),
    Ratios(
        name="ratio",
        title="Ratio to the floor",
        caption="Learned error in units of the floor: 1 is as good as counting can be expected to be, below 1 is "
        "better.",
        looks=(
            Look("ratio_to_floor", "learned", "blue"),
            Look("published_ratio_to_floor", "published", "pink"),
        ),
        label="learned error / floor of counting",
        label_of_rows="error / floor of counting",
    ),
    Collapse(
        name="collapse",
        title="Collapse over N / half-norm",
        caption="Error over N / half-norm, the samples per effective edge: worlds of any size fall on the dashed line "
        "of counting, sqrt(2 / (pi x)), where nothing but sampling noise is left.",
        measure="recovery_l1",
        over="samples_per_half_norm",
        label="learned l1 error",
        over_label="samples N / half-norm",
        law=lambda x: np.sqrt(2 / (np.pi * x)),
        formula="dashed: counting, \u221a(2 / \u03c0x)",
        most=2,
    ),
    Exponents(
        name="exponents",
        title="Exponents",
        caption="Exponents of power laws fitted to the error; the dashed line is what sampling noise gives, -1/2 over "
        "samples and +1/2 over edges. A bar that leaves the frame belongs to a fit that says little.",
        expected={"num_samples": -0.5, "num_edges": 0.5, "half_norm": 0.5},
    ),
    Shares(
        name="support",
        title="Support precision and recall",
        caption="Of the edges that were read out, the share that exists (precision); of those that exist, the share "
        "that was read out (recall).",
        looks=(Look("support_precision", "precision", "blue"), Look("support_recall", "recall", "orange")),
        label="share of edges",
    ),
    Plateau(
        name="capacity",
        title="Capacity",
        caption="What models of different size know about the world; the dashed plateau is the largest mean, {best} "
        "bits per parameter.",
        measures=("capacity_bits", "bits_per_parameter"),
        labels=("bits held", "bits per parameter"),
        over="parameters_per_edge",
        over_label="parameters per edge",
    ),
    Lines(
        name="log_likelihood",
        title="Expected log-likelihood",
        caption="Mean log-likelihood of edges newly drawn from the world: the higher the better.",
        looks=LIKELIHOODS,
        label="log-likelihood per edge, nats",
        log=False,
    ),
    Lines(
        name="heldout_error",
        title="Held-out error",
        caption="Error against the held-out part of the file, which the trained part itself does not meet (the whole "
        "trained part): the lower the better.",
        looks=HELD_OUT_ERRORS,
        label="l1 error, held-out",
        log=True,
    ),
    Lines(
        name="heldout_log_likelihood",
        title="Held-out log-likelihood",
        caption="Mean log-likelihood of the held-out part of the file: the higher the better.",
        looks=HELD_OUT_LIKELIHOODS,
        label="log-likelihood per edge, nats",
        log=False,
    ),
)


def _of_estimators(base: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The numbers of a user's own estimators, which ``estimators`` names by import path."""
    names = [str(path).rpartition(":")[2] for path in base.get("estimators") or ()]
    likelihoods = {f"{name}_log_likelihood": f"{name} log-likelihood, nats" for name in names}
    return {f"{name}_l1": f"{name} l1" for name in names}, likelihoods


MEASURES = Measures(
    headline="recovery_l1",
    lower_is_better=True,
    x="samples.num_samples",
    words=WORDS,
    main=(
        *(name for name in WORDS if name.endswith("_l1") and not name.startswith("heldout_")),
        "ratio_to_floor", "sparse_ratio_to_floor", "dense_ratio_to_floor", "ratio_to_count",
        "ratio_to_best_count", "sparse_ratio_to_best_count", "dense_ratio_to_best_count",
        "ratio_to_structured_floor", "published_ratio_to_floor",
        "support_precision", "support_recall",
    ),
    more=(
        *(name for name in WORDS if name.endswith("_likelihood") or name.startswith("heldout_")),
        *CAPACITY,
    ),
    optional={"capacity": CAPACITY},
    derived=DERIVED,
    published="published_l1",
    fitted=(
        Fitted("recovery_l1", "learned", "blue", plateau_over="num_samples"),
        Fitted("count_l1", "counting", "orange"),
        Fitted("count_floor_l1", "floor", "black"),
    ),
    density=Density("num_samples", "num_edges", "N", "edges"),
    short=(
        *map(Column, ("recovery_l1", "count_floor_l1", "ratio_to_floor")),
        *(Column(name, "largest") for name in ("ratio_to_floor", "sparse_ratio_to_floor", "dense_ratio_to_floor")),
        Column("ratio_to_best_count", "least", on_terminal=False),
        Column("ratio_to_best_count", "largest", on_terminal=False),
        Column("sparse_ratio_to_best_count", "largest", on_terminal=False),
        Column("dense_ratio_to_best_count", "largest", on_terminal=False),
        Column("bits_per_parameter", "largest"),
        Column("recovery_l1", "exponent"),
        Column("count_l1", "exponent"),
    ),
    short_at_one_x=tuple(
        map(
            Column,
            (
                "recovery_l1", "published_l1", "count_floor_l1", "ratio_to_floor", "published_ratio_to_floor",
                "ratio_to_count", "core_minutes",
            ),
        )
    ),
    told=(
        Told("ratio_to_floor", "Ratio to floor", with_mean=True),
        Told("bits_per_parameter", "Bits per parameter", with_place=False),
    ),
    panels=PANELS,
    beside=Beside(
        reference=FLOOR,
        label="learned l1 error",
        title="Learned errors of both",
        caption="Learned error of {first} and {other} at matching settings, beside the floor of counting.",
    ),
    methods=(
        Method(
            "Floor: the expected l1 error of counting N samples, exact. Counting: of the very samples the model saw."
        ),
        Method(
            "Best counting, cell by cell: the least of counting, Good-Turing and absolute discounting.",
            where="ratio_to_best_count",
        ),
        Method(
            "Learned: all node sets, with what the model gives each. Sparse: the list that is left without those that "
            "N samples would hold less than 0.1 times, scaled to 1.",
            where="sparse_l1",
        ),
        Method(
            "Learned: the list of the node sets that N samples would hold at least as often as readout.min_count says, "
            "scaled to 1; where the search for them met its limit it begins higher, at list_from. Dense: the law over "
            "all sets that it was cut from, which log-likelihoods are of.",
            where="dense_l1",
        ),
    ),
    same_data=SameData("world_digest", "world", "worlds"),
    own=_of_estimators,
)  # fmt: skip
