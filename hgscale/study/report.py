"""The verb ``report``: what a study says, as tables, figures and one page; and two studies side by side."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from hgscale.config import runs_home
from hgscale.errors import ConfigError, RunError
from hgscale.study import compare, figures
from hgscale.study.analysis import (
    FITTED,
    MAIN_MEASURES,
    SCORES,
    Analysis,
    Curve,
    Fit,
    Point,
    analyse,
    counts,
    digits,
    plain,
    shown,
)
from hgscale.study.fit import Interval, PowerLaw
from hgscale.study.page import Section, Table, bullets, figure, page, paragraph, preformatted
from hgscale.study.results import FAILED, FINISHED, MISSING, Row, commit, read

INTERVALS = "Mean and 95% interval (Student's t) over seeds."
MAX_LISTED = 200
"""Failed or missing cells named in a list; more are counted."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Tables, figures and one HTML page of a study, or of one beside others."""

    study: list[str] = field(default_factory=list)
    """Names of studies, or their directories. The first is reported, and compared with each of the others."""

    out: str | None = None
    """Where tables and figures go. Null: report/ in the first study's directory."""

    into: str | None = None
    """A Markdown file. What stands in it between <!-- hgscale report NAME --> and <!-- end --> is replaced by the first
    study's short table, with commit and date."""


@dataclass(frozen=True)
class ReportResult:
    """Where a report is, its numbers by name, and what to say of it on a terminal."""

    table_md: Path
    table_csv: Path
    fits_json: Path
    figures: list[Path]
    page: Path
    metrics: dict[str, float]
    text: str


@dataclass(frozen=True)
class _Written:
    """By which code, and when."""

    commit: str | None
    date: str


def report(config: ReportConfig) -> ReportResult:
    """The verb: read the cells of a study, and write ``table.md``, ``table.csv``, ``fits.json``, PNGs, ``report.html``.

    Beside another study also ``compare-<name>.csv``, and a section on the page.

    Raises:
        ConfigError: if a study is not there, its analysis cannot be done, ``into`` has no place for the table, or two
            studies have no cells in common or differ in a world.
        DataError: if a file of a study is broken.
        RunError: if a file cannot be written.
    """
    if not config.study:
        raise ConfigError("study is not given; name one, as --study NAME")
    directories = [_directory(name) for name in config.study]
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise ConfigError(f"study={','.join(config.study)} names one study twice; compare different ones")
    first, *others = (analyse(read(directory)) for directory in directories)
    # Before anything is written: a request that cannot be met leaves everything as it was.
    comparisons = [compare.compare(first, other) for other in others]
    text = None if config.into is None else _with_place(Path(config.into), first.study.name)
    written = _Written(commit(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    result = _write_all(first, comparisons, Path(config.out) if config.out else directories[0] / "report", written)
    if config.into is not None and text is not None:
        _write(Path(config.into), _filled(text, first, written))
    return result


def write_report(directory: Path) -> ReportResult:
    """The report of one study in its own directory, as ``report`` writes it."""
    return report(ReportConfig(study=[str(directory)]))


def _write_all(
    first: Analysis, comparisons: Sequence[compare.Comparison], folder: Path, written: _Written
) -> ReportResult:
    drawn = figures.draw(first, folder)
    beside = [[figures.write(one, folder) for one in compare.pictures(both)] for both in comparisons]
    for both in comparisons:
        _write(folder / f"compare-{both.other.study.directory.name}.csv", _csv(compare.csv_rows(both)))
    _write(folder / "table.csv", _csv(_csv_points(first)))
    _write(folder / "fits.json", json.dumps(_fits_of(first), indent=2, allow_nan=False) + "\n")
    _write(folder / "table.md", _markdown(first, comparisons, written))
    _write(folder / "report.html", _page(first, comparisons, drawn, beside, written))
    pngs = [one.png for group in (drawn, *beside) for one in group]
    said = [line for both in comparisons for line in compare.sentences(both)]
    text = "\n".join([_terminal(first), *said, f"page          {folder / 'report.html'}", f"tables        {folder}"])
    return ReportResult(
        folder / "table.md", folder / "table.csv", folder / "fits.json", pngs, folder / "report.html",
        _metrics(first), text,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- tables


def _points_tables(analysis: Analysis) -> list[tuple[str, Table]]:
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


def _exponent_table(analysis: Analysis) -> Table:
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
                *(_exponent(fits[name].law) if name in fits else "-" for name in FITTED),
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


def _short_table(analysis: Analysis) -> Table:
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
            columns[f"{FITTED[name]} exponent"] = [_exponent(law) for law in laws]
    note = f"{INTERVALS} What is not called least or largest is at the largest {x}. {analysis.range_note()}"
    return Table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)], note.strip())


