"""Which hypergraphs a context becomes, and what of them an encoder is to look at. Knows no torch."""

import dataclasses
from collections.abc import Iterator, Sequence

from hgscale.finetune.data.contexts import Context, Object, Pair, Split
from hgscale.finetune.store import ImageItem, Item, TextItem
from hgscale.finetune.task import FinetuneTask
from hgscale.models.config import EncoderConfig, VmhanConfig


def rows_of(context: Context, model: VmhanConfig, sees: bool) -> Iterator[Context]:
    """The hypergraphs that a context becomes, their pairs in the order of the context's.

    Of its objects those stay that are in a pair, and of the others the first ``top_objects`` if the model sees any.
    """
    kept = _kept_objects(context, model.top_objects if model.objects and sees else 0)
    context = _renumbered(context, range(len(context.entities)), kept, context.pairs)
    if model.pairs == "together":
        yield context
    else:
        yield from (_only(context, pair) for pair in context.pairs)


def _kept_objects(context: Context, top: int) -> list[int]:
    num_entities = len(context.entities)
    asked = {node - num_entities for pair in context.pairs for node in (pair.first, pair.second)}
    others = [k for k in range(len(context.objects)) if k not in asked]
    return sorted([k for k in asked if k >= 0] + others[:top])


def _only(context: Context, pair: Pair) -> Context:
    """The pair alone: its entities, and all objects."""
    entities = [node for node in sorted({pair.first, pair.second}) if node < len(context.entities)]
    return _renumbered(context, entities, range(len(context.objects)), [pair])


def _renumbered(context: Context, entities: Sequence[int], objects: Sequence[int], pairs: Sequence[Pair]) -> Context:
    """A part of a context."""
    before = len(context.entities)
    number = {node: new for new, node in enumerate([*entities, *(before + k for k in objects)])}
    return dataclasses.replace(
        context,
        entities=tuple(context.entities[i] for i in entities),
        objects=tuple(context.objects[k] for k in objects),
        pairs=tuple(dataclasses.replace(p, first=number[p.first], second=number[p.second]) for p in pairs),
    )


def text_items(rows: Sequence[Context]) -> list[TextItem]:
    """What a frozen text encoder reads."""
    return [TextItem(row.tokens, tuple((entity.start, entity.end) for entity in row.entities)) for row in rows]


def image_items(row: Context, model: VmhanConfig) -> list[ImageItem | None]:
    """What a vision encoder looks at: the image, then the objects; None for what is not there or left out."""
    whole = ImageItem(row.image) if row.image is not None and model.images else None
    return [whole, *(_object_item(row, one) for one in row.objects)]


def _object_item(row: Context, one: Object) -> ImageItem | None:
    if one.file is not None:
        return ImageItem(one.file)
    return ImageItem(row.image, one.box) if row.image is not None and one.box is not None else None


def frozen_items(task: FinetuneTask, splits: Sequence[Split]) -> Iterator[tuple[str, EncoderConfig, list[Item]]]:
    """Each encoder of a task that is frozen (text, vision), and what it is to look at in some splits."""
    rows = [row for split in splits for one in split for row in rows_of(one, task.model, task.sees_images)]
    if task.text.tuning == "frozen":
        yield "text", task.text, list(text_items(rows))
    if task.sees_images and task.vision is not None and task.vision.tuning == "frozen":
        items = dict.fromkeys(item for row in rows for item in image_items(row, task.model))
        yield "vision", task.vision, [item for item in items if item is not None]
