"""Contexts: a text with its image, its entities and objects as nodes, and all its labelled pairs of them.

Nodes of a context are numbered entities first, in the order of the text, then objects, in the order of their list:
node i < num_entities is entity i, node num_entities + k is object k.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Entity:
    """A mention in the text: tokens [start, end), which joined by spaces are its name."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Object:
    """A region of the image.

    Attributes:
        box: x0, y0, x1, y1 in the units of ``Context.size``; None for a crop that is a file of its own.
        label: what the file calls it, or None.
        file: absolute path of the crop, where it is a file.
    """

    box: tuple[float, float, float, float] | None
    label: str | None
    file: str | None


@dataclass(frozen=True)
class Pair:
    """Two nodes and their relation.

    Attributes:
        first, second: node numbers, in the order in which a model sees them (``data.pair_order``).
        label: number of the relation; 0 is None.
        flipped: the file's head is ``second``.
        num_crops: length of the crop list that belongs to this pair alone, or None where lists belong to images. For
            the audit: it must not reach a model.
    """

    first: int
    second: int
    label: int
    flipped: bool
    num_crops: int | None = None


@dataclass(frozen=True)
class Context:
    """A text with its image: one hypergraph.

    Attributes:
        id: split:line, the first line of its file that says it.
        tokens: of the text.
        entities: in the order of the text; mentions may overlap.
        image: absolute path, or None where there is none or it is marked absent.
        objects: at most ``data.max_objects``.
        pairs: in the order of the file.
        size: width and height that boxes are measured in: pixels of the image; (1, 1) for the boxes of more without
            their images; None where there is no image to measure.
    """

    id: str
    tokens: tuple[str, ...]
    entities: tuple[Entity, ...]
    image: str | None
    objects: tuple[Object, ...]
    pairs: tuple[Pair, ...]
    size: tuple[float, float] | None = None

    @property
    def num_nodes(self) -> int:
        """Entities and objects."""
        return len(self.entities) + len(self.objects)


class Split:
    """The contexts of train, val or test, one row of a ``datasets.Dataset`` each."""

    def __init__(self, name: str, dataset: "datasets.Dataset", num_absent: int = 0) -> None:
        """Hold a dataset of ``features``; ``num_absent`` images of it are missing or broken."""
        self.name = name
        self.dataset = dataset
        self.num_absent = num_absent

    def __len__(self) -> int:
        """Contexts."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Context:
        """One context, by its place."""
        return self.contexts[index]

    def __iter__(self) -> Iterator[Context]:
        """All contexts in order."""
        return iter(self.contexts)

    @cached_property
    def contexts(self) -> tuple[Context, ...]:
        """All contexts, out of Arrow once."""
        return tuple(_context(row) for row in self.dataset.to_list())

    @property
    def num_pairs(self) -> int:
        """Labelled pairs: instances."""
        return sum(len(context.pairs) for context in self.contexts)

    def statistics(self) -> dict[str, Any]:
        """What is in the split; shares are of pairs."""
        pairs = [(context, pair) for context in self.contexts for pair in context.pairs]
        behind = Counter(pair.label != 0 for context, pair in pairs if head_behind_tail(context, pair))
        return {
            "contexts": len(self),
            "instances": len(pairs),
            "none_frac": sum(pair.label == 0 for _, pair in pairs) / len(pairs) if pairs else 0.0,
            "shared_frac": sum(len(context.pairs) >= 2 for context, _ in pairs) / len(pairs) if pairs else 0.0,
            "head_behind_tail_related": behind[True],
            "head_behind_tail_none": behind[False],
            "entities": sum(len(context.entities) for context in self.contexts),
            "max_entities": max(len(context.entities) for context in self.contexts),
            "objects": sum(len(context.objects) for context in self.contexts),
            "max_objects": max(len(context.objects) for context in self.contexts),
            "images": sum(context.image is not None for context in self.contexts),
            "images_absent": self.num_absent,
        }


@dataclass(frozen=True)
class RelationData:
    """Three splits under one set of labels.

    Attributes:
        labels: names of the relations; number 0 is None.
        digest: of everything that training reads, images included; 32 hex digits.
    """

    train: Split
    val: Split
    test: Split
    labels: tuple[str, ...]
    digest: str

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Train, val, test."""
        return self.train, self.val, self.test

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Of each split, by its name."""
        return {split.name: split.statistics() for split in self.splits}


def features(labels: tuple[str, ...]) -> "datasets.Features":
    """Columns of a split."""
    from datasets import ClassLabel, Features, List, Value

    return Features(
        {
            "id": Value("string"),
            "tokens": List(Value("string")),
            "entities": List({"name": Value("string"), "start": Value("int32"), "end": Value("int32")}),
            "image": Value("string"),
            "size": List(Value("float64")),
            "objects": List(
                {"box": List(Value("float64")), "label": Value("string"), "file": Value("string")},
            ),
            "pairs": List(
                {
                    "first": Value("int32"),
                    "second": Value("int32"),
                    "label": ClassLabel(names=list(labels)),
                    "flipped": Value("bool"),
                    "num_crops": Value("int32"),
                }
            ),
        }
    )


def _context(row: dict[str, Any]) -> Context:
    return Context(
        id=row["id"],
        tokens=tuple(row["tokens"]),
        entities=tuple(Entity(**entity) for entity in row["entities"]),
        image=row["image"],
        objects=tuple(
            Object(box=None if one["box"] is None else tuple(one["box"]), label=one["label"], file=one["file"])
            for one in row["objects"]
        ),
        pairs=tuple(Pair(**pair) for pair in row["pairs"]),
        size=None if row["size"] is None else tuple(row["size"]),
    )


def head_and_tail(pair: Pair) -> tuple[int, int]:
    """Node numbers of the file's head and tail."""
    return (pair.second, pair.first) if pair.flipped else (pair.first, pair.second)


def head_behind_tail(context: Context, pair: Pair) -> bool:
    """Whether the head begins behind the tail in the text; never of an object."""
    head, tail = head_and_tail(pair)
    if max(head, tail) >= len(context.entities):
        return False
    return context.entities[head].start > context.entities[tail].start
