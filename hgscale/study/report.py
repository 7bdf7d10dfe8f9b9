"""The verb ``report``: what a study says, as tables, figures and one page; and two studies side by side."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml

from hgscale.config import WRITES, runs_home
from hgscale.errors import ConfigError
from hgscale.files import write_text
from hgscale.study import charts, compare, figures
from hgscale.study.analysis import Analysis, analyse, counts
from hgscale.study.page import Section, bullets, figure, page, paragraph, preformatted
from hgscale.study.results import FAILED, FINISHED, MISSING, commit, read
from hgscale.study.sentences import Written, differences, facts, findings, methods
from hgscale.study.tables import csv_points, csv_text, ending_table, exponent_table, fits_of, points_tables, short_table

MAX_LISTED = 200
"""Failed or missing cells named in a list; more are counted."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Tables, figures and one HTML page of a study, or of one beside others."""

    study: list[str] = field(default_factory=list)
    """Names of studies, or their directories. The first is reported, and compared with each of the others."""

    out: str | None = field(default=None, metadata=WRITES)
    """Where tables and figures go. Null: report/ in the first study's directory."""

    into: str | None = field(default=None, metadata=WRITES)
    """A Markdown file. What stands in it between <!-- hgscale report NAME --> and <!-- end --> is replaced by the first
    study's short table, with commit and date."""