def _ending_table(analysis: Analysis, rows: Iterable[Row]) -> Table:
    lines = [[analysis.name_of(row), str(row.seed), row.cell, row.error or "-"] for row in rows]
    return Table(["setting", "seed", "cell", "error"], lines, "", 4, frozenset({3}))


def _csv_points(analysis: Analysis) -> list[dict[str, object]]:
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


def _fits_of(analysis: Analysis) -> dict[str, Any]:
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


# ------------------------------------------------------------------------------------------------------------ texts


def _markdown(first: Analysis, comparisons: Sequence[compare.Comparison], written: _Written) -> str:
    parts = [f"# Study {_plain_markdown(first.study.name)}", *map(_plain_markdown, _facts(first, written))]
    parts.append("\n".join(f"- {_plain_markdown(line)}" for line in _findings(first)))
    for both in comparisons:
        parts.append(f"## {_plain_markdown(' beside '.join(both.names))}")
        parts.append("\n".join(f"- {_plain_markdown(line)}" for line in compare.sentences(both)))
        parts += [table.markdown() for table in compare.tables(both)]
    parts += ["## Curves", _short_table(first).markdown()]
    if first.fits:
        parts += ["## Exponents", _exponent_table(first).markdown()]
    for title, table in _points_tables(first):
        parts += [f"## {title}", table.markdown()]
    for status in (FAILED, MISSING):
        if rows := first.rows(status):
            parts.append(f"## {status.capitalize()} cells: {len(rows):,}")
            parts.append(_ending_table(first, rows[:MAX_LISTED]).markdown())
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _page(
    first: Analysis,
    comparisons: Sequence[compare.Comparison],
    drawn: Sequence[figures.Drawn],
    beside: Sequence[Sequence[figures.Drawn]],
    written: _Written,
) -> str:
    sections = []
    for i, (both, shots) in enumerate(zip(comparisons, beside, strict=True)):
        body = bullets(compare.sentences(both)) + "".join(_figure(first, shot) for shot in shots)
        body += "".join(table.html() for table in compare.tables(both))
        sections.append(Section(f"compare-{i + 1}", " beside ".join(both.names), body))
    sections.append(Section("curves", "Curves", _short_table(first).html()))
    sections += [Section(f"figure-{shot.name}", shot.title, _figure(first, shot)) for shot in drawn]
    if first.fits:
        sections.append(Section("exponents", "Table of exponents", _exponent_table(first).html()))
    for i, (title, table) in enumerate(_points_tables(first)):
        sections.append(Section(f"points-{i + 1}", title, table.html()))
    for status in (FAILED, MISSING):
        if rows := first.rows(status):
            body = _ending_table(first, rows[:MAX_LISTED]).html()
            if len(rows) > MAX_LISTED:
                body += paragraph(f"and {len(rows) - MAX_LISTED:,} more", "note")
            sections.append(Section(status.lower(), f"{status.capitalize()} cells: {len(rows):,}", body))
    sections.append(Section("how", "How the numbers are made", bullets(_methods(first))))
    # Where the study is remembered is no part of it, and an address may hold a password.
    fields = {name: value for name, value in first.study.config.items() if name != "tracking"}
    settings = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    sections.append(Section("yaml", "The study's settings", preformatted(settings)))
    return page(f"Study {first.study.name}", _facts(first, written), bullets(_findings(first)), sections)


def _figure(analysis: Analysis, shot: figures.Drawn) -> str:
    bars = "Bars: 95% intervals over seeds." if shot.has_intervals else "95% intervals over seeds: in the tables."
    return figure(shot.svg, shot.title, f"{shot.caption} {bars} {analysis.range_note()}".strip())


