"""The edges of an exchanged part through files: exactly the first distinct proposals, in bounded memory.

Proposals come in chunks, and are spilled by bucket, a hash of the set, so that equal sets meet. Order of work, of which
``propose_chunk`` and ``merge_bucket`` run in any process, each as often as it likes:

    while (chunks := next_chunks(plan, part, directory)):       # empty once enough distinct sets are known
        propose_chunk(plan, part, chunk, directory)                 for each chunk of them
        merge_bucket(plan, part, bucket, chunks.stop, directory)    for each bucket, when all chunks are there
        drop_chunks(plan, part, chunks.stop, directory)
    plan = settled(plan, directory)                             # the cutoff: exactly num_edges remain

How many chunks a round takes decides the time, never the edges: those are the sets whose first proposal comes before a
counter that only the law decides. A round brings a bucket about as many proposals as it holds edges, so one task never
holds more than two buckets. What a killed run has left is used again.

Files, under ``.exchange/<identity>/<part>/``: ``chunk-<c>.npy`` (records of a chunk, bucket after bucket) beside
``chunk-<c>.starts.npy`` (where each bucket begins), and ``bucket-<b>.<stop>.npy`` (distinct records by counter, of all
chunks before ``stop``).
"""

import dataclasses
import io
import math
from pathlib import Path

import numpy as np

from hgscale.data.disk.manifest import write_file
from hgscale.data.disk.plan import Plan
from hgscale.hypergraph.worlds import parts as laws
from hgscale.hypergraph.worlds.parts import ExchangedPart, bucket_of, first_of

EXCHANGE = ".exchange"
_FIRST_EXCESS = 1 / 16  # proposals of the first round beyond one per edge: repeats, and what is no edge
_LATER_EXCESS = 1.2
_GROWTH = 4  # a later round adds at least a quarter of the chunks so far, or dense parts would take hundreds


def exchange(plan: Plan, directory: Path) -> Plan:
    """Exchange all parts that need it, in this process.

    Raises:
        ConfigError: if a part is too dense to draw.
        RunError: if the disk refuses.
    """
    for part in plan.exchanged:
        while chunks := next_chunks(plan, part, directory):
            for chunk in chunks:
                propose_chunk(plan, part, chunk, directory)
            for bucket in range(_part(plan, part).num_buckets):
                merge_bucket(plan, part, bucket, chunks.stop, directory)
            drop_chunks(plan, part, chunks.stop, directory)
    return settled(plan, directory)


