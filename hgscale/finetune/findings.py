"""What a fine-tuned model says of a split, in files: tables of scores, and each prediction with what decided it."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hgscale.files import write_text
from hgscale.finetune.data.contexts import Context
from hgscale.finetune.data.score import confusion, per_class, reliability
from hgscale.models.vmhan import EdgeWeight, Node, PairExplanation

MOST_EDGES = 8
"""Hyperedges told of each pair, the heaviest first; the rest is summed up."""


@dataclass(frozen=True)
class Look:
    """A hyperedge that the classifier looked at for a pair.

    Attributes:
        type: as global, or triple.
        nodes: of it, as a reader knows them.
        weight: mean over heads; those of a pair sum to 1.
        node_weights: how much each node counted for the hyperedge, mean over heads.
    """

    type: str
    nodes: tuple[str, ...]
    weight: float
    node_weights: tuple[float, ...]


@dataclass(frozen=True)
class Prediction:
    """A pair, what it is, what it is taken for, and what the model looked at.

    Attributes:
        context: id of the context.
        text: its tokens, joined by spaces.
        image: path, or None.
        first, second: the two nodes.
        label, predicted: names of relations.
        probability: of what is predicted.
        probability_of_label: of what it is.
        looks: heaviest first, at most MOST_EDGES.
        other_weight: of the hyperedges that are not told.
    """

    context: str
    text: str
    image: str | None
    first: str
    second: str
    label: str
    predicted: str
    probability: float
    probability_of_label: float
    looks: tuple[Look, ...]
    other_weight: float


def prediction(
    row: Context, explained: PairExplanation, labels: Sequence[str], label: int, probabilities: np.ndarray
) -> Prediction:
    """What the model says of a pair of a row, [c] probabilities, in words."""
    predicted = int(probabilities.argmax())
    looks = tuple(_look(row, edge) for edge in explained.edges[:MOST_EDGES])
    return Prediction(
        context=row.id,
        text=" ".join(row.tokens),
        image=row.image,
        first=_words(row, explained.first),
        second=_words(row, explained.second),
        label=labels[label],
        predicted=labels[predicted],
        probability=float(probabilities[predicted]),
        probability_of_label=float(probabilities[label]),
        looks=looks,
        other_weight=max(0.0, 1.0 - sum(look.weight for look in looks)),
    )


def _look(row: Context, edge: EdgeWeight) -> Look:
    weights = np.asarray(edge.node_heads).mean(axis=0)
    return Look(edge.type, tuple(_words(row, node) for node in edge.nodes), edge.weight, tuple(weights.tolist()))


def _words(row: Context, node: Node) -> str:
    if node.type == "entity":
        return row.entities[node.number].name
    if node.type == "object":
        return f"object {node.number + 1} {row.objects[node.number].label or ''}".strip()
    return node.type


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """A JSON object a line."""
    write_text(path, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in predictions))


def write_tables(folder: Path, logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    """``per_class.csv``, ``confusion.csv`` (rows: what it is) and ``calibration.csv``.  [p c], [p]."""
    matrix = confusion(logits, labels)
    write_text(folder / "per_class.csv", _csv([asdict(row) for row in per_class(matrix, names)]))
    rows = zip(names, matrix.tolist(), strict=True)
    counts = [{"label": name, **dict(zip(names, row, strict=True))} for name, row in rows]
    write_text(folder / "confusion.csv", _csv(counts))
    write_text(folder / "calibration.csv", _csv([asdict(one) for one in reliability(logits, labels)]))


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """A number that is missing is an empty place."""
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value != value else value for name, value in row.items()})
    return sheet.getvalue()
