"""Exact masked cross-entropy, with logits only where something is hidden, in chunks that bound memory.

Axes: c contexts, s visible nodes, t targets, d width, v nodes of the world.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hgscale.models.config import MAX_LOGITS


@dataclass(frozen=True)
class ContextTensors:
    """One bucket of contexts on a device; see ``data.masking.Contexts`` for the fields.

    Shapes: visible [c s], num_masked [c], rows [t], targets [t], weights [t], visible_slots [c s], target_slots [t].
    """

    visible: Tensor
    num_masked: Tensor
    rows: Tensor
    targets: Tensor
    weights: Tensor
    visible_slots: Tensor | None = None
    target_slots: Tensor | None = None

    def to(self, device: torch.device) -> "ContextTensors":
        """The same bucket on another device."""
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device, non_blocking=True) for name, value in present.items() if value is not None}
        return ContextTensors(**moved)


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass takes: buckets, samples of each size [max_size + 1], 1 / samples of the global batch."""

    buckets: Sequence[ContextTensors]
    size_counts: Tensor
    scale: float


class MaskedLoss(nn.Module):
    """Micro-batch -> its share of the global batch's loss: nats per sample of the masked nodes and of the size.

    Shares add up: the sum over micro-batches and ranks is the loss of the global batch, whatever the split.
    """

    def __init__(self, model: nn.Module, max_logits: int = MAX_LOGITS) -> None:
        """``max_logits``: most logits alive at once; beyond it, chunks of contexts are computed and recomputed."""
        super().__init__()
        self.model = model
        self.max_logits = max_logits

    def forward(self, batch: MicroBatch) -> Tensor:
        """-> scalar float32."""
        nodes: Tensor = self.model.nll(batch.buckets, self.max_logits)  # type: ignore[operator]
        return (nodes + size_nll(self.model, batch.size_counts)) * batch.scale


class Decoder(nn.Module):
    """Hidden state -> logits over nodes, -inf on visible ones: an edge is a set, so a visible node is not hidden.

    The table is used by all chunks of one call of the module, not by calls of ``linear``: where ZeRO 3 shares out the
    weights, it is put together once in each pass, and not once for each chunk.
    """

    def __init__(self, hidden_size: int, num_nodes: int) -> None:
        super().__init__()
        self.num_nodes = num_nodes
        self.linear = nn.Linear(hidden_size, num_nodes)

    def forward(self, hidden: Tensor, bucket: ContextTensors, max_logits: int) -> Tensor:
        """``chunked_nll`` of a bucket.  hidden [c d] -> scalar float32."""
        return chunked_nll(self, hidden, bucket, max_logits)

    def logits(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """hidden [c d], visible [c s] (PAD is negative) -> [c v]."""
        return hide_visible(F.linear(hidden, self.linear.weight, self.linear.bias), visible)


def hide_visible(logits: Tensor, visible: Tensor) -> Tensor:
    """Logits [c v], -inf on the visible nodes [c s] (PAD is negative)."""
    # Added, not set: a PAD adds 0 to some node, and gradients pass as if it were not there.
    added = torch.zeros(visible.shape, dtype=logits.dtype, device=logits.device)
    return logits.scatter_add(1, visible.clamp(min=0), added.masked_fill(visible >= 0, -torch.inf))


class Decodes(Protocol):
    """Whose logits ``chunked_nll`` computes."""

    @property
    def num_nodes(self) -> int:
        """v."""

    def logits(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """What it holds of each context [c ...], visible [c s] -> [c v], -inf on visible nodes."""


def size_nll(model: nn.Module, size_counts: Tensor) -> Tensor:
    """Cross-entropy of the sizes under the size head, summed over samples; 0 where all edges have one size."""
    counts = size_counts[model.config.sizes]  # type: ignore[union-attr,index]
    return -(counts * torch.log_softmax(model.size_logits.float(), dim=0)).sum()  # type: ignore[arg-type]


def chunked_nll(decode: Decodes, hidden: Tensor, bucket: ContextTensors, max_logits: int) -> Tensor:
    """Weighted cross-entropy of a bucket, summed.

    Args:
        decode: whose logits are meant.
        hidden: [c ...], passed on to ``decode``.
        bucket: whose rows, targets and weights say what is hidden behind which context.
        max_logits: more logits than this are computed chunk by chunk, and again in the backward pass.
    """
    num_rows = hidden.shape[0]
    width = max(1, max_logits // decode.num_nodes)
    if num_rows <= width:
        return _nll(decode, hidden, bucket.visible, bucket.rows, bucket.targets, bucket.weights)
    total = torch.zeros((), device=hidden.device)
    for start in range(0, num_rows, width):
        inside = (bucket.rows >= start) & (bucket.rows < start + width)
        total = total + checkpoint(
            _nll,
            decode,
            hidden[start : start + width],
            bucket.visible[start : start + width],
            bucket.rows[inside] - start,
            bucket.targets[inside],
            bucket.weights[inside],
            use_reentrant=False,
        )
    return total


def _nll(decode: Decodes, hidden: Tensor, visible: Tensor, rows: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    logits = decode.logits(hidden, visible).float()
    row_weights = torch.zeros(hidden.shape[0], device=hidden.device).index_add(0, rows, weights)
    return (row_weights * torch.logsumexp(logits, dim=1)).sum() - (weights * logits[rows, targets]).sum()
