"""Trainings with faults beside one without: what was lost, what was repeated, what differs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from safetensors.numpy import load_file

from tests.chaos.faults import Fault
from tests.chaos.state import state_of

HERE = Path(__file__).parent
LIMIT_S = 300  # that anything takes on a busy machine
NUM_STEPS, LOG_EVERY, CHECKPOINT_EVERY, EVAL_EVERY = 600, 10, 60, 200
OPTIONS: dict[str, Any] = {
    "world.generator": "star",
    "world.num_nodes": 6,
    "samples.num_samples": 2000,
    "train.num_steps": NUM_STEPS,
    "train.global_batch": 480,
    "train.learning_rate": 0.01,
    "train.log_every": LOG_EVERY,
    "train.checkpoint_every": CHECKPOINT_EVERY,
    "train.eval_every": EVAL_EVERY,
    "model.hidden_size": 32,
    "model.num_hidden_layers": 1,
    "cluster.num_workers": 2,
    "cluster.cpus_per_worker": 0.5,
    "cluster.stuck_after_s": 15,
    "cluster.max_failures": 5,
}


@dataclass(frozen=True)
class DriverFault:
    """A signal to the driver once the log has reached a step; the same command is then given again."""

    number: signal.Signals
    step: int


class Training:
    """One training in a folder of its own, as many commands as it takes."""

    def __init__(self, folder: Path, address: str, options: Mapping[str, Any], plan: Sequence[Fault] = ()) -> None:
        self.run_dir, self.marks, self.plan = folder / "run", folder / "marks", folder / "plan.json"
        self.marks.mkdir(parents=True)
        self.plan.write_text(json.dumps([asdict(fault) for fault in plan]))
        uri = f"sqlite:///{folder}/mlflow.db"
        self.options = OPTIONS | {"cluster.address": address, "tracking.uri": uri, "run_dir": self.run_dir}
        self.options |= options
        self.output = folder / "output.txt"

    def start(self, **changes: Any) -> subprocess.Popen[bytes]:
        """The command, with other values of some options (dots as double underscores)."""
        options = self.options | {name.replace("__", "."): value for name, value in changes.items()}
        words = [f"--{name}={value}" for name, value in options.items()]
        environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, str(HERE / "driver.py"), str(self.plan), str(self.marks), *words],
                stdout=output, stderr=output, env=environment, start_new_session=True,
            )  # fmt: skip

    def run(self, driver_faults: Sequence[DriverFault] = (), limit_s: float = 2 * LIMIT_S, **changes: Any) -> int:
        """To its end, over faults of the driver; returns the last exit code, and -1 if the time is over."""
        deadline = time.monotonic() + limit_s
        waiting = list(driver_faults)
        process = self.start(**changes)
        try:
            while True:
                code = process.poll()
                if code is not None and not (waiting and code in (130, -signal.SIGKILL)):
                    return code
                if code is not None:
                    waiting.pop(0)
                    process = self.start(**changes)
                elif time.monotonic() > deadline:
                    return -1
                elif waiting and self.steps_logged() >= waiting[0].step:
                    process.send_signal(waiting[0].number)
                    code = process.wait(LIMIT_S)
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def records(self) -> list[dict[str, Any]]:
        path = self.run_dir / "log.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def steps_logged(self) -> int:
        return max((record["step"] for record in self.records()), default=0)

    def attempts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run_dir / "attempts.jsonl").read_text().splitlines()]

    def recovery_s(self, number: int) -> float | None:
        """Seconds from a fault to the moment when the workers of the next attempt take up their steps."""
        struck = (self.marks / str(number)).stat().st_mtime
        return min((attempt["time"] - struck for attempt in self.attempts() if attempt["time"] > struck), default=None)

    def history(self) -> list[tuple[int, str]]:
        """(step, hash of the ids trained on since the line before), a line of the log each."""
        return [(record["step"], record["ids_hash"]) for record in self.records() if "ids_hash" in record]

    def numbers(self) -> list[dict[str, Any]]:
        """The log without what depends on the clock."""
        clocked = {"time", "samples_per_s", "wait_frac", "mem_gib"}
        return [{name: value for name, value in record.items() if name not in clocked} for record in self.records()]

    def weights(self) -> dict[str, bytes]:
        return {name: array.tobytes() for name, array in load_file(self.run_dir / "model/model.safetensors").items()}

    def state(self) -> dict[str, Any]:
        return state_of(self.run_dir)

    def happened(self) -> list[int]:
        """The numbers of the plan's faults that came about."""
        return sorted(int(mark.name) for mark in self.marks.iterdir())

    def mlflow(self) -> tuple[list[str], list[int]]:
        """(status of each run in the store, steps of the loss in the first)."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self.options["tracking.uri"])
        runs = [run for one in client.search_experiments() for run in client.search_runs([one.experiment_id])]
        steps = [point.step for point in client.get_metric_history(runs[0].info.run_id, "loss")]
        return [run.info.status for run in runs], steps


def compare(training: Training, whole: Training) -> dict[str, str]:
    """What is wrong with a training that suffered faults, beside one that did not; empty if nothing is."""
    wrong = {}
    if training.history() != whole.history():
        wrong["samples"] = f"{training.history()} for {whole.history()}"
    for name in ("numbers", "weights", "state"):
        if getattr(training, name)() != getattr(whole, name)():
            wrong["bits"] = f"{name} differ"
    num_steps = training.options["train.num_steps"]
    statuses, steps = training.mlflow()
    if statuses != ["FINISHED"] or steps != list(range(LOG_EVERY, num_steps + 1, LOG_EVERY)):
        wrong["not survived"] = f"MLflow has {statuses}, steps {steps}"
    return wrong


@contextmanager
def private_ray(num_cpus: int) -> Iterator[Cluster]:
    """A Ray of its own, without a dashboard."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args=node(num_cpus))
        try:
            yield cluster
        finally:
            cluster.shutdown()


def node(num_cpus: int) -> dict[str, Any]:
    """Arguments of a node of a private cluster."""
    return {"num_cpus": num_cpus, "include_dashboard": False, "object_store_memory": 100 * 2**20}
