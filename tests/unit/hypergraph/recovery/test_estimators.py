"""Laws over all node sets, against going through all of them, and against the tables of Gale and Sampson."""

import sys
from fractions import Fraction
from itertools import combinations
from math import lgamma, log, prod

import numpy as np
import pytest

from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph.recovery import estimators
from hgscale.hypergraph.recovery.comparison import read_and_compare
from hgscale.hypergraph.recovery.estimators import sample_of
from hgscale.hypergraph.recovery.readout import ReadoutConfig
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds.config import WorldConfig
from tests.unit.hypergraph.oracles import Oracle

MIXED = [(0,), (3,), (0, 1), (1, 2), (2, 4), (0, 1, 2), (0, 2, 4), (1, 3, 4)]
LAWS = [estimators.good_turing_law, estimators.absolute_discounting_law]

# n_r by r, and some r* (normalised, 7 digits are given), of the prosody and the Chinese plurals of Gale and Sampson.
PROSODY = {
    1: 120, 2: 40, 3: 24, 4: 13, 5: 15, 6: 5, 7: 11, 8: 2, 9: 2, 10: 1, 12: 3, 14: 2, 15: 1, 16: 1, 17: 3, 19: 1,
    20: 3, 21: 2, 23: 3, 24: 3, 25: 3, 26: 2, 27: 2, 28: 1, 31: 2, 32: 2, 33: 1, 34: 2, 36: 2, 41: 3, 43: 1, 45: 3,
    46: 1, 47: 1, 50: 1, 71: 1, 84: 1, 101: 1, 105: 1, 121: 1, 124: 1, 146: 1, 162: 1, 193: 1, 199: 1, 224: 1, 226: 1,
    254: 1, 257: 1, 339: 1, 421: 1, 456: 1, 481: 1, 483: 1, 1140: 1, 1256: 1, 1322: 1, 1530: 1, 2131: 1, 2395: 1,
    6925: 1, 7846: 1,
}  # fmt: skip
PLURALS = {
    1: 268, 2: 112, 3: 70, 4: 41, 5: 24, 6: 14, 7: 15, 8: 14, 9: 8, 10: 11, 11: 9, 12: 6, 13: 6, 14: 3, 15: 7, 16: 9,
    17: 4, 18: 4, 19: 8, 20: 2, 21: 4, 22: 2, 23: 2, 24: 3, 25: 4, 26: 4, 27: 4, 28: 1, 29: 1, 31: 2, 33: 1, 39: 3,
    41: 1, 46: 1, 47: 1, 50: 1, 52: 2, 53: 1, 55: 1, 57: 1, 60: 1, 74: 1, 84: 1, 108: 1, 109: 1, 177: 1, 400: 1,
    1918: 1,
}  # fmt: skip
PROSODY_STAR = {
    1: 0.7628079,
    2: 1.706448,
    3: 2.679796,
    4: 3.663988,
    10: 9.627446,
    12: 11.62182,
    483: 482.1983,
    7846: 7838.899,
}
PLURALS_STAR = {1: 0.8414893, 2: 1.887716, 3: 2.288452, 4: 3.247259, 29: 28.25735, 31: 30.26893, 1918: 1930.037}


def all_sets(num_nodes, sizes):
    return Hypergraph.from_edges([s for size in sizes for s in combinations(range(num_nodes), size)], None, num_nodes)


def counted(world, counts_by_edge, target):
    """[E of target] counts, looked up one by one."""
    return np.array([counts_by_edge.get(target.edge(e), 0) for e in range(target.num_edges)])


def make(counts, num_nodes=5, edges=MIXED):
    """A world of these edges, canonical already, its counts [E], and all sets with theirs."""
    world = Hypergraph.from_edges(edges, None, num_nodes)
    assert [world.edge(e) for e in range(world.num_edges)] == edges
    every = all_sets(num_nodes, world.distinct_sizes)
    return world, np.array(counts), every, counted(world, dict(zip(edges, counts, strict=True)), every)


def brute_back_off(world, counts):
    """{set: probability}, in fractions, by going through all sets."""
    samples = [(world.edge(e), int(counts[e])) for e in range(world.num_edges)]
    odds = [Fraction(1, 2) + sum(c for edge, c in samples if v in edge) for v in range(world.num_nodes)]
    of_size = {k: Fraction(1, 2) + sum(c for edge, c in samples if len(edge) == k) for k in world.distinct_sizes}
    law = {}
    for size in of_size:
        products = {s: prod(odds[v] for v in s) for s in combinations(range(world.num_nodes), size)}
        for s, product in products.items():
            law[s] = of_size[size] / sum(of_size.values()) * product / sum(products.values())
    return law