def _facts(analysis: Analysis, written: _Written) -> list[str]:
    """Lines for the top: how many cells, of which code and when."""
    finished = [row for row in analysis.study.rows if row.status == FINISHED]
    commits: dict[str, int] = {}
    for row in finished:
        name = row.commit or "an unknown commit"
        commits[name] = commits.get(name, 0) + 1
    ran = ", ".join(name if len(commits) == 1 else f"{name} ({num:,})" for name, num in commits.items())
    dates = sorted(row.finished[:10] for row in finished if row.finished)
    when = f", finished {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else "") if dates else ""
    num_seeds = len({row.seed for row in analysis.study.rows})
    lines = [f"{counts(analysis)}.", f"Seeds: {num_seeds}."]
    if finished:
        lines.append(f"Cells ran at {ran}{when}.")
    return [*lines, f"Report written by hgscale report at {written.commit or 'an unknown commit'}, {written.date}."]


def _differences(analysis: Analysis) -> list[str]:
    """Test F1 of fine-tunings on the same data, each minus the first of them, paired by seed."""
    if analysis.headline not in SCORES:
        return []
    said = []
    for at, point in enumerate(analysis.points):
        for first in analysis.points[:at]:
            rows = _on_the_same_data(first, point)
            difference = compare.Pair(first, point, rows).difference("test_f1") if rows else None
            if difference is not None:
                names = f"{analysis.name_of(point)} minus {analysis.name_of(first)}"
                said.append(f"Test F1, {names}, paired by seed: {shown(difference)}.")
                break
    return said


def _on_the_same_data(first: Point, other: Point) -> list[tuple[Row, Row]]:
    """The cells of each seed at which both finished, if their data are the same."""
    ours = {row.seed: row for row in first.rows if row.summary.get("data_digest")}
    both = [(ours[row.seed], row) for row in other.rows if row.seed in ours and row.summary.get("data_digest")]
    return both if all(one.summary["data_digest"] == two.summary["data_digest"] for one, two in both) else []


def _findings(analysis: Analysis) -> list[str]:
    """What the study comes to, number by number."""
    said = []
    ratios = [(mean, point) for point in analysis.points if (mean := point.mean("ratio_to_floor"))]
    if ratios:
        worst, at = max(ratios, key=lambda ratio: ratio[0].mean)
        middle = sum(mean.mean for mean, _ in ratios) / len(ratios)
        said.append(
            f"Ratio to floor: {digits(middle)} in the mean of {len(ratios):,} points, at most {shown(worst)} "
            f"({analysis.name_of(at)})."
        )
    fitted = [curve for curve in analysis.curves if analysis.exponent(curve, "recovery_l1")]
    for curve in fitted[:8]:
        parts = [f"{word} {_exponent(law)}" for name, word in FITTED.items() if (law := analysis.exponent(curve, name))]
        said.append(f"Exponent over {analysis.words(curve.over)}, {curve.label}: {', '.join(parts)}.")
    if len(fitted) > 8:
        said.append(f"Exponents of {len(fitted) - 8:,} more curves are in the table of exponents.")
    capacity = [mean for point in analysis.points if (mean := point.mean("bits_per_parameter"))]
    if capacity and analysis.config.capacity:
        said.append(f"Bits per parameter: at most {shown(max(capacity, key=lambda mean: mean.mean))}.")
    scores = [(mean, point) for point in analysis.points if (mean := point.mean("test_f1"))]
    if scores:
        best, at = max(scores, key=lambda score: score[0].mean)
        said.append(f"Test F1: at most {shown(best)} ({analysis.name_of(at)}).")
        said += _differences(analysis)
    if not ratios and not scores:
        said.append("No cell has finished yet: there is nothing to draw.")
    return said + [note for note in [analysis.range_note()] if note]


