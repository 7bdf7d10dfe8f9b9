"""What a report calls things, and how it writes numbers."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hgscale.study.fit import Interval

WORDS = {
    "num_parameters": "parameters",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "model.name": "model",
    "core_minutes": "core-minutes",
}
"""What fields are called whatever the task is."""


@dataclass(frozen=True)
class Words:
    """What fields, numbers and settings are called: as the study says, else as its task does, else as every report."""

    labels: Mapping[str, str]
    of_task: Mapping[str, str]

    def name(self, field: str) -> str:
        """What a field or a number is called; a dotted name by its last part, an unknown one with its own letters."""
        leaf = field.rpartition(".")[2]
        known = {**WORDS, **self.of_task}
        found = self.labels.get(field) or self.labels.get(leaf) or known.get(field) or known.get(leaf)
        return found or leaf.removeprefix("num_").replace("_", " ")

    def variant(self, name: str) -> str:
        """What a variant is called."""
        return self.labels.get(name, name)

    def setting(self, key: Mapping[str, Any], fields: Iterable[str]) -> str:
        """A setting in words: the variant's name, and ``field = value`` of each axis that has one."""
        parts = []
        for field in fields:
            value = key.get(field)
            if field == "variant" and value is not None:
                parts.append(self.variant(value))
            elif value is not None:
                parts.append(f"{self.name(field)} = {plain(value)}")
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
