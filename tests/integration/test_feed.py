"""Batches made by Ray Data in other processes: the very ones that a worker would make, in order, and not too early."""

import dataclasses
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import hgscale
from hgscale import config as configs
from hgscale.cluster import feed
from hgscale.cluster.feed import FeedConfig, RayFeed
from hgscale.cluster.workers import ClusterConfig, fit
from hgscale.data.stream import WORD, SamplesConfig
from hgscale.errors import RunError
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.pretrain.shares import PretrainShares
from hgscale.pretrain.task import PretrainTask
from hgscale.train.config import TrainConfig
from hgscale.train.shares import Share, in_process

NUM_STEPS, BATCH = 60, 96
NUM_CPUS = 8  # of which Ray keeps books only: the machine may have fewer


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A private Ray, and its address."""
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    context = ray.init(
        address="local",
        num_cpus=NUM_CPUS,
        include_dashboard=False,
        object_store_memory=150 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of one worker in a piece."""
    monkeypatch.setattr(feed, "PIECE_SAMPLES", 2 * BATCH)


def task(num_steps: int = NUM_STEPS) -> PretrainTask:
    return PretrainTask(
        world=WorldConfig(generator="uniform", num_nodes=9, num_edges=20, size=3, weights="dirichlet"),
        samples=SamplesConfig(num_samples=500),
        train=TrainConfig(num_steps=num_steps, global_batch=BATCH),
    )


def hashes(num_feeders: int, world_size: int, start_step: int) -> list[int]:
    """Of each global batch from ``start_step`` on, as the workers together took it."""
    source = RayFeed(FeedConfig(num_feeders=num_feeders)) if num_feeders else in_process
    ranks = [list(source(PretrainShares(task(), True, rank, world_size), start_step)) for rank in range(world_size)]
    steps = list(zip(*ranks, strict=True))
    assert [{share.step for share in step} for step in steps] == [{step} for step in range(start_step, NUM_STEPS)]
    return [sum(share.ids_hash for share in step) % WORD for step in steps]


def watched(shares: PretrainShares, folder: Path, seconds_a_step: float = 0.0) -> Any:
    """The same shares; whoever evaluates one notes its step in a file of his own."""

    class Watched(PretrainShares):  # in here, so that it travels by value: feeders cannot import this file
        def at(self, step: int) -> Share:
            with (folder / str(os.getpid())).open("a") as file:
                file.write(f"{step}\n")
            time.sleep(seconds_a_step)
            return super().at(step)

    return Watched(shares.task, shares.merge, shares.rank, shares.world_size)


def evaluated(folder: Path) -> dict[int, list[int]]:
    """Which steps each process has begun to evaluate."""
    return {int(path.name): [int(line) for line in path.read_text().split()] for path in folder.iterdir()}


def assert_same(one: Share, other: Share) -> None:
    assert (one.step, one.ids_hash) == (other.step, other.ids_hash)
    for mine, yours in zip(one.micro_batches, other.micro_batches, strict=True):
        assert np.array_equal(mine.size_counts, yours.size_counts)
        for bucket, same in zip(mine.buckets, yours.buckets, strict=True):
            for field in dataclasses.fields(bucket):
                assert np.array_equal(getattr(bucket, field.name), getattr(same, field.name))


def test_a_feeder_killed_at_work_changes_nothing_that_is_taken(
    cluster: str, small_pieces: None, tmp_path: Path
) -> None:
    shares = PretrainShares(task(), True, rank=1, world_size=2)
    source = RayFeed(FeedConfig(num_feeders=4))(watched(shares, tmp_path, seconds_a_step=0.05), 7)
    taken = [next(source)]
    victim = max(evaluated(tmp_path), key=lambda pid: evaluated(tmp_path)[pid][-1])
    os.kill(victim, signal.SIGKILL)
    taken += source
    for share, same in zip(taken, in_process(shares, 7), strict=True):
        assert_same(share, same)
    assert set(evaluated(tmp_path)) - {victim}, "others have gone on"


