"""Fine-tuning VM-HAN: the work of one worker, and what a finished run says about itself.

One function runs in every worker, ``train_worker``; it needs neither Ray nor a tracking server. Rank 0 leaves in the
run directory, beside what every worker does: ``model/``, ``per_class.csv``, ``confusion.csv``, ``calibration.csv``,
``scores.png``, ``predictions.jsonl`` (test; each pair with what the model looked at), ``attention.png`` and, last,
``summary.json``.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hgscale.data.stream import WORD, ids_hash
from hgscale.files import write_json
from hgscale.finetune import findings
from hgscale.finetune.batches import Contexts
from hgscale.finetune.data.score import scores
from hgscale.finetune.parts import Parts
from hgscale.finetune.task import FinetuneTask
from hgscale.models.multimodal import ContextBatch, RelationLoss, RelationModel, save_relation_model
from hgscale.models.vmhan import VmhanOutput
from hgscale.train import loop
from hgscale.train.engine import make_engine
from hgscale.train.supervise import Attempt
from hgscale.train.worker import Worker, engine_shares

EVAL_BATCH = 64  # contexts of a forward pass without gradients


def train_worker(
    task: FinetuneTask,
    run_dir: Path,
    threads: int = 1,
    device: str = "cpu",
    figure: bool = True,
    attempt: Attempt | None = None,
) -> None:
    """Train, or go on training, and on rank 0 finish the run: a ``train.protocol.TrainWorker``.

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
        with self._whole_model() as model:
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

    @contextmanager
    def _whole_model(self) -> Iterator[RelationModel | None]:
        """On rank 0 a copy of the model with the fp32 master weights, to be evaluated; None elsewhere. Collective."""
        state = self.engine.full_state_dict()
        if state is None or self.engine.rank != 0:
            yield None
            return
        model = self.parts.copy_with({name.removeprefix("model."): tensor for name, tensor in state.items()})
        yield model.to(self.device).eval()
        model.cpu()  # between two evaluations it waits where it takes no room from the training

    def finish(self, started: float, figure: bool) -> None:
        """Rank 0: keep the model, and write down what it says of val and test."""
        with self._whole_model() as model:
            if model is not None:
                self._finish(model, started, figure)

    def _finish(self, model: RelationModel, started: float, figure: bool) -> None:
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
        write_json(self.run_dir / "summary.json", found | self._facts(started))

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
