"""A study as a user runs it: cells on Ray, each exactly once, whatever happens to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from hgscale.cli import main

TINY: dict[str, Any] = {
    "name": "tiny",
    "base": {
        "world": {"generator": "star", "num_nodes": 6},
        "objective": {"masking": "one_mask"},
        "train": {
            "num_steps": 60,
            "global_batch": 500,
            "learning_rate": 0.01,
            "log_every": 60,
            "checkpoint_every": 60,
        },
        "model": {"hidden_size": 32, "num_hidden_layers": 1},
        "engine": {"name": "torch"},
    },
    "axes": {"samples.num_samples": [500, 1000, 2000]},
    "seeds": 2,
}
NEVER = 10**8  # steps: days of work
DEADLINE_S = 240


def write(folder: Path, **fields: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(TINY | fields))
    return path


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    """The command, in a process group of its own."""
    environment = os.environ | {"HGSCALE_HOME": str(folder / "runs"), "MLFLOW_TRACKING_URI": ""}
    command = [sys.executable, "-m", "hgscale", "study", "--config", str(folder / "study.yaml"), *args]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(folder: Path, *args: str) -> tuple[int, str, str]:
    process = start(folder, *args)
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


def ends(folder: Path, name: str = "tiny") -> dict[str, dict[str, Any]]:
    """``cell.json`` of every cell that ended."""
    found = (folder / "runs/studies" / name / "cells").glob("*/cell.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def runs(folder: Path) -> tuple[list[Run], list[Run]]:
    """MLflow's studies and cells."""
    client = MlflowClient(f"sqlite:///{folder / 'runs/mlflow.db'}")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    return [run for run in found if run not in children], children


def wait_for(condition: Any, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def test_a_study_runs_its_cells_and_remembers_them(tmp_path: Path) -> None:
    write(tmp_path)
    code, out, _ = finish(tmp_path, "--dry_run", "true")
    assert code == 0
    assert "6 cells: 0 finished, 0 failed, 6 to run" in out
    assert not (tmp_path / "runs").exists()

    code, out, err = finish(tmp_path)
    assert code == 0, err
    directory = tmp_path / "runs/studies/tiny"
    assert str(directory / "report") in out
    done = ends(tmp_path)
    assert len(done) == 6
    assert {end["status"] for end in done.values()} == {"FINISHED"}

    (parent,), children = runs(tmp_path)
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in children} == {"FINISHED"}
    assert {run.data.tags["hgscale.fingerprint"] for run in children} == set(done)
    places = sorted(run.data.metrics["axis/samples.num_samples"] for run in children)
    assert places == [500, 500, 1000, 1000, 2000, 2000]
    assert {run.data.params["axis/samples.num_samples"] for run in children} == {"500", "1000", "2000"}
    cell = children[0].data.tags["hgscale.fingerprint"]
    summary = json.loads((directory / "cells" / cell / "summary.json").read_text())
    assert children[0].data.metrics["final/recovery_l1"] == summary["recovery_l1"]

    # Again: nothing is left to do, and nothing is done again.
    code, _, err = finish(tmp_path)
    assert code == 0, err
    assert ends(tmp_path) == done
    (parent,), children = runs(tmp_path)
    assert len(children) == 6

    code, out, _ = finish(tmp_path, "--dry_run", "true")
    assert "6 cells: 6 finished, 0 failed, 0 to run" in out


def test_a_warm_worker_gives_the_numbers_of_a_fresh_process(tmp_path: Path) -> None:
    write(tmp_path, axes={"samples.num_samples": [500, 1000]}, seeds=1)
    code, _, err = finish(tmp_path, "--cluster.max_parallel", "1")
    assert code == 0, err
    cells = list((tmp_path / "runs/studies/tiny/cells").iterdir())
    pids = {json.loads((cell / "attempts.jsonl").read_text())["workers"][0]["pid"] for cell in cells}
    assert len(pids) == 1
    second = max(cells, key=lambda cell: (cell / "cell.json").stat().st_mtime)
    command = [sys.executable, "-m", "hgscale", "pretrain", "--config", str(second / "config.yaml")]
    options = ["--run_dir", str(tmp_path / "alone"), "--cluster.launcher", "none", "--tracking.enabled", "false"]
    subprocess.run([*command, *options], check=True, capture_output=True, timeout=DEADLINE_S)
    here, there = (json.loads((folder / "summary.json").read_text()) for folder in (second, tmp_path / "alone"))
    assert here["recovery_l1"] == there["recovery_l1"]
    assert here["fingerprint"] == there["fingerprint"] == second.name


