"""Figures of a fine-tuned model: where it errs, whether it knows it, and what it looked at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hgscale.files import writing
from hgscale.finetune.data.score import confusion, ece, per_class, reliability
from hgscale.finetune.findings import Prediction

NUM_EXAMPLES = 6
INK, BLUE, ORANGE = "#333333", "#1f4e9c", "#e08a1e"


def scores(path: Path, logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    """Confusion matrix, F1 of each relation, and calibration, as PNG.  [p c], [p]."""
    matrix = confusion(logits, labels)
    there = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    short = [names[at] for at in there.tolist()]
    figure = Figure(figsize=(15, 6.4), dpi=130, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.35, 0.8, 0.9])
    _confusion(left, matrix[np.ix_(there, there)], short)
    _per_class(middle, matrix, names, there)
    _calibration(right, logits, labels)
    _save(figure, path)


def _confusion(axes: Axes, matrix: np.ndarray, names: Sequence[str]) -> None:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(matrix).tolist():
        color = "white" if shares[row, column] > 0.5 else INK
        axes.text(column, row, matrix[row, column], ha="center", va="center", fontsize=6, color=color)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel="predicted", ylabel="label", title="Pairs of the test split")


def _per_class(axes: Axes, matrix: np.ndarray, names: Sequence[str], there: np.ndarray) -> None:
    rows = [row for at, row in enumerate(per_class(matrix, names)) if at in there]
    places = np.arange(len(rows))
    axes.barh(places, [0.0 if row.f1 != row.f1 else row.f1 for row in rows], color=BLUE, height=0.7)
    for place, row in enumerate(rows):
        axes.text(0.02, place, f"{row.label}  ({row.support})", va="center", fontsize=6.5, color=INK)
    axes.set(xlim=(0, 1), yticks=[], xlabel="F1", title="F1 of each relation (pairs that have it)")
    axes.invert_yaxis()
    for bar in axes.patches:
        bar.set_alpha(0.35)


def _calibration(axes: Axes, logits: np.ndarray, labels: np.ndarray) -> None:
    bins = reliability(logits, labels)
    filled = [one for one in bins if one.num]
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    axes.plot([one.confidence for one in filled], [one.accuracy for one in filled], color=ORANGE, zorder=1)
    sizes = 12 + 240 * np.sqrt([one.num / len(labels) for one in filled])
    axes.scatter([one.confidence for one in filled], [one.accuracy for one in filled], s=sizes, color=ORANGE, zorder=2)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    axes.set_title(f"Calibration, expected error {ece(bins):.3f}")


def attention(path: Path, predictions: Sequence[Prediction]) -> None:
    """What the model looked at, for pairs that it is surest of, right and wrong, as PNG."""
    chosen = examples(predictions)
    figure = Figure(figsize=(13, 0.8 + 2.3 * -(-len(chosen) // 2)), dpi=130, layout="constrained")
    grid = figure.subplots(-(-len(chosen) // 2), 2, squeeze=False)
    for axes, one in zip(grid.flat, chosen, strict=False):
        _looks(axes, one)
    for axes in grid.flat[len(chosen) :]:
        axes.set_axis_off()
    _save(figure, path)


def examples(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Pairs to be shown: of those that are related the surest hits, of different relations, then the surest errors."""
    sure = sorted(predictions, key=lambda one: -one.probability)
    hits: dict[str, Prediction] = {}
    for one in sure:
        if one.label == one.predicted and one.label != "None":
            hits.setdefault(one.label, one)
    errors = [one for one in sure if one.label != one.predicted]
    num_errors = min(len(errors), NUM_EXAMPLES // 3)
    return [*list(hits.values())[: NUM_EXAMPLES - num_errors], *errors[:num_errors]] or sure[:NUM_EXAMPLES]


def _looks(axes: Axes, one: Prediction) -> None:
    looks = list(reversed(one.looks[:5]))
    color = BLUE if one.label == one.predicted else ORANGE
    places = np.arange(len(looks))
    axes.barh(places, [look.weight for look in looks], color=color, alpha=0.35, height=0.75)
    for place, look in enumerate(looks):
        axes.text(0.01, place, _cut(f"{look.type}: {', '.join(look.nodes)}", 62), va="center", fontsize=7.5, color=INK)
    verdict = one.predicted if one.label == one.predicted else f"{one.predicted}, is {one.label}"
    axes.set_title(f"{_cut(one.first, 28)} - {_cut(one.second, 28)}: {verdict} ({one.probability:.2f})", fontsize=8.5)
    axes.set_xlabel(_cut(one.text, 96), fontsize=7, color=INK)
    axes.set(xlim=(0, 1), yticks=[])
    axes.tick_params(labelsize=7)


def _cut(text: str, length: int) -> str:
    plain = text.replace("$", r"\$")  # else matplotlib sets it as mathematics
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"


def _save(figure: Figure, path: Path) -> None:
    with writing(path) as file:
        FigureCanvasAgg(figure).print_png(file)
