"""The numbers of a cell that reports show, and those made of others."""

import math
from collections.abc import Callable
from typing import Any

from hgscale.study.words import WORDS, number

CAPACITY_MEASURES = ("capacity_bits", "bits_per_parameter")
SCORES = ("test_f1", "test_accuracy", "test_precision", "test_recall", "val_f1", "test_ece")
"""What fine-tunings are told by; pre-trainings by errors of recovery."""
MAIN_MEASURES = (
    *SCORES,
    *(name for name in WORDS if name.endswith("_l1") and not name.startswith("heldout_")),
    "ratio_to_floor", "sparse_ratio_to_floor", "dense_ratio_to_floor", "ratio_to_count",
    "ratio_to_best_count", "sparse_ratio_to_best_count", "dense_ratio_to_best_count",
    "ratio_to_structured_floor", "published_ratio_to_floor",
    "support_precision", "support_recall",
)  # fmt: skip
MORE_MEASURES = (
    *(name for name in WORDS if name.endswith("_likelihood") or name.startswith("heldout_")),
    *CAPACITY_MEASURES,
)  # fmt: skip
"""What the tables hold of each point, where cells have it: in the first table, and in a second."""
FITTED = {"recovery_l1": "learned", "count_l1": "counting", "count_floor_l1": "floor"}
"""Measures whose exponents are fitted, and what they are called there."""


def _over(numerator: str, *denominators: str) -> Callable[[dict[str, Any]], float | None]:
    """A ratio of summary fields, to the least of several denominators; None where one is missing or nothing is left."""

    def ratio(summary: dict[str, Any]) -> float | None:
        above, below = number(summary.get(numerator)), [number(summary.get(name)) for name in denominators]
        # NaN is neither above 0 nor below: what is missing gives no ratio.
        return above / min(below) if math.isfinite(above) and all(part > 0 for part in below) else None

    return ratio


DERIVED = {
    "ratio_to_best_count": _over("recovery_l1", "count_l1", "good_turing_l1", "absolute_discounting_l1"),
    "sparse_ratio_to_best_count": _over("sparse_l1", "count_l1", "good_turing_l1", "absolute_discounting_l1"),
    "dense_ratio_to_best_count": _over("dense_l1", "count_l1", "good_turing_l1", "absolute_discounting_l1"),
    "ratio_to_structured_floor": _over("recovery_l1", "structured_floor_l1"),
    "published_ratio_to_floor": _over("published_l1", "count_floor_l1"),
    "samples_per_half_norm": _over("num_samples", "half_norm"),
    "parameters_per_edge": _over("num_parameters", "num_edges"),
    "core_minutes": lambda summary: None if (cpu_s := summary.get("cpu_s")) is None else cpu_s / 60,
    "best_log_likelihood": lambda summary: None if (h := summary.get("entropy_nats")) is None else -h,
}
"""Numbers of a cell that its summary does not hold, made of those it does."""
