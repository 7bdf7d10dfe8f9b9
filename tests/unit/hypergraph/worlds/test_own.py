"""Generators and laws of weights of a user: what they are given, what they may return, and when they are refused."""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from hgscale.cluster.generate import GenerateConfig, generate
from hgscale.data.worlds import open_world
from hgscale.errors import ConfigError
from hgscale.hypergraph.worlds.config import WorldConfig, build_world, weight_groups

SOURCE = """
import itertools
import random
from hgscale.hypergraph.structure import Hypergraph

def clique(num_nodes, seed): return list(itertools.combinations(range(num_nodes), 2 + seed))
def ring(num_nodes, width=2): return [[(i + j) % num_nodes for j in range(width)] for i in range(num_nodes)]
def weighted(num_nodes): return Hypergraph.from_edges([(0, 1), (1, 2)], [3, 1], num_nodes)
def by_sum(edges, power): return [(1 + sum(edge)) ** power for edge in edges]
def by_kappa(edges, kappa): return [kappa if 0 in edge else 1 for edge in edges]

def empty(num_nodes): return []
def nobody(num_nodes): return None
def outside(num_nodes): return [(0, num_nodes)]
def fails(num_nodes): return 1 / 0
def few(edges): return [1.0]
def naught(edges): return [0.0 for edge in edges]
def leaves(num_nodes): raise SystemExit(0)
def drawn(edges): return [random.random() for edge in edges]
def words(edges): return ["a" for edge in edges]
def wrong(num_nodes): return [1.0]
number = 3
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that is no part of the package."""
    (tmp_path / "their_worlds.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_worlds", raising=False)
    return "their_worlds"


def test_edges_of_a_users_generator_are_weighed_by_the_law_that_is_named(theirs: str) -> None:
    config = WorldConfig(generator=f"{theirs}:clique", num_nodes=5, weights="uniform", seed=1)
    world = build_world(config)
    assert [world.edge(e) for e in range(world.num_edges)] == list(combinations(range(5), 3))
    assert world.weights == pytest.approx(np.full(10, 0.1))
    uneven = build_world(WorldConfig(generator=f"{theirs}:clique", num_nodes=5, kappa=7.0))
    assert uneven.kappa == pytest.approx(7)
    zipf = build_world(WorldConfig(generator=f"{theirs}:clique", num_nodes=5, weights="zipf"))
    assert np.sort(zipf.weights)[::-1] == pytest.approx(1 / np.arange(1, 11) / (1 / np.arange(1, 11)).sum())
    assert weight_groups(config, world) is None


def test_own_arguments_reach_the_function_that_names_them(theirs: str) -> None:
    names = {"generator": f"{theirs}:ring", "weights": f"{theirs}:by_sum", "num_nodes": 5}
    world = build_world(WorldConfig(**names, config={"width": 3, "power": 2}))
    expected = {(0, 1, 2): 16, (1, 2, 3): 49, (2, 3, 4): 100, (0, 3, 4): 64, (0, 1, 4): 36}
    found = {world.edge(e): world.weights[e] * 265 for e in range(world.num_edges)}
    assert found == pytest.approx(expected)
    for own, complaint in (
        ({"power": 2, "wdith": 3}, "world.config.wdith: neither .* has such an argument; they take"),
        ({"width": 3}, "their_worlds:by_sum needs power; give world.config.power"),
        ({"power": 2, "num_nodes": 3}, "world.config.num_nodes: their_worlds:ring gets num_nodes from hgscale"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            build_world(WorldConfig(**names, config=own))


def test_a_users_law_weighs_a_built_in_world(theirs: str) -> None:
    world = build_world(WorldConfig(generator="star", num_nodes=4, weights=f"{theirs}:by_sum", config={"power": 1}))
    assert world.weights == pytest.approx(np.array([2, 3, 4]) / 9)
    heavy = build_world(WorldConfig(generator="chain", num_nodes=4, weights=f"{theirs}:by_kappa", kappa=2.0))
    assert heavy.weights == pytest.approx([0.5, 0.25, 0.25])


def test_a_hypergraph_of_a_users_generator_keeps_its_weights(theirs: str) -> None:
    world = build_world(WorldConfig(generator=f"{theirs}:weighted", num_nodes=9))
    assert (world.num_nodes, world.weights.tolist()) == (9, [0.75, 0.25])
    with pytest.raises(ConfigError, match=r"kappa=2\.0 has no meaning with .*weighted, which weighs its edges itself"):
        build_world(WorldConfig(generator=f"{theirs}:weighted", num_nodes=9, kappa=2.0))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"generator": "empty"}, "gave no edges .*; my_world"),
        ({"generator": "nobody"}, "gave no edges .*; my_world"),
        ({"generator": "outside"}, "gave no edges .*holds node 50.*; my_world"),
        ({"generator": "fails"}, "fails .ZeroDivisionError: division by zero.; my_world"),
        ({"generator": "number"}, "is no such function; my_world"),
        ({"generator": "absent"}, "their_worlds has no absent"),
        ({"weights": "few"}, r"gave weights of shape \(1,\) for 245 edges; my_weights"),
        ({"weights": "naught"}, "gave the weight 0.0; my_weights"),
        ({"weights": "words"}, "gave list; my_weights"),
        ({"weights": "wrong"}, "is no such function; my_weights"),
        ({"generator": "ring", "size": 4}, "size=4 has no meaning with world.generator=their_worlds:ring"),
        ({"generator": "ring", "num_edges": 4}, "num_edges=4 has no meaning with world.generator=their_worlds:ring"),
        ({"generator": "ring", "load": "implicit"}, "is held in memory; set load to memory"),
        ({"weights": "few", "load": "implicit"}, "is held in memory; set load to memory"),
    ],
)
def test_a_wrong_function_is_refused_in_one_line(theirs: str, fields: dict, complaint: str) -> None:
    named = {k: f"{theirs}:{v}" if k in ("generator", "weights") else v for k, v in fields.items()}
    with pytest.raises(ConfigError, match=complaint) as refusal:
        open_world(WorldConfig(**named))
    assert "\n" not in str(refusal.value)


def test_the_source_decides_the_fingerprint(theirs: str, tmp_path: Path) -> None:
    config = WorldConfig(generator=f"{theirs}:ring", num_nodes=5, config={"width": 3})
    before = config.decides()
    assert before["config"] == {"width": 3}
    assert before["generator"].startswith(f"{theirs}:ring@")
    (tmp_path / f"{theirs}.py").write_text(SOURCE + "# changed")
    assert config.decides() != before


def test_a_users_world_is_written_as_shards(theirs: str, tmp_path: Path) -> None:
    config = WorldConfig(generator=f"{theirs}:ring", num_nodes=7, weights=f"{theirs}:by_sum", config={"power": 1})
    generate(GenerateConfig(world=config, out=str(tmp_path / "out"), num_workers=0))
    assert open_world(WorldConfig(path=str(tmp_path / "out"))).digest == build_world(config).digest


def test_a_law_that_draws_without_its_seed_is_refused(theirs: str) -> None:
    with pytest.raises(ConfigError, match=r":drawn gave another world for the same arguments"):
        build_world(WorldConfig(num_nodes=20, weights=f"{theirs}:drawn"))


def test_code_that_leaves_is_an_error_and_no_end(theirs: str) -> None:
    with pytest.raises(ConfigError, match=r":leaves fails \(SystemExit: 0\)"):
        build_world(WorldConfig(generator=f"{theirs}:leaves"))
