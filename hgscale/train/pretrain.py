"""Masked modelling on the samples of a world: config, wiring, and what a finished run says about itself.

One function runs in every worker, ``train_worker``; it needs neither Ray nor a tracking server. Rank 0 leaves in the
run directory: ``log.jsonl``, ``checkpoints/``, ``model/``, ``counts.npy`` (how often each edge was among the samples),
``recovered.json`` (HIF), ``recovery.png`` and, last, ``summary.json``.
"""

import dataclasses
import json
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist

from hgscale import config as configs
from hgscale.data.masking import Batch, Contexts, Masker, ObjectiveConfig
from hgscale.data.stream import SamplesConfig, Stream
from hgscale.errors import ConfigError
from hgscale.hypergraph.bounds import count_estimate
from hgscale.hypergraph.identify import identifiability
from hgscale.hypergraph.recovery import ReadoutConfig
from hgscale.hypergraph.sampling import EdgeSampler
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.world import WorldConfig, build_world
from hgscale.models.build import ModelConditionals, ModelConfig, build_model, check_model, save_model
from hgscale.models.losses import ContextTensors, MaskedLoss, MicroBatch
from hgscale.train import checkpoint, loop
from hgscale.train.engine import Engine, EngineConfig, deepspeed_settings, make_engine
from hgscale.train.loop import TrainConfig
from hgscale.train.recover import read_and_compare, write_json, write_recovered
from hgscale.train.runlog import RunLog, read_all

COUNT_CHUNK = 1 << 22  # samples counted at once
NUMBER_SECTIONS = ("world", "samples", "objective", "model", "train", "engine", "readout")


