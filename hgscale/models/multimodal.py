"""Text encoder, vision encoder and VM-HAN as one module: from word pieces and pixels to relations.

Axes: r rows (hypergraphs), e entities and o objects of a row (padded), p pairs, k images and objects that are there,
t v widths of the features of text and vision, l word pieces, z width of a prior, c classes.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from hgscale.files import writing_folder
from hgscale.models.encoders import TextBatch, TextEncoder, VisionEncoder
from hgscale.models.vmhan import RelationBatch, Vmhan, VmhanOutput


@dataclass(frozen=True)
class ContextBatch:
    """Rows of a micro-batch, before the encoders. Node i < e is entity i, node e + j is object j."""

    text: TextBatch | None
    """Word pieces; None where their features are known."""
    mentions: Tensor | None
    """[r e t] features of a frozen text encoder."""
    sentence: Tensor | None
    """[r t]."""
    visual: Tensor | None
    """[k v] features of a frozen vision encoder, or [k 3 h w] pixels for another; None: text only."""
    slots: Tensor
    """[k 2] int64: row, and 0 for its image or 1 + j for its object j."""
    entity_mask: Tensor
    """[r e] bool."""
    image_mask: Tensor
    """[r] bool."""
    object_mask: Tensor
    """[r o] bool."""
    prior: Tensor | None
    """[r e z]."""
    pairs: Tensor
    """[p 3] int64: row, first, second."""
    labels: Tensor
    """[p] int64."""
    pair_weight: float
    """1 / pairs of the global batch."""
    row_weight: float
    """1 / rows of the global batch."""
    kl_scale: float
    """0 to 1."""

    def to(self, device: torch.device) -> "ContextBatch":
        """The same batch on another device."""
        return dataclasses.replace(self, **{name: _moved(value, device) for name, value in vars(self).items()})


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, TextBatch):
        return TextBatch(*(tensor.to(device, non_blocking=True) for tensor in value))
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


class Standardize(nn.Module):
    """Takes features of a frozen encoder to mean 0 and deviation 1 over the training split.

    They come with means that are large beside what tells them apart, which training would have to find out first.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Tensor) -> None:
        """features: [n w] of the training split."""
        super().__init__()
        self.register_buffer("mean", features.mean(dim=0))
        # Of one feature alone, or one that never varies, there is no deviation.
        deviation = features.std(dim=0, correction=0)
        self.register_buffer("scale", torch.where(deviation > 1e-6, deviation, 1.0).reciprocal())

    def forward(self, features: Tensor) -> Tensor:
        """[... w] -> [... w]."""
        return (features - self.mean) * self.scale


class RelationModel(nn.Module):
    """What is trained: VM-HAN, and those encoders that are not frozen."""

    def __init__(
        self, vmhan: Vmhan, text: TextEncoder | Standardize, vision: VisionEncoder | Standardize | None
    ) -> None:
        """``Standardize`` in the place of an encoder that is frozen, whose features come with the batch; no vision:
        nobody looks at images."""
        super().__init__()
        self.vmhan, self.text, self.vision = vmhan, text, vision

    def forward(self, batch: ContextBatch) -> VmhanOutput:
        """All pairs of a batch. The same modules are called whatever it holds, as ZeRO 3 needs it."""
        output: VmhanOutput = self.vmhan(self.encoded(batch))
        return output

    def encoded(self, batch: ContextBatch) -> RelationBatch:
        """The batch with features in the place of words and pixels."""
        if batch.text is not None:
            mentions, sentence = self.text(*batch.text)
        else:
            mentions, sentence = self.text(batch.mentions), self.text(batch.sentence)
        image, objects = self._visual(batch, mentions)
        return RelationBatch(
            mentions=mentions,
            sentence=sentence,
            entity_mask=batch.entity_mask,
            image=image,
            image_mask=batch.image_mask,
            objects=objects,
            object_mask=batch.object_mask,
            prior=batch.prior,
            pairs=batch.pairs,
            labels=batch.labels,
            pair_weight=batch.pair_weight,
            row_weight=batch.row_weight,
            kl_scale=batch.kl_scale,
        )

    def _visual(self, batch: ContextBatch, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Features of images [r v] and objects [r o v], 0 where there is none; None where nobody looks."""
        if self.vision is None:
            return None, None
        features = self.vision(batch.visual)
        num_rows, num_objects = batch.object_mask.shape
        places = like.new_zeros(num_rows, 1 + num_objects, features.shape[-1])
        places = places.index_put((batch.slots[:, 0], batch.slots[:, 1]), features.to(like.dtype))
        return places[:, 0], places[:, 1:]


class RelationLoss(nn.Module):
    """The loss of a micro-batch, as the engine wants it: its sum over micro-batches and ranks is the global batch's."""

    def __init__(self, model: RelationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: ContextBatch) -> Tensor:
        """-> scalar."""
        output: VmhanOutput = self.model(batch)
        return output.loss


def save_relation_model(model: RelationModel, labels: Sequence[str], directory: Path) -> None:
    """Write ``vmhan``, ``text`` and ``vision`` as transformers does, and ``labels.json``; whole or not at all.

    Of an encoder that is frozen what is kept is how its features are standardized.

    Raises:
        RunError: if the disk refuses.
    """
    disable_progress_bar()  # small files, written in no time; their bars would cut through ours
    with writing_folder(directory) as partial:
        model.vmhan.save_pretrained(partial / "vmhan")
        for name, encoder in (("text", model.text), ("vision", model.vision)):
            if isinstance(encoder, Standardize):
                (partial / name).mkdir()
                save_file(encoder.state_dict(), partial / name / "standardize.safetensors")
            elif encoder is not None:
                encoder.save_pretrained(partial / name)
        (partial / "labels.json").write_text(json.dumps(list(labels), indent=2) + "\n")
