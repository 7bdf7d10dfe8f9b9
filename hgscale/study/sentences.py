"""What a study comes to, in sentences."""

from dataclasses import dataclass

from hgscale.study.analysis import Analysis, Point, counts
from hgscale.study.compare import Pair
from hgscale.study.results import FINISHED, Row
from hgscale.study.tables import INTERVALS, exponent_text
from hgscale.study.words import digits, shown
from hgscale.train.reports import Told

MAX_EXPONENTS = 8
"""Curves whose exponents have a sentence; the table has all."""


@dataclass(frozen=True)
class Written:
    """By which code, and when."""

    commit: str | None
    date: str


def facts(analysis: Analysis, written: Written) -> list[str]:
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


def differences(analysis: Analysis) -> list[str]:
    """The measure that tells settings on the same data apart, each minus the first of them, paired by seed."""
    if (told := analysis.task.differences) is None:
        return []
    said = []
    for at, point in enumerate(analysis.points):
        for first in analysis.points[:at]:
            rows = _on_the_same_data(first, point, analysis.task.same_data.digest)
            difference = Pair(first, point, rows).difference(told.measure) if rows else None
            if difference is not None:
                names = f"{analysis.name_of(point)} minus {analysis.name_of(first)}"
                said.append(f"{told.word}, {names}, paired by seed: {shown(difference)}.")
                break
    return said


def _on_the_same_data(first: Point, other: Point, digest: str) -> list[tuple[Row, Row]]:
    """The cells of each seed at which both finished, if their data are the same."""
    ours = {row.seed: row for row in first.rows if row.summary.get(digest)}
    both = [(ours[row.seed], row) for row in other.rows if row.seed in ours and row.summary.get(digest)]
    return both if all(one.summary[digest] == two.summary[digest] for one, two in both) else []


def findings(analysis: Analysis) -> list[str]:
    """What the study comes to, number by number."""
    extremes = [_extreme(analysis, told) for told in analysis.task.told]
    said = [*extremes[:1], *_exponents(analysis), *extremes[1:], *differences(analysis)]
    if not any(extremes[:1]):
        said.append("No cell has finished yet: there is nothing to draw.")
    return [line for line in [*said, analysis.range_note()] if line]


def _extreme(analysis: Analysis, told: Told) -> str:
    """The largest mean of a measure, and where it is; nothing where no cell has it."""
    found = [(mean, point) for point in analysis.points if (mean := point.mean(told.measure))]
    if not found or not analysis.shows(told.measure):
        return ""
    most, at = max(found, key=lambda one: one[0].mean)
    middle = f"{digits(sum(mean.mean for mean, _ in found) / len(found))} in the mean of {len(found):,} points, "
    place = f" ({analysis.name_of(at)})" if told.with_place else ""
    return f"{told.word}: {middle if told.with_mean else ''}at most {shown(most)}{place}."


def _exponents(analysis: Analysis) -> list[str]:
    fitted = analysis.task.fitted
    found = [curve for curve in analysis.curves if fitted and analysis.exponent(curve, fitted[0].measure)]
    said = []
    for curve in found[:MAX_EXPONENTS]:
        laws = {one.word: law for one in fitted if (law := analysis.exponent(curve, one.measure))}
        parts = [f"{word} {exponent_text(law)}" for word, law in laws.items()]
        said.append(f"Exponent over {analysis.words(curve.over)}, {curve.label}: {', '.join(parts)}.")
    if len(found) > MAX_EXPONENTS:
        said.append(f"Exponents of {len(found) - MAX_EXPONENTS:,} more curves are in the table of exponents.")
    return said


def methods(analysis: Analysis) -> list[str]:
    """How the numbers are made."""
    task = analysis.task
    lines = [
        f"{INTERVALS} Seeds are nested: with one seed, the points of a curve share their data.",
        *(method.text for method in task.methods if method.where is None),
        "Failed and missing cells are in no mean and no fit. A missing value is missing, never 0.",
        *(method.text for method in task.methods if method.where in analysis.measures),
    ]
    if analysis.fits:
        straight = " and ".join(one.word for one in task.fitted if one.plateau_over is None)
        others = f"xponents over anything but {analysis.words(analysis.x)}"
        which = f"{straight.capitalize()}, and e{others}," if straight else f"E{others}"
        lines.append(
            f"Exponents: least squares of relative residuals on {task.quantity} = plateau + a x^b. Their 95% intervals "
            f"are over seeds (leaving out one at a time, Student's t), not over points. {which} are fitted without "
            f"plateau. {analysis.range_note()}"
        )
    return lines
