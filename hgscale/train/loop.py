"""Step, evaluate, log, stop. Knows neither the task nor the engine."""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from hgscale.data.stream import WORD
from hgscale.rng import key
from hgscale.train.config import TrainConfig
from hgscale.train.engine import Engine
from hgscale.train.supervise import LOOK_S, Attempt, StoppedError, Watchdog, listening


@dataclass(frozen=True)
class Place:
    """Where a training stands between two steps.

    Attributes:
        step: steps done.
        losses: of the global batches of the steps since the last line of the log.
        ids_hash: of the samples of these steps, in [0, 2**64).
    """

    step: int = 0
    losses: tuple[float, ...] = ()
    ids_hash: int = 0


class Trainee(Protocol):
    """What the loop asks of what it trains. Every method is called by every rank at the same step."""

    def micro_batches(self, step: int) -> Sequence[Any]:
        """This rank's share of a step, ready for the engine."""

    def ids_hash(self) -> int:
        """Hash in [0, 2**64) of the samples in the micro-batches given since the last call; hashes of ranks add up."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Metrics of the current weights; empty on all ranks but 0."""

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Keep metrics, numbers or text; called on rank 0 only."""

    def checkpoint(self, place: Place) -> None:
        """Commit a checkpoint of a place."""


def run(task: Trainee, engine: Engine, config: TrainConfig, start: Place, attempt: Attempt | None = None) -> None:
    """Train from a place to the end.

    Args:
        task: what is trained.
        engine: makes the steps.
        config: how many.
        start: the place of the checkpoint that the engine has loaded, or the beginning.
        attempt: who may stop this, and how long a step may take. None: nobody, and as long as it likes.

    Raises:
        StoppedError: it was told to stop, and has committed a checkpoint of where it stands.
        SupersededError: another attempt has begun.
    """
    engine.module.train()
    since_log = _SinceLog(start, engine)
    meter = _Meter(start.step, config.global_batch)
    watchdog = Watchdog(attempt, engine.rank)
    with listening() as told, watchdog.watching():
        stopping = _Stopping(attempt, told, engine, start.step)
        for step in range(start.step, config.num_steps):
            with watchdog.step(step):
                # Dropout is a function of (seed, step, rank): a resumed run repeats it with no state to save.
                torch.manual_seed(int(key(config.seed, f"dropout/{engine.rank}", step) >> 1))
                waited = time.perf_counter()
                batches = task.micro_batches(step)
                meter.wait_s += time.perf_counter() - waited
                result = engine.step(batches, config.learning_rate_at(step))
                since_log.losses.append(result.loss.detach())
                done = step + 1
                if done % config.log_every == 0 or done == config.num_steps:
                    place = since_log.close(done, task.ids_hash())
                    if engine.rank == 0:
                        metrics = {"loss": _mean(place.losses), "learning_rate": config.learning_rate_at(step)}
                        metrics |= {"grad_norm": float(result.grad_norm)} | meter.read(done)
                        task.log(done, metrics | {"ids_hash": f"{place.ids_hash:016x}"})
            if config.eval_every and done % config.eval_every == 0 and done < config.num_steps:
                engine.module.eval()
                metrics = task.evaluate(done)
                engine.module.train()
                if engine.rank == 0:
                    task.log(done, metrics)
                engine.barrier()  # the others wait here, and not in a step: only steps are watched
            is_due = done % config.checkpoint_interval == 0 or done == config.num_steps
            if is_due:
                with watchdog.step(step):
                    task.checkpoint(Place(done))
            if done < config.num_steps and stopping.is_agreed(done):
                if not is_due:
                    task.checkpoint(since_log.read(done, task.ids_hash()))
                raise StoppedError(f"told to stop; the checkpoint of step {done} is where it goes on")


def _mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses)


class _SinceLog:
    """Losses and ids since the last line of the log, exactly: a run cut anywhere writes the lines of one that was not.

    Losses are summed over ranks step by step, so that it does not matter when; their mean is taken in double precision.
    """

    def __init__(self, start: Place, engine: Engine) -> None:
        self.engine, self.before = engine, start
        self.losses: list[torch.Tensor] = []

    def read(self, step: int, ids_hash: int) -> Place:
        """The place after ``step`` steps, given this rank's hash since the start or the last line. Collective."""
        losses = self.before.losses
        if self.losses:
            losses += tuple(self.engine.reduce_sum(torch.stack(self.losses)).tolist())
        return Place(step, losses, (self.before.ids_hash + _over_ranks(ids_hash, self.engine)) % WORD)

    def close(self, step: int, ids_hash: int) -> Place:
        """The same at a line of the log, after which counting starts anew."""
        place = self.read(step, ids_hash)
        self.before = Place(step)
        self.losses.clear()
        return place


class _Stopping:
    """Whether to stop, agreed between ranks: one small collective about every LOOK_S seconds."""

    def __init__(self, attempt: Attempt | None, told: threading.Event, engine: Engine, step: int) -> None:
        self.attempt, self.told, self.engine = attempt, told, engine
        self.last, self.next, self.time = step, step + 1, time.monotonic()

    def is_agreed(self, step: int) -> bool:
        """Whether any rank, or the driver, was told to stop. All ranks get the same answer at the same step."""
        if self.attempt is None or step < self.next:
            return False
        told, steps = self.told.is_set(), 0
        if self.engine.rank == 0:
            told = self.attempt.is_told_to_stop() or told
            now = time.monotonic()
            # As many steps as took LOOK_S lately, but not many more than before: the first ones are slow.
            steps = round(LOOK_S * (step - self.last) / max(now - self.time, 1e-9))
            steps = max(1, min(steps, 8 * (step - self.last)))
            self.time = now
        answers, steps = self.engine.reduce_sum(torch.tensor([int(told), steps], device=self.engine.device)).tolist()
        self.last, self.next = step, step + steps
        return bool(answers > 0)


def _over_ranks(word: int, engine: Engine) -> int:
    """The sum of 64-bit words over ranks, modulo 2**64."""
    halves = torch.tensor([word >> 32, word & 0xFFFFFFFF], device=engine.device)  # whose sums do not overflow
    high, low = engine.reduce_sum(halves).tolist()
    return int((high << 32) + low) % WORD


class _Meter:
    """Samples per second and the share of time spent waiting for batches, since the last reading."""

    def __init__(self, start_step: int, batch: int) -> None:
        self.batch, self.step, self.time, self.wait_s = batch, start_step, time.perf_counter(), 0.0

    def read(self, step: int) -> dict[str, float]:
        now = time.perf_counter()
        elapsed = max(now - self.time, 1e-9)
        rates = {"samples_per_s": (step - self.step) * self.batch / elapsed, "wait_frac": self.wait_s / elapsed}
        self.step, self.time, self.wait_s = step, now, 0.0
        return rates
