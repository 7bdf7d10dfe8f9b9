"""The cells of a study on Ray: small ones in warm workers, one process each; big ones as Ray Train groups."""

import dataclasses
import functools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgscale import config as configs
from hgscale.cluster.pool import Limits, Outcome, Work, run_all
from hgscale.cluster.workers import ClusterConfig, fit, ray_cluster
from hgscale.errors import ConfigError
from hgscale.plugins import imported
from hgscale.train.protocol import Task

WATCH_S = 0.1
GROUP_START_S = 180.0  # that a group may take to start, and to end after its time limit, before it is killed
LAST_WORDS = "last-words"


@dataclass(frozen=True, kw_only=True)
class CellConfig:
    """What one cell may use. Nothing here decides a number."""

    num_workers: int = 1
    """Workers of a cell: 1 trains in a process that stays warm for the next cell, more in a Ray Train group each."""

    cpus_per_worker: float = 1
    """Cores that Ray sets aside for each worker."""

    use_gpu: bool = False
    """Give each worker one GPU, and train on it."""

    threads_per_worker: int = 1
    """Torch threads of each worker."""

    memory_gib: float | None = None
    """Memory of one worker's process, at which its cell is ended. Null: no limit but the machine's."""

    time_limit_min: float | None = None
    """Minutes after which a try of a cell is ended. Null: never."""

    retries: int = 1
    """Further tries of a cell that failed, before it is FAILED."""

    def __post_init__(self) -> None:
        for name in ("num_workers", "cpus_per_worker", "threads_per_worker", "memory_gib", "time_limit_min"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"cell.{name}={value} is not positive; give a value above 0, or leave it out")
        if self.retries < 0:
            raise ConfigError(f"cell.retries={self.retries} is negative; 0 tries each cell once")

    @property
    def group(self) -> ClusterConfig:
        """The same for one worker group."""
        return ClusterConfig(
            num_workers=self.num_workers,
            cpus_per_worker=self.cpus_per_worker,
            use_gpu=self.use_gpu,
            threads_per_worker=self.threads_per_worker,
        )


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Where the cells run, and how many at once."""

    address: str | None = None
    """Ray cluster to join, as "auto" or "ray://head:10001"; null: $RAY_ADDRESS, else a private one on this machine."""

    max_parallel: int | None = None
    """Cells at once. Null: as many as the cluster's cores and GPUs hold."""

    def __post_init__(self) -> None:
        if self.max_parallel is not None and self.max_parallel < 1:
            raise ConfigError(f"cluster.max_parallel={self.max_parallel} is not positive; give at least 1, or null")


@dataclass(frozen=True)
class CellJob:
    """A cell to run.

    Attributes:
        key: its fingerprint.
        task: what is trained.
        work: import path of the function that trains it, a ``train.protocol.TrainWorker``.
        run_dir: where, on storage that all workers see; holds ``summary.json`` afterwards.
    """

    key: str
    task: Task
    work: str
    run_dir: Path


def run_cells(
    jobs: Sequence[CellJob],
    cell: CellConfig,
    parallel: ParallelConfig,
    *,
    on_end: Callable[[Outcome], None],
    on_tick: Callable[[int], None],
) -> None:
    """Run cells to their ends, as many at once as resources allow. A cell begun earlier goes on where it was.

    Args:
        jobs: the cells.
        cell: what each may use.
        parallel: where.
        on_end: called with each cell's outcome; ``key`` is the cell's.
        on_tick: called about twice a second with the number of cells that are running.

    Raises:
        ConfigError: if the cluster cannot be joined, or cannot hold one cell.
    """
    with ray_cluster(parallel.address, cell.threads_per_worker):
        import ray

        limits = _limits(cell, parallel, ray.cluster_resources())
        works = [
            Work(job.key, {"task": job.task, "work": job.work, "run_dir": job.run_dir, "cell": cell}) for job in jobs
        ]
        warm = functools.partial(_warm, frozenset(job.work for job in jobs))
        run_all(_run_cell, works, limits, warm=warm, reason_of_death=_last_words, on_end=on_end, on_tick=on_tick)


