"""Anybody's torch module as a model: what it must offer, the trial that checks it, and the rest, which is added here.

Axes: c contexts, s visible nodes, v nodes of the world.
"""

import difflib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgscale.config import refuse_ignored
from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph.structure import PAD, World
from hgscale.models.config import ADAPTED, ModelConfig
from hgscale.models.losses import ContextTensors, chunked_nll, hide_visible
from hgscale.plugins import FAILURES, imported

COMMON = ("hidden_size", "num_hidden_layers", "num_attention_heads", "activation_checkpointing")
"""The fields of ``ModelConfig`` that a module gets if its constructor names them."""


class Network(Protocol):
    """What a user's module must offer: two methods of a ``torch.nn.Module``.

    ``__init__(num_nodes, sizes, ...)``: V, and the sizes of edges, ascending. ``hidden_size``, ``num_hidden_layers``,
    ``num_attention_heads`` and ``activation_checkpointing`` are passed if they are among its parameters; all other
    parameters are set by ``model.config``.

    Everything else is added: visible nodes get probability 0, sizes have a law of their own, logits are computed in
    chunks that bound memory, and the module is saved and loaded.
    """

    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        """Logits of which node is hidden.

        Args:
            visible: [c s] int64, the visible nodes of each context, ascending, -1 behind them where a row has fewer; s
                is at least 1, and the answer must not depend on how many -1 there are.
            num_masked: [c] int64, how many nodes are hidden, at least 1.

        Returns:
            [c v] floating point.
        """