@pytest.mark.parametrize("counts", [[3, 1, 0, 2, 1, 5, 1, 0], [0, 0, 1, 0, 0, 0, 0, 0], [900, 0, 0, 1, 0, 0, 0, 40]])
def test_back_off_is_the_law_found_by_going_through_all_sets(counts):
    world, counts, every, _ = make(counts)
    expected = brute_back_off(world, counts)
    assert sum(expected.values()) == 1
    found = estimators.back_off(sample_of(world, counts)).of(every)
    assert found == pytest.approx([float(expected[every.edge(e)]) for e in range(every.num_edges)], rel=1e-12)


def test_symmetric_polynomials_are_exact_for_uneven_odds_and_binomials_for_even_ones():
    odds = [Fraction(10) ** (v % 13 - 6) for v in range(12)]
    expected = [sum(prod(s) for s in combinations(odds, k)) for k in range(8)]
    found = estimators.log_symmetric_polynomials(np.log([float(x) for x in odds]), 7)
    assert found == pytest.approx([log(x) for x in expected], abs=1e-12)
    # 3000 nodes and sizes whose polynomials are beyond a float: sums of logs, each off by a few roundings of 700.
    found = estimators.log_symmetric_polynomials(np.zeros(3000), 200)
    assert found[200] == pytest.approx(lgamma(3001) - lgamma(201) - lgamma(2801), rel=1e-12)
    assert estimators.log_symmetric_polynomials(np.zeros(3), 4)[4] == -np.inf


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "counts",
    [
        [3, 1, 0, 2, 1, 5, 1, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],  # all seen once
        [0, 0, 0, 0, 0, 0, 0, 1],  # one sample
        [7, 7, 7, 0, 7, 0, 7, 0],  # one count, none once
        [5, 2, 9, 4, 2, 0, 3, 3],  # none once
        [500, 1, 1, 20, 3, 2, 1, 77],
    ],
)
def test_a_smoothed_law_sums_to_one_over_all_node_sets(law, counts):
    world, counts, every, every_counts = make(counts)
    probabilities = law(sample_of(world, counts)).of(every, every_counts)
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert probabilities.min() >= 0
    on_support = law(sample_of(world, counts)).of(world, counts)
    by_edge = {every.edge(e): probabilities[e] for e in range(every.num_edges)}
    assert on_support == pytest.approx([by_edge[world.edge(e)] for e in range(world.num_edges)], rel=1e-12)


def test_where_every_set_was_seen_good_turing_leaves_nothing_for_others():
    edges = list(combinations(range(4), 2))
    world, counts, _, _ = make([1, 1, 2, 3, 9, 4], 4, edges)
    law = estimators.good_turing_law(sample_of(world, counts))
    assert law.of(world, counts).sum() == pytest.approx(1, abs=1e-12)
    assert law.share.tolist() == [0] * 6


@pytest.mark.parametrize(
    ("num_times", "stars", "p0"), [(PROSODY, PROSODY_STAR, 0.003883244), (PLURALS, PLURALS_STAR, 0.04090978)]
)
def test_good_turing_repeats_the_published_tables(num_times, stars, p0):
    counts = np.repeat(list(num_times), list(num_times.values()))
    world = Hypergraph.from_edges(list(combinations(range(50), 2))[: len(counts)], None, 50)
    law = estimators.good_turing_law(sample_of(world, counts))
    for r, star in stars.items():
        # Seven digits are printed, some of them of a normalising constant that was rounded to seven digits itself.
        assert law.fixed[list(law.counts).index(r)] * counts.sum() == pytest.approx(star, rel=1e-6)
    assert 1 - law.of(world, counts).sum() == pytest.approx(p0, rel=2e-7)


def test_good_turing_gives_the_unseen_sets_the_share_of_what_was_seen_once_by_their_back_off():
    world, counts, every, every_counts = make([3, 1, 0, 2, 1, 5, 1, 0])
    probabilities = estimators.good_turing_law(sample_of(world, counts)).of(every, every_counts)
    unseen = every_counts == 0
    assert probabilities[unseen].sum() == pytest.approx(3 / 13, rel=1e-12)
    back_off = brute_back_off(world, counts)
    q = np.array([float(back_off[every.edge(e)]) for e in range(every.num_edges)])
    assert probabilities[unseen] == pytest.approx(3 / 13 * q[unseen] / q[unseen].sum(), rel=1e-12)
    for r in (1, 2, 3, 5):
        assert np.ptp(probabilities[every_counts == r]) == 0


