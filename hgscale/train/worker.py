"""What one worker of a training does whatever it trains: resume, log, commit checkpoints, and say what it cost.

Rank 0 leaves in the run directory: ``log.jsonl``, ``checkpoints/`` and ``attempts.jsonl``. A task adds its batches, its
evaluation and, last, ``summary.json``.
"""

import json
import os
import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist

from hgscale.train import checkpoint
from hgscale.train.config import TrainConfig
from hgscale.train.engine import Engine
from hgscale.train.loop import Place
from hgscale.train.runlog import RunLog, read_all
from hgscale.train.supervise import Attempt


class Worker:
    """This rank's side of ``loop.Trainee``, but for ``micro_batches`` and ``evaluate``.

    Attributes:
        engine: makes its steps.
        train: how long.
        run_dir: shared by all workers.
        fingerprint: of the task.
        seeds: what decides its randomness, kept with each checkpoint.
        hash_of_ids: of the samples given since it was last asked for; the task adds to it.
    """

    def __init__(
        self,
        engine: Engine,
        train: TrainConfig,
        run_dir: Path,
        fingerprint: str,
        seeds: Mapping[str, int],
        attempt: Attempt | None,
    ) -> None:
        self.engine, self.train, self.run_dir, self.attempt = engine, train, run_dir, attempt
        self.fingerprint, self.seeds = fingerprint, dict(seeds)
        self.device = engine.device
        self.hash_of_ids = 0
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
        newest: tuple[checkpoint.Checkpoint | None, list[str]] = found[0]
        return newest

    def ids_hash(self) -> int:
        taken, self.hash_of_ids = self.hash_of_ids, 0
        return taken

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        assert self.runlog is not None
        self._check_attempt()
        memory = psutil.Process().memory_info().rss / 2**30
        self.runlog.append(step, **metrics, mem_gib=memory)

    def checkpoint(self, place: Place) -> None:
        self._check_attempt()
        if self.runlog is not None:
            self.runlog.sync()
        facts = {
            "fingerprint": self.fingerprint,
            "world_size": self.engine.world_size,
            "position": place.step * self.train.global_batch,
            "since_log": {"losses": list(place.losses), "ids_hash": f"{place.ids_hash:016x}"},
            "seeds": self.seeds,
        }
        checkpoint.write(
            self.run_dir / "checkpoints",
            place.step,
            facts,
            self.engine.save,
            rank=self.engine.rank,
            barrier=self.engine.barrier,
        )

    def costs(self, started: float) -> dict[str, Any]:
        """What the summary says besides errors. ``train_s`` and ``samples_per_s`` are of all attempts, by the log."""
        assert self.runlog is not None
        records = [record for record in read_all(self.runlog.path) if "samples_per_s" in record]
        steps = np.diff([0] + [record["step"] for record in records])
        rates = np.array([record["samples_per_s"] for record in records])
        train_s = float((steps * self.train.global_batch / rates).sum())
        return {
            "engine": self.engine.config.name,
            "num_workers": self.engine.world_size,
            "num_steps": self.train.num_steps,
            "global_batch": self.train.global_batch,
            "final_loss": float(records[-1]["loss"]),
            "train_s": train_s,
            "peak_memory_gib": self._peak_memory_gib(),
            "seconds": time.time() - started,
            "cpu_s": time.process_time() - self.cpu_started_s,
            "samples_per_s": self.train.num_steps * self.train.global_batch / train_s,
            "fingerprint": self.fingerprint,
        }

    def _peak_memory_gib(self) -> float:
        """Most memory this worker has held: of the GPU where it trains on one, else resident in this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def _check_attempt(self) -> None:
        """Before rank 0 writes: a worker that was frozen while another attempt began must not disturb it."""
        if self.attempt is not None and self.engine.rank == 0:
            self.attempt.is_told_to_stop()

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


def engine_shares(train: TrainConfig) -> tuple[int, int, int]:
    """(number of workers, micro-batches a step on each, samples in one of them), of the group this process is in."""
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    num_micro = train.num_micro(world_size)
    return world_size, num_micro, train.global_batch // (num_micro * world_size)
