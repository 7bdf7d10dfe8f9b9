"""A world as shards on disk: each a pure function of (config, its number), so that anyone may write it, in any order.

Its bytes know nothing of workers, retries or clocks. The order of work, of which every step runs in any process:

1. ``plan``: which shards there are, what a task needs and what the disk must hold. Nothing is drawn yet.
2. ``exchange.exchange`` (or its steps, one task each) where the plan has exchanged parts, then ``exchange.settled``.
3. ``shard_mass`` of every shard; ``total_of`` adds them up.
4. ``write_shard`` of every shard that is not among ``written`` already: that is how a killed run goes on.
5. ``finish``: labels, data card, and ``manifest.json`` as the last file.

``write`` does all of it in this process. ``verify`` reads every byte again.
"""

import dataclasses
import json
import math
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hgscale import files
from hgscale.data.disk import exchange
from hgscale.data.disk.card import card_of
from hgscale.data.disk.columns import edges_file
from hgscale.data.disk.manifest import (
    FORMAT,
    MANIFEST,
    FileEntry,
    Manifest,
    SamplesEntry,
    ShardEntry,
    digest_of,
    glance,
    inspect,
    read_manifest,
    refuse,
    shard_entry,
    write_file,
    write_manifest,
)
from hgscale.data.disk.mapped import table_bytes
from hgscale.data.disk.plan import HeldLaw, Plan, Shard, plan, world_section
from hgscale.errors import DataError
from hgscale.hypergraph.worlds import parts as laws
from hgscale.hypergraph.worlds.blocks import BlockLaw, PatternLaw
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.hypergraph.worlds.parts import ExchangedPart
from hgscale.hypergraph.worlds.weights import check_even, mass_of

LABELS, CARD = "labels.json", "README.md"


def shard_mass(plan: Plan, number: int, directory: Path | None = None) -> float:
    """The sum of a shard's weights, not normalised; the directory is where an exchange lies."""
    shard = plan.shards[number]
    # Most laws weigh an edge by its number alone, which costs a tenth of making it.
    looked_at = isinstance(plan.law, BlockLaw | PatternLaw)
    rows = _rows(plan, shard, directory) if looked_at else np.empty((0, shard.size), dtype=np.int32)
    return float(mass_of(plan.law.of(_index(shard), rows)))


def total_of(plan: Plan, masses: list[float]) -> float:
    """What weights are divided by: the sum of all shards' masses in their order; 1 for a file, normalised already."""
    return 1.0 if isinstance(plan.law, HeldLaw) else math.fsum(masses)


def write_shard(plan: Plan, number: int, total: float, directory: Path, table: bool = True) -> ShardEntry:
    """Make and write one shard: Parquet, records for drawing if asked for, and a small file that says it is done.

    Raises:
        ConfigError: if a weight is too small for a float.
        RunError: if the disk refuses.
    """
    shard = plan.shards[number]
    rows = _rows(plan, shard, directory)
    weights = plan.law.of(_index(shard), rows)
    check_even(plan.law, weights.min(), total, plan.num_edges)
    weights /= total
    file = write_file(directory, f"edges/{number:05d}.parquet", edges_file(rows, weights))
    name = f"table/{number:05d}.npy"
    if not table:
        (directory / name).unlink(missing_ok=True)
    entry = ShardEntry(
        **dataclasses.asdict(file),
        size=shard.size,
        num_edges=len(rows),
        mass=float(mass_of(weights)),
        min_weight=float(weights.min()),
        max_weight=float(weights.max()),
        table=write_file(directory, name, table_bytes(rows, weights)) if table else None,
    )
    done = {"identity": plan.identity, "entry": dataclasses.asdict(entry)}
    files.write_json(directory / f"edges/{number:05d}.json", done)
    return entry


