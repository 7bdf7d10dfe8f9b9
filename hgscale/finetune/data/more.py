"""MORE (NJUNLP/MORE): the head of a pair is in the text, its tail is an object of the image.

Source of the format: the published reader. ``txt/{train,valid,test}.txt`` has a line an instance, whose ``t`` is
{name, box}; ``ent_{train,valid,test}_dict.pth`` holds image -> {name: (centre x, centre y, width, height)} in shares of
the image; ``rel2id.json`` relation -> number; ``caption_dict.json``, where it is there, image -> {name: what it shows}.
"""

import json
from pathlib import Path
from typing import Any

from hgscale.errors import ConfigError, DataError
from hgscale.finetune.data.config import RelationDataConfig
from hgscale.finetune.data.images import SPLIT_NAMES, Source, load_pth
from hgscale.finetune.data.mnre import read_labels
from hgscale.finetune.data.text import SPLITS, Draft, find, read_contexts


def read_more(config: RelationDataConfig, source: Source) -> tuple[dict[str, list[Draft]], tuple[str, ...]]:
    """Contexts of each split, and the labels.

    Raises:
        ConfigError: if ``max_objects`` would leave out an object of a pair.
        DataError: naming the file and line.
    """
    labels = read_labels(find(source.root, ("rel2id.json", "more_rel2id.json", "ours_rel2id.json")))
    captions = _captions(source.root / "caption_dict.json")
    drafts = {}
    for split in SPLITS:
        words = SPLIT_NAMES[split]
        drafts[split] = read_contexts(find(source.root, tuple(f"{word}.txt" for word in words)), _tail)
        path = find(source.root, tuple(f"ent_{word}_dict.pth" for word in words))
        boxes = load_pth(path)
        for draft in drafts[split]:
            draft.objects = _objects(draft, boxes, path, captions.get(draft.image, {}))
            if len(draft.objects) > config.max_objects:
                raise ConfigError(
                    f"data.max_objects={config.max_objects}: {draft.image} has {len(draft.objects)} objects, and pairs "
                    f"name them; use at least {len(draft.objects)}"
                )
    return drafts, labels


def _tail(value: Any, where: str) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: t is {value!r:.80}; wanted an object's name and box")
    return name


def _objects(
    draft: Draft, boxes: Any, path: Path, captions: dict[str, str]
) -> dict[str, tuple[tuple[float, ...], str | None]]:
    """Box and label of each object of a context's image, in the order of its list."""
    listed = boxes.get(draft.image) if isinstance(boxes, dict) else None
    if not isinstance(listed, dict):
        raise DataError(f"{path}: has no objects of {draft.image}, which {draft.where} wants; is it another split's?")
    objects: dict[str, tuple[tuple[float, ...], str | None]] = {}
    for name, box in listed.items():
        values = box.tolist() if hasattr(box, "tolist") else box
        if not isinstance(values, list | tuple) or len(values) != 4:
            raise DataError(f"{path}: {draft.image}: {name!r} has {values!r:.60}; wanted (cx, cy, width, height)")
        objects[name] = (tuple(map(float, values)), captions.get(name, name))
    for link in draft.pairs.values():
        if link.tail not in objects:
            file = draft.where.rpartition(":")[0]
            raise DataError(
                f"{file}:{link.instance + 1}: t.name is {link.tail!r}, and {path} has {', '.join(objects)} for "
                f"{draft.image}; wanted one of them"
            )
    return objects


def _captions(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no JSON ({error}); fetch it again, or remove it") from None
    if not isinstance(values, dict) or not all(isinstance(one, dict) for one in values.values()):
        raise DataError(f"{path}: wanted image -> name of object -> caption")
    return values
