"""Parts: pieces in any cut are the same edges, and what an exchange of proposals rests on."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hgscale.hypergraph.worlds.config import WorldConfig, parts_of
from hgscale.hypergraph.worlds.parts import SHARD_EDGES, AddressedPart, ExchangedPart, Part, bucket_of, first_of

WORLDS = {
    "uniform": {"generator": "uniform", "num_nodes": 1000, "num_edges": 5000},
    "uniform of several sizes": {
        "generator": "uniform", "num_nodes": 100, "num_edges": 500, "sizes": {2: 1.0, 3: 2.0, 98: 1.0}
    },
    "uniform beyond ranks": {"generator": "uniform", "num_nodes": 10**6, "num_edges": 500, "size": 5},
    "gnm": {"num_nodes": 60, "num_edges": 300},
    "star": {"generator": "star", "num_nodes": 300},
    "chain": {"generator": "chain", "num_nodes": 300},
    "cross": {"generator": "cross", "num_nodes": 300},
    "power law, listed": {"generator": "power_law", "num_nodes": 100, "num_edges": 500},
    "power law": {"generator": "power_law", "num_nodes": 1000, "num_edges": 500},
    "block": {"generator": "block", "num_nodes": 60, "num_edges": 500},
    "block, all sets": {"generator": "block", "num_nodes": 20},
    "block beyond ranks": {"generator": "block", "num_nodes": 3000, "num_edges": 500, "size": 8, "num_blocks": 2},
}  # fmt: skip
PARTS = [
    pytest.param(part, id=f"{name} [{number}]")
    for name, fields in WORLDS.items()
    for number, part in enumerate(parts_of(WorldConfig(**fields)))
]


@pytest.mark.parametrize("part", [part for part in PARTS if isinstance(part.values[0], AddressedPart)])
def test_addressed_edges_are_the_same_in_any_cut_and_distinct(part: AddressedPart) -> None:
    whole = part.rows(0, part.num_edges)
    assert whole.shape == (part.num_edges, part.size)
    assert whole.dtype == np.int32
    assert (whole[:, 1:] > whole[:, :-1]).all()
    assert len(np.unique(whole, axis=0)) == part.num_edges
    cuts = [0, 1, part.num_edges // 3, part.num_edges // 3, part.num_edges - 1, part.num_edges]
    pieces = [part.rows(lo, hi) for lo, hi in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    index = np.array([part.num_edges - 1, 0, 3, 3, part.num_edges // 2])
    np.testing.assert_array_equal(part.rows_at(index), whole[index])


@pytest.mark.parametrize("part", [part for part in PARTS if isinstance(part.values[0], ExchangedPart)])
def test_proposals_are_the_same_in_any_cut(part: ExchangedPart) -> None:
    rows, counters = part.propose(0, 1000)
    assert rows.shape == (len(counters), part.size)
    assert rows.dtype == np.int32
    assert (rows[:, 1:] > rows[:, :-1]).all()
    assert (np.diff(counters) > 0).all()
    assert 0 <= counters[0] <= counters[-1] < 1000
    pieces = [part.propose(lo, hi) for lo, hi in ((0, 1), (1, 1), (1, 400), (400, 999), (999, 1000))]
    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in pieces]), rows)
    np.testing.assert_array_equal(np.concatenate([piece[1] for piece in pieces]), counters)


def test_both_kinds_of_parts_are_among_those_tested() -> None:
    kinds = {type(part.values[0]).__name__ for part in PARTS}
    assert kinds >= {
        "Subsets", "DrawnSubsets", "Tree", "ConnectedGraph", "RacedSets", "PulledSets", "InnerSets", "DrawnInnerSets",
        "CrossingSets",
    }  # fmt: skip


def test_a_part_has_a_bucket_for_each_shards_worth_of_edges() -> None:
    def part_of(num_edges: int) -> Part:
        return parts_of(WorldConfig(generator="power_law", num_nodes=10**6, num_edges=num_edges))[0]

    assert [part_of(n).num_buckets for n in (1, SHARD_EDGES, SHARD_EDGES + 1)] == [1, 1, 2]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(4, 6)), max_size=40), st.randoms(use_true_random=False))
def test_the_first_of_each_set_counts(sets: list[tuple[int, int]], shuffle) -> None:
    counters = list(range(0, 3 * len(sets), 3))
    shuffle.shuffle(counters)
    first: dict[tuple[int, int], int] = {}
    for counter, nodes in sorted(zip(counters, sets, strict=True)):
        first.setdefault(nodes, counter)
    rows, kept = first_of(np.array(sets, dtype=np.int32).reshape(-1, 2), np.array(counters, dtype=np.int64))
    assert [tuple(row) for row in rows.tolist()] == list(first)
    assert kept.tolist() == list(first.values())


def test_the_first_of_each_bucket_are_the_first_of_all() -> None:
    part = parts_of(WorldConfig(generator="power_law", num_nodes=300, num_edges=20_000))[0]
    assert isinstance(part, ExchangedPart)
    rows, counters = part.propose(0, 30_000)
    whole = first_of(rows, counters)
    assert len(whole[0]) < len(rows)  # hubs repeat
    buckets = bucket_of(rows, 3)
    pieces = [first_of(rows[buckets == bucket], counters[buckets == bucket]) for bucket in range(3)]
    order = np.argsort(np.concatenate([piece[1] for piece in pieces]))
    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in pieces])[order], whole[0])
    np.testing.assert_array_equal(np.concatenate([piece[1] for piece in pieces])[order], whole[1])


def test_buckets_are_even_and_a_function_of_the_set() -> None:
    rows = parts_of(WorldConfig(generator="uniform", num_nodes=1000, num_edges=20_000))[0].rows(0, 20_000)
    buckets = bucket_of(rows, 7)
    assert stats.chisquare(np.bincount(buckets, minlength=7)).pvalue > 1e-7
    np.testing.assert_array_equal(bucket_of(rows[::-1], 7)[::-1], buckets)
    assert set(bucket_of(rows, 1)) == {0}