@dataclass(frozen=True)
class Origin:
    """How an adapted module was made: its import path, and its arguments beside ``num_nodes`` and ``sizes``."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """Nodes and sizes that a model is for."""

    num_nodes: int
    sizes: list[int]


class AdaptedModel(nn.Module):
    """A ``Network`` behind the face of ``SetEncoder``: ``nll``, ``log_probs``, ``size_logits``."""

    def __init__(self, network: nn.Module, num_nodes: int, sizes: Sequence[int], origin: Origin | None = None) -> None:
        """``origin`` is None for a module that is only asked, and never saved."""
        super().__init__()
        self.network = network
        self.origin = origin
        self.config = Known(num_nodes, list(sizes))
        self.num_nodes = num_nodes
        self.size_logits = nn.Parameter(torch.zeros(len(sizes)))

    def logits(self, num_masked: Tensor, visible: Tensor) -> Tensor:
        """num_masked [c], visible [c s] (PAD is negative, s may be 0) -> [c v], -inf on visible nodes."""
        shown = visible if visible.shape[1] else F.pad(visible, (0, 1), value=PAD)
        return hide_visible(self.network(shown, num_masked), visible)

    def nll(self, buckets: Sequence[ContextTensors], max_logits: int) -> Tensor:
        """Weighted cross-entropy of the hidden nodes of all buckets, summed.  -> scalar float32."""
        return torch.stack([chunked_nll(self, bucket.num_masked, bucket, max_logits) for bucket in buckets]).sum()

    def log_probs(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        """Log law of a hidden node.  visible [c s] in any order, num_masked [c] -> [c v] float64."""
        ascending = torch.where(visible < 0, self.num_nodes, visible).sort(dim=1).values
        shown = torch.where(ascending == self.num_nodes, PAD, ascending)
        return torch.log_softmax(self.logits(num_masked, shown).double(), dim=1)

    def save_pretrained(self, directory: Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        assert self.origin is not None
        directory.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_model(self, str(directory / "model.safetensors"), {"format": "pt"})
        about = {"model_type": ADAPTED.model_type, "name": self.origin.name, "arguments": dict(self.origin.arguments)}
        (directory / "config.json").write_text(json.dumps(about | vars(self.config), indent=2) + "\n")


def build(config: ModelConfig, world: World) -> AdaptedModel:
    """A fresh one for a world, see ``models.build``; a trial has shown that it keeps to ``Network``.

    Raises:
        ConfigError: naming the member of ``Network`` that does not.
    """
    cls = imported(config.name, "model.name")
    origin = Origin(config.name, _arguments(cls, config))
    model = _made(origin, world.num_nodes, world.distinct_sizes)
    _try(model, f"model.name={config.name}")
    return model


def load(directory: Path) -> AdaptedModel:
    """The inverse of ``save_pretrained``.

    Raises:
        ConfigError: if the class cannot be imported, or refuses its arguments.
        DataError: if it is not as it was when it was saved.
    """
    about = json.loads((directory / "config.json").read_text())
    model = _made(Origin(about["name"], about["arguments"]), about["num_nodes"], about["sizes"])
    try:
        safetensors.torch.load_model(model, directory / "model.safetensors")
    except RuntimeError:
        raise DataError(
            f"{directory}: its weights do not fit {about['name']}, which has changed since; put it back as it was"
        ) from None
    return model


def _arguments(cls: type, config: ModelConfig) -> dict[str, Any]:
    """What the constructor gets beside ``num_nodes`` and ``sizes``."""
    where = f"model.name={config.name}"
    if not issubclass(cls, nn.Module) or cls.forward is nn.Module.forward:
        raise ConfigError(f"{where} is no torch.nn.Module with forward(visible, num_masked); give it one")
    signature = inspect.signature(cls)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    declared = {name for name, p in signature.parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    missing = {"num_nodes", "sizes"} - declared
    if missing and not takes_any:
        raise ConfigError(f"{where}: __init__ takes no {min(missing)}; declare it as __init__(self, num_nodes, sizes)")
    refuse_ignored(config, [name for name in COMMON if name not in declared], "model", where)
    free = declared - {"num_nodes", "sizes", *COMMON}
    for name in config.config:
        if name in COMMON:
            raise ConfigError(f"model.config.{name}: set model.{name}")
        if name not in free and not takes_any:
            near = difflib.get_close_matches(name, free, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]}?" if near else "it takes none but num_nodes, sizes and the common ones"
            raise ConfigError(f"model.config.{name} is no argument of __init__ of {config.name}; {hint}")
    for name in free - config.config.keys():
        if signature.parameters[name].default is inspect.Parameter.empty:
            raise ConfigError(f"{where}: __init__ needs {name}; give it as model.config.{name}, or a default")
    return {name: getattr(config, name) for name in COMMON if name in declared} | config.config


def _made(origin: Origin, num_nodes: int, sizes: Sequence[int]) -> AdaptedModel:
    where = f"model.name={origin.name}"
    cls = imported(origin.name, "model.name")
    try:
        network = cls(num_nodes=num_nodes, sizes=tuple(sizes), **origin.arguments)
    except FAILURES as error:  # whatever the user's own code raises
        raise ConfigError(f"{where}: __init__ raised {_reason(error)}; change model.config, or the class") from None
    return AdaptedModel(network, num_nodes, sizes, origin)


@torch.no_grad()
def _try(model: AdaptedModel, where: str) -> None:
    """Ask for the law behind nothing, a node and two, once more with -1 added; raises ConfigError."""
    if not any(parameter.requires_grad for parameter in model.network.parameters()):
        raise ConfigError(f"{where}: has no parameters to train; register some in __init__")
    size, most = max(model.config.sizes), model.num_nodes - 1
    shown = [list(range(most - number + 1, most + 1)) for number in range(min(3, size, model.num_nodes))]
    width = max(1, len(shown) - 1)
    visible = torch.tensor([row + [PAD] * (width - len(row)) for row in shown])
    num_masked = torch.tensor([size - len(row) for row in shown])
    call = f"forward(visible {list(visible.shape)}, num_masked {list(num_masked.shape)})"
    model.eval()
    try:
        logits, padded = (model.network(F.pad(visible, (0, more), value=PAD), num_masked) for more in (0, 2))
    except FAILURES as error:  # whatever the user's own code raises
        raise ConfigError(f"{where}: {call} raised {_reason(error)}; change the class") from None
    model.train()
    wanted = [len(shown), model.num_nodes]
    if not isinstance(logits, Tensor) or list(logits.shape) != wanted or not logits.is_floating_point():
        got = f"{list(logits.shape)} {logits.dtype}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ConfigError(f"{where}: {call} returns {got}; logits {wanted} over nodes are wanted")
    for row, seen in enumerate(shown):
        left = [node for node in range(model.num_nodes) if node not in seen]
        if not bool(torch.isfinite(logits[row, left]).all()):
            behind = f"the visible nodes {seen}" if seen else "no visible node, a row of -1"
            raise ConfigError(f"{where}: forward returns a logit that is not finite behind {behind}; mask what is -1")
    # Float32 sums of other lengths differ in their last digits.
    if not torch.allclose(logits, padded, rtol=1e-3, atol=1e-4 * float(logits.abs().max())):
        raise ConfigError(f"{where}: forward returns other logits when visible has more -1; mask what is -1")


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
