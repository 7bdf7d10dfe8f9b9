"""From a config to its data: files are read, checked, numbered, and kept as three splits under one set of labels."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hgscale import rng
from hgscale.errors import ConfigError
from hgscale.finetune.data.config import RelationDataConfig
from hgscale.finetune.data.contexts import RelationData, Split, features
from hgscale.finetune.data.images import Pictures, Source
from hgscale.finetune.data.mnre import read_mnre
from hgscale.finetune.data.more import read_more
from hgscale.finetune.data.planted import made
from hgscale.finetune.data.text import SPLITS, Draft, Node, one_label_set

if TYPE_CHECKING:
    import datasets


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
