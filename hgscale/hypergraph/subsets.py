"""Sets of nodes by number: the r-th of all sets of a size, and the c-th of an endless row of random ones.

The rank of a set of k out of n nodes is its place among all C(n, k) in lexicographic order. Ranks stay below 2**62, so
that what makes them stays an integer of 64 bits: 3 nodes out of 3 million, 4 out of 100,000, any out of 64.

Source: derived here. Under i -> n - 1 - i lexicographic order is the reverse of the combinatorial number system
N = C(b_1, k) + C(b_2, k - 1) + ... with b_1 > b_2 > ..., whose digits are found greedily. Sets of more than half of the
nodes are found by what they leave out, whose order is the reverse; so no binomial on the way is larger than C(n, k).
"""

import functools
import math

import numba as nb
import numpy as np

from hgscale.rng import below, random_bits

MAX_RANK = 2**62
# Binomials over so many nodes are computed, those over more are looked up.
_COMPUTED = 3


def unrank(ranks: np.ndarray, num_nodes: int, size: int) -> np.ndarray:
    """The sets of these ranks.

    Args:
        ranks: [r] int64 in [0, C(n, k)), C(n, k) at most 2**62.
        num_nodes: n.
        size: k in [1, n].

    Returns:
        [r, k] int32, nodes ascending.
    """
    total = math.comb(num_nodes, size)
    assert total <= MAX_RANK, (num_nodes, size)
    ranks = np.ascontiguousarray(ranks, dtype=np.int64)
    few = min(size, num_nodes - size)
    rows = np.empty((len(ranks), few), dtype=np.int32)
    _unrank(total - 1 - ranks if few == size else ranks, num_nodes, _binomials(num_nodes, few), rows)
    return rows if few == size else _complement(rows, num_nodes)


def rank(rows: np.ndarray, num_nodes: int) -> np.ndarray:
    """The inverse of ``unrank``.  [r, k] integers, nodes ascending -> [r] int64."""
    size = rows.shape[1]
    total = math.comb(num_nodes, size)
    assert total <= MAX_RANK, (num_nodes, size)
    few = min(size, num_nodes - size)
    rows = rows.astype(np.int32, copy=False)
    reverse = _rank(rows if few == size else _complement(rows, num_nodes), num_nodes, _binomials(num_nodes, few))
    return total - 1 - reverse if few == size else reverse


def random_subsets(counters: np.ndarray, num_nodes: int, size: int, key: np.uint64) -> np.ndarray:
    """Sets drawn uniformly, each a function of its counter; two counters may give the same.

    Args:
        counters: [r] int64.
        num_nodes: n.
        size: k in [1, n].
        key: of the draws.

    Returns:
        [r, k] int32, nodes ascending.

    Source: Floyd's method (Bentley and Floyd 1987).
    """
    rows = np.empty((len(counters), size), dtype=np.int32)
    _draw_subsets(np.ascontiguousarray(counters, dtype=np.int64), num_nodes, key, rows)
    return rows


def hash_of(rows: np.ndarray) -> np.ndarray:
    """A word of each set.  [r, k] int32, nodes ascending -> [r] uint64."""
    return _hash_rows(np.ascontiguousarray(rows, dtype=np.int32))


@functools.lru_cache(maxsize=16)
def _binomials(num_nodes: int, size: int) -> np.ndarray:
    """[size + 1, n + 1] int64: C(c, j) at [j, c]; without columns where none is looked up."""
    if size <= _COMPUTED:
        return np.empty((size + 1, 0), dtype=np.int64)
    table = np.ones((size + 1, num_nodes + 1), dtype=np.int64)
    for j in range(1, size + 1):
        table[j, 0] = 0
        np.cumsum(table[j - 1, :-1], out=table[j, 1:])
    return table


