"""MNRE (thecharm/MNRE, version 2): both ends of a pair are in the text. Planted data have its format too."""

import json
from pathlib import Path

from hgscale.errors import DataError
from hgscale.finetune.data.config import RelationDataConfig
from hgscale.finetune.data.images import Source
from hgscale.finetune.data.text import SPLITS, Draft, find, read_contexts

NONE = "None"
LABELS = (
    NONE,
    "/per/per/parent",
    "/per/per/siblings",
    "/per/per/couple",
    "/per/per/neighbor",
    "/per/per/peer",
    "/per/per/charges",
    "/per/per/alumi",
    "/per/per/alternate_names",
    "/per/org/member_of",
    "/per/loc/place_of_residence",
    "/per/loc/place_of_birth",
    "/org/org/alternate_names",
    "/org/org/subsidiary",
    "/org/loc/locate_at",
    "/loc/loc/contain",
    "/per/misc/present_in",
    "/per/misc/awarded",
    "/per/misc/race",
    "/per/misc/religion",
    "/per/misc/nationality",
    "/misc/misc/part_of",
    "/misc/loc/held_on",
)
"""The relations of MNRE, in the order of their published numbers."""


def read_mnre(config: RelationDataConfig, source: Source) -> tuple[dict[str, list[Draft]], tuple[str, ...]]:
    """Contexts of each split, and the labels.

    Raises:
        DataError: naming the file and line.
    """
    drafts = {split: read_contexts(find(source.root, _names(split))) for split in SPLITS}
    return drafts, read_labels(source.root / "rel2id.json") if config.name == "planted" else LABELS


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels by their numbers, from a JSON object of name -> number.

    Raises:
        DataError: if the numbers are not 0, 1, 2, ... or number 0 is not None.
    """
    try:
        numbers = json.loads(path.read_text())
        labels = tuple(sorted(numbers, key=numbers.__getitem__))
        counted = [numbers[label] for label in labels] == list(range(len(labels)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); wanted JSON of relation -> number") from None
    if not counted or len(labels) < 2 or labels[0].lower() != "none":
        raise DataError(f"{path}: numbers {list(numbers.values())[:5]}...; wanted 0, 1, 2, ... with None as 0")
    return labels


def _names(split: str) -> tuple[str, ...]:
    """Names that a split goes by; one of the published files has a space before its ending."""
    return f"mnre_{split}.txt", f"ours_{split}.txt", f"mnre_{split} .txt"
