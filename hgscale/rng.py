"""Counter-based random numbers, named by use: every draw is a pure function of (seed, name, counter).

Nothing here holds state and nothing seeds globally. Two forms:

- ``stream(seed, name, index)``: a numpy Generator, for code that draws a known amount once (a world, first weights).
- ``key(seed, name)`` with the numba function ``random_bits(key, counter)``: one 64-bit word a counter, for kernels.

``permute(values, size, key)`` is a random order of [0, size), a value at a time; ``unpermute`` is its inverse.
"""

import functools
import hashlib

import numba as nb
import numpy as np

MAX_PERMUTED = 2**62  # sizes of permutations, so that every number on the way is an int64
_MAX_SHUFFLED = 2**16
_ROUNDS = 6


def key(seed: int, name: str, index: int = 0) -> np.uint64:
    """The 64-bit key of a named stream; streams of different seed, name or index are unrelated."""
    digest = hashlib.blake2b(f"{seed}/{name}/{index}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def stream(seed: int, name: str, index: int = 0) -> np.random.Generator:
    """A numpy generator for one use, keyed by (seed, name, index)."""
    digest = hashlib.blake2b(f"{seed}/{name}/{index}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@nb.njit(nb.uint64(nb.uint64), inline="always", cache=True)
def mix(word: np.uint64) -> np.uint64:
    """A bijection of 64-bit words under which nearby words become unrelated.

    Source: the finalizer of SplitMix64 (Steele, Lea, Flood 2014; constants by Stafford, "Mix13").
    """
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@nb.njit(nb.uint64(nb.uint64, nb.uint64), inline="always", cache=True)
def random_bits(key: np.uint64, counter: np.uint64) -> np.uint64:
    """64 random bits of one counter under one key.

    Mixed twice with the key added in between, so that neither nearby counters nor nearby keys are related.
    """
    return mix(mix(counter * np.uint64(0x9E3779B97F4A7C15) + key) + key)


@nb.njit(nb.uint64(nb.uint64, nb.uint64), inline="always", cache=True)
def below(bits: np.uint64, bound: np.uint64) -> np.uint64:
    """floor(bits * bound / 2**64): uniform on [0, bound) for bound <= 2**32, each probability within 2**-64."""
    high, low = bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF)
    return (high * bound + ((low * bound) >> np.uint64(32))) >> np.uint64(32)


@nb.njit(nb.float64(nb.uint64), inline="always", cache=True)
def open_unit(bits: np.uint64) -> float:
    """Uniform on the 2**52 midpoints (i + 1/2) / 2**52: never 0 and never 1, so that logarithms are finite, not 0."""
    return (np.float64(bits >> np.uint64(12)) + 0.5) * 2.0**-52


def permute(values: np.ndarray, size: int, key: np.uint64) -> np.ndarray:
    """A keyed permutation of [0, size), a value at a time.

    Up to 2**16 it is a shuffle, all permutations being equally likely: of so few values, rounds of ``feistel`` favour
    some. Beyond it is ``feistel``, which needs no table.

    Args:
        values: [b] int64 in [0, size).
        size: at most 2**62.
        key: another key, another permutation.

    Returns:
        [b] int64 in [0, size).
    """
    assert 1 <= size <= MAX_PERMUTED, size
    if size <= _MAX_SHUFFLED:
        order: np.ndarray = _shuffled(size, int(key))[values]
        return order
    return _permute(np.ascontiguousarray(values, dtype=np.int64), np.int64(size), key)


def unpermute(values: np.ndarray, size: int, key: np.uint64) -> np.ndarray:
    """The inverse of ``permute``.  [b] int64 in [0, size) -> [b] int64 in [0, size)."""
    assert 1 <= size <= MAX_PERMUTED, size
    if size <= _MAX_SHUFFLED:
        order: np.ndarray = _unshuffled(size, int(key))[values]
        return order
    return _unpermute(np.ascontiguousarray(values, dtype=np.int64), np.int64(size), key)


@functools.lru_cache(maxsize=16)
def _shuffled(size: int, key: int) -> np.ndarray:
    return _shuffle(size, np.uint64(key))


@functools.lru_cache(maxsize=16)
def _unshuffled(size: int, key: int) -> np.ndarray:
    return np.argsort(_shuffled(size, key))


@nb.njit(cache=True)
def _shuffle(size: int, key: np.uint64) -> np.ndarray:
    """[size] int64: Fisher and Yates, one word a place."""
    order = np.arange(size)
    for i in range(size - 1, 0, -1):
        other = np.int64(below(random_bits(key, np.uint64(i)), np.uint64(i + 1)))
        order[i], order[other] = order[other], order[i]
    return order


@nb.njit(cache=True)
def radix_of(size: np.int64) -> np.uint64:
    """ceil(sqrt(size)), what the halves in ``feistel`` stay below."""
    radix = np.uint64(np.ceil(np.sqrt(np.float64(size))))
    while radix * radix < np.uint64(size):
        radix += np.uint64(1)
    return radix


@nb.njit(cache=True)
def round_keys(key: np.uint64) -> np.ndarray:
    """[6] uint64: the keys of the rounds of ``feistel``."""
    keys = np.empty(_ROUNDS, dtype=np.uint64)
    for r in range(_ROUNDS):
        keys[r] = random_bits(key, np.uint64(r))
    return keys


@nb.njit(inline="always", cache=True)
def feistel(value: np.uint64, size: np.uint64, radix: np.uint64, keys: np.ndarray) -> np.uint64:
    """Where a keyed permutation of [0, size) takes a value; keys are ``round_keys``, radix is ``radix_of`` the size.

    Source: a generalized-Feistel cipher with cycle walking (Black and Rogaway 2002). Each round adds to one half of a
    pair (left, right) of numbers below ceil(sqrt(size)) a hash of the other, modulo the radix: a bijection whatever the
    hash is. Numbers that land outside [0, size) walk on until inside; since radix**2 < size + 2 sqrt(size) + 1 few do.
    """
    while True:
        left = value // radix
        right = value - left * radix
        for r in range(_ROUNDS):
            left += below(mix(right + keys[r]), radix)
            if left >= radix:
                left -= radix
            left, right = right, left
        value = left * radix + right
        if value < size:
            return value


@nb.njit(cache=True)
def _permute(values: np.ndarray, size: np.int64, key: np.uint64) -> np.ndarray:
    radix, keys, out = radix_of(size), round_keys(key), np.empty(len(values), dtype=np.int64)
    for i in range(len(values)):
        out[i] = np.int64(feistel(np.uint64(values[i]), np.uint64(size), radix, keys))
    return out


@nb.njit(cache=True)
def _unpermute(values: np.ndarray, size: np.int64, key: np.uint64) -> np.ndarray:
    radix, keys, out = radix_of(size), round_keys(key), np.empty(len(values), dtype=np.int64)
    for i in range(len(values)):
        value = np.uint64(values[i])
        while True:
            left = value // radix
            right = value - left * radix
            for r in range(_ROUNDS - 1, -1, -1):
                left, right = right, left
                added = below(mix(right + keys[r]), radix)
                left = left - added if left >= added else left + radix - added
            value = left * radix + right
            if value < np.uint64(size):
                break
        out[i] = np.int64(value)
    return out
