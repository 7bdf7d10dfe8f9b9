"""Edges and samples as Parquet that every reader takes as it is; equal content makes equal bytes."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hgscale.data.disk.manifest import SamplesEntry, glance, read_manifest, refuse, write_file
from hgscale.hypergraph.structure import Hypergraph, World

_NODES = pa.field("nodes", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False)
_EDGES = pa.schema([_NODES, pa.field("weight", pa.float64(), nullable=False)])
_SAMPLES = pa.schema([pa.field("id", pa.int64(), nullable=False), _NODES])
# Offsets of a list column are 32-bit; row groups stay far below, and edges of common sizes fill one each shard.
_GROUP_ENTRIES = 2**26


def edges_file(rows: np.ndarray, weights: np.ndarray) -> memoryview:
    """The Parquet file of a shard: columns nodes and weight.  rows [E k] int32, weights [E] float64 -> its bytes."""
    num_edges, size = rows.shape
    offsets = np.arange(num_edges + 1) * size
    return _parquet(_EDGES, {"weight": weights}, offsets, np.ascontiguousarray(rows).ravel())


def write_samples(world: World, seed: int, number: int, lo: int, hi: int, directory: Path) -> SamplesEntry:
    """Write samples lo to hi - 1 of a world under one seed: columns id and nodes, in each sample's own order.

    Raises:
        RunError: if the disk refuses.
    """
    ids, sampler = np.arange(lo, hi), world.sampler(seed)
    edges = sampler.draw(ids)
    sizes = world.rows(edges).sizes
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    nodes = np.empty(offsets[-1], dtype=np.int32)
    for size in world.distinct_sizes:
        chosen = np.flatnonzero(sizes == size)
        nodes[offsets[chosen][:, None] + np.arange(size)] = sampler.shuffled(ids[chosen], edges[chosen], size)
    file = write_file(directory, f"samples/{number:05d}.parquet", _parquet(_SAMPLES, {"id": ids}, offsets, nodes))
    return SamplesEntry(
        file=file.file, num_bytes=file.num_bytes, sha256=file.sha256, ends=file.ends, first=lo, num_samples=hi - lo
    )


def read_world(directory: str | Path) -> Hypergraph:
    """The whole world of a finished directory, in memory and in canonical order; tables are not needed.

    Raises:
        DataError: naming the files that are missing or belong to something else.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    refuse(directory, [glance(directory, entry) for entry in manifest.shards])
    offsets, nodes, weights = [np.zeros(1, dtype=np.int64)], [], []
    for shard in manifest.shards:
        content = pq.read_table(directory / shard.file)
        offsets.append(offsets[-1][-1] + np.arange(1, shard.num_edges + 1) * shard.size)
        nodes.append(content["nodes"].combine_chunks().flatten().to_numpy())
        weights.append(content["weight"].to_numpy())
    labels = None if manifest.labels is None else json.loads((directory / manifest.labels.file).read_text())
    return Hypergraph.from_arrays(
        np.concatenate(offsets),
        np.concatenate(nodes),
        np.concatenate(weights),
        manifest.num_nodes,
        labels,
        where=str(directory),
    )


def _parquet(schema: pa.Schema, numbers: dict[str, np.ndarray], offsets: np.ndarray, nodes: np.ndarray) -> memoryview:
    """A file of one column of numbers and one of node lists; list i is nodes[offsets[i]:offsets[i + 1]].

    Neither dictionaries nor compression: node ids and weights are nearly random, so they would cost time and save
    little (zstd: a sixth of the bytes, for half the time of writing again).
    """
    largest = int(np.diff(offsets).max(initial=1))
    step = max(1, _GROUP_ENTRIES // largest)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="NONE", use_dictionary=False) as writer:
        for lo in range(0, len(offsets) - 1, step):
            piece = offsets[lo : lo + step + 1]
            lists = pa.ListArray.from_arrays(
                pa.array((piece - piece[0]).astype(np.int32)), pa.array(nodes[piece[0] : piece[-1]]), type=_NODES.type
            )
            columns = {name: pa.array(values[lo : lo + step]) for name, values in numbers.items()} | {"nodes": lists}
            group = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
            writer.write_table(group, row_group_size=step)
    return memoryview(sink.getvalue())
