"""Contexts: a text with its image, its entities and objects as nodes, and all its labelled pairs of them.

Nodes of a context are numbered entities first, in the order of the text, then objects, in the order of their list:
node i < num_entities is entity i, node num_entities + k is object k.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hgscale import rng
from hgscale.errors import ConfigError
from hgscale.finetune.data.config import RelationDataConfig
from hgscale.finetune.data.images import Pictures, Source
from hgscale.finetune.data.mnre import read_mnre
from hgscale.finetune.data.more import read_more
from hgscale.finetune.data.text import SPLITS, Draft, Node, one_label_set

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


def open_data(config: RelationDataConfig) -> RelationData:
    """Read and check the data of a config; planted data are made first where they are not there yet.

    Raises:
        ConfigError: if the config does not fit the data.
        DataError: naming file and line of what is wrong, and the repair.
    """
    return _opened(config, _stamps(config))


@lru_cache(maxsize=2)
def _opened(config: RelationDataConfig, stamps: tuple[tuple[str, int, int], ...]) -> RelationData:
    """The data of a config; runs that follow one another in a process often share theirs."""
    source = _source(config)
    drafts, labels = (read_more if config.name == "more" else read_mnre)(config, source)
    one_label_set(drafts, labels, few=config.name == "planted")
    pictures = Pictures(config, source, drafts)
    if config.num_contexts is not None:
        drafts["train"] = _first(drafts["train"], config)
    digest = hashlib.sha256("\n".join(labels).encode())
    splits = []
    for name in SPLITS:
        pictures.look(drafts[name], name)
        rows = [_row(draft, name, labels, pictures, config) for draft in drafts[name]]
        digest.update(json.dumps([_without_places(row) for row in rows], sort_keys=True).encode())
        splits.append(Split(name, _dataset(rows, labels), pictures.num_absent(drafts[name], name)))
    digest.update(pictures.digest().encode())
    train, val, test = splits
    return RelationData(train, val, test, labels, digest.hexdigest()[:32])


def _source(config: RelationDataConfig) -> Source:
    if config.name == "planted":
        from hgscale.finetune.data.planted import made

        return made(config)
    if config.root is None:
        raise ConfigError(f"data.root is not given; name the folder of the files of {config.name}")
    return Source(
        Path(config.root),
        None if config.images is None else Path(config.images),
        None if config.boxes is None else Path(config.boxes),
    )


def _without_places(row: dict[str, Any]) -> dict[str, Any]:
    """A row for its digest: files are known by what is in them."""
    objects = [{**one, "file": one["file"] is not None} for one in row["objects"]]
    return {**row, "image": row["image"] is not None, "objects": objects}


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


def _dataset(rows: list[dict[str, Any]], labels: tuple[str, ...]) -> "datasets.Dataset":
    from datasets import Dataset

    return Dataset.from_list(rows, features=features(labels))


def _first(drafts: list[Draft], config: RelationDataConfig) -> list[Draft]:
    """The first contexts in an order by seed, put back in the order of the file."""
    assert config.num_contexts is not None
    if config.num_contexts > len(drafts):
        raise ConfigError(
            f"data.num_contexts={config.num_contexts}: there are {len(drafts)} training contexts; take at most those"
        )
    order = rng.permute(np.arange(config.num_contexts), len(drafts), rng.key(config.seed, "training contexts"))
    return [drafts[at] for at in sorted(order.tolist())]


def _row(
    draft: Draft, split: str, labels: tuple[str, ...], pictures: Pictures, config: RelationDataConfig
) -> dict[str, Any]:
    """A context as a row of ``features``, its nodes numbered."""
    spans = sorted(draft.entities)
    number: dict[Node, int] = {span: at for at, span in enumerate(spans)}
    number |= {name: len(spans) + at for at, name in enumerate(draft.objects)}
    image = pictures.image(draft, split)
    size = image[1] if image else (1.0, 1.0) if draft.objects else None
    pairs = []
    for link in draft.pairs.values():
        head, tail = number[link.head], number[link.tail]
        flipped = config.pair_order == "text" and head > tail
        pairs.append(
            {
                "first": tail if flipped else head,
                "second": head if flipped else tail,
                "label": labels.index(link.relation),
                "flipped": flipped,
                "num_crops": pictures.num_crops(split, link.instance),
            }
        )
    return {
        "id": f"{split}:{draft.line}",
        "tokens": list(draft.tokens),
        "entities": [{"name": draft.entities[span], "start": span[0], "end": span[1]} for span in spans],
        "image": image[0] if image else None,
        "size": None if size is None else list(size),
        "objects": pictures.objects(draft, split),
        "pairs": pairs,
    }


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


def _stamps(config: RelationDataConfig) -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of annotations and images, so that changed ones are read again."""
    patterns = ((config.root, ("*", "txt/*")), (config.boxes, ("*",)), (config.images, ("*", "*/*")))
    found = []
    for place, depths in patterns:
        if place is None:
            continue
        path = Path(place)
        files = [file for depth in depths for file in path.glob(depth)] if path.is_dir() else [path]
        stats = [(str(file), file.stat()) for file in files if file.is_file()]
        found += [(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats]
    return tuple(sorted(found))
