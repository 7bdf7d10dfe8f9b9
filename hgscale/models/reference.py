"""Any masked language model of transformers as a reference: it sees an order, and reads ``[CLS] nodes [SEP]``.

The tokens are those of ``hypergraph.tokens``. The model's own head gives logits at every position; training is
cross-entropy over its whole vocabulary, as its authors would do it.

Axes: c rows, s visible nodes, n nodes of an edge, t targets, v nodes of the world.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from hgscale.config import refuse_ignored
from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import World
from hgscale.hypergraph.tokens import CLS_ID, MASK_ID, NUM_MARKS, PAD_ID, SEP_ID
from hgscale.models.config import MODELS, ModelConfig
from hgscale.models.losses import ContextTensors

_MARKS = {
    "pad_token_id": PAD_ID,
    "bos_token_id": CLS_ID,
    "cls_token_id": CLS_ID,
    "eos_token_id": SEP_ID,
    "sep_token_id": SEP_ID,
    "mask_token_id": MASK_ID,
}


class OrderedModel(nn.Module):
    """A masked language model behind the face of ``SetEncoder``: ``nll``, ``log_probs``, ``size_logits``."""

    def __init__(self, language_model: PreTrainedModel, num_nodes: int, sizes: list[int]) -> None:
        super().__init__()
        self.language_model = language_model
        self.config = language_model.config
        self.config.num_nodes, self.config.sizes = num_nodes, sizes
        self.num_nodes = num_nodes
        self.size_logits = nn.Parameter(torch.zeros(len(sizes)))

    def nll(self, buckets: Sequence[ContextTensors], max_logits: int) -> Tensor:
        """Weighted cross-entropy of buckets, each of rows of one size and one number hidden, summed."""
        return torch.stack([self._bucket_nll(bucket) for bucket in buckets]).sum()

    def _bucket_nll(self, bucket: ContextTensors) -> Tensor:
        assert bucket.visible_slots is not None
        assert bucket.target_slots is not None
        input_ids = _input_ids(bucket.visible, bucket.visible_slots, int(bucket.num_masked[0]))
        logits = self.language_model(input_ids=input_ids).logits.float()
        picked = logits[bucket.rows, bucket.target_slots + 1]
        return (bucket.weights * F.cross_entropy(picked, bucket.targets + NUM_MARKS, reduction="none")).sum()

    def log_probs(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        """Log law of a hidden node, renormalised over the nodes that are not visible: ``u [MASK]``, as the paper reads.

        visible [c s] without PAD, num_masked [c] all equal -> [c v] float64.
        """
        slots = torch.arange(visible.shape[1], device=visible.device).expand_as(visible)
        logits = self.language_model(input_ids=_input_ids(visible, slots, int(num_masked[0]))).logits
        row = logits[:, 1 + visible.shape[1], NUM_MARKS : NUM_MARKS + self.num_nodes].double()
        return torch.log_softmax(row.scatter(1, visible, -torch.inf), dim=1)

    def save_pretrained(self, directory: Any) -> None:
        """Save the language model; the size head goes into its config."""
        self.config.size_logits = self.size_logits.tolist()
        self.language_model.save_pretrained(directory)


def _input_ids(visible: Tensor, slots: Tensor, num_masked: int) -> Tensor:
    """[CLS], the visible nodes at their slots and masks elsewhere, [SEP].  [c s], [c s] -> [c n + 2]."""
    inner = visible.new_full((visible.shape[0], visible.shape[1] + num_masked), MASK_ID)
    inner = inner.scatter(1, slots, visible + NUM_MARKS)
    return F.pad(F.pad(inner, (1, 0), value=CLS_ID), (0, 1), value=SEP_ID)


def build_reference(
    name: str, shape: dict[str, Any], own: dict[str, Any], num_nodes: int, sizes: list[int]
) -> OrderedModel:
    """A randomly initialised masked language model of transformers, by its model type.

    Args:
        name: the model type, as in ``bert``.
        shape: fields of its config, passed on as far as it knows them.
        own: more fields of its config, all of which it must know.
        num_nodes: of the world.
        sizes: of the world's edges.

    Raises:
        ConfigError: if transformers has no such model, it has no masked-modelling head, or it cannot be built or read
            these edges with these fields.
    """
    where = f"model.name={name}"
    try:
        standard = AutoConfig.for_model(name)
    except ValueError:
        near = difflib.get_close_matches(name, [*MODELS, *MODEL_FOR_MASKED_LM_MAPPING_NAMES], n=1)
        hint = f"did you mean {near[0]}?" if near else "give one as in bert, set_encoder, or package.module:Class"
        raise ConfigError(f"{where}: transformers knows no such model type; {hint}") from None
    known = {*standard.to_dict(), *standard.attribute_map}
    for field in ("hidden_size", "num_hidden_layers"):
        if field not in known:
            raise ConfigError(f"{where}: its config has no {field} to set; choose another model, as bert")
    for field in own:
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"model.config.{field} is not a field of {name}; did you mean {near}?")
    vocabulary = num_nodes + NUM_MARKS
    asked = own.get("vocab_size", vocabulary)
    if isinstance(asked, int) and asked < vocabulary:
        raise ConfigError(
            f"model.config.vocab_size={asked} has no room for {num_nodes} nodes and {NUM_MARKS} marks; "
            f"give at least {vocabulary}, or leave it out"
        )
    given = {"vocab_size": vocabulary} | _MARKS | shape
    fields = {field: value for field, value in given.items() if field in known} | own
    try:
        language_model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(name, **fields))
        _try_longest(language_model, num_nodes, max(sizes))
    except Exception as error:  # what these fields make transformers raise is of many kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(
            f"{where}: not a masked language model, or one that cannot read edges of {max(sizes)} nodes ({reason}); "
            "change model.config, or model.name"
        ) from None
    return OrderedModel(language_model, num_nodes, sizes)


@torch.no_grad()
def _try_longest(language_model: PreTrainedModel, num_nodes: int, size: int) -> None:
    """Read the longest row there is: whether positions, marks and logits fit is seen here and not in the first step."""
    visible = torch.arange(num_nodes - size + 1, num_nodes)[None]
    input_ids = _input_ids(visible, torch.arange(size - 1)[None], num_masked=1)
    logits = language_model.eval()(input_ids=input_ids).logits
    if logits.shape[:2] != input_ids.shape:
        raise ValueError(f"logits are {list(logits.shape)} for {list(input_ids.shape)} tokens")
    language_model.train()


def build(config: ModelConfig, world: World) -> OrderedModel:
    """A fresh one for a world, see ``models.build``.

    Raises:
        ConfigError: as ``build_reference``, or if it ignores a field that is set.
    """
    shape = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": 4 * config.hidden_size,
        "hidden_dim": 4 * config.hidden_size,  # what DistilBERT calls it
    }
    model = build_reference(config.name, shape, config.config, world.num_nodes, list(world.distinct_sizes))
    if not {"num_attention_heads"} & {*model.config.to_dict(), *model.config.attribute_map}:
        refuse_ignored(config, ["num_attention_heads"], "model", f"model.name={config.name}")
    if config.activation_checkpointing:
        if not model.language_model.supports_gradient_checkpointing:
            raise ConfigError(
                f"model.activation_checkpointing: {config.name} of transformers has none; set it to false"
            )
        model.language_model.gradient_checkpointing_enable()
    return model


def load(directory: Path) -> OrderedModel:
    """The inverse of ``OrderedModel.save_pretrained``."""
    language_model = AutoModelForMaskedLM.from_pretrained(directory)
    model = OrderedModel(language_model, language_model.config.num_nodes, list(language_model.config.sizes))
    model.size_logits.data = torch.tensor(language_model.config.size_logits)
    return model
