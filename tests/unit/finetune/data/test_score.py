"""Scores against scikit-learn, and by hand where it has none."""

import math

import numpy as np
import pytest
from sklearn import metrics

from hgscale.finetune.data.score import confusion, ece, per_class, reliability, scores


@pytest.fixture(scope="module", params=[0, 1, 2])
def pairs(request) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(request.param)
    labels = draw.choice(6, 400, p=[0.5, 0.2, 0.15, 0.1, 0.05, 0.0])
    logits = draw.normal(size=(400, 6)) * 2
    logits[np.arange(400), labels] += 1.5
    return logits, labels


def test_scores_are_those_of_sklearn(pairs):
    logits, labels = pairs
    found, predicted = scores(logits, labels), logits.argmax(axis=1)
    wanted = metrics.precision_recall_fscore_support(labels, predicted, labels=[1, 2, 3, 4, 5], average="micro")
    assert [found["precision"], found["recall"], found["f1"]] == pytest.approx(wanted[:3], abs=1e-12)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted), abs=1e-12)


def test_the_table_of_classes_and_the_matrix_are_those_of_sklearn(pairs):
    logits, labels = pairs
    predicted = logits.argmax(axis=1)
    matrix = confusion(logits, labels)
    assert np.array_equal(matrix, metrics.confusion_matrix(labels, predicted, labels=range(6)))
    rows = per_class(matrix, [f"relation {at}" for at in range(6)])
    wanted = metrics.precision_recall_fscore_support(labels, predicted, labels=range(6), zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1", "support"), wanted, strict=True):
        assert [getattr(row, name) for row in rows] == pytest.approx(values, abs=1e-12, nan_ok=True)
    assert [row.predicted for row in rows] == np.bincount(predicted, minlength=6).tolist()


def test_a_label_that_is_nowhere_has_no_scores_rather_than_zeros(pairs):
    logits, labels = pairs
    row = per_class(confusion(np.delete(logits, 5, axis=1), labels), ["a", "b", "c", "d", "e"])[4]
    assert row.support > 0
    matrix = np.zeros((2, 2), dtype=int)
    assert all(math.isnan(getattr(per_class(matrix, ["None", "x"])[1], name)) for name in ("precision", "recall", "f1"))


def test_the_calibration_error_is_that_of_a_sum_by_hand():
    # Confidences 0.9, 0.9, 0.6 (right, wrong, right), in bins (0.8, 1] and (0.4, 0.6] of five.
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    labels = np.array([0, 1, 1])
    bins = reliability(logits, labels, num_bins=5)
    assert [one.num for one in bins] == [0, 0, 1, 0, 2]
    assert ece(bins) == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.6 - 1)) / 3)
    assert math.isnan(bins[0].accuracy)


def test_calibrated_predictions_have_a_small_error_and_overconfident_ones_a_large_one():
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(20_000, 4)) * 1.5
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) > draw.random((20_000, 1))).argmax(axis=1)
    assert scores(logits, labels)["ece"] < 0.015
    assert scores(3 * logits, labels)["ece"] > 0.15


def test_never_saying_a_relation_scores_zero_and_not_an_error():
    logits = np.tile([[1.0, 0.0, 0.0]], (4, 1))
    found = scores(logits, np.array([0, 0, 1, 2]))
    assert (found["accuracy"], found["precision"], found["recall"], found["f1"]) == (0.5, 0.0, 0.0, 0.0)
