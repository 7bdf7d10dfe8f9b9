"""The configuration that DeepSpeed is given: our fields, and a user's own JSON where the two agree."""

import json
from collections.abc import Mapping
from typing import Any

from hgscale import config as configs
from hgscale.errors import ConfigError
from hgscale.train.config import EngineConfig, read_json

DEFAULT_BUCKET = 500_000_000  # elements; DeepSpeed's own default


def deepspeed_settings(
    config: EngineConfig, *, micro_batch: int, num_micro: int, world_size: int, num_parameters: int, on_cpu: bool
) -> dict[str, Any]:
    """The configuration given to DeepSpeed: our fields, then the user's file, then defaults for what neither says.

    Raises:
        ConfigError: when the file is missing or broken, or contradicts our fields; names the file's key and our field.
    """
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": num_micro,
        "train_batch_size": micro_batch * num_micro * world_size,
        "gradient_clipping": config.clip_norm if config.zero_stage else 0.0,  # at stage 0 the engine clips
        "bf16": {"enabled": config.precision == "bf16" and config.zero_stage > 0},
        # Without ZeRO, DeepSpeed's bf16 keeps its fp32 master weights where nobody can read them: autocast over fp32
        # weights instead, as plain torch does.
        "torch_autocast": {"enabled": config.precision == "bf16" and config.zero_stage == 0, "dtype": "bfloat16"},
        "zero_optimization": {"stage": config.zero_stage},
    }
    defaults: dict[str, Any] = {
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False}},
        "checkpoint": {"tag_validation": "Ignore"},
        "zero_force_ds_cpu_optimizer": False,  # offload with our AdamW: theirs needs a compiler
        # Buckets no larger than the model: they are allocated anew at each step.
        "zero_optimization": {"reduce_bucket_size": max(2, min(num_parameters, DEFAULT_BUCKET))},
    }
    if config.precision == "bf16":
        # A sum of many micro batches and ranks in bf16 would depend on how the batch was cut.
        defaults |= {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    if on_cpu:
        # Nothing to overlap with, and no fragmentation to avoid: one all-reduce of the bucket is the quickest.
        defaults["zero_optimization"] |= {"overlap_comm": False, "contiguous_gradients": False, "reduce_scatter": False}
    theirs = _read_settings(config.deepspeed_config) if config.deepspeed_config is not None else {}
    _refuse_contradictions(config, theirs, ours)
    return _merged(_merged(defaults, theirs), ours)


def compiled_parts(config: EngineConfig) -> tuple[str, ...]:
    """What a user's file asks for that DeepSpeed compiles when it starts, by key; nothing of ours does.

    Raises:
        ConfigError: when the file is missing or broken.
    """
    if config.deepspeed_config is None:
        return ()
    theirs = configs.flatten(_read_settings(config.deepspeed_config))
    swapped = [key for key, value in theirs.items() if key.endswith(".device") and value == "nvme"]
    fused = [key for key, value in theirs.items() if key == "zero_force_ds_cpu_optimizer" and value]
    own = [head for head in ("sparse_attention", "zenflow") if any(f"{key}.".find(f"{head}.") >= 0 for key in theirs)]
    return (*swapped, *fused, *own)


def _read_settings(path: str) -> dict[str, Any]:
    """A user's DeepSpeed JSON; keys of value "auto" (the Hugging Face form) say nothing and are left out."""
    return _without_auto(read_json(path))


def _without_auto(tree: Mapping[str, Any]) -> dict[str, Any]:
    inner = {key: _without_auto(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in inner.items() if value != "auto"}


def _refuse_contradictions(config: EngineConfig, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Compare a user's settings with the fields that decide the same thing."""
    where = f"engine.deepspeed_config={config.deepspeed_config}"
    precision, stage = f"engine.precision={config.precision}", f"engine.zero_stage={config.zero_stage}"
    batch = "the batch of this run (train.global_batch, train.micro_batch and the number of workers)"
    # DeepSpeed's key -> the value that agrees, and the field that says so.
    wanted: dict[str, tuple[Any, str]] = {
        "train_micro_batch_size_per_gpu": (ours["train_micro_batch_size_per_gpu"], batch),
        "gradient_accumulation_steps": (ours["gradient_accumulation_steps"], batch),
        "train_batch_size": (ours["train_batch_size"], batch),
        "gradient_clipping": (config.clip_norm, f"engine.clip_norm={config.clip_norm}"),
        "zero_optimization.stage": (config.zero_stage, stage),
        "bf16.enabled": (ours["bf16"]["enabled"], f"{precision}, {stage}"),
        "bfloat16.enabled": (ours["bf16"]["enabled"], f"{precision}, {stage}"),  # DeepSpeed's older name
        "fp16.enabled": (False, precision),
        "torch_autocast.enabled": (ours["torch_autocast"]["enabled"], f"{precision}, {stage}"),
        "gradient_allreduce_op": ("mean", "the engine, which makes DeepSpeed's mean over workers a sum"),
        "managed_gradient_accumulation": (True, "the engine, which steps after each micro batch"),
    }
    for section, fields in (
        ("optimizer", "engine.weight_decay, engine.beta1, engine.beta2, engine.eps"),
        ("scheduler", "train.learning_rate, train.warmup_frac, train.decay"),
    ):
        if section in theirs:
            raise ConfigError(f"{where}: has a section {section}, which is set by {fields}; remove it from the file")
    for section in ("zero_optimization", "bf16", "bfloat16", "fp16", "torch_autocast"):
        if not isinstance(theirs.get(section, {}), dict):
            raise ConfigError(f"{where}: {section}={theirs[section]} is not a section; write {{...}}, or leave it out")
    for key, value in configs.flatten(theirs).items():
        if key in wanted and value != wanted[key][0]:
            agreeing, field = wanted[key]
            raise ConfigError(
                f"{where}: {key}={json.dumps(value)} contradicts {field}, which wants {json.dumps(agreeing)}; "
                "change one of the two, or leave the key out"
            )


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, the second over the first."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result
