"""Features computed by actors of a private Ray: the same as in one process, and errors in one line."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from hgscale.cluster.workers import ClusterConfig, ray_cluster
from hgscale.errors import DataError, RunError
from hgscale.finetune.features import FEW, compute_features, open_store
from hgscale.finetune.store import ImageItem, TextItem
from hgscale.models.config import EncoderConfig
from tests.unit.models.tiny import WORDS, save_image, save_text_encoder, save_vision_encoder

# float32: sums in another order, through three layers of values below 10.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
RAY, HERE = ClusterConfig(num_workers=2), ClusterConfig(launcher="none")


@pytest.fixture(scope="module", autouse=True)
def one_cluster():
    with ray_cluster(None, threads=1):
        yield


def test_texts_are_computed_in_parallel_as_in_one_process(tmp_path):
    encoder = EncoderConfig(path=str(save_text_encoder(tmp_path / "bert")), tuning="frozen", max_length=64)
    words = np.random.default_rng(0).choice(WORDS[:8], (FEW + 30, 9))
    texts = [TextItem(tuple(row[: 2 + number % 8].tolist()), ((0, 1), (0, 2))) for number, row in enumerate(words)]
    num_distinct = len({text.keys for text in texts})
    assert num_distinct > FEW
    assert compute_features(texts[:10], encoder, tmp_path / "ray", HERE) == 10
    left = num_distinct - 10
    assert compute_features(texts, encoder, tmp_path / "ray", RAY) == left
    assert len(list((tmp_path / "ray").rglob("*.parquet"))) >= 8  # files of several chunks
    assert compute_features(texts, encoder, tmp_path / "ray", RAY) == 0
    assert compute_features(texts, encoder, tmp_path / "here", HERE) == num_distinct
    keys = [key for text in texts for key in text.keys]
    found, expected = (open_store(tmp_path / place, encoder).read(keys) for place in ("ray", "here"))
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_images_are_computed_in_parallel_and_a_broken_one_is_named(tmp_path):
    encoder = EncoderConfig(path=str(save_vision_encoder(tmp_path / "vit", "vit")), tuning="frozen")
    paths = [str(save_image(tmp_path / f"{seed}.png", seed)) for seed in range(20)]
    images = [ImageItem(path, (0, 0, 5 + size, 20)) for path in paths for size in range(FEW // 20 + 1)]
    assert compute_features(images, encoder, tmp_path / "ray", RAY) == len(images) > FEW
    assert compute_features(images, encoder, tmp_path / "here", HERE) == len(images)
    keys = [key for image in images for key in image.keys]
    found, expected = (open_store(tmp_path / place, encoder).read(keys) for place in ("ray", "here"))
    np.testing.assert_allclose(found, expected, **CLOSE)
    broken = Path(paths[7])
    broken.write_bytes(broken.read_bytes()[:200])
    again = [ImageItem(image.path, image.box) for image in images]
    with pytest.raises(DataError, match=rf"^{broken}: not a whole image"):
        compute_features(again, encoder, tmp_path / "third", RAY)


@contextmanager
def actors_killed(num_kills: int) -> Iterator[list[int]]:
    """While this lasts, so many of the actors that this process started are killed, each as soon as it is seen."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.2) and len(killed) < num_kills:
            for process in psutil.Process().children(recursive=True):
                try:
                    is_actor = "_Actor" in " ".join(process.cmdline())
                    if is_actor and process.pid not in killed and len(killed) < num_kills:
                        time.sleep(0.5)  # it has a chunk by then
                        process.kill()
                        killed.append(process.pid)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.fixture
def many_texts() -> list[TextItem]:
    return [TextItem(tuple(f"{number:04d}"), ((0, 1), (1, 4))) for number in range(8 * FEW)]


def test_an_actor_that_is_killed_is_replaced(tmp_path, many_texts):
    encoder = EncoderConfig(path=str(save_text_encoder(tmp_path / "bert")), tuning="frozen", max_length=64)
    with actors_killed(1) as killed:
        assert compute_features(many_texts, encoder, tmp_path / "ray", RAY) == len(many_texts)
    assert killed
    store = open_store(tmp_path / "ray", encoder)
    assert not store.missing(key for text in many_texts for key in text.keys)


@pytest.mark.slow
def test_actors_that_die_over_and_over_are_given_up(tmp_path, many_texts):
    encoder = EncoderConfig(path=str(save_text_encoder(tmp_path / "bert")), tuning="frozen", max_length=64)
    with (
        actors_killed(10**6) as killed,
        pytest.raises(RunError, match=r"workers died 2 times over the same items"),
    ):
        compute_features(many_texts, encoder, tmp_path / "ray", ClusterConfig(num_workers=1, max_failures=1))
    assert len(killed) > 1
