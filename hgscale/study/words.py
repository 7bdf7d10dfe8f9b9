"""What a report calls things, and how it writes numbers."""

import math
from collections.abc import Iterable
from typing import Any

from hgscale.study.fit import Interval

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
    "test_f1": "test F1",
    "test_accuracy": "test accuracy",
    "test_precision": "test precision",
    "test_recall": "test recall",
    "val_f1": "val F1",
    "test_ece": "test calibration error",
    "capacity_bits": "capacity, bits",
    "bits_per_parameter": "bits per parameter",
    "num_samples": "samples N",
    "num_edges": "edges",
    "num_nodes": "nodes",
    "num_parameters": "parameters",
    "half_norm": "half-norm",
    "line_graph_diameter": "line-graph diameter",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "model.name": "model",
    "readout.method": "read-out",
    "num_contexts": "training contexts",
    "core_minutes": "core-minutes",
}
"""What the numbers of a cell are called; a name that is not here is shown with spaces for underscores."""


def words(name: str, labels: dict[str, str]) -> str:
    """What a field is called: as the study says, else as the reports do; a dotted name by its last part."""
    leaf = name.rpartition(".")[2]
    known = labels.get(name) or labels.get(leaf) or WORDS.get(name) or WORDS.get(leaf)
    return known or leaf.removeprefix("num_").replace("_", " ")


def label(key: dict[str, Any], fields: Iterable[str], labels: dict[str, str]) -> str:
    """A setting in words: the variant's name, and ``field = value`` of each axis that has one."""
    parts = []
    for name in fields:
        value = key.get(name)
        if name == "variant" and value is not None:
            parts.append(labels.get(value, value))
        elif value is not None:
            parts.append(f"{words(name, labels)} = {plain(value)}")
    return ", ".join(parts)


def plain(value: Any) -> str:
    """A value of an axis as it is shown: 100,000 and 0.5 and true."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown(interval: Interval | None) -> str:
    """Mean and interval with three significant digits, ``1.02 [0.99, 1.04]``; ``-`` for None."""
    if interval is None:
        return "-"
    return digits(interval.mean, interval.low, interval.high)


def digits(value: float, low: float | None = None, high: float | None = None) -> str:
    """A number, and its interval where there is one, rounded to the same place: the third digit of the largest."""
    ends = [end for end in (low, high) if end is not None and not math.isnan(end)]
    if len(ends) == 2 and math.isclose(*ends, rel_tol=1e-9, abs_tol=1e-12):
        ends = []  # the same for every seed, as what is known exactly is
    largest = max(abs(end) for end in [value, *ends] if math.isfinite(end))
    place = 2 - math.floor(math.log10(largest)) if largest > 1e-12 else 0

    def text(x: float) -> str:
        if math.isinf(x):
            return "\u221e" if x > 0 else "-\u221e"
        return f"{round(x, place) + 0.0:,.{max(place, 0)}f}" if -5 <= place <= 6 else f"{x:.2e}"

    return f"{text(value)} [{text(ends[0])}, {text(ends[1])}]" if len(ends) == 2 else text(value)


def number(value: Any) -> float:
    """A value as a number; NaN for what is missing or no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
