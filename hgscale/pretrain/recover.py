"""The verb ``recover``: read a hypergraph out of a trained model once more, and write down how far it is off."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hgscale.config import RESULT
from hgscale.data.stream import SamplesConfig, Stream
from hgscale.data.worlds import open_world
from hgscale.errors import ConfigError, DataError
from hgscale.files import write_json
from hgscale.hypergraph import io
from hgscale.hypergraph.recovery.comparison import Comparison, read_and_compare, read_and_estimate
from hgscale.hypergraph.recovery.conditionals import Recovered
from hgscale.hypergraph.recovery.readout import ReadoutConfig
from hgscale.hypergraph.structure import Hypergraph, Sampler, World
from hgscale.hypergraph.worlds.config import WorldConfig, held_out_world
from hgscale.models.build import ModelConditionals, load_model
from hgscale.pretrain.run import recovery_text

COUNT_CHUNK = 1 << 22  # samples counted at once


@dataclass(frozen=True, kw_only=True)
class RecoverConfig:
    """Read a hypergraph out of a finished pre-training run, perhaps in another way than the run did."""

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

    Raises:
        ConfigError: without a run directory, or if the read-out does not apply to the world.
        DataError: if the directory holds no finished run, or its world is no longer what it was.
    """
    if config.run_dir is None:
        raise ConfigError("run_dir is not given; name the directory of a finished run, as --run_dir runs/NAME")
    run_dir = Path(config.run_dir)
    before = _summary_of(run_dir)
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    origin = WorldConfig(**saved["world"])
    world = open_world(origin)
    if world.digest != before["world_digest"]:
        raise DataError(
            f"{run_dir}: trained on world {before['world_digest']}, but its config now gives {world.digest}; "
            f"put {origin.path} back as it was"
        )
    comparison = _compare(run_dir, world, origin, config.readout, saved, before["num_steps"])
    summary = before | comparison.metrics
    summary["bits_per_parameter"] = bits_per_parameter(summary["capacity_bits"], summary["num_parameters"])
    path = run_dir / f"recover-{summary['readout']}.json"
    write_json(path, summary)
    if comparison.recovered is not None and isinstance(world, Hypergraph):
        write_recovered(world, comparison.recovered, run_dir / f"recovered-{summary['readout']}.json")
    return RecoverResult(summary, path)


def _compare(
    run_dir: Path, world: World, origin: WorldConfig, readout: ReadoutConfig, saved: dict[str, Any], num_steps: int
) -> Comparison:
    """Read the run's model out once more, beside counting the samples that it saw."""
    conditionals = ModelConditionals(load_model(run_dir / "model"))
    seed = int(saved["train"]["seed"])
    if isinstance(world, Hypergraph):
        counts, held_out = np.load(run_dir / "counts.npy"), held_out_world(origin)
        return read_and_compare(conditionals, world, readout, counts, seed, origin, held_out)
    samples = SamplesConfig(**saved["samples"])
    stream = Stream(samples.num_samples, int(saved["train"]["global_batch"]), seed)
    sampler, num_seen = world.sampler(samples.seed), stream.num_seen(num_steps)

    def count(edges: np.ndarray) -> np.ndarray:
        return count_among(sampler, stream, num_seen, edges)

    return read_and_estimate(conditionals, world, readout, count, num_seen, seed)


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


def _summary_of(run_dir: Path) -> dict[str, Any]:
    try:
        return json.loads((run_dir / "summary.json").read_text())
    except (OSError, ValueError):
        raise DataError(f"{run_dir}: holds no finished run (summary.json); run `hgscale pretrain` to its end") from None
