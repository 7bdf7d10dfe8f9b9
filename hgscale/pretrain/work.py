"""Masked modelling on the samples of a world: the work of one worker, and what a finished run says about itself.

One function runs in every worker, ``train_worker``; it needs neither Ray nor a tracking server. Rank 0 leaves in the
run directory, beside what every worker does: ``model/``, ``counts.npy`` (how often each edge was among the samples),
``recovered.json`` (HIF), ``recovery.png`` and, last, ``summary.json``. What holds a number per edge (counts, what was
recovered) is there only where the world is held in memory.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hgscale.data.masking import Batch, Contexts
from hgscale.data.stream import WORD
from hgscale.files import write_json
from hgscale.hypergraph.bounds import count_estimate
from hgscale.hypergraph.structure import Hypergraph
from hgscale.models.build import build_model, save_model
from hgscale.models.losses import ContextTensors, MaskedLoss, MicroBatch
from hgscale.pretrain.recover import Reader, bits_per_parameter, write_recovered
from hgscale.pretrain.shares import PretrainShares
from hgscale.pretrain.task import PretrainTask
from hgscale.train import loop
from hgscale.train.engine import make_engine
from hgscale.train.shares import Share, Source, in_process
from hgscale.train.supervise import Attempt
from hgscale.train.worker import Worker, engine_shares


def train_worker(
    task: PretrainTask,
    run_dir: Path,
    threads: int = 1,
    device: str = "cpu",
    figure: bool = True,
    source: Source = in_process,
    attempt: Attempt | None = None,
) -> None:
    """Train, or go on training, and on rank 0 finish the run: a ``train.protocol.TrainWorker``.

    Args:
        source: who makes the batches. The others are those of the protocol.

    Raises:
        StoppedError: it was told to stop, and has left a checkpoint.
        SupersededError: another attempt has begun.
    """
    torch.set_num_threads(threads)
    started = time.time()
    worker = _PretrainWorker(task, run_dir, torch.device(device), attempt)
    start = worker.resume()
    with closing(source(worker.shares, start.step)) as worker.source:
        loop.run(worker, worker.engine, task.train, start, attempt)
    worker.finish(started, figure)


class _PretrainWorker(Worker):
    """The task as the loop sees it: this rank's batches and evaluation, beside what every worker does."""

    def __init__(self, task: PretrainTask, run_dir: Path, device: torch.device, attempt: Attempt | None) -> None:
        self.task = task
        self.world = task.target_world
        self.model = build_model(task.model, self.world, task.train.seed)
        world_size, num_micro, micro_batch = engine_shares(task.train)
        engine = make_engine(
            task.engine, MaskedLoss(self.model), micro_batch=micro_batch, num_micro=num_micro, device=device
        )
        seeds = {"samples": task.samples.seed, "objective": task.objective.seed, "train": task.train.seed}
        super().__init__(engine, task.train, run_dir, task.fingerprint(), seeds, attempt)
        self.shares = PretrainShares(task, not task.model.kind().sees_order, engine.rank, world_size)
        self.reader = Reader(task, self.shares.sampler)
        self.source: Iterator[Share] = iter(())

    def micro_batches(self, step: int) -> Sequence[MicroBatch]:
        share = next(self.source)
        assert share.step == step, f"the source gave step {share.step} for {step}"
        self.hash_of_ids = (self.hash_of_ids + share.ids_hash) % WORD
        return [self._to_device(batch) for batch in share.micro_batches]

    def evaluate(self, step: int) -> dict[str, float]:
        model = self._whole_model()
        if model is None:
            return {}
        comparison = self.reader.read(model, step, self.task.effective_readout(), is_final=False)
        return {f"eval/{name}": value for name, value in comparison.metrics.items() if isinstance(value, float)}

    def finish(self, started: float, figure: bool) -> None:
        """Rank 0: keep the model, read the hypergraph out of it, and write down what the run says."""
        model = self._whole_model()
        if model is None:
            return
        model.eval()
        save_model(model, self.run_dir / "model")
        num_steps = self.task.train.num_steps
        reading = time.time()
        comparison = self.reader.read(model, num_steps, self.task.effective_readout(), is_final=True)
        counts = self.reader.counts(num_steps)
        if counts is not None:
            np.save(self.run_dir / "counts.npy", counts)
        summary = comparison.metrics | self._facts(started) | {"readout_s": time.time() - reading}
        summary["bits_per_parameter"] = bits_per_parameter(summary["capacity_bits"], summary["num_parameters"])
        if counts is not None and comparison.recovered is not None:
            assert isinstance(self.world, Hypergraph)
            write_recovered(self.world, comparison.recovered, self.run_dir / "recovered.json")
            if figure:
                # Here and not above: only this rank, and only now, needs matplotlib and its 30 MB.
                from hgscale.pretrain.figure import recovery_figure

                recovery_figure(
                    self.world.weights,
                    comparison.recovered.on_support,
                    count_estimate(counts),
                    summary,
                    self.run_dir / "recovery.png",
                )
        # Last: a run directory with a summary is a finished run.
        write_json(self.run_dir / "summary.json", summary)

    def _facts(self, started: float) -> dict[str, Any]:
        """What the summary says besides errors."""
        return self.costs(started) | {
            "regime": self.task.regime,
            "masking": self.task.objective.masking,
            "num_parameters": sum(p.numel() for p in self.model.parameters()),
            "world_digest": self.world.digest,
        }

    def _whole_model(self) -> torch.nn.Module | None:
        """On rank 0 a copy of the model with the fp32 master weights; None elsewhere. Collective."""
        state = self.engine.full_state_dict()
        if state is None or self.engine.rank != 0:
            return None
        model = build_model(self.task.model, self.world, self.task.train.seed)
        model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in state.items()})
        return model.to(self.device)

    def _to_device(self, batch: Batch) -> MicroBatch:
        buckets = [tensors(bucket).to(self.device) for bucket in batch.buckets]
        counts = torch.from_numpy(batch.size_counts).to(self.device)
        return MicroBatch(buckets, counts, 1.0 / self.task.train.global_batch)


def tensors(contexts: Contexts) -> ContextTensors:
    """The same bucket as torch tensors, sharing memory."""
    arrays = {field.name: getattr(contexts, field.name) for field in dataclasses.fields(contexts)}
    tensors: dict[str, Any] = {
        name: None if array is None else torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
    }
    return ContextTensors(**tensors)