@dataclass(frozen=True)
class ReportResult:
    """Where a report is, its numbers by name, and what it says, as lines."""

    table_md: Path
    table_csv: Path
    fits_json: Path
    figures: list[Path]
    page: Path
    metrics: dict[str, float]
    said: str

    def text(self) -> str:
        """What the command prints."""
        return "\n".join([self.said, *(f"figure        {path}" for path in self.figures[:1])])


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
    written = Written(commit(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    result = _write_all(first, comparisons, Path(config.out) if config.out else directories[0] / "report", written)
    if config.into is not None and text is not None:
        write_text(Path(config.into), _filled(text, first, written), charts.REPAIR)
    return result


def write_report(directory: Path) -> ReportResult:
    """The report of one study in its own directory, as ``report`` writes it."""
    return report(ReportConfig(study=[str(directory)]))


def _write_all(
    first: Analysis, comparisons: Sequence[compare.Comparison], folder: Path, written: Written
) -> ReportResult:
    drawn = figures.draw(first, folder)
    beside = [[charts.write(one, folder) for one in compare.pictures(both)] for both in comparisons]
    for both in comparisons:
        write_text(
            folder / f"compare-{both.other.study.directory.name}.csv", csv_text(compare.csv_rows(both)), charts.REPAIR
        )
    write_text(folder / "table.csv", csv_text(csv_points(first)), charts.REPAIR)
    write_text(folder / "fits.json", json.dumps(fits_of(first), indent=2, allow_nan=False) + "\n", charts.REPAIR)
    write_text(folder / "table.md", _markdown(first, comparisons, written), charts.REPAIR)
    write_text(folder / "report.html", _page(first, comparisons, drawn, beside, written), charts.REPAIR)
    pngs = [one.png for group in (drawn, *beside) for one in group]
    said = [line for both in comparisons for line in compare.sentences(both)]
    text = "\n".join([_terminal(first), *said, f"page          {folder / 'report.html'}", f"tables        {folder}"])
    return ReportResult(
        folder / "table.md", folder / "table.csv", folder / "fits.json", pngs, folder / "report.html",
        _metrics(first), text,
    )  # fmt: skip


def _markdown(first: Analysis, comparisons: Sequence[compare.Comparison], written: Written) -> str:
    parts = [f"# Study {_plain_markdown(first.study.name)}", *map(_plain_markdown, facts(first, written))]
    parts.append("\n".join(f"- {_plain_markdown(line)}" for line in findings(first)))
    for both in comparisons:
        parts.append(f"## {_plain_markdown(' beside '.join(both.names))}")
        parts.append("\n".join(f"- {_plain_markdown(line)}" for line in compare.sentences(both)))
        parts += [table.markdown() for table in compare.tables(both)]
    parts += ["## Curves", short_table(first).markdown()]
    if first.fits:
        parts += ["## Exponents", exponent_table(first).markdown()]
    for title, table in points_tables(first):
        parts += [f"## {title}", table.markdown()]
    for status in (FAILED, MISSING):
        if rows := first.rows(status):
            parts.append(f"## {status.capitalize()} cells: {len(rows):,}")
            parts.append(ending_table(first, rows[:MAX_LISTED]).markdown())
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _page(
    first: Analysis,
    comparisons: Sequence[compare.Comparison],
    drawn: Sequence[charts.Drawn],
    beside: Sequence[Sequence[charts.Drawn]],
    written: Written,
) -> str:
    sections = []
    for i, (both, shots) in enumerate(zip(comparisons, beside, strict=True)):
        body = bullets(compare.sentences(both)) + "".join(_figure(first, shot) for shot in shots)
        body += "".join(table.html() for table in compare.tables(both))
        sections.append(Section(f"compare-{i + 1}", " beside ".join(both.names), body))
    sections.append(Section("curves", "Curves", short_table(first).html()))
    sections += [Section(f"figure-{shot.name}", shot.title, _figure(first, shot)) for shot in drawn]
    if first.fits:
        sections.append(Section("exponents", "Table of exponents", exponent_table(first).html()))
    for i, (title, table) in enumerate(points_tables(first)):
        sections.append(Section(f"points-{i + 1}", title, table.html()))
    for status in (FAILED, MISSING):
        if rows := first.rows(status):
            body = ending_table(first, rows[:MAX_LISTED]).html()
            if len(rows) > MAX_LISTED:
                body += paragraph(f"and {len(rows) - MAX_LISTED:,} more", "note")
            sections.append(Section(status.lower(), f"{status.capitalize()} cells: {len(rows):,}", body))
    sections.append(Section("how", "How the numbers are made", bullets(methods(first))))
    # Where the study is remembered is no part of it, and an address may hold a password.
    fields = {name: value for name, value in first.study.config.items() if name != "tracking"}
    settings = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    sections.append(Section("yaml", "The study's settings", preformatted(settings)))
    return page(f"Study {first.study.name}", facts(first, written), bullets(findings(first)), sections)


def _figure(analysis: Analysis, shot: charts.Drawn) -> str:
    bars = "Bars: 95% intervals over seeds." if shot.has_intervals else "95% intervals over seeds: in the tables."
    return figure(shot.svg, shot.title, f"{shot.caption} {bars} {analysis.range_note()}".strip())


def _terminal(analysis: Analysis) -> str:
    """The main columns of the short table, between a line on the cells and those on what they come to."""
    table = short_table(analysis, on_terminal=True)
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    said = [line for line in findings(analysis) if not line.startswith("Exponent")]
    return "\n".join([f"study {analysis.study.name}: {counts(analysis)}", *(text if analysis.curves else []), *said])


def _metrics(analysis: Analysis) -> dict[str, float]:
    """The study's numbers for a tracking server: exponents with their ends, extremes, counts of cells."""
    found: dict[str, float] = {
        "num_finished": analysis.num(FINISHED),
        "num_failed": analysis.num(FAILED),
        "num_missing": analysis.num(MISSING),
    }
    for told in analysis.task.told:
        means = [mean.mean for point in analysis.points if (mean := point.mean(told.measure))]
        if means and told.with_mean:
            found |= {f"{told.measure}_max": max(means), f"{told.measure}_mean": sum(means) / len(means)}
    words = {fitted.measure: fitted.word for fitted in analysis.task.fitted}
    for fit in analysis.fits:
        if fit.law is not None:
            name = f"{_slug(fit.over.rpartition('.')[2])}/{words[fit.measure]}/{_slug(fit.curve.label)}"
            ends = (fit.law.exponent, fit.law.exponent_low, fit.law.exponent_high)
            for kind, value in zip(("exponent", "exponent_low", "exponent_high"), ends, strict=True):
                if math.isfinite(value):
                    found[f"{kind}/{name}"] = value
    return found


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


def _filled(text: str, analysis: Analysis, written: Written) -> str:
    start, end = _markers(analysis.study.name)
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    told = [" ".join(lines) for lines in (differences(analysis), facts(analysis, written)) if lines]
    below = "\n\n".join(map(_plain_markdown, told))
    return f"{before}{start}\n{short_table(analysis).markdown()}\n{below}\n{end}{after}"


def _directory(name: str) -> Path:
    home = runs_home() / "studies"
    for directory in (home / name, Path(name)):
        if name and (directory / "study.yaml").is_file():
            return directory
    known = sorted(path.parent.name for path in home.glob("*/study.yaml"))
    hint = f"studies are {', '.join(known)}" if known else f"there is none in {home}: run `hgscale study` first"
    raise ConfigError(f"study={name} is no study; {hint}")


def _slug(name: str) -> str:
    """A name that a tracking server takes: letters, digits, ``_ - .``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.")


def _plain_markdown(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
