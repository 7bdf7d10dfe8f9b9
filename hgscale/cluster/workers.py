"""A group of workers around a function, once: a cluster to run it on, room for it, and why it failed."""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hgscale.cluster.signals import stop_on_signal
from hgscale.config import runs_home
from hgscale.errors import ConfigError, HgscaleError, RunError

ROOM_WAIT_S = 10.0  # that Ray takes at most to give free a group that has ended
DRAIN_POLL_S = 2.0

OBJECT_STORE_BYTES = 100 * 2**20  # workers talk through gloo or nccl; the store holds little more than a config


class LostError(RunError):
    """A worker died, or failed by no fault that we know: another attempt may do better."""


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where a run is computed. Nothing here decides a number."""

    launcher: Literal["ray", "none"] = "ray"
    """ray: a Ray Train worker group. none: one worker, in this process, without Ray."""

    address: str | None = None
    """Ray cluster to join, as "auto" or "ray://head:10001"; null: $RAY_ADDRESS, else a private one on this machine."""

    num_workers: int | dict[str, int] = 1
    """Workers; each holds a share of every batch. {min: 1, max: 4}: as many as find room whenever the group starts."""

    cpus_per_worker: float = 1
    """Cores that Ray sets aside for each worker."""

    use_gpu: bool = False
    """Give each worker one GPU, and train on it."""

    threads_per_worker: int = 1
    """Torch threads of each worker. More than 1 made small models 50 times slower on shared cores."""

    max_failures: int = 3
    """How often in a row a lost worker is answered by a restart of the group; a new checkpoint sets the count to 0."""

    wait_min: float = 30.0
    """Minutes that a restart waits for room on the cluster."""

    grace_s: float = 30.0
    """Seconds from being told to stop (SIGTERM, Ctrl-C) to the end, in which a checkpoint is written."""

    stuck_after_s: float | None = 600.0
    """Seconds after which a step that does not end is given up: the workers leave their stacks and are restarted.
    Null, or launcher none: never."""

    def __post_init__(self) -> None:
        for name in ("cpus_per_worker", "threads_per_worker", "wait_min", "grace_s", "stuck_after_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"cluster.{name}={value} is not positive; give a value above 0")
        if self.max_failures < 0:
            raise ConfigError(f"cluster.max_failures={self.max_failures} is negative; 0 never restarts")
        self._check_num_workers()
        if self.launcher == "none" and self.num_workers != 1:
            raise ConfigError(
                f"cluster.launcher=none runs in this process, but cluster.num_workers={self.num_workers}; "
                "set num_workers to 1, or launcher to ray"
            )

    def _check_num_workers(self) -> None:
        if isinstance(self.num_workers, dict) and self.num_workers.keys() != {"min", "max"}:
            raise ConfigError(f"cluster.num_workers={self.num_workers}: give a number, or {{min: 1, max: 4}}")
        if not 1 <= self.min_workers <= self.max_workers:
            raise ConfigError(f"cluster.num_workers={self.num_workers}: give at least 1, and min no larger than max")

    @property
    def min_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers["min"]

    @property
    def max_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers["max"]

    @property
    def device(self) -> str:
        return "cuda" if self.use_gpu else "cpu"

    @property
    def bundle(self) -> dict[str, float]:
        """What one worker takes of a node."""
        return {"CPU": self.cpus_per_worker} | ({"GPU": 1.0} if self.use_gpu else {})


@dataclass(frozen=True)
class Beside:
    """What a run takes from the cluster besides its workers.

    Attributes:
        num_feeders: CPUs that make batches.
        store_bytes: of Ray's object store, for batches that wait.
    """

    num_feeders: int = 0
    store_bytes: int = 0


def check_room(config: ClusterConfig, beside: Beside = Beside(), is_joined: bool = False) -> None:
    """Refuse more workers than a cluster holds.

    Args:
        config: how many, at least, and what each takes.
        beside: what is taken besides.
        is_joined: ask the cluster that this process uses. Otherwise the machine, before a private one is started on it:
            a cluster to join, and GPUs, are asked once it is joined.

    Raises:
        ConfigError: naming the most workers that fit.
    """
    if is_joined:
        import ray

        _check_room(config, beside, ray.cluster_resources())
    elif config.launcher == "ray" and not (config.address or os.environ.get("RAY_ADDRESS")):
        _check_room(replace(config, use_gpu=False), beside, {"CPU": os.cpu_count() or 1})


def has_room(config: ClusterConfig, size: int, beside: Beside = Beside()) -> bool:
    """Whether a group of this many workers could start now: Ray is asked to set it aside, for a moment."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    bundles = [config.bundle] * size + [{"CPU": 1.0}] * beside.num_feeders
    there = ray.cluster_resources()
    if any(sum(bundle.get(name, 0.0) for bundle in bundles) > there.get(name, 0.0) for name in ("CPU", "GPU")):
        return False
    group = placement_group(bundles)
    try:
        return bool(group.wait(ROOM_WAIT_S))
    finally:
        remove_placement_group(group)


