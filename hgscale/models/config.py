"""The choice of a network. Imports no torch, so that planning runs is light."""

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from hgscale.config import NAMED, READS, refuse_ignored
from hgscale.errors import ConfigError
from hgscale.plugins import Table, identified, is_path

MAX_LOGITS = 1 << 26
"""Logits of a micro-batch that training has alive at once; beyond them, chunks are computed and recomputed."""


@dataclass(frozen=True, kw_only=True)
class ModelKind:
    """What is known of a model before it is built.

    Attributes:
        module: where ``build(config, world) -> nn.Module`` and ``load(directory) -> nn.Module`` are.
        model_type: what ``config.json`` calls it in the folder of a trained model; None: any other name.
        fields: what ``ModelConfig.config`` may hold, positive numbers; None: only building the model tells.
        sees_order: the order of an edge's nodes, or sets.
        planned: whether the cost model knows its size, see ``pretrain.cost``.
        node_embedding: whether it keeps a vector per node in ``node_embedding``, which fine-tuning can be shown.
    """

    module: str
    model_type: str | None = None
    fields: tuple[str, ...] | None = None
    sees_order: bool = False
    planned: bool = False
    node_embedding: bool = False


TRANSFORMERS = ModelKind(module="hgscale.models.reference", sees_order=True)
"""Any masked language model of transformers, by its model type."""

ADAPTED = ModelKind(module="hgscale.models.adapter", model_type="hgscale_adapted")
"""A user's module, by its import path."""


def _adapted(path: str, found: Any) -> ModelKind:
    if not isinstance(found, type) or not callable(getattr(found, "forward", None)):
        raise ConfigError(
            f"model.name={path} is no class with forward(visible, num_masked); name a torch.nn.Module, as "
            "models.adapter.Network describes it"
        )
    return ADAPTED


MODELS: Table[ModelKind] = Table(
    "model",
    {
        # embedding_size: width of the tables of nodes, hidden_size if it is not given; a narrower one is widened by a
        # matrix before the blocks, and narrowed behind them.
        "set_encoder": ModelKind(
            module="hgscale.models.encoder",
            model_type="hgscale_set_encoder",
            fields=("intermediate_size", "initializer_range", "embedding_size"),
            planned=True,
            node_embedding=True,
        )
    },
    _adapted,
)
"""The models by name; a short name that is not here is a model type of transformers."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. Width and depth mean the same for every model; ``config`` holds what only one of them has."""

    name: str = "set_encoder"
    """set_encoder (ours: an edge is a set, no positions); the model type of any masked language model of
    transformers, as in bert; or the import path of a torch module, as my_package.models:MyEncoder."""

    hidden_size: int = 128
    """Width."""

    num_hidden_layers: int = 2
    """Depth."""

    num_attention_heads: int = 4
    """Attention heads; divides the width."""

    activation_checkpointing: bool = False
    """Compute activations twice in place of keeping them."""

    config: dict[str, Any] = field(default_factory=dict)
    """More fields of the model's transformers config, or arguments of your module; passed through as they are."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)} is not positive; give at least 1")
        if is_path(self.name):
            return  # what else there is to check is told when it is built
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"model.hidden_size={self.hidden_size} is not a multiple of "
                f"model.num_attention_heads={self.num_attention_heads}; change one of them"
            )
        if (fields := self.kind().fields) is None:
            return
        for name, value in self.config.items():
            if name not in fields:
                raise ConfigError(
                    f"model.config.{name} is not a field of {self.name}; its fields are {', '.join(fields)}"
                )
            if not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"model.config.{name}={value!r} is not a positive number; give one above 0")

    def kind(self) -> ModelKind:
        """What is known of the model.

        Raises:
            ConfigError: if ``name`` is an import path at which no module's class is found.
        """
        known = self.name in MODELS or is_path(self.name)
        return MODELS.get(self.name, "model.name") if known else TRANSFORMERS

    def decides(self) -> dict[str, Any]:
        """What of it decides numbers, for a fingerprint: all fields, and the source of a user's module."""
        return dataclasses.asdict(self) | {"name": identified(self.name, "model.name")}


