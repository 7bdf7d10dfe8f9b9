"""Features of frozen encoders: which are missing, and computing them, here or by actors of a Ray cluster.

What is computed is a function of the item and the encoder: who computes it, and with what others, changes it by the
rounding of sums at most.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from hgscale import config as configs
from hgscale.cluster.workers import ClusterConfig
from hgscale.errors import ConfigError, DataError, RunError
from hgscale.finetune.store import Box, FeatureStore, ImageItem, Item, TextItem
from hgscale.models.config import EncoderConfig

if TYPE_CHECKING:
    from PIL import Image

FEW = 128  # items that this process computes also with launcher=ray: a cluster takes longer to start
CHUNK = 512  # items of one file
CHUNKS_EACH = 4  # that a worker computes at least, if there are items enough: so none waits long for the last
BATCH = 32  # items of one forward pass


def features_dir() -> Path:
    """Where features of frozen encoders are kept, for all runs."""
    return configs.runs_home() / "features"


def open_store(directory: str | Path, encoder: EncoderConfig) -> FeatureStore:
    """The features of an encoder that are there.

    Raises:
        ConfigError: if there is no such encoder, or it is not frozen.
        DataError: if a file of the store is damaged.
    """
    from hgscale.models.encoders import encoder_key

    if encoder.tuning != "frozen":
        raise ConfigError(
            f"encoder.tuning={encoder.tuning}: features of an encoder that is trained cannot be kept; set it to frozen"
        )
    return FeatureStore(directory, encoder_key(encoder))


def missing_items(items: Sequence[Item], store: FeatureStore) -> list[Item]:
    """Those whose features are not in a store, each once, in the order in which they are best computed.

    Raises:
        DataError: the file of an item cannot be read.
    """
    absent = set(store.missing(key for item in items for key in item.keys))
    wanted = {item.keys[0]: item for item in items if not absent.isdisjoint(item.keys)}
    # One image is opened once for all its boxes, and texts of one length are not filled up.
    return sorted(wanted.values(), key=_order)


def _order(item: Item) -> tuple[int, str]:
    return (len(item.tokens), "") if isinstance(item, TextItem) else (0, item.path)


def compute_features(
    items: Sequence[Item], encoder: EncoderConfig, directory: str | Path, cluster: ClusterConfig
) -> int:
    """Put the features of items into the store of a frozen encoder, as far as they are missing.

    A call that was killed is gone on with by the same call. Read them with ``open_store(...).read(item.keys)``.

    Args:
        items: all texts, or all images.
        encoder: of texts or of images, as the items.
        directory: of the stores; all workers see it.
        cluster: launcher ray with more than ``FEW`` items: as many actors as workers, each with their resources.

    Returns:
        How many items were computed, each counted once.

    Raises:
        ConfigError: if there is no such encoder, it is not frozen, or the cluster has no room.
        DataError: naming an image that is missing, broken, or has nothing in its box.
        RunError: if the disk is full, workers died over and over, or what they wrote is not seen here.
    """
    store = open_store(directory, encoder)
    wanted = missing_items(items, store)
    if not wanted:
        return 0
    job = FeatureJob.of(encoder, directory, cluster.device)
    is_small = cluster.launcher == "none" or len(wanted) <= FEW
    computed = compute_here(wanted, Computer(_at_hand(job))) if is_small else _with_ray(job, wanted, cluster)
    with tqdm(total=len(wanted), desc="features", unit="", leave=False, disable=not sys.stderr.isatty()) as bar:
        for num_items in computed:
            bar.update(num_items)
    store.refresh()
    if left := store.missing(key for item in wanted for key in item.keys):
        raise RunError(
            f"{store.directory}: {len(left)} features that workers computed are not there; let all nodes see this "
            f"directory, and the same files as encoder.path={encoder.path}"
        )
    return len(wanted)


def _at_hand(job: "FeatureJob") -> "FeatureJob":
    """Few items are computed here even where only the workers have GPUs."""
    import torch

    return job if torch.cuda.is_available() else replace(job, device="cpu")


def _with_ray(job: "FeatureJob", items: Sequence[Item], cluster: ClusterConfig) -> Iterator[int]:
    """Chunks by a pool of actors.  -> the number of items of each, as they are done."""
    from hgscale.cluster.actors import in_actors

    size = min(CHUNK, -(-len(items) // (CHUNKS_EACH * cluster.min_workers)))
    return in_actors(Computer, (job,), chunks(items, size), cluster, Path(job.directory), "features")


def compute_here(items: Sequence[Item], computer: "Computer") -> Iterator[int]:
    """Compute items in this process.  -> the number of items of each chunk, as they are done.

    Raises:
        ConfigError: if there is no such encoder.
        DataError: naming an image that is missing, broken, or has nothing in its box.
        RunError: if the disk is full.
    """
    for chunk in chunks(items, CHUNK):
        yield computer(chunk)


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Items in parts of a size, the last one perhaps smaller."""
    return [items[start : start + size] for start in range(0, len(items), size)]


