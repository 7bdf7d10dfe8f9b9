"""The verb ``pretrain``: masked modelling on the samples of a world, as one run."""

from dataclasses import dataclass, field, replace
from typing import Any

from hgscale.cluster.carry_out import Run, RunResult, carry_out
from hgscale.cluster.feed import FeedConfig, RayFeed
from hgscale.cluster.workers import Beside, ClusterConfig, check_room
from hgscale.errors import ConfigError
from hgscale.pretrain.task import PretrainTask
from hgscale.tracking import DataInput, TrackingConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(PretrainTask):
    """Pre-train a transformer by masked modelling on the samples of a world, and read the world back out of it."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where it is computed."""

    feed: FeedConfig = field(default_factory=FeedConfig)
    """Where its batches are made."""

    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where it is remembered."""

    run_dir: str | None = None
    """Directory of the run, shared by all workers; null: pretrain-<fingerprint> under $HGSCALE_HOME or runs."""


def pretrain(config: PretrainConfig) -> RunResult:
    """Run a pre-training to its end, from wherever an earlier attempt left it.

    A run that is finished already is not repeated: its summary is returned.

    Raises:
        ConfigError: if the request cannot be met; nothing has been written then.
        DataError: if the world's file is wrong.
        RunError: if the run failed; the newest checkpoint stays, and the MLflow run ends FAILED.
    """
    config = config.with_data_dir(None)  # workers have a working directory of their own
    config.check_task()
    sizes = config.sizes(config.cluster.min_workers, config.cluster.max_workers)
    beside = _beside(config)
    check_room(config.cluster, beside)
    world = config.target_world
    source = config.world.path or f"generator {config.world.generator}"
    arguments = {
        "task": replace(config),  # which leaves behind the cached world: each worker opens it for itself
        "threads": config.cluster.threads_per_worker,
        "device": config.cluster.device,
    }
    if config.feed.num_feeders:
        arguments["source"] = RayFeed(config.feed)
    run = Run(
        verb="pretrain",
        config=config,
        fingerprint=config.fingerprint(),
        function=_train,
        arguments=arguments,
        sizes=sizes,
        beside=beside,
        data=DataInput("world", world.digest, {"num_nodes": world.num_nodes, "num_edges": world.num_edges}, source),
        tags={"hgscale.world": world.digest},
        artifacts=("config.yaml", "summary.json", "recovery.png", "recovered.json", "log.jsonl"),
        headline=_headline(config),
    )
    return carry_out(run)


def _train(task: PretrainTask, **arguments: Any) -> None:
    """In a worker. Torch is loaded there, and not by who only starts workers."""
    task.worker()(task=task, **arguments)


def _beside(config: PretrainConfig) -> Beside:
    """What the feeders take."""
    if config.feed.num_feeders == 0:
        return Beside()
    if config.cluster.launcher == "none":
        raise ConfigError(
            f"feed.num_feeders={config.feed.num_feeders} makes batches on Ray, but cluster.launcher=none runs without; "
            "set launcher to ray, or num_feeders to 0"
        )
    # Twice: besides the batches that wait there are those being made and those being taken.
    return Beside(config.feed.num_feeders, 2 * config.feed.buffer_bytes * config.cluster.max_workers)


def _headline(config: PretrainConfig) -> str:
    """What is about to happen."""
    world, samples = config.target_world, config.samples.num_samples
    few, many = config.cluster.min_workers, config.cluster.max_workers
    workers = f"{few}" if few == many else f"{few} to {many}"
    where = "in this process" if config.cluster.launcher == "none" else f"on {workers} Ray workers"
    return (
        f"{world.num_edges:,} edges over {world.num_nodes:,} nodes, "
        f"{'fresh samples' if samples is None else f'N = {samples:,} samples'}, "
        f"{config.train.num_steps:,} steps with {config.engine.name} {where}"
    )