def fit(
    function: Callable[..., None], arguments: dict[str, Any], config: ClusterConfig, run_dir: Path, size: int
) -> None:
    """Call ``function(**arguments)`` in every worker of a group, on a Ray that is there, and wait for all of them.

    Args:
        function: the same in each worker; torch.distributed is ready when there are several.
        arguments: picklable.
        config: what each worker takes.
        run_dir: where Ray keeps its own notes about the group.
        size: number of workers.

    Raises:
        LostError: if a worker died, or failed by no fault that we know.
        HgscaleError: what the function raised.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    home = str(runs_home())  # of this process: a worker's working directory may be another

    def worker(_: dict[str, Any]) -> None:
        os.environ["HGSCALE_HOME"] = home
        with _told_when_drained():
            function(**arguments)

    trainer = TorchTrainer(
        worker,
        train_loop_config={},
        torch_config=_torch_config("nccl" if config.use_gpu else "gloo", hears_sigterm="attempt" in arguments),
        scaling_config=ScalingConfig(num_workers=size, use_gpu=config.use_gpu, resources_per_worker=config.bundle),
        run_config=RunConfig(
            name="group",
            storage_path=str((run_dir / "ray").resolve()),
            failure_config=FailureConfig(max_failures=0),
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:  # Ray wraps what a worker raised in types of its own; the first cause is what helps
        raise cause(error) from error
    if result.error is not None:
        raise cause(result.error) from result.error


def _torch_config(backend: str, hears_sigterm: bool) -> Any:
    """Ray's setting up of torch.distributed; a worker that gets SIGTERM is told, where by default it would end.

    The handler is put in place in the actor's main thread, which Ray wakes every two seconds; training has another.
    """
    from ray.train.torch import TorchConfig

    if not hears_sigterm:
        return TorchConfig(backend=backend)

    class Backend(TorchConfig().backend_cls):  # type: ignore[misc]
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            super().on_start(worker_group, backend_config)
            # Without this method a worker that gets SIGTERM ends at once, and is one that is lost.
            if (execute := getattr(worker_group, "execute", None)) is not None:
                execute(_hear_sigterm)

    return type("Config", (TorchConfig,), {"backend_cls": property(lambda _: Backend)})(backend=backend)


def _hear_sigterm() -> None:
    import signal

    from hgscale.train.supervise import tell_to_stop

    def handle(*_: Any) -> None:
        if not tell_to_stop():
            raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, handle)


@contextmanager
def _told_when_drained() -> Iterator[None]:
    """In a worker: while this lasts, it is told to stop when its node is about to be taken away."""
    import ray

    from hgscale.train.supervise import tell_to_stop

    draining = _draining_nodes()
    if draining is None:
        yield
        return
    here, over = ray.get_runtime_context().get_node_id(), threading.Event()

    def watch() -> None:
        while not over.wait(DRAIN_POLL_S):
            if here in draining():
                tell_to_stop()
                return

    thread = threading.Thread(target=watch, name="drain", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _draining_nodes() -> Callable[[], Mapping[str, int]] | None:
    """Asks Ray which nodes are about to be taken away; None where this Ray has no such name, which is private.

    Ray's public way, ``ray.train.get_preemption_info``, costs a process more in each group. Without either, a node
    that is taken away is one that is lost.
    """
    try:
        from ray._private.state import state
    except ImportError:
        return None
    found: Callable[[], Mapping[str, int]] | None = getattr(state, "get_draining_nodes", None)
    return found


def _is_death(failure: BaseException) -> bool:
    """Whether Ray says by this that a worker's process is gone.

    The class is private to Ray; without it the failure is shown as any other.
    """
    try:
        from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
    except ImportError:
        return False
    return isinstance(failure, WorkerHealthCheckFailedError)


def cause(error: BaseException) -> HgscaleError:
    """The error of the worker that failed first, as one of ours; of several the one that we raised ourselves."""
    failures = {rank: _innermost(failure) for rank, failure in getattr(error, "worker_failures", {}).items()}
    for inner in [*failures.values(), _innermost(error)]:
        if isinstance(inner, HgscaleError):
            return inner
    dead = [rank for rank, failure in failures.items() if _is_death(failure)]
    if dead:
        return LostError(f"worker {dead[0]} died")
    inner = next(iter(failures.values()), _innermost(error))
    reason = next((line.strip() for line in str(inner).splitlines() if line.strip()), "")
    # The others of a worker that died find their connection to it closed, and gloo adds advice.
    return LostError(f"a worker failed: {type(inner).__name__}: {reason.partition('. This is typically')[0]}")


def _innermost(error: BaseException) -> BaseException:
    while (deeper := getattr(error, "cause", None) or error.__cause__) is not None and deeper is not error:
        error = deeper
    return error


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
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process more; our workers watch themselves
    if not address:
        # The processes of a private cluster inherit this environment; Ray reads some of it when it is imported.
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # Ray's many threads would hold an arena of memory each
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
                address="local",  # without it Ray joins what `ray start` has left on this machine
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
    cpus, there = config.cpus_per_worker * config.min_workers, resources.get("CPU", 0.0)
    if beside.num_feeders and cpus <= there < cpus + beside.num_feeders:
        raise ConfigError(
            f"feed.num_feeders={beside.num_feeders} beside cluster.num_workers={config.min_workers} needs "
            f"{cpus + beside.num_feeders:g} CPUs, but there are {there:g}; use at most {int(there - cpus)} feeders"
        )
    for name, each in config.bundle.items():
        wanted, there = each * config.min_workers, resources.get(name, 0.0)
        if wanted > there:
            raise ConfigError(
                f"cluster.num_workers={config.min_workers} needs {wanted:g} {name}s, but there are {there:g}; "
                f"use at most {int(there // each)} workers"
            )
