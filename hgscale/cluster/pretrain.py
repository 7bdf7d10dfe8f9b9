"""The verb ``pretrain``: a run directory, a worker group, a progress bar, and one MLflow run, whatever happens."""

import fcntl
import functools
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hgscale import config as configs
from hgscale.cluster.attempts import Work, run_work
from hgscale.cluster.feed import FeedConfig, RayFeed
from hgscale.cluster.progress import Progress
from hgscale.cluster.signals import stop_on_signal
from hgscale.cluster.workers import Beside, ClusterConfig, check_room
from hgscale.errors import ConfigError, HgscaleError, RunError
from hgscale.tracking import Tracker, TrackingConfig
from hgscale.train import checkpoint
from hgscale.train.runlog import Offset, read_new
from hgscale.train.task import PretrainTask

POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(PretrainTask):
    """Pre-train a transformer by masked modelling on the samples of a world, and read the world back out of it."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where it is computed."""

    feed: FeedConfig = field(default_factory=FeedConfig)
    """Where its batches are made."""

    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where it is remembered."""

    run_dir: str | None = None
    """Directory of the run, shared by all workers; null: pretrain-<fingerprint> under $HGSCALE_HOME or runs."""


@dataclass(frozen=True)
class PretrainResult:
    """A finished run: ``summary.json`` as a dict, its directory, and how to open it in MLflow."""

    summary: dict[str, Any]
    run_dir: Path
    mlflow_run_id: str | None
    how_to_open: str


def pretrain(config: PretrainConfig) -> PretrainResult:
    """Run a pre-training to its end, from wherever an earlier attempt left it.

    A run that is finished already is not repeated: its summary is returned.

    Raises:
        ConfigError: if the request cannot be met; nothing has been written then.
        DataError: if the world's file is wrong.
        RunError: if the run failed; the newest checkpoint stays, and the MLflow run ends FAILED.
    """
    config.check_task()
    sizes = config.sizes(config.cluster.min_workers, config.cluster.max_workers)
    beside = _beside(config)
    check_room(config.cluster, beside)
    fingerprint = config.fingerprint()
    run_dir = Path(config.run_dir) if config.run_dir else configs.runs_home() / f"pretrain-{fingerprint}"
    run_dir = run_dir.absolute()
    with _claimed(run_dir, fingerprint) as is_new:
        try:
            tracker = _start_tracking(config, fingerprint, run_dir)
        except HgscaleError:
            if is_new:
                shutil.rmtree(run_dir)
            raise
        _write_config(config, run_dir)
        status = "FAILED"
        try:
            with _following(run_dir, config, tracker) as progress, stop_on_signal():
                if not (run_dir / "summary.json").exists():
                    run_work(_work(config, run_dir, fingerprint, sizes, beside), config.cluster, progress.say)
            summary = json.loads((run_dir / "summary.json").read_text())
            tracker.log_final(summary)
            for name in ("config.yaml", "summary.json", "recovery.png", "recovered.json", "log.jsonl"):
                if (run_dir / name).exists():
                    tracker.log_artifact(run_dir / name)
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            tracker.finish(status)  # type: ignore[arg-type]
    return PretrainResult(summary, run_dir, tracker.run_id, tracker.how_to_open())


def _work(config: PretrainConfig, run_dir: Path, fingerprint: str, sizes: list[int], beside: Beside) -> Work:
    """The training as work for a group."""
    arguments = {
        "task": replace(config),  # which leaves behind the cached world: each worker opens it for itself
        "run_dir": run_dir,
        "threads": config.cluster.threads_per_worker,
        "device": config.cluster.device,
    }
    if config.feed.num_feeders:
        arguments["source"] = RayFeed(config.feed)
    checkpoints = run_dir / "checkpoints"
    converts_on = config.cluster.device if config.cluster.launcher == "none" else "cpu"  # Ray gives it no GPU
    return Work(
        function=_train,
        arguments=arguments,
        run_dir=run_dir,
        sizes=sizes,
        prepare=functools.partial(_prepare, checkpoints, fingerprint, converts_on),
        progress=functools.partial(checkpoint.newest_step, checkpoints),
        beside=beside,
    )


def _prepare(checkpoints: Path, fingerprint: str, device: str, num_workers: int) -> None:
    """Before the workers start, in one process: see that so many can load the newest checkpoint."""
    from hgscale.train.resize import prepare

    prepare(checkpoints, fingerprint, num_workers, device)


def _train(**arguments: Any) -> None:
    """In a worker. Torch is loaded there, and not by who only starts workers."""
    from hgscale.train.pretrain import train_worker

    train_worker(**arguments)


def _beside(config: PretrainConfig) -> Beside:
    """What the feeders take."""
    if config.feed.num_feeders == 0:
        return Beside()
    if config.cluster.launcher == "none":
        raise ConfigError(
            f"feed.num_feeders={config.feed.num_feeders} makes batches on Ray, but cluster.launcher=none runs without; "
            "set launcher to ray, or num_feeders to 0"
        )
    # Twice: besides the batches that wait there are those being made and those being taken.
    return Beside(config.feed.num_feeders, 2 * config.feed.buffer_bytes * config.cluster.max_workers)


@contextmanager
def _claimed(run_dir: Path, fingerprint: str) -> Iterator[bool]:
    """Make the run directory, or find in it an earlier attempt at the same run, and hold it; gives whether it is new.

    Raises:
        ConfigError: if it cannot be written, belongs to another run, or is held by another process.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        is_new = all(path.name == "lock" for path in run_dir.iterdir())
        lock = (run_dir / "lock").open("a")
    except OSError as error:
        raise ConfigError(
            f"run_dir={run_dir}: cannot be written ({error.strerror}); name a directory you can write to"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"run_dir={run_dir}: the run is going on in another process; wait for it, or end it first"
            ) from None
        except OSError:
            pass  # storage without locks: there the numbers of attempts keep two from mixing
        mark = run_dir / "fingerprint"
        earlier = mark.read_text().strip() if mark.exists() else fingerprint if is_new else None
        if earlier != fingerprint:
            if earlier is None:
                (run_dir / "lock").unlink()
                raise ConfigError(f"run_dir={run_dir}: holds files that are no run's; name a new or empty directory")
            raise ConfigError(
                f"run_dir={run_dir}: belongs to run {earlier}, this config is {fingerprint}; "
                "use another run_dir, or the config.yaml in it"
            )
        if not mark.exists():
            with _disk_errors(mark):
                mark.write_text(fingerprint + "\n")
        yield is_new


