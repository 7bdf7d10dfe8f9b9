"""The verbs, a row each: where the code is, what its config is called, one line of help. Loads nothing of them.

A verb is a function of one config that returns one result with ``text()``. One that trains says what its cells in a
study are: its task, the function that each worker calls, and the measures that reports show.
"""

import sys
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from hgscale.errors import ConfigError


@dataclass(frozen=True)
class Trained:
    """What a study needs of a verb that trains, by import path.

    Attributes:
        task: the config, a ``train.protocol.Task``.
        work: a ``train.protocol.TrainWorker``.
        measures: a ``train.reports.Measures``.
        costs: a ``train.protocol.Costs``.
    """

    task: str
    work: str
    measures: str
    costs: str


@dataclass(frozen=True)
class Verb:
    """One job.

    Attributes:
        name: on the command line.
        module: where its function and its config are.
        config: name of its config.
        help: one line.
        function: name of its function.
        submits: whether a Ray job can run it.
        reads_pretrain: whether a file written for ``pretrain`` serves it too.
        trained: what a study needs of it; None: it trains nothing.
        of_another: it takes another verb and its config, as ``submit VERB``: the flag that the other must have.
        default_other: the other where none is named.
    """

    name: str
    module: str
    config: str
    help: str
    function: str
    submits: bool = False
    reads_pretrain: bool = False
    trained: Trained | None = None
    of_another: str = ""
    default_other: str | None = None

    @property
    def trains(self) -> bool:
        return self.trained is not None


def _verb(name: str, module: str, help: str, *, function: str | None = None, **more: object) -> Verb:
    return Verb(name, module, f"{name.capitalize()}Config", help, function or name, **more)  # type: ignore[arg-type]


VERBS: tuple[Verb, ...] = (
    _verb(
        "inspect",
        "hgscale.data.inspect",
        "describe a world: sizes, weights, identifiability, what counting achieves at given N",
        reads_pretrain=True,
    ),
    _verb(
        "generate",
        "hgscale.cluster.generate",
        "write a world, and samples of it, as Parquet shards; made by any number of workers, checked by --verify",
        submits=True,
        reads_pretrain=True,
    ),
    _verb(
        "pretrain",
        "hgscale.pretrain.run",
        "masked modelling on the samples of a world, ending with its recovery",
        submits=True,
        trained=Trained(
            "hgscale.pretrain.task:PretrainTask",
            "hgscale.pretrain.work:train_worker",
            "hgscale.pretrain.measures:MEASURES",
            "hgscale.pretrain.cost:COSTS",
        ),
    ),
    _verb(
        "recover",
        "hgscale.pretrain.recover",
        "read a hypergraph out of a trained model, in the same or another way",
        submits=True,
        reads_pretrain=True,
    ),
    _verb(
        "finetune",
        "hgscale.finetune.run",
        "VM-HAN on relations in sentences with images (MNRE, MORE, planted), ending with scores; --audit true: leaks",
        submits=True,
        trained=Trained(
            "hgscale.finetune.task:FinetuneTask",
            "hgscale.finetune.work:train_worker",
            "hgscale.finetune.measures:MEASURES",
            "hgscale.finetune.cost:COSTS",
        ),
    ),
    _verb(
        "study",
        "hgscale.study.run",
        "run the missing cells of a scaling study, many trainings that differ in a few fields",
        function="run_study",
        submits=True,
    ),
    _verb(
        "report",
        "hgscale.study.report",
        "tables, figures and one page of a study, or of several side by side",
        submits=True,
    ),
    _verb(
        "preflight",
        "hgscale.cluster.preflight",
        "check a training against this machine or a cluster, or plan it for one that is not there",
        of_another="trains",
        default_other="pretrain",
    ),
    _verb(
        "submit",
        "hgscale.cluster.submit",
        "run another verb on a Ray cluster, and follow it: hgscale submit VERB --address URL --config FILE ...",
        of_another="submits",
    ),
)


def verb(name: str) -> Verb:
    """The row of a verb.

    Raises:
        ConfigError: if there is none of the name.
    """
    for row in VERBS:
        if row.name == name:
            return row
    raise ConfigError(f"{name} is not a verb; use {', '.join(row.name for row in VERBS)}")


def trained(name: str, where: str) -> Trained:
    """What a study needs of a verb that trains.

    Args:
        name: of the verb.
        where: the field that names it.

    Raises:
        ConfigError: if there is no such verb, or it trains nothing.
    """
    found = {row.name: row.trained for row in VERBS if row.trained is not None}
    if name not in found:
        raise ConfigError(f"{where}={name} is no verb that trains; use one of {', '.join(found)}")
    return found[name]


class Room(ModuleType):
    """A room that is called as its verb, since the two have one name: ``hgscale.pretrain(config)``."""

    def __call__(self, config: Any) -> Any:
        """Run the verb, the function of this name in the room's ``run``."""
        name = self.__name__.rpartition(".")[2]
        return getattr(import_module(f"{self.__name__}.run"), name)(config)


def be_callable(room: str) -> None:
    """Let the package of a verb's room be called; its ``__init__`` asks for it."""
    sys.modules[room].__class__ = Room
