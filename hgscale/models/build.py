"""Which model a run trains, how it is kept, and how the mathematics asks it for conditionals."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers.utils.logging import disable_progress_bar

from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph.structure import World
from hgscale.models.config import ModelConfig
from hgscale.models.encoder import SetEncoder, SetEncoderConfig
from hgscale.models.reference import OrderedModel, build_reference, load_reference
from hgscale.rng import key

_MAX_LOGITS = 1 << 22  # float64 logits held at once by a read-out


def build_model(config: ModelConfig, world: World, seed: int) -> nn.Module:
    """A freshly initialised model for the nodes and sizes of a world; its weights are a function of the seed.

    Raises:
        ConfigError: if ``model.config`` has a field that the model does not know, or no model comes out of it.
    """
    build = _build_set_encoder if config.name == "set_encoder" else _build_reference
    # Initialisation draws from torch's global generator: borrow it, and leave it as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(key(seed, "model")))
        return build(config, world)


def _build_set_encoder(config: ModelConfig, world: World) -> SetEncoder:
    return SetEncoder(
        SetEncoderConfig(
            num_nodes=world.num_nodes,
            sizes=world.distinct_sizes,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            activation_checkpointing=config.activation_checkpointing,
            **config.config,
        )
    )


def _build_reference(config: ModelConfig, world: World) -> OrderedModel:
    shape = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": 4 * config.hidden_size,
        "hidden_dim": 4 * config.hidden_size,  # what DistilBERT calls it
    }
    model = build_reference(config.name, shape, config.config, world.num_nodes, list(world.distinct_sizes))
    if config.activation_checkpointing:
        if not model.language_model.supports_gradient_checkpointing:
            raise ConfigError(
                f"model.activation_checkpointing: {config.name} of transformers has none; set it to false"
            )
        model.language_model.gradient_checkpointing_enable()
    return model


def save_model(model: nn.Module, directory: Path) -> None:
    """Write a model as transformers would, under a temporary name first."""
    partial = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    disable_progress_bar()  # one file is written in no time; its bar would cut through ours
    model.save_pretrained(partial)  # type: ignore[operator]
    if directory.exists():
        shutil.rmtree(directory)
    partial.replace(directory)


def load_model(directory: Path) -> nn.Module:
    """Load what ``save_model`` wrote.

    Raises:
        DataError: if there is none, or it is damaged.
    """
    try:
        model_type = json.loads((directory / "config.json").read_text())["model_type"]
        if model_type == SetEncoderConfig.model_type:
            return SetEncoder.from_pretrained(directory)
        return load_reference(directory)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError):
        raise DataError(
            f"{directory}: holds no whole trained model; run `hgscale pretrain` with this run_dir to its end"
        ) from None


class ModelConditionals:
    """A trained model as ``recovery.conditionals.Conditionals``: numpy in, float64 numpy out, gradients off."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.num_nodes: int = model.config.num_nodes  # type: ignore[union-attr,assignment]
        self.sizes: tuple[int, ...] = tuple(model.config.sizes)  # type: ignore[union-attr,arg-type]

    def size_law(self) -> np.ndarray:
        """[max_size + 1] float64: the size head's law."""
        logits = self.model.size_logits.detach().double()  # type: ignore[operator]
        law = np.zeros(max(self.sizes) + 1)
        law[list(self.sizes)] = torch.softmax(logits, dim=0).cpu().numpy()
        return law

    @torch.no_grad()
    def log_probs(self, visible: np.ndarray, num_masked: int) -> np.ndarray:
        """Log law of a hidden node.  visible [c s] -> [c v] float64."""
        rows = torch.as_tensor(np.ascontiguousarray(visible, dtype=np.int64), device=self.device)
        parts = []
        for chunk in rows.split(max(1, _MAX_LOGITS // self.num_nodes)):
            hidden = torch.full((len(chunk),), num_masked, dtype=torch.int64, device=self.device)
            parts.append(self.model.log_probs(chunk, hidden).cpu().numpy())  # type: ignore[operator]
        return np.concatenate(parts)