def check_cell_room(cell: CellConfig, parallel: ParallelConfig) -> None:
    """Refuse a cell larger than this machine, before a private cluster is started on it.

    Raises:
        ConfigError: naming the most workers that fit. A cluster to join, and GPUs, are asked once it is joined.
    """
    if not (parallel.address or os.environ.get("RAY_ADDRESS")):
        _limits(dataclasses.replace(cell, use_gpu=False), parallel, {"CPU": float(os.cpu_count() or 1)})


def _limits(cell: CellConfig, parallel: ParallelConfig, resources: dict[str, float]) -> Limits:
    """How many cells fit at once; a group's own workers take its resources, not the worker that starts it."""
    rooms = []
    for name, each in (("CPU", cell.cpus_per_worker), ("GPU", 1.0 if cell.use_gpu else 0.0)):
        needed, there = each * cell.num_workers, resources.get(name, 0.0)
        if needed > there:
            raise ConfigError(
                f"cell.num_workers={cell.num_workers} needs {needed:g} {name}s, but there are {there:g}; "
                f"use at most {int(there // each)} workers"
            )
        if needed:
            rooms.append(int(there // needed))
    is_group = cell.num_workers > 1
    return Limits(
        cpus=0 if is_group else cell.cpus_per_worker,
        gpus=1 if cell.use_gpu and not is_group else 0,
        num_parallel=min(rooms if parallel.max_parallel is None else [*rooms, parallel.max_parallel]),
        time_limit_s=_seconds(cell.time_limit_min, GROUP_START_S if is_group else 0.0),
        retries=cell.retries,
    )


def _seconds(minutes: float | None, more_s: float = 0.0) -> float | None:
    return None if minutes is None else 60 * minutes + more_s


# In a worker


def _warm(works: Iterable[str]) -> None:
    """Load what cells need."""
    for work in works:
        imported(work, "work")


def _run_cell(task: Task, work: str, run_dir: Path, cell: CellConfig) -> None:
    """Train one cell, or finish what an earlier try began; of its run directory keep what is small."""
    if (run_dir / "summary.json").exists():
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / LAST_WORDS).unlink(missing_ok=True)
    configs.save(task, run_dir / "config.yaml")
    arguments: dict[str, Any] = {
        "task": task,
        "work": work,
        "run_dir": run_dir,
        "threads": cell.threads_per_worker,
        "device": cell.group.device,
        "memory_gib": cell.memory_gib,
    }
    if cell.num_workers == 1:
        _train(**arguments)
    else:
        # Its workers watch the clock themselves: a group whose starter is killed keeps its room (Ray's cleaner of
        # groups asks the dashboard, which a private cluster has not), one whose workers end is taken down in order.
        fit(
            _train,
            arguments | {"time_limit_s": _seconds(cell.time_limit_min)},
            cell.group,
            run_dir,
            cell.num_workers,
        )
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)


def _train(
    task: Task,
    work: str,
    run_dir: Path,
    memory_gib: float | None = None,
    time_limit_s: float | None = None,
    **arguments: Any,
) -> None:
    with _limited(run_dir, memory_gib, time_limit_s):
        imported(work, "work")(task=task, run_dir=run_dir, figure=False, **arguments)


@contextmanager
def _limited(run_dir: Path, memory_gib: float | None, time_limit_s: float | None) -> Iterator[None]:
    """End this process when it holds or takes more, leaving a line that says so.

    The kernel's own limits count address space, of which Ray and torch reserve many times what they use.
    """
    if memory_gib is None and time_limit_s is None:
        yield
        return
    import psutil

    done, started = threading.Event(), time.monotonic()

    def complaint() -> str | None:
        held = psutil.Process().memory_info().rss / 2**30
        if memory_gib is not None and held > memory_gib:
            return f"ended at {held:.2f} GiB, over cell.memory_gib={memory_gib:g}: out of memory"
        if time_limit_s is not None and time.monotonic() - started > time_limit_s:
            return f"ended after the time limit of {time_limit_s:g} s"
        return None

    def watch() -> None:
        while not done.wait(WATCH_S):
            if words := complaint():
                (run_dir / LAST_WORDS).write_text(words)
                os._exit(137)

    thread = threading.Thread(target=watch, name="limits", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _last_words(work: Work) -> str | None:
    """Here: why a worker ended itself."""
    path = Path(work.arguments["run_dir"]) / LAST_WORDS
    if not path.exists():
        return None
    words = path.read_text()
    path.unlink()
    return words
