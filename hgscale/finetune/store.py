"""Features of frozen encoders on disk: what is computed once need not be computed again.

A feature's key is a hash of the content that it was computed from, and its folder is named by a hash of the encoder, so
nothing in a store is ever wrong; it is there or not. Any number of processes add to a store at once: each adds Parquet
files of its own (columns key and feature), whole or not at all.

Axes: k keys, v width of a feature.
"""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hgscale.data.disk.manifest import write_file
from hgscale.errors import DataError

KEY_BYTES = 16
_ENCODER, _WIDTH = b"hgscale.encoder", b"hgscale.width"

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageItem:
    """An image, or a box of it, of which one feature is wanted.

    Attributes:
        path: of the image file.
        box: x0, y0, x1, y1 in pixels; None: the whole image.
    """

    path: str
    box: Box | None = None

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """One key, of the file's bytes and the box. Raises DataError: the file cannot be read."""
        box = "whole" if self.box is None else " ".join(float(edge).hex() for edge in self.box)
        return (_key(f"image {_file_hash(self.path)} {box}"),)


@dataclass(frozen=True)
class TextItem:
    """A text with its mentions, of which 1 + e features are wanted: of the text, then of each mention.

    Attributes:
        tokens: its words.
        spans: words [start, end) of each mention.
    """

    tokens: tuple[str, ...]
    spans: tuple[tuple[int, int], ...] = ()

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys of the text and of its mentions, of all words and spans: marks of one are seen by the others."""
        spans = tuple((int(start), int(end)) for start, end in self.spans)
        whole = f"text {tuple(self.tokens)!r} {spans!r}"
        return tuple(_key(f"{whole} {number}") for number in range(len(spans) + 1))


Item = ImageItem | TextItem


def _key(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[: 2 * KEY_BYTES]


def _file_hash(path: str) -> str:
    try:
        state = Path(path).stat()
        return _hash_of(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); put the image there, or leave it out") from None


@lru_cache(maxsize=1 << 16)  # an image has many boxes
def _hash_of(path: str, mtime_ns: int, num_bytes: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FeatureStore:
    """The features that one encoder has given so far.

    Attributes:
        directory: of this encoder's files.
    """

    def __init__(self, directory: str | Path, encoder_key: str, hidden_size: int | None = None) -> None:
        """Open a store, which need not be there.

        Args:
            directory: of the stores of all encoders.
            encoder_key: what ``hgscale.models.encoders.encoder_key`` says of the encoder.
            hidden_size: v, if it is known; None: that of what is there.

        Raises:
            DataError: if a file in it is damaged, of another encoder, or its features are of another width.
        """
        self.directory = Path(directory) / encoder_key
        self.encoder_key = encoder_key
        self._width = hidden_size
        self._parts: list[Path] = []
        self._places: dict[bytes, tuple[int, int]] = {}  # key -> part, row
        self.refresh()

    @property
    def hidden_size(self) -> int | None:
        """v; None while nothing is there."""
        return self._width

    def __len__(self) -> int:
        return len(self._places)

    def refresh(self) -> None:
        """See what others have added since."""
        known = set(self._parts)
        for path in sorted(self.directory.glob("[!.]*.parquet")):
            if path not in known:
                keys = self._keys_of(path)
                self._parts.append(path)
                for row, key in enumerate(keys):
                    self._places.setdefault(key, (len(self._parts) - 1, row))

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that are not there, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if bytes.fromhex(key) not in self._places]

    def add(self, keys: Sequence[str], features: np.ndarray) -> None:
        """Write features: one file, whole or not at all.

        Args:
            keys: k, as items give them.
            features: [k v] float32.

        Raises:
            DataError: if they are of another width than what is there.
            RunError: if the disk refuses.
        """
        assert len(keys) == len(features), (len(keys), features.shape)
        if not keys:
            return
        self._check_width(features.shape[1], "the encoder's features")
        path = self.directory / f"{uuid.uuid4().hex}.parquet"
        content = pa.table(
            {
                "key": pa.array([bytes.fromhex(key) for key in keys], pa.binary(KEY_BYTES)),
                "feature": pa.FixedSizeListArray.from_arrays(
                    pa.array(np.ascontiguousarray(features, dtype=np.float32).ravel()), features.shape[1]
                ),
            }
        ).replace_schema_metadata({_ENCODER: self.encoder_key.encode(), _WIDTH: str(features.shape[1]).encode()})
        sink = pa.BufferOutputStream()
        pq.write_table(content, sink, compression="NONE", use_dictionary=False, write_page_checksum=True)
        write_file(self.directory, path.name, memoryview(sink.getvalue()))
        self.refresh()

    def read(self, keys: Sequence[str]) -> np.ndarray:
        """Features by their keys.  -> [k v] float32, in the order of the keys, which may repeat.

        Raises:
            DataError: if one is not there, or a file is damaged.
        """
        if absent := self.missing(keys):
            raise DataError(
                f"{self.directory}: {len(absent)} of {len(keys)} features are not there, as {absent[0]}; compute them "
                "first (hgscale.finetune.features)"
            )
        found = np.empty((len(keys), self._width or 0), dtype=np.float32)
        places = np.array([self._places[bytes.fromhex(key)] for key in keys], dtype=np.int64).reshape(-1, 2)
        for part in np.unique(places[:, 0]):
            wanted = np.flatnonzero(places[:, 0] == part)
            found[wanted] = self._features_of(self._parts[part])[places[wanted, 1]]
        return found

    def _keys_of(self, path: Path) -> list[bytes]:
        content = self._table_of(path, "key")
        metadata = content.schema.metadata or {}
        if metadata.get(_ENCODER) != self.encoder_key.encode():
            raise DataError(f"{path}: holds features of another encoder, or none; delete it")
        self._check_width(int(metadata[_WIDTH]), str(path))
        keys: list[bytes] = content["key"].to_pylist()
        return keys

    def _features_of(self, path: Path) -> np.ndarray:
        column = self._table_of(path, "feature")["feature"].combine_chunks()
        return np.asarray(column.flatten()).reshape(len(column), -1)

    def _table_of(self, path: Path, column: str) -> pa.Table:
        try:
            return pq.read_table(path, columns=[column], page_checksum_verification=True)
        except (OSError, pa.ArrowException, KeyError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(
                f"{path}: damaged, or not written here ({reason}); delete it, what it held is computed again"
            ) from None

    def _check_width(self, width: int, where: str) -> None:
        if self._width is not None and width != self._width:
            raise DataError(
                f"{where}: features of width {width}, but those of this encoder are of width {self._width}; delete "
                f"{self.directory}, they are computed again"
            )
        self._width = width
