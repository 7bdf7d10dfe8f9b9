"""From the cells of a study to points, curves and exponents, with intervals over seeds.

A point is a setting of everything but the seed. A curve is the points that differ in one quantity, x. A failed or
missing cell takes part in nothing but the counts.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from hgscale.errors import ConfigError
from hgscale.study.fit import Interval, PowerLaw, fit_power_law, mean_interval
from hgscale.study.results import FAILED, FINISHED, MISSING, Row, Study


@dataclass(frozen=True, kw_only=True)
class AnalysisConfig:
    """What a study's report draws and fits; decides no number of a cell."""

    x: str = "samples.num_samples"
    """What the curves are drawn over: an axis, or a field of summary.json."""

    also: list[str] = field(default_factory=list)
    """Further axes or summary fields over which exponents are fitted, at each fixed value of the rest."""

    fit_from: float = 10.0
    """A point enters fits if num_samples is at least so many times num_edges. 0: every point does."""

    join_variants: bool = True
    """Make one curve of variants each of which alone would be a point. False: each is a line of its own."""

    capacity: bool = False
    """Show how many bits of its world a model holds, in all and per parameter."""

    labels: dict[str, str] = field(default_factory=dict)
    """Words to show in place of a variant's or a field's name."""

    published: dict[str, float] = field(default_factory=dict)
    """Errors (recovery_l1) that others have published, by variant, to stand beside ours."""

    def __post_init__(self) -> None:
        if not self.fit_from >= 0:
            raise ConfigError(f"analysis.fit_from={self.fit_from}; a number of samples per edge, at least 0, is wanted")


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


@dataclass(frozen=True, eq=False)
class Point:
    """The cells that differ in nothing but the seed."""

    variant: str | None
    axes: dict[str, Any]
    rows: list[Row]  # seeds ascending
    _means: dict[str, Interval | None] = field(default_factory=dict, repr=False)

    def num(self, status: str) -> int:
        return sum(row.status == status for row in self.rows)

    def values(self, name: str) -> np.ndarray:
        """A number of each seed [s], NaN where it is missing."""
        return np.array([number(row.value(name)) for row in self.rows])

    def mean(self, name: str) -> Interval | None:
        """Mean over the seeds that have the number, with its 95% interval; None if none has."""
        if name not in self._means:
            values = self.values(name)
            self._means[name] = mean_interval(values[np.isfinite(values)])
        return self._means[name]

    def key(self, name: str) -> Any:
        """The variant or an axis, None where it has none."""
        return self.variant if name == "variant" else self.axes.get(name)


@dataclass(frozen=True, eq=False)
class Curve:
    """Points that differ in one quantity, ascending in it."""

    label: str
    key: dict[str, Any]  # what is fixed along it, of all that varies in the study
    over: str  # the quantity's name
    x: np.ndarray  # [p]
    points: list[Point]
    in_range: np.ndarray  # [p] bool, whether N is large enough against the edges for a fit

    def means(self, name: str) -> list[Interval | None]:
        return [point.mean(name) for point in self.points]

    def has(self, name: str) -> bool:
        return any(mean is not None for mean in self.means(name))

    def matrix(self, name: str) -> np.ndarray:
        """A number by seed and point [s p], NaN where it is missing."""
        seeds = sorted({row.seed for point in self.points for row in point.rows})
        values = np.full((len(seeds), len(self.points)), np.nan)
        for column, point in enumerate(self.points):
            for row in point.rows:
                values[seeds.index(row.seed), column] = number(row.value(name))
        return values


@dataclass(frozen=True)
class Fit:
    """An exponent, or why there is none."""

    over: str
    curve: Curve
    measure: str
    law: PowerLaw | None
    refusal: str | None


