"""The verbs, a row each: where the code is, what its config is called, one line of help. Loads nothing of them.

A verb is a function of one config that returns one result with ``text()``. One that trains says what its cells in a
study are: its task, the function that each worker calls, and the measures that reports show.
"""

from dataclasses import dataclass

from hgscale.errors import ConfigError


@dataclass(frozen=True)
class Trained:
    """What a study needs of a verb that trains, by import path.

    Attributes:
        task: the config, a ``train.protocol.Task``.
        work: a ``train.protocol.TrainWorker``.
        measures: a ``train.protocol.Measures``.
    """

    task: str
    work: str
    measures: str


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
    """

    name: str
    module: str
    config: str
    help: str
    function: str
    submits: bool = False
    reads_pretrain: bool = False
    trained: Trained | None = None


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
        "check a config against this machine or a cluster, or plan it for one that is not there",
    ),
    _verb(
        "submit",
        "hgscale.cluster.submit",
        "run another verb on a Ray cluster, and follow it: hgscale submit VERB --address URL --config FILE ...",
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
