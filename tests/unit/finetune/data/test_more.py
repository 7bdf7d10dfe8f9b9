"""MORE: pairs of a mention and an object, from files made in its published format."""

import json
from pathlib import Path

import pytest
import torch

from hgscale.errors import ConfigError, DataError
from hgscale.finetune.data.audit import gate
from hgscale.finetune.data.config import RelationDataConfig
from hgscale.finetune.data.contexts import Entity, Object, Pair, RelationData
from hgscale.finetune.data.open import open_data
from tests.unit.finetune.data.material import ANN, BOB, instance, picture

LABELS = {"none": 0, "hold": 1, "wear": 2}
BOXES = {"obj1": (0.5, 0.5, 0.5, 1.0), "obj2": (0.25, 0.25, 0.5, 0.5), "obj3": (0.9, 0.9, 0.2, 0.2)}


def pair(head: dict, name: str, relation: str) -> dict:
    return instance(head, {"name": name, "box": list(BOXES.get(name, ()))}, relation)


LINES = [pair(ANN, "obj2", "hold"), pair(BOB, "obj2", "none"), pair(ANN, "obj1", "wear")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "MORE", LINES)


def write(root: Path, lines: list[dict], boxes: dict | None = None) -> Path:
    (root / "txt").mkdir(parents=True)
    (root / "rel2id.json").write_text(json.dumps(LABELS))
    (root / "caption_dict.json").write_text(json.dumps({"a.png": {"obj2": "a red cup"}}))
    for split in ("train", "valid", "test"):
        (root / "txt" / f"{split}.txt").write_text("".join(f"{line!r}\n" for line in lines))
        torch.save({"a.png": boxes or BOXES}, root / f"ent_{split}_dict.pth")
        picture(root / "img_org" / split / "a.png", (40, 20))
    return root


def opened(root: Path, **fields) -> RelationData:
    return open_data(RelationDataConfig(name="more", root=str(root), **fields))


def test_pairs_are_of_an_entity_and_an_object(root):
    data = opened(root, images=str(root / "img_org"))
    (context,) = data.train
    assert data.labels == ("none", "hold", "wear")
    assert context.entities == (Entity("Ann Lee", 0, 2), Entity("Bob", 3, 4))
    assert context.objects == (
        Object((10, 0, 30, 20), "obj1", None),
        Object((0, 0, 20, 10), "a red cup", None),
        Object((32, 16, 40, 20), "obj3", None),
    )
    assert context.pairs == (Pair(0, 3, 1, False), Pair(1, 3, 0, False), Pair(0, 2, 2, False))
    assert context.size == (40, 20)
    assert {split.name: len(split) for split in data.splits} == {"train": 1, "val": 1, "test": 1}


def test_without_images_boxes_are_shares(root):
    (context,) = opened(root).train
    assert context.size == (1, 1)
    assert context.objects[0].box == (0.25, 0, 0.75, 1)
    assert context.image is None


def test_objects_of_more_are_judged_by_the_gate(root):
    config = RelationDataConfig(name="more", root=str(root), images=str(root / "img_org"))
    assert all(row.input in ("images", "boxes") for row in gate(open_data(config), config).rows)


def test_an_object_of_a_pair_is_never_left_out(root):
    with pytest.raises(ConfigError, match=r"data.max_objects=2: a.png has 3 objects, .*; use at least 3"):
        opened(root, max_objects=2)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"train.txt:4: t.name is 'obj9', and .*ent_train_dict.pth has obj1, obj2, obj3"
    ):
        opened(write(tmp_path / "name", [*LINES, pair(BOB, "obj9", "hold")]))
    with pytest.raises(DataError, match=r"train.txt:1: object 'obj1' of a.png: box .* is outside its image"):
        opened(write(tmp_path / "box", LINES, BOXES | {"obj1": (0.5, 0.5, 1.5, 1.0)}))
    with pytest.raises(DataError, match=r"a.png: 'obj3' has \(1, 2\); wanted \(cx, cy, width, height\)"):
        opened(write(tmp_path / "four", LINES, BOXES | {"obj3": (1, 2)}))
    with pytest.raises(DataError, match=r"train.txt:4: relation is 'eat'; wanted one of the 3 labels"):
        opened(write(tmp_path / "label", [*LINES, pair(BOB, "obj1", "eat")]))


def test_labels_must_be_counted_from_none(root):
    (root / "rel2id.json").write_text(json.dumps({"hold": 0, "none": 1}))
    with pytest.raises(DataError, match=r"rel2id.json: numbers .* wanted 0, 1, 2, ... with None as 0"):
        opened(root)
    (root / "rel2id.json").unlink()
    with pytest.raises(DataError, match=r"holds no rel2id.json"):
        opened(root)
