"""The tables of a study, and its numbers as CSV and JSON."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hgscale.study.analysis import Analysis, Curve, Fit
from hgscale.study.fit import Interval, PowerLaw
from hgscale.study.measures import FITTED, MAIN_MEASURES, SCORES
from hgscale.study.page import Table
from hgscale.study.results import FAILED, FINISHED, MISSING, Row
from hgscale.study.words import digits, plain, shown

INTERVALS = "Mean and 95% interval (Student's t) over seeds."


def points_tables(analysis: Analysis) -> list[tuple[str, Table]]:
    """A row per point: the errors and ratios; and, where cells have more, a second table of that."""
    fields = analysis.varying()
    settings = [[analysis.value_of(point, name) for name in fields] for point in analysis.points]
    main = [name for name in analysis.measures if name in MAIN_MEASURES]
    more = [name for name in analysis.measures if name not in MAIN_MEASURES]
    endings = [
        " / ".join(str(point.num(status)) for status in (FINISHED, FAILED, MISSING)) for point in analysis.points
    ]
    found = []
    for title, names in (("Every point", main), ("Every point: what else is known", more)):
        if names or names is main:
            rows = [
                [*setting, ending, *(shown(point.mean(name)) for name in names)]
                for setting, ending, point in zip(settings, endings, analysis.points, strict=True)
            ]
            header = [
                *map(analysis.words, fields),
                "finished\u00a0/ failed\u00a0/ missing",
                *map(analysis.words, names),
            ]
            found.append((title, Table(header, rows, f"{INTERVALS} {analysis.range_note()}".strip(), len(fields))))
    return found


def exponent_table(analysis: Analysis) -> Table:
    """A row per curve: the exponent of each error, or why there is none."""
    curves = list(dict.fromkeys(fit.curve for fit in analysis.fits))
    rows = []
    for curve in curves:
        fits = {fit.measure: fit for fit in analysis.fits if fit.curve is curve}
        laws = [fit.law for fit in fits.values() if fit.law]
        refusals = list(dict.fromkeys(fit.refusal for fit in fits.values() if fit.refusal))
        learned = fits["recovery_l1"].law if "recovery_l1" in fits else None
        rows.append(
            [
                curve.label,
                analysis.words(curve.over),
                *(exponent_text(fits[name].law) if name in fits else "-" for name in FITTED),
                "-" if learned is None or not learned.offset else digits(learned.offset, *_ends(learned)),
                f"{plain(laws[0].x_low)} to {plain(laws[0].x_high)}" if laws else "-",
                f"{laws[0].num_points} x {laws[0].num_seeds}" if laws else "-",
                "-" if learned is None else f"{100 * learned.max_residual:.1f}%",
                "; ".join(refusals),
            ]
        )
    header = ["curve", "over", *FITTED.values(), "plateau", "fitted from", "points x seeds", "largest residual"]
    if any(row[-1] for row in rows):
        header.append("no fit because")
    else:
        rows = [row[:-1] for row in rows]
    note = (
        "Exponents of error = plateau + a x^b, with 95% intervals over seeds; the learned curve has a "
        f"plateau where the data call for one. {analysis.range_note()} Plateau and residual are the learned curve's."
    )
    return Table(header, rows, note, 2, frozenset({len(header) - 1} if header[-1] == "no fit because" else ()))


def short_table(analysis: Analysis) -> Table:
    """A row per curve: how far it reaches, and what it comes to."""
    x, curves = analysis.words(analysis.config.x), analysis.curves
    columns = {"curve": [curve.label for curve in curves], x: [_span(curve) for curve in curves]}

    def add(prefix: str, chosen: Callable[[Curve, str], Interval | None], *names: str) -> None:
        for name in names:
            cells = [shown(chosen(curve, name)) for curve in curves]
            if set(cells) != {"-"}:
                columns[prefix + analysis.words(name)] = cells

    if analysis.headline in SCORES:
        add("", _last, *SCORES, "core_minutes")
        note = f"{INTERVALS} At the largest {x}." if analysis.over_x else INTERVALS
        return Table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)], note)
    if not analysis.over_x:
        add("", _last, "recovery_l1", "published_l1", "count_floor_l1", "ratio_to_floor", "published_ratio_to_floor")
        add("", _last, "ratio_to_count", "core_minutes")
        return Table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)], INTERVALS)
    add("", _last, "recovery_l1", "count_floor_l1", "ratio_to_floor")
    add("largest ", _largest, "ratio_to_floor", "sparse_ratio_to_floor", "dense_ratio_to_floor")
    add("least ", _least, "ratio_to_best_count")
    add("largest ", _largest, "ratio_to_best_count", "sparse_ratio_to_best_count", "dense_ratio_to_best_count")
    if analysis.config.capacity:
        add("largest ", _largest, "bits_per_parameter")
    for name in ("recovery_l1", "count_l1"):
        laws = [analysis.exponent(curve, name) for curve in curves]
        if any(laws):
            columns[f"{FITTED[name]} exponent"] = [exponent_text(law) for law in laws]
    note = f"{INTERVALS} What is not called least or largest is at the largest {x}. {analysis.range_note()}"
    return Table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)], note.strip())


def ending_table(analysis: Analysis, rows: Iterable[Row]) -> Table:
    lines = [[analysis.name_of(row), str(row.seed), row.cell, row.error or "-"] for row in rows]
    return Table(["setting", "seed", "cell", "error"], lines, "", 4, frozenset({3}))


def csv_points(analysis: Analysis) -> list[dict[str, object]]:
    """A line per point, every number in full; what is missing is left out."""
    axes = list(dict.fromkeys(axis for point in analysis.points for axis in point.axes))
    in_range: dict[int, bool] = {}
    for curve in analysis.curves:
        in_range |= {id(point): bool(known) for point, known in zip(curve.points, curve.in_range, strict=True)}
    lines = []
    for point in analysis.points:
        line: dict[str, object] = {"variant": point.variant, **{axis: point.axes.get(axis) for axis in axes}}
        line |= {f"num_{status.lower()}": point.num(status) for status in (FINISHED, FAILED, MISSING)}
        line["in_range_of_fits"] = in_range.get(id(point)) if point.num(FINISHED) else None
        for name in analysis.measures:
            mean = point.mean(name)
            ends = (None, None, None) if mean is None else (mean.mean, mean.low, mean.high)
            line |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        lines.append(line)
    return lines


def fits_of(analysis: Analysis) -> dict[str, Any]:
    def one(fit: Fit) -> dict[str, Any]:
        law = None if fit.law is None else {name: _finite(value) for name, value in asdict(fit.law).items()}
        fixed = {name: value for name, value in fit.curve.key.items() if value is not None}
        told = {"over": fit.over, "curve": fit.curve.label, "fixed": fixed, "measure": fit.measure}
        return told | {"law": law, "refused": fit.refusal}

    return {
        "study": analysis.study.name,
        "x": analysis.config.x,
        "fit_from_samples_per_edge": analysis.config.fit_from,
        "fits": [one(fit) for fit in analysis.fits],
    }


def csv_text(lines: Sequence[Mapping[str, object]]) -> str:
    """CSV with a column for every name that a line has; what is missing stays blank."""
    buffer = io.StringIO()
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _in_csv(value) for name, value in line.items()})
    return buffer.getvalue()


def _in_csv(value: object) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.8g}" if isinstance(value, float) else value


def exponent_text(law: PowerLaw | None) -> str:
    return "-" if law is None else digits(law.exponent, law.exponent_low, law.exponent_high)


def _ends(law: PowerLaw) -> tuple[float | None, float | None]:
    return law.offset_low, law.offset_high


def _span(curve: Curve) -> str:
    low, high = plain(float(curve.x[0])), plain(float(curve.x[-1]))
    return low if low == high else f"{low} to {high}"


def _last(curve: Curve, name: str) -> Interval | None:
    """Mean at the largest x where there is one."""
    return next((mean for mean in reversed(curve.means(name)) if mean is not None), None)


def _least(curve: Curve, name: str) -> Interval | None:
    return min((mean for mean in curve.means(name) if mean is not None), key=lambda mean: mean.mean, default=None)


def _largest(curve: Curve, name: str) -> Interval | None:
    return max((mean for mean in curve.means(name) if mean is not None), key=lambda mean: mean.mean, default=None)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
