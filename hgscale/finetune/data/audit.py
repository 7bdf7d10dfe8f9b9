"""The leak audit: how much of the label an input carries without what it is meant to show, no pixel being read.

Probes are fitted on train and measured on a split held out. A feature alone is probed by counting its values against
labels. Related against None is answered by which of the two a value is likelier under, and scored by balanced accuracy,
whose chance level is 1/2 whatever the share of None. The label is answered by the commonest one of a value. With words,
the probe is logistic regression on a bag of words, with and without the feature.

**A feature is a leak** if it is of the kind ``structure`` (that an image, an object or an order is there at all, and
how many: not what is shown) and, on the split held out, its balanced accuracy alone is above ``LEAK`` = 0.6 with a 95%
interval that begins above ``SURE`` = 0.55.

Why these numbers (derived here): the lists shipped with MNRE reach 0.99, and its order 0.66, while what an honest list
has to do with relations (more people, more objects) is a few hundredths. On MNRE's 1,600 held-out pairs the standard
error of a balanced accuracy of 1/2 is about 0.013, or 0.02 if pairs of a context always agree; an interval that begins
above 0.55 is then more than 4 standard errors off chance, which among ten features happens by accident in less than one
audit of a thousand. Features of the kind ``content`` (area, aspect and place of boxes) may tell honestly; they are
reported and never called leaks.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hgscale import rng
from hgscale.errors import DataError
from hgscale.finetune.data.config import RelationDataConfig
from hgscale.finetune.data.contexts import Context, Pair, RelationData, Split, head_behind_tail

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LEAK = 0.6
SURE = 0.55

Kind = Literal["structure", "content"]

_LEVEL = 0.95
_NUM_QUANTILES = 8  # values of a continuous feature
_NUM_PRESENT = 4  # objects whose presence is asked about one by one
_WINDOW = 2  # words beside a mention


@dataclass(frozen=True)
class Row:
    """One feature.

    Attributes:
        feature: what is looked at.
        input: the field of the config that brings it in: pair_order, images or boxes.
        kind: structure may be a leak, content never is.
        balanced_accuracy, low, high: of related against None, from the feature alone, with its interval.
        f1: micro-F1 of the label from the feature alone.
        f1_with_words, gain, gain_low, gain_high: micro-F1 of words and feature, and what it is above words; None where
            words were not asked for.
        leak: by the rule above.
    """

    feature: str
    input: str
    kind: Kind
    balanced_accuracy: float
    low: float
    high: float
    f1: float
    f1_with_words: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    leak: bool


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        split: on which it was measured.
        rows: a feature each; those that never vary are left out.
        f1_words: micro-F1 of the bag of words, or None.
        pair_order: of the data, which decides what words know of the order.
    """

    split: str
    rows: tuple[Row, ...]
    f1_words: float | None
    pair_order: str

    @property
    def leaks(self) -> tuple[str, ...]:
        """Features that give the label away, used or not."""
        return tuple(row.feature for row in self.rows if row.leak)

    def complaint(self) -> str | None:
        """One line that names the leaks, their inputs and the repair; None where no input that is used leaks."""
        found = [row for row in self.rows if row.leak and not self._unused(row)]
        if not found:
            return None
        worst = max(found, key=lambda row: row.balanced_accuracy)
        names = ", ".join(row.feature for row in found)
        inputs = " and ".join(f"data.{name}" for name in dict.fromkeys(row.input for row in found))
        return (
            f"{inputs}: the label is given away by {names} ({worst.feature!r} alone tells related from "
            f"None at balanced accuracy {worst.balanced_accuracy:.2f}, chance is 0.50); leave that input out, or set "
            "data.allow_leaks=true to have the run tagged"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self) | {"leaks": list(self.leaks), "rows": [vars(row) for row in self.rows]}

    def text(self) -> str:
        """A table, and what it means."""
        header = ("feature", "input", "kind", "related/None", "95%", "F1 alone", "F1 + words", "gain", "95%", "")
        table = [header] + [
            (
                row.feature,
                row.input,
                row.kind,
                f"{row.balanced_accuracy:.3f}",
                f"[{row.low:.3f}, {row.high:.3f}]",
                f"{100 * row.f1:.1f}",
                _points(row.f1_with_words),
                _points(row.gain, "+"),
                "" if row.gain_low is None else f"[{_points(row.gain_low, '+')}, {_points(row.gain_high, '+')}]",
                "" if not row.leak else "LEAK, not used" if self._unused(row) else "LEAK",
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
        ]
        if self.f1_words is not None:
            order = "heads first" if self.pair_order == "file" else "in the order of the text"
            lines.append(f"words alone, pairs {order}: F1 {100 * self.f1_words:.1f} on {self.split}")
        lines.append(self.complaint() or "no leak in what these data show")
        return "\n".join(lines)

    def _unused(self, row: Row) -> bool:
        """Whether the data hide a feature: the order of head and tail, where pairs come in the order of the text."""
        return row.input == "pair_order" and self.pair_order == "text"


def audit(
    data: RelationData,
    *,
    split: Literal["val", "test"] = "test",
    words: bool = True,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Audit:
    """Probe every feature of the data.

    Args:
        data: with lists of objects or images, where these are to be judged.
        split: to measure on.
        words: also probe with a bag of words (5 CPU seconds a feature on MNRE).
        num_resamples: of contexts, for the intervals.
        seed: of these.

    Raises:
        DataError: if the training pairs are all related or all None.
    """
    held_out = {"val": data.val, "test": data.test}[split]
    order = "text" if all(pair.first < pair.second for context in held_out for pair in context.pairs) else "file"
    train_labels, labels = _labels(data.train), _labels(held_out)
    if not 0 < np.count_nonzero(train_labels) < len(train_labels):
        raise DataError("audit: the training pairs are all related or all None; there is nothing to tell apart")
    resamples = _Resamples(held_out, num_resamples, seed)
    bags = _Bags(data.train, held_out, train_labels) if words else None
    said_words = None if bags is None else bags.predict(None, None)
    rows = []
    for feature, (train_values, values) in _features(data.train, held_out).items():
        name, source, kind = feature
        related = _likelier(train_values, train_labels != 0, values)
        balanced, low, high = resamples.balanced_accuracy(related, labels != 0)
        said = _commonest(train_values, train_labels, values)
        f1_together = gain = gain_low = gain_high = None
        if bags is not None and said_words is not None:
            together = bags.predict(train_values, values)
            f1_together = _f1(together, labels)
            gain, gain_low, gain_high = resamples.gain(together, said_words, labels)
        leak = kind == "structure" and balanced > LEAK and low > SURE
        row = Row(
            name, source, kind, balanced, low, high, _f1(said, labels), f1_together, gain, gain_low, gain_high, leak
        )
        rows.append(row)
    return Audit(split, tuple(rows), None if said_words is None else _f1(said_words, labels), order)


def gate(data: RelationData, config: RelationDataConfig) -> Audit:
    """The audit before training, in seconds: only inputs that the config uses, on val, without words.

    The training code refuses where ``leaks`` is not empty (``complaint`` says it in one line), unless
    ``config.allow_leaks``.

    Raises:
        DataError: if the training pairs are all related or all None.
    """
    used = {
        "pair_order": config.pair_order == "file",
        "images": config.images is not None or config.name == "planted",
        "boxes": config.boxes is not None or config.name in ("more", "planted"),
    }
    found = audit(data, split="val", words=False, num_resamples=400, seed=config.seed)
    return dataclasses.replace(found, rows=tuple(row for row in found.rows if used[row.input]))


def _features(train: Split, held_out: Split) -> dict[tuple[str, str, Kind], tuple[np.ndarray, np.ndarray]]:
    """Values of each feature that varies in train, as small numbers: [pairs of train], [pairs held out]."""
    found: dict[tuple[str, str, Kind], tuple[np.ndarray, np.ndarray]] = {}
    columns, others = _columns(train), _columns(held_out)
    for feature, values in columns.items():
        known, other = np.asarray(values, dtype=float), np.asarray(others[feature], dtype=float)
        if feature[2] == "content":
            there = known[np.isfinite(known)]
            edges = np.quantile(there, np.linspace(0, 1, _NUM_QUANTILES + 1)[1:-1]) if len(there) else there
            known, other = _binned(known, edges), _binned(other, edges)
        if len(np.unique(known)) > 1:
            found[feature] = (known, other)
    return found


def _binned(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Which range a value is in; -1 where there is none."""
    return np.where(np.isfinite(values), np.searchsorted(edges, values), -1)


def _columns(split: Split) -> dict[tuple[str, str, Kind], list[float]]:
    """A value of each feature for each pair."""
    columns: dict[tuple[str, str, Kind], list[float]] = {}

    def add(name: str, source: str, kind: Kind, value: float) -> None:
        columns.setdefault((name, source, kind), []).append(value)

    for context in split:
        shapes = _shapes(context)
        for pair in context.pairs:
            add("head behind tail", "pair_order", "structure", head_behind_tail(context, pair))
            add("image present", "images", "structure", context.image is not None)
            add("number of objects", "boxes", "structure", len(context.objects))
            listed = len(context.objects) if pair.num_crops is None else pair.num_crops
            if pair.num_crops is not None:
                add("number of the pair's crops", "boxes", "structure", pair.num_crops)
            for at in range(1, _NUM_PRESENT + 1):
                add(f"{('first', 'second', 'third', 'fourth')[at - 1]} present", "boxes", "structure", listed >= at)
            for name, value in zip(("mean area", "mean aspect", "mean height in the image"), shapes, strict=True):
                add(name, "boxes", "content", value)
    return columns


def _shapes(context: Context) -> tuple[float, float, float]:
    """Mean area (share of the image), aspect and vertical centre of the boxes of a context; nan without any."""
    if context.size is None:
        return float("nan"), float("nan"), float("nan")
    width, height = context.size
    boxes = np.array([one.box for one in context.objects if one.box is not None]).reshape(-1, 4)
    if not len(boxes):
        return float("nan"), float("nan"), float("nan")
    x0, y0, x1, y1 = boxes.T
    area = (x1 - x0) * (y1 - y0) / (width * height)
    return float(area.mean()), float(((x1 - x0) / (y1 - y0)).mean()), float(((y0 + y1) / 2 / height).mean())


def _labels(split: Split) -> np.ndarray:
    return np.array([pair.label for context in split for pair in context.pairs])


def _likelier(train: np.ndarray, related: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[p] bool: whether each value is likelier among related training pairs than among the others."""
    kinds = np.unique(train)
    counts = np.array([[np.sum(related[train == kind] == side) for kind in kinds] for side in (False, True)])
    chances = counts / counts.sum(axis=1, keepdims=True)
    return np.isin(values, kinds[chances[1] > chances[0]])


def _commonest(train: np.ndarray, labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[p] int: the commonest training label of each value; None of a value that training lacks."""
    said = np.zeros(len(values), dtype=int)
    for kind in np.unique(train):
        said[values == kind] = np.bincount(labels[train == kind]).argmax()
    return said


def _f1(said: np.ndarray, labels: np.ndarray) -> float:
    hits, total = np.sum((said == labels) & (labels != 0)), np.sum(said != 0) + np.sum(labels != 0)
    return float(2 * hits / total) if total else 0.0


class _Resamples:
    """Intervals by drawing contexts again: pairs of one context are not independent."""

    def __init__(self, split: Split, num: int, seed: int) -> None:
        self._owner = np.repeat(np.arange(len(split)), [len(context.pairs) for context in split])
        draw = rng.stream(seed, "audit")
        self._times = draw.multinomial(len(split), np.full(len(split), 1 / len(split)), size=num)

    def balanced_accuracy(self, said: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
        """Value and interval."""
        counts = self._sums(said & truth, truth, ~said & ~truth, ~truth)

        def score(table: np.ndarray) -> np.ndarray:
            hit, related, right, none = table.T
            return np.asarray((hit / np.maximum(related, 1) + right / np.maximum(none, 1)) / 2)

        return (float(score(counts.sum(axis=0))), *self._interval(score(self._times @ counts)))

    def gain(self, said: np.ndarray, other: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
        """How much higher the F1 of one prediction is than another's, and its interval."""
        there = labels != 0
        counts = self._sums((said == labels) & there, said != 0, (other == labels) & there, other != 0, there)

        def score(table: np.ndarray) -> np.ndarray:
            hits, num, other_hits, other_num, num_there = table.T
            own, others = hits / np.maximum(num + num_there, 1), other_hits / np.maximum(other_num + num_there, 1)
            return np.asarray(2 * own - 2 * others)

        return (float(score(counts.sum(axis=0))), *self._interval(score(self._times @ counts)))

    def _sums(self, *columns: np.ndarray) -> np.ndarray:
        """[contexts, columns]: how many pairs of each context."""
        return np.stack([np.bincount(self._owner, column, self._times.shape[1]) for column in columns], axis=1)

    @staticmethod
    def _interval(values: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return float(low), float(high)


class _Bags:
    """Bags of words of the pairs of two splits, and logistic regression on them."""

    def __init__(self, train: Split, held_out: Split, labels: np.ndarray) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        vectorizer = CountVectorizer(analyzer=_itself, min_df=2, binary=True)
        self._train = vectorizer.fit_transform(_bag(context, pair) for context in train for pair in context.pairs)
        self._held_out = vectorizer.transform(_bag(context, pair) for context in held_out for pair in context.pairs)
        self._labels = labels

    def predict(self, train: np.ndarray | None, values: np.ndarray | None) -> np.ndarray:
        """[p] labels of the pairs held out, from words and the values of a feature."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier

        known, other = self._train, self._held_out
        if train is not None and values is not None:
            kinds = np.unique(train)
            known, other = _beside(known, train, kinds), _beside(other, values, kinds)
        # One against the rest, by coordinate descent: ten times faster here than all at once.
        model = OneVsRestClassifier(LogisticRegression(C=1.0, solver="liblinear", random_state=0))
        return np.asarray(model.fit(known, self._labels).predict(other))


def _itself(words: list[str]) -> list[str]:
    return words


def _beside(bags: "csr_matrix", values: np.ndarray, kinds: np.ndarray) -> "csr_matrix":
    """Bags with a column for each value of a feature."""
    from scipy.sparse import csr_matrix, hstack

    return hstack([bags, csr_matrix((values[:, None] == kinds).astype(float))]).tocsr()


def _bag(context: Context, pair: Pair) -> list[str]:
    """Words and pairs of words of the text, of both mentions, beside and between them: what a model of words sees."""
    words = [token.lower() for token in context.tokens]
    bag = _grams(words)
    spans = []
    for place, node in enumerate((pair.first, pair.second)):
        if node >= len(context.entities):
            continue
        entity = context.entities[node]
        spans.append((entity.start, entity.end))
        bag += [f"{place}={gram}" for gram in _grams(entity.name.lower().split())]
        bag.append(f"{place}~{_outline(entity.name)}")
        bag += [f"{place}*{piece}" for piece in _pieces(entity.name.lower())]
        bag += [f"{place}<{gram}" for gram in _grams(words[max(0, entity.start - _WINDOW) : entity.start])]
        bag += [f"{place}>{gram}" for gram in _grams(words[entity.end : entity.end + _WINDOW])]
    if len(spans) == 2:
        between = words[min(end for _, end in spans) : max(start for start, _ in spans)]
        bag += [f"between={gram}" for gram in _grams(between)]
        bag += [f"distance={min(len(between), 10)}", f"turned={spans[0] > spans[1]}"]
    return bag


def _grams(words: Sequence[str]) -> list[str]:
    return [*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))]


def _outline(name: str) -> str:
    """How a name is written: ``Xx Xx`` for Dan Brown, ``@x`` for @dan."""
    outline = re.sub(r"[0-9]", "9", re.sub(r"[A-Z]", "X", re.sub(r"[a-z]", "x", name)))
    return re.sub(r"(.)\1+", r"\1", outline)


def _pieces(name: str) -> list[str]:
    """Runs of three and of four letters of a name, its ends marked."""
    padded = f" {name} "
    return [padded[at : at + size] for size in (3, 4) for at in range(len(padded) - size + 1)]


def _points(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{100 * value:{sign}.1f}"
