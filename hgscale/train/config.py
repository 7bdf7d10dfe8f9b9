"""How long a training is, and who makes its steps. Knows no torch, so that who only plans runs need not load it."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hgscale.config import READS, refuse_ignored
from hgscale.errors import ConfigError

_LOOKS = ("log_every", "eval_every", "checkpoint_every")


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
    """Steps between two lines of the log; the loss of a line, as ``final_loss``, is the mean since the last."""

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

    def decides(self) -> dict[str, Any]:
        """What decides numbers, for a fingerprint: not how often a run is logged, looked at and saved."""
        return {name: value for name, value in asdict(self).items() if name not in _LOOKS}

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


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Who makes the optimizer steps, and how."""

    name: Literal["deepspeed", "torch"] = "deepspeed"
    """deepspeed shares optimizer state, gradients and weights among the workers; torch keeps all of it on each."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed shares out nothing (0), optimizer state (1), also gradients (2), weights too (3)."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: with ZeRO 1 to 3, bf16 weights beside fp32 master weights; at stage 0 and in torch, autocast over fp32
    weights."""

    clip_norm: float = 1.0
    """Largest global norm of the gradient; larger ones are scaled down to it. 0 never scales."""

    weight_decay: float = 0.0
    """AdamW's decoupled decay, of matrices only: biases, norms and embeddings have none."""

    beta1: float = 0.9
    """AdamW's decay of the mean of the gradient."""

    beta2: float = 0.95
    """AdamW's decay of the mean of the squared gradient. 0.999 remembers for longer than rare contexts can wait."""

    eps: float = 1e-8
    """AdamW's guard against division by zero."""

    deepspeed_config: str | None = field(default=None, metadata=READS)
    """Path of a DeepSpeed JSON of your own, for what has no field here. What contradicts a field here is refused."""

    def __post_init__(self) -> None:
        choices = {"name": ("deepspeed", "torch"), "zero_stage": (0, 1, 2, 3), "precision": ("fp32", "bf16")}
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(f"engine.{name}={value!r} is unknown; choose one of {', '.join(map(str, allowed))}")
        for name in ("clip_norm", "weight_decay", "eps"):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise ConfigError(f"engine.{name}={value} is not a finite number >= 0")
        for name in ("beta1", "beta2"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ConfigError(f"engine.{name}={value} is outside [0, 1)")
        if self.name == "torch":
            refuse_ignored(self, ("zero_stage", "deepspeed_config"), "engine", "engine.name=torch")

    def decides(self) -> dict[str, Any]:
        """What decides numbers, for a fingerprint: a DeepSpeed JSON counts by its content, not by where it lies.

        Raises:
            ConfigError: if that file cannot be read.
        """
        fields = asdict(self)
        if self.deepspeed_config is not None:
            fields["deepspeed_config"] = read_json(self.deepspeed_config)
        return fields


def read_json(path: str) -> dict[str, Any]:
    """A user's DeepSpeed JSON.

    Raises:
        ConfigError: if it cannot be read, or holds no object.
    """
    try:
        settings = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"engine.deepspeed_config={path}: not readable as JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"engine.deepspeed_config={path}: holds a {type(settings).__name__}; a JSON object is wanted")
    return settings
