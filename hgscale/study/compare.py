"""Two studies side by side: differences and ratios of matching cells, paired by seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hgscale.errors import ConfigError
from hgscale.study import charts
from hgscale.study.analysis import Analysis, Curve, Point, place
from hgscale.study.fit import Interval, geometric_ratio, mean_interval, paired_difference
from hgscale.study.page import Table
from hgscale.study.results import FINISHED, Row
from hgscale.study.words import number, shown

FIRST_COLOR, OTHER_COLOR = charts.BLUE, "#d55e00"
MAX_NAMED = 20
"""Cells named of those that only one study has; more are counted."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A point that both studies have, and the seeds at which both finished it."""

    first: Point
    other: Point
    rows: list[tuple[Row, Row]]

    def difference(self, name: str) -> Interval | None:
        """Mean over seeds of other minus first."""
        first, other = self.values(name)
        return paired_difference(other, first)

    def ratio(self, name: str) -> Interval | None:
        """Geometric mean over seeds of other / first, of the seeds where both are above 0."""
        first, other = self.values(name)
        positive = (first > 0) & (other > 0)
        return geometric_ratio(other[positive], first[positive])

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A number of both studies by seed, [s] and [s], of the seeds at which both have it."""
        both = np.array([(number(first.value(name)), number(other.value(name))) for first, other in self.rows])
        known = both[np.isfinite(both).all(axis=1)]
        return known[:, 0], known[:, 1]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a second study says beside a first."""

    first: Analysis
    other: Analysis
    pairs: list[Pair]
    only_first: list[Row]
    only_other: list[Row]
    num_unfinished: int  # cells in both that did not finish in both

    @property
    def names(self) -> tuple[str, str]:
        """What the two are called, told apart even where the studies have one name."""
        first, other = self.first.study, self.other.study
        if first.name == other.name:
            return f"{first.name} ({first.directory})", f"{other.name} ({other.directory})"
        return first.name, other.name

    @property
    def headline(self) -> str:
        """The measure that the comparison is about."""
        return self.first.task.headline

    def overall(self, name: str) -> Interval | None:
        """Geometric mean over points of other / first; the interval is over the seeds that every point has."""
        by_seed: dict[int, list[float]] = {}
        num_points = 0
        for pair in self.pairs:
            logs = {
                first.seed: math.log(theirs / ours)
                for first, other in pair.rows
                if (ours := number(first.value(name))) > 0 and (theirs := number(other.value(name))) > 0
            }
            num_points += bool(logs)
            for seed, log in logs.items():
                by_seed.setdefault(seed, []).append(log)
        mean = mean_interval([float(np.mean(logs)) for logs in by_seed.values() if len(logs) == num_points])
        if mean is None:
            return None
        return Interval(math.exp(mean.mean), math.exp(mean.low), math.exp(mean.high), mean.num)


def compare(first: Analysis, other: Analysis) -> Comparison:
    """Match the cells of two studies by variant, axes and seed.

    Raises:
        ConfigError: if no cell matches, a matching pair was trained on different data, or the tasks differ.
    """
    if first.task != other.task:
        raise ConfigError(
            f"studies {first.study.name} and {other.study.name} are told by {first.task.headline} and by "
            f"{other.task.headline}; compare studies of one task"
        )
    theirs = {place(point): point for point in other.points}
    pairs, num_unfinished = [], 0
    matched: set[tuple[int, str]] = set()
    for point in first.points:
        if (twin := theirs.get(place(point))) is None:
            continue
        by_seed = {row.seed: row for row in twin.rows}
        both = [(row, by_seed[row.seed]) for row in point.rows if row.seed in by_seed]
        for rows in both:
            matched.update((side, row.cell) for side, row in enumerate(rows))
            _check_world(first, other, *rows)
        finished = [rows for rows in both if all(row.status == FINISHED for row in rows)]
        num_unfinished += len(both) - len(finished)
        if finished:
            pairs.append(Pair(point, twin, finished))
    only_first, only_other = (
        [row for row in analysis.study.rows if (side, row.cell) not in matched]
        for side, analysis in enumerate((first, other))
    )
    if not pairs:
        raise ConfigError(
            f"studies {first.study.name} and {other.study.name}: of {len(first.study.rows)} and "
            f"{len(other.study.rows)} cells, none that finished in both has the same variant, axes and seed; "
            "compare studies of one grid that differ in their base"
        )
    return Comparison(first, other, pairs, only_first, only_other, num_unfinished)


