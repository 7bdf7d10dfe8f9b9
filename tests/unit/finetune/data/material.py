"""Small files of MNRE's format for tests: a sentence of four mentions, and pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from hgscale.finetune.data.config import RelationDataConfig
from hgscale.finetune.data.contexts import RelationData
from hgscale.finetune.data.open import open_data

TOKENS = ["Ann", "Lee", "met", "Bob", "in", "New", "York"]
ANN, BOB, YORK = ({"name": name, "pos": pos} for name, pos in (("Ann Lee", [0, 2]), ("Bob", [3, 4]), ("York", [6, 7])))
NEW_YORK = {"name": "New York", "pos": [5, 7]}
COUPLE, LIVES = "/per/per/couple", "/per/loc/place_of_residence"


def instance(head: dict = ANN, tail: dict = BOB, relation: str = COUPLE, **fields) -> dict:
    return {"token": TOKENS, "h": head, "t": tail, "img_id": "a.png", "relation": relation} | fields


def write(folder: Path, train: list, val: list | None = None, test: list | None = None, name: str = "mnre") -> Path:
    """Files of MNRE's format; val and test are train unless they are given."""
    folder.mkdir(exist_ok=True)
    for split, lines in (("train", train), ("val", val), ("test", test)):
        text = "".join(
            f"{line if isinstance(line, str) else repr(line)}\n" for line in (train if lines is None else lines)
        )
        (folder / f"{name}_{split}.txt").write_text(text)
    return folder


def opened(folder: Path, **fields) -> RelationData:
    return open_data(RelationDataConfig(root=str(folder), **fields))


def picture(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path
