"""WorldConfig: every generator and law is reached by its fields, and a wrong field is named."""

import dataclasses
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from hgscale import config
from hgscale.data.worlds import open_world
from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph import io
from hgscale.hypergraph.worlds.blocks import block_of
from hgscale.hypergraph.worlds.config import (
    WorldConfig,
    build_world,
    check_world,
    held_out_config,
    parts_of,
    weight_groups,
)
from hgscale.hypergraph.worlds.weights import DirichletLaw, TwoLevelLaw, UniformLaw, WeightLaw, ZipfLaw


@pytest.mark.parametrize(
    ("fields", "num_edges", "sizes"),
    [
        ({}, 245, (2,)),  # the paper's world: G(n,m) of 50 nodes
        ({"generator": "gnm", "num_nodes": 20, "num_edges": 25}, 25, (2,)),
        ({"generator": "uniform", "num_nodes": 20, "num_edges": 30}, 30, (3,)),
        ({"generator": "uniform", "num_nodes": 20, "num_edges": 30, "size": 4}, 30, (4,)),
        ({"generator": "uniform", "num_nodes": 20, "num_edges": 30, "sizes": {2: 0.5, 5: 0.5}}, 30, (2, 5)),
        ({"generator": "star", "num_nodes": 20}, 19, (2,)),
        ({"generator": "cross", "num_nodes": 20}, 19, (2,)),
        ({"generator": "chain", "num_nodes": 20, "num_edges": 19}, 19, (2,)),
        ({"generator": "power_law", "num_nodes": 20, "num_edges": 30}, 30, (3,)),
        ({"generator": "block", "num_nodes": 20, "num_edges": 30}, 30, (3,)),
        ({"generator": "block", "num_nodes": 20}, math.comb(20, 3), (3,)),
        ({"generator": "block", "num_nodes": 20, "block_law": "random"}, math.comb(20, 3), (3,)),
    ],
)
def test_every_generator_is_built_from_its_fields(fields: dict, num_edges: int, sizes: tuple[int, ...]) -> None:
    world = build_world(WorldConfig(**fields))
    assert (world.num_edges, world.distinct_sizes) == (num_edges, sizes)
    assert build_world(WorldConfig(**fields)).digest == world.digest
    if fields.get("generator") != "block":
        assert world.kappa == pytest.approx(3)  # the weights are {1, 3} unless told
        assert build_world(WorldConfig(**fields, seed=1)).digest != world.digest


