"""How much of a world's relations a pre-trained model recovers, and how much data that takes, at any scale.

Each verb of the command line is a function of one config that returns one result (``study`` is ``run_study``: the name
is its room's). They are found on first use, so that ``import hgscale`` loads nothing heavy.
"""

from importlib import import_module
from typing import Any

from hgscale.verbs import VERBS

__version__ = "0.1.0"

_OWNERS = {
    **{name: row.module for row in VERBS for name in (row.function, row.config)},
    "WorldConfig": "hgscale.hypergraph.worlds.config",
    "SamplesConfig": "hgscale.data.stream",
    "ObjectiveConfig": "hgscale.data.masking",
    "ModelConfig": "hgscale.models.config",
    "TrainConfig": "hgscale.train.config",
    "EngineConfig": "hgscale.train.config",
    "ReadoutConfig": "hgscale.hypergraph.recovery.readout",
    "ClusterConfig": "hgscale.cluster.workers",
    "FeedConfig": "hgscale.cluster.feed",
    "TrackingConfig": "hgscale.tracking.store",
    "AnalysisConfig": "hgscale.study.analysis",
    "Hypergraph": "hgscale.hypergraph.structure",
    "world": "hgscale.data.worlds",
    "Conditionals": "hgscale.hypergraph.recovery.conditionals",
    "OracleConditionals": "hgscale.hypergraph.recovery.conditionals",
    "read_out": "hgscale.hypergraph.recovery.face",
    "compare": "hgscale.hypergraph.recovery.comparison",
    "recovery_figure": "hgscale.pretrain.figure",
    "read": "hgscale.hypergraph.io",
    "write": "hgscale.hypergraph.io",
    "PretrainTask": "hgscale.pretrain.task",
    "FinetuneTask": "hgscale.finetune.task",
    "Objective": "hgscale.data.masking",
    "batches": "hgscale.data.batches",
    "ModelConditionals": "hgscale.models.build",
    "InspectResult": "hgscale.hypergraph.worlds.inspect",
    "GenerateResult": "hgscale.cluster.generate",
    "RunResult": "hgscale.cluster.carry_out",
    "RecoverResult": "hgscale.pretrain.recover",
    "StudyConfig": "hgscale.study.grid",
    "StudyResult": "hgscale.study.run",
    "ReportResult": "hgscale.study.report",
    "PreflightResult": "hgscale.cluster.preflight",
    "Job": "hgscale.cluster.job",
    "SubmitResult": "hgscale.cluster.submit",
}

__all__ = ["__version__", *_OWNERS]


def __getattr__(name: str) -> Any:
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OWNERS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
