"""Generated worlds in memory: all edges of all parts, in canonical order."""

import math
from collections.abc import Sequence

import numpy as np

from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.subsets import MAX_RANK, rank
from hgscale.hypergraph.worlds.parts import SHARD_EDGES, AddressedPart, ExchangedPart, Part, bucket_of, first_of
from hgscale.hypergraph.worlds.weights import WeightLaw, check_even, mass_of

# A world is held in memory as a whole; more edges than this are a slip (a null meaning all sets of many nodes).
_MAX_EDGES = 2**31 - 1


def assemble(parts: Sequence[Part], law: WeightLaw, num_nodes: int) -> Hypergraph:
    """The world of these parts and this law of weights, the same edges and weights as its shards hold.

    Built without ``from_arrays``, whose checks cost more than the drawing; tests hold the two against each other.

    Raises:
        ConfigError: if it is more than one memory holds, a part is too dense to draw, or weights are too uneven.
    """
    num_edges = sum(part.num_edges for part in parts)
    if num_edges > _MAX_EDGES:
        raise ConfigError(f"world.num_edges is {num_edges}, more than one memory holds; at most {_MAX_EDGES}")
    rows, weights, masses, start = [], [], [], 0
    for part in parts:
        part_rows, ends = _edges_of(part)
        part_weights = law.of(np.arange(start, start + part.num_edges), part_rows)
        masses += [mass_of(piece) for piece in np.split(part_weights, ends)]
        rows.append(part_rows)
        weights.append(part_weights)
        start += part.num_edges
    total = math.fsum(masses)
    check_even(law, min(part_weights.min() for part_weights in weights), total, num_edges)
    nodes, sizes, ordered = [], [], []
    for size in sorted({part.size for part in parts}):
        chosen = [number for number, part in enumerate(parts) if part.size == size]
        size_rows = np.concatenate([rows[number] for number in chosen])
        order = _canonical_order(size_rows, num_nodes)
        nodes.append(size_rows[order].ravel())
        sizes.append(np.full(len(order), size))
        ordered.append(np.concatenate([weights[number] for number in chosen])[order])
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return Hypergraph(offsets, np.concatenate(nodes), np.concatenate(ordered) / total, num_nodes)


def _edges_of(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """[E, k] int32: all edges of a part by their number; and where its shards end, the last left out."""
    if isinstance(part, AddressedPart):
        return part.rows(0, part.num_edges), np.arange(SHARD_EDGES, part.num_edges, SHARD_EDGES)
    rows = _first_distinct(part)
    buckets = bucket_of(rows, part.num_buckets)
    ends = np.cumsum(np.bincount(buckets, minlength=part.num_buckets))[:-1]
    return rows[np.argsort(buckets, kind="stable")], ends


def _first_distinct(part: ExchangedPart) -> np.ndarray:
    """[E, k] int32: the edges of an exchanged part by counter."""
    rows, counters = np.empty((0, part.size), dtype=np.int32), np.empty(0, dtype=np.int64)
    asked, new_frac = 0, 1.0
    while (missing := part.num_edges - len(rows)) > 0:
        if asked >= part.max_proposals:
            raise part.too_dense(len(rows))
        some = min(int(missing / new_frac) + 1, 4 * part.num_edges + 64, part.max_proposals - asked)
        more_rows, more_counters = part.propose(asked, asked + some)
        num_before = len(rows)
        rows, counters = first_of(np.concatenate([rows, more_rows]), np.concatenate([counters, more_counters]))
        asked, new_frac = asked + some, max(len(rows) - num_before, 1) / some
    return rows[: part.num_edges]


def _canonical_order(rows: np.ndarray, num_nodes: int) -> np.ndarray:
    """[r] int64: what brings rows into lexicographic order."""
    if math.comb(num_nodes, rows.shape[1]) <= MAX_RANK:
        return np.argsort(rank(rows, num_nodes))
    return np.lexsort(rows.T[::-1])
