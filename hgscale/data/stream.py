"""The stream is arithmetic: which samples make up global batch t, for any number of workers, after any restart.

A position counts samples in training order, from 0. A finite corpus visits its ids in the order of a keyed permutation,
a new one each epoch; a fresh stream has id = position. The only state is one integer: the step.
"""

from dataclasses import dataclass

import numba as nb
import numpy as np

from hgscale.errors import ConfigError
from hgscale.rng import below, key, mix, random_bits

_ROUNDS = 6


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

    def rank_batch(self, step: int, rank: int, world_size: int) -> np.ndarray:
        """One rank's share: a contiguous part of the global batch.  -> [batch_size / world_size] int64."""
        return self.ids(self.positions(step, rank, world_size))

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
        """The global positions of a rank's share of a step.  -> [batch_size / world_size] int64."""
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
        _permute(positions, np.int64(self.num_samples), key(self.seed, "stream/epoch"), ids)
        return ids

    def visits(self, positions: np.ndarray) -> np.ndarray:
        """How often the sample at each position has been seen before.  [b] int64 -> [b] int64."""
        return np.zeros_like(positions) if self.num_samples is None else positions // self.num_samples

    def num_seen(self, num_steps: int) -> int:
        """How many different samples the first steps have visited."""
        visited = num_steps * self.batch_size
        return visited if self.num_samples is None else min(visited, self.num_samples)


@nb.njit(cache=True)
def _permute(positions: np.ndarray, size: np.int64, base_key: np.uint64, ids: np.ndarray) -> None:
    """Epoch e visits [0, size) by a Feistel network on pairs (left, right) of numbers below ceil(sqrt(size)).

    Each round adds to one half a hash of the other, modulo the radix: a bijection whatever the hash is.
    Numbers that land outside [0, size) walk on until inside (Black and Rogaway 2002, generalized-Feistel cipher with
    cycle walking); since radix**2 < size + 2 sqrt(size) + 1 few ever do.
    """
    radix = np.uint64(np.ceil(np.sqrt(np.float64(size))))
    while radix * radix < np.uint64(size):
        radix += np.uint64(1)
    epoch = np.int64(-1)
    round_keys = np.empty(_ROUNDS, dtype=np.uint64)
    for i in range(len(positions)):
        if positions[i] // size != epoch:
            epoch = positions[i] // size
            epoch_key = random_bits(base_key, np.uint64(epoch))
            for r in range(_ROUNDS):
                round_keys[r] = random_bits(epoch_key, np.uint64(r))
        value = np.uint64(positions[i] - epoch * size)
        while True:
            left = value // radix
            right = value - left * radix
            for r in range(_ROUNDS):
                left += below(mix(right + round_keys[r]), radix)
                if left >= radix:
                    left -= radix
                left, right = right, left
            value = left * radix + right
            if value < np.uint64(size):
                break
        ids[i] = np.int64(value)
