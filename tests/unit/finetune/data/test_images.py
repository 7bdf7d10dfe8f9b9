"""Images, boxes and crop lists: real files, good and broken."""

import json
from pathlib import Path

import pytest
import torch

from hgscale.errors import ConfigError, DataError
from hgscale.finetune.data.contexts import Object
from tests.unit.finetune.data.material import ANN, BOB, NEW_YORK, instance, opened, picture, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One context of two pairs, and its image of 40 x 30."""
    picture(tmp_path / "images" / "a.png")
    return write(tmp_path / "d", [instance(), instance(ANN, NEW_YORK, "None")])


def lists(root: Path, content: object, name: str = "boxes.json") -> str:
    path = root.parent / name
    path.write_text(json.dumps(content))
    return str(path)


def test_boxes_become_objects_in_the_order_of_their_list_up_to_the_most(root):
    boxes = lists(root, {"a.png": [[0, 0, 10, 10], {"box": [5, 6, 40, 30], "label": "dog"}, [1, 1, 2, 2]]})
    images = str(root.parent / "images")
    (context,) = opened(root, images=images, boxes=boxes, max_objects=2).train
    assert context.image == str(root.parent / "images" / "a.png")
    assert context.size == (40, 30)
    assert context.objects == (Object((0, 0, 10, 10), None, None), Object((5, 6, 40, 30), "dog", None))
    assert context.num_nodes == 5
    assert context.pairs[0].num_crops is None


@pytest.mark.parametrize("folder", ["train", "."])
def test_images_lie_in_one_folder_or_in_one_for_each_split(root, folder):
    images = root.parent / "more"
    for split in ("train", "dev", "test") if folder == "train" else (".",):
        picture(images / split / "a.png")
    data = opened(root, images=str(images))
    assert all(Path(split[0].image).is_file() for split in data.splits)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (
            [0, 0, 42, 10],
            r"boxes.json: 'a.png'\[0\]: box \[0.0, 0.0, 42.0, 10.0\] is outside its image: the image is 40 x",
        ),
        ([-3, 0, 10, 10], r"is outside its image"),
        ([10, 0, 10, 10], r"has no area; wanted x0 < x1 and y0 < y1; is it x, y, width, height\?"),
        ([30, 20, 10, 10], r"has no area"),
        ([1, 2, 3], r"'a.png'\[0\]: is \[1, 2, 3\]; wanted \[x0, y0, x1, y1\]"),
        ([0, 0, float("nan"), 1], r"wanted \[x0, y0, x1, y1\]"),
    ],
)
def test_a_box_that_is_wrong_is_refused(root, box, message):
    with pytest.raises(DataError, match=message):
        opened(root, images=str(root.parent / "images"), boxes=lists(root, {"a.png": [box]}))


def test_a_box_that_rounding_took_over_the_edge_is_cut_back(root):
    boxes = lists(root, {"a": [[-0.5, 0, 40.6, 30]]})  # keys may leave out the ending
    (context,) = opened(root, images=str(root.parent / "images"), boxes=boxes).train
    assert context.objects[0].box == (0, 0, 40, 30)


def test_lists_of_other_images_are_refused(root):
    with pytest.raises(DataError, match=r"none of its 1 keys, as 'z.png', is an image of train, as 'a.png'"):
        opened(root, boxes=lists(root, {"z.png": [[0, 0, 1, 1]]}))


@pytest.mark.parametrize("how", ["missing", "cut off", "no image"])
def test_a_broken_image_is_refused_or_counted_as_absent(root, how):
    path = root.parent / "images" / "a.png"
    whole = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(whole[: len(whole) // 2] if how == "cut off" else b"GIF? no")
    fields = {"images": str(path.parent), "boxes": lists(root, {"a.png": [[0, 0, 1, 1]]})}
    complaint = "is missing" if how == "missing" else "is no whole image"
    with pytest.raises(DataError, match=rf"a.png: {complaint}.*mnre_train.txt:1 wants it; .*broken_images=absent"):
        opened(root, **fields)
    data = opened(root, broken_images="absent", **fields)
    assert (data.train[0].image, data.train[0].objects, data.train[0].size) == (None, (), None)
    assert data.statistics()["train"]["images_absent"] == 1
    assert data.statistics()["train"]["images"] == 0


def test_a_cut_off_jpeg_is_no_whole_image(root):
    from PIL import Image

    path = root.parent / "images" / "a.png"
    Image.open(picture(path, (300, 300))).save(path, format="JPEG")
    assert opened(root, images=str(path.parent)).train[0].size == (300, 300)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"a.png: is no whole image \(image file is truncated"):
        opened(root, images=str(path.parent))


def crop_lists(folder: Path, keys: dict[int, list[str]]) -> Path:
    """As shipped: ``txt/mre_*_dict.pth`` beside ``img_vg/*/crops``."""
    (folder / "txt").mkdir()
    for listed, kept in (("train", "train"), ("dev", "val"), ("test", "test")):
        torch.save(keys, folder / "txt" / f"mre_{listed}_dict.pth")
        for name in {name for names in keys.values() for name in names}:
            picture(folder / "img_vg" / kept / "crops" / name, (8, 8))
    return folder / "txt"


def test_crop_lists_by_instance_give_a_context_their_union_and_each_pair_its_count(root):
    txt = crop_lists(root.parent, {0: ["a_0.jpg", "a_1.jpg"], 1: ["a_1.jpg", "a_0.jpg", "dog.jpg"]})
    (context,) = opened(root, images=str(root.parent / "images"), boxes=str(txt)).train
    assert [Path(one.file).name for one in context.objects] == ["a_0.jpg", "a_1.jpg", "dog.jpg"]
    assert all(Path(one.file).is_file() for one in context.objects)
    assert [pair.num_crops for pair in context.pairs] == [2, 3]
    (texts,) = opened(root, boxes=str(txt)).train  # without images, for the audit
    assert [one.file for one in texts.objects] == [None] * 3
    assert [pair.num_crops for pair in texts.pairs] == [2, 3]


def test_an_instance_that_the_lists_lack_has_no_crop(root):
    txt = crop_lists(root.parent, {1: ["dog.jpg"]})
    assert [pair.num_crops for pair in opened(root, boxes=str(txt)).train[0].pairs] == [0, 1]


def test_a_missing_crop_is_refused_or_left_out(root):
    txt = crop_lists(root.parent, {0: ["a_0.jpg", "a_1.jpg"]})
    for split in ("train", "val", "test"):
        (root.parent / "img_vg" / split / "crops" / "a_0.jpg").unlink()
    fields = {"images": str(root.parent / "images"), "boxes": str(txt)}
    with pytest.raises(DataError, match=r"img_vg/train/crops/a_0.jpg: is missing"):
        opened(root, **fields)
    (context,) = opened(root, broken_images="absent", **fields).train
    assert [Path(one.file).name for one in context.objects] == ["a_1.jpg"]


def test_crop_lists_that_do_not_belong_are_refused(root):
    txt = crop_lists(root.parent, {1: ["dog.jpg"]})
    with pytest.raises(ConfigError, match=r"its keys number instances of one split; name the folder"):
        opened(root, boxes=str(txt / "mre_train_dict.pth"))
    torch.save({7: ["dog.jpg"]}, txt / "mre_test_dict.pth")
    with pytest.raises(DataError, match=r"mre_test_dict.pth: has instance 7, and the last of test is 1"):
        opened(root, boxes=str(txt))
    (txt / "mre_dev_dict.pth").unlink()
    with pytest.raises(ConfigError, match=r"files of val, .* with val or valid or dev in their names: none"):
        opened(root, boxes=str(txt))


def test_lists_of_instances_serve_fewer_contexts_too(root):
    write(root, [instance(img_id=f"{at}.png") for at in range(9)])
    txt = crop_lists(root.parent, {at: [f"{at}.jpg"] for at in range(9)})
    assert len(opened(root, boxes=str(txt), num_contexts=2).train) == 2


def test_a_pth_file_that_would_run_code_is_refused(root):
    path = root.parent / "boxes.pth"
    torch.save({"a.png": Path("x")}, path)
    with pytest.raises(DataError, match=r"boxes.pth: cannot be read as plain values"):
        opened(root, boxes=str(path))
    path.write_bytes(b"not a pickle")
    with pytest.raises(DataError, match=r"boxes.pth: cannot be read as plain values"):
        opened(root, boxes=str(path))


def test_places_that_are_not_there_are_refused(root):
    with pytest.raises(ConfigError, match=r"data.images=.*nowhere: is no folder; null reads the text only"):
        opened(root, images=str(root / "nowhere"))
    with pytest.raises(ConfigError, match=r"data.boxes=.*nowhere: there is no such file or folder"):
        opened(root, boxes=str(root / "nowhere"))


def test_instances_share_the_objects_of_their_image_by_name(root):
    boxes = lists(root, {"a": ["b.jpg", "b.jpg"], "other.png": [[0, 0, 1, 1]]})
    assert len(opened(root, boxes=boxes).train[0].objects) == 1
    assert BOB["name"] == opened(root).train[0].entities[1].name
