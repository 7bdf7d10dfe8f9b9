"""The main job as a user runs it: config in, run directory and MLflow run out."""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import hgscale
from hgscale import config as configs
from hgscale.errors import ConfigError, DataError, RunError
from hgscale.hypergraph import io
from hgscale.train import loop
from hgscale.train.supervise import Attempt
from tests.chaos.state import state_of

SUMMARY_KEYS = set(
    [
        "recovery_l1",
        "recovery_tv",
        "count_floor_l1",
        "count_l1",
        "ratio_to_floor",
        "ratio_to_count",
        "off_support_mass",
        "num_samples",
        "num_edges",
        "num_nodes",
        "regime",
        "readout",
        "seconds",
        "samples_per_s",
        "world_digest",
        "fingerprint",
    ]
)


def tiny(tmp_path: Path, **overrides: object) -> "hgscale.PretrainConfig":
    """A star of 6 nodes, in this process, with the torch engine: a second of work."""
    made = {} if "world__path" in overrides else {"world__generator": "star", "world__num_nodes": 6}
    values = made | {
        "samples__num_samples": 2000,
        "train__num_steps": 60,
        "train__global_batch": 500,
        "train__learning_rate": 0.01,
        "train__log_every": 10,
        "train__checkpoint_every": 20,
        "model__hidden_size": 32,
        "model__num_hidden_layers": 1,
        "engine__name": "torch",
        "cluster__launcher": "none",
        "tracking__uri": f"sqlite:///{tmp_path}/mlflow.db",
        "run_dir": str(tmp_path / "run"),
    }
    path = tmp_path / "tiny.yaml"
    path.write_text("{}\n")
    return configs.load(hgscale.PretrainConfig, path, **(values | overrides))


def mlflow_run(tmp_path: Path, run_id: str):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"), run_id


