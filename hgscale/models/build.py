"""Which model a run trains, how it is kept, and how the mathematics asks it for conditionals."""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from hgscale.errors import ConfigError, DataError
from hgscale.files import writing_folder
from hgscale.hypergraph.structure import World
from hgscale.models.adapter import AdaptedModel
from hgscale.models.config import ADAPTED, MODELS, TRANSFORMERS, ModelConfig
from hgscale.models.reference import OrderedModel
from hgscale.rng import key

_MAX_LOGITS = 1 << 22  # float64 logits held at once by a read-out


def build_model(config: ModelConfig, world: World, seed: int) -> nn.Module:
    """A freshly initialised model for the nodes and sizes of a world; its weights are a function of the seed.

    Raises:
        ConfigError: if ``model.config`` has a field that the model does not know, or no model comes out of it.
    """
    room: Any = import_module(config.kind().module)
    # Initialisation draws from torch's global generator: borrow it, and leave it as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(key(seed, "model")))
        model: nn.Module = room.build(config, world)
    return model


def save_model(model: nn.Module, directory: Path) -> None:
    """Write a model as transformers would, whole or not at all.

    Raises:
        RunError: if the disk refuses.
    """
    for left in directory.parent.glob(f".{directory.name}.*.part"):  # of a process that was killed
        shutil.rmtree(left)
    disable_progress_bar()  # one file is written in no time; its bar would cut through ours
    with writing_folder(directory) as folder:
        model.save_pretrained(folder)  # type: ignore[operator]


def load_model(directory: Path) -> nn.Module:
    """Load what ``save_model`` wrote.

    Raises:
        ConfigError: if it is a user's module that cannot be imported.
        DataError: if there is none, it is damaged, or it answers no conditionals.
    """
    if (directory / "vmhan").is_dir():
        raise DataError(
            f"{directory}: holds a fine-tuned model of relations, which knows no world; name a run of "
            "`hgscale pretrain`"
        )
    kinds = {kind.model_type: kind for kind in (ADAPTED, *(MODELS.get(name, "model.name") for name in MODELS))}
    try:
        model_type = json.loads((directory / "config.json").read_text())["model_type"]
        room: Any = import_module(kinds.get(model_type, TRANSFORMERS).module)
        model: nn.Module = room.load(directory)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError):
        raise DataError(
            f"{directory}: holds no whole trained model; run `hgscale pretrain` with this run_dir to its end"
        ) from None
    return model


class ModelConditionals:
    """A model as ``recovery.conditionals.Conditionals``: numpy in, float64 numpy out, gradients off."""

    def __init__(
        self, model: nn.Module, num_nodes: int | None = None, sizes: Sequence[int] | Mapping[int, float] | None = None
    ) -> None:
        """Ask a model.

        Args:
            model: one that ``build_model`` made or ``load_model`` loaded, and then nothing else is given; a module of
                your own, see ``models.adapter.Network``; or a masked language model of transformers, whose tokens are
                those of ``hypergraph.tokens``.
            num_nodes: V.
            sizes: the size of all edges, in a list; or the law of sizes, as {2: 0.4, 3: 0.6}.

        Raises:
            ConfigError: if ``sizes`` is no law.
        """
        self._law = None if sizes is None else _law(sizes)
        self.device = next(model.parameters()).device
        if num_nodes is not None and self._law is not None:
            adapt = OrderedModel if isinstance(model, PreTrainedModel) else AdaptedModel
            model = adapt(model, num_nodes, list(self._law)).to(self.device)
        self.model: Any = model.eval()
        known: Any = model.config
        self.num_nodes: int = known.num_nodes
        self.sizes: tuple[int, ...] = tuple(known.sizes)

    def size_law(self) -> np.ndarray:
        """[max_size + 1] float64: the law of the size head, or the one that was given."""
        law = np.zeros(max(self.sizes) + 1)
        if self._law is None:
            logits = self.model.size_logits.detach().double()
            law[list(self.sizes)] = torch.softmax(logits, dim=0).cpu().numpy()
        else:
            law[list(self.sizes)] = list(self._law.values())
        return law

    @torch.no_grad()
    def log_probs(self, visible: np.ndarray, num_masked: int) -> np.ndarray:
        """Log law of a hidden node.  visible [c s] -> [c v] float64."""
        rows = torch.as_tensor(np.ascontiguousarray(visible, dtype=np.int64), device=self.device)
        parts = []
        for chunk in torch.split(rows, max(1, _MAX_LOGITS // self.num_nodes)):
            hidden = torch.full((len(chunk),), num_masked, dtype=torch.int64, device=self.device)
            parts.append(self.model.log_probs(chunk, hidden).cpu().numpy())
        return np.concatenate(parts)


def _law(sizes: Sequence[int] | Mapping[int, float]) -> dict[int, float]:
    """Sizes, ascending, and their probabilities."""
    law = dict(sorted(sizes.items())) if isinstance(sizes, Mapping) else {int(size): 1.0 for size in sizes}
    if not law or min(law) < 1 or not abs(sum(law.values()) - 1) < 1e-6 or min(law.values()) < 0:
        raise ConfigError(f"sizes={sizes} is no law of sizes; give one size, as [2], or a law, as {{2: 0.4, 3: 0.6}}")
    return law
