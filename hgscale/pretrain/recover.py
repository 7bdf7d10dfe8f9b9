"""The verb ``recover``: read a hypergraph out of a trained model once more, and write down how far it is off."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import nn

from hgscale import config as configs
from hgscale.config import RESULT
from hgscale.data.stream import Stream
from hgscale.errors import ConfigError, DataError
from hgscale.files import write_json
from hgscale.hypergraph import io
from hgscale.hypergraph.recovery.comparison import Comparison, read_and_compare, read_and_estimate
from hgscale.hypergraph.recovery.conditionals import Recovered
from hgscale.hypergraph.recovery.readout import ReadoutConfig, check_readout, definite
from hgscale.hypergraph.structure import Hypergraph, Sampler
from hgscale.models.build import ModelConditionals, load_model
from hgscale.pretrain.run import recovery_text
from hgscale.pretrain.task import PretrainTask

COUNT_CHUNK = 1 << 22  # samples counted at once


@dataclass(frozen=True, kw_only=True)
class RecoverConfig:
    """Read a hypergraph out of the model of a pre-training run, perhaps in another way than the run did."""

    run_dir: str | None = field(default=None, metadata=RESULT)
    """Directory of the run."""

    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    """How the hypergraph is read out of the model."""


@dataclass(frozen=True)
class RecoverResult:
    """The numbers of a read-out, and the file they are in."""

    summary: dict[str, Any]
    path: Path

    def text(self) -> str:
        """What the command prints."""
        return f"{recovery_text(self.summary)}\nnumbers       {self.path}"


def recover(config: RecoverConfig) -> RecoverResult:
    """The verb: read out, compare, and write ``recover-<read-out>.json`` into the run directory.

    A run needs a model for it, not an end: where its own read-out was cut off, this one takes its place.

    Raises:
        ConfigError: without a run directory, or if the read-out does not apply to the world.
        DataError: if the directory holds no trained model, or its world is no longer what it was.
    """
    if config.run_dir is None:
        raise ConfigError("run_dir is not given; name the directory of a run, as --run_dir runs/NAME")
    run_dir = Path(config.run_dir)
    task = _task_of(run_dir)
    before = _summary_of(run_dir, task)
    trains = task.objective.objective().trains
    check_readout(task.target_world, config.readout, trains)
    model = load_model(run_dir / "model")
    readout = definite(task.target_world, config.readout, trains)
    comparison = Reader(task).read(model, task.train.num_steps, readout, is_final=True)
    summary = before | comparison.metrics
    summary["bits_per_parameter"] = bits_per_parameter(
        summary["capacity_bits"], sum(parameter.numel() for parameter in model.parameters())
    )
    path = run_dir / f"recover-{summary['readout']}.json"
    write_json(path, summary)
    if comparison.recovered is not None and isinstance(task.target_world, Hypergraph):
        written = run_dir / f"recovered-{summary['readout']}.json"
        write_recovered(task.target_world, comparison.recovered, written)
    return RecoverResult(summary, path)


class Reader:
    """Reads models of a task out, and counts the samples that they have seen."""

    def __init__(self, task: PretrainTask, sampler: Sampler | None = None) -> None:
        """``sampler``: of the task's samples, where there is one already."""
        self.task, self.world, self.stream = task, task.target_world, task.stream()
        self.sampler = sampler or self.world.sampler(task.samples.seed)
        self._counted: tuple[int, np.ndarray] | None = None

    def read(self, model: nn.Module, num_steps: int, readout: ReadoutConfig, is_final: bool) -> Comparison:
        """Read a model out, and compare it with the world and with counting.

        Args:
            model: trained.
            num_steps: that it was trained for.
            readout: how.
            is_final: also what takes longer or is asked for once, see ``read_and_compare``.
        """
        conditionals, seed, own = ModelConditionals(model), self.task.train.seed, self.task.estimators
        counts = self.counts(num_steps)
        if counts is None:
            num_seen = self.stream.num_seen(num_steps)

            def count(edges: np.ndarray) -> np.ndarray:
                return count_among(self.sampler, self.stream, num_seen, edges)

            return read_and_estimate(conditionals, self.world, readout, count, num_seen, seed, own)
        assert isinstance(self.world, Hypergraph)
        origin, held_out = (self.task.world, self.task.held_out) if is_final else (None, None)
        return read_and_compare(conditionals, self.world, readout, counts, seed, origin, held_out, own)

    def counts(self, num_steps: int) -> np.ndarray | None:
        """[E] int64: how often each edge stands among the very samples the model has seen.

        None where the world is not held in memory.
        """
        if not isinstance(self.world, Hypergraph):
            return None
        if self._counted is not None and self._counted[0] == num_steps:
            return self._counted[1]
        num_seen = self.stream.num_seen(num_steps)
        counts = np.zeros(self.world.num_edges, dtype=np.int64)
        for start in range(0, num_seen, COUNT_CHUNK):
            positions = np.arange(start, min(start + COUNT_CHUNK, num_seen))
            counts += np.bincount(self.sampler.draw(self.stream.ids(positions)), minlength=self.world.num_edges)
        self._counted = num_steps, counts
        return counts


def count_among(sampler: Sampler, stream: Stream, num_seen: int, edges: np.ndarray) -> np.ndarray:
    """[d] int64: how often each of these edges [d], ascending, stands among the samples of the first positions."""
    counts = np.zeros(len(edges), dtype=np.int64)
    for start in range(0, num_seen, COUNT_CHUNK):
        drawn = sampler.draw(stream.ids(np.arange(start, min(start + COUNT_CHUNK, num_seen))))
        place = np.minimum(np.searchsorted(edges, drawn), len(edges) - 1)
        counts += np.bincount(place[edges[place] == drawn], minlength=len(edges))
    return counts


def bits_per_parameter(capacity_bits: float | None, num_parameters: int) -> float | None:
    """What the model knows of the world per parameter; None where that is not known."""
    return None if capacity_bits is None else capacity_bits / num_parameters


def write_recovered(world: Hypergraph, recovered: Recovered, path: Path) -> None:
    """Write the recovered weights on the world's edges, normalised, as HIF JSON; nothing where none was recovered."""
    if recovered.on_support.sum() <= 0:
        return
    found = Hypergraph.from_arrays(world.offsets, world.nodes, recovered.on_support, world.num_nodes, world.labels)
    io.write(found, path)


def _task_of(run_dir: Path) -> PretrainTask:
    """What a run trained, by its ``config.yaml``."""
    try:
        tree = yaml.safe_load((run_dir / "config.yaml").read_text())
        sections = {"world": tree["world"]} | {f.name: tree[f.name] for f in fields(PretrainTask) if f.name in tree}
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        raise DataError(
            f"{run_dir}: holds no run of `hgscale pretrain` (config.yaml); name the directory of one"
        ) from None
    return configs.from_mapping(PretrainTask, sections, "run")


def _summary_of(run_dir: Path, task: PretrainTask) -> dict[str, Any]:
    """What the run says of itself; little, where it did not come to its end.

    Raises:
        DataError: if the world is no longer what it was.
    """
    digest = task.target_world.digest
    try:
        before: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    except (OSError, ValueError):
        before = {"world_digest": digest, "regime": task.regime, "masking": task.objective.masking}
    if before["world_digest"] != digest:
        raise DataError(
            f"{run_dir}: trained on world {before['world_digest']}, but its config now gives {digest}; "
            f"put {task.world.path} back as it was"
        )
    return before
