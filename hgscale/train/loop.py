"""Step, evaluate, log, stop. Knows neither the task nor the engine."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from hgscale.rng import key
from hgscale.train.config import TrainConfig
from hgscale.train.engine import Engine


class Task(Protocol):
    """What the loop asks of a task. Every method is called by every rank at the same step."""

    def micro_batches(self, step: int) -> Sequence[Any]:
        """This rank's share of a step, ready for the engine."""

    def ids_hash(self) -> int:
        """Hash in [0, 2**64) of the samples in the micro-batches given since the last call; hashes of ranks add up."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Metrics of the current weights; empty on all ranks but 0."""

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Keep metrics, numbers or text; called on rank 0 only."""

    def checkpoint(self, step: int) -> None:
        """Commit a checkpoint after ``step`` steps."""


def run(task: Task, engine: Engine, config: TrainConfig, start_step: int) -> None:
    """Train from ``start_step`` to the end."""
    engine.module.train()
    losses: list[torch.Tensor] = []
    meter = _Meter(start_step, config.global_batch)
    for step in range(start_step, config.num_steps):
        # Dropout is a function of (seed, step, rank): a resumed run repeats it with no state to save.
        torch.manual_seed(int(key(config.seed, f"dropout/{engine.rank}", step) >> 1))
        waited = time.perf_counter()
        batches = task.micro_batches(step)
        meter.wait_s += time.perf_counter() - waited
        result = engine.step(batches, config.learning_rate_at(step))
        losses.append(result.loss.detach())
        done = step + 1
        if done % config.log_every == 0 or done == config.num_steps:
            loss = engine.reduce_sum(torch.stack(losses).mean())
            ids_hash = _over_ranks(task.ids_hash(), engine)
            if engine.rank == 0:
                metrics = {"loss": float(loss), "learning_rate": config.learning_rate_at(step)}
                metrics |= {"grad_norm": float(result.grad_norm)} | meter.read(done)
                task.log(done, metrics | {"ids_hash": ids_hash})
            losses.clear()
        if config.eval_every and done % config.eval_every == 0 and done < config.num_steps:
            engine.module.eval()
            metrics = task.evaluate(done)
            engine.module.train()
            if engine.rank == 0:
                task.log(done, metrics)
        if done % config.checkpoint_interval == 0 or done == config.num_steps:
            task.checkpoint(done)


def _over_ranks(word: int, engine: Engine) -> str:
    """The sum of 64-bit words over ranks, modulo 2**64, as 16 hex digits: text, since a double would round it."""
    halves = torch.tensor([word >> 32, word & 0xFFFFFFFF], device=engine.device)  # whose sums do not overflow
    high, low = engine.reduce_sum(halves).tolist()
    return f"{((high << 32) + low) % 2**64:016x}"


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
