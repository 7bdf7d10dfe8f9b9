"""From the cells of a study to points, curves and exponents, with intervals over seeds.

A point is a setting of everything but the seed. A curve is the points that differ in one quantity, x. A failed or
missing cell takes part in nothing but the counts.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from hgscale.errors import ConfigError
from hgscale.study.fit import Interval, PowerLaw, fit_power_law, mean_interval
from hgscale.study.measures import enriched, measures_of
from hgscale.study.results import FAILED, FINISHED, MISSING, Row, Study
from hgscale.study.words import Words, number, plain
from hgscale.train.reports import Measures


@dataclass(frozen=True, kw_only=True)
class AnalysisConfig:
    """What a study's report draws and fits; decides no number of a cell."""

    x: str | None = None
    """What the curves are drawn over: an axis, or a field of summary.json. Null: what the task says, as
    samples.num_samples."""

    also: list[str] = field(default_factory=list)
    """Further axes or summary fields over which exponents are fitted, at each fixed value of the rest."""

    fit_from: float = 10.0
    """A point enters fits if it has at least so many samples per edge, or what the task counts in their place.
    0: every point does."""

    join_variants: bool = True
    """Make one curve of variants each of which alone would be a point. False: each is a line of its own."""

    capacity: bool = False
    """Show how many bits of its world a model holds, in all and per parameter."""

    labels: dict[str, str] = field(default_factory=dict)
    """Words to show in place of a variant's or a field's name."""

    published: dict[str, float] = field(default_factory=dict)
    """Errors that others have published, by variant, to stand beside ours."""

    def __post_init__(self) -> None:
        if not self.fit_from >= 0:
            raise ConfigError(f"analysis.fit_from={self.fit_from}; a number of samples per edge, at least 0, is wanted")


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
    task: Measures
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
            for name in (*self.task.main, *self.task.more)
            if self.shows(name) and any(math.isfinite(number(summary.get(name))) for summary in finished)
        ]

    def shows(self, name: str) -> bool:
        """Whether a measure is told of unless it is missing."""
        return all(getattr(self.config, switch) for switch, names in self.task.optional.items() if name in names)

    @property
    def x(self) -> str:
        """What the curves are drawn over."""
        return self.config.x or self.task.x

    @cached_property
    def naming(self) -> Words:
        """What fields, numbers and settings are called."""
        return Words(self.config.labels, self.task.words)

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
        return self.naming.name(name)

    def label(self, key: dict[str, Any]) -> str:
        """A setting in words."""
        return self.naming.setting(key, key)

    def name_of(self, cell: Row | Point) -> str:
        """Variant and axes of a cell in words, without its seed."""
        return self.naming.setting({"variant": cell.variant} | cell.axes, self.varying()) or self.study.name

    def setting_words(self, name: str, value: Any) -> str:
        """One fixed quantity of a curve in words: the variant's name, or field and value."""
        return self.naming.setting({name: value}, [name]) or f"no {self.words(name)}"

    def value_of(self, point: Point, name: str) -> str:
        """The variant or an axis of a point as it stands in a table."""
        value = point.key(name)
        return self.naming.variant(value) if name == "variant" and value is not None else plain(value)

    def range_note(self) -> str:
        """Which points enter fits; nothing where there is no curve to fit."""
        if not self.fits:
            return ""
        if self.config.fit_from == 0 or (density := self.task.density) is None:
            return "Fits use every point."
        return f"Fits use points with {density.symbol} \u2265 {self.config.fit_from:g} \u00d7 {density.unit}."

    def exponent(self, curve: Curve, measure: str) -> PowerLaw | None:
        return next((fit.law for fit in self.fits if fit.curve is curve and fit.measure == measure), None)


