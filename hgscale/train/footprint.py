"""Bytes that the state of a training takes, by engine and stage, whatever is trained. Knows no torch.

Axes: P parameters, T of them trained, W workers.
"""

from dataclasses import dataclass

from hgscale.train.config import EngineConfig
from hgscale.train.deepspeed_json import DEFAULT_BUCKET

_BUCKET_BYTES = {"fp32": (4, 4, 6, 10), "bf16": (4, 6, 6, 13)}
"""Bytes that DeepSpeed's stages 0 to 3 hold for each element of a bucket while gradients are reduced: gradients not
yet shared out, a flat copy, and one in the type that is sent (counted on CPU: tests/bench/bench_plan.py)."""

MAX_LIVE = 1_000_000_000
"""Weights that ZeRO 3 keeps whole at once, beside the largest module: DeepSpeed's stage3_max_live_parameters."""


@dataclass(frozen=True)
class State:
    """Bytes on one worker.

    Attributes:
        weights, gradients, optimizer: there all the time, or as good as.
        buffers: there while gradients are reduced: when the way back ends, or all along it where a bucket does not
            hold all of them.
    """

    weights: float
    gradients: float
    optimizer: float
    buffers: float


def is_autocast(engine: EngineConfig) -> bool:
    """bf16 by autocast over fp32 weights: the torch engine, and DeepSpeed without ZeRO."""
    return engine.precision == "bf16" and (engine.name == "torch" or engine.zero_stage == 0)


def state(engine: EngineConfig, num_workers: int, parameters: int, trained: int, largest: int) -> State:
    """What an engine keeps.

    weights      4 P; 2 P in bf16 under ZeRO 1 to 3; stage 3 keeps its 1/W, and whole what is in use
    gradients    4 T; 4 T / W from stage 2
    optimizer    8 T, AdamW's means; 12 T / W under ZeRO 1 to 3, with fp32 master weights
    buffers      4 to 13 bytes for each element of a bucket, of which there are T or DeepSpeed's 5e8

    Args:
        engine: who makes the steps.
        num_workers: W.
        parameters: P.
        trained: T.
        largest: parameters of the largest module.
    """
    zero = engine.zero_stage if engine.name == "deepspeed" else 0
    size = 2 if engine.precision == "bf16" and zero else 4
    whole = min(parameters, MAX_LIVE + largest)
    return State(
        weights=size * (parameters / num_workers + whole if zero == 3 else parameters),
        gradients=4 * trained / (num_workers if zero >= 2 else 1),
        optimizer=12 * trained / num_workers if zero else 8 * trained,
        buffers=0 if engine.name == "torch" else min(trained, DEFAULT_BUCKET) * _BUCKET_BYTES[engine.precision][zero],
    )


def checkpoint_bytes(engine: EngineConfig, parameters: int, trained: int) -> float:
    """Bytes of one checkpoint, over all workers.

    Weights in fp32 and AdamW's two means; under ZeRO 1 to 3 weights that are not trained as the forward pass has them,
    and stages 1 and 2 keep those of the forward pass that are trained besides.
    """
    zero = engine.zero_stage if engine.name == "deepspeed" else 0
    size = 2 if engine.precision == "bf16" and zero else 4
    beside = size if zero in (1, 2) else 0
    return (12.0 + beside) * trained + size * (parameters - trained)
