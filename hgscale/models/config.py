"""The choice of a network. Knows no torch, so that who only plans runs need not load it."""

from dataclasses import dataclass, field
from typing import Any

from hgscale.errors import ConfigError

SET_ENCODER_FIELDS = ("intermediate_size", "initializer_range", "embedding_size")
"""What ``ModelConfig.config`` may hold for our encoder. ``embedding_size``: width of the tables of nodes, that of the
model if it is not given; a narrower one is widened by a matrix before the blocks, and narrowed behind them."""

MAX_LOGITS = 1 << 26
"""Logits of a micro-batch that training has alive at once; beyond them, chunks are computed and recomputed."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. Width and depth mean the same for every model; ``config`` holds what only one of them has."""

    name: str = "set_encoder"
    """set_encoder (ours: an edge is a set, no positions), or the model type of any masked language model of
    transformers, as in bert."""

    hidden_size: int = 128
    """Width."""

    num_hidden_layers: int = 2
    """Depth."""

    num_attention_heads: int = 4
    """Attention heads; divides the width."""

    activation_checkpointing: bool = False
    """Compute activations twice in place of keeping them."""

    config: dict[str, Any] = field(default_factory=dict)
    """More fields of the model's transformers config, passed through as they are."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)} is not positive; give at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"model.hidden_size={self.hidden_size} is not a multiple of "
                f"model.num_attention_heads={self.num_attention_heads}; change one of them"
            )
        if self.name == "set_encoder":
            self._check_set_encoder()

    def _check_set_encoder(self) -> None:
        for name, value in self.config.items():
            if name not in SET_ENCODER_FIELDS:
                raise ConfigError(
                    f"model.config.{name} is not a field of set_encoder; its fields are {', '.join(SET_ENCODER_FIELDS)}"
                )
            if not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"model.config.{name}={value!r} is not a positive number; give one above 0")