def analyse(study: Study) -> Analysis:
    """Group the cells of a study into points and curves, and fit the exponents.

    Raises:
        ConfigError: if the study's ``analysis`` is no analysis, names an x that no cell has, or its cells do not
            compare.
    """
    config, task = _config_of(study), measures_of(study)
    if task.refuse is not None:
        task.refuse([row.summary for row in study.rows if row.status == FINISHED], study.name)
    if config.published and task.published is None:
        raise ConfigError(f"{study.directory / 'study.yaml'}: analysis.published: this task has none; leave it out")
    analysis = Analysis(study, task, config, _points(study, config, task), [], [])
    for place, name in [("x", analysis.x), *(("also", name) for name in config.also)]:
        known = [point for point in analysis.points if point.num(FINISHED)]
        if known and not any(_x_of(point, name) is not None for point in known):
            raise ConfigError(
                f"{study.directory / 'study.yaml'}: analysis.{place}={name} is a number in no finished cell; "
                "give an axis or a field of summary.json"
            )
    main = curves(analysis, analysis.x)
    fits = _fits(analysis, main, over_x=True)
    for name in config.also:
        fits += _fits(analysis, curves(analysis, name), over_x=False)
    return dataclasses.replace(analysis, curves=main, fits=fits)


def curves(analysis: Analysis, over: str) -> list[Curve]:
    """The curves over one quantity.

    What is fixed along a curve is the variant and every axis, but for those by which the quantity itself moves and
    those that follow from the quantity and the rest. Variants are joined only where no curve would be left without.

    Args:
        analysis: of the study, which is not asked for its own curves.
        over: an axis or a field of the summary.
    """
    placed = [(x, point) for point in analysis.points if (x := _x_of(point, over)) is not None]
    fixed = _fixed([point for _, point in placed], over, analysis.config.join_variants)
    groups: dict[str, list[tuple[float, Point]]] = {}
    for x, point in placed:
        groups.setdefault(_hash([point.key(field) for field in fixed]), []).append((x, point))
    found = []
    for members in groups.values():
        members.sort(key=lambda member: member[0])
        key = {field: members[0][1].key(field) for field in fixed}
        found.append(
            Curve(
                label=analysis.naming.setting(key, fixed) or analysis.study.name,
                key=key,
                over=over,
                x=np.array([x for x, _ in members]),
                points=[point for _, point in members],
                in_range=np.array([_in_range(analysis, point) for _, point in members]),
            )
        )
    return found


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


def _points(study: Study, config: AnalysisConfig, task: Measures) -> list[Point]:
    groups: dict[str, list[Row]] = {}
    for row in study.rows:
        groups.setdefault(place(row), []).append(enriched(row, task, config.published))
    return [Point(rows[0].variant, rows[0].axes, sorted(rows, key=lambda row: row.seed)) for rows in groups.values()]


def _x_of(point: Point, over: str) -> float | None:
    values = point.values(over)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def _in_range(analysis: Analysis, point: Point) -> bool:
    density = analysis.task.density
    if density is None or analysis.config.fit_from == 0:
        return True
    of, per = point.mean(density.of), point.mean(density.per)
    return of is not None and per is not None and of.mean >= analysis.config.fit_from * per.mean


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


def _fits(analysis: Analysis, found: Sequence[Curve], *, over_x: bool) -> list[Fit]:
    """Exponents of every curve with more than one point.

    What is learned may end in a plateau as samples grow, so over them its fit may choose an offset; counting has none,
    being unbiased, and neither have the growth laws over other quantities, whose few points could not tell one.
    """
    fits = []
    for curve in found:
        if len(curve.points) < 2:
            continue
        for fitted in analysis.task.fitted:
            values = curve.matrix(fitted.measure)
            if not np.isfinite(values).any():
                continue
            may_level_off = over_x and curve.over.rpartition(".")[2] == fitted.plateau_over
            offset: Literal["auto", "none"] = "auto" if may_level_off else "none"
            try:
                law = fit_power_law(curve.x[curve.in_range], values[:, curve.in_range], offset=offset)
                fits.append(Fit(curve.over, curve, fitted.measure, law, None))
            except ConfigError as error:
                refusal = str(error).removeprefix("power law: ").partition(";")[0]
                fits.append(Fit(curve.over, curve, fitted.measure, None, refusal))
    return fits


def counts(analysis: Analysis) -> str:
    """How the cells ended, in words."""
    failed, missing = analysis.num(FAILED), analysis.num(MISSING)
    parts = [f"{analysis.num(FINISHED):,} of {len(analysis.study.rows):,} cells finished"]
    return ", ".join(parts + [f"{failed:,} failed"] * (failed > 0) + [f"{missing:,} missing"] * (missing > 0))
