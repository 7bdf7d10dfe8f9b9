"""What may befall a training, a little of it each time: `python -m tests.chaos` does the same at length."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.chaos.__main__ import draw, name_of
from tests.chaos.faults import Fault
from tests.chaos.harness import LIMIT_S, DriverFault, Training, compare, node, private_ray

LONG = {"train.num_steps": 3000, "train.checkpoint_every": 100, "train.eval_every": 3000, "cluster.cpus_per_worker": 1}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with private_ray(num_cpus=2) as cluster:
        yield cluster.address


@pytest.fixture(scope="module")
def whole(address: str, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The training that nothing befalls."""
    training = Training(tmp_path_factory.mktemp("whole"), address, {})
    assert training.run() == 0, training.output.read_text()
    return training


def test_lost_workers_and_a_lost_driver_change_no_bit_of_a_training(
    address: str, whole: Training, tmp_path: Path
) -> None:
    plan = [Fault("kill", "step", 1, 100, 0.004), Fault("kill", "rename", 0, 170)]
    training = Training(tmp_path, address, {}, plan)
    assert training.run([DriverFault(signal.SIGKILL, 400)]) == 0, training.output.read_text()
    assert training.happened() == [0, 1]
    assert compare(training, whole) == {}
    starts = [attempt["start_step"] for attempt in training.attempts()]
    assert len(starts) == 4
    assert starts == sorted(starts)
    assert starts[1] == 60


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_leaves_a_checkpoint_and_the_training_goes_on(
    address: str, tmp_path: Path
) -> None:
    whole = Training(tmp_path / "whole", address, LONG)
    assert whole.run() == 0
    training = Training(tmp_path / "told", address, LONG, [Fault("term", "step", 1, 501)])
    assert training.run() == 0, training.output.read_text()
    assert "a worker was told to stop" in training.output.read_text()
    starts = [attempt["start_step"] for attempt in training.attempts()]
    assert len(starts) == 2
    assert starts[1] > 501
    assert compare(training, whole) == {}


@pytest.mark.slow
def test_a_driver_that_is_told_to_stop_leaves_a_checkpoint_and_a_killed_run(
    address: str, whole: Training, tmp_path: Path
) -> None:
    training = Training(tmp_path, address, {})
    process = training.start()
    while training.steps_logged() < 100:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 130
    assert training.mlflow()[0] == ["KILLED"]
    assert training.run() == 0
    assert training.attempts()[1]["start_step"] >= 100
    assert compare(training, whole) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("what", "rank", "says"), [("hang", 1, "is in no collective"), ("freeze", 0, "waits in a")])
def test_a_step_that_does_not_end_leaves_stacks_and_is_done_again(
    address: str, whole: Training, tmp_path: Path, what: str, rank: int, says: str
) -> None:
    training = Training(tmp_path, address, {}, [Fault(what, "step", rank, 100)])
    assert training.run() == 0, training.output.read_text()
    assert compare(training, whole) == {}
    stacks = {path.name: path.read_text() for path in (training.run_dir / "stuck").iterdir()}
    # A process that is frozen can say nothing; the other one says that it waits.
    assert len(stacks) == (2 if what == "hang" else 1)
    told = stacks["attempt-1-rank-1.txt"]
    assert says in told.splitlines()[0]
    assert "most recent call first" in told
    assert ("_happen" in told) == (what == "hang")
    assert says in training.output.read_text()


