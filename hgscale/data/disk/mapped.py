"""A world that no memory holds: shards of records, mapped from disk, and a draw in two levels.

A record is all that a sample needs, side by side: the alias entry of its slot, the edge's weight and its nodes. So a
sample waits for memory once, twice where the coin sends it on to another edge; and many wait at the same time, as the
addresses of a block are computed before the first is read.

Sample i: one word gives the shard, by an alias table of the shards' masses, another the edge in it, by the shard's own.
Both are pure functions of (seed, i).
"""

import io
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils
from numba.extending import intrinsic

from hgscale.data.disk.manifest import Manifest, glance, read_manifest, refuse
from hgscale.errors import DataError
from hgscale.hypergraph.sampling import alias_table, chosen, scaled
from hgscale.hypergraph.structure import Rows
from hgscale.rng import key, random_bits

_WEIGHT_AT, _NODES_AT = 8, 16  # bytes into a record
_BLOCK = 1024  # samples whose addresses are known before the first is read
_HINT_BITS = 16  # the shard of an edge is looked up for every 65,536th, and searched from there
_SPARE_FILES = 256  # open files that are left to everybody else


def record_type(size: int) -> np.dtype:
    """The record of an edge of this size: 16 + 4 size bytes, little-endian, without gaps."""
    return np.dtype([("alias", "<u8"), ("weight", "<f8"), ("nodes", "<i4", (size,))])


def table_bytes(rows: np.ndarray, weights: np.ndarray) -> memoryview:
    """The ``.npy`` file of a shard's records.  rows [E k] int32, weights [E] float64 positive -> its bytes."""
    num_edges, size = rows.shape
    head = _npy_head(num_edges, size)
    data = np.empty(len(head) + num_edges * (_NODES_AT + 4 * size), dtype=np.uint8)
    data[: len(head)] = np.frombuffer(head, dtype=np.uint8)
    words = data[len(head) :].view("<i4").reshape(num_edges, 4 + size)
    words[:, 0:2] = alias_table(weights).view("<i4").reshape(num_edges, 2)
    words[:, 2:4] = np.ascontiguousarray(weights).view("<i4").reshape(num_edges, 2)
    words[:, 4:] = rows
    return data.data


def _npy_head(num_edges: int, size: int) -> bytes:
    """What stands before the records in a ``.npy`` file; its length is a multiple of 64."""
    head = io.BytesIO()
    content = {"descr": record_type(size).descr, "fortran_order": False, "shape": (num_edges,)}
    np.lib.format.write_array_header_1_0(head, content)
    return head.getvalue()


class ShardedWorld:
    """The world of a directory of shards with tables; a ``World``. Edges are numbered in the order of the shards.

    What it holds in memory grows with the number of shards, not of edges. Open one with ``open_shards``.
    """

    def __init__(self, directory: Path, manifest: Manifest, tables: list[np.ndarray]) -> None:
        self.directory = directory
        self.manifest = manifest
        self.num_nodes = manifest.num_nodes
        self.num_edges = manifest.num_edges
        self.digest = manifest.digest
        self.distinct_sizes = tuple(sorted({shard.size for shard in manifest.shards}))
        self.max_size = self.distinct_sizes[-1]
        self.tables = tables
        counts = [shard.num_edges for shard in manifest.shards]
        self.first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.size_of_shard = np.array([shard.size for shard in manifest.shards], dtype=np.int64)
        # The maps live as long as this object; kernels, which cannot take a list of arrays, get where they are.
        self.base = np.array([table.ctypes.data for table in tables], dtype=np.uint64)
        marks = np.arange(0, self.num_edges, 1 << _HINT_BITS)
        self._hints = np.searchsorted(self.first, marks, side="right") - 1

    def __reduce__(self) -> tuple[Callable[[Path], "ShardedWorld"], tuple[Path]]:
        """Another process maps the files itself."""
        return open_shards, (self.directory,)

    @property
    def kappa(self) -> float:
        """Largest weight over smallest weight."""
        shards = self.manifest.shards
        return max(shard.max_weight for shard in shards) / min(shard.min_weight for shard in shards)

    def rows(self, edges: np.ndarray) -> Rows:
        """The nodes of edges [b] int64, gathered from the shards."""
        shards = self._shards_of(edges)
        offsets = np.zeros(len(edges) + 1, dtype=np.int64)
        np.cumsum(self.size_of_shard[shards], out=offsets[1:])
        nodes = np.empty(offsets[-1], dtype=np.int32)
        _gather_nodes(edges, shards, self.first, self.base, self.size_of_shard, offsets, nodes)
        return Rows(np.arange(len(edges)), offsets, nodes)

    def weights_of(self, edges: np.ndarray) -> np.ndarray:
        """[b] float64: the weights of edges [b] int64."""
        weights = np.empty(len(edges), dtype=np.float64)
        shards = self._shards_of(edges)
        _gather_weights(edges, shards, self.first, self.base, self.size_of_shard, weights.view(np.uint64))
        return weights

    def weight_chunks(self) -> Iterator[np.ndarray]:
        """All weights, shard by shard."""
        for table in self.tables:
            yield np.ascontiguousarray(table["weight"])

    def sampler(self, seed: int) -> "ShardedSampler":
        """The samples of this world under one seed."""
        return ShardedSampler(self, seed)

    def _shards_of(self, edges: np.ndarray) -> np.ndarray:
        """[b] int64: the shard of each edge."""
        if len(edges) and not (edges.min() >= 0 and edges.max() < self.num_edges):
            raise IndexError(f"edges run from 0 to {self.num_edges - 1}")
        return _locate(edges, self.first, self._hints)


