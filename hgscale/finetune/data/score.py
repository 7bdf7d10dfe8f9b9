"""Scores of predicted relations: label 0 is None, and precision, recall and F1 are micro averages over the others.

Source: the metric of MNRE's published baselines: accuracy over all pairs; a pair that is predicted related counts as a
hit if its label is the one predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_BINS = 15


@dataclass(frozen=True)
class ClassRow:
    """One relation of ``per_class``: shares are nan where nothing is there to divide by."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True)
class Bin:
    """Predictions of one range of confidence: ``num`` of them, their mean confidence, and how many are right."""

    low: float
    high: float
    num: int
    confidence: float
    accuracy: float


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores of some pairs.

    Args:
        logits: [p c] float.
        labels: [p] integers in [0, c).

    Returns:
        accuracy, over all; precision, recall and f1, micro over labels other than 0 (0 where there is no hit); ece.
    """
    predicted = _checked(logits, labels).argmax(axis=1)
    hits = int(np.sum((predicted == labels) & (labels != 0)))
    said, there = int(np.sum(predicted != 0)), int(np.sum(labels != 0))
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "precision": hits / said if said else 0.0,
        "recall": hits / there if there else 0.0,
        "f1": 2 * hits / (said + there) if said + there else 0.0,
        "ece": ece(reliability(logits, labels)),
    }


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[c c] int64: how many pairs of a label (row) are predicted as one (column).  [p c], [p]."""
    num_labels = logits.shape[1]
    predicted = _checked(logits, labels).argmax(axis=1)
    return np.bincount(labels * num_labels + predicted, minlength=num_labels**2).reshape(num_labels, num_labels)


def per_class(matrix: np.ndarray, names: Sequence[str]) -> list[ClassRow]:
    """Precision, recall and F1 of each label, out of a confusion matrix [c c]."""
    rows = []
    for at, name in enumerate(names):
        hits, said, there = int(matrix[at, at]), int(matrix[:, at].sum()), int(matrix[at].sum())
        rows.append(
            ClassRow(name, _share(hits, said), _share(hits, there), _share(2 * hits, said + there), there, said)
        )
    return rows


def reliability(logits: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS) -> list[Bin]:
    """Confidence (probability of the label predicted) against accuracy, in bins of equal width.

    Args:
        logits: [p c] float.
        labels: [p] integers.
        num_bins: of (0, 1]; bin b holds confidences in (b / num_bins, (b + 1) / num_bins].

    Returns:
        All bins; confidence and accuracy are nan in empty ones.
    """
    values = _checked(logits, labels).astype(np.float64)
    exponents = np.exp(values - values.max(axis=1, keepdims=True))
    confidence = (exponents / exponents.sum(axis=1, keepdims=True)).max(axis=1)
    right = values.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    bins = []
    for at in range(num_bins):
        inside = place == at
        num = int(inside.sum())
        mean = float(confidence[inside].mean()) if num else float("nan")
        bins.append(
            Bin(at / num_bins, (at + 1) / num_bins, num, mean, float(right[inside].mean()) if num else float("nan"))
        )
    return bins


def ece(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the gap of confidence and accuracy, averaged over predictions.

    Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017.
    """
    num = sum(one.num for one in bins)
    return sum(one.num * abs(one.confidence - one.accuracy) for one in bins if one.num) / num


def _checked(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    assert logits.ndim == 2, logits.shape
    assert len(logits) == len(labels) > 0, (logits.shape, labels.shape)
    assert labels.min() >= 0, labels.min()
    assert labels.max() < logits.shape[1], labels.max()
    return logits


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
