"""Several Ray nodes, here on one machine: who feeds, and who generates, may be elsewhere, and may be lost."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from hgscale.cluster.feed import FeedConfig, RayFeed
from hgscale.cluster.generate import GenerateConfig, generate
from hgscale.cluster.workers import ClusterConfig, fit
from hgscale.data.stream import SamplesConfig
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.pretrain.shares import PretrainShares
from hgscale.pretrain.task import PretrainTask
from hgscale.train.config import EngineConfig, TrainConfig
from hgscale.train.shares import in_process

DEADLINE_S = 240
HEAD_CPUS, OTHER_CPUS = 4, 1  # of which Ray keeps books only
CPUS_PER_TRAINER = 2  # so that trainers fit on the head alone, and fill it: who feeds is elsewhere


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A Ray of two nodes, ``ray.cluster_utils.Cluster``, that this process has joined."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_worker_niceness", "0")
        # A Cluster names itself the Ray of this machine, which whoever starts a private one meanwhile would join.
        patch.setattr("ray._private.utils.write_ray_address", lambda address: None)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": HEAD_CPUS, "include_dashboard": False})
        cluster.add_node(num_cpus=OTHER_CPUS)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def titles(node: Any) -> set[str]:
    """What the processes of a node say that they do."""
    (raylet,) = node.all_processes["raylet"]
    found = set()
    for process in psutil.Process(raylet.process.pid).children():
        try:
            found.add(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return found


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# Each size has shards of its own: more of them than workers, so that nobody is left without. Sets of 20 nodes out of
# 1,000 are beyond 64-bit ranks, and are found by exchange.
SIZES = {"addressed": range(2, 12), "exchanged": range(20, 32)}


@pytest.mark.parametrize("kind", ["addressed", pytest.param("exchanged", marks=pytest.mark.slow)])
def test_two_nodes_write_the_bytes_of_one_process(kind: str, nodes: Any, tmp_path: Path) -> None:
    sizes = dict.fromkeys(SIZES[kind], 1.0)
    world = WorldConfig(generator="uniform", num_nodes=1000, num_edges=5000, sizes=sizes, weights="dirichlet")

    def request(name: str, num_workers: int) -> GenerateConfig:
        samples = SamplesConfig(num_samples=1000, seed=1)
        return GenerateConfig(world=world, samples=samples, out=str(tmp_path / name), num_workers=num_workers)

    (other,) = nodes.worker_nodes
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            seen.update(titles(other))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        generate(request("two nodes", HEAD_CPUS + OTHER_CPUS))  # one core each: the head has no room for all
    finally:
        done.set()
        thread.join()
    assert any("_Worker" in title for title in seen), seen
    generate(request("one process", 0))
    assert files(tmp_path / "two nodes") == files(tmp_path / "one process")


def task(num_steps: int) -> PretrainTask:
    return PretrainTask(
        world=WorldConfig(generator="uniform", num_nodes=9, num_edges=20, size=3, weights="dirichlet"),
        samples=SamplesConfig(num_samples=500),
        train=TrainConfig(num_steps=num_steps, global_batch=96, log_every=1),
        engine=EngineConfig(name="torch"),
    )


def train(task: PretrainTask, run_dir: Path, source: Any) -> None:
    """Train on two workers that take the whole head, fed with one CPU."""
    notes = run_dir / "notes"
    notes.mkdir(parents=True)

    def worker() -> None:  # all in here, so that it travels by value: workers cannot import this file
        import ray

        from hgscale.cluster import feed
        from hgscale.pretrain.work import train_worker

        feed.PIECE_SAMPLES = 2 * 96  # four steps of two workers: many pieces

        class Noting(PretrainShares):
            def at(self, step: int) -> Any:
                with (notes / f"fed-{ray.get_runtime_context().get_node_id()}").open("a") as file:
                    file.write(f"{step}\n")
                return super().at(step)

        def noting(shares: PretrainShares, start_step: int) -> Iterator[Any]:
            with closing(source(Noting(shares.task, shares.merge, shares.rank, shares.world_size), start_step)) as it:
                for share in it:
                    time.sleep(0.02)
                    yield share

        (notes / f"trained-{ray.get_runtime_context().get_node_id()}").touch()
        train_worker(task, run_dir, figure=False, source=noting)

    cluster = ClusterConfig(num_workers=2, cpus_per_worker=CPUS_PER_TRAINER)
    fit(worker, {}, cluster, run_dir, size=2)


def logged(run_dir: Path) -> dict[int, str]:
    """The hash of each step's ids, so far."""
    path = run_dir / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {record["step"]: record["ids_hash"] for record in records if "ids_hash" in record}


def of_nodes(run_dir: Path, what: str) -> set[str]:
    return {path.name.removeprefix(f"{what}-") for path in (run_dir / "notes").glob(f"{what}-*")}


@pytest.mark.slow
def test_a_node_that_only_feeds_may_die_and_another_take_its_place_and_no_id_changes(
    nodes: Any, tmp_path: Path
) -> None:
    asked, run_dir = task(num_steps=400), tmp_path / "run"
    (first,) = nodes.worker_nodes
    raised: list[BaseException] = []

    def run() -> None:
        try:
            train(asked, run_dir, RayFeed(FeedConfig(num_feeders=1, buffer_mib=0.1)))
        except BaseException as error:
            raised.append(error)

    # A node can be added in the main thread only.
    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: raised or len(logged(run_dir)) >= 50, "50 steps")
    assert not raised, raised
    assert of_nodes(run_dir, "fed") == {first.node_id}
    nodes.remove_node(first, allow_graceful=False)
    second = nodes.add_node(num_cpus=OTHER_CPUS)
    thread.join(timeout=DEADLINE_S)
    assert not thread.is_alive()
    assert not raised, raised
    assert of_nodes(run_dir, "trained") == {nodes.head_node.node_id}
    assert of_nodes(run_dir, "fed") == {first.node_id, second.node_id}
    assert len((run_dir / "attempts.jsonl").read_text().splitlines()) == 1, "trainers have noticed nothing"
    whole = {share.step + 1: f"{share.ids_hash:016x}" for share in in_process(PretrainShares(asked), 0)}
    assert logged(run_dir) == whole
