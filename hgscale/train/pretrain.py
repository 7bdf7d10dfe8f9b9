"""Masked modelling on the samples of a world: the work of one worker, and what a finished run says about itself.

One function runs in every worker, ``train_worker``; it needs neither Ray nor a tracking server. Rank 0 leaves in the
run directory: ``log.jsonl``, ``checkpoints/``, ``model/``, ``counts.npy`` (how often each edge was among the samples),
``recovered.json`` (HIF), ``recovery.png`` and, last, ``summary.json``. What holds a number per edge (counts, what was
recovered) is there only where the world is held in memory.
"""

import dataclasses
import json
import os
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist

from hgscale.data.masking import Batch, Contexts
from hgscale.hypergraph.bounds import count_estimate
from hgscale.hypergraph.comparison import Comparison, read_and_compare, read_and_estimate
from hgscale.hypergraph.structure import Hypergraph
from hgscale.models.build import ModelConditionals, build_model, save_model
from hgscale.models.losses import ContextTensors, MaskedLoss, MicroBatch
from hgscale.train import checkpoint, loop
from hgscale.train.engine import Engine, make_engine
from hgscale.train.loop import Place
from hgscale.train.recover import COUNT_CHUNK, bits_per_parameter, count_among, write_recovered
from hgscale.train.runlog import RunLog, read_all, write_json
from hgscale.train.shares import WORD, Share, Shares, Source, in_process
from hgscale.train.supervise import Attempt
from hgscale.train.task import PretrainTask


def train_worker(
    task: PretrainTask,
    run_dir: Path,
    threads: int = 1,
    device: str = "cpu",
    figure: bool = True,
    source: Source = in_process,
    attempt: Attempt | None = None,
) -> None:
    """Train, or go on training, and on rank 0 finish the run. Every worker calls it with the same arguments.

    Args:
        task: the config.
        run_dir: shared by all workers.
        threads: torch threads of this worker.
        device: "cpu" or "cuda".
        figure: draw ``recovery.png``.
        source: who makes the batches.
        attempt: who may stop it, see ``loop.run``.

    Raises:
        StoppedError: it was told to stop, and has left a checkpoint.
        SupersededError: another attempt has begun.
    """
    torch.set_num_threads(threads)
    started = time.time()
    worker = _Worker(task, run_dir, torch.device(device), attempt)
    start = worker.resume()
    with closing(source(worker.shares, start.step)) as worker.source:
        loop.run(worker, worker.engine, task.train, start, attempt)
    worker.finish(started, figure)