def killed_and_run_again(tmp_path: Path, num_kills: int) -> None:
    """Kill the scheduler at moments spread over the work, then let it finish: every cell ends exactly once."""
    seeds = 2 * num_kills  # enough for cells to be left after the last kill, however fast the machine is
    write(tmp_path, axes={"samples.num_samples": [500, 700, 1000, 1500, 2000, 3000]}, seeds=seeds)
    seen: dict[str, dict[str, Any]] = {}
    draw = np.random.default_rng(7)
    for _ in range(num_kills):
        process = start(tmp_path)
        wanted = len(seen) + 1
        wait_for(lambda: process.poll() is not None or len(ends(tmp_path)) >= wanted, "a cell to end")  # noqa: B023
        time.sleep(float(draw.uniform(0, 1.0)))
        assert process.poll() is None, "the study had ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        now = ends(tmp_path)
        assert seen.items() <= now.items(), "a cell that had ended was run again"
        seen = now
    code, _, err = finish(tmp_path)
    assert code == 0, err
    now = ends(tmp_path)
    assert seen.items() <= now.items()
    assert len(now) == 6 * seeds
    (parent,), children = runs(tmp_path)
    assert parent.info.status == "FINISHED"
    assert sorted(run.data.tags["hgscale.fingerprint"] for run in children) == sorted(now)
    assert {run.info.status for run in children} == {"FINISHED"}


def test_a_killed_study_goes_on_with_each_cell_exactly_once(tmp_path: Path) -> None:
    killed_and_run_again(tmp_path, num_kills=1)


@pytest.mark.slow
def test_a_study_killed_many_times_goes_on_with_each_cell_exactly_once(tmp_path: Path) -> None:
    killed_and_run_again(tmp_path, num_kills=6)


def test_bad_cells_are_retried_then_failed_and_absent_from_fits(tmp_path: Path) -> None:
    """One cell never ends, one holds too much memory; the others finish."""
    variants: Mapping[str, Any] = {
        "good": {},
        "endless": {"train.num_steps": NEVER, "axes": {"samples.num_samples": [500]}},
        "greedy": {
            "model.hidden_size": 4096,
            "model.num_hidden_layers": 6,
            "axes": {"samples.num_samples": [500]},
        },
    }
    write(tmp_path, variants=variants, seeds=1, cell={"time_limit_min": 0.4, "memory_gib": 1.5, "retries": 1})
    code, _, err = finish(tmp_path)
    assert code == 1
    assert "2 of 5 cells failed" in err
    failed = [end for end in ends(tmp_path).values() if end["status"] == "FAILED"]
    assert (len(failed), len(ends(tmp_path))) == (2, 5)
    errors = sorted(end["error"] for end in failed)
    assert errors[0] == "ended after the time limit of 24 s"
    assert "over cell.memory_gib=1.5: out of memory" in errors[1]
    assert {end["attempts"] for end in failed} == {2}
    report = (tmp_path / "runs/studies/tiny/report/report.html").read_text()
    assert "out of memory" in report
    assert "time limit" in report
    (parent,), children = runs(tmp_path)
    assert parent.info.status == "FAILED"
    assert sorted(run.info.status for run in children) == ["FAILED"] * 2 + ["FINISHED"] * 3
    # A failed cell stays failed, until it is asked for again.
    code, out, _ = finish(tmp_path, "--dry_run", "true")
    assert "5 cells: 3 finished, 2 failed, 0 to run" in out
    code, out, _ = finish(tmp_path, "--dry_run", "true", "--retry_failed", "true")
    assert "2 to run" in out