@dataclass(frozen=True, kw_only=True)
class VmhanConfig:
    """The variational multimodal hypergraph attention network, and what of it is left out."""

    hidden_size: int = 256
    """Width of nodes and hyperedges."""

    num_layers: int = 1
    """Rounds of attention, each from nodes to hyperedges and back."""

    num_heads: int = 4
    """Attention heads; divides the width."""

    dropout: float = 0.1
    """Share of values dropped in training, behind each attention and in the classifier."""

    variational: bool = True
    """Nodes and hyperedges are Gaussians. False: they are their means, and nothing is paid for information."""

    structure: Literal["hypergraph", "pairwise"] = "hypergraph"
    """hypergraph: typed hyperedges. pairwise: an edge for every two nodes in their place."""

    products: bool = True
    """Whether the feature of a hyperedge holds the products of its nodes beside their mean."""

    images: bool = True
    """Whether the whole image is a node."""

    objects: bool = True
    """Whether the objects of the image are nodes. Those that are themselves in a pair always are."""

    top_objects: int = 3
    """Objects kept of each image: the first so many."""

    pairs: Literal["together", "one_by_one"] = "together"
    """together: all entities of a context are nodes of one hypergraph, which scores all its pairs. one_by_one: a
    hypergraph for each pair, with no other entities."""

    reconstruct: Literal["features", "incidence"] = "features"
    """What the drawn nodes have to give back: their features, or which of them are in which hyperedge."""

    weight_classification: float = 1.0
    """Weight of the cross-entropy, nats per pair."""

    weight_reconstruction: float = 0.1
    """Weight of the reconstruction, per row: squared error of a value of h, or nats per node and hyperedge."""

    weight_kl: float = 1e-4
    """Weight of the divergence from N(0, I), nats per node and per hyperedge, once it is warmed up. At 0.01 what the
    nodes say is given up before a hard relation is learned."""

    kl_warmup_frac: float = 0.2
    """Share of the steps over which ``weight_kl`` rises from 0."""

    init_from: str | None = field(default=None, metadata=READS)
    """Run directory of a ``pretrain`` run whose node embeddings are shown to entities of the same name."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)} is not positive; give at least 1")
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"model.hidden_size={self.hidden_size} is not a multiple of model.num_heads={self.num_heads}; "
                "change one of them"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout={self.dropout} is not a share below 1; give one in [0, 1)")
        if not 0 <= self.kl_warmup_frac <= 1:
            raise ConfigError(f"model.kl_warmup_frac={self.kl_warmup_frac} is not a share; give one in [0, 1]")
        for name in ("top_objects", "weight_classification", "weight_reconstruction", "weight_kl"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"model.{name}={getattr(self, name)} is negative; give 0 or more")
        if not self.variational:
            refuse_ignored(self, ("weight_kl", "kl_warmup_frac"), "model", "model.variational=false")
        if not self.objects:
            refuse_ignored(self, ("top_objects",), "model", "model.objects=false")
        if not self.weight_reconstruction:
            refuse_ignored(self, ("reconstruct",), "model", "model.weight_reconstruction=0")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A text or vision encoder of transformers, and what of it is trained."""

    path: str = field(metadata=NAMED)
    """Name on the hub, local directory, or package:NAME/FOLDER for a folder inside an installed Python package."""

    tuning: Literal["full", "frozen", "last", "lora"] = "full"
    """What is trained. full: all; frozen: nothing, so that features are computed once and kept; last: the last
    num_tuned_layers; lora: matrices of low rank added to every linear layer."""

    num_tuned_layers: int = 2
    """Layers that tuning=last trains, with what stands behind them."""

    lora_rank: int = 8
    """Rank of the matrices that tuning=lora adds; they are scaled by 2."""

    learning_rate: float = 5e-5
    """Peak, of this encoder's trained parameters; over the steps it follows train.learning_rate."""

    pool: Literal["mean", "first"] = "mean"
    """Sentence vector of a text: mean over its word pieces, or the first of them, as [CLS]."""

    mention: Literal["mean", "start"] = "mean"
    """Vector of a mention: mean over its word pieces, or what stands at its start: its opening mark, if it has one."""

    max_length: int = 128
    """Word pieces of a text, special ones among them; what is beyond is cut off."""

    markers: bool = True
    """Set marks around every mention of a text. Two pieces of the vocabulary, so that no new embedding is learned."""

    opening: str = "{"
    """Mark before a mention. Tweets are full of @ and #, and next to none has a brace."""

    closing: str = "}"
    """Mark behind a mention."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("encoder.path is empty; give a local directory, or a name on the hub")
        for name in ("num_tuned_layers", "lora_rank"):
            if getattr(self, name) < 1:
                raise ConfigError(f"encoder.{name}={getattr(self, name)} is not positive; give at least 1")
        if not self.learning_rate > 0:
            raise ConfigError(
                f"encoder.learning_rate={self.learning_rate} is not positive; tuning=frozen trains nothing"
            )
        if self.max_length < 8:
            raise ConfigError(f"encoder.max_length={self.max_length} has no room for a text; give at least 8")
        for name, tuning in (("num_tuned_layers", "last"), ("lora_rank", "lora")):
            if self.tuning != tuning:
                refuse_ignored(self, (name,), "encoder", f"encoder.tuning={self.tuning}")
        if self.tuning == "frozen":
            refuse_ignored(self, ("learning_rate",), "encoder", "encoder.tuning=frozen")
        if not self.markers:
            refuse_ignored(self, ("opening", "closing"), "encoder", "encoder.markers=false")

    def with_absolute_path(self) -> "EncoderConfig":
        """With the absolute path of a local directory: a worker's working directory is another."""
        return replace(self, path=str(Path(self.path).absolute())) if Path(self.path).is_dir() else self
