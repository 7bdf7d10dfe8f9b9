"""What a fine-tuning of VM-HAN is: its config, what it refuses, and its fingerprint. Knows no torch until asked."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from hgscale import config as configs
from hgscale.config import refuse_ignored
from hgscale.data.stream import Stream
from hgscale.errors import ConfigError
from hgscale.finetune.data.audit import Audit, gate
from hgscale.finetune.data.config import RelationDataConfig
from hgscale.finetune.data.contexts import RelationData
from hgscale.finetune.data.open import open_data
from hgscale.finetune.data.planted import VERSION as PLANTED_VERSION
from hgscale.finetune.data.planted import place_of
from hgscale.models.config import EncoderConfig, VmhanConfig
from hgscale.tracking import DataInput
from hgscale.train import sizes as sharing
from hgscale.train.config import EngineConfig, TrainConfig

NUMBER_SECTIONS = ("text", "vision", "model", "train", "engine")
_OF_TEXTS = ("pool", "mention", "max_length", "markers", "opening", "closing")  # fields of ``EncoderConfig``
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True, kw_only=True)
class FinetuneTask:
    """What is trained, on what: the sections that decide numbers."""

    data: RelationDataConfig = field(default_factory=lambda: RelationDataConfig(name="planted"))
    """Sentences with images, and the relations in them."""

    text: EncoderConfig = field(default_factory=lambda: EncoderConfig(path=MINILM))
    """Reads the sentences."""

    vision: EncoderConfig | None = None
    """Looks at images and their objects. Null: text only, whatever images the data have."""

    model: VmhanConfig = field(default_factory=VmhanConfig)
    """The network over the hypergraphs."""

    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(num_steps=1000, global_batch=32, learning_rate=1e-3, log_every=25)
    )
    """Steps, batch in contexts, learning rate."""

    engine: EngineConfig = field(default_factory=lambda: EngineConfig(beta2=0.999))
    """Who makes the optimizer steps: DeepSpeed or plain torch."""

    def __post_init__(self) -> None:
        """Refuse what a vision encoder would not look at."""
        if self.vision is not None:
            refuse_ignored(self.vision, _OF_TEXTS, "vision", f"vision.path={self.vision.path}")

    @cached_property
    def relations(self) -> RelationData:
        """The data, read and checked once."""
        return open_data(self.data)

    @cached_property
    def gate(self) -> Audit:
        """What simple probes find of the inputs that this config uses."""
        found = gate(self.relations, self.data)
        seen = [row for row in found.rows if self.sees_images or row.input == "pair_order"]
        return dataclasses.replace(found, rows=tuple(seen))

    @property
    def sees_images(self) -> bool:
        """Whether any pixel, or the presence of an object, reaches the model."""
        return self.vision is not None and (self.model.images or self.model.objects)

    @property
    def seeded(self) -> tuple[str, ...]:
        """The fields that a repetition's seed is written into."""
        return "data.seed", "train.seed"

    def data_input(self, summary: Mapping[str, Any]) -> DataInput:
        """What a finished run was trained on, by its summary: the data need not be read again."""
        profile = {name: summary[name] for name in ("num_contexts", "num_pairs", "num_labels")}
        return DataInput("relations", summary["data_digest"], profile, self.data.root or self.data.name)

    def fresh(self) -> Self:
        """The same, without the data that it has opened: small to send, and each worker opens them for itself.

        Planted data have a place in it, so that workers find what is made here.
        """
        if self.data.name != "planted":
            return dataclasses.replace(self)
        return dataclasses.replace(self, data=dataclasses.replace(self.data, root=str(place_of(self.data))))

    def with_seed_in_paths(self, seed: int) -> Self:
        """With the seed in place of ``{seed}`` in ``data.root`` and ``model.init_from``."""
        given = {"data.root": self.data.root, "model.init_from": self.model.init_from}
        seeded = {name: path.replace("{seed}", str(seed)) for name, path in given.items() if path is not None}
        return configs.with_fields(self, seeded)

    def with_data_dir(self, data_dir: str | None) -> Self:
        """With absolute paths: those of data looked up in a folder, those of encoders in the working directory."""
        values = configs.flatten(configs.to_dict(self))
        reads = [name for name, kind in configs.path_fields(type(self)).items() if kind == "reads"]
        paths = {k: str((Path(data_dir or ".") / values[k]).absolute()) for k in reads if values.get(k) is not None}
        return dataclasses.replace(
            configs.with_fields(self, paths),
            text=self.text.with_absolute_path(),
            vision=self.vision and self.vision.with_absolute_path(),
        )

    def stream(self) -> Stream:
        """The order of training contexts."""
        return Stream(len(self.relations.train), self.train.global_batch, self.train.seed)

    def fingerprint(self) -> str:
        """Of everything that decides numbers; files, encoders and the pre-trained run count by content, not by place.

        Planted data count by their law, so that who only plans runs need not make them.
        """
        from hgscale.models.encoders import encoder_key

        sections: dict[str, Any] = {k: v for k, v in configs.to_dict(self).items() if k in NUMBER_SECTIONS}
        sections["train"], sections["engine"] = self.train.decides(), self.engine.decides()
        if self.data.name == "planted":
            law = {k: v for k, v in configs.to_dict(self.data).items() if k not in ("root", "allow_leaks")}
            sections["data"] = law | {"version": PLANTED_VERSION}
        else:
            sections["data"] = {"digest": self.relations.digest}
        for name, encoder in (("text", self.text), ("vision", self.vision)):
            if encoder is not None:
                sections[name] = {**sections[name], "path": encoder_key(encoder)}
        if self.model.init_from is not None:
            sections["model"]["init_from"] = self._pretrained()["fingerprint"]
        return configs.fingerprint(sections)

    @property
    def has_data(self) -> bool:
        """Whether planted data have been made; others are read."""
        return self.data.name != "planted" or (place_of(self.data) / "planted.json").exists()

    def check(self, world_size: int) -> None:
        """Refuse, before anything is started, what could not run or could not mean anything.

        Raises:
            ConfigError: naming the field and the repair.
            DataError: if a file of the data is wrong.
        """
        self.check_task()
        sharing.check_share(self, world_size)

    def sizes(self, fewest: int, most: int) -> list[int]:
        """The numbers of workers in a range that can share the global batch, see ``train.sizes``."""
        return sharing.sizes(self, fewest, most)

    def check_task(self) -> None:
        """``check`` as far as it does not depend on the number of workers."""
        num_contexts = len(self.relations.train)
        if num_contexts < self.train.global_batch:
            raise ConfigError(
                f"train.global_batch={self.train.global_batch} is more than the {num_contexts} training contexts; "
                f"use at most {num_contexts}"
            )
        if self.data.images is not None and self.vision is None:
            raise ConfigError(
                f"data.images={self.data.images} is given, but vision is null, so that no image would be seen; "
                "name an encoder, as --vision.path openai/clip-vit-base-patch32, or leave images out"
            )
        if self.model.init_from is not None:
            self._pretrained()
        complaint = self.gate.complaint()
        if complaint is not None and not self.data.allow_leaks:
            raise ConfigError(f"{complaint}; --audit true shows how much")

    def _pretrained(self) -> dict[str, Any]:
        """The summary of the run that ``model.init_from`` names."""
        try:
            summary: dict[str, Any] = json.loads((Path(str(self.model.init_from)) / "summary.json").read_text())
            return summary
        except (OSError, ValueError):
            raise ConfigError(
                f"model.init_from={self.model.init_from}: holds no finished pretrain run; run `hgscale pretrain` first"
            ) from None