@nb.njit(inline="always", cache=True)
def _binomial(c: np.int64, j: np.int64, table: np.ndarray) -> np.int64:
    """C(c, j) for C(n, k) <= 2**62: three times that still has 64 bits, if no sign.

    At c = 0 and 1 the first factor of j = 3 is 0, whatever the other is.
    """
    if j == 1:
        return c
    if j == 2:
        return c * (c - 1) // 2
    if j == 3:
        return np.int64(np.uint64(c * (c - 1) // 2) * np.uint64(abs(c - 2)) // np.uint64(3))
    found: np.int64 = table[j, c]
    return found


@nb.njit(inline="always", cache=True)
def _guess(value: np.int64, j: np.int64, log_factorial: float) -> np.int64:
    """About the largest c with C(c, j) <= value.

    C(c, j) = x (x^2 - 1) / 6 at x = c - 1 for j = 3, and (y^2 - 1) / 24 with y = x^2 - 5/4 at x = c - 3/2 for j = 4;
    in general x^j / j! (1 - j (j^2 - 1) / (24 x^2) + ...) at x = c - (j - 1) / 2.
    """
    v = np.float64(value)
    if j == 1:
        return value
    if j == 2:
        return np.int64((1.0 + np.sqrt(8.0 * v + 1.0)) * 0.5)
    if j == 3:
        x = np.cbrt(6.0 * v + 1e-3)
        return np.int64(x + 1.0 / (3.0 * x) + 1.0)
    if j == 4:
        return np.int64(np.sqrt(np.sqrt(24.0 * v + 1.0) + 1.25) + 1.5)
    x = np.exp((np.log(v + 1e-3) + log_factorial) / j)
    return np.int64(x + (j * j - 1) / (24.0 * x) + 0.5 * (j - 1))


@nb.njit(cache=True)
def _unrank(left: np.ndarray, num_nodes: int, table: np.ndarray, rows: np.ndarray) -> None:
    """A digit at a time, from a guess that floats make and whole numbers mend; left [r] is used up."""
    size = rows.shape[1]
    log_factorial = np.zeros(size + 1)
    for j in range(2, size + 1):
        log_factorial[j] = log_factorial[j - 1] + np.log(j)
    for i in range(len(left)):
        value, top = left[i], num_nodes - 1
        for d in range(size):
            j = size - d
            digit = min(max(_guess(value, j, log_factorial[j]), j - 1), top)
            below_next = _binomial(digit, j, table)
            while below_next > value:
                digit -= 1
                below_next = _binomial(digit, j, table)
            while digit < top:
                above = _binomial(digit + 1, j, table)
                if above > value:
                    break
                digit, below_next = digit + 1, above
            value -= below_next
            top = digit - 1
            rows[i, d] = num_nodes - 1 - digit


@nb.njit(cache=True)
def _rank(rows: np.ndarray, num_nodes: int, table: np.ndarray) -> np.ndarray:
    size = rows.shape[1]
    out = np.empty(len(rows), dtype=np.int64)
    for i in range(len(rows)):
        value = np.int64(0)
        for d in range(size):
            value += _binomial(num_nodes - 1 - np.int64(rows[i, d]), size - d, table)
        out[i] = value
    return out


@nb.njit(cache=True)
def _complement(rows: np.ndarray, num_nodes: int) -> np.ndarray:
    """[r, n - k] int32: the nodes that each row leaves out, ascending."""
    out = np.empty((len(rows), num_nodes - rows.shape[1]), dtype=np.int32)
    for i in range(len(rows)):
        d = at = 0
        for node in range(num_nodes):
            if d < rows.shape[1] and rows[i, d] == node:
                d += 1
            else:
                out[i, at] = node
                at += 1
    return out


@nb.njit(cache=True)
def _draw_subsets(counters: np.ndarray, num_nodes: int, key: np.uint64, rows: np.ndarray) -> None:
    size = rows.shape[1]
    for i in range(len(counters)):
        row_key = random_bits(key, np.uint64(counters[i]))
        for j in range(size):
            top = num_nodes - size + j
            node = np.int64(below(random_bits(row_key, np.uint64(j)), np.uint64(top + 1)))
            place = j
            while place > 0 and rows[i, place - 1] > node:
                place -= 1
            if place > 0 and rows[i, place - 1] == node:
                rows[i, j] = top  # larger than all before
            else:
                for d in range(j, place, -1):
                    rows[i, d] = rows[i, d - 1]
                rows[i, place] = node


@nb.njit(cache=True)
def _hash_rows(rows: np.ndarray) -> np.ndarray:
    out = np.empty(len(rows), dtype=np.uint64)
    for i in range(len(rows)):
        word = np.uint64(rows.shape[1])
        for d in range(rows.shape[1]):
            word = random_bits(word, np.uint64(rows[i, d]))
        out[i] = word
    return out