@pytest.mark.slow
def test_a_training_that_only_fails_ends_after_so_many_attempts_in_a_row(address: str, tmp_path: Path) -> None:
    plan = [Fault("kill", "start", 0, 0) for _ in range(9)]
    training = Training(tmp_path, address, {"cluster.max_failures": 1}, plan)
    assert training.run() == 1
    assert "2 attempts in a row ended so without a new checkpoint" in training.output.read_text()
    assert training.mlflow()[0] == ["FAILED"]


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_random_faults_are_survived_at_every_stage(address: str, tmp_path: Path, zero_stage: int) -> None:
    options = {"engine.zero_stage": zero_stage}
    untouched = Training(tmp_path / "whole", address, options)
    assert untouched.run() == 0
    rng = random.Random(zero_stage)
    for number in range(2):
        plan, of_driver = draw(rng, num_faults=4)
        training = Training(tmp_path / str(number), address, options, plan)
        assert training.run(of_driver) == 0, training.output.read_text()
        assert compare(training, untouched) == {}, [name_of(fault) for fault in [*plan, *of_driver]]


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_a_training_whose_cluster_changes_size_sees_the_same_samples(
    address: str, tmp_path: Path, zero_stage: int
) -> None:
    options = LONG | {"engine.zero_stage": zero_stage, "cluster.cpus_per_worker": 0.25}
    whole = Training(tmp_path / "whole", address, options)
    assert whole.run() == 0
    training = Training(tmp_path / "resized", address, options)
    for num_workers, last in ((2, 500), (1, 1000), (2, 1500), (4, None)):
        process = training.start(cluster__num_workers=num_workers)
        while last is not None and training.steps_logged() < last:
            assert process.poll() is None, training.output.read_text()
            time.sleep(0.05)
        if last is not None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == (0 if last is None else 130), training.output.read_text()
    assert [len(attempt["workers"]) for attempt in training.attempts()] == [2, 1, 2, 4]
    assert training.history() == whole.history()
    losses = [[record["loss"] for record in one.records() if "loss" in record] for one in (training, whole)]
    # Sums in another order: some 2^-24 of a gradient a step, which AdamW turns into as much of a weight of order 1.
    assert losses[0] == pytest.approx(losses[1], rel=LONG["train.num_steps"] * 2**-20)
    assert training.mlflow() == whole.mlflow()


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head without CPUs for workers, and two nodes with one each."""
    with private_ray(num_cpus=0) as cluster:
        for _ in range(2):
            cluster.add_node(**node(1))
        yield cluster


def until(training: Training, process: subprocess.Popen[bytes], text: str) -> None:
    """Wait until a training says something."""
    while text not in training.output.read_text():
        assert process.poll() is None, training.output.read_text()
        time.sleep(0.1)


@pytest.mark.slow
def test_a_lost_node_is_made_up_for_by_another(nodes: Cluster, tmp_path: Path) -> None:
    whole = Training(tmp_path / "whole", nodes.address, LONG)
    assert whole.run() == 0, whole.output.read_text()
    training = Training(tmp_path / "lost", nodes.address, LONG)
    process = training.start()
    while training.steps_logged() < 500:
        time.sleep(0.05)
    nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
    until(training, process, "waiting for room for 2 workers")
    nodes.add_node(**node(1))
    assert process.wait(LIMIT_S) == 0, training.output.read_text()
    assert compare(training, whole) == {}
    assert len(training.attempts()) == 2


@pytest.mark.slow
def test_with_fewer_nodes_an_elastic_training_goes_on_with_fewer_workers(nodes: Cluster, tmp_path: Path) -> None:
    training = Training(tmp_path, nodes.address, LONG | {"cluster.num_workers": "{min: 1, max: 2}"})
    process = training.start()
    while training.steps_logged() < 500:
        time.sleep(0.05)
    nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
    assert process.wait(LIMIT_S) == 0, training.output.read_text()
    assert [len(attempt["workers"]) for attempt in training.attempts()] == [2, 1]
    assert training.mlflow()[0] == ["FINISHED"]


@pytest.mark.slow
def test_workers_on_a_node_that_is_taken_away_leave_a_checkpoint_first(nodes: Cluster, tmp_path: Path) -> None:
    training = Training(tmp_path, nodes.address, LONG)
    process = training.start()
    while training.steps_logged() < 500:
        time.sleep(0.05)
    drain = ["--node-id", nodes.list_all_nodes()[-1].node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    drain += ["--reason-message", "taken away", "--deadline-remaining-seconds", "120", "--address", nodes.address]
    subprocess.run([str(Path(sys.executable).parent / "ray"), "drain-node", *drain], check=True)
    until(training, process, "a worker was told to stop")
    nodes.add_node(**node(1))
    assert process.wait(LIMIT_S) == 0, training.output.read_text()
    starts = [attempt["start_step"] for attempt in training.attempts()]
    assert len(starts) == 2
    assert starts[1] >= 500
