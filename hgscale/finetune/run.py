"""The verb ``finetune``: VM-HAN on relations between the entities of texts and the objects of their images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgscale.cluster.carry_out import Run, RunResult, carry_out
from hgscale.cluster.workers import Beside, ClusterConfig, check_room
from hgscale.config import RESULT, WRITES
from hgscale.finetune.data.audit import Audit, audit
from hgscale.finetune.data.names import write_world
from hgscale.finetune.data.planted import made
from hgscale.finetune.features import compute_features, features_dir
from hgscale.finetune.rows import frozen_items
from hgscale.finetune.task import FinetuneTask
from hgscale.hypergraph import io
from hgscale.hypergraph.structure import Hypergraph
from hgscale.tracking import DataInput, TrackingConfig

ARTIFACTS = (
    "config.yaml", "summary.json", "log.jsonl", "per_class.csv", "confusion.csv", "calibration.csv",
    "predictions.jsonl",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(FinetuneTask):
    """Train a variational multimodal hypergraph attention network on relations in sentences with images."""

    audit: bool = False
    """Train nothing: ask simple probes, which see no pixel, how much of the label each input gives away."""

    write_world: str | None = field(default=None, metadata=WRITES)
    """Train nothing: write a HIF file here, the world of names that are mentioned together, which `hgscale pretrain`
    reads as world.path and whose run model.init_from names."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where it is computed."""

    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where it is remembered."""

    run_dir: str | None = field(default=None, metadata=RESULT)
    """Directory of the run, shared by all workers; null: finetune-<fingerprint> under $HGSCALE_HOME or runs."""

    def check_run(self) -> None:
        """``cluster.job.Checked``."""
        self.check_task()
        self.sizes(self.cluster.min_workers, self.cluster.max_workers)

    def beside(self) -> Beside:
        """Nothing beside the workers."""
        return Beside()


@dataclass(frozen=True)
class WorldResult:
    """The world of names that ``write_world`` wrote."""

    world: Hypergraph
    path: Path

    def text(self) -> str:
        """What the command prints."""
        return f"world         {self.world.num_nodes:,} names in {self.world.num_edges:,} hyperedges; {self.path}"


def finetune(config: FinetuneConfig) -> RunResult | Audit | WorldResult:
    """Run a fine-tuning to its end, from wherever an earlier attempt left it; or, if asked for, train nothing.

    A run that is finished already is not repeated: its summary is returned.

    Returns:
        With ``audit`` all probes, those of words too (minutes on MNRE); with ``write_world`` the world of names.

    Raises:
        ConfigError: if the request cannot be met; nothing has been written then.
        DataError: if a file of the data is wrong.
        RunError: if the run failed; the newest checkpoint stays, and the MLflow run ends FAILED.
    """
    config = config.with_data_dir(None)  # workers have a working directory of their own
    if config.write_world is not None:
        return world_of(config, Path(config.write_world))
    if config.audit:
        return audit(config.relations)
    config.check_task()
    sizes = config.sizes(config.cluster.min_workers, config.cluster.max_workers)
    check_room(config.cluster, Beside())
    relations = config.relations
    profile = {
        "num_contexts": len(relations.train),
        "num_pairs": relations.train.num_pairs,
        "num_labels": len(relations.labels),
    }
    for _, encoder, items in frozen_items(config, config.relations.splits):
        compute_features(items, encoder, features_dir(), config.cluster)
    run = Run(
        verb="finetune",
        config=config,
        fingerprint=config.fingerprint(),
        work="hgscale.finetune.work:train_worker",
        arguments={
            "task": config.fresh(),
            "threads": config.cluster.threads_per_worker,
            "device": config.cluster.device,
        },
        sizes=sizes,
        beside=Beside(),
        data=DataInput("relations", relations.digest, profile, config.data.root or config.data.name),
        tags={"hgscale.data": relations.digest, "hgscale.leaks": ", ".join(config.gate.leaks) or "none"},
        artifacts=ARTIFACTS,
        figures=("scores.png", "attention.png"),
        headline=_headline(config),
        told=_scores_text,
    )
    return carry_out(run)


def world_of(config: FinetuneConfig, path: Path) -> WorldResult:
    """``write_world``: of planted names their own file, of other data what the training contexts mention.

    Raises:
        DataError: if no two names are ever mentioned together.
        RunError: if the file cannot be written.
    """
    relations = config.relations
    if config.data.name == "planted" and config.data.planted.mode == "names":
        world = io.read(made(config.data).root / "world.json")
        io.write(world, path, format="hif")
        return WorldResult(world, path)
    return WorldResult(write_world(relations, path), path)


def _scores_text(summary: Mapping[str, Any]) -> str:
    lines = [f"{'':13} {'F1':>7} {'precision':>10} {'recall':>7} {'accuracy':>9} {'calibration error':>18}"]
    for split in ("val", "test"):
        f1, precision, recall, accuracy, ece = (
            summary[f"{split}_{name}"] for name in ("f1", "precision", "recall", "accuracy", "ece")
        )
        lines.append(f"{split:13} {f1:7.4f} {precision:10.4f} {recall:7.4f} {accuracy:9.4f} {ece:18.4f}")
    if summary["leaks"]:
        lines.append(f"leaks         {summary['leaks']}: not comparable with clean numbers")
    return "\n".join(lines)


def _headline(config: FinetuneConfig) -> str:
    """What is about to happen."""
    train, few, many = config.relations.train, config.cluster.min_workers, config.cluster.max_workers
    workers = f"{few}" if few == many else f"{few} to {many}"
    where = "in this process" if config.cluster.launcher == "none" else f"on {workers} Ray workers"
    seen = "texts and images" if config.sees_images else "texts"
    leaks = f", which give the label away by {', '.join(config.gate.leaks)}" if config.gate.leaks else ""
    return (
        f"{train.num_pairs:,} pairs in {len(train):,} contexts, {seen}{leaks}; "
        f"{config.train.num_steps:,} steps with {config.engine.name} {where}"
    )