class ShardedSampler:
    """The samples of a sharded world under one seed."""

    def __init__(self, world: ShardedWorld, seed: int) -> None:
        self.world = world
        masses = np.array([shard.mass for shard in world.manifest.shards])
        self._shard_table = alias_table(masses)
        self._keys = key(seed, "sample/shard"), key(seed, "sample/edge")
        self._order_key = key(seed, "sample/order")

    def draw(self, ids: np.ndarray) -> np.ndarray:
        """The edge of each sample.  ids [b] int64, not negative -> [b] int64 in [0, E)."""
        return self._drawn(ids, np.empty((0, 0), dtype=np.int32))

    def draw_nodes(self, ids: np.ndarray, size: int) -> np.ndarray:
        """Draw and gather in a world whose edges all have this size, nodes ascending.  ids [b] -> [b size] int32."""
        assert self.world.distinct_sizes == (size,), size
        nodes = np.empty((len(ids), size), dtype=np.int32)
        self._drawn(ids, nodes)
        return nodes

    def shuffled(self, ids: np.ndarray, edges: np.ndarray, size: int) -> np.ndarray:
        """The nodes of samples whose edges have one size, in each sample's own order.  [b], [b] -> [b size] int32."""
        return self.world.rows(edges).shuffled(ids, size, self._order_key)

    def _drawn(self, ids: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        world, edges = self.world, np.empty(len(ids), dtype=np.int64)
        ids = np.ascontiguousarray(ids, dtype=np.int64)
        _draw(ids, *self._keys, self._shard_table, world.first, world.base, world.size_of_shard, edges, nodes)
        return edges


def open_shards(directory: str | Path) -> ShardedWorld:
    """Map the world of a finished directory.

    Every file is looked at (its length, both ends), none is read as a whole: for that there is ``verify``.

    Raises:
        DataError: naming the files that are missing or belong to something else.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    tables = [shard.table for shard in manifest.shards]
    if any(table is None for table in tables):
        raise DataError(
            f"{directory}: has no tables to draw from; run `hgscale generate --table true` on it, or set world.load to "
            f"memory"
        )
    files = (*manifest.shards, *(table for table in tables if table is not None))
    refuse(directory, [glance(directory, entry) for entry in files])
    _allow_open_files(len(tables))
    mapped = [np.load(directory / table.file, mmap_mode="r") for table in tables if table is not None]
    for shard, records in zip(manifest.shards, mapped, strict=True):
        assert (records.dtype, records.shape) == (record_type(shard.size), (shard.num_edges,)), shard.file
    return ShardedWorld(directory, manifest, mapped)


def _allow_open_files(num_files: int) -> None:
    """Lift this process's soft limit of open files, where there is one map per shard, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_files + _SPARE_FILES
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


def _loader(bits: int) -> Any:
    """A numba function that reads an unsigned word of so many bits at an address that is a multiple of 4."""
    word = nb.uint64 if bits == 64 else nb.uint32

    @intrinsic
    def load(typing_context: Any, address: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            kind = ir.IntType(bits)
            return builder.load(builder.inttoptr(args[0], kind.as_pointer()), align=4)

        return word(nb.uint64), emit

    return load


def _prefetcher() -> Any:
    """A numba function that asks for the memory at an address, and does not wait for it."""

    @intrinsic
    def prefetch(typing_context: Any, address: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
            insert: Any = cgutils.get_or_insert_function
            function = insert(builder.module, kind, "llvm.prefetch.p0")
            hints = [number(0), number(3), number(1)]  # to read, keep near, data
            builder.call(function, [builder.inttoptr(args[0], pointer), *hints])
            return context.get_dummy_value()

        return nb.void(nb.uint64), emit

    return prefetch


_prefetch = _prefetcher()
_load64 = _loader(64)
_load32 = _loader(32)


@nb.njit(inline="always", cache=True)
def _record(base: np.uint64, place: np.int64, size: np.int64) -> np.uint64:
    """Where the record of an edge begins."""
    return base + np.uint64(place) * np.uint64(_NODES_AT + 4 * size)


@nb.njit(cache=True)
def _draw(
    ids: np.ndarray,
    shard_key: np.uint64,
    edge_key: np.uint64,
    shard_table: np.ndarray,
    first: np.ndarray,
    base: np.ndarray,
    size_of_shard: np.ndarray,
    edges: np.ndarray,
    nodes: np.ndarray,
) -> None:
    """Fill edges [b], and nodes [b k] where it has rows, block by block: first all addresses, then all reads."""
    shards = np.empty(_BLOCK, dtype=np.int64)
    words = np.empty(_BLOCK, dtype=np.uint64)
    num_shards = np.uint64(len(shard_table))
    for start in range(0, len(ids), _BLOCK):
        count = min(_BLOCK, len(ids) - start)
        for i in range(count):
            word = scaled(random_bits(shard_key, np.uint64(ids[start + i])), num_shards)
            shard = np.int64(chosen(word, shard_table[word >> np.uint64(32)]))
            num_edges = np.uint64(first[shard + 1] - first[shard])
            shards[i] = shard
            words[i] = scaled(random_bits(edge_key, np.uint64(ids[start + i])), num_edges)
            _prefetch(_record(base[shard], np.int64(words[i] >> np.uint64(32)), size_of_shard[shard]))
        for i in range(count):
            shard, slot = shards[i], np.int64(words[i] >> np.uint64(32))
            entry = _load64(_record(base[shard], slot, size_of_shard[shard]))
            # A flipped bit on disk must not become a read outside the map.
            place = min(np.int64(chosen(words[i], entry)), first[shard + 1] - first[shard] - 1)
            words[i] = np.uint64(place)
            edges[start + i] = first[shard] + place
            if len(nodes) > 0:
                _prefetch(_record(base[shard], place, size_of_shard[shard]) + np.uint64(_NODES_AT))
        if len(nodes) > 0:
            size = nodes.shape[1]
            for i in range(count):
                record = _record(base[shards[i]], np.int64(words[i]), size)
                for j in range(size):
                    nodes[start + i, j] = np.int32(_load32(record + np.uint64(_NODES_AT + 4 * j)))


@nb.njit(cache=True)
def _locate(edges: np.ndarray, first: np.ndarray, hints: np.ndarray) -> np.ndarray:
    shards = np.empty(len(edges), dtype=np.int64)
    for i in range(len(edges)):
        shard = hints[edges[i] >> _HINT_BITS]
        while first[shard + 1] <= edges[i]:
            shard += 1
        shards[i] = shard
    return shards


@nb.njit(cache=True)
def _gather_nodes(
    edges: np.ndarray,
    shards: np.ndarray,
    first: np.ndarray,
    base: np.ndarray,
    size_of_shard: np.ndarray,
    offsets: np.ndarray,
    nodes: np.ndarray,
) -> None:
    for i in range(len(edges)):
        shard = shards[i]
        size = size_of_shard[shard]
        record = _record(base[shard], edges[i] - first[shard], size)
        for j in range(size):
            nodes[offsets[i] + j] = np.int32(_load32(record + np.uint64(_NODES_AT + 4 * j)))


@nb.njit(cache=True)
def _gather_weights(
    edges: np.ndarray,
    shards: np.ndarray,
    first: np.ndarray,
    base: np.ndarray,
    size_of_shard: np.ndarray,
    words: np.ndarray,
) -> None:
    for i in range(len(edges)):
        shard = shards[i]
        record = _record(base[shard], edges[i] - first[shard], size_of_shard[shard])
        words[i] = _load64(record + np.uint64(_WEIGHT_AT))