def written(plan: Plan, directory: Path, table: bool = True) -> dict[int, ShardEntry]:
    """The shards of a plan that lie finished in a directory, by number: what need not be made again.

    Raises:
        DataError: if the directory holds another world.
    """
    entries: dict[int, ShardEntry] = {}
    if (directory / MANIFEST).exists():
        manifest = read_manifest(directory)
        if manifest.identity != plan.identity:
            raise DataError(f"{directory / MANIFEST}: {_difference(plan, manifest)}; give another --out, or delete it")
        entries = dict(enumerate(manifest.shards))
    for number in range(len(plan.shards)):
        note = directory / f"edges/{number:05d}.json"
        try:
            done = json.loads(note.read_text())
            entry, identity = shard_entry(done["entry"]), done["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not there, or not whole: then the shard is made again
        if identity != plan.identity:
            raise DataError(f"{note}: is of another world; give another --out, or delete {directory}")
        entries[number] = entry
    return {number: entry for number, entry in sorted(entries.items()) if _is_whole(directory, entry, table)}


def finish(
    plan: Plan,
    total: float,
    directory: Path,
    *,
    table: bool = True,
    licence: str = "CC0-1.0",
    samples_seed: int | None = None,
    samples: tuple[SamplesEntry, ...] = (),
) -> Manifest:
    """Write what stands beside the shards, the manifest last, and remove what only the writing needed.

    Call it again with samples, once they are drawn from the world that the first call finished.

    Raises:
        DataError: naming the shards that are not there.
        RunError: if the disk refuses.
    """
    entries = written(plan, directory, table)
    if len(entries) < len(plan.shards):
        missing = [f"edges/{number:05d}.parquet" for number in range(len(plan.shards)) if number not in entries]
        raise DataError(f"{directory}: {', '.join(missing)} not written; run `hgscale generate` again")
    shards = tuple(entries.values())
    labels = None
    if plan.labels is not None:
        labels = write_file(directory, LABELS, (json.dumps(plan.labels, ensure_ascii=False) + "\n").encode())
    manifest = Manifest(
        format=FORMAT,
        identity=plan.identity,
        world=world_section(plan.config),
        num_nodes=plan.num_nodes,
        num_edges=sum(shard.num_edges for shard in shards),
        sizes={str(size): _size_entry(shards, size) for size in sorted({shard.size for shard in shards})},
        total=total,
        shards=shards,
        digest=digest_of(plan.num_nodes, shards),
        labels=labels,
        card=FileEntry(file=CARD, num_bytes=0, sha256="", ends=""),
        samples_seed=samples_seed,
        samples=samples,
        versions={"hgscale": version("hgscale"), "numpy": version("numpy"), "pyarrow": version("pyarrow")},
    )
    assert manifest.num_edges == plan.num_edges, (manifest.num_edges, plan.num_edges)
    card = write_file(directory, CARD, card_of(manifest, licence).encode())
    manifest = dataclasses.replace(manifest, card=card)
    write_manifest(manifest, directory)
    for number in range(len(shards)):
        (directory / f"edges/{number:05d}.json").unlink(missing_ok=True)
    for half in directory.rglob(".*.part"):  # of processes that were killed
        half.unlink(missing_ok=True)
    shutil.rmtree(directory / exchange.EXCHANGE, ignore_errors=True)
    return manifest


def write(config: WorldConfig, directory: Path, *, table: bool = True, licence: str = "CC0-1.0") -> Manifest:
    """Write a world in this process, shard after shard; what lies there already is kept.

    Raises:
        ConfigError, DataError, RunError: as the steps that it is made of.
    """
    steps = plan(config)
    done = written(steps, directory, table)
    if len(done) < len(steps.shards) or not (directory / MANIFEST).exists():
        steps = exchange.exchange(steps, directory)
        total = total_of(steps, [shard_mass(steps, number, directory) for number in range(len(steps.shards))])
        for number in range(len(steps.shards)):
            if number not in done:
                write_shard(steps, number, total, directory, table)
        return finish(steps, total, directory, table=table, licence=licence)
    return read_manifest(directory)


def verify(directory: str | Path) -> Manifest:
    """Read every byte of a finished directory.

    Raises:
        DataError: one line that names every file that is missing, changed or foreign.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    refuse(directory, [*(inspect(directory, entry) for entry in manifest.files), *strays(directory, manifest)])
    return manifest


def strays(directory: Path, manifest: Manifest) -> list[str]:
    """A complaint about each data file that the manifest does not name: a reader of the folder would take it in."""
    known = {entry.file for entry in manifest.files}
    found = (path for folder in ("edges", "table", "samples") for path in sorted((directory / folder).glob("[!.]*")))
    names = (path.relative_to(directory).as_posix() for path in found)
    return [f"{name} is not in the manifest" for name in names if name not in known]


def _rows(plan: Plan, shard: Shard, directory: Path | None) -> np.ndarray:
    """[E, size] int32: the edges of a shard by number."""
    part = plan.parts[shard.part]
    assert shard.num_edges is not None, f"shard {shard.number} before its exchange"
    if isinstance(part, ExchangedPart):
        assert directory is not None, "exchanged edges lie in the directory"
        return exchange.rows_of_bucket(plan, shard.part, shard.place, shard.num_edges, directory)
    lo = shard.place * laws.SHARD_EDGES
    return part.rows(lo, lo + shard.num_edges)


def _index(shard: Shard) -> np.ndarray:
    """[E] int64: the numbers of a shard's edges in the world."""
    assert shard.start is not None, f"shard {shard.number} before its exchange"
    assert shard.num_edges is not None
    return np.arange(shard.start, shard.start + shard.num_edges)


def _is_whole(directory: Path, entry: ShardEntry, table: bool) -> bool:
    files = [entry] if entry.table is None else [entry, entry.table]
    return (entry.table is not None) == table and all(glance(directory, file) is None for file in files)


def _size_entry(shards: tuple[ShardEntry, ...], size: int) -> dict[str, float]:
    chosen = [shard for shard in shards if shard.size == size]
    return {
        "num_edges": sum(shard.num_edges for shard in chosen),
        "mass": math.fsum(shard.mass for shard in chosen),
    }


def _difference(plan: Plan, manifest: Manifest) -> str:
    """In what a manifest's world differs from the one asked for."""
    wanted = world_section(plan.config)
    for name, value in wanted.items():
        if (found := manifest.world.get(name)) != value:
            return f"is of another world (world.{name} is {found!r} there, {value!r} is asked for)"
    return f"is of another content of {plan.config.path}"
