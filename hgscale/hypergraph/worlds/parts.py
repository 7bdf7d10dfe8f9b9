"""Parts of a generated world: numbered edges of one size, the same in memory, in shards and computed one by one.

A part is either

- addressed: edge j is a function of (config, j), so that anyone makes any piece without the rest; or
- exchanged: an endless row of proposals, each a function of (config, counter), of which the first distinct ones count.
  Its edges are numbered by bucket (a hash of the set) and then by counter, so that whoever holds a bucket holds a run
  of edges.

Nothing is drawn before edges are asked for.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numba as nb
import numpy as np

from hgscale import rng
from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import MAX_EDGE_SIZE
from hgscale.hypergraph.subsets import hash_of, random_subsets, unrank
from hgscale.rng import below

SHARD_EDGES = 2**20
"""Edges of a shard of an addressed part, and of a bucket of an exchanged one, on average."""

# A drawing that still lacks edges after this many proposals per edge asked for is given up.
_MAX_DRAWS_PER_EDGE = 200


@dataclass(frozen=True)
class AddressedPart(ABC):
    """Edges of one size, each a function of its number."""

    size: int
    num_edges: int

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """[hi - lo, size] int32, nodes ascending: edges lo to hi - 1 of the part."""
        return self.rows_at(np.arange(lo, hi))

    @abstractmethod
    def rows_at(self, index: np.ndarray) -> np.ndarray:
        """Any edges of the part.  [b] int64 in [0, num_edges) -> [b, size] int32, nodes ascending."""

    @property
    def table_bytes(self) -> int:
        """Memory for what the part looks up, at its most; 0 where all is computed."""
        return 0


@dataclass(frozen=True)
class ExchangedPart(ABC):
    """Edges of one size, the first ``num_edges`` distinct sets among an endless row of proposals."""

    size: int
    num_edges: int

    @abstractmethod
    def propose(self, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
        """Proposals lo to hi - 1, without those that are no edge.

        Returns:
            rows: [r, size] int32, nodes ascending, sets may repeat; counters: [r] int64, ascending in [lo, hi).
        """

    @property
    def num_buckets(self) -> int:
        """Buckets of about SHARD_EDGES edges."""
        return -(-self.num_edges // SHARD_EDGES)

    @property
    def max_proposals(self) -> int:
        """A drawing that lacks edges after so many proposals is given up (``too_dense``)."""
        return _MAX_DRAWS_PER_EDGE * (self.num_edges + 64)

    @property
    def table_bytes(self) -> int:
        """Memory for what the part looks up, at its most; 0 where all is computed."""
        return 0

    def too_dense(self, num_found: int) -> ConfigError:
        """The refusal of a part of which ``max_proposals`` gave only ``num_found`` distinct edges."""
        return ConfigError(
            f"world.num_edges={self.num_edges} is too dense to draw: {self.max_proposals} draws gave {num_found} "
            f"distinct edges; ask for at most {num_found}"
        )


Part = AddressedPart | ExchangedPart


def bucket_of(rows: np.ndarray, num_buckets: int) -> np.ndarray:
    """The bucket of each set, by a hash of its nodes.  [r, k] int32, ascending -> [r] int64 in [0, num_buckets)."""
    return _buckets(hash_of(rows), num_buckets)


def first_of(rows: np.ndarray, counters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each distinct set once, with the least of its counters.

    Args:
        rows: [r, k] int32, nodes ascending, sets may repeat.
        counters: [r] int64.

    Returns:
        rows [d, k] int32 and counters [d] int64, ascending by counter.
    """
    if (counters[1:] < counters[:-1]).any():
        order = np.argsort(counters, kind="stable")
        rows, counters = rows[order], counters[order]
    rows = np.ascontiguousarray(rows)
    kept = _first_seen(rows, hash_of(rows))
    return rows[kept], counters[kept]


@nb.njit(cache=True)
def _buckets(words: np.ndarray, num_buckets: int) -> np.ndarray:
    out = np.empty(len(words), dtype=np.int64)
    for i in range(len(words)):
        out[i] = below(words[i], np.uint64(num_buckets))
    return out


@nb.njit(cache=True)
def _first_seen(rows: np.ndarray, words: np.ndarray) -> np.ndarray:
    """[r] bool: which rows differ from all before them; a hash table with open addresses, half empty."""
    num_slots = 4
    while num_slots < 2 * len(rows):
        num_slots *= 2
    slots = np.full(num_slots, -1, dtype=np.int64)
    kept = np.ones(len(rows), dtype=np.bool_)
    for i in range(len(rows)):
        # The low bits: all rows of a bucket agree in the high ones.
        slot = np.int64(words[i] & np.uint64(num_slots - 1))
        while slots[slot] >= 0:
            other = slots[slot]
            if words[other] == words[i] and (rows[other] == rows[i]).all():
                kept[i] = False
                break
            slot = (slot + 1) & (num_slots - 1)
        if kept[i]:
            slots[slot] = i
    return kept


@dataclass(frozen=True)
class Subsets(AddressedPart):
    """Sets uniform among all, without replacement: the set of rank permute(j)."""

    num_nodes: int
    seed: int

    def rows_at(self, index: np.ndarray) -> np.ndarray:
        total = math.comb(self.num_nodes, self.size)
        return unrank(rng.permute(index, total, edge_key(self.seed, self.size)), self.num_nodes, self.size)


@dataclass(frozen=True)
class DrawnSubsets(ExchangedPart):
    """Sets uniform among more than there are ranks."""

    num_nodes: int
    seed: int

    def propose(self, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
        counters = np.arange(lo, hi)
        return random_subsets(counters, self.num_nodes, self.size, edge_key(self.seed, self.size)), counters


def edge_key(seed: int, size: int) -> np.uint64:
    return rng.key(seed, "world/edges", size)


def check_nodes(num_nodes: int, at_least: int) -> None:
    if not at_least <= num_nodes < 2**31:
        raise ConfigError(f"world.num_nodes={num_nodes} is outside [{at_least}, 2^31)")


def check_size(num_nodes: int, size: int, num_edges: int | None) -> int:
    """Refuse a size that no set has, or more edges than sets; return C(n, k)."""
    largest = min(num_nodes, MAX_EDGE_SIZE)
    if not 1 <= size <= largest:
        raise ConfigError(f"world.size={size} is outside [1, {largest}] for world.num_nodes={num_nodes}")
    total = math.comb(num_nodes, size)
    if num_edges is not None and num_edges > total:
        raise ConfigError(
            f"world.num_edges={num_edges} is more than all sets of {size} out of {num_nodes} nodes; at most {total}"
        )
    return total