def test_feeders_wait_when_the_buffer_is_full(cluster: str, small_pieces: None, tmp_path: Path) -> None:
    num_feeders, buffer = 2, 20  # pieces that fit
    shares = PretrainShares(task(num_steps=10_000))
    piece_bytes = len(feed.pickle.dumps([shares.at(step) for step in range(2)], protocol=5))
    config = FeedConfig(num_feeders=num_feeders, buffer_mib=buffer * piece_bytes / 2**20)
    source = RayFeed(config)(watched(shares, tmp_path), 0)
    ahead = []
    for share in source:
        if share.step % 50 == 49:
            time.sleep(1.5)  # enough for hundreds of steps
            ahead.append(max(max(steps) for steps in evaluated(tmp_path).values()) - share.step)
        if share.step == 199:
            break
    source.close()
    # In the buffer, at work or done in each feeder (2 pieces each), on the way to the worker (4), and the one it has.
    assert max(ahead) <= 2 * (buffer + 2 * num_feeders + 4 + 1), ahead
    assert min(ahead) > 0, "they do work ahead"


def test_feeders_are_gone_when_the_source_is_closed(cluster: str, small_pieces: None, tmp_path: Path) -> None:
    source = RayFeed(FeedConfig(num_feeders=1))(watched(PretrainShares(task(100_000)), tmp_path), 0)
    next(source)
    source.close()
    (feeder,) = evaluated(tmp_path)
    psutil.wait_procs([psutil.Process(feeder)] if psutil.pid_exists(feeder) else [], timeout=20)
    assert not psutil.pid_exists(feeder)


def test_what_a_feeder_meets_is_raised_here(cluster: str) -> None:
    class Broken(PretrainShares):
        def at(self, step: int) -> Share:
            raise RunError("the shards are gone")

    with pytest.raises(RunError, match=r"^the shards are gone$"):
        list(RayFeed(FeedConfig(num_feeders=1))(Broken(task()), 0))


def losses_and_hashes(run_dir: Path) -> list[tuple[int, float, str]]:
    records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [(record["step"], record["loss"], record["ids_hash"]) for record in records if "loss" in record]


def tiny(tmp_path: Path, name: str, **overrides: Any) -> "hgscale.PretrainConfig":
    """A run of a few seconds."""
    values: dict[str, Any] = {
        "world__generator": "star",
        "world__num_nodes": 6,
        "samples__num_samples": 2000,
        "train__num_steps": 60,
        "train__global_batch": 480,
        "train__log_every": 10,
        "model__hidden_size": 32,
        "model__num_hidden_layers": 1,
        "engine__name": "torch",
        "tracking__enabled": False,
        "run_dir": str(tmp_path / name),
    }
    path = tmp_path / "tiny.yaml"
    path.write_text("{}\n")
    return configs.load(hgscale.PretrainConfig, path, **(values | overrides))


def pretrained(tmp_path: Path, name: str, **overrides: Any) -> Path:
    """The directory of one that is finished."""
    return hgscale.pretrain(tiny(tmp_path, name, **overrides)).run_dir


