import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from hgscale.errors import DataError
from hgscale.finetune.store import FeatureStore, ImageItem, TextItem

KEY = "0123456789abcdef"


def keys(*numbers: int) -> list[str]:
    return [f"{number:032x}" for number in numbers]


def features(*numbers: int, width: int = 3) -> np.ndarray:
    """Features that tell their key."""
    return np.array([[number, number / 3, -number, 1][:width] for number in numbers], dtype=np.float32)


def test_what_is_added_is_read_in_the_order_asked_for(tmp_path):
    store = FeatureStore(tmp_path, KEY)
    assert store.hidden_size is None
    assert store.missing(keys(3, 1, 3)) == keys(3, 1)
    store.add(keys(1, 2), features(1, 2))
    store.add(keys(7), features(7))
    store.add([], features())
    for seen in (store, FeatureStore(tmp_path, KEY, hidden_size=3)):
        assert seen.missing(keys(3, 1, 7)) == keys(3)
        assert np.array_equal(seen.read(keys(7, 1, 2, 7)), features(7, 1, 2, 7))
        assert seen.read([]).shape == (0, 3)
        assert (len(seen), seen.hidden_size) == (3, 3)
    with pytest.raises(DataError, match=rf"2 of 3 features are not there, as {keys(9)[0]}"):
        store.read(keys(1, 9, 8))


def test_encoders_have_stores_of_their_own(tmp_path):
    FeatureStore(tmp_path, KEY).add(keys(1), features(1))
    other = FeatureStore(tmp_path, "fedcba")
    assert other.missing(keys(1)) == keys(1)
    other.add(keys(1), features(1, width=2))
    assert FeatureStore(tmp_path, KEY).hidden_size == 3


def test_features_of_another_width_are_one_line(tmp_path):
    store = FeatureStore(tmp_path, KEY)
    store.add(keys(1), features(1))
    with pytest.raises(DataError, match=r"^the encoder's features: features of width 2, [^\n]* of width 3; delete"):
        store.add(keys(2), features(2, width=2))
    with pytest.raises(DataError, match=r"\.parquet: features of width 3, but those of this encoder are of width 8"):
        FeatureStore(tmp_path, KEY, hidden_size=8)


def test_a_damaged_file_is_named(tmp_path):
    store = FeatureStore(tmp_path, KEY)
    numbers = range(100)
    store.add(keys(*numbers), features(*numbers))
    (path,) = store.directory.iterdir()
    whole = path.read_bytes()
    at = whole.index(features(*numbers).tobytes()) + 601
    for damaged in (whole[:500], b"", whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"^{path}: damaged, or not written here \([^\n]*\); delete it[^\n]*$"):
            FeatureStore(tmp_path, KEY).read(keys(5))
    path.unlink()
    foreign = store.directory / "foreign.parquet"
    FeatureStore(tmp_path, "other").add(keys(1), features(1))
    (written,) = (tmp_path / "other").iterdir()
    written.rename(foreign)
    with pytest.raises(DataError, match=rf"^{foreign}: holds features of another encoder"):
        FeatureStore(tmp_path, KEY)


def test_half_a_file_of_a_process_that_was_killed_is_not_seen(tmp_path):
    store = FeatureStore(tmp_path, KEY)
    store.add(keys(1), features(1))
    (path,) = store.directory.iterdir()
    path.rename(path.with_name(f".{path.name}.123.part"))
    assert len(FeatureStore(tmp_path, KEY)) == 0


def _add(directory: Path, first: int) -> None:
    store = FeatureStore(directory, KEY)
    for number in range(first, first + 20):
        store.add(keys(number, 1000), features(number, 1000))


def test_many_processes_add_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add, args=(tmp_path, first)) for first in (0, 20, 40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store = FeatureStore(tmp_path, KEY)
    numbers = [*range(60), 1000]
    assert np.array_equal(store.read(keys(*numbers)), features(*numbers))
    assert len(store) == 61


def test_the_key_of_an_image_is_of_its_bytes_and_the_box(tmp_path):
    one, same, other = (tmp_path / name for name in ("one.png", "same.png", "other.png"))
    for path, content in ((one, b"an image"), (same, b"an image"), (other, b"another image")):
        path.write_bytes(content)
    key = ImageItem(str(one)).keys
    assert ImageItem(str(same)).keys == key
    assert ImageItem(str(one), (0, 0, 40, 30)).keys == ImageItem(str(one), (0.0, 0.0, 40.0, 30.0)).keys
    distinct = [key, ImageItem(str(other)).keys, *(ImageItem(str(one), (0, 0, 40, y)).keys for y in (30, 29.5))]
    assert len(set(distinct)) == 4
    one.write_bytes(other.read_bytes())
    assert ImageItem(str(one)).keys == ImageItem(str(other)).keys
    with pytest.raises(DataError, match=r"none\.png: cannot be read \(No such file or directory\)"):
        _ = ImageItem(str(tmp_path / "none.png")).keys


def test_the_keys_of_a_text_are_of_its_words_and_all_its_mentions():
    text = TextItem(("a", "b", "c"), ((0, 1), (1, 3)))
    assert len(text.keys) == len(set(text.keys)) == 3
    assert TextItem(("a", "b", "c"), ((np.int64(0), np.int32(1)), (1, 3))).keys == text.keys
    others = [
        TextItem(("a", "b", "c"), ((1, 3), (0, 1))),
        TextItem(("a", "b", "c"), ((0, 1),)),
        TextItem(("a b", "c"), ((0, 1), (1, 3))),
        TextItem(("a", "b", "c")),
    ]
    found = [key for item in [text, *others] for key in item.keys]
    assert len(set(found)) == len(found)
