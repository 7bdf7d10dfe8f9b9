"""Which world a config gives to train from: held in memory, mapped from shards on disk, or computed. Decided here."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hgscale.config import runs_home
from hgscale.data.disk.manifest import read_manifest
from hgscale.data.disk.mapped import ShardedWorld, open_shards
from hgscale.errors import ConfigError
from hgscale.files import make_directory
from hgscale.hypergraph import io
from hgscale.hypergraph.structure import Hypergraph, World
from hgscale.hypergraph.worlds.config import WorldConfig, build_world, check_world
from hgscale.hypergraph.worlds.implicit import ImplicitWorld

MOST_IN_MEMORY = 4_000_000
"""Edges of a directory of shards up to which ``load: auto`` holds them in memory."""


def open_world(config: WorldConfig) -> World:
    """The world of a config, where ``config.load`` wants it.

    Raises:
        ConfigError: naming the field that cannot be met, and the repair.
        DataError: if the file or a shard is wrong.
    """
    check_world(config)
    if is_sharded(config):
        return _from_shards(config)
    if config.load == "mapped":
        raise ConfigError(
            f"world.load=mapped with world.path={config.path}: holds no shards (manifest.json); write them with "
            "`hgscale generate`, or set load to auto"
        )
    return ImplicitWorld(config) if config.load == "implicit" else build_world(config)


def world(
    what: WorldConfig | str | Iterable[Sequence[int] | Sequence[str]],
    weights: str | Sequence[float] | np.ndarray | None = None,
    **fields: Any,
) -> World:
    """A world to train on and to compare with.

    Args:
        what: a config; or a generator, as "gnm" or package.module:function; or edges, as [("ada", "bob"), ...]: one
            sequence of names or of ids from 0 each, which count once for each time they occur.
        weights: of edges, one number each; of a generator, the law: "uniform", "zipf", ... or your own.
        **fields: of a generator, those of ``hgscale.WorldConfig``, as num_nodes=20; of edges, num_nodes.

    Returns:
        A ``Hypergraph``, unless a config asks for one that is not held in memory. Weights sum to 1.

    Raises:
        ConfigError: naming the field that cannot be met, and the repair.
        DataError: if edges or a file are wrong, naming the first that is.
    """
    if isinstance(what, WorldConfig | str) and weights is not None:
        if isinstance(what, WorldConfig) or not isinstance(weights, str):
            raise ConfigError("world: numbers as weights go with edges; a generator takes the name of a law")
        fields["weights"] = weights
    if isinstance(what, WorldConfig):
        if fields:
            raise ConfigError(f"world: {', '.join(fields)} beside a config; set them in the config")
        return open_world(what)
    if isinstance(what, str):
        return open_world(WorldConfig(generator=what, **fields))
    if isinstance(weights, str):
        raise ConfigError(f"world: weights={weights} of edges; give one number for each")
    return Hypergraph.from_edges(what, weights, where="world", **fields)


def kept_world(world: Hypergraph) -> WorldConfig:
    """Write a world below the home, named by its content, unless it is there; the config that reads it.

    Raises:
        RunError: if it cannot be written.
    """
    path = runs_home() / "worlds" / f"{world.digest}.json"
    if not path.exists():
        make_directory(path.parent)
        io.write(world, path, format="hif")
    return WorldConfig(path=str(path), format="hif")


def is_sharded(config: WorldConfig) -> bool:
    """Whether a config names a directory of shards: by its format, or by the manifest in it."""
    if config.path is None:
        return False
    return config.format == "shards" or (config.format == "auto" and (Path(config.path) / "manifest.json").is_file())


def _from_shards(config: WorldConfig) -> Hypergraph | ShardedWorld:
    assert config.path is not None
    if config.take != "all":
        raise ConfigError(
            f"world.take={config.take} of the shards in {config.path}: they do not know the order of their edges in "
            "time; take a part before `hgscale generate`, or set take to all"
        )
    if config.load == "mapped":
        return open_shards(config.path)
    if config.load == "auto" and read_manifest(Path(config.path)).num_edges > MOST_IN_MEMORY:
        return open_shards(config.path)
    # Here and not above: planning runs need no Parquet.
    from hgscale.data.disk.columns import read_world

    return read_world(config.path)
