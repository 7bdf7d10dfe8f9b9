"""Read a hypergraph out of a trained model and say how far it is from the truth, and from what counting achieves."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph import bounds, io
from hgscale.hypergraph.conditionals import Conditionals, Recovered
from hgscale.hypergraph.recovery import ReadoutConfig, read_out
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.world import WorldConfig, build_world
from hgscale.models.build import ModelConditionals, load_model
from hgscale.train.runlog import write_json


@dataclass(frozen=True, kw_only=True)
class RecoverConfig:
    """Read a hypergraph out of a finished pre-training run, perhaps in another way than the run did."""

    run_dir: str | None = None
    """Directory of the run."""

    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    """How the hypergraph is read out of the model."""


@dataclass(frozen=True)
class Comparison:
    """What a read-out gave: numbers by name, and the recovered hypergraph where every edge was compared."""

    metrics: dict[str, Any]
    recovered: Recovered | None


@dataclass(frozen=True)
class RecoverResult:
    """The numbers of a read-out, and the file they are in."""

    summary: dict[str, Any]
    path: Path


def recover(config: RecoverConfig) -> RecoverResult:
    """The verb: read out, compare, and write ``recover-<method>.json`` into the run directory.

    Raises:
        ConfigError: without a run directory, or if the read-out does not apply to the world.
        DataError: if the directory holds no finished run, or its world is no longer what it was.
    """
    if config.run_dir is None:
        raise ConfigError("run_dir is not given; name the directory of a finished run, as --run_dir runs/NAME")
    run_dir = Path(config.run_dir)
    before = _summary_of(run_dir)
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    world = build_world(WorldConfig(**saved["world"]))
    if world.digest != before["world_digest"]:
        raise DataError(
            f"{run_dir}: trained on world {before['world_digest']}, but its config now gives {world.digest}; "
            f"put {saved['world']['path']} back as it was"
        )
    counts = np.load(run_dir / "counts.npy")
    conditionals = ModelConditionals(load_model(run_dir / "model"))
    comparison = read_and_compare(conditionals, world, config.readout, counts, int(saved["train"]["seed"]))
    summary = before | comparison.metrics
    path = run_dir / f"recover-{summary['readout']}.json"
    write_json(summary, path)
    if comparison.recovered is not None:
        write_recovered(world, comparison.recovered, run_dir / f"recovered-{summary['readout']}.json")
    return RecoverResult(summary, path)


def read_and_compare(
    conditionals: Conditionals, world: Hypergraph, config: ReadoutConfig, counts: np.ndarray, seed: int
) -> Comparison:
    """Read out, and lay the error beside the floor and beside counting on the very samples the model saw.

    Args:
        conditionals: the model.
        world: the truth.
        config: of the read-out.
        counts: [E] how often each edge was among the samples the model saw.
        seed: of random orders and sampled edges.
    """
    num_samples = int(counts.sum())
    result = read_out(conditionals, world, config, seed)
    floor = bounds.count_floor(world.weights, num_samples)
    counting = bounds.count_l1(world.weights, counts)
    error = {name: value for name, value in asdict(result.error).items() if name not in ("method", "num_edges")}
    metrics = error | {
        "readout": result.error.method,
        "count_floor_l1": floor,
        "count_l1": counting,
        "ratio_to_floor": _ratio(result.error.recovery_l1, floor),
        "ratio_to_count": _ratio(result.error.recovery_l1, counting),
        "half_norm": bounds.half_norm(world.weights),
        "num_samples": num_samples,
        "num_nodes": world.num_nodes,
        "num_edges": world.num_edges,
        "num_edges_compared": result.error.num_edges,
    }
    return Comparison(metrics, result.recovered)


def _ratio(error: float, reference: float) -> float | None:
    """None where there is nothing to err about: a world of one edge."""
    return error / reference if reference > 0 else None


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
