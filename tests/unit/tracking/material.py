"""What the tests of tracking have in common: a log, a training in two attempts, cells, and how a store is read."""

from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from hgscale.tracking import CellRun, DataInput, StudyTracker, Tracker

WORLD = DataInput("world", "d" * 32, {"num_nodes": 50, "num_edges": 245}, "gnm(50, 245)")


def records(steps: range, **more: float) -> list[dict]:
    return [{"step": step, "time": 1.7e9 + step, "loss": 1 / (1 + step), **more} for step in steps]


def history(store: MlflowClient, run_id: str, metric: str = "loss") -> list[tuple[int, float, int]]:
    """Every point of a metric in the order of the store: (step, value, time in ms)."""
    return [(point.step, point.value, point.timestamp) for point in store.get_metric_history(run_id, metric)]


def two_attempts(start: Callable[..., Tracker], store: MlflowClient) -> None:
    """A training that dies at step 30, resumes from a checkpoint at 20, and ships its whole log again."""
    first = start()
    first.log_input(WORLD)
    first.ship(records(range(0, 31)))
    assert store.get_run(first.run_id).info.status == "RUNNING"
    first.finish("FAILED")
    assert store.get_run(first.run_id).info.status == "FAILED"

    second = start(resume_run_id=first.run_id, params={"model.width": "64", "cluster.workers": "2"})
    assert second.run_id == first.run_id
    assert store.get_run(first.run_id).info.status == "RUNNING"
    second.log_input(WORLD)
    rewritten = [record | {"time": record["time"] + 99} for record in records(range(21, 41), lr=0.1)]
    second.ship(records(range(0, 21)) + rewritten)
    second.log_final({"l1": 0.05, "note": "text", "done": True, "missing": None})
    second.finish("FINISHED")

    run = store.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["hgscale.attempt"] == "2"
    assert run.data.params == {"model.width": "64", "cluster.workers": "2"}
    assert [step for step, _, _ in history(store, first.run_id)] == list(range(41))
    # A metric that is new in the second attempt is not held back by the steps of the others.
    assert [step for step, _, _ in history(store, first.run_id, "lr")] == list(range(21, 41))
    assert {name for name in run.data.metrics if "/" in name} == {"final/l1", "best/loss"}
    assert run.data.metrics["best/loss"] == 1 / 41
    (world,) = run.inputs.dataset_inputs
    assert world.dataset.digest == "d" * 32
    assert len(store.search_runs([run.info.experiment_id], f"attributes.run_id = '{first.run_id}'")) == 1


def cell(number: int = 0, **more: Any) -> CellRun:
    """A small finished cell, started at second 1000 and ended at second 1060."""
    facts: dict[str, Any] = {
        "fingerprint": f"f00d{number}",
        "name": f"gnm num_samples={number}",
        "status": "FINISHED",
        "start_s": 1000.0,
        "end_s": 1060.5,
        "seed": 3,
        "axes": {"samples.num_samples": 100 * number},
        "params": {"samples.num_samples": 100 * number, "train.seed": 3},
        "summary": {"recovery_l1": 0.25},
    }
    return CellRun(**facts | more)


def failed(number: int = 0, **more: Any) -> CellRun:
    return cell(number, **{"status": "FAILED", "summary": {}, "error": "out of memory"} | more)


def children(client: MlflowClient, tracker: StudyTracker) -> list[Run]:
    """Every child that the store holds, by fingerprint; a double would be seen."""
    experiment = client.get_run(tracker.run_id).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{tracker.run_id}'")
    return sorted(runs, key=lambda run: run.data.tags.get("hgscale.fingerprint", ""))
