"""Worlds with planted classes: edges inside and across as promised, weights by class alone."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds import blocks
from hgscale.hypergraph.worlds.blocks import CrossingSets, PatternLaw, block_of
from hgscale.hypergraph.worlds.config import WorldConfig, build_world
from tests.unit.hypergraph.laws import assert_is_world, assert_law, edges_of


def block(
    num_nodes: int, num_edges: int | None, size: int, num_blocks: int, within_ratio: float, seed: int
) -> Hypergraph:
    return build_world(
        WorldConfig(
            generator="block",
            num_nodes=num_nodes,
            num_edges=num_edges,
            size=size,
            num_blocks=num_blocks,
            within_ratio=within_ratio,
            seed=seed,
        )
    )


def classes_of(num_nodes: int, num_blocks: int) -> np.ndarray:
    return block_of(np.arange(num_nodes), num_nodes, num_blocks)


@given(num_nodes=st.integers(4, 9), num_blocks=st.integers(2, 3), data=st.data())
def test_block_weights_depend_on_classes_alone_and_split_the_mass_as_asked(
    num_nodes: int, num_blocks: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(2, math.ceil(num_nodes / num_blocks)))
    total = math.comb(num_nodes, size)
    num_edges = data.draw(st.none() | st.integers(2, total))
    ratio = data.draw(st.sampled_from([0.25, 1.0, 5.0]))
    world = block(num_nodes, num_edges, size, num_blocks, ratio, seed=data.draw(st.integers(0, 5)))
    assert_is_world(world, num_nodes, num_edges or total)
    classes = classes_of(num_nodes, num_blocks)
    assert np.ptp(np.bincount(classes, minlength=num_blocks)) <= 1
    inside = np.array([len({classes[node] for node in edge}) == 1 for edge in edges_of(world)])
    assert len(set(world.weights[inside])) == len(set(world.weights[~inside])) == 1
    # Two sums of at most E numbers, each off by at most E 2^-53 relatively, and their quotient.
    assert world.weights[inside].sum() / world.weights[~inside].sum() == pytest.approx(ratio, rel=200 * 2**-53)


@pytest.mark.parametrize("max_rank", [0, 2**62])
def test_block_draws_each_kind_of_edge_equally_often_by_rank_or_not(
    monkeypatch: pytest.MonkeyPatch, max_rank: int
) -> None:
    monkeypatch.setattr(blocks, "MAX_RANK", max_rank)
    # 7 nodes in classes of 4 and 3: 5 triples inside and 30 across; of 7 edges 1 is inside and 6 are across.
    draws = 1500
    counts = Counter(edge for seed in range(draws) for edge in edges_of(block(7, 7, 3, 2, 1.0, seed)))
    inside = {edge: count for edge, count in counts.items() if max(edge) < 4 or min(edge) >= 4}
    assert_law(inside, dict.fromkeys([*itertools.combinations(range(4), 3), (4, 5, 6)], draws / 5))
    across = {edge: count for edge, count in counts.items() if edge not in inside}
    assert len(across) == 30
    # Drawn six at a time without replacement, counts vary less than a binomial, five of whose deviations are allowed.
    assert all(abs(count - draws / 5) <= 5 * math.sqrt(draws * 0.2 * 0.8) for count in across.values())


def test_block_holds_beyond_64_bit_ranks() -> None:
    world = block(3000, 2000, 8, 2, 1.0, seed=0)  # about 2000 / 2^7 = 16 edges are inside a class
    assert_is_world(world, 3000, 2000)
    classes = classes_of(3000, 2)
    assert {frozenset(classes[list(edge)].tolist()) for edge in edges_of(world)} == {
        frozenset({0}),
        frozenset({1}),
        frozenset({0, 1}),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 21, 3, 2, 1.0), r"world\.num_edges=21 .*at most 20$"),
        ((6, 1, 3, 2, 1.0), r"world\.num_edges=1 .*at least 2$"),
        ((6, 5, 1, 2, 1.0), r"world\.size=1 .*at least 2$"),
        ((6, 5, 3, 1, 1.0), r"world\.num_blocks=1 is outside \[2, "),
        ((6, 5, 3, 3, 1.0), r"world\.num_blocks=3 makes classes of at most 2 nodes"),
        ((6, 5, 3, 2, 0.0), r"world\.within_ratio=0\.0 "),
    ],
)
def test_block_refuses_what_has_no_inside_or_no_across(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        block(*arguments, seed=0)


@given(num_nodes=st.integers(2, 40), data=st.data())
def test_classes_are_runs_of_lengths_within_one(num_nodes: int, data: st.DataObject) -> None:
    num_blocks = data.draw(st.integers(2, num_nodes))
    classes = classes_of(num_nodes, num_blocks)
    assert (np.diff(classes) >= 0).all()
    members = np.bincount(classes, minlength=num_blocks)
    assert np.ptp(members) <= 1
    np.testing.assert_array_equal(blocks._members(num_nodes, num_blocks), members)


def law_by_pattern(num_nodes: int, num_blocks: int, size: int, kappa: float, seed: int) -> dict[tuple, set[float]]:
    """The weights of all sets of a size, by the classes of their nodes."""
    law = PatternLaw(num_nodes, num_blocks, size, kappa, seed)
    rows = np.array(list(itertools.combinations(range(num_nodes), size)))
    seen: dict[tuple, set[float]] = {}
    classes = classes_of(num_nodes, num_blocks)[rows]
    for pattern, weight in zip(classes.tolist(), law.of(np.arange(len(rows)), rows).tolist(), strict=True):
        seen.setdefault(tuple(pattern), set()).add(weight)
    return seen


@pytest.mark.parametrize("kappa", [1.0, 3.0, 1e6])
@pytest.mark.parametrize(("num_nodes", "num_blocks", "size"), [(10, 3, 3), (9, 2, 4), (8, 8, 2), (2, 2, 2)])
def test_patterns_weigh_one_number_each_from_one_to_kappa(
    num_nodes: int, num_blocks: int, size: int, kappa: float
) -> None:
    seen = law_by_pattern(num_nodes, num_blocks, size, kappa, seed=1)
    assert all(len(weights) == 1 for weights in seen.values())
    weights = np.array([weight for weights in seen.values() for weight in weights])
    if len(seen) > 1:
        assert len(set(weights)) == (1 if kappa == 1 else len(seen))
        assert weights.min() == 1
        assert weights.max() == pytest.approx(kappa, rel=1e-13)  # log and exp of a number below 14
    assert kappa == 1 or len(seen) == 1 or law_by_pattern(num_nodes, num_blocks, size, kappa, seed=2) != seen


def test_pattern_weights_are_even_in_logs_listed_or_not() -> None:
    # 100 classes of one node: 4950 patterns are listed and stretched; of 2000 classes there are too many.
    for num_nodes in (100, 2000):
        law = PatternLaw(num_nodes, num_nodes, 2, math.e**2, 0)
        rows = np.array(list(itertools.combinations(range(100), 2)))
        logs = np.log(law.of(np.arange(len(rows)), rows))
        # log w is uniform on [0, 2]: quarters, 5 standard deviations of a share.
        shares = np.histogram(logs, bins=4, range=(0, 2.0001))[0] / len(rows)
        assert np.abs(shares - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / len(rows))
    with pytest.raises(ConfigError, match=r"world\.kappa=0\.5 is outside"):
        PatternLaw(10, 2, 3, 0.5, 0)


def test_crossing_sets_end_where_all_sets_have_been_proposed() -> None:
    part = CrossingSets(3, 30, 7, 2, seed=0)
    assert part.max_proposals == 35
    rows, counters = part.propose(0, 1000)
    assert len(np.unique(rows, axis=0)) == len(counters) == 30
    assert counters[-1] < 35
    assert len(part.propose(35, 50)[0]) == 0
