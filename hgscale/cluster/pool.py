"""Warm workers: processes that stay, and take one piece of work after another; what dies or hangs is replaced."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hgscale.cluster.workers import cause
from hgscale.config import runs_home
from hgscale.errors import ConfigError, HgscaleError, RunError

TICK_S = 0.5


@dataclass(frozen=True)
class Work:
    """One call of the pool's function.

    Attributes:
        key: tells it from the others.
        arguments: of the function, picklable.
    """

    key: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a work ended for good.

    Attributes:
        key: of the work.
        error: why it failed; None if it did not.
        attempts: how often it was tried.
        seconds: that the last try took.
    """

    key: str
    error: HgscaleError | None
    attempts: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one worker takes from the cluster, and what it may cost.

    Attributes:
        cpus, gpus: that Ray sets aside for it.
        num_parallel: workers at once.
        time_limit_s: after which a work is ended with its worker; None: never.
        retries: further tries of a work that failed, unless its error says that the request is wrong.
    """

    cpus: float
    gpus: float
    num_parallel: int
    time_limit_s: float | None
    retries: int


def run_all(
    function: Callable[..., None],
    works: Iterable[Work],
    limits: Limits,
    *,
    warm: Callable[[], None],
    reason_of_death: Callable[[Work], str | None],
    on_end: Callable[[Outcome], None],
    on_tick: Callable[[int], None],
) -> None:
    """Call a function for every work, on a Ray that is there, as many at once as ``limits`` allow.

    Args:
        function: called in a worker with the arguments of a work.
        works: in the order in which they are begun.
        limits: of the workers.
        warm: called once in each new worker before its first work, outside the time limit.
        reason_of_death: what a worker has left behind about why it ended itself during a work.
        on_end: called here with each outcome.
        on_tick: called here about twice a second with the number of works in workers.
    """
    pool = _Pool(function, limits, warm, reason_of_death)
    pool.waiting.extend((work, 1) for work in works)
    try:
        while pool.waiting or pool.running:
            pool.assign()
            for outcome in pool.collect():
                on_end(outcome)
            on_tick(len(pool.running))
    finally:
        pool.close()


@dataclass(frozen=True)
class _Running:
    worker: Any
    work: Work
    attempt: int
    since: float


class _Pool:
    """Workers by what they are doing. A worker is idle, running, or gone."""

    def __init__(
        self,
        function: Callable[..., None],
        limits: Limits,
        warm: Callable[[], None],
        reason_of_death: Callable[[Work], str | None],
    ) -> None:
        import ray

        self.ray, self.limits, self.reason_of_death = ray, limits, reason_of_death
        self.function, self.warm = ray.put(function), warm
        self.actor = ray.remote(num_cpus=limits.cpus, num_gpus=limits.gpus, max_restarts=0)(_Worker)
        self.waiting: deque[tuple[Work, int]] = deque()
        self.starting: dict[Any, Any] = {}
        self.idle: list[Any] = []
        self.running: dict[Any, _Running] = {}

    def assign(self) -> None:
        """Give waiting works to idle workers, and start workers where there are too few."""
        wanted = min(self.limits.num_parallel, len(self.waiting) + len(self.running))
        while len(self.starting) + len(self.idle) + len(self.running) < wanted:
            worker = self.ray.remote(num_cpus=self.limits.cpus, num_gpus=self.limits.gpus, max_restarts=0)(
                _Worker
            ).remote(str(runs_home()))
            self.starting[worker.call.remote(self.warm, {})] = worker
        while self.idle and self.waiting:
            work, attempt = self.waiting.popleft()
            worker = self.idle.pop()
            answer = worker.call.remote(self.function, work.arguments)
            self.running[answer] = _Running(worker, work, attempt, time.monotonic())

    def collect(self) -> list[Outcome]:
        """Wait for a tick at most, and say which works ended for good."""
        answers = [*self.starting, *self.running]
        ready, _ = self.ray.wait(answers, num_returns=1, timeout=TICK_S)
        outcomes = [self._ended(answer) for answer in ready if answer in self.running]
        for answer in ready:
            if answer in self.starting:
                self._started(answer)
        outcomes += [self._overdue(answer) for answer in list(self.running) if self._is_overdue(answer)]
        return [outcome for outcome in outcomes if outcome is not None]

    def _started(self, answer: Any) -> None:
        worker = self.starting.pop(answer)
        try:
            self.ray.get(answer)
        except Exception as error:  # no work's fault, and the next worker would fare no better
            raise cause(error) from error
        self.idle.append(worker)

    def _ended(self, answer: Any) -> Outcome | None:
        running = self.running.pop(answer)
        try:
            self.ray.get(answer)
        except self.ray.exceptions.RayActorError:
            words = self.reason_of_death(running.work) or "its process died (killed, or out of memory)"
            return self._judged(running, RunError(words))
        except Exception as error:  # whatever a work raised, in Ray's wrapping
            self.idle.append(running.worker)
            last_words = self.reason_of_death(running.work)  # of a worker that this one had started
            return self._judged(running, RunError(last_words) if last_words else cause(error))
        self.idle.append(running.worker)
        return self._judged(running, None)

    def _is_overdue(self, answer: Any) -> bool:
        limit = self.limits.time_limit_s
        return limit is not None and time.monotonic() - self.running[answer].since > limit

    def _overdue(self, answer: Any) -> Outcome | None:
        running = self.running.pop(answer)
        self.ray.kill(running.worker)
        return self._judged(running, RunError(f"ended after the time limit of {self.limits.time_limit_s:g} s"))

    def _judged(self, running: _Running, error: HgscaleError | None) -> Outcome | None:
        """The outcome, or None where there is another try."""
        if error is not None and error.exit_code != ConfigError.exit_code and running.attempt <= self.limits.retries:
            self.waiting.appendleft((running.work, running.attempt + 1))
            return None
        return Outcome(running.work.key, error, running.attempt, time.monotonic() - running.since)

    def close(self) -> None:
        """End all workers, busy or not."""
        for worker in [*self.starting.values(), *self.idle, *(running.worker for running in self.running.values())]:
            self.ray.kill(worker)


class _Worker:
    """A process that calls what it is given."""

    def __init__(self, home: str) -> None:
        os.environ["HGSCALE_HOME"] = home  # its working directory may be another than its caller's

    def call(self, function: Callable[..., None], arguments: dict[str, Any]) -> None:
        function(**arguments)