def stop_at(stop: int, config: "hgscale.PretrainConfig", monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until Ctrl-C arrives in the middle of a step."""
    learning_rate_at = loop.TrainConfig.learning_rate_at

    def interrupted(self: loop.TrainConfig, step: int) -> float:
        if step == stop:
            raise KeyboardInterrupt
        return learning_rate_at(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainConfig, "learning_rate_at", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hgscale.pretrain(config)


def at_each_step(act: Callable[[int], None], config: "hgscale.PretrainConfig", monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, and do something in the middle of each step."""
    learning_rate_at = loop.TrainConfig.learning_rate_at
    seen: set[int] = set()

    def acting(self: loop.TrainConfig, step: int) -> float:
        if step not in seen:
            seen.add(step)
            act(step)
        return learning_rate_at(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainConfig, "learning_rate_at", acting)
        patch.setattr(loop, "LOOK_S", 0.0)  # look after each step
        hgscale.pretrain(config)


def ask_at(stop: int, config: "hgscale.PretrainConfig", monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until SIGTERM arrives in the middle of a step."""

    def ask(step: int) -> None:
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        at_each_step(ask, config, monkeypatch)


def records_of(run_dir: Path) -> list[dict[str, object]]:
    """The log without what depends on the clock."""
    clocked = {"time", "samples_per_s", "wait_frac", "mem_gib"}
    records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in clocked} for record in records]


def losses(run_dir: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def test_a_run_leaves_its_numbers_its_figure_its_model_and_one_finished_mlflow_run(tmp_path: Path) -> None:
    result = hgscale.pretrain(tiny(tmp_path))
    assert result.summary.keys() >= SUMMARY_KEYS
    assert result.summary == json.loads((result.run_dir / "summary.json").read_text())
    for name in ("config.yaml", "log.jsonl", "model/config.json", "recovered.json"):
        assert (result.run_dir / name).is_file()
    assert (result.run_dir / "recovery.png").read_bytes().startswith(b"\x89PNG")
    assert io.read(result.run_dir / "recovered.json").num_nodes == 6
    client, run_id = mlflow_run(tmp_path, result.mlflow_run_id)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/recovery_l1"] == pytest.approx(result.summary["recovery_l1"])
    assert run.inputs.dataset_inputs[0].dataset.digest == result.summary["world_digest"]
    steps = [point.step for point in client.get_metric_history(run_id, "loss")]
    assert steps == [10, 20, 30, 40, 50, 60]
    artifacts = {item.path for item in client.list_artifacts(run_id)}
    assert {"summary.json", "recovery.png", "config.yaml"} <= artifacts


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = hgscale.pretrain(tiny(tmp_path))
    again = hgscale.pretrain(tiny(tmp_path))
    assert again.summary == first.summary
    assert again.mlflow_run_id == first.mlflow_run_id


@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    whole = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "whole"), engine__name=engine))
    broken = tiny(tmp_path, run_dir=str(tmp_path / "broken"), engine__name=engine)
    stop_at(47, broken, monkeypatch)
    client, run_id = mlflow_run(tmp_path, json.loads((tmp_path / "broken/tracking.json").read_text())["run_id"])
    assert client.get_run(run_id).info.status == "KILLED"
    resumed = hgscale.pretrain(broken)
    attempts = [json.loads(line) for line in (resumed.run_dir / "attempts.jsonl").read_text().splitlines()]
    assert [attempt["start_step"] for attempt in attempts] == [0, 40]
    assert losses(resumed.run_dir) == losses(whole.run_dir)
    for name in ("recovery_l1", "final_loss", "fingerprint"):
        assert resumed.summary[name] == whole.summary[name]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == [10, 20, 30, 40, 50, 60]


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_stopped_at_any_step_a_run_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero_stage: int
) -> None:
    options = {"engine__name": "deepspeed", "engine__zero_stage": zero_stage}
    whole = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "whole"), **options))
    broken = tiny(tmp_path, run_dir=str(tmp_path / "broken"), **options)
    for stop in sorted(random.Random(zero_stage).sample(range(60), 20)):
        ask_at(stop, broken, monkeypatch)
    resumed = hgscale.pretrain(broken)
    attempts = [json.loads(line) for line in (resumed.run_dir / "attempts.jsonl").read_text().splitlines()]
    assert len({attempt["start_step"] for attempt in attempts}) >= 20, "each stop left a checkpoint of its step"
    assert records_of(resumed.run_dir) == records_of(whole.run_dir)
    assert state_of(resumed.run_dir) == state_of(whole.run_dir)
    model = "model/model.safetensors"
    assert (resumed.run_dir / model).read_bytes() == (whole.run_dir / model).read_bytes()


@pytest.mark.parametrize("stop", [1, 33])
def test_a_run_that_is_told_to_stop_leaves_a_checkpoint_and_goes_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    whole = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "whole")))
    broken = tiny(tmp_path, run_dir=str(tmp_path / "broken"))
    ask_at(stop, broken, monkeypatch)
    client, run_id = mlflow_run(tmp_path, json.loads((tmp_path / "broken/tracking.json").read_text())["run_id"])
    assert client.get_run(run_id).info.status == "KILLED"
    resumed = hgscale.pretrain(broken)
    attempts = [json.loads(line) for line in (resumed.run_dir / "attempts.jsonl").read_text().splitlines()]
    assert attempts[1]["start_step"] == stop + 1
    assert records_of(resumed.run_dir) == records_of(whole.run_dir), "a line of the log is the mean of all its steps"
    assert state_of(resumed.run_dir) == state_of(whole.run_dir)


def test_a_run_goes_on_exactly_under_another_log_every(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    each = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "each"), train__log_every=1))
    ask_at(33, tiny(tmp_path, run_dir=str(tmp_path / "broken")), monkeypatch)  # log_every=10, after 34 steps
    looks = {"train__log_every": 7, "train__eval_every": 25, "train__checkpoint_every": 5}
    resumed = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "broken"), **looks))
    attempts = [json.loads(line) for line in (resumed.run_dir / "attempts.jsonl").read_text().splitlines()]
    assert [attempt["start_step"] for attempt in attempts] == [0, 34]
    assert yaml.safe_load((resumed.run_dir / "config.yaml").read_text())["train"]["log_every"] == 7
    assert resumed.summary["fingerprint"] == each.summary["fingerprint"]
    assert resumed.summary["recovery_l1"] == each.summary["recovery_l1"]
    assert state_of(resumed.run_dir) == state_of(each.run_dir)
    steps = {record["step"]: record for record in records_of(each.run_dir) if "loss" in record}
    lines = [record for record in records_of(resumed.run_dir) if "loss" in record]
    assert [line["step"] for line in lines] == [10, 20, 30, 35, 42, 49, 56, 60]
    for before, line in zip([{"step": 0}, *lines], lines, strict=False):
        since = [steps[step] for step in range(before["step"] + 1, line["step"] + 1)]
        assert line["loss"] == math.fsum(record["loss"] for record in since) / len(since)
        assert int(line["ids_hash"], 16) == sum(int(record["ids_hash"], 16) for record in since) % 2**64


def test_a_run_that_goes_on_in_another_process_is_refused(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    Path(config.run_dir).mkdir()
    with (Path(config.run_dir) / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="going on in another process"):
            hgscale.pretrain(config)
    assert hgscale.pretrain(config).summary["num_steps"] == 60


def test_workers_of_an_earlier_attempt_write_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(tmp_path)

    def overtaken(step: int) -> None:
        if step == 33:
            Attempt.begin(tmp_path / "run")

    with pytest.raises(RunError, match="attempt 2 has begun"):
        at_each_step(overtaken, config, monkeypatch)
    assert max(losses(tmp_path / "run")) == 30
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["step-00000020"]


def test_a_disk_that_fills_up_ends_a_run_and_its_last_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "size=8m"):
        config = tiny(tmp_path, run_dir=str(disk / "run"))

        def fill(step: int) -> None:
            if step == 33:
                (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))

        with pytest.raises(RunError, match=r"cannot be written|could not be written"):
            at_each_step(fill, config, monkeypatch)
        with pytest.raises(RunError, match=r"cannot be written.*make room"):
            hgscale.pretrain(config)
        (disk / "filler").unlink()
        goes_on_from(20, config, tmp_path)


def test_checkpoints_that_become_read_only_end_a_run_and_the_last_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path)
    with contextlib.ExitStack() as stack:

        def refuse(step: int) -> None:
            if step == 33:
                stack.enter_context(mounted(tmp_path / "run/checkpoints", "ro"))

        with pytest.raises(RunError, match="could not be written"):
            at_each_step(refuse, config, monkeypatch)
    goes_on_from(20, config, tmp_path)


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A small disk of its own over a folder."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a tmpfs here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def goes_on_from(step: int, config: "hgscale.PretrainConfig", tmp_path: Path) -> None:
    """The second attempt starts there, and ends as a run that nothing befell."""
    whole = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "whole")))
    resumed = hgscale.pretrain(config)
    attempts = [json.loads(line) for line in (resumed.run_dir / "attempts.jsonl").read_text().splitlines()]
    assert [attempt["start_step"] for attempt in attempts] == [0, step]
    assert records_of(resumed.run_dir) == records_of(whole.run_dir)


def test_a_damaged_checkpoint_gives_way_to_the_previous_one_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tiny(tmp_path)
    stop_at(50, config, monkeypatch)
    newest = sorted((tmp_path / "run/checkpoints").glob("step-*"))[-1]
    victim = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    result = hgscale.pretrain(config)
    attempts = [json.loads(line) for line in (result.run_dir / "attempts.jsonl").read_text().splitlines()]
    assert attempts[-1]["start_step"] == 20
    said = capfd.readouterr().err
    assert "sha256" in said
    assert "going on from the checkpoint at step 20" in said


def test_read_outs_during_training_are_logged_and_change_nothing(tmp_path: Path) -> None:
    plain = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "plain")))
    watched = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "watched"), train__eval_every=20))
    records = [json.loads(line) for line in (watched.run_dir / "log.jsonl").read_text().splitlines()]
    errors = {record["step"]: record["eval/recovery_l1"] for record in records if "eval/recovery_l1" in record}
    assert list(errors) == [20, 40]
    assert errors[20] != errors[40]
    assert losses(watched.run_dir) == losses(plain.run_dir)
    assert watched.summary["recovery_l1"] == plain.summary["recovery_l1"]


def test_a_batch_cut_into_micro_batches_is_the_same_batch(tmp_path: Path) -> None:
    whole = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "whole")))
    cut = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "cut"), train__micro_batch=100))
    assert cut.summary["fingerprint"] != whole.summary["fingerprint"]
    # Sums in another order differ by some 2**-24 a step; ten steps of AdamW at 0.01 keep that far below 1e-4.
    assert losses(cut.run_dir)[10] == pytest.approx(losses(whole.run_dir)[10], rel=1e-4)


def test_a_batch_that_no_allowed_number_of_workers_can_share_is_refused_before_they_start(tmp_path: Path) -> None:
    uneven = {"cluster__launcher": "ray", "cluster__num_workers": {"min": 3, "max": 3}}
    with pytest.raises(ConfigError, match=r"not a multiple.*it can be shared by 1, 2, 4, 5, 10, 20, 25, 50 workers"):
        hgscale.pretrain(tiny(tmp_path, **uneven))
    assert not (tmp_path / "run").exists()
    assert tiny(tmp_path).sizes(1, 4) == [1, 2, 4]


def test_a_failed_run_ends_failed_and_the_next_attempt_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path)

    def fail(*_: object) -> None:
        raise RunError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "run", fail)
        with pytest.raises(RunError, match="the disk is full"):
            hgscale.pretrain(config)
    client, run_id = mlflow_run(tmp_path, json.loads((tmp_path / "run/tracking.json").read_text())["run_id"])
    assert client.get_run(run_id).info.status == "FAILED"
    assert hgscale.pretrain(config).mlflow_run_id == run_id
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_tracking_store_that_cannot_be_used_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        hgscale.pretrain(tiny(tmp_path, tracking__uri="sqlite:////proc/nowhere/mlflow.db"))
    assert not (tmp_path / "run").exists()


def test_recover_reads_a_finished_run_again_in_another_way(tmp_path: Path) -> None:
    result = hgscale.pretrain(tiny(tmp_path))
    read = hgscale.recover(
        configs.parse(hgscale.RecoverConfig, ["--run_dir", str(result.run_dir), "--readout.method", "bfs"])
    )
    assert read.summary["readout"] == "bfs"
    assert read.summary["count_l1"] == result.summary["count_l1"]
    same = hgscale.recover(configs.parse(hgscale.RecoverConfig, ["--run_dir", str(result.run_dir)]))
    assert same.summary["recovery_l1"] == pytest.approx(result.summary["recovery_l1"], abs=1e-12)
    as_list = hgscale.recover(
        configs.parse(hgscale.RecoverConfig, ["--run_dir", str(result.run_dir), "--readout.min_count", "0.1"])
    )
    assert as_list.path == result.run_dir / "recover-stationary-list.json"
    assert as_list.summary["recovery_l1"] == pytest.approx(result.summary["sparse_l1"], abs=1e-12)
    assert as_list.summary["dense_l1"] == pytest.approx(result.summary["recovery_l1"], abs=1e-12)
    assert (result.run_dir / "recovered-stationary-list.json").exists()


def test_recover_works_on_a_run_whose_own_read_out_was_cut_off(tmp_path: Path) -> None:
    result = hgscale.pretrain(tiny(tmp_path))
    for name in ("summary.json", "counts.npy", "recovered.json"):
        (result.run_dir / name).unlink()
    read = hgscale.recover(hgscale.RecoverConfig(run_dir=str(result.run_dir)))
    for name in ("recovery_l1", "count_l1", "bits_per_parameter", "num_samples", "world_digest"):
        assert read.summary[name] == pytest.approx(result.summary[name], abs=1e-12), name


@pytest.mark.parametrize(
    ("method", "changes"),
    [("stationary", {"world__sizes": {2: 0.5, 3: 0.5}}), ("bfs", {"world__size": 3})],
)
def test_a_read_out_that_cannot_read_the_world_is_refused_before_anything_is_trained(
    tmp_path: Path, method: str, changes: dict[str, object]
) -> None:
    world = {"world__generator": "uniform", "world__num_nodes": 8, "world__num_edges": 12}
    with pytest.raises(ConfigError, match=f"{method} reads pairs"):
        hgscale.pretrain(tiny(tmp_path, readout__method=method, **world, **changes))
    assert not (tmp_path / "run").exists()
    run = hgscale.pretrain(tiny(tmp_path, **world, **changes)).run_dir
    again = hgscale.RecoverConfig(run_dir=str(run), readout=hgscale.ReadoutConfig(method=method))
    with pytest.raises(ConfigError, match=f"{method} reads pairs"):
        hgscale.recover(again)


def test_a_world_in_memory_is_trained_on_two_workers_and_its_names_stay(tmp_path: Path) -> None:
    world = hgscale.Hypergraph.from_edges([[0, 1], [1, 2], [0, 2]], [1, 2, 3], labels=["ann", "bob", "eve"])
    given = tiny(tmp_path, cluster__launcher="ray", cluster__num_workers=2)
    config = dataclasses.replace(given, world=world)
    assert config.target_world.digest == world.digest
    result = hgscale.pretrain(config)
    assert result.summary["world_digest"] == world.digest
    assert io.read(result.run_dir / "recovered.json").labels == ("ann", "bob", "eve")
    again = hgscale.recover(hgscale.RecoverConfig(run_dir=str(result.run_dir)))
    assert again.summary["recovery_l1"] == pytest.approx(result.summary["recovery_l1"], abs=1e-12)


def test_mixed_sizes_and_a_reference_model_go_the_same_way(tmp_path: Path) -> None:
    world = {
        "world__generator": "uniform",
        "world__num_nodes": 8,
        "world__num_edges": 12,
        "world__sizes": {2: 0.5, 3: 0.5},
    }
    ours = hgscale.pretrain(tiny(tmp_path, run_dir=str(tmp_path / "ours"), **world))
    assert ours.summary["readout"] == "chain"
    bert = hgscale.pretrain(
        tiny(tmp_path, run_dir=str(tmp_path / "bert"), model__name="bert", train__num_steps=10, **world)
    )
    assert bert.summary["world_digest"] == ours.summary["world_digest"]
    read = hgscale.recover(configs.parse(hgscale.RecoverConfig, ["--run_dir", str(bert.run_dir)]))
    assert read.summary["recovery_l1"] == pytest.approx(bert.summary["recovery_l1"], abs=1e-9)


def test_one_mask_on_a_world_it_cannot_identify_is_refused_with_reason_and_remedy(tmp_path: Path) -> None:
    config = tiny(
        tmp_path, world__generator="uniform", world__num_nodes=100, world__num_edges=50, objective__masking="one_mask"
    )
    with pytest.raises(ConfigError, match=r"swap graph .* components.*random-size subsets"):
        hgscale.pretrain(config)
    assert not (tmp_path / "run").exists()


def test_a_run_directory_of_another_fingerprint_is_refused(tmp_path: Path) -> None:
    hgscale.pretrain(tiny(tmp_path))
    with pytest.raises(ConfigError, match="belongs to run"):
        hgscale.pretrain(tiny(tmp_path, train__seed=1))


def test_a_world_file_counts_by_its_content_not_its_place(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("u,v,weight\n0,1,0.5\n1,2,0.5\n")
    (tmp_path / "c.csv").write_text("u,v,weight\n0,1,0.6\n1,2,0.4\n")
    prints = [tiny(tmp_path, world__path=str(tmp_path / name)).fingerprint() for name in ("a.csv", "b.csv", "c.csv")]
    assert prints[0] == prints[1] != prints[2]


def test_a_path_relative_to_the_callers_working_directory_is_found_by_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("u,v,weight\n0,1,0.5\n1,2,0.5\n")
    monkeypatch.chdir(tmp_path)
    result = hgscale.pretrain(tiny(tmp_path, world__path="a.csv", run_dir="here", cluster__launcher="ray"))
    assert result.run_dir == tmp_path / "here"
    assert result.summary["num_edges"] == 2


def test_a_run_whose_world_file_has_changed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("u,v,weight\n0,1,0.5\n1,2,0.5\n")
    result = hgscale.pretrain(tiny(tmp_path, world__path=str(path)))
    path.write_text("u,v,weight\n0,1,0.6\n1,2,0.4\n")
    with pytest.raises(DataError, match="back as it was"):
        hgscale.recover(hgscale.RecoverConfig(run_dir=str(result.run_dir)))


def test_more_workers_than_cores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use at most"):
        hgscale.pretrain(tiny(tmp_path, cluster__launcher="ray", cluster__num_workers=500, train__global_batch=500))


def test_counting_is_of_the_very_samples_the_model_saw(tmp_path: Path) -> None:
    result = hgscale.pretrain(tiny(tmp_path, train__num_steps=2, samples__num_samples=None))
    assert result.summary["num_samples"] == 1000
    assert result.summary["regime"] == "fresh"
    assert np.load(result.run_dir / "counts.npy").sum() == 1000


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("configs/pretrain/*.yaml")), ids=lambda p: p.stem
)
def test_every_config_loads_and_dry_runs(path: Path) -> None:
    config = configs.load(hgscale.PretrainConfig, path)
    config.check(config.cluster.num_workers)
    assert configs.to_dict(config).keys() >= yaml.safe_load(path.read_text()).keys()