def tables(comparison: Comparison) -> list[Table]:
    """The learned error of both, with difference and ratio, and the difference of everything else that both have."""
    first, other = comparison.names
    fields = comparison.first.varying()
    names = [name for name in comparison.first.measures if name in comparison.other.measures]
    main_one, words = comparison.headline, comparison.first.words
    rest = [name for name in names if name != main_one]
    told = words(main_one)
    settings = [[comparison.first.value_of(pair.first, field) for field in fields] for pair in comparison.pairs]
    main = Table(
        [*map(words, fields), "seeds", f"{first}: {told}", f"{other}: {told}", "difference", "ratio"],
        [
            [
                *setting,
                str(len(pair.rows)),
                *(shown(mean_interval(side)) for side in pair.values(main_one)),
                shown(pair.difference(main_one)),
                shown(pair.ratio(main_one)),
            ]
            for setting, pair in zip(settings, comparison.pairs, strict=True)
        ],
        f"Difference: {other} minus {first}; ratio: {other} over {first}, a geometric mean. Cells are paired by seed; "
        "intervals are Student's t over the pairs, 95%.",
        len(fields),
    )
    if not rest:
        return [main]
    more = Table(
        [*map(words, fields), *map(words, rest)],
        [
            [*setting, *(shown(pair.difference(name)) for name in rest)]
            for setting, pair in zip(settings, comparison.pairs, strict=True)
        ],
        f"Differences of the other numbers: {other} minus {first}, paired as above.",
        len(fields),
    )
    return [main, more]


def csv_rows(comparison: Comparison) -> list[dict[str, object]]:
    """A line per point and number: both means, difference and ratio with their intervals; missing is None."""
    names = [name for name in comparison.first.measures if name in comparison.other.measures]
    lines: list[dict[str, object]] = []
    for pair in comparison.pairs:
        for name in names:
            sides = pair.values(name)
            if not sides[0].size:
                continue
            line: dict[str, object] = {"variant": pair.first.variant, **pair.first.axes, "number": name}
            line |= {"num_pairs": sides[0].size, "first": float(sides[0].mean()), "other": float(sides[1].mean())}
            for column, mean in (("difference", pair.difference(name)), ("ratio", pair.ratio(name))):
                ends = (None, None, None) if mean is None else (mean.mean, mean.low, mean.high)
                line |= dict(zip((column, f"{column}_low", f"{column}_high"), ends, strict=True))
            lines.append(line)
    return lines


def sentences(comparison: Comparison) -> list[str]:
    """What the comparison comes to, in words."""
    first, other = comparison.names
    num_cells = sum(len(pair.rows) for pair in comparison.pairs)
    said = [f"Finished in both {first} and {other}, on the same data: {_cells(num_cells)}."]
    if (overall := comparison.overall(comparison.headline)) is not None:
        said.append(
            f"Over all matching points the {comparison.first.words(comparison.headline)} of {other} is "
            f"{shown(overall)} times that of {first} "
            "(geometric mean; 95% interval over seeds)."
        )
    if comparison.num_unfinished:
        said.append(f"In both but not finished in both, and so left out: {_cells(comparison.num_unfinished)}.")
    for name, rows, side in (
        (first, comparison.only_first, comparison.first),
        (other, comparison.only_other, comparison.other),
    ):
        if rows:
            named = "; ".join(f"{side.name_of(row)}, seed {row.seed}" for row in rows[:MAX_NAMED])
            more = f"; and {len(rows) - MAX_NAMED:,} more" if len(rows) > MAX_NAMED else ""
            said.append(f"Only in {name}: {_cells(len(rows))} ({named}{more}).")
    return said


