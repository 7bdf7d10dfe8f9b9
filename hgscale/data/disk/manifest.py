"""What lies in a directory of shards: one entry per file with its hash; reading, checking, and writing whole or not.

``manifest.json`` is written last: what has none is not finished. Its bytes are checked too: it holds the hash of its
own content, and is written in one way only.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgscale import files
from hgscale.errors import DataError

FORMAT = "hgscale-shards/1"
MANIFEST = "manifest.json"
AGAIN = "run `hgscale generate` again"
REPAIR = f"delete it and {AGAIN}"
_ROOM = f"make room, and {AGAIN}: it resumes"
_MISSING = "is missing"
_END = 4096  # bytes at each end of a file that are looked at when it is opened


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of a directory.

    Attributes:
        file: its name in the directory.
        num_bytes: its length.
        sha256: of its bytes.
        ends: sha256 of its first and last 4 KiB, 16 hex digits: tells another file from it without reading it all.
    """

    file: str
    num_bytes: int
    sha256: str
    ends: str


@dataclass(frozen=True, kw_only=True)
class ShardEntry(FileEntry):
    """One shard: its Parquet file, and what is in it.

    Attributes:
        size: nodes of each edge.
        num_edges: edges in it.
        mass: sum of their weights, those of the whole world summing to 1.
        min_weight, max_weight: of its edges.
        table: its records for drawing, or None where none were asked for.
    """

    size: int
    num_edges: int
    mass: float
    min_weight: float
    max_weight: float
    table: FileEntry | None


@dataclass(frozen=True, kw_only=True)
class SamplesEntry(FileEntry):
    """One file of samples: ids first, first + 1, ..."""

    first: int
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All of a directory.

    Attributes:
        format: name and version of the layout.
        identity: of the world: the same for the same config, or for the same content of a file.
        world: the config section it was made from.
        num_nodes, num_edges: of the world.
        sizes: size -> its number of edges and their mass.
        total: sum of the weights before they were normalised.
        shards: in the order that numbers the edges.
        digest: of nodes, edges and weights as they lie here, 32 hex digits.
        labels: the file of the names of the nodes, or None.
        card: README.md.
        samples_seed, samples: what was drawn from the world, if asked for.
        versions: of the libraries that made the bytes.
    """

    format: str
    identity: str
    world: dict[str, Any]
    num_nodes: int
    num_edges: int
    sizes: dict[str, dict[str, float]]
    total: float
    shards: tuple[ShardEntry, ...]
    digest: str
    labels: FileEntry | None
    card: FileEntry
    samples_seed: int | None
    samples: tuple[SamplesEntry, ...]
    versions: dict[str, str]

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file but the manifest itself."""
        tables = [shard.table for shard in self.shards if shard.table is not None]
        others = [entry for entry in (self.labels, self.card) if entry is not None]
        return (*self.shards, *tables, *self.samples, *others)


def digest_of(num_nodes: int, shards: tuple[ShardEntry, ...]) -> str:
    """The digest of a sharded world: of its edges and weights in the order in which its shards number them."""
    lines = [f"{FORMAT} {num_nodes}", *(f"{shard.size} {shard.num_edges} {shard.sha256}" for shard in shards)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def write_file(directory: Path, name: str, data: bytes | memoryview) -> FileEntry:
    """Write a file whole or not at all.

    Raises:
        RunError: if the disk refuses.
    """
    files.write_bytes(directory / name, data, _ROOM)
    ends = hashlib.sha256(data[:_END])
    ends.update(data[-_END:])
    return FileEntry(
        file=name, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), ends=ends.hexdigest()[:16]
    )


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write ``manifest.json``, the last file of a directory."""
    write_file(directory, MANIFEST, _manifest_text(dataclasses.asdict(manifest)).encode())


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a finished directory.

    Raises:
        DataError: if there is none, or it is not as it was written.
    """
    path = directory / MANIFEST
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; a directory of shards is finished by `hgscale generate`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {REPAIR}") from None
    try:
        values = json.loads(text)
        written = values.pop("sha256")
        if values["format"] != FORMAT:
            raise DataError(f"{path}: format is {values['format']!r}; this version reads {FORMAT!r}")
        if _manifest_text(values) != text:
            raise DataError(f"{path}: has changed since it was written (sha256 {written[:12]}...); {REPAIR}")
        return _manifest(values)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: is no manifest of shards; {REPAIR}") from None


def shard_entry(values: Mapping[str, Any]) -> ShardEntry:
    """An entry out of its JSON."""
    table = values["table"]
    return ShardEntry(**{**values, "table": None if table is None else FileEntry(**table)})


def glance(directory: Path, entry: FileEntry) -> str | None:
    """What is wrong with a file as far as its length and ends tell, or None: cheap, for each time it is opened."""
    path = directory / entry.file
    try:
        with path.open("rb") as file:
            num_bytes = os.fstat(file.fileno()).st_size
            ends = hashlib.sha256(file.read(_END))
            file.seek(max(0, num_bytes - _END))
            ends.update(file.read(_END))
    except FileNotFoundError:
        return f"{entry.file} {_MISSING}"
    except OSError as error:
        return f"{entry.file} cannot be read ({error.strerror})"
    if num_bytes != entry.num_bytes:
        return f"{entry.file} has {num_bytes} bytes, the manifest says {entry.num_bytes}"
    if ends.hexdigest()[:16] != entry.ends:
        return f"{entry.file} is not the file that the manifest names"
    return None


def inspect(directory: Path, entry: FileEntry) -> str | None:
    """What is wrong with a file, every byte of it, or None."""
    if complaint := glance(directory, entry):
        return complaint
    with (directory / entry.file).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != entry.sha256:
        return f"{entry.file}: sha256 is {found[:12]}..., the manifest says {entry.sha256[:12]}..."
    return None


def refuse(directory: Path, complaints: list[str | None]) -> None:
    """Raise a DataError of one line that names every bad file, if there is one."""
    bad = [complaint for complaint in complaints if complaint is not None]
    if bad:
        num_there = sum(not complaint.endswith(_MISSING) for complaint in bad)
        repair = (AGAIN, REPAIR, REPAIR.replace("it", "them", 1))[min(num_there, 2)]
        raise DataError(f"{directory}: {'; '.join(bad)}; {repair}")


def _manifest_text(values: dict[str, Any]) -> str:
    """The one way in which a manifest is written."""
    content = json.dumps(values, indent=1)
    return json.dumps({**values, "sha256": hashlib.sha256(content.encode()).hexdigest()}, indent=1) + "\n"


def _manifest(values: dict[str, Any]) -> Manifest:
    labels = values["labels"]
    return Manifest(
        **{
            **values,
            "shards": tuple(shard_entry(entry) for entry in values["shards"]),
            "samples": tuple(SamplesEntry(**entry) for entry in values["samples"]),
            "labels": None if labels is None else FileEntry(**labels),
            "card": FileEntry(**values["card"]),
        }
    )
