"""Counter-based random numbers, named by use: every draw is a pure function of (seed, name, counter).

Nothing here holds state and nothing seeds globally. Two forms:

- ``stream(seed, name, index)``: a numpy Generator, for code that draws a known amount once (a world, first weights).
- ``key(seed, name)`` with the numba function ``random_bits(key, counter)``: one 64-bit word a counter, for kernels.
"""

import hashlib

import numba as nb
import numpy as np


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
