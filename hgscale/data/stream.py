"""The stream is arithmetic: which samples make up global batch t, for any number of workers, after any restart.

A position counts samples in training order, from 0. A finite corpus visits its ids in the order of a keyed permutation,
a new one each epoch; a fresh stream has id = position. The only state is one integer: the step.
"""

from dataclasses import dataclass

import numba as nb
import numpy as np

from hgscale.errors import ConfigError
from hgscale.rng import feistel, key, radix_of, random_bits, round_keys

WORD = 2**64
"""What hashes of ids are added up modulo."""


@dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """How much data there is."""

    num_samples: int | None = None
    """N, edges drawn in all: the x axis of a study. Each is seen once per epoch. Null draws fresh edges for ever."""

    seed: int = 0
    """Seed of the draws: samples of smaller N are a prefix of those of larger N."""

    def __post_init__(self) -> None:
        if self.num_samples is not None and self.num_samples < 1:
            raise ConfigError(
                f"samples.num_samples={self.num_samples} is not positive; give N >= 1, or null for fresh samples"
            )


@dataclass(frozen=True)
class Stream:
    """Global position -> sample id, and the share of each rank.

    Attributes:
        num_samples: N of a finite corpus, or None for fresh samples.
        batch_size: samples in a global batch.
        seed: of the order in which epochs visit the corpus.
    """

    num_samples: int | None
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"train.global_batch={self.batch_size} is not positive; give at least 1")
        if self.num_samples is not None and self.num_samples < self.batch_size:
            raise ConfigError(
                f"samples.num_samples={self.num_samples} is smaller than train.global_batch={self.batch_size}; "
                f"draw at least {self.batch_size} samples or lower the batch to {self.num_samples}"
            )

    def global_batch(self, step: int) -> np.ndarray:
        """The sample ids of one global batch.  -> [batch_size] int64."""
        return self.ids(self.positions(step))

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
        """The global positions of a rank's share of a step, a contiguous part.  -> [batch_size / world_size] int64."""
        if self.batch_size % world_size:
            raise ConfigError(
                f"train.global_batch={self.batch_size} is not a multiple of the {world_size} workers; "
                f"use {-(-self.batch_size // world_size) * world_size}"
            )
        share = self.batch_size // world_size
        start = step * self.batch_size + rank * share
        return np.arange(start, start + share, dtype=np.int64)

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Sample ids at global positions.  [b] int64 -> [b] int64."""
        if self.num_samples is None:
            return positions
        ids = np.empty_like(positions)
        _visit(positions, np.int64(self.num_samples), key(self.seed, "stream/epoch"), ids)
        return ids

    def visits(self, positions: np.ndarray) -> np.ndarray:
        """How often the sample at each position has been seen before.  [b] int64 -> [b] int64."""
        return np.zeros_like(positions) if self.num_samples is None else positions // self.num_samples

    def num_seen(self, num_steps: int) -> int:
        """How many different samples the first steps have visited."""
        visited = num_steps * self.batch_size
        return visited if self.num_samples is None else min(visited, self.num_samples)


@nb.njit(cache=True)
def _visit(positions: np.ndarray, size: np.int64, base_key: np.uint64, ids: np.ndarray) -> None:
    """Epoch e visits [0, size) in the order of the e-th permutation."""
    radix = radix_of(size)
    epoch = np.int64(-1)
    keys = round_keys(base_key)
    for i in range(len(positions)):
        if positions[i] // size != epoch:
            epoch = positions[i] // size
            keys = round_keys(random_bits(base_key, np.uint64(epoch)))
        ids[i] = np.int64(feistel(np.uint64(positions[i] - epoch * size), np.uint64(size), radix, keys))


def ids_hash(step: int, ids: np.ndarray, visits: np.ndarray) -> int:
    """Which samples a step trains on, and at which visits, as one number in [0, 2**64).

    The sum, modulo 2**64, of a random word for each (step, visit, id). So the hashes of all workers' shares of a step
    add up to that of the global batch, however it is cut, and those of steps to that of the history. A sample that is
    lost, repeated, replaced, or moved to another step changes the sum, but for one chance in 2**64.

    Args:
        step: counted from 0.
        ids: [b] int64.
        visits: [b] int64, how often each has been seen before.

    Source: derived here; a sum, unlike an exclusive or, does not cancel what stands twice.
    """
    return int(_sum_of_words(ids, visits, key(0, "ids hash"), step))


@nb.njit(cache=True)
def _sum_of_words(ids: np.ndarray, visits: np.ndarray, hash_key: np.uint64, step: int) -> np.uint64:
    total, step_key = np.uint64(0), random_bits(hash_key, np.uint64(step))
    for i in range(len(ids)):
        total += random_bits(random_bits(step_key, np.uint64(visits[i])), np.uint64(ids[i]))
    return total
