"""The verb ``pretrain``: masked modelling on the samples of a world, as one run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hgscale.cluster.carry_out import Run, RunResult, carry_out
from hgscale.cluster.feed import FeedConfig, RayFeed
from hgscale.cluster.workers import Beside, ClusterConfig, check_room
from hgscale.config import RESULT
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

    run_dir: str | None = field(default=None, metadata=RESULT)
    """Directory of the run, shared by all workers; null: pretrain-<fingerprint> under $HGSCALE_HOME or runs."""

    def check_run(self) -> None:
        """``cluster.job.Checked``."""
        self.check_task()
        self.beside()
        self.sizes(self.cluster.min_workers, self.cluster.max_workers)

    def beside(self) -> Beside:
        """What the feeders take.

        Raises:
            ConfigError: if there is no Ray for them.
        """
        if self.feed.num_feeders == 0:
            return Beside()
        if self.cluster.launcher == "none":
            raise ConfigError(
                f"feed.num_feeders={self.feed.num_feeders} makes batches on Ray, but cluster.launcher=none runs "
                "without; set launcher to ray, or num_feeders to 0"
            )
        # Twice: besides the batches that wait there are those being made and those being taken.
        return Beside(self.feed.num_feeders, 2 * self.feed.buffer_bytes * self.cluster.max_workers)


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
    beside = config.beside()
    check_room(config.cluster, beside)
    world = config.target_world
    source = config.world.path or f"generator {config.world.generator}"
    arguments = {
        "task": config.fresh(),
        "threads": config.cluster.threads_per_worker,
        "device": config.cluster.device,
    }
    if config.feed.num_feeders:
        arguments["source"] = RayFeed(config.feed)
    run = Run(
        verb="pretrain",
        config=config,
        fingerprint=config.fingerprint(),
        work="hgscale.pretrain.work:train_worker",
        arguments=arguments,
        sizes=sizes,
        beside=beside,
        data=DataInput("world", world.digest, {"num_nodes": world.num_nodes, "num_edges": world.num_edges}, source),
        tags={"hgscale.world": world.digest},
        artifacts=("config.yaml", "summary.json", "recovered.json", "log.jsonl"),
        figures=("recovery.png",),
        headline=_headline(config),
        told=recovery_text,
    )
    return carry_out(run)


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


def recovery_text(summary: Mapping[str, Any]) -> str:
    """What a read-out comes to, in lines for a terminal."""

    def number(name: str) -> str:
        value = summary.get(name)
        return "-" if value is None else f"{value:.4f}"

    interval = ""
    if summary.get("recovery_l1_low") is not None:
        interval = f"   95% [{number('recovery_l1_low')}, {number('recovery_l1_high')}]"
    return "\n".join(
        [
            f"recovery l1   {number('recovery_l1')}{interval}   ({summary['readout']}; off the support "
            f"{number('off_support_mass')})",
            f"count floor   {number('count_floor_l1')}   expected of counting {summary['num_samples']:,} samples",
            f"counting      {number('count_l1')}   on the very samples the model saw",
            f"ratio         {number('ratio_to_floor')} to the floor, {number('ratio_to_count')} to counting",
        ]
    )