def next_chunks(plan: Plan, part: int, directory: Path) -> range:
    """The chunks that the next round must propose and merge; empty once enough distinct sets are known.

    Raises:
        ConfigError: if so many proposals have not given enough: the part is too dense.
    """
    law, folder = _part(plan, part), _folder(plan, part, directory)
    merged = [_bucket(folder, bucket) for bucket in range(law.num_buckets)]
    stop = min(at for at, _ in merged)
    if (latest := max(at for at, _ in merged)) > stop:
        return range(stop, latest)  # a killed round: the rest of its buckets, from the same chunks
    found = sum(_num_records(path) for _, path in merged if path is not None)
    if found >= law.num_edges:
        return range(stop, stop)
    if stop * _chunk(law) >= law.max_proposals:
        raise law.too_dense(found)
    if stop == 0:
        wanted = law.num_edges * (1 + _FIRST_EXCESS) / _chunk(law)
    else:
        wanted = max(_LATER_EXCESS * (law.num_edges - found) * stop / max(found, 1), stop / _GROWTH)
    at_most = math.ceil(law.num_buckets * (1 + _FIRST_EXCESS))
    all_chunks = -(-law.max_proposals // _chunk(law))
    return range(stop, min(stop + max(1, min(math.ceil(wanted), at_most)), all_chunks))


def propose_chunk(plan: Plan, part: int, chunk: int, directory: Path) -> None:
    """Draw one chunk of proposals and spill its distinct sets by bucket.

    Raises:
        RunError: if the disk refuses.
    """
    law, folder = _part(plan, part), _folder(plan, part, directory)
    if (folder / f"chunk-{chunk:06d}.npy").exists():
        return
    size = _chunk(law)
    rows, counters = first_of(*law.propose(chunk * size, min((chunk + 1) * size, law.max_proposals)))
    buckets = bucket_of(rows, law.num_buckets)
    order = np.argsort(buckets, kind="stable")
    starts = np.searchsorted(buckets[order], np.arange(law.num_buckets + 1))
    records = np.empty(len(rows), dtype=_record_type(law.size))
    records["counter"], records["nodes"] = counters[order], rows[order]
    _save(folder, f"chunk-{chunk:06d}.starts.npy", starts)
    _save(folder, f"chunk-{chunk:06d}.npy", records)  # last: where it is, its starts are


def merge_bucket(plan: Plan, part: int, bucket: int, stop: int, directory: Path) -> None:
    """Take the chunks before ``stop`` that a bucket has not seen yet into it: its distinct sets by first counter.

    Raises:
        RunError: if the disk refuses.
    """
    law, folder = _part(plan, part), _folder(plan, part, directory)
    done, path = _bucket(folder, bucket)
    if done >= stop:
        return
    pieces = [] if path is None else [np.load(path)]
    for chunk in range(done, stop):
        lo, hi = np.load(folder / f"chunk-{chunk:06d}.starts.npy")[bucket : bucket + 2]
        pieces.append(np.load(folder / f"chunk-{chunk:06d}.npy", mmap_mode="r")[lo:hi])
    together = np.concatenate(pieces)
    rows, counters = first_of(np.ascontiguousarray(together["nodes"]), np.ascontiguousarray(together["counter"]))
    records = np.empty(len(rows), dtype=_record_type(law.size))
    records["counter"], records["nodes"] = counters, rows
    _save(folder, f"bucket-{bucket:05d}.{stop:06d}.npy", records)
    if path is not None:
        path.unlink()


def drop_chunks(plan: Plan, part: int, stop: int, directory: Path) -> None:
    """Remove the chunks before ``stop``, once every bucket has them."""
    for path in _folder(plan, part, directory).glob("chunk-*.npy"):
        if int(path.name[6:12]) < stop:
            path.unlink()


def settled(plan: Plan, directory: Path) -> Plan:
    """The plan with the counts of its exchanged shards, all parts having been exchanged."""
    shards = list(plan.shards)
    for part in plan.exchanged:
        start = sum(other.num_edges for other in plan.parts[:part])
        counts = _counts(_part(plan, part), _folder(plan, part, directory))
        for shard in plan.shards:
            if shard.part == part:
                count = counts[shard.place]
                shards[shard.number] = dataclasses.replace(shard, start=start, num_edges=count)
                start += count
    return dataclasses.replace(plan, shards=tuple(shards))


def rows_of_bucket(plan: Plan, part: int, bucket: int, num_edges: int, directory: Path) -> np.ndarray:
    """[num_edges, size] int32: the edges of a bucket, by counter."""
    _, path = _bucket(_folder(plan, part, directory), bucket)
    assert path is not None, f"bucket {bucket} of part {part} before its exchange"
    return np.ascontiguousarray(np.load(path, mmap_mode="r")[:num_edges]["nodes"])


def _counts(law: ExchangedPart, folder: Path) -> list[int]:
    """How many of each bucket's sets belong to the first ``num_edges`` of all.

    The chunk in which the last one lies is found from how many each bucket has before each chunk; only the counters of
    that chunk are then looked at one by one.
    """
    buckets = [_bucket(folder, bucket) for bucket in range(law.num_buckets)]
    counters = [np.load(path, mmap_mode="r")["counter"] for _, path in buckets if path is not None]
    size, stop = _chunk(law), buckets[0][0]
    before = np.array([[_lower(found, chunk * size) for chunk in range(stop + 1)] for found in counters])
    chunk = int(np.searchsorted(before.sum(axis=0), law.num_edges, side="left")) - 1
    inside = [found[lo:hi] for found, lo, hi in zip(counters, before[:, chunk], before[:, chunk + 1], strict=True)]
    last = law.num_edges - int(before[:, chunk].sum())  # the last edge is the so-manieth of this chunk
    cutoff = np.partition(np.concatenate(inside), last - 1)[last - 1]
    return [int(start + _lower(some, cutoff + 1)) for start, some in zip(before[:, chunk], inside, strict=True)]


def _lower(ascending: np.ndarray, value: int) -> int:
    """How many are below a value, by bisection: numpy would copy the whole column first."""
    lo, hi = 0, len(ascending)
    while lo < hi:
        middle = (lo + hi) // 2
        if ascending[middle] < value:
            lo = middle + 1
        else:
            hi = middle
    return lo


def _part(plan: Plan, part: int) -> ExchangedPart:
    law = plan.parts[part]
    assert isinstance(law, ExchangedPart), part
    return law


def _chunk(law: ExchangedPart) -> int:
    """Proposals of a chunk."""
    return min(laws.SHARD_EDGES, 2 * law.num_edges + 64)


def _record_type(size: int) -> np.dtype:
    return np.dtype([("counter", "<i8"), ("nodes", "<i4", (size,))])


def _folder(plan: Plan, part: int, directory: Path) -> Path:
    # By the world's name: what a killed run of another config has left here is not taken for this one's.
    return directory / EXCHANGE / plan.identity / f"{part:03d}"


def _bucket(folder: Path, bucket: int) -> tuple[int, Path | None]:
    """Before which chunk a bucket knows all, and its file."""
    paths = sorted(folder.glob(f"bucket-{bucket:05d}.*.npy"))
    return (int(paths[-1].name[13:19]), paths[-1]) if paths else (0, None)


def _num_records(path: Path) -> int:
    return len(np.load(path, mmap_mode="r"))


def _save(folder: Path, name: str, array: np.ndarray) -> None:
    data = io.BytesIO()
    np.save(data, array)
    write_file(folder, name, data.getbuffer())
