"""What a study comes to, in sentences."""

from dataclasses import dataclass

from hgscale.study.analysis import Analysis, Point, counts
from hgscale.study.compare import Pair
from hgscale.study.measures import FITTED, SCORES
from hgscale.study.results import FINISHED, Row
from hgscale.study.tables import INTERVALS, exponent_text
from hgscale.study.words import digits, shown


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
    """Test F1 of fine-tunings on the same data, each minus the first of them, paired by seed."""
    if analysis.headline not in SCORES:
        return []
    said = []
    for at, point in enumerate(analysis.points):
        for first in analysis.points[:at]:
            rows = _on_the_same_data(first, point)
            difference = Pair(first, point, rows).difference("test_f1") if rows else None
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


def findings(analysis: Analysis) -> list[str]:
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
        parts = [
            f"{word} {exponent_text(law)}" for name, word in FITTED.items() if (law := analysis.exponent(curve, name))
        ]
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
        said += differences(analysis)
    if not ratios and not scores:
        said.append("No cell has finished yet: there is nothing to draw.")
    return said + [note for note in [analysis.range_note()] if note]


def methods(analysis: Analysis) -> list[str]:
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
