"""A group of workers around a function: Ray Train, or this very process."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hgscale.cluster.signals import stop_on_signal
from hgscale.errors import ConfigError, HgscaleError, RunError

OBJECT_STORE_BYTES = 100 * 2**20  # workers talk through gloo or nccl; the store holds little more than a config


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where a run is computed. Nothing here decides a number."""

    launcher: Literal["ray", "none"] = "ray"
    """ray: a Ray Train worker group. none: one worker, in this process, without Ray."""

    address: str | None = None
    """Ray cluster to join, as "auto" or "ray://head:10001"; null: $RAY_ADDRESS, else a private one on this machine."""

    num_workers: int = 1
    """Workers; each holds a share of every batch."""

    cpus_per_worker: float = 1
    """Cores that Ray sets aside for each worker."""

    use_gpu: bool = False
    """Give each worker one GPU, and train on it."""

    threads_per_worker: int = 1
    """Torch threads of each worker. More than 1 made small models 50 times slower on shared cores."""

    max_failures: int = 3
    """How often a lost worker is answered by a restart of the group from the newest checkpoint."""

    def __post_init__(self) -> None:
        for name in ("num_workers", "cpus_per_worker", "threads_per_worker"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"cluster.{name}={getattr(self, name)} is not positive; give at least 1")
        if self.launcher == "none" and self.num_workers != 1:
            raise ConfigError(
                f"cluster.launcher=none runs in this process, but cluster.num_workers={self.num_workers}; "
                "set num_workers to 1, or launcher to ray"
            )

    @property
    def device(self) -> str:
        return "cuda" if self.use_gpu else "cpu"


@dataclass(frozen=True)
class Beside:
    """What a run takes from the cluster besides its workers.

    Attributes:
        num_feeders: CPUs that make batches.
        store_bytes: of Ray's object store, for batches that wait.
    """

    num_feeders: int = 0
    store_bytes: int = 0


def check_room(config: ClusterConfig, beside: Beside = Beside()) -> None:
    """Refuse more workers than this machine has cores, before a private cluster is started on it.

    Raises:
        ConfigError: naming the most workers that fit. A cluster to join, and GPUs, are asked once it is joined.
    """
    if config.launcher == "ray" and not (config.address or os.environ.get("RAY_ADDRESS")):
        _check_room(replace(config, use_gpu=False), beside, {"CPU": os.cpu_count() or 1})


def run_group(
    function: Callable[..., None],
    arguments: dict[str, Any],
    config: ClusterConfig,
    run_dir: Path,
    beside: Beside = Beside(),
) -> None:
    """Call ``function(**arguments)`` in every worker and wait for all of them.

    The function is called again, by all workers, after one was lost: it must find its own place.

    Args:
        function: the same in each worker; torch.distributed is ready when there are several.
        arguments: picklable.
        config: how many workers, and where.
        run_dir: where Ray keeps its own notes about the group.
        beside: what the workers will use besides themselves.

    Raises:
        ConfigError: if the cluster cannot hold the workers.
        RunError: if the function failed, or workers were lost too often.
    """
    if config.launcher == "none":
        function(**arguments)
        return
    with ray_cluster(config.address, config.threads_per_worker, beside.store_bytes):
        fit(function, arguments, config, run_dir, beside)


def fit(
    function: Callable[..., None],
    arguments: dict[str, Any],
    config: ClusterConfig,
    run_dir: Path,
    beside: Beside = Beside(),
) -> None:
    """The same on a Ray that is there."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    _check_room(config, beside, ray.cluster_resources())

    def worker(_: dict[str, Any]) -> None:
        function(**arguments)

    trainer = TorchTrainer(
        worker,
        train_loop_config={},
        torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": config.cpus_per_worker} | ({"GPU": 1} if config.use_gpu else {}),
        ),
        run_config=RunConfig(
            name="group",
            storage_path=str((run_dir / "ray").resolve()),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:  # Ray wraps what a worker raised in types of its own; the first cause is what helps
        raise cause(error) from error
    if result.error is not None:
        raise cause(result.error) from result.error


def cause(error: BaseException) -> HgscaleError:
    """The error of the worker that failed first, as one of ours."""
    failures = getattr(error, "worker_failures", None)
    inner: BaseException = next(iter(failures.values())) if failures else error
    while (deeper := getattr(inner, "cause", None) or inner.__cause__) is not None and deeper is not inner:
        inner = deeper
    if isinstance(inner, HgscaleError):
        return inner
    last_line = [line for line in str(inner).splitlines() if line.strip()][-1:] or [""]
    return RunError(f"a worker failed: {type(inner).__name__}: {last_line[0].strip()}")


@contextmanager
def ray_cluster(address: str | None, threads: int, store_bytes: int = 0) -> Iterator[None]:
    """Join a cluster, or start a private one and end it afterwards; one that this process uses already stays as it is.

    Args:
        address: of the cluster; None: $RAY_ADDRESS, else a private one on this machine.
        threads: torch threads of its processes.
        store_bytes: that the object store of a private cluster holds besides the little that workers need.

    Raises:
        ConfigError: if it cannot be joined.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not address:
        # The processes of a private cluster inherit this environment; Ray reads some of it when it is imported.
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # Ray's many threads would hold an arena of memory each
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process more; nothing preempts us here
        os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's 15 a busy machine would starve the workers
    import ray

    if ray.is_initialized():
        yield
        return
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES + store_bytes,
                # Ray's helpers miss the dashboard and say so every second; our workers speak through the run directory.
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # Ray raises plain ones as well, as when a busy machine starts it too slowly
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if address:
            raise ConfigError(f"Ray at {address}: cannot join ({reason}); start it, or set address to null") from None
        raise RunError(f"Ray did not start on this machine ({reason}); run the same command again") from None
    try:
        # Ray's start puts a handler in the place of ours that kills this process three seconds after a SIGTERM,
        # whatever it is tidying up; hence ours once more.
        with stop_on_signal():
            yield
    finally:
        ray.shutdown()


def _check_room(config: ClusterConfig, beside: Beside, resources: dict[str, float]) -> None:
    cpus, there = config.cpus_per_worker * config.num_workers, resources.get("CPU", 0.0)
    if beside.num_feeders and cpus <= there < cpus + beside.num_feeders:
        raise ConfigError(
            f"feed.num_feeders={beside.num_feeders} beside cluster.num_workers={config.num_workers} needs "
            f"{cpus + beside.num_feeders:g} CPUs, but there are {there:g}; use at most {int(there - cpus)} feeders"
        )
    for name, each in (("CPU", config.cpus_per_worker), ("GPU", 1.0 if config.use_gpu else 0.0)):
        wanted, there = each * config.num_workers, resources.get(name, 0.0)
        if each and wanted > there:
            raise ConfigError(
                f"cluster.num_workers={config.num_workers} needs {wanted:g} {name}s, but there are {there:g}; "
                f"use at most {int(there // each)} workers"
            )
