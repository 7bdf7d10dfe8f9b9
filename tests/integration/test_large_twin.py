"""The small twin of configs/pretrain/large.yaml through the whole way: ZeRO 3, bf16, chunks, narrow tables."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from hgscale import config as configs
from hgscale.pretrain import cost as plan
from hgscale.pretrain.run import PretrainConfig

CONFIGS = Path(__file__).parents[2] / "configs/pretrain"


def run(run_dir: Path, *options: str) -> list[float]:
    """The losses of the steps, from a process of its own: DeepSpeed leaves a process as it is once only."""
    words = ["pretrain", "--config", str(CONFIGS / "large_twin.yaml"), "--run_dir", str(run_dir)]
    command = [sys.executable, "-m", "hgscale", *words, "--tracking.enabled", "false", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def falls_from_knowing_nothing(losses: list[float]) -> bool:
    """At first every node is as likely: two nodes, each log(n - 1) or log n, and only one size."""
    start = 2 * math.log(40_000)
    return abs(losses[0] - start) < 0.01 * start and losses == sorted(losses, reverse=True)


def test_the_twin_differs_from_large_yaml_in_numbers_alone() -> None:
    large, twin = (
        configs.to_dict(configs.load(PretrainConfig, CONFIGS / name)) for name in ("large.yaml", "large_twin.yaml")
    )
    same = ("world.load", "world.generator", "world.size", "world.weights", "samples.num_samples", "model.name")
    same += ("model.activation_checkpointing", "engine.name", "engine.zero_stage", "engine.precision")
    for name in same:
        assert configs.flatten(large)[name] == configs.flatten(twin)[name], name
    for one in (large, twin):
        assert one["model"]["config"]["embedding_size"] < one["model"]["hidden_size"]


def test_the_twin_trains_under_zero_3_in_bf16(tmp_path: Path) -> None:
    losses = run(tmp_path / "run", "--cluster.launcher", "none", "--cluster.num_workers", "1")
    assert len(losses) == 4
    assert falls_from_knowing_nothing(losses)
    # The planner tells from the config what a checkpoint takes on the disk.
    config = configs.load(PretrainConfig, CONFIGS / "large_twin.yaml")
    shape = plan.Shape.of(config.model, config.target_world)
    newest = max((tmp_path / "run/checkpoints").glob("step-*"))
    found = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    assert plan.checkpoint_bytes(shape.num_parameters, config.engine) == pytest.approx(found, rel=0.15)


@pytest.mark.slow
def test_the_twin_trains_on_two_ray_workers_as_on_one(tmp_path: Path) -> None:
    alone = run(tmp_path / "one", "--cluster.launcher", "none", "--cluster.num_workers", "1")
    together = run(tmp_path / "two")
    assert falls_from_knowing_nothing(together)
    # bf16 rounds to 2^-9, and the loss is a mean over thousands of rounded numbers: equal to about a thousandth.
    assert together == pytest.approx(alone, rel=2e-3)
