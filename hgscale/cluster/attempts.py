"""As many attempts at one piece of work as it takes: restart after a loss, at the size that finds room; stop when told.

The work keeps its own place: each attempt goes on from the newest checkpoint in the run directory. Ray Train runs one
attempt at a time, at a fixed size; between two of them the cluster may have another size than before.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgscale.cluster.signals import asking_first
from hgscale.cluster.workers import Beside, ClusterConfig, LostError, cause, check_room, fit, has_room, ray_cluster
from hgscale.errors import RunError
from hgscale.train.supervise import Attempt, StoppedError, stuck_lines

POLL_S = 0.2
ROOM_POLL_S = 2.0


@dataclass(frozen=True)
class Work:
    """What a group of workers does, in one attempt or several.

    Attributes:
        function: called in each worker with ``arguments`` and ``attempt``; torch.distributed is ready when there are
            several.
        arguments: picklable.
        run_dir: of the work, on storage that all workers see.
        sizes: numbers of workers that can do it, ascending.
        prepare: called in one process with the number of workers, before they start, when something was kept.
        progress: a number that grows when something is kept for good; 0 before.
        beside: what the workers use besides themselves.
    """

    function: Callable[..., None]
    arguments: dict[str, Any]
    run_dir: Path
    sizes: Sequence[int]
    prepare: Callable[[int], None]
    progress: Callable[[], int]
    beside: Beside


def run_work(work: Work, config: ClusterConfig, say: Callable[[str], None]) -> None:
    """Do it, in as many attempts as it takes.

    Args:
        work: what.
        config: where, with how many workers, and how often it may fail.
        say: shows a line to who waits.

    Raises:
        ConfigError: if the cluster cannot hold the workers.
        RunError: if the work failed by its own fault, or workers were lost too often, or there is no room any more.
        KeyboardInterrupt: if this process was told to stop.
    """
    if config.launcher == "none":
        _attempt(work, config, 1, _here)
        return
    with ray_cluster(config.address, config.threads_per_worker, work.beside.store_bytes):
        check_room(config, work.beside, is_joined=True)
        losses, kept = 0, work.progress()
        while True:
            size = _size_with_room(work, config, say)
            if config.min_workers < config.max_workers:
                say(f"{size} workers")
            try:
                _attempt(work, config, size, _on_ray)
                return
            except StoppedError as stop:
                say(f"a worker was {stop}")
            except LostError as loss:
                losses = losses + 1 if work.progress() <= kept else 1
                if losses > config.max_failures:
                    raise RunError(
                        f"{loss}; {losses} attempts in a row ended so without a new checkpoint, "
                        f"cluster.max_failures={config.max_failures}: the same command goes on from the newest"
                    ) from loss
                say(f"{loss}; starting again from the newest checkpoint ({losses} of {config.max_failures})")
            kept = work.progress()


def _attempt(
    work: Work, config: ClusterConfig, size: int, run: Callable[[Work, ClusterConfig, int, Attempt], None]
) -> None:
    """One group from its start to its end.

    Raises:
        KeyboardInterrupt: if this process was told to stop; where the workers had the time, they left a checkpoint.
        StoppedError, LostError, other RunErrors: of the workers.
    """
    # Without Ray nobody would start again what is given up.
    attempt = Attempt.begin(work.run_dir, config.stuck_after_s if config.launcher == "ray" else None)
    asked = threading.Event()

    def ask() -> None:
        asked.set()
        try:
            attempt.ask_to_stop()
        except RunError:  # a full disk: no checkpoint could be written either
            raise KeyboardInterrupt from None

    try:
        with asking_first(ask, config.grace_s):
            run(work, config, size, attempt)
    except LostError as loss:
        if asked.is_set():
            raise KeyboardInterrupt from None
        lines = stuck_lines(attempt)
        if not lines:
            raise
        raise LostError("; ".join(lines)) from loss
    except StoppedError:
        if asked.is_set():
            raise KeyboardInterrupt from None
        raise


def _here(work: Work, config: ClusterConfig, size: int, attempt: Attempt) -> None:
    if work.progress():
        work.prepare(size)
    work.function(**work.arguments, attempt=attempt)


def _on_ray(work: Work, config: ClusterConfig, size: int, attempt: Attempt) -> None:
    """In a thread of its own, so that signals come to this one: Ray would put a handler in the place of ours."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            if work.progress():
                _prepare_on_ray(work.prepare, size)
            fit(work.function, work.arguments | {"attempt": attempt}, config, work.run_dir, size)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="group", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
    if failures:
        raise failures[0]


def _prepare_on_ray(prepare: Callable[[int], None], size: int) -> None:
    """Call a function in a process of the cluster, which loads what this one need not."""
    import ray

    def task() -> None:
        prepare(size)

    try:
        ray.get(ray.remote(num_cpus=0, max_retries=0, max_calls=1)(task).remote())  # max_calls: a process of its own
    except ray.exceptions.RayError as error:
        raise cause(error) from error


def _size_with_room(work: Work, config: ClusterConfig, say: Callable[[str], None]) -> int:
    """The largest number of workers that finds room now; waits for the smallest."""
    began, is_said = time.monotonic(), False
    while True:
        for size in reversed(work.sizes):
            if has_room(config, size, work.beside):
                return size
        if time.monotonic() - began > 60 * config.wait_min:
            raise RunError(
                f"no room for {work.sizes[0]} workers within cluster.wait_min={config.wait_min:g} minutes; "
                "the same command goes on from the newest checkpoint once there is"
            )
        if not is_said:
            is_said = True
            say(f"waiting for room for {work.sizes[0]} workers, at most {config.wait_min:g} minutes")
        time.sleep(ROOM_POLL_S)