@dataclass(frozen=True)
class Analysis:
    """A study, made ready to be told."""

    study: Study
    config: AnalysisConfig
    points: list[Point]
    curves: list[Curve]
    fits: list[Fit]

    @cached_property
    def measures(self) -> list[str]:
        """Names of what at least one finished cell has, in the order of the tables."""
        finished = [row.summary for point in self.points for row in point.rows if row.status == FINISHED]
        return [
            name
            for name in (*MAIN_MEASURES, *MORE_MEASURES)
            if (self.config.capacity or name not in CAPACITY_MEASURES)
            and any(math.isfinite(number(summary.get(name))) for summary in finished)
        ]

    @cached_property
    def headline(self) -> str:
        """The measure by which studies are compared."""
        return "test_f1" if "test_f1" in self.measures else "recovery_l1"

    @cached_property
    def over_x(self) -> bool:
        """Whether there is a curve of more than one point; else every setting is compared at its one x."""
        return any(len(curve.points) > 1 for curve in self.curves)

    def num(self, status: str) -> int:
        return sum(point.num(status) for point in self.points)

    def rows(self, status: str) -> list[Row]:
        return [row for row in self.study.rows if row.status == status]

    def varying(self) -> list[str]:
        """``variant`` and the axes that take more than one value in the study."""
        return _varying(self.points)

    def words(self, name: str) -> str:
        """What a field or variant is called."""
        return words(name, self.config.labels)

    def label(self, key: dict[str, Any]) -> str:
        """A setting in words."""
        return label(key, key, self.config.labels)

    def name_of(self, cell: Row | Point) -> str:
        """Variant and axes of a cell in words, without its seed."""
        return label({"variant": cell.variant} | cell.axes, self.varying(), self.config.labels) or self.study.name

    def setting_words(self, name: str, value: Any) -> str:
        """One fixed quantity of a curve in words: the variant's name, or field and value."""
        return label({name: value}, [name], self.config.labels) or f"no {self.words(name)}"

    def value_of(self, point: Point, name: str) -> str:
        """The variant or an axis of a point as it stands in a table."""
        value = point.key(name)
        return self.config.labels.get(value, value) if name == "variant" and value is not None else plain(value)

    def range_note(self) -> str:
        """Which points enter fits; nothing where there is no curve to fit."""
        if not self.fits:
            return ""
        if self.config.fit_from == 0:
            return "Fits use every point."
        return f"Fits use points with N \u2265 {self.config.fit_from:g} \u00d7 edges."

    def exponent(self, curve: Curve, measure: str) -> PowerLaw | None:
        return next((fit.law for fit in self.fits if fit.curve is curve and fit.measure == measure), None)


def analyse(study: Study) -> Analysis:
    """Group the cells of a study into points and curves, and fit the exponents.

    Raises:
        ConfigError: if the study's ``analysis`` is no analysis, or names an x that no cell has.
    """
    config = _config_of(study)
    check_leaks({str(row.summary.get("leaks", "")) for row in study.rows if row.status == FINISHED}, study.name)
    points = _points(study, config)
    for place, name in [("x", config.x), *(("also", name) for name in config.also)]:
        if any(point.num(FINISHED) for point in points) and not any(_x_of(point, name) is not None for point in points):
            raise ConfigError(
                f"{study.directory / 'study.yaml'}: analysis.{place}={name} is a number in no finished cell; "
                "give an axis or a field of summary.json"
            )
    main = curves(points, config.x, config, study.name)
    fits = [*_fits(main, over_x=True)]
    for name in config.also:
        fits += _fits(curves(points, name, config, study.name), over_x=False)
    return Analysis(study, config, points, main, fits)


def check_leaks(leaks: set[str], where: str) -> None:
    """Refuse to tell runs that saw the label given away together with such as did not.

    Raises:
        ConfigError: for more than one element, each as in ``summary.json``: "" for clean runs.
    """
    if len(leaks) > 1:
        leaky = next(filter(None, sorted(leaks)))
        raise ConfigError(
            f"{where}: some cells were given the label away (by {leaky}) and others were not, so their scores do not "
            "compare; make two studies of them"
        )


def curves(points: Sequence[Point], over: str, config: AnalysisConfig, name: str) -> list[Curve]:
    """The curves over one quantity.

    What is fixed along a curve is the variant and every axis, but for those by which the quantity itself moves and
    those that follow from the quantity and the rest. Variants are joined only where no curve would be left without.

    Args:
        points: of the study.
        over: an axis or a field of the summary.
        config: range of validity and names.
        name: of a curve that is the only one.
    """
    placed = [(x, point) for point in points if (x := _x_of(point, over)) is not None]
    fixed = _fixed([point for _, point in placed], over, config.join_variants)
    groups: dict[str, list[tuple[float, Point]]] = {}
    for x, point in placed:
        groups.setdefault(_hash([point.key(field) for field in fixed]), []).append((x, point))
    found = []
    for members in groups.values():
        members.sort(key=lambda member: member[0])
        key = {field: members[0][1].key(field) for field in fixed}
        found.append(
            Curve(
                label=label(key, fixed, config.labels) or name,
                key=key,
                over=over,
                x=np.array([x for x, _ in members]),
                points=[point for _, point in members],
                in_range=np.array([_in_range(point, config.fit_from) for _, point in members]),
            )
        )
    return found


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


def place(cell: Row | Point) -> str:
    """Where a cell stands in a grid, but for its seed."""
    return _hash([cell.variant, cell.axes])


def _config_of(study: Study) -> AnalysisConfig:
    where = f"{study.directory / 'study.yaml'}: analysis"
    fields = study.config.get("analysis") or {}
    known = [known.name for known in dataclasses.fields(AnalysisConfig)]
    if not isinstance(fields, dict) or (unknown := [name for name in fields if name not in known]):
        got = fields if not isinstance(fields, dict) else ", ".join(map(str, unknown))
        raise ConfigError(f"{where} has {got}; its fields are {', '.join(known)}")
    return AnalysisConfig(**fields)