def test_a_run_that_is_fed_has_the_losses_and_samples_of_one_that_is_not_bit_for_bit(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = pretrained(tmp_path, "alone", cluster__launcher="none")
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    fed = pretrained(tmp_path, "fed", feed__num_feeders=2)
    assert losses_and_hashes(fed) == losses_and_hashes(alone)
    assert len(losses_and_hashes(fed)) == 6


@pytest.mark.slow
def test_a_fed_worker_killed_at_work_is_replaced_and_fed_the_same_samples(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    many = {"train__num_steps": 1500, "train__checkpoint_every": 100, "train__log_every": 1}
    config = tiny(tmp_path, "fed", cluster__num_workers=2, feed__num_feeders=1, **many)
    run_dir = tmp_path / "fed"

    def attempts() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (run_dir / "attempts.jsonl").read_text().splitlines()]

    def kill_one() -> None:
        deadline = time.monotonic() + 300  # on a busy machine workers take long to start
        while time.monotonic() < deadline:
            if (run_dir / "log.jsonl").exists() and (run_dir / "log.jsonl").read_text().count("\n") >= 250:
                os.kill(attempts()[0]["workers"][1]["pid"], signal.SIGKILL)
                return
            time.sleep(0.1)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    hgscale.pretrain(config)
    assert [attempt["start_step"] > 0 for attempt in attempts()] == [False, True]
    found = [(step, word) for step, _, word in losses_and_hashes(run_dir)]
    assert found == [(share.step + 1, f"{share.ids_hash:016x}") for share in in_process(PretrainShares(config), 0)]


GRID = [(workers, feeders) for workers in (1, 2, 3, 4) for feeders in (0, 1, 2)]


@pytest.mark.slow
def test_runs_of_one_to_four_workers_train_on_the_same_samples_whoever_feeds_them(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    runs = {}
    for workers, feeders in GRID:
        overrides = {"cluster__num_workers": workers, "feed__num_feeders": feeders, "train__log_every": 1}
        runs[workers, feeders] = losses_and_hashes(pretrained(tmp_path, f"{workers}-{feeders}", **overrides))
    histories = {tuple((step, word) for step, _, word in lines) for lines in runs.values()}
    assert len(histories) == 1
    assert [step for step, _ in histories.pop()] == list(range(1, 61)), "every global batch"
    for workers, feeders in GRID:
        assert runs[workers, feeders] == runs[workers, 0], "losses are equal bit for bit where as many workers add up"


def taken_by_a_group(num_workers: int, num_feeders: int, start: int, stop: int, run_dir: Path) -> list[int]:
    """Hashes of global batches ``start`` to ``stop`` - 1, as a Ray Train group took them before it was stopped."""
    asked, small = task(), 2 * BATCH
    source = RayFeed(FeedConfig(num_feeders=num_feeders)) if num_feeders else in_process

    def worker() -> None:  # all in here, so that it travels by value: workers cannot import this file
        import ray.train

        feed.PIECE_SAMPLES = small
        context = ray.train.get_context()
        rank = context.get_world_rank()
        with closing(source(PretrainShares(asked, True, rank, context.get_world_size()), start)) as shares:
            words = [next(shares).ids_hash for _ in range(start, stop)]
        (run_dir / f"rank-{rank}.json").write_text(json.dumps(words))

    run_dir.mkdir()
    fit(worker, {}, ClusterConfig(num_workers=num_workers), run_dir, num_workers)
    ranks = [json.loads(path.read_text()) for path in run_dir.glob("rank-*.json")]
    assert len(ranks) == num_workers
    return [sum(step) % WORD for step in zip(*ranks, strict=True)]


@pytest.mark.slow
def test_a_history_of_stops_at_random_steps_each_with_other_workers_and_feeders_after_it_is_that_of_one_process(
    cluster: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    order = [GRID[place] for place in random.permutation(len(GRID))]
    while any(one[0] == other[0] for one, other in itertools.pairwise(order)):
        order = [GRID[place] for place in random.permutation(len(GRID))]
    stops = np.sort(random.choice(np.arange(1, NUM_STEPS), len(GRID) - 1, replace=False)).tolist()
    history: list[int] = []
    for number, (start, stop) in enumerate(itertools.pairwise([0, *stops, NUM_STEPS])):
        history += taken_by_a_group(*order[number], start, stop, tmp_path / str(number))
    assert history == [share.ids_hash for share in in_process(PretrainShares(task()), 0)]


@pytest.mark.slow
@pytest.mark.parametrize("num_feeders", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_global_batches_are_those_in_process_for_any_number_of_workers_and_feeders_from_any_step(
    cluster: str, small_pieces: None, world_size: int, num_feeders: int
) -> None:
    start = int(np.random.default_rng(10 * world_size + num_feeders).integers(1, NUM_STEPS))
    whole = hashes(0, 1, 0)
    assert hashes(num_feeders, world_size, 0) == whole
    other = world_size % 4 + 1
    assert whole[:start] + hashes(num_feeders, other, start) == whole