def test_good_turing_of_samples_that_are_all_different_keeps_one_nth_for_them():
    world, counts, every, every_counts = make([1, 0, 1, 0, 0, 1, 1, 0])
    probabilities = estimators.good_turing_law(sample_of(world, counts)).of(every, every_counts)
    assert probabilities[every_counts > 0] == pytest.approx(np.full(4, 1 / 16))


def test_absolute_discounting_is_that_computed_by_hand():
    world, counts, every, every_counts = make([3, 1, 0, 2, 1, 5, 1, 0])
    # n_1 = 3 and n_2 = 1, so d = 3 / 5; of 13 samples 6 edges were seen: 3.6 / 13 goes to the back-off.
    expected = {edge: Fraction(18, 65) * q for edge, q in brute_back_off(world, counts).items()}
    for edge, count in zip(MIXED, counts.tolist(), strict=True):
        expected[edge] += max(count - Fraction(3, 5), 0) / 13
    found = estimators.absolute_discounting_law(sample_of(world, counts)).of(every, every_counts)
    assert found == pytest.approx([float(expected[every.edge(e)]) for e in range(every.num_edges)], rel=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_where_nothing_was_seen_once_one_samples_mass_goes_to_the_back_off(law):
    world, counts, every, every_counts = make([5, 2, 9, 4, 2, 0, 3, 3])
    back_off = brute_back_off(world, counts)
    q = np.array([float(back_off[every.edge(e)]) for e in range(every.num_edges)])
    unseen = every_counts == 0
    expected = q[unseen] / 28 / (q[unseen].sum() if law is estimators.good_turing_law else 1)
    assert law(sample_of(world, counts)).of(every, every_counts)[unseen] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_a_law_is_asked_about_other_edges_and_gives_nothing_to_sizes_it_does_not_know(law):
    world, counts, every, every_counts = make([3, 1, 0, 2, 1, 5, 1, 0])
    other = Hypergraph.from_edges([(0, 3), (0, 1, 2), (0, 1, 2, 3), tuple(range(5))], None, 5)
    found = law(sample_of(world, counts)).of(other, np.array([0, 5, 0, 0]))
    by_edge = dict(
        zip(
            (every.edge(e) for e in range(every.num_edges)),
            law(sample_of(world, counts)).of(every, every_counts),
            strict=True,
        )
    )
    assert found == pytest.approx([by_edge[(0, 3)], by_edge[(0, 1, 2)], 0, 0], rel=1e-12)
    gap = Hypergraph.from_edges([(0,), (0, 1, 2)], None, 3)  # size 2 is below the largest, and unknown all the same
    assert law(sample_of(gap, np.array([1, 1]))).of(
        Hypergraph.from_edges([(0, 1)], None, 3), np.zeros(1, dtype=int)
    ) == [0]


@pytest.mark.parametrize("law", LAWS)
def test_weights_of_the_world_do_not_enter(law):
    world, counts, _, _ = make([3, 1, 0, 2, 1, 5, 1, 0])
    other = Hypergraph.from_edges(MIXED, range(1, 9), 5)
    np.testing.assert_array_equal(
        law(sample_of(world, counts)).of(world, counts), law(sample_of(other, counts)).of(world, counts)
    )


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("counts", [[0, 0], [-1, 2]])
def test_counts_of_nothing_are_refused(law, counts):
    world = Hypergraph.from_edges([(0, 1), (1, 2)])
    with pytest.raises(DataError, match="samples over 2 edges"):
        law(sample_of(world, np.array(counts)))


# The table, and a user's


SOURCE = """
import numpy as np

def shrunk(edges, counts, num_nodes, sizes):
    total = counts.sum() + 1
    seen = dict(zip(edges, counts / total))
    def law(sets): return [seen.get(s, 0) for s in sets]
    law.unassigned = 1 / total
    return law

def plain(edges, counts):
    seen = dict(zip(edges, counts / counts.sum()))
    return lambda sets: np.array([seen.get(s, 0.0) for s in sets])

def greedy(edges, counts):
    law = plain(edges, counts.copy())
    counts[:] = 1
    return law

def leaves(edges, counts): raise SystemExit(0)
def good_turing(edges, counts): return plain(edges, counts)
def recovery(edges, counts): return plain(edges, counts)
def double(edges, counts): return lambda sets: 2 * plain(edges, counts)(sets) / 3
def negative(edges, counts): return lambda sets: -plain(edges, counts)(sets)
def short(edges, counts): return lambda sets: [1.0]
def absent(edges, counts): return lambda sets: [float("nan") for s in sets]
def nothing(edges, counts): return None
def truth(edges, counts): return edges.weights
def blind(world): return None
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A module that is no part of the package."""
    (tmp_path / "their_estimators.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_estimators", raising=False)
    return "their_estimators"


def test_a_sample_holds_the_edges_that_were_drawn_and_nothing_else():
    world, counts, every, every_counts = make([3, 1, 0, 2, 1, 5, 1, 0])
    sample = sample_of(world, counts)
    drawn = {world.edge(e): int(count) for e, count in enumerate(counts) if count}
    assert {sample.edges.edge(e): int(count) for e, count in enumerate(sample.counts)} == drawn
    assert sample.edges.weights == pytest.approx(sample.counts / 13)
    assert (sample.edges.num_nodes, sample.sizes) == (5, world.distinct_sizes)
    np.testing.assert_array_equal(sample.counts_of(every), every_counts)
    rebuilt = Hypergraph.from_edges(list(drawn), list(drawn.values()), 5)
    assert rebuilt.digest == sample.edges.digest


def test_every_built_in_law_sums_to_one_over_all_sets():
    world, counts, every, _ = make([3, 1, 0, 2, 1, 5, 1, 0])
    for row in estimators.rows():
        assert row.estimate(sample_of(world, counts)).of(every).sum() == pytest.approx(1)
    assert [row.key for row in estimators.rows()] == ["count", "good_turing", "absolute_discounting"]


def test_a_users_estimator_stands_beside_the_built_in_ones(theirs):
    names = [f"{theirs}:shrunk", f"{theirs}:plain"]
    estimators.check_estimators(names, (2, 3))
    estimators.check_estimators(names, (3, 25))
    world, counts, _, _ = make([3, 1, 0, 2, 1, 5, 1, 0])
    origin = WorldConfig(path="their.csv")
    oracle, config = Oracle(world), ReadoutConfig(method="chain")
    metrics = read_and_compare(oracle, world, config, counts, 0, origin, held_out=world, estimators=names).metrics
    shares = counts / 14
    assert metrics["shrunk_l1"] == pytest.approx(np.abs(world.weights - shares).sum())
    assert metrics["shrunk_log_likelihood"] is None  # an edge of the world has nothing
    assert metrics["plain_l1"] == pytest.approx(metrics["count_l1"])
    assert metrics["heldout_plain_l1"] == pytest.approx(metrics["heldout_count_l1"])
    assert metrics["heldout_shrunk_l1"] == pytest.approx(metrics["shrunk_l1"])
    assert "heldout_shrunk_log_likelihood" in metrics


def test_an_estimator_that_changes_what_it_is_given_changes_no_other_number(theirs):
    world, counts, _, _ = make([3, 1, 0, 2, 1, 5, 1, 0])
    origin, config = WorldConfig(path="their.csv"), ReadoutConfig(method="chain")
    plain, beside = (
        read_and_compare(Oracle(world), world, config, counts, 0, origin, held_out=world, estimators=names).metrics
        for names in ([], [f"{theirs}:greedy", f"{theirs}:plain"])
    )
    assert {name: beside[name] for name in plain} == plain
    assert beside["plain_l1"] == pytest.approx(plain["count_l1"])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("leaves", "fails on a tiny sample .SystemExit: 0"),
        ("double", "sums to 0.666667 over all node sets"),
        ("negative", "gave the probability -0"),
        ("short", r"gave shape \(1,\) for"),
        ("absent", "gave the probability nan"),
        ("nothing", "gave NoneType"),
        ("truth", "fails on a tiny sample .AttributeError"),
        ("blind", "is no function of edges and counts"),
        ("missing", "their_estimators has no missing"),
        ("good_turing", "there are numbers named good_turing already"),
        ("recovery", "there are numbers named recovery already"),
    ],
)
def test_a_wrong_estimator_is_refused_before_anything_starts_in_one_line(theirs, name, complaint):
    with pytest.raises(ConfigError, match=complaint) as refusal:
        estimators.check_estimators([f"{theirs}:{name}"], (2, 3))
    assert "\n" not in str(refusal.value)