def _cells(num: int) -> str:
    return "1 cell" if num == 1 else f"{num:,} cells"


def pictures(comparison: Comparison) -> list[charts.Picture]:
    """Both studies' learned curves over one another, and their ratio."""
    pairs = {id(pair.first): pair for pair in comparison.pairs}
    curves, twins = [], []
    for curve in comparison.first.curves:
        chosen = [i for i, point in enumerate(curve.points) if id(point) in pairs]
        if chosen:
            points = [pairs[id(curve.points[i])].other for i in chosen]
            curves.append(curve)
            twins.append(Curve(curve.label, curve.key, curve.over, curve.x[chosen], points, curve.in_range[chosen]))
    found = [_both(comparison, curves, twins), _ratios(comparison, curves, pairs)]
    return [picture for picture in found if picture is not None]


def _both(comparison: Comparison, curves: Sequence[Curve], twins: Sequence[Curve]) -> charts.Picture | None:
    beside = comparison.first.task.beside
    if beside is None or not comparison.first.over_x or len(curves) > charts.MAX_PANELS:
        return None
    names = comparison.names
    reference, headline = beside.reference, comparison.headline
    panels = [
        (
            curve.label,
            [
                charts.look_of(curve, reference),
                charts.line_of(curve, headline, names[0], FIRST_COLOR, "-"),
                charts.line_of(twin, headline, names[1], OTHER_COLOR, "-"),
            ],
        )
        for curve, twin in zip(curves, twins, strict=True)
    ]
    entries = [
        (names[0], FIRST_COLOR, "-", ""),
        (names[1], OTHER_COLOR, "-", ""),
        (reference.word, charts.COLORS[reference.color], reference.style, ""),
    ]
    figure = charts.panels_of(comparison.first, panels, entries, beside.label, log_y=True)
    caption = beside.caption.replace("{first}", names[0]).replace("{other}", names[1])
    return charts.Picture(f"compare-{_slug(comparison)}-error", beside.title, caption, figure)


def _ratios(comparison: Comparison, curves: Sequence[Curve], pairs: dict[int, Pair]) -> charts.Picture:
    first, other = comparison.names
    ratios = [
        [pairs[id(p)].ratio(comparison.headline) if id(p) in pairs else None for p in curve.points] for curve in curves
    ]
    told = comparison.first.words(comparison.headline)
    word = f"{told} of {other} over {first}"
    figure = charts.ratios_of(comparison.first, curves, ratios, word)
    better = "below" if comparison.first.task.lower_is_better else "above"
    caption = f"The {told} of {other} over that of {first}, paired by seed: {better} 1 {other} is better."
    name, title = f"compare-{_slug(comparison)}-ratio", f"Ratio of the {told}"
    return charts.Picture(name, title, caption, figure, len(curves) <= charts.MAX_NAMED)


def _slug(comparison: Comparison) -> str:
    return comparison.other.study.directory.name


def _check_world(first: Analysis, other: Analysis, ours: Row, theirs: Row) -> None:
    if not ours.status == theirs.status == FINISHED:
        return
    names = f"studies {first.study.name} and {other.study.name}"
    if first.task.refuse is not None:
        first.task.refuse([ours.summary, theirs.summary], names)
    data = first.task.same_data
    digests = [row.summary.get(data.digest) for row in (ours, theirs)]
    if digests[0] != digests[1]:
        raise ConfigError(
            f"{names} differ in the {data.word} of cell {first.name_of(ours)}, "
            f"seed {ours.seed}: {digests[0]} ({ours.cell}) and {digests[1]} ({theirs.cell}); "
            f"compare studies on the same {data.plural}"
        )
