"""How much of a world's relations a pre-trained model recovers, and how much data that takes, at any scale.

Each verb of the command line is a function of one config that returns one result (``study`` is ``run_study``: the name
is its room's). They are found on first use, so that ``import hgscale`` loads nothing heavy.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_OWNERS = {
    "inspect": "hgscale.data.inspect",
    "InspectConfig": "hgscale.data.inspect",
    "InspectResult": "hgscale.hypergraph.worlds.inspect",
    "generate": "hgscale.cluster.generate",
    "GenerateConfig": "hgscale.cluster.generate",
    "GenerateResult": "hgscale.cluster.generate",
    "pretrain": "hgscale.pretrain.run",
    "PretrainConfig": "hgscale.pretrain.run",
    "RunResult": "hgscale.cluster.carry_out",
    "finetune": "hgscale.finetune.run",
    "FinetuneConfig": "hgscale.finetune.run",
    "preflight": "hgscale.pretrain.preflight",
    "PreflightConfig": "hgscale.pretrain.preflight",
    "PreflightResult": "hgscale.pretrain.preflight",
    "recover": "hgscale.pretrain.recover",
    "RecoverConfig": "hgscale.pretrain.recover",
    "RecoverResult": "hgscale.pretrain.recover",
    "run_study": "hgscale.study.run",
    "StudyConfig": "hgscale.study.grid",
    "StudyResult": "hgscale.study.run",
    "report": "hgscale.study.report",
    "ReportConfig": "hgscale.study.report",
    "ReportResult": "hgscale.study.report",
    "submit": "hgscale.cluster.submit",
    "Job": "hgscale.cluster.submit",
    "SubmitConfig": "hgscale.cluster.submit",
    "SubmitResult": "hgscale.cluster.submit",
}

__all__ = ["__version__", *_OWNERS]


def __getattr__(name: str) -> Any:
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OWNERS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