@dataclass(frozen=True)
class FeatureJob:
    """What who computes needs besides items.

    Attributes:
        encoder: frozen.
        directory: of the stores, absolute.
        device: where to compute.
    """

    encoder: EncoderConfig
    directory: str
    device: str

    @staticmethod
    def of(encoder: EncoderConfig, directory: str | Path, device: str) -> "FeatureJob":
        """With absolute paths: an actor's working directory may be another."""
        return FeatureJob(encoder.with_absolute_path(), str(Path(directory).absolute()), device)


class Computer:
    """An encoder, loaded at the first chunk, and the store that its features go to."""

    def __init__(self, job: FeatureJob) -> None:
        self.job = job
        self.encoder: Any = None

    def __call__(self, items: Sequence[Item]) -> int:
        """Compute all features of items, and add them to the store as one file.  -> the number of items."""
        import torch

        if self.encoder is None:
            self.encoder = self._load(is_text=isinstance(items[0], TextItem))
            self.store = FeatureStore(self.job.directory, self._key, hidden_size=self.encoder.hidden_size)
        with torch.inference_mode():
            found = [self._features(batch) for batch in chunks(items, BATCH)]
        self.store.add([key for item in items for key in item.keys], np.concatenate(found))
        return len(items)

    def _load(self, is_text: bool) -> Any:
        from hgscale.models.encoders import TextEncoder, VisionEncoder, encoder_key

        self._key = encoder_key(self.job.encoder)
        kind = TextEncoder if is_text else VisionEncoder
        return kind(self.job.encoder).to(self.job.device)

    def _features(self, items: Sequence[Any]) -> np.ndarray:
        """Features of one batch in the order of the items' keys.  -> [k v] float32."""
        if isinstance(items[0], TextItem):
            return self._of_texts(items)
        pixels = self.encoder.process(list(_pictures(items)))
        return np.asarray(self.encoder(pixels.to(self.job.device)).float().cpu())

    def _of_texts(self, items: Sequence[TextItem]) -> np.ndarray:
        rows = self.encoder.tokenize([item.tokens for item in items], [item.spans for item in items])
        batch = rows.collate(range(len(items)))
        mentions, sentence = self.encoder(*(tensor.to(self.job.device) for tensor in batch))
        both = np.concatenate([sentence[:, None].float().cpu().numpy(), mentions.float().cpu().numpy()], axis=1)
        is_there = np.arange(both.shape[1]) < np.array([len(item.keys) for item in items])[:, None]
        return both[is_there]


def _pictures(items: Sequence[ImageItem]) -> Iterator["Image.Image"]:
    """The images or boxes of items; one file, several times in a row, is read once."""
    path, image = "", None
    for item in items:
        if item.path != path or image is None:
            path, image = item.path, read_image(item.path)
        yield image if item.box is None else cut_box(image, item.box, item.path)


def read_image(path: str) -> "Image.Image":
    """An image file, decoded whole, as RGB.

    Raises:
        DataError: if there is none, or it is broken.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: not a whole image ({reason}); replace it, or set broken_images to absent") from None


def cut_box(image: "Image.Image", box: Box, path: str) -> "Image.Image":
    """The pixels that a box touches.

    Raises:
        DataError: if it touches none.
    """
    x0, y0, x1, y1 = box
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(image.width, int(np.ceil(x1))), min(image.height, int(np.ceil(y1)))
    if left >= right or top >= bottom:
        raise DataError(
            f"{path}: box {[float(edge) for edge in box]} has no pixel of an image of {image.width} x {image.height}; "
            "correct it (x0, y0, x1, y1 in pixels), or leave it out"
        )
    return image.crop((left, top, right, bottom))
