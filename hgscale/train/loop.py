"""Step, evaluate, log, stop. Knows neither the task nor the engine."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from hgscale.errors import ConfigError
from hgscale.rng import key
from hgscale.train.engine import Engine


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how large and how fast."""

    num_steps: int = 2000
    """Optimizer steps."""

    global_batch: int = 8192
    """Samples per optimizer step over all workers. The same samples in the same order for any number of workers."""

    micro_batch: int | None = None
    """Samples per forward pass on one worker; gradients of several are accumulated. Null: the worker's whole share."""

    learning_rate: float = 3e-3
    """Peak learning rate of AdamW."""

    warmup_frac: float = 0.1
    """Share of the steps over which the learning rate rises linearly from 0."""

    decay: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls to 0 after warm-up. It decides the result: errors halve in the last quarter."""

    seed: int = 0
    """Seed of initial weights, dropout and the order of epochs."""

    log_every: int = 50
    """Steps between two lines of the log."""

    eval_every: int | None = None
    """Steps between two read-outs during training. Null: only at the end."""

    checkpoint_every: int | None = None
    """Steps between two checkpoints, rounded up to a multiple of log_every. Null: ten in a run."""

    def __post_init__(self) -> None:
        positive = (
            "num_steps",
            "global_batch",
            "micro_batch",
            "learning_rate",
            "log_every",
            "eval_every",
            "checkpoint_every",
        )
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"train.{name}={value} is not positive; give a value above 0")
        if not 0 <= self.warmup_frac < 1:
            raise ConfigError(f"train.warmup_frac={self.warmup_frac} is outside [0, 1); 0.1 is a good start")

    def num_micro(self, world_size: int) -> int:
        """Micro-batches per step on each of ``world_size`` workers.

        Raises:
            ConfigError: when the batch does not divide, naming the nearest that does.
        """
        micro = self.micro_batch or -(-self.global_batch // world_size)
        unit = micro * world_size
        if self.global_batch % unit:
            raise ConfigError(
                f"train.global_batch={self.global_batch} is not a multiple of micro_batch x world_size = "
                f"{micro} x {world_size} = {unit}; use {-(-self.global_batch // unit) * unit}"
            )
        return self.global_batch // unit

    @property
    def checkpoint_interval(self) -> int:
        # A checkpoint between two lines of the log would cut a mean in two: the resumed log would differ.
        wanted = self.checkpoint_every or self.num_steps // 10
        return -(-max(1, wanted) // self.log_every) * self.log_every

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of one step: a pure function, so nothing about it needs saving."""
        warmup = self.warmup_frac * self.num_steps
        if step + 1 < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step + 1 - warmup) / max(1.0, self.num_steps + 1 - warmup)
        if self.decay == "constant":
            return self.learning_rate
        if self.decay == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (1 - done)


class Task(Protocol):
    """What the loop asks of a task. Every method is called by every rank at the same step."""

    def micro_batches(self, step: int) -> Sequence[Any]:
        """This rank's share of a step, ready for the engine."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Metrics of the current weights; empty on all ranks but 0."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Keep metrics; called on rank 0 only."""

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
            if engine.rank == 0:
                metrics = {"loss": float(loss), "learning_rate": config.learning_rate_at(step)}
                task.log(done, metrics | {"grad_norm": float(result.grad_norm)} | meter.read(done))
            losses.clear()
        if config.eval_every and done % config.eval_every == 0 and done < config.num_steps:
            engine.module.eval()
            metrics = task.evaluate(done)
            engine.module.train()
            if engine.rank == 0:
                task.log(done, metrics)
        if done % config.checkpoint_interval == 0 or done == config.num_steps:
            task.checkpoint(done)


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
