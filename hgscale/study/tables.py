"""The tables of a study, and its numbers as CSV and JSON."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hgscale.study.analysis import Analysis, Curve, Fit
from hgscale.study.fit import PowerLaw
from hgscale.study.page import Table
from hgscale.study.results import FAILED, FINISHED, MISSING, Row
from hgscale.study.words import digits, plain, shown
from hgscale.train.reports import Column

INTERVALS = "Mean and 95% interval (Student's t) over seeds."


def points_tables(analysis: Analysis) -> list[tuple[str, Table]]:
    """A row per point: the main measures; and, where cells have more, a second table of that."""
    fields = analysis.varying()
    settings = [[analysis.value_of(point, name) for name in fields] for point in analysis.points]
    main = [name for name in analysis.measures if name in analysis.task.main]
    more = [name for name in analysis.measures if name not in analysis.task.main]
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
    """A row per curve: the exponent of each fitted measure, or why there is none."""
    fitted = analysis.task.fitted
    curves = list(dict.fromkeys(fit.curve for fit in analysis.fits))
    rows = []
    for curve in curves:
        fits = {fit.measure: fit for fit in analysis.fits if fit.curve is curve}
        laws = [fit.law for fit in fits.values() if fit.law]
        refusals = list(dict.fromkeys(fit.refusal for fit in fits.values() if fit.refusal))
        learned = fits[fitted[0].measure].law if fitted[0].measure in fits else None
        rows.append(
            [
                curve.label,
                analysis.words(curve.over),
                *(exponent_text(fits[one.measure].law) if one.measure in fits else "-" for one in fitted),
                "-" if learned is None or not learned.offset else digits(learned.offset, *_ends(learned)),
                f"{plain(laws[0].x_low)} to {plain(laws[0].x_high)}" if laws else "-",
                f"{laws[0].num_points} x {laws[0].num_seeds}" if laws else "-",
                "-" if learned is None else f"{100 * learned.max_residual:.1f}%",
                "; ".join(refusals),
            ]
        )
    words = [one.word for one in fitted]
    header = ["curve", "over", *words, "plateau", "fitted from", "points x seeds", "largest residual"]
    if any(row[-1] for row in rows):
        header.append("no fit because")
    else:
        rows = [row[:-1] for row in rows]
    note = (
        f"Exponents of {analysis.task.quantity} = plateau + a x^b, with 95% intervals over seeds; the {fitted[0].word} "
        f"curve has a plateau where the data call for one. {analysis.range_note()} Plateau and residual are the "
        f"{fitted[0].word} curve's."
    )
    return Table(header, rows, note, 2, frozenset({len(header) - 1} if header[-1] == "no fit because" else ()))


def short_table(analysis: Analysis, *, on_terminal: bool = False) -> Table:
    """A row per curve: how far it reaches, and what it comes to; ``on_terminal`` leaves out its lesser columns."""
    x, curves, task = analysis.words(analysis.x), analysis.curves, analysis.task
    table = {"curve": [curve.label for curve in curves], x: [_span(curve) for curve in curves]}
    columns = task.short if analysis.over_x else task.short_at_one_x
    for column in columns:
        if not analysis.shows(column.measure) or (on_terminal and not column.on_terminal):
            continue
        cells = [_cell(analysis, curve, column) for curve in curves]
        if set(cells) != {"-"}:
            table[_head(analysis, column)] = cells
    note = INTERVALS
    if analysis.over_x:
        extremes = any(column.of in ("least", "largest") for column in columns)
        note += f" {'What is not called least or largest is at' if extremes else 'At'} the largest {x}."
        note += f" {analysis.range_note()}" if task.fitted else ""
    return Table(list(table), [list(row) for row in zip(*table.values(), strict=True)], note.strip())


def _head(analysis: Analysis, column: Column) -> str:
    if column.of == "exponent":
        return f"{next(fitted.word for fitted in analysis.task.fitted if fitted.measure == column.measure)} exponent"
    return ("" if column.of == "last" else f"{column.of} ") + analysis.words(column.measure)


def _cell(analysis: Analysis, curve: Curve, column: Column) -> str:
    if column.of == "exponent":
        return exponent_text(analysis.exponent(curve, column.measure))
    means = [mean for mean in curve.means(column.measure) if mean is not None]
    if not means or column.of == "last":
        return shown(means[-1] if means else None)  # at the largest x where there is one
    return shown((min if column.of == "least" else max)(means, key=lambda mean: mean.mean))


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
        "x": analysis.x,
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


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
