from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hgscale.cluster.workers import ClusterConfig
from hgscale.errors import ConfigError, DataError, RunError
from hgscale.finetune import features as train_features
from hgscale.finetune.features import Computer, compute_features, open_store
from hgscale.finetune.store import ImageItem, TextItem
from hgscale.models.config import EncoderConfig
from hgscale.models.encoders import TextEncoder, VisionEncoder
from tests.unit.models.tiny import save_image, save_text_encoder, save_vision_encoder

HERE = ClusterConfig(launcher="none")
# float32: sums in another order, through three layers of values below 10.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
TEXTS = [
    TextItem(("bob", "is", "in", "new", "york", "city"), ((0, 1), (3, 6), (3, 5))),
    TextItem(("great", "!")),
    TextItem(("bobby", "is", "bob"), ((0, 1), (2, 3))),
]


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory) -> EncoderConfig:
    return EncoderConfig(path=str(save_text_encoder(tmp_path_factory.mktemp("bert"))), tuning="frozen", max_length=64)


@pytest.fixture(scope="module")
def vision_encoder(tmp_path_factory) -> EncoderConfig:
    return EncoderConfig(path=str(save_vision_encoder(tmp_path_factory.mktemp("clip"), "clip_whole")), tuning="frozen")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[ImageItem]:
    folder = tmp_path_factory.mktemp("images")
    paths = [str(save_image(folder / f"{seed}.png", seed, (40, 30 + seed))) for seed in range(3)]
    boxes = [None, (0.0, 0.0, 10.0, 10.0), (-3.0, 5.5, 20.2, 500.0)]
    return [ImageItem(path, box) for box in boxes for path in paths]


def test_features_of_texts_are_what_the_encoder_says_of_each_alone(text_encoder, tmp_path):
    assert compute_features(TEXTS, text_encoder, tmp_path, HERE) == 3
    store = open_store(tmp_path, text_encoder)
    assert (len(store), store.hidden_size) == (3 + 5, 16)
    encoder = TextEncoder(text_encoder)
    for item in TEXTS:
        mentions, sentence = encoder(*encoder.tokenize([item.tokens], [item.spans]).collate([0]))
        expected = torch.cat([sentence, mentions[0]]).numpy()
        np.testing.assert_allclose(store.read(item.keys), expected, **CLOSE)


def test_features_of_images_and_boxes_are_what_the_encoder_says_of_each_alone(vision_encoder, images, tmp_path):
    assert compute_features(images, vision_encoder, tmp_path, HERE) == 9
    store, encoder = open_store(tmp_path, vision_encoder), VisionEncoder(vision_encoder)
    for item in images:
        image = Image.open(item.path)
        if item.box == (-3.0, 5.5, 20.2, 500.0):
            image = image.crop((0, 5, 21, image.height))  # the pixels that it touches
        elif item.box is not None:
            image = image.crop(item.box)
        np.testing.assert_allclose(store.read(item.keys), encoder(encoder.process([image])).numpy(), **CLOSE)


def test_a_second_call_computes_nothing_and_a_longer_one_what_is_new(text_encoder, tmp_path, monkeypatch):
    assert compute_features([*TEXTS[:2], TEXTS[0]], text_encoder, tmp_path, HERE) == 2
    before = sorted(path.name for path in tmp_path.rglob("*.parquet"))
    with monkeypatch.context() as patch:
        patch.delattr(Computer, "__call__")
        assert compute_features(TEXTS[:2], text_encoder, tmp_path, HERE) == 0
    assert sorted(path.name for path in tmp_path.rglob("*.parquet")) == before
    assert compute_features(TEXTS, text_encoder, tmp_path, HERE) == 1
    assert compute_features(TEXTS, replace(text_encoder, pool="first"), tmp_path, HERE) == 3  # another encoder
    assert compute_features([], text_encoder, tmp_path, HERE) == 0


def test_a_killed_call_keeps_the_files_that_it_wrote(text_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(train_features, "CHUNK", 1)
    compute, chunks = Computer.__call__, []

    def dies_at_the_third(self, items) -> int:
        chunks.append(items)
        if len(chunks) == 3:
            raise KeyboardInterrupt
        return compute(self, items)

    with monkeypatch.context() as patch:
        patch.setattr(Computer, "__call__", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            compute_features(TEXTS, text_encoder, tmp_path, HERE)
    assert compute_features(TEXTS, text_encoder, tmp_path, HERE) == 1


def test_features_written_where_nobody_sees_them_are_one_line(text_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(Computer, "__call__", lambda self, items: len(items))  # a directory of its own node
    with pytest.raises(RunError, match=r"8 features that workers computed are not there; let all nodes see this"):
        compute_features(TEXTS, text_encoder, tmp_path, HERE)


def test_a_broken_image_is_one_line_that_names_it(vision_encoder, images, tmp_path):
    whole = Path(images[0].path).read_bytes()
    for name, content in {"half.png": whole[: len(whole) // 2], "empty.png": b"", "text.png": b"no image"}.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^{path}: not a whole image \([^\n]*\); replace it, or set"):
            compute_features([*images, ImageItem(str(path))], vision_encoder, tmp_path / "store", HERE)
    with pytest.raises(DataError, match=r"none\.png: cannot be read"):
        compute_features([ImageItem(str(tmp_path / "none.png"))], vision_encoder, tmp_path / "store", HERE)


@pytest.mark.parametrize("box", [(40, 0, 50, 10), (5, 5, 5, 9), (9, 9, 5, 5), (-5, -5, 0, 0)])
def test_a_box_without_a_pixel_is_one_line(vision_encoder, images, tmp_path, box):
    item = ImageItem(images[0].path, box)
    with pytest.raises(DataError, match=r"box \[[^\n]*\] has no pixel of an image of 40 x 30; correct it"):
        compute_features([item], vision_encoder, tmp_path, HERE)


def test_an_encoder_that_is_trained_has_no_store(text_encoder, tmp_path):
    with pytest.raises(ConfigError, match=r"encoder\.tuning=lora: features of an encoder that is trained"):
        compute_features(TEXTS, replace(text_encoder, tuning="lora"), tmp_path, HERE)


def test_cached_features_of_another_width_are_one_line(text_encoder, tmp_path):
    store = open_store(tmp_path, text_encoder)
    store.add(TEXTS[1].keys, np.ones((1, 8), dtype=np.float32))
    with pytest.raises(DataError, match=r"\.parquet: features of width 8, but those of this encoder are of width 16"):
        compute_features(TEXTS, text_encoder, tmp_path, HERE)