class _Worker:
    """The task as the loop sees it: this rank's batches, evaluation, log and checkpoints."""

    def __init__(self, task: PretrainTask, run_dir: Path, device: torch.device, attempt: Attempt | None) -> None:
        self.task, self.run_dir, self.device, self.attempt = task, run_dir, device, attempt
        self.world = task.target_world
        self.stream = task.stream()
        self.model = build_model(task.model, self.world, task.train.seed)
        world_size = dist.get_world_size() if dist.is_initialized() else 1
        num_micro = task.train.num_micro(world_size)
        micro_batch = task.train.global_batch // (num_micro * world_size)
        self.engine: Engine = make_engine(
            task.engine, MaskedLoss(self.model), micro_batch=micro_batch, num_micro=num_micro, device=device
        )
        self.shares = Shares(task, not self.model.sees_order, self.engine.rank, world_size)
        self.sampler = self.shares.sampler
        self.source: Iterator[Share] = iter(())
        self.hash_of_ids = 0  # since it was last asked for
        self.fingerprint = task.fingerprint()
        self.runlog: RunLog | None = None
        self.cpu_started_s = time.process_time()

    def resume(self) -> Place:
        """Load the newest valid checkpoint, if there is one, and bring the log back to its step."""
        engine = self.engine
        newest, complaints = self._newest()
        start = Place()
        if newest is not None:
            engine.load(newest.path)
            since_log = newest.facts["since_log"]
            start = Place(newest.step, tuple(since_log["losses"]), int(since_log["ids_hash"], 16))
        if engine.rank == 0:
            checkpoint.sweep(self.run_dir / "checkpoints")
            self.runlog = RunLog(self.run_dir / "log.jsonl")
            self.runlog.rewind(start.step)
        self._note_attempt(start.step, complaints)
        return start

    def _newest(self) -> tuple[checkpoint.Checkpoint | None, list[str]]:
        """``checkpoint.find``, by rank 0 for all: it reads and hashes every file."""
        found: list[Any] = [None]
        if self.engine.rank == 0:
            found = [checkpoint.find(self.run_dir / "checkpoints", self.fingerprint, self.engine.world_size)]
        if self.engine.world_size > 1:
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def micro_batches(self, step: int) -> Sequence[MicroBatch]:
        share = next(self.source)
        assert share.step == step, f"the source gave step {share.step} for {step}"
        self.hash_of_ids = (self.hash_of_ids + share.ids_hash) % WORD
        return [self._to_device(batch) for batch in share.micro_batches]

    def ids_hash(self) -> int:
        taken, self.hash_of_ids = self.hash_of_ids, 0
        return taken

    def evaluate(self, step: int) -> dict[str, float]:
        model = self._whole_model()
        if model is None:
            return {}
        counts = self._counts(step)
        comparison = self._estimate(model, step) if counts is None else self._compare(model, counts)
        return {f"eval/{name}": value for name, value in comparison.metrics.items() if isinstance(value, float)}

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        assert self.runlog is not None
        self._check_attempt()
        memory = psutil.Process().memory_info().rss / 2**30
        self.runlog.append(step, **metrics, mem_gib=memory)

    def checkpoint(self, place: Place) -> None:
        self._check_attempt()
        facts = {
            "fingerprint": self.fingerprint,
            "world_size": self.engine.world_size,
            "position": place.step * self.task.train.global_batch,
            "since_log": {"losses": list(place.losses), "ids_hash": f"{place.ids_hash:016x}"},
            "seeds": {
                "samples": self.task.samples.seed,
                "objective": self.task.objective.seed,
                "train": self.task.train.seed,
            },
        }
        checkpoint.write(
            self.run_dir / "checkpoints",
            place.step,
            facts,
            self.engine.save,
            rank=self.engine.rank,
            barrier=self.engine.barrier,
        )

    def _check_attempt(self) -> None:
        """Before rank 0 writes: a worker that was frozen while another attempt began must not disturb it."""
        if self.attempt is not None and self.engine.rank == 0:
            self.attempt.is_told_to_stop()

    def finish(self, started: float, figure: bool) -> None:
        """Rank 0: keep the model, read the hypergraph out of it, and write down what the run says."""
        model = self._whole_model()
        if model is None:
            return
        model.eval()
        save_model(model, self.run_dir / "model")
        num_steps = self.task.train.num_steps
        counts = self._counts(num_steps)
        reading = time.time()
        if counts is None:
            comparison = self._estimate(model, num_steps)
        else:
            comparison = self._compare(model, counts, origin=self.task.world, held_out=self.task.held_out)
            np.save(self.run_dir / "counts.npy", counts)
        summary = comparison.metrics | self._facts(num_steps, started) | {"readout_s": time.time() - reading}
        summary["bits_per_parameter"] = bits_per_parameter(summary["capacity_bits"], summary["num_parameters"])
        if counts is not None and comparison.recovered is not None:
            assert isinstance(self.world, Hypergraph)
            write_recovered(self.world, comparison.recovered, self.run_dir / "recovered.json")
            if figure:
                # Here and not above: only this rank, and only now, needs matplotlib and its 30 MB.
                from hgscale.train.figure import recovery_figure

                recovery_figure(
                    self.world.weights,
                    comparison.recovered.on_support,
                    count_estimate(counts),
                    summary,
                    self.run_dir / "recovery.png",
                )
        # Last: a run directory with a summary is a finished run.
        write_json(summary, self.run_dir / "summary.json")

    def _facts(self, num_steps: int, started: float) -> dict[str, Any]:
        """What the summary says besides errors. ``seconds`` and ``samples_per_s`` are of all attempts, by the log."""
        assert self.runlog is not None
        records = [record for record in read_all(self.runlog.path) if "samples_per_s" in record]
        steps = np.diff([0] + [record["step"] for record in records])
        rates = np.array([record["samples_per_s"] for record in records])
        train_s = float((steps * self.task.train.global_batch / rates).sum())
        return {
            "regime": self.task.regime,
            "masking": self.task.objective.masking,
            "engine": self.task.engine.name,
            "num_workers": self.engine.world_size,
            "num_steps": num_steps,
            "global_batch": self.task.train.global_batch,
            "num_parameters": sum(p.numel() for p in self.model.parameters()),
            "final_loss": float(records[-1]["loss"]),
            "train_s": train_s,
            "peak_memory_gib": self._peak_memory_gib(),
            "seconds": time.time() - started,
            "cpu_s": time.process_time() - self.cpu_started_s,
            "samples_per_s": num_steps * self.task.train.global_batch / train_s,
            "world_digest": self.world.digest,
            "fingerprint": self.fingerprint,
        }

    def _peak_memory_gib(self) -> float:
        """Most memory this worker has held: of the GPU where it trains on one, else resident in this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def _compare(self, model: torch.nn.Module, counts: np.ndarray, **at_the_end: Any) -> Comparison:
        """Read the model out against a world held in memory."""
        assert isinstance(self.world, Hypergraph)
        readout, seed = self.task.effective_readout(), self.task.train.seed
        return read_and_compare(ModelConditionals(model), self.world, readout, counts, seed, **at_the_end)

    def _estimate(self, model: torch.nn.Module, num_steps: int) -> Comparison:
        """Read the model out against a world that is not, from sampled edges."""
        num_seen = self.stream.num_seen(num_steps)

        def count(edges: np.ndarray) -> np.ndarray:
            return count_among(self.sampler, self.stream, num_seen, edges)

        readout, seed = self.task.effective_readout(), self.task.train.seed
        return read_and_estimate(ModelConditionals(model), self.world, readout, count, num_seen, seed)

    def _counts(self, num_steps: int) -> np.ndarray | None:
        """[E] int64: how often each edge stands among the very samples the model has seen.

        None where the world is not held in memory.
        """
        if not isinstance(self.world, Hypergraph):
            return None
        num_seen = self.stream.num_seen(num_steps)
        counts = np.zeros(self.world.num_edges, dtype=np.int64)
        for start in range(0, num_seen, COUNT_CHUNK):
            positions = np.arange(start, min(start + COUNT_CHUNK, num_seen))
            counts += np.bincount(self.sampler.draw(self.stream.ids(positions)), minlength=self.world.num_edges)
        return counts

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

    def _note_attempt(self, start_step: int, complaints: Sequence[str]) -> None:
        """Append to ``attempts.jsonl`` where this attempt starts, in which processes, and what it could not load."""
        here = {"rank": self.engine.rank, "pid": os.getpid(), "host": os.uname().nodename}
        workers: list[Any] = [here]
        if self.engine.world_size > 1:
            workers = [None] * self.engine.world_size
            dist.all_gather_object(workers, here)
        if self.engine.rank == 0:
            attempt = {"time": round(time.time(), 3), "start_step": start_step, "workers": workers}
            with (self.run_dir / "attempts.jsonl").open("a") as file:
                file.write(json.dumps(attempt | {"complaints": list(complaints)}) + "\n")


def tensors(contexts: Contexts) -> ContextTensors:
    """The same bucket as torch tensors, sharing memory."""
    arrays = {field.name: getattr(contexts, field.name) for field in dataclasses.fields(contexts)}
    tensors: dict[str, Any] = {
        name: None if array is None else torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
    }
    return ContextTensors(**tensors)