@dataclass(frozen=True, kw_only=True)
class PretrainTask:
    """What is trained, on what, and how it is read: the sections that decide numbers."""

    world: WorldConfig = field(default_factory=WorldConfig)
    """The truth: a file or a generator."""

    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """The data: edges drawn from the world by weight."""

    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What is hidden from the model."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """Steps, batch, learning rate."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    """Who makes the optimizer steps: DeepSpeed or plain torch."""

    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    """How the hypergraph is read out of the model."""

    @cached_property
    def target_world(self) -> Hypergraph:
        """The world, built once per process."""
        return build_world(self.world)

    def fingerprint(self) -> str:
        """Of everything that decides numbers. A world from a file counts by its content, not by where the file lies."""
        sections = {name: value for name, value in configs.to_dict(self).items() if name in NUMBER_SECTIONS}
        if self.world.path is not None:
            sections["world"] = {"digest": self.target_world.digest}
        if self.engine.deepspeed_config is not None:
            sections["engine"]["deepspeed_config"] = json.loads(Path(self.engine.deepspeed_config).read_text())
        return configs.fingerprint(sections)

    def stream(self) -> Stream:
        return Stream(self.samples.num_samples, self.train.global_batch, self.train.seed)

    @property
    def regime(self) -> str:
        """Which statistic this run measures: fresh samples, or a corpus with masks drawn anew or once."""
        if self.samples.num_samples is None:
            return "fresh"
        return "corpus_redrawn_masks" if self.objective.redraw else "corpus_static_masks"

    def check(self, world_size: int) -> None:
        """Refuse, before anything is started, what could not run or could not mean anything.

        Raises:
            ConfigError: naming the field and the repair.
            DataError: if the world's file is wrong.
        """
        self.stream()
        if self.objective.masking == "one_mask":
            self._check_one_mask()
        check_model(self.model, self.target_world)
        num_micro = self.train.num_micro(world_size)
        deepspeed_settings(
            self.engine,
            micro_batch=self.train.global_batch // (num_micro * world_size),
            num_micro=num_micro,
            world_size=world_size,
            num_parameters=1,
            on_cpu=True,
        )

    def _check_one_mask(self) -> None:
        known = identifiability(self.target_world)
        if not known.one_mask:
            raise ConfigError(f"objective.masking=one_mask cannot recover this world: {known.reason}; {known.remedy}")
        if self.readout.method == "chain":
            raise ConfigError(
                "readout.method=chain asks about several hidden nodes, which objective.masking=one_mask never trains; "
                "set readout.method to stationary or least_squares, or objective.masking to random_subset"
            )

    def effective_readout(self) -> ReadoutConfig:
        """``auto`` made definite where the objective decides: one mask is never read by chains."""
        if self.readout.method == "auto" and self.objective.masking == "one_mask":
            pairs = self.target_world.distinct_sizes == (2,)
            return dataclasses.replace(self.readout, method="stationary" if pairs else "least_squares")
        return self.readout


def train_worker(task: PretrainTask, run_dir: Path, threads: int = 1, device: str = "cpu") -> None:
    """Train, or go on training, and on rank 0 finish the run. Every worker calls it with the same arguments.

    Args:
        task: the config.
        run_dir: shared by all workers.
        threads: torch threads of this worker.
        device: "cpu" or "cuda".
    """
    torch.set_num_threads(threads)
    started = time.time()
    worker = _Worker(task, run_dir, torch.device(device))
    start_step = worker.resume()
    loop.run(worker, worker.engine, task.train, start_step)
    worker.finish(started)


def find_checkpoint(run_dir: Path, fingerprint: str, world_size: int) -> tuple[checkpoint.Checkpoint | None, list[str]]:
    """The newest valid checkpoint of a run, if any, and a line for each newer one that is not.

    Raises:
        ConfigError: if it was written by another number of workers.
    """
    newest, complaints = checkpoint.newest(run_dir / "checkpoints", fingerprint)
    if newest is not None and newest.world_size != world_size:
        raise ConfigError(
            f"{newest.path}: written by {newest.world_size} workers, now there are {world_size}; "
            f"set cluster.num_workers={newest.world_size}, or use another run_dir"
        )
    return newest, complaints


class _Worker:
    """The task as the loop sees it: this rank's batches, evaluation, log and checkpoints."""

    def __init__(self, task: PretrainTask, run_dir: Path, device: torch.device) -> None:
        self.task, self.run_dir, self.device = task, run_dir, device
        self.world = task.target_world
        self.stream = task.stream()
        self.sampler = EdgeSampler(self.world, task.samples.seed)
        self.model = build_model(task.model, self.world, task.train.seed)
        self.masker = Masker(self.sampler, task.objective, merge=not self.model.sees_order)
        world_size = dist.get_world_size() if dist.is_initialized() else 1
        num_micro = task.train.num_micro(world_size)
        micro_batch = task.train.global_batch // (num_micro * world_size)
        self.engine: Engine = make_engine(
            task.engine, MaskedLoss(self.model), micro_batch=micro_batch, num_micro=num_micro, device=device
        )
        self.num_micro = num_micro
        self.fingerprint = task.fingerprint()
        self.runlog: RunLog | None = None

    def resume(self) -> int:
        """Load the newest valid checkpoint, if there is one, and bring the log back to its step."""
        engine = self.engine
        newest, complaints = find_checkpoint(self.run_dir, self.fingerprint, engine.world_size)
        engine.barrier()
        start_step = 0
        if newest is not None:
            engine.load(newest.path)
            start_step = newest.step
        if engine.rank == 0:
            checkpoint.sweep(self.run_dir / "checkpoints")
            self.runlog = RunLog(self.run_dir / "log.jsonl")
            self.runlog.rewind(start_step)
        self._note_attempt(start_step, complaints)
        return start_step

    def micro_batches(self, step: int) -> Sequence[MicroBatch]:
        positions = self.stream.positions(step, self.engine.rank, self.engine.world_size)
        shares = np.split(positions, self.num_micro)
        return [
            self._to_device(self.masker.batch(self.stream.ids(share), self.stream.visits(share))) for share in shares
        ]

    def evaluate(self, step: int) -> dict[str, float]:
        model = self._whole_model()
        if model is None:
            return {}
        comparison = read_and_compare(
            ModelConditionals(model),
            self.world,
            self.task.effective_readout(),
            self._counts(step),
            self.task.train.seed,
        )
        return {f"eval/{name}": value for name, value in comparison.metrics.items() if isinstance(value, float)}

    def log(self, step: int, metrics: dict[str, float]) -> None:
        assert self.runlog is not None
        memory = psutil.Process().memory_info().rss / 2**30
        self.runlog.append(step, **metrics, mem_gib=memory)

    def checkpoint(self, step: int) -> None:
        facts = {
            "fingerprint": self.fingerprint,
            "world_size": self.engine.world_size,
            "position": step * self.task.train.global_batch,
            "seeds": {
                "samples": self.task.samples.seed,
                "objective": self.task.objective.seed,
                "train": self.task.train.seed,
            },
        }
        checkpoint.write(
            self.run_dir / "checkpoints",
            step,
            facts,
            self.engine.save,
            rank=self.engine.rank,
            barrier=self.engine.barrier,
        )

    def finish(self, started: float) -> None:
        """Rank 0: keep the model, read the hypergraph out of it, and write down what the run says."""
        model = self._whole_model()
        if model is None:
            return
        model.eval()
        save_model(model, self.run_dir / "model")
        num_steps = self.task.train.num_steps
        counts = self._counts(num_steps)
        reading = time.time()
        comparison = read_and_compare(
            ModelConditionals(model), self.world, self.task.effective_readout(), counts, self.task.train.seed
        )
        np.save(self.run_dir / "counts.npy", counts)
        summary = comparison.metrics | self._facts(num_steps, started) | {"readout_s": time.time() - reading}
        if comparison.recovered is not None:
            # Here and not above: only this rank, and only now, needs matplotlib and its 30 MB.
            from hgscale.train.figure import recovery_figure

            write_recovered(self.world, comparison.recovered, self.run_dir / "recovered.json")
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
            "samples_per_s": num_steps * self.task.train.global_batch / train_s,
            "world_digest": self.world.digest,
            "fingerprint": self.fingerprint,
        }

    def _peak_memory_gib(self) -> float:
        """Most memory this worker has held: of the GPU where it trains on one, else resident in this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def _counts(self, num_steps: int) -> np.ndarray:
        """[E] int64: how often each edge stands among the very samples the model has seen."""
        num_seen = self.stream.num_seen(num_steps)
        counts = np.zeros(self.world.num_edges, dtype=np.int64)
        for start in range(0, num_seen, COUNT_CHUNK):
            positions = np.arange(start, min(start + COUNT_CHUNK, num_seen))
            counts += self.sampler.counts(self.stream.ids(positions))
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