def _write_config(config: PretrainConfig, run_dir: Path) -> None:
    """Keep the resolved config; the world's path absolute, so that the run can be read from anywhere."""
    if config.world.path is not None:
        config = replace(config, world=replace(config.world, path=str(Path(config.world.path).absolute())))
    partial = run_dir / ".config.yaml.tmp"
    with _disk_errors(run_dir / "config.yaml"):
        configs.save(config, partial)
        os.replace(partial, run_dir / "config.yaml")


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """A disk that refuses a file, as one line."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); make room, and run again") from None


def _start_tracking(config: PretrainConfig, fingerprint: str, run_dir: Path) -> Tracker:
    """Create this training's MLflow run, or re-open the one of its earlier attempts."""
    note = run_dir / "tracking.json"
    earlier = json.loads(note.read_text())["run_id"] if note.exists() else None
    # Where a run is remembered is not part of what it is, and an address may hold a password.
    sections = {name: value for name, value in configs.to_dict(config).items() if name != "tracking"}
    params = {name: str(value) for name, value in configs.flatten(sections).items()}
    world = config.target_world
    tracker = Tracker.start(
        config.tracking,
        fingerprint=fingerprint,
        name=run_dir.name,
        params=params,
        tags={"hgscale.verb": "pretrain", "hgscale.run_dir": str(run_dir), "hgscale.world": world.digest},
        resume_run_id=earlier,
    )
    if earlier is None and tracker.run_id is not None:
        note.write_text(json.dumps({"run_id": tracker.run_id}) + "\n")
    source = config.world.path or f"generator {config.world.generator}"
    tracker.log_world(world.digest, world.num_nodes, world.num_edges, source)
    return tracker


@contextmanager
def _following(run_dir: Path, config: PretrainConfig, tracker: Tracker) -> Iterator[Progress]:
    """While the workers run, show what they log and ship it to MLflow."""
    stop = threading.Event()
    progress = Progress("pretrain", config.train.num_steps, config.train.global_batch)
    progress.say(_headline(config, run_dir))
    failures: list[HgscaleError] = []

    def follow() -> None:
        offset = Offset()
        num_attempts = len(_attempts(run_dir))
        while True:
            ended = stop.wait(POLL_S)
            for attempt in _attempts(run_dir)[num_attempts:]:
                progress.attempt(attempt)
                num_attempts += 1
            if (run_dir / "log.jsonl").exists():
                records, offset = read_new(run_dir / "log.jsonl", offset)
                progress.show(records)
                tracker.ship(records)
            if ended:
                return

    def follow_and_remember() -> None:
        try:
            follow()
        except HgscaleError as error:
            failures.append(error)

    thread = threading.Thread(target=follow_and_remember, name="follow-log", daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        stop.set()
        thread.join()
        progress.close()
    if failures:
        raise failures[0]


def _headline(config: PretrainConfig, run_dir: Path) -> str:
    """What is about to happen: starting workers takes a while, in which nothing else is shown."""
    world, samples = config.target_world, config.samples.num_samples
    few, many = config.cluster.min_workers, config.cluster.max_workers
    workers = f"{few}" if few == many else f"{few} to {many}"
    where = "in this process" if config.cluster.launcher == "none" else f"on {workers} Ray workers"
    return (
        f"{world.num_edges:,} edges over {world.num_nodes:,} nodes, "
        f"{'fresh samples' if samples is None else f'N = {samples:,} samples'}, "
        f"{config.train.num_steps:,} steps with {config.engine.name} {where}; {run_dir}"
    )


def _attempts(run_dir: Path) -> list[dict[str, Any]]:
    """What the workers have noted about their attempts; a line being written is read next time."""
    path = run_dir / "attempts.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