@pytest.mark.parametrize(
    ("fields", "law"),
    [
        ({"weights": "uniform"}, UniformLaw()),
        ({"weights": "two_level", "kappa": 7.0}, TwoLevelLaw(7.0, 5)),
        ({"weights": "zipf", "zipf_exponent": 0.7}, ZipfLaw(245, 0.7, 5)),
        ({"weights": "dirichlet", "dirichlet_alpha": 2.0}, DirichletLaw(2.0, 5)),
    ],
)
def test_every_law_is_built_from_its_field(fields: dict, law: WeightLaw) -> None:
    expected = np.sort(law.of(np.arange(245), np.zeros((245, 2), dtype=np.int32)))
    weights = np.sort(build_world(WorldConfig(**fields, seed=5)).weights)
    # The sum of 245 numbers is off by at most 245 roundings, whichever way it is taken.
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=250 * 2**-53)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("power_law_exponent", (2.1, 6.0)),
        ("num_blocks", (2, 4)),
        ("within_ratio", (1.0, 4.0)),
        ("size", (2, 3)),
        ("block_law", ("two_level", "random")),
    ],
)
def test_fields_of_generators_make_a_difference(field: str, values: tuple) -> None:
    generator = "power_law" if field == "power_law_exponent" else "block"
    one, other = (
        build_world(WorldConfig(generator=generator, num_nodes=30, num_edges=40, **{field: value})) for value in values
    )
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"generator": "uniform"}, r"world\.num_edges=null: generator uniform needs a number"),
        ({"generator": "power_law"}, r"world\.num_edges=null: generator power_law needs a number"),
        ({"generator": "star", "num_edges": 50}, r"world\.num_edges=50: a star of 50 nodes has exactly 49 edges"),
        ({"generator": "uniform", "num_edges": 20_000}, r"world\.num_edges=20000 .*at most 19600$"),
        ({"generator": "uniform", "num_edges": 0}, r"world\.num_edges=0 is below 1"),
        ({"num_nodes": 0}, r"world\.num_nodes=0 is outside"),
        ({"kappa": 0.0}, r"world\.kappa=0\.0 is outside"),
    ],
)
def test_a_field_that_cannot_be_met_is_named(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_world(WorldConfig(**fields))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"power_law_exponent": -5.0}, "power_law_exponent=-5.0 has no meaning with world.generator=gnm"),
        ({"size": 4}, "size=4 has no meaning with world.generator=gnm"),
        ({"sizes": {2: 1.0}}, "sizes={2: 1.0} has no meaning with world.generator=gnm"),
        ({"num_blocks": 2}, "num_blocks=2 has no meaning with world.generator=gnm"),
        ({"block_law": "random"}, "block_law=random has no meaning with world.generator=gnm"),
        ({"zipf_exponent": 0.5}, "zipf_exponent=0.5 has no meaning with world.weights=two_level"),
        ({"weights": "zipf", "kappa": 9.0}, "kappa=9.0 has no meaning with world.weights=zipf"),
        ({"weights": "uniform", "kappa": 9.0}, "kappa=9.0 has no meaning with world.weights=uniform"),
        ({"weights": "zipf", "dirichlet_alpha": 9.0}, "dirichlet_alpha=9.0 has no meaning with world.weights=zipf"),
        ({"generator": "block", "kappa": 9.0}, "kappa=9.0 has no meaning with world.block_law=two_level"),
        ({"generator": "block", "weights": "zipf"}, "weights=zipf has no meaning with world.generator=block"),
        (
            {"generator": "block", "block_law": "random", "within_ratio": 2.0},
            "within_ratio=2.0 has no meaning with world.block_law=random",
        ),
        (
            {"generator": "uniform", "num_edges": 9, "sizes": {2: 1.0}, "size": 4},
            "size=4 has no meaning with world.sizes=",
        ),
        ({"take": "first"}, "take=first has no meaning with world.path=null"),
        ({"format": "pairs"}, "format=pairs has no meaning with world.path=null"),
        ({"path": "x.csv", "generator": "star"}, "generator=star has no meaning with world.path=x.csv"),
        ({"path": "x.csv", "num_nodes": 9}, "num_nodes=9 has no meaning with world.path=x.csv"),
        ({"path": "x.csv", "split_frac": 0.9}, "split_frac=0.9 has no meaning with world.take=all"),
        ({"path": "x.csv", "format": "pairs", "keep_relations": False}, "has no meaning with world.format=pairs"),
        ({"config": {"a": 1}}, "config={'a': 1} has no meaning with world.generator=gnm"),
    ],
)
def test_a_field_that_decides_nothing_is_refused_wherever_a_world_is_opened(fields: dict, complaint: str) -> None:
    origin = WorldConfig(**fields)
    openers = [build_world, open_world] if origin.path else [build_world, open_world, parts_of]
    for opened in openers:
        with pytest.raises(ConfigError, match=complaint):
            opened(origin)