def _points(study: Study, config: AnalysisConfig) -> list[Point]:
    groups: dict[str, list[Row]] = {}
    for row in study.rows:
        groups.setdefault(place(row), []).append(_enriched(row, config))
    return [Point(rows[0].variant, rows[0].axes, sorted(rows, key=lambda row: row.seed)) for rows in groups.values()]


def _enriched(row: Row, config: AnalysisConfig) -> Row:
    """A finished row with what follows from its summary."""
    if row.status != FINISHED:
        return row
    summary = dict(row.summary)
    if row.variant in config.published:
        summary["published_l1"] = config.published[row.variant]
    more = {name: value for name, ratio in DERIVED.items() if (value := ratio(summary)) is not None}
    return dataclasses.replace(row, summary=more | summary)


def number(value: Any) -> float:
    """A value as a number; NaN for what is missing or no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _x_of(point: Point, over: str) -> float | None:
    values = point.values(over)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def _in_range(point: Point, fit_from: float) -> bool:
    num_samples, num_edges = point.mean("num_samples"), point.mean("num_edges")
    if fit_from == 0:
        return True
    return num_samples is not None and num_edges is not None and num_samples.mean >= fit_from * num_edges.mean


def _hash(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _varying(points: Sequence[Point]) -> list[str]:
    names = ["variant", *dict.fromkeys(axis for point in points for axis in point.axes)]
    return [name for name in names if len({_hash(point.key(name)) for point in points}) > 1]


def _fixed(points: Sequence[Point], over: str, join_variants: bool) -> list[str]:
    """What is fixed along the curves over a quantity."""
    varying = _varying(points)
    moving = [name for name in varying if _moves(points, name, [other for other in varying if other != name], over)]
    fixed = [name for name in varying if name not in moving]
    for name in reversed(fixed):
        rest = [other for other in fixed if other != name]
        if name != "variant" and not _is_free(points, name, rest, over):
            fixed = rest
    if "variant" in moving:
        alone = ["variant", *fixed]
        if not join_variants or len({_hash([point.key(name) for name in alone]) for point in points}) < len(points):
            return alone
    return fixed


def _moves(points: Sequence[Point], name: str, rest: Sequence[str], over: str) -> bool:
    """Whether the quantity changes along a field, the rest and the seed being the same."""
    seen: dict[str, float] = {}
    for point in points:
        for row in point.rows:
            x = number(row.value(over))
            if math.isfinite(x):
                first = seen.setdefault(_hash([row.seed, *(point.key(other) for other in rest)]), x)
                if not math.isclose(first, x, rel_tol=1e-9):
                    return True
    return False


def _is_free(points: Sequence[Point], name: str, rest: Sequence[str], over: str) -> bool:
    """Whether a field takes several values where the quantity, the rest and the seed are the same."""
    seen: dict[str, str] = {}
    for point in points:
        for row in point.rows:
            x = number(row.value(over))
            place = _hash([row.seed, x, *(point.key(other) for other in rest)])
            if math.isfinite(x) and seen.setdefault(place, _hash(point.key(name))) != _hash(point.key(name)):
                return True
    return False


def _fits(found: Sequence[Curve], *, over_x: bool) -> list[Fit]:
    """Exponents of every curve with more than one point.

    What is learned may end in a plateau as samples grow, so over them its fit may choose an offset; counting has none,
    being unbiased, and neither have the growth laws over other quantities, whose few points could not tell one.
    """
    fits = []
    for curve in found:
        if len(curve.points) < 2:
            continue
        for measure in FITTED:
            values = curve.matrix(measure)
            if not np.isfinite(values).any():
                continue
            may_level_off = over_x and curve.over.rpartition(".")[2] == "num_samples" and measure == "recovery_l1"
            offset: Literal["auto", "none"] = "auto" if may_level_off else "none"
            try:
                law = fit_power_law(curve.x[curve.in_range], values[:, curve.in_range], offset=offset)
                fits.append(Fit(curve.over, curve, measure, law, None))
            except ConfigError as error:
                refusal = str(error).removeprefix("power law: ").partition(";")[0]
                fits.append(Fit(curve.over, curve, measure, None, refusal))
    return fits


def counts(analysis: Analysis) -> str:
    """How the cells ended, in words."""
    failed, missing = analysis.num(FAILED), analysis.num(MISSING)
    parts = [f"{analysis.num(FINISHED):,} of {len(analysis.study.rows):,} cells finished"]
    return ", ".join(parts + [f"{failed:,} failed"] * (failed > 0) + [f"{missing:,} missing"] * (missing > 0))
