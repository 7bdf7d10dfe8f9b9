"""The world of a run: read from a file, or made at random."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hgscale.errors import ConfigError
from hgscale.hypergraph import generators, io
from hgscale.hypergraph.structure import Hypergraph


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Which weighted hypergraph is the truth: a file (path), or a generator. Each field says whom it concerns."""

    path: str | None = None
    """File to read the world from; null makes one with the generator."""

    format: Literal["auto", "pairs", "simplices", "edges", "facts", "statements", "hif"] = "auto"
    """path: what the file holds; auto tells it from the content."""

    take: Literal["all", "first", "last", "random_a", "random_b"] = "all"
    """path: all occurrences, or those before or after the share split_frac in time, or a random share and its rest."""

    split_frac: float = 0.5
    """path: share of the occurrences in first and random_a."""

    keep_relations: bool = True
    """path, facts and statements: keep the relations of a fact as nodes of its edge."""

    generator: Literal["uniform", "gnm", "star", "cross", "chain", "power_law", "block"] = "gnm"
    """uniform: random sets; gnm: random connected graph; star, cross, chain: trees of pairs; power_law: uneven degrees;
    block: planted classes."""

    num_nodes: int = 50
    """Every generator: n."""

    num_edges: int | None = None
    """E, exact; uniform and power_law need a number. Null where the family knows one: gnm int(0.2 n (n - 1) / 2) as in
    the paper, trees n - 1, block all sets."""

    size: int = 3
    """uniform, power_law, block: nodes per edge."""

    sizes: dict[int, float] | None = None
    """uniform: several sizes and their shares of the edges, as {2: 0.5, 3: 0.5}, in place of size."""

    power_law_exponent: float = 2.5
    """power_law: exponent of the degree law, over 2."""

    num_blocks: int = 4
    """block: number of planted classes, as equal as n allows."""

    block_law: Literal["two_level", "random"] = "two_level"
    """block: one weight inside classes and one across; or one weight for each way to fall into classes, drawn at
    random from 1 to kappa in logs."""

    within_ratio: float = 1.0
    """block_law two_level: total weight of the edges inside a class over that of the edges across classes."""

    weights: Literal["uniform", "two_level", "zipf", "dirichlet"] = "two_level"
    """Every generator but block, whose classes set the weights. Equal; 1 or kappa; rank^-zipf_exponent; Dirichlet."""

    kappa: float = 3.0
    """weights two_level and block_law random: largest weight over smallest."""

    zipf_exponent: float = 1.0
    """weights zipf: 0 is equal weights, 1 Zipf's law."""

    dirichlet_alpha: float = 1.0
    """weights dirichlet: smaller is less even."""

    seed: int = 0
    """Every generator: of edges and weights."""

    def __post_init__(self) -> None:
        # JSON knows no integer keys: a config that has been through it holds "2" for 2.
        if self.sizes is not None:
            object.__setattr__(self, "sizes", {int(size): float(share) for size, share in self.sizes.items()})


def build_world(config: WorldConfig) -> Hypergraph:
    """The world that a config names; the same config gives the same world, bit for bit.

    Raises:
        ConfigError: naming the field that cannot be met, and the largest value that can.
        DataError: if the file is wrong.
    """
    if config.path is not None:
        return io.read(
            config.path,
            format=config.format,
            take=config.take,
            split_frac=config.split_frac,
            keep_relations=config.keep_relations,
        )
    world = _FAMILIES[config.generator](config)
    if config.generator == "block":
        return world
    return generators.reweigh(world, _LAWS[config.weights](config, world.num_edges))


def held_out_config(config: WorldConfig) -> WorldConfig | None:
    """The config of the rest of a file, what ``take`` leaves out; None where it leaves out nothing."""
    if config.path is None or config.take == "all":
        return None
    return dataclasses.replace(config, take=_REST[config.take])


def held_out_world(config: WorldConfig) -> Hypergraph | None:
    """The occurrences in a file that ``build_world`` leaves out, on the same nodes; None where nothing is left out.

    Raises:
        ConfigError: as ``build_world``.
        DataError: if the file is wrong, or the rest is empty.
    """
    rest = held_out_config(config)
    return None if rest is None else build_world(rest)


def weight_groups(config: WorldConfig, world: Hypergraph) -> np.ndarray | None:
    """[E] int64 from 0: the edges of the world of a config that weigh the same by construction of its hidden classes.

    None where there are none: all but generator block.
    """
    if config.path is not None or config.generator != "block":
        return None
    return generators.class_patterns(world, config.num_blocks, within_only=config.block_law == "two_level")


def _uniform(config: WorldConfig) -> Hypergraph:
    sizes = config.size if config.sizes is None else config.sizes
    return generators.uniform(config.num_nodes, _num_edges(config), sizes, config.seed)


def _power_law(config: WorldConfig) -> Hypergraph:
    return generators.power_law(
        config.num_nodes, _num_edges(config), config.size, config.power_law_exponent, config.seed
    )


def _block(config: WorldConfig) -> Hypergraph:
    world = generators.block(
        config.num_nodes, config.num_edges, config.size, config.num_blocks, config.within_ratio, config.seed
    )
    if config.block_law == "two_level":
        return world
    patterns = generators.class_patterns(world, config.num_blocks)
    return generators.reweigh(world, generators.pattern_weights(patterns, config.kappa, config.seed))


def _num_edges(config: WorldConfig) -> int:
    """The number of edges of a family that cannot know it."""
    if config.num_edges is None:
        raise ConfigError(f"world.num_edges=null: generator {config.generator} needs a number; give one")
    return config.num_edges


def _tree(family: Callable[[int], Hypergraph]) -> Callable[[WorldConfig], Hypergraph]:
    """A family whose number of edges is fixed: another number is refused."""

    def make(config: WorldConfig) -> Hypergraph:
        world = family(config.num_nodes)
        if config.num_edges not in (None, world.num_edges):
            raise ConfigError(
                f"world.num_edges={config.num_edges}: a {config.generator} of {config.num_nodes} nodes has exactly "
                f"{world.num_edges} edges; leave it null"
            )
        return world

    return make


_REST: dict[str, Literal["first", "last", "random_a", "random_b"]] = {
    "first": "last",
    "last": "first",
    "random_a": "random_b",
    "random_b": "random_a",
}

_FAMILIES: dict[str, Callable[[WorldConfig], Hypergraph]] = {
    "uniform": _uniform,
    "gnm": lambda config: generators.gnm(config.num_nodes, config.num_edges, config.seed),
    "star": _tree(generators.star),
    "cross": _tree(generators.cross),
    "chain": _tree(generators.chain),
    "power_law": _power_law,
    "block": _block,
}

_LAWS: dict[str, Callable[[WorldConfig, int], np.ndarray]] = {
    "uniform": lambda config, count: generators.uniform_weights(count),
    "two_level": lambda config, count: generators.two_level_weights(count, config.kappa, config.seed),
    "zipf": lambda config, count: generators.zipf_weights(count, config.zipf_exponent, config.seed),
    "dirichlet": lambda config, count: generators.dirichlet_weights(count, config.dirichlet_alpha, config.seed),
}
