"""Ranks of sets: every set once, in order, exactly up to 2^62; and sets drawn by counter."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hgscale import rng
from hgscale.hypergraph.subsets import MAX_RANK, hash_of, random_subsets, rank, unrank

P_VALUE = 1e-7  # one draw in ten million of an ideal source falls outside; seeds are fixed


@given(num_nodes=st.integers(1, 10), data=st.data())
def test_ranks_number_the_subsets_in_lexicographic_order(num_nodes: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, num_nodes))
    subsets = np.array(list(itertools.combinations(range(num_nodes), size)))
    np.testing.assert_array_equal(unrank(np.arange(len(subsets)), num_nodes, size), subsets)
    np.testing.assert_array_equal(rank(subsets, num_nodes), np.arange(len(subsets)))


def most_nodes(size: int) -> int:
    """The largest n below 2^31 with C(n, size) <= 2^62."""
    low, high = size, 2**31 - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if math.comb(middle, size) <= MAX_RANK else (low, middle - 1)
    return low


def rank_by_hand(row: list[int], num_nodes: int) -> int:
    """Sets that come before: those that agree up to some place and have a smaller node there."""
    size = len(row)
    return sum(
        math.comb(num_nodes - previous - 1, size - d) - math.comb(num_nodes - node, size - d)
        for d, (previous, node) in enumerate(zip([-1, *row], row, strict=False))
    )


@pytest.mark.parametrize(
    ("num_nodes", "size"),
    [(most_nodes(size), size) for size in (1, 2, 3, 4, 5, 6, 7, 10, 16, 31, 32, 33, 40)]
    + [(64, 32), (100, 97), (2000, 1998), (30_001, 30_000), (10**6, 3), (10**7, 2), (3000, 3), (50, 4)],
)
def test_unranking_is_exact_up_to_the_largest_rank(num_nodes: int, size: int) -> None:
    total = math.comb(num_nodes, size)
    spread = 20 if size > 1000 else 2000
    # The ends, the middle, places at random, and where a digit changes: ranks of {v, v + 1, ...} and the one before.
    turns = [
        total - math.comb(num_nodes - v, size) + step
        for v in np.linspace(0, num_nodes - size, 200).astype(int).tolist()
        for step in (-1, 0, 1)
    ]
    ranks = [*range(spread), *range(total - spread, total), *range(total // 2, total // 2 + spread), *turns]
    places = rng.permute(np.arange(min(total, 10 * spread)), total, rng.key(0, "test")).tolist()
    ranks = np.array(sorted({r for r in ranks + places if 0 <= r < total}))
    rows = unrank(ranks, num_nodes, size)
    assert rows.dtype == np.int32
    assert (rows[:, 1:] > rows[:, :-1]).all()
    assert rows.min() >= 0
    assert rows.max() < num_nodes
    np.testing.assert_array_equal(rank(rows, num_nodes), ranks)
    for i in range(0, len(ranks), max(len(ranks) // 100, 1)):
        assert rank_by_hand(rows[i].tolist(), num_nodes) == ranks[i]


@pytest.mark.parametrize(("num_nodes", "size"), [(4, 3), (5, 3), (6, 1), (6, 6), (7, 2)])
def test_subsets_drawn_by_counter_are_equally_likely(num_nodes: int, size: int) -> None:
    rows = random_subsets(np.arange(20_000), num_nodes, size, rng.key(0, "test"))
    counts = Counter(map(tuple, rows.tolist()))
    subsets = list(itertools.combinations(range(num_nodes), size))
    assert set(counts) == set(subsets)
    if len(subsets) > 1:
        assert stats.chisquare([counts[subset] for subset in subsets]).pvalue > P_VALUE


def test_a_drawn_subset_is_a_function_of_its_counter() -> None:
    key = rng.key(0, "test")
    rows = random_subsets(np.arange(1000), 10**6, 5, key)
    assert (rows[:, 1:] > rows[:, :-1]).all()
    np.testing.assert_array_equal(random_subsets(np.array([999, 7]), 10**6, 5, key), rows[[999, 7]])
    assert not np.array_equal(random_subsets(np.arange(1000), 10**6, 5, rng.key(1, "test")), rows)


def test_sets_of_other_nodes_or_sizes_hash_apart() -> None:
    words = [hash_of(np.array(list(itertools.combinations(range(20), size)), dtype=np.int32)) for size in (1, 2, 3)]
    words = np.concatenate(words)
    assert len(np.unique(words)) == len(words)
    assert stats.chisquare(np.bincount((words >> np.uint64(60)).astype(np.int64), minlength=16)).pvalue > P_VALUE