def test_the_seed_of_a_repetition_is_refused_nowhere(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("u,v,weight\n0,1,1\n1,2,2\n")
    check_world(WorldConfig(path=str(tmp_path / "pairs.csv"), seed=3))
    check_world(WorldConfig(generator="star", weights="uniform", seed=3))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"generator": "gmn"}, "world.generator=gmn is no generator; did you mean gnm?"),
        ({"weights": "zpf"}, "world.weights=zpf is no law of weights; did you mean zipf?"),
    ],
)
def test_a_name_that_is_none_is_refused_at_once(fields: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        WorldConfig(**fields)


def test_what_decides_a_world_is_what_its_generator_and_law_use() -> None:
    base = WorldConfig(generator="star", num_nodes=9)
    assert base.decides() == WorldConfig(generator="star", num_nodes=9, load="memory").decides()
    assert set(base.decides()) == {"generator", "num_nodes", "num_edges", "weights", "kappa", "seed", "load"}
    for fields in ({"num_nodes": 10}, {"kappa": 2.0}, {"weights": "uniform"}, {"seed": 1}, {"load": "implicit"}):
        assert dataclasses.replace(base, **fields).decides() != base.decides()


def test_a_path_is_read_with_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "facts.tsv"
    path.write_text("likes\ta\tb\nlikes\tb\tc\nowns\ta\tc\nowns\tb\tc\n")
    world = build_world(WorldConfig(path=str(path), format="facts", keep_relations=False))
    assert world.digest == io.read(path, format="facts", keep_relations=False).digest
    assert world.num_edges == 3
    assert build_world(WorldConfig(path=str(path), format="facts")).digest == io.read(path, format="facts").digest
    first = build_world(WorldConfig(path=str(path), format="facts", take="first", split_frac=0.75))
    assert first.digest == io.read(path, format="facts", take="first", split_frac=0.75).digest
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        build_world(WorldConfig(path=str(tmp_path / "nowhere.csv"), format="pairs"))


@pytest.mark.parametrize(
    ("take", "other"), [("first", "last"), ("last", "first"), ("random_a", "random_b"), ("random_b", "random_a")]
)
def test_the_held_out_part_is_the_other_occurrences_on_the_same_nodes(tmp_path: Path, take: str, other: str) -> None:
    path = tmp_path / "edges.txt"
    lines = [f"{i % 7} {7 + i % 5}" for i in range(40)] + ["30 31", "2 30 31"]  # 30 and 31 come last
    path.write_text("\n".join(lines) + "\n")
    config = WorldConfig(path=str(path), take=take, split_frac=0.7)
    rest = held_out_config(config)
    assert rest is not None
    world, held_out = build_world(config), build_world(rest)
    assert held_out.digest == build_world(WorldConfig(path=str(path), take=other, split_frac=0.7)).digest
    assert (held_out.num_nodes, held_out.labels) == (world.num_nodes, world.labels) == (14, world.labels)
    assert held_out.labels is not None
    num_world = round(0.7 * 42) if take in ("first", "random_a") else 42 - round(0.7 * 42)
    occurrences: Counter[tuple[int, ...]] = Counter()
    for part, num in ((world, num_world), (held_out, 42 - num_world)):
        for e in range(part.num_edges):
            occurrences[part.edge(e)] += round(part.weights[e] * num)
    ids = {name: number for number, name in enumerate(held_out.labels)}
    assert occurrences == Counter(tuple(sorted(ids[name] for name in line.split())) for line in lines)


def test_nothing_is_held_out_of_all_or_of_a_generator(tmp_path: Path) -> None:
    path = tmp_path / "edges.txt"
    path.write_text("0 1\n1 2\n")
    assert held_out_config(WorldConfig(path=str(path))) is None
    assert held_out_config(WorldConfig(take="first")) is None
    rest = held_out_config(WorldConfig(path=str(path), take="first", split_frac=0.9))
    assert rest is not None
    with pytest.raises(DataError, match=r"edges\.txt \(last\): no edges"):
        build_world(rest)


@pytest.mark.parametrize("num_edges", [None, 60])
@pytest.mark.parametrize("law", ["two_level", "random"])
def test_groups_are_the_edges_that_weigh_the_same_by_construction(law: str, num_edges: int | None) -> None:
    config = WorldConfig(generator="block", num_nodes=10, num_blocks=3, num_edges=num_edges, block_law=law)
    config = dataclasses.replace(config, kappa=20.0) if law == "random" else config
    world = build_world(config)
    groups = weight_groups(config, world)
    assert groups is not None
    classes = block_of(np.arange(10), 10, 3)
    seen: dict[object, set[tuple[int, float]]] = {}
    for e in range(world.num_edges):
        classes_of_edge = tuple(sorted(classes[list(world.edge(e))].tolist()))
        pattern = classes_of_edge if law == "random" else len(set(classes_of_edge)) == 1
        seen.setdefault(pattern, set()).add((int(groups[e]), float(world.weights[e])))
    assert all(len(pairs) == 1 for pairs in seen.values())  # one group and one weight each
    assert sorted(group for pairs in seen.values() for group, _ in pairs) == list(range(len(seen)))
    if num_edges is None:
        assert len(seen) == (10 if law == "random" else 2)  # multisets of 3 out of 3 classes
    if law == "random":
        assert world.kappa == pytest.approx(20)


def test_only_generated_blocks_have_groups(tmp_path: Path) -> None:
    path = tmp_path / "edges.txt"
    path.write_text("0 1\n1 2\n")
    for origin in (WorldConfig(path=str(path)), WorldConfig(generator="star")):
        assert weight_groups(origin, build_world(origin)) is None


def test_generated_gnm_worlds_are_like_the_released_ones(shared_data: Path) -> None:
    for num_nodes in (10, 20, 50, 100):
        path = shared_data / "paper-worlds" / f"WCGNM_n{num_nodes}_p0.2_k3_0.csv"
        if not path.is_file():
            pytest.skip(f"{path} is absent")
        released, ours = build_world(WorldConfig(path=str(path))), build_world(WorldConfig(num_nodes=num_nodes))
        assert (ours.num_nodes, ours.num_edges) == (released.num_nodes, released.num_edges)
        assert ours.kappa == pytest.approx(released.kappa)


def test_the_literals_are_what_io_takes() -> None:
    hints = WorldConfig.__annotations__
    assert hints["format"].__args__ == ("auto", *io.FORMATS, "shards")
    assert hints["take"].__args__ == io.TAKES


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """What has a world."""

    world: WorldConfig = field(default_factory=WorldConfig)
    """The world."""


def test_a_world_config_survives_yaml_sizes_included(tmp_path: Path) -> None:
    wanted = WorldConfig(generator="uniform", num_edges=20, sizes={2: 0.25, 4: 0.75}, weights="zipf", seed=3)
    config.save(_Holder(world=wanted), tmp_path / "world.yaml")
    assert config.load(_Holder, tmp_path / "world.yaml").world == wanted
    again = config.load(_Holder, tmp_path / "world.yaml", world__sizes=json.loads('{"3": 1}')).world
    assert again.sizes == {3: 1.0}
