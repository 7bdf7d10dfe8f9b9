"""Training and recovery where no array over all edges exists: implicit worlds, and shards mapped from disk."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hgscale.config import save, with_fields
from hgscale.data.disk.mapped import ShardedWorld
from hgscale.data.disk.shards import write
from hgscale.data.stream import Stream
from hgscale.data.worlds import open_world
from hgscale.errors import ConfigError
from hgscale.hypergraph.bounds import count_floor
from hgscale.hypergraph.recovery.readout import ReadoutConfig
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds.config import WorldConfig, build_world
from hgscale.hypergraph.worlds.implicit import ImplicitWorld
from hgscale.pretrain.recover import RecoverConfig, count_among, recover
from hgscale.pretrain.task import PretrainTask
from hgscale.pretrain.work import train_worker

IMPLICIT = {
    "world.generator": "uniform",
    "world.num_nodes": 300,
    "world.num_edges": 10**6,
    "world.weights": "zipf",
    "world.load": "implicit",
    "samples.num_samples": 4096,
    "readout.sampled_edges": 60,
    "train.num_steps": 12,
    "train.global_batch": 512,
    "train.log_every": 6,
    "model.hidden_size": 16,
    "model.num_hidden_layers": 1,
    "engine.name": "torch",
}


def task(**fields: Any) -> PretrainTask:
    return with_fields(PretrainTask(), IMPLICIT | {name.replace("__", "."): value for name, value in fields.items()})


def trained(task: PretrainTask, run_dir: Path) -> dict[str, Any]:
    run_dir.mkdir()
    task.check(1)
    save(task, run_dir / "config.yaml")
    train_worker(task, run_dir)
    return json.loads((run_dir / "summary.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("large") / "run"
    trained(task(), run_dir)
    return run_dir


def test_a_run_on_an_implicit_world_reports_its_error_with_an_interval_and_nothing_it_did_not_measure(
    finished: Path,
) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["recovery_l1_low"] < summary["recovery_l1"] < summary["recovery_l1_high"]
    assert summary["num_edges"] == 10**6
    assert summary["num_edges_compared"] == 60
    assert summary["num_samples"] == 4096
    assert summary["kappa"] == 10**6
    assert summary["ratio_to_floor"] == summary["recovery_l1"] / summary["count_floor_l1"]
    for name in ("capacity_bits", "bits_per_parameter", "good_turing_l1", "line_graph_diameter", "heldout_l1"):
        assert summary[name] is None, name
    assert not any((finished / name).exists() for name in ("counts.npy", "recovered.json", "recovery.png"))


def test_floor_and_counting_of_an_implicit_run_are_those_of_its_world_gone_through(finished: Path) -> None:
    summary, world = json.loads((finished / "summary.json").read_text()), open_world(task().world)
    assert isinstance(world, ImplicitWorld)
    weights = np.concatenate(list(world.weight_chunks()))
    counts = np.bincount(world.sampler(0).draw(np.arange(4096)), minlength=world.num_edges)
    # Edges that no sample holds err by their weight twice over: exact for such, and nearly all are such.
    expected = np.abs(weights - counts / 4096).sum()
    assert summary["count_floor_l1"] == pytest.approx(expected, abs=4 / np.sqrt(4096))  # 4 deviations, at most
    x = 2 * np.maximum(0, 1 - counts / (4096 * weights))
    deviation = np.sqrt(weights @ (x - expected) ** 2 / 60)
    assert summary["count_l1"] == pytest.approx(expected, abs=4 * deviation)


def test_the_same_config_trains_the_same_model(finished: Path, tmp_path: Path) -> None:
    again = trained(task(), tmp_path / "again")
    first = json.loads((finished / "summary.json").read_text())
    for name in ("final_loss", "recovery_l1", "count_l1", "fingerprint", "world_digest"):
        assert again[name] == first[name]


def test_recover_counts_anew_the_samples_that_the_run_saw(finished: Path) -> None:
    before = json.loads((finished / "summary.json").read_text())
    after = recover(RecoverConfig(run_dir=str(finished), readout=ReadoutConfig(sampled_edges=60))).summary
    # The read-out is the same, but that numbers pass through a file of the model's weights: the same bits.
    for name in ("recovery_l1", "recovery_l1_high", "count_l1", "count_floor_l1"):
        assert after[name] == before[name]


def test_counting_among_the_samples_is_counting_all_and_looking_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hgscale.pretrain.recover.COUNT_CHUNK", 100)
    config = WorldConfig(generator="uniform", num_nodes=12, num_edges=50, weights="uniform", load="implicit")
    sampler, stream = open_world(config).sampler(3), Stream(700, 64, seed=5)
    seen = np.bincount(sampler.draw(stream.ids(np.arange(640))), minlength=50)
    edges = np.array([0, 3, 4, 30, 49])
    assert count_among(sampler, stream, 640, edges).tolist() == seen[edges].tolist()


# Shards


SHARDS = WorldConfig(generator="uniform", num_nodes=60, num_edges=900, sizes={2: 0.3, 3: 0.7}, weights="dirichlet")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shards") / "world"
    write(SHARDS, directory)
    return directory


def mapped(shards: Path, **fields: Any) -> PretrainTask:
    here = {"world.path": str(shards), "world.load": "mapped"}
    rest = {name: value for name, value in IMPLICIT.items() if not name.startswith("world.")}
    return with_fields(PretrainTask(), rest | here | {name.replace("__", "."): value for name, value in fields.items()})


def test_a_run_on_mapped_shards_reports_its_error_beside_counting(shards: Path, tmp_path: Path) -> None:
    config = mapped(shards)
    assert isinstance(config.target_world, ShardedWorld)
    summary, held = trained(config, tmp_path / "run"), build_world(SHARDS)
    assert summary["recovery_l1_low"] < summary["recovery_l1"] < summary["recovery_l1_high"]
    assert summary["world_digest"] == config.target_world.digest
    # The weights are the same numbers, in another order.
    assert summary["count_floor_l1"] == pytest.approx(count_floor(held.weights, 4096), rel=1e-12)
    assert summary["kappa"] == pytest.approx(held.kappa, rel=1e-12)
    assert not (tmp_path / "run" / "counts.npy").exists()


@pytest.mark.parametrize("load", ["auto", "memory"])
def test_few_shards_come_into_memory_as_the_world_they_were_written_from(shards: Path, load: str) -> None:
    world, held = mapped(shards, world__load=load).target_world, build_world(SHARDS)
    assert isinstance(world, Hypergraph)
    np.testing.assert_array_equal(world.nodes, held.nodes)
    np.testing.assert_allclose(world.weights, held.weights, rtol=1e-12)


def test_many_shards_stay_on_disk_unless_memory_is_asked_for(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hgscale.data.worlds.MOST_IN_MEMORY", 899)
    assert isinstance(open_world(WorldConfig(path=str(shards))), ShardedWorld)
    assert isinstance(open_world(WorldConfig(path=str(shards), load="memory")), Hypergraph)


def test_where_shards_lie_does_not_decide_a_fingerprint_but_how_they_are_loaded_does(
    shards: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    assert (
        mapped(copy).fingerprint() == mapped(shards).fingerprint() != mapped(shards, world__load="auto").fingerprint()
    )


def test_a_part_of_shards_is_refused(shards: Path) -> None:
    with pytest.raises(ConfigError, match="take to all"):
        mapped(shards, world__take="first").check(1)


# Which world comes out


@pytest.mark.parametrize("load", ["auto", "memory"])
def test_a_generated_world_is_held_in_memory_unless_asked_otherwise(load: str) -> None:
    config = with_fields(task(), {"world.num_edges": 100, "world.load": load})
    assert isinstance(config.target_world, Hypergraph)
    assert isinstance(with_fields(config, {"world.load": "implicit"}).target_world, ImplicitWorld)


def test_where_a_generated_world_is_kept_decides_its_fingerprint_and_auto_is_memory() -> None:
    auto, memory, implicit = (
        with_fields(task(), {"world.num_edges": 100, "world.load": load}).fingerprint()
        for load in ("auto", "memory", "implicit")
    )
    assert auto == memory != implicit


def test_a_path_without_shards_cannot_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("u,v,weight\n0,1,1\n")
    with pytest.raises(ConfigError, match="hgscale generate"):
        open_world(WorldConfig(path=str(tmp_path / "pairs.csv"), load="mapped"))


# Refusals, before anything is started


def test_one_mask_is_refused_where_nobody_can_tell_whether_it_identifies() -> None:
    with pytest.raises(ConfigError, match="set objective"):
        task(objective__masking="one_mask").check(1)


@pytest.mark.parametrize("method", ["stationary", "least_squares", "bfs"])
def test_read_outs_of_all_edges_are_refused_with_the_remedy(method: str) -> None:
    with pytest.raises(ConfigError, match=f"readout.method={method}.*set readout.method to chain"):
        task(readout__method=method, readout__sampled_edges=None).check(1)
