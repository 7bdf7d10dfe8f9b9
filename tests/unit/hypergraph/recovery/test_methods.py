"""Read-outs of a user: what they are given, what they may answer, and when they are refused."""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from hgscale.errors import ConfigError, RunError
from hgscale.hypergraph.recovery.conditionals import OracleConditionals
from hgscale.hypergraph.recovery.readout import ReadoutConfig, check_readout, read_out
from hgscale.hypergraph.structure import Hypergraph
from tests.unit.hypergraph.oracles import Oracle, make_world

SOURCE = """
import itertools
import numpy as np

def symmetric(conditionals, power=1.0):
    n = conditionals.num_nodes
    p = np.exp(conditionals.log_probs(np.arange(n)[:, None], 1))
    pairs = list(itertools.combinations(range(n), 2))
    weights = np.array([(p[u, v] * p[v, u]) ** power for u, v in pairs])
    return pairs, weights / weights.sum()

def whole(conditionals, seed):
    n = conditionals.num_nodes
    conditionals.log_probs(np.zeros((1, 0), dtype=int), 2)
    return [[0, 1 + seed % (n - 1)]], [1.0]

def twice(conditionals): return [(0, 0)], [1.0]
def outside(conditionals): return [(0, 99)], [1.0]
def short(conditionals): return [(0, 1), (1, 2)], [1.0]
def negative(conditionals): return [(0, 1), (1, 2)], [1.5, -0.5]
def missing(conditionals): return [(0, 1), (1, 2)], [1.0, float("nan")]
def half(conditionals): return [(0, 1), (1, 2)], [0.25, 0.25]
def nothing(conditionals): return None
def broken(conditionals): return conditionals.truth
def greedy(world): return [(0, 1)], [1.0]
number = 3
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that is no part of the package."""
    (tmp_path / "their_readouts.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_readouts", raising=False)
    return "their_readouts"


PAIRS = make_world([(0, 1), (1, 2), (0, 2), (2, 3)], 5)


def test_exact_conditionals_are_those_found_by_going_through_the_edges():
    world = make_world([(0, 1), (1, 2), (0, 1, 2), (2, 3, 4), (0,)], 5)
    exact, slow = OracleConditionals(world), Oracle(world)
    assert exact.sizes == slow.sizes
    assert exact.size_law() == pytest.approx(slow.size_law())
    for size in (1, 2, 3):
        for shown in range(size):
            rows = np.array(list(combinations(range(5), shown)), dtype=np.int64)
            found, expected = exact.log_probs(rows, size - shown), slow.log_probs(rows, size - shown)
            np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-14)


def test_a_users_read_out_is_laid_beside_the_world_as_the_built_in_ones_are(outside: str) -> None:
    oracle = Oracle(PAIRS, leak=0.1)
    for power in (1.0, 2.0):
        own = {} if power == 1 else {"power": power}
        config = ReadoutConfig(method=f"{outside}:symmetric", config=own)
        assert check_readout(PAIRS, config, "one_mask") == config
        result = read_out(oracle, PAIRS, config)
        p = np.array([oracle.row(frozenset({v}), 1) for v in range(5)])
        weights = {pair: (p[pair] * p[pair[::-1]]) ** power for pair in combinations(range(5), 2)}
        total = sum(weights.values())
        truth = {PAIRS.edge(e): PAIRS.weights[e] for e in range(PAIRS.num_edges)}
        l1 = sum(abs(weight / total - truth.get(pair, 0)) for pair, weight in weights.items())
        assert result.error.recovery_l1 == pytest.approx(l1)
        assert result.error.method == "symmetric"
        assert result.recovered.off_edges.num_edges == 6
        assert result.error.support_precision is not None
    listed = read_out(oracle, PAIRS, ReadoutConfig(method=f"{outside}:symmetric", min_count=10), num_samples=100)
    assert listed.recovered.on_support.sum() == pytest.approx(1)
    assert listed.error.method == "symmetric-list"


def test_a_users_read_out_that_asks_for_more_than_was_trained_is_refused(outside: str) -> None:
    config = ReadoutConfig(method=f"{outside}:whole", seed=7)
    assert check_readout(PAIRS, config).method == config.method
    assert read_out(Oracle(PAIRS), PAIRS, config).recovered.off_edges.edges[0].tolist() == [[0, 4]]
    with pytest.raises(ConfigError, match="asks about several hidden nodes"):
        check_readout(PAIRS, config, "one_mask")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("twice", "holds a node twice"),
        ("outside", "holds node 99"),
        ("short", r"2 edges and weights of shape \(1,\)"),
        ("negative", "has weight -0.5"),
        ("missing", "has weight nan"),
        ("half", "sum to 0.5, not 1"),
        ("nothing", "gave NoneType"),
        ("broken", "fails on a trial of 4 nodes .AttributeError.*truth"),
        ("greedy", "is no function of conditionals"),
        ("number", "is no function of conditionals"),
        ("absent", "their_readouts has no absent"),
    ],
)
def test_a_wrong_answer_is_refused_before_anything_starts_in_one_line(outside: str, name: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as refusal:
        check_readout(PAIRS, ReadoutConfig(method=f"{outside}:{name}"))
    assert "\n" not in str(refusal.value)
    assert name == "absent" or "my_readout(conditionals) -> (edges, weights) is wanted" in str(refusal.value)


def test_arguments_that_a_users_read_out_does_not_take_are_refused(outside: str) -> None:
    for fields, complaint in (
        ({"config": {"poer": 2.0}}, "readout.config.poer: their_readouts:symmetric has no such argument"),
        ({"config": {"conditionals": 1}}, "readout.config.conditionals: .* gets conditionals from hgscale"),
        ({"num_orders": 2}, "num_orders=2 has no meaning with readout.method=their_readouts:symmetric"),
        ({"seed": 2}, "seed=2 has no meaning with readout.method=their_readouts:symmetric"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            check_readout(PAIRS, ReadoutConfig(method=f"{outside}:symmetric", **fields))


def test_an_answer_that_is_wrong_only_for_the_trained_model_ends_the_run_in_one_line(outside: str) -> None:
    with pytest.raises(RunError, match=r"sum to 0\.5, not 1"):
        read_out(Oracle(PAIRS), PAIRS, ReadoutConfig(method=f"{outside}:half"))


def test_the_source_of_a_users_read_out_decides_the_fingerprint(outside: str, tmp_path: Path) -> None:
    config = ReadoutConfig(method=f"{outside}:symmetric")
    before = config.decides()
    assert before["method"].startswith(f"{outside}:symmetric@")
    (tmp_path / f"{outside}.py").write_text(SOURCE + "# changed")
    assert config.decides() != before
    assert ReadoutConfig(method="chain").decides()["method"] == "chain"


def test_a_world_that_is_not_held_is_read_by_no_list(outside: str) -> None:
    class OnDisk:
        num_edges, distinct_sizes = 9, (2,)

    with pytest.raises(ConfigError, match=r"method=their_readouts:symmetric compares every edge"):
        check_readout(OnDisk(), ReadoutConfig(method=f"{outside}:symmetric"))
    assert isinstance(PAIRS, Hypergraph)
