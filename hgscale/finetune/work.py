"""Fine-tuning VM-HAN: the work of one worker, and what a finished run says about itself.

One function runs in every worker, ``train_worker``; it needs neither Ray nor a tracking server. Rank 0 leaves in the
run directory, beside what every worker does: ``model/``, ``per_class.csv``, ``confusion.csv``, ``calibration.csv``,
``scores.png``, ``predictions.jsonl`` (test; each pair with what the model looked at), ``attention.png`` and, last,
``summary.json``.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hgscale.data.stream import WORD, ids_hash
from hgscale.finetune import findings
from hgscale.finetune.batches import Contexts
from hgscale.finetune.data.contexts import Split
from hgscale.finetune.data.score import scores
from hgscale.finetune.features import Computer, FeatureJob, compute_here, features_dir, missing_items, open_store
from hgscale.finetune.prior import Prior, read_prior
from hgscale.finetune.rows import frozen_items
from hgscale.finetune.store import FeatureStore
from hgscale.finetune.task import FinetuneTask
from hgscale.models.encoders import TextEncoder, VisionEncoder
from hgscale.models.multimodal import ContextBatch, RelationLoss, RelationModel, Standardize, save_relation_model
from hgscale.models.vmhan import Vmhan, VmhanModelConfig, VmhanOutput
from hgscale.rng import key
from hgscale.train import loop
from hgscale.train.engine import make_engine
from hgscale.train.runlog import write_json
from hgscale.train.supervise import Attempt
from hgscale.train.worker import Worker, engine_shares

NOT_OF_THE_NETWORK = ("top_objects", "pairs", "kl_warmup_frac", "init_from")
"""Fields of ``VmhanConfig`` that decide what the network is shown."""
EVAL_BATCH = 64  # contexts of a forward pass without gradients


def train_worker(
    task: FinetuneTask,
    run_dir: Path,
    threads: int = 1,
    device: str = "cpu",
    figure: bool = True,
    attempt: Attempt | None = None,
) -> None:
    """Train, or go on training, and on rank 0 finish the run. Every worker calls it with the same arguments.

    Args:
        task: the config.
        run_dir: shared by all workers.
        threads: torch threads of this worker.
        device: "cpu" or "cuda".
        figure: draw figures.
        attempt: who may stop it, see ``loop.run``.

    Raises:
        StoppedError: it was told to stop, and has left a checkpoint.
        SupersededError: another attempt has begun.
    """
    torch.set_num_threads(threads)
    started = time.time()
    worker = _FinetuneWorker(task, run_dir, torch.device(device), attempt)
    start = worker.resume()
    loop.run(worker, worker.engine, task.train, start, attempt)
    worker.finish(started, figure)


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
        self._text, self._vision = self._encoders()

    def _stores(self) -> tuple[FeatureStore | None, FeatureStore | None]:
        """Features of encoders that are frozen, all of them there."""
        stores: dict[str, FeatureStore] = {}
        for name, encoder, items in frozen_items(self.task, self.task.relations.splits):
            store = stores[name] = open_store(features_dir(), encoder)
            deque(compute_here(missing_items(items, store), Computer(FeatureJob.of(encoder, features_dir(), "cpu"))), 0)
            store.refresh()
        return stores.get("text"), stores.get("vision")

    def contexts(self, split: Split) -> Contexts:
        """A split, ready to be cut into batches."""
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

    def another_model(self, state: dict[str, torch.Tensor]) -> RelationModel:
        """The same with other weights, sharing nothing."""
        model = self._assembled(*self._encoders())
        model.load_state_dict(state)
        return model

    def _encoders(self) -> tuple[TextEncoder | Standardize, VisionEncoder | Standardize | None]:
        """Those that are trained; in the place of the frozen ones, the law of their features on the training split."""
        task, laws = self.task, {}
        for name, _, items in frozen_items(task, (task.relations.train,)):
            store = self._text_store if name == "text" else self._vision_store
            assert store is not None
            laws[name] = Standardize(torch.from_numpy(store.read([key for item in items for key in item.keys])))
        text = laws.get("text") or TextEncoder(task.text, task.train.seed)
        if task.vision is None or not task.sees_images:
            return text, None
        return text, laws.get("vision") or VisionEncoder(task.vision, task.train.seed)

    def _assembled(self, text: TextEncoder | Standardize, vision: VisionEncoder | Standardize | None) -> RelationModel:
        config = VmhanModelConfig(
            **{name: value for name, value in vars(self.task.model).items() if name not in NOT_OF_THE_NETWORK},
            num_labels=len(self.task.relations.labels),
            text_size=_width(text),
            vision_size=0 if vision is None else _width(vision),
            prior_size=0 if self.prior is None else self.prior.size,
        )
        # Initialisation draws from torch's global generator: borrow it, and leave it as it was.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(key(self.task.train.seed, "model")))
            return RelationModel(Vmhan(config), text, vision)


def _width(encoder: TextEncoder | VisionEncoder | Standardize) -> int:
    return len(encoder.mean) if isinstance(encoder, Standardize) else encoder.hidden_size


class _FinetuneWorker(Worker):
    """The task as the loop sees it: this rank's batches and evaluation, beside what every worker does."""

    def __init__(self, task: FinetuneTask, run_dir: Path, device: torch.device, attempt: Attempt | None) -> None:
        self.task = task
        self.parts = Parts(task)
        self.model = self.parts.model()
        self._scale_learning_rates()
        world_size, num_micro, micro_batch = engine_shares(task.train)
        engine = make_engine(
            task.engine, RelationLoss(self.model), micro_batch=micro_batch, num_micro=num_micro, device=device
        )
        seeds = {"data": task.data.seed, "train": task.train.seed}
        super().__init__(engine, task.train, run_dir, task.fingerprint(), seeds, attempt)
        self.stream, self.world_size, self.num_micro = task.stream(), world_size, num_micro
        self.contexts = self.parts.contexts(task.relations.train)

    def _scale_learning_rates(self) -> None:
        for parameter in self.model.parameters():
            own = getattr(parameter, "learning_rate", None)
            if own is not None:
                parameter.lr_scale = own / self.task.train.learning_rate  # type: ignore[attr-defined]

    def micro_batches(self, step: int) -> Sequence[ContextBatch]:
        everyone = self.stream.global_batch(step)
        pair_weight = 1.0 / float(self.contexts.num_pairs[everyone].sum())
        row_weight = 1.0 / float(self.contexts.num_rows[everyone].sum())
        positions = self.stream.positions(step, self.engine.rank, self.world_size)
        ids = self.stream.ids(positions)
        self.hash_of_ids = (self.hash_of_ids + ids_hash(step, ids, self.stream.visits(positions))) % WORD
        scale = self._kl_scale(step)
        # Texts of one length together: what is filled up costs as much as what is said.
        ids = ids[np.argsort(self.contexts.lengths[ids], kind="stable")]
        return [
            self.contexts.batch(part, pair_weight, row_weight, scale).to(self.device)
            for part in np.split(ids, self.num_micro)
        ]

    def _kl_scale(self, step: int) -> float:
        warmup = self.task.model.kl_warmup_frac * self.task.train.num_steps
        return min(1.0, (step + 1) / warmup) if warmup else 1.0

    def evaluate(self, step: int) -> dict[str, float]:
        model = self._whole_model()
        if model is None:
            return {}
        contexts = self.parts.contexts(self.task.relations.val)
        found = scores(self._logits(model, contexts), contexts.labels)
        return {f"eval/{name}": float(value) for name, value in found.items()}

    def _logits(self, model: RelationModel, contexts: Contexts) -> np.ndarray:
        """[p c] float32 of all pairs of a split."""
        return np.concatenate([o.logits.float().cpu().numpy() for _, o in self._outputs(model, contexts)])

    @torch.no_grad()
    def _outputs(self, model: RelationModel, contexts: Contexts) -> Iterator[tuple[ContextBatch, VmhanOutput]]:
        for part in np.array_split(np.arange(len(contexts.num_rows)), -(-len(contexts.num_rows) // EVAL_BATCH)):
            batch = contexts.batch(part, 0.0, 0.0, 1.0).to(self.device)
            yield batch, model(batch)

    def _whole_model(self) -> RelationModel | None:
        """On rank 0 a copy of the model with the fp32 master weights, to be evaluated; None elsewhere. Collective."""
        state = self.engine.full_state_dict()
        if state is None or self.engine.rank != 0:
            return None
        model = self.parts.another_model({name.removeprefix("model."): tensor for name, tensor in state.items()})
        return model.to(self.device).eval()

    def finish(self, started: float, figure: bool) -> None:
        """Rank 0: keep the model, and write down what it says of val and test."""
        model = self._whole_model()
        if model is None:
            return
        save_relation_model(model, self.task.relations.labels, self.run_dir / "model")
        found: dict[str, Any] = {}
        for split in (self.task.relations.val, self.task.relations.test):
            contexts = self.parts.contexts(split)
            logits = self._logits(model, contexts)
            found |= {f"{split.name}_{name}": value for name, value in scores(logits, contexts.labels).items()}
        # What is left is of test.
        findings.write_tables(self.run_dir, logits, contexts.labels, self.task.relations.labels)
        predictions = list(self._predictions(model, contexts))
        findings.write_predictions(self.run_dir / "predictions.jsonl", predictions)
        if figure:
            # Here and not above: only this rank, and only now, needs matplotlib and its 30 MB.
            from hgscale.finetune import figures as relation_figures

            relation_figures.scores(self.run_dir / "scores.png", logits, contexts.labels, self.task.relations.labels)
            relation_figures.attention(self.run_dir / "attention.png", predictions)
        # Last: a run directory with a summary is a finished run.
        write_json(found | self._facts(started), self.run_dir / "summary.json")

    def _predictions(self, model: RelationModel, contexts: Contexts) -> Iterator[findings.Prediction]:
        """Of each pair of a split, in its order."""
        first_row, labels = 0, self.task.relations.labels
        for batch, output in self._outputs(model, contexts):
            probabilities = torch.softmax(output.logits.float(), dim=1).cpu().numpy()
            for pair, explained in enumerate(model.vmhan.explain(model.encoded(batch))):
                row = contexts.rows[first_row + explained.row]
                label = int(batch.labels[pair])
                yield findings.prediction(row, explained, labels, label, probabilities[pair])
            first_row += len(batch.image_mask)

    def _facts(self, started: float) -> dict[str, Any]:
        """What the summary says besides scores."""
        task, relations = self.task, self.task.relations
        return self.costs(started) | {
            "num_contexts": len(relations.train),
            "num_pairs": int(self.contexts.num_pairs.sum()),
            "num_labels": len(relations.labels),
            "num_parameters": sum(p.numel() for p in self.model.parameters()),
            "num_trained_parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "pairs": task.model.pairs,
            "sees_images": task.sees_images,
            "known_names_frac": None if self.parts.prior is None else self.parts.prior.known_frac(self.contexts.rows),
            "leaks": ", ".join(task.gate.leaks),
            "data_digest": relations.digest,
        }
