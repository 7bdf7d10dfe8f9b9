"""What a fine-tuning is put together from: encoders, features of the frozen ones, splits cut for batches, the network.

Nothing here trains: ``finetune.work`` does, and whoever wants the network of a config or a split of it asks here.
"""

import copy
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import torch

from hgscale.finetune.batches import Contexts
from hgscale.finetune.data.contexts import Split
from hgscale.finetune.features import Computer, FeatureJob, compute_here, features_dir, missing_items, open_store
from hgscale.finetune.prior import Prior, read_prior
from hgscale.finetune.rows import frozen_items
from hgscale.finetune.store import FeatureStore
from hgscale.finetune.task import FinetuneTask
from hgscale.models.encoders import TextEncoder, VisionEncoder
from hgscale.models.multimodal import RelationModel, Standardize
from hgscale.models.vmhan import Vmhan, VmhanModelConfig
from hgscale.rng import key

NOT_OF_THE_NETWORK = ("top_objects", "pairs", "kl_warmup_frac", "init_from")
"""Fields of ``VmhanConfig`` that decide what the network is shown."""


class Parts:
    """The encoders of a task, and the features of those that are frozen.

    Attributes:
        prior: what a pre-trained run knows of names; None without one.
    """

    def __init__(self, task: FinetuneTask) -> None:
        """Load what is trained; of what is frozen compute the features that nobody has computed yet."""
        self.task = task
        self.prior: Prior | None = None if task.model.init_from is None else read_prior(Path(task.model.init_from))
        self._text_store, self._vision_store = self._stores()
        self._laws = dict(self._read_laws())
        self._text, self._vision = self._encoders()
        self._contexts: dict[str, Contexts] = {}
        self._copy: RelationModel | None = None

    def _stores(self) -> tuple[FeatureStore | None, FeatureStore | None]:
        """Features of encoders that are frozen, all of them there."""
        stores: dict[str, FeatureStore] = {}
        for name, encoder, items in frozen_items(self.task, self.task.relations.splits):
            store = stores[name] = open_store(features_dir(), encoder)
            deque(compute_here(missing_items(items, store), Computer(FeatureJob.of(encoder, features_dir(), "cpu"))), 0)
            store.refresh()
        return stores.get("text"), stores.get("vision")

    def contexts(self, split: Split) -> Contexts:
        """A split of the task, ready to be cut into batches; made at the first call and kept."""
        if split.name not in self._contexts:
            self._contexts[split.name] = self._cut(split)
        return self._contexts[split.name]

    def _cut(self, split: Split) -> Contexts:
        return Contexts(
            split,
            self.task.model,
            reader=self._text.reader if isinstance(self._text, TextEncoder) else None,
            text_store=self._text_store,
            vision=self._vision if isinstance(self._vision, VisionEncoder) else None,
            vision_store=self._vision_store,
            prior=self.prior,
        )

    def model(self) -> RelationModel:
        """What is trained; its weights are those of the encoders, or a function of the seed."""
        return self._assembled(self._text, self._vision)

    def copy_with(self, state: dict[str, torch.Tensor]) -> RelationModel:
        """The one model apart from that which is trained, made at the first call and kept, with other weights."""
        if self._copy is None:
            self._copy = self._assembled(*self._encoders())
        self._copy.load_state_dict(state)
        return self._copy

    def _read_laws(self) -> Iterator[tuple[str, Standardize]]:
        """Of each frozen encoder the law of its features on the training split."""
        for name, _, items in frozen_items(self.task, (self.task.relations.train,)):
            store = self._text_store if name == "text" else self._vision_store
            assert store is not None
            features = store.read([key for item in items for key in item.keys])
            yield name, Standardize(torch.from_numpy(features))

    def _encoders(self) -> tuple[TextEncoder | Standardize, VisionEncoder | Standardize | None]:
        """Those that are trained; in the place of the frozen ones, a copy of their law: an engine rounds its own."""
        task, laws = self.task, copy.deepcopy(self._laws)
        text = laws.get("text") or TextEncoder(task.text, task.train.seed)
        if task.vision is None or not task.sees_images:
            return text, None
        return text, laws.get("vision") or VisionEncoder(task.vision, task.train.seed)

    def _assembled(self, text: TextEncoder | Standardize, vision: VisionEncoder | Standardize | None) -> RelationModel:
        return assembled(self.task, text, vision, 0 if self.prior is None else self.prior.size)


def assembled(
    task: FinetuneTask,
    text: TextEncoder | Standardize,
    vision: VisionEncoder | Standardize | None,
    prior_size: int,
) -> RelationModel:
    """The network of a task around encoders; its other weights are a function of the seed."""
    config = VmhanModelConfig(
        **{name: value for name, value in vars(task.model).items() if name not in NOT_OF_THE_NETWORK},
        num_labels=len(task.relations.labels),
        text_size=_width(text),
        vision_size=0 if vision is None else _width(vision),
        prior_size=prior_size,
    )
    # Initialisation draws from torch's global generator: borrow it, and leave it as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(key(task.train.seed, "model")))
        return RelationModel(Vmhan(config), text, vision)


def _width(encoder: TextEncoder | VisionEncoder | Standardize) -> int:
    return len(encoder.mean) if isinstance(encoder, Standardize) else encoder.hidden_size