def _methods(analysis: Analysis) -> list[str]:
    lines = [
        f"{INTERVALS} Seeds are nested: with one seed, the points of a curve share their data.",
        "Floor: the expected l1 error of counting N samples, exact. Counting: of the very samples the model saw.",
        "Failed and missing cells are in no mean and no fit. A missing value is missing, never 0.",
    ]
    if "ratio_to_best_count" in analysis.measures:
        lines.append("Best counting, cell by cell: the least of counting, Good-Turing and absolute discounting.")
    if "sparse_l1" in analysis.measures:
        lines.append(
            "Learned: all node sets, with what the model gives each. Sparse: the list that is left without those that "
            "N samples would hold less than 0.1 times, scaled to 1."
        )
    if "dense_l1" in analysis.measures:
        lines.append(
            "Learned: the list of the node sets that N samples would hold at least as often as readout.min_count says, "
            "scaled to 1; where the search for them met its limit it begins higher, at list_from. Dense: the law over "
            "all sets that it was cut from, which log-likelihoods are of."
        )
    if analysis.fits:
        lines.append(
            "Exponents: least squares of relative residuals on error = plateau + a x^b. Their 95% intervals are over "
            "seeds (leaving out one at a time, Student's t), not over points. Counting and floor, and exponents over "
            f"anything but {analysis.words(analysis.config.x)}, are fitted without plateau. {analysis.range_note()}"
        )
    return lines


def _terminal(analysis: Analysis) -> str:
    """The main columns of the short table, between a line on the cells and one on the ratio to the floor."""
    table = _short_table(analysis)
    extra = ("least", "largest ratio to best", "largest ratio to structured")
    chosen = [i for i, head in enumerate(table.header) if not head.startswith(extra)]
    lines = [[line[i] for i in chosen] for line in [table.header, *table.rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(chosen))]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    said = [line for line in _findings(analysis) if not line.startswith("Exponent")]
    return "\n".join([f"study {analysis.study.name}: {counts(analysis)}", *(text if analysis.curves else []), *said])


def _metrics(analysis: Analysis) -> dict[str, float]:
    """The study's numbers for a tracking server: exponents with their ends, ratios to the floor, counts of cells."""
    found: dict[str, float] = {
        "num_finished": analysis.num(FINISHED),
        "num_failed": analysis.num(FAILED),
        "num_missing": analysis.num(MISSING),
    }
    ratios = [mean.mean for point in analysis.points if (mean := point.mean("ratio_to_floor"))]
    if ratios:
        found |= {"ratio_to_floor_max": max(ratios), "ratio_to_floor_mean": sum(ratios) / len(ratios)}
    for fit in analysis.fits:
        if fit.law is not None:
            name = f"{_slug(fit.over.rpartition('.')[2])}/{FITTED[fit.measure]}/{_slug(fit.curve.label)}"
            ends = (fit.law.exponent, fit.law.exponent_low, fit.law.exponent_high)
            for kind, value in zip(("exponent", "exponent_low", "exponent_high"), ends, strict=True):
                if math.isfinite(value):
                    found[f"{kind}/{name}"] = value
    return found


# ------------------------------------------------------------------------------------------------------------- into


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- hgscale report {name} -->", "<!-- end -->"


def _with_place(path: Path, name: str) -> str:
    """The text of a Markdown file that has a place for a study's table."""
    start, end = _markers(name)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"into={path}: cannot be read ({error}); give a Markdown file") from None
    if text.count(start) != 1 or end not in text.partition(start)[2]:
        raise ConfigError(
            f"into={path}: has no one place for the table; put the lines {start} and {end} where it is to be"
        )
    return text


def _filled(text: str, analysis: Analysis, written: _Written) -> str:
    start, end = _markers(analysis.study.name)
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    told = [" ".join(lines) for lines in (_differences(analysis), _facts(analysis, written)) if lines]
    below = "\n\n".join(map(_plain_markdown, told))
    return f"{before}{start}\n{_short_table(analysis).markdown()}\n{below}\n{end}{after}"


# ------------------------------------------------------------------------------------------------------------ pieces


def _directory(name: str) -> Path:
    home = runs_home() / "studies"
    for directory in (home / name, Path(name)):
        if name and (directory / "study.yaml").is_file():
            return directory
    known = sorted(path.parent.name for path in home.glob("*/study.yaml"))
    hint = f"studies are {', '.join(known)}" if known else f"there is none in {home}: run `hgscale study` first"
    raise ConfigError(f"study={name} is no study; {hint}")


def _exponent(law: PowerLaw | None) -> str:
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


def _slug(name: str) -> str:
    """A name that a tracking server takes: letters, digits, ``_ - .``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.")


def _plain_markdown(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _csv(lines: Sequence[Mapping[str, object]]) -> str:
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


def _write(path: Path, text: str) -> None:
    """Write under a temporary name, then rename: a reader sees all of it or nothing."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RunError(f"{path}: cannot be written ({error.strerror}); make room or give another --out") from None