def test_a_cell_whose_process_is_killed_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path, base=TINY["base"] | {"train": TINY["base"]["train"] | {"num_steps": 6000}}, axes={}, seeds=1)
    process = start(tmp_path)
    cells = tmp_path / "runs/studies/tiny/cells"
    wait_for(lambda: list(cells.glob("*/attempts.jsonl")), "the cell to start")
    (notes,) = cells.glob("*/attempts.jsonl")
    wait_for(lambda: notes.read_text().endswith("\n"), "its note")
    os.kill(json.loads(notes.read_text())["workers"][0]["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    (end,) = ends(tmp_path).values()
    assert (end["status"], end["attempts"]) == ("FINISHED", 2)


def test_big_cells_train_as_groups(tmp_path: Path) -> None:
    base = TINY["base"] | {"engine": {"name": "deepspeed"}}
    write(tmp_path, base=base, axes={}, seeds=1)
    code, _, err = finish(tmp_path, "--cell.num_workers", "2")
    assert code == 0, err
    (summary,) = (tmp_path / "runs/studies/tiny/cells").glob("*/summary.json")
    assert json.loads(summary.read_text())["num_workers"] == 2


@pytest.mark.slow
def test_a_group_that_never_ends_is_ended_and_its_room_given_to_the_next(tmp_path: Path) -> None:
    variants = {"endless": {"train.num_steps": NEVER}, "good": {}}
    base = TINY["base"] | {"samples": {"num_samples": 500}}
    cell = {"num_workers": 2, "time_limit_min": 0.5, "retries": 0}
    write(tmp_path, base=base, variants=variants, axes={}, seeds=1, cell=cell)
    code, _, err = finish(tmp_path)
    assert code == 1, err
    assert "1 of 2 cells failed, the first (endless seed=0): ended after the time limit of 30 s" in err, err
    assert sorted(end["status"] for end in ends(tmp_path).values()) == ["FAILED", "FINISHED"]


@pytest.mark.parametrize(
    ("fields", "args", "complaint"),
    [
        ({"axes": {"samples.num_sample": [1]}}, [], "did you mean samples.num_samples?"),
        ({"axes": {"train.num_steps": ["x"]}}, [], "int is wanted"),
        ({"seeds": 0}, [], "the grid is empty"),
        ({}, ["--axes.train.log_every=[60, 60]"], "two cells are the same training"),
        (
            {"variants": {"odd": {"world.generator": "uniform", "world.num_nodes": 30, "world.num_edges": 9}}},
            [],
            "cell odd num_samples=500 seed=0: objective.masking=one_mask cannot recover this world",
        ),
        ({}, ["--cell.num_workers", "999"], "cell.num_workers=999 needs 999 CPUs"),
        ({}, ["--cell.retries=-1"], "cell.retries=-1 is negative"),
        ({"name": None}, [], "name is not given"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, Any],
    args: list[str],
    complaint: str,
) -> None:
    monkeypatch.setenv("HGSCALE_HOME", str(tmp_path / "runs"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code = main(["study", "--config", str(write(tmp_path, **fields)), *args])
    err = capsys.readouterr().err
    assert code == 2, err
    assert complaint in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_name_in_use_with_another_grid_is_refused_and_a_larger_grid_goes_on(tmp_path: Path) -> None:
    write(tmp_path, axes={"samples.num_samples": [500]}, seeds=1)
    code, _, err = finish(tmp_path)
    assert code == 0, err
    first = ends(tmp_path)
    code, _, err = finish(tmp_path, "--axes.samples.num_samples=[600]")
    assert code == 2
    assert "name=tiny: is in use with another grid: 1 of its cells, such as num_samples=500 seed=0" in err
    code, _, err = finish(tmp_path, "--axes.samples.num_samples=[500, 600]")
    assert code == 0, err
    assert first.items() < ends(tmp_path).items()


def test_two_schedulers_of_one_study_are_refused(tmp_path: Path) -> None:
    write(tmp_path, base=TINY["base"] | {"train": TINY["base"]["train"] | {"num_steps": NEVER}}, axes={}, seeds=1)
    process = start(tmp_path)
    try:
        wait_for(lambda: (tmp_path / "runs/studies/tiny/grid.jsonl").exists(), "the study to start")
        code, _, err = finish(tmp_path)
        assert code == 2
        assert "the study is running in another process" in err
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 130
        (parent,), _ = runs(tmp_path)
        assert parent.info.status == "KILLED"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
