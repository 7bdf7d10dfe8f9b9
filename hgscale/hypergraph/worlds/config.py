"""The world of a run: read from a file, or made at random."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hgscale.config import READS
from hgscale.errors import ConfigError
from hgscale.hypergraph import io
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.subsets import MAX_RANK
from hgscale.hypergraph.worlds.blocks import BlockLaw, PatternLaw, block, class_patterns, num_within
from hgscale.hypergraph.worlds.families import chain, cross, gnm, power_law, star, uniform
from hgscale.hypergraph.worlds.memory import assemble
from hgscale.hypergraph.worlds.parts import Part
from hgscale.hypergraph.worlds.weights import DirichletLaw, TwoLevelLaw, UniformLaw, WeightLaw, ZipfLaw


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Which weighted hypergraph is the truth: a file (path), or a generator. Each field says whom it concerns."""

    path: str | None = field(default=None, metadata=READS)
    """File to read the world from; null makes one with the generator."""

    load: Literal["auto", "memory", "mapped", "implicit"] = "auto"
    """Where the edges are in training. memory: all there; mapped: on disk, in a directory of shards (path); implicit:
    nowhere, each is computed from its number (generator; weights uniform or zipf). auto: memory, but mapped for shards
    of more than 4 million edges."""

    format: Literal["auto", "pairs", "simplices", "edges", "facts", "statements", "hif", "shards"] = "auto"
    """path: what the file holds; auto tells it from the content. shards: a directory that `hgscale generate` wrote."""

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
        if self.load == "mapped" and self.path is None:
            raise ConfigError(
                "world.load=mapped without world.path: there is nothing to map; write the world with "
                "`hgscale generate` and name its directory, or set load to auto"
            )
        if self.load == "implicit" and self.path is not None:
            raise ConfigError(
                f"world.load=implicit with world.path={self.path}: edges of a file are not computed; set load to auto"
            )


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
    parts = parts_of(config)
    return assemble(parts, weight_law_of(config, parts), config.num_nodes)


def parts_of(config: WorldConfig) -> tuple[Part, ...]:
    """The parts of the world of a generator, in order.

    Raises:
        ConfigError: naming the field that cannot be met, and the largest value that can.
    """
    assert config.path is None, config.path
    parts = _FAMILIES[config.generator](config)
    if sum(part.num_edges for part in parts) > MAX_RANK:
        raise ConfigError(
            f"world.num_edges is {sum(part.num_edges for part in parts)}, more than edges have numbers; at most 2^62"
        )
    return parts


def weight_law_of(config: WorldConfig, parts: tuple[Part, ...]) -> WeightLaw:
    """The law of the weights of these parts of the world of a config.

    Raises:
        ConfigError: naming the field that no law has.
    """
    num_edges = sum(part.num_edges for part in parts)
    if config.generator == "block":
        if config.block_law == "random":
            return PatternLaw(config.num_nodes, config.num_blocks, config.size, config.kappa, config.seed)
        inside = num_within(config.num_nodes, config.num_edges, config.size, config.num_blocks)
        return BlockLaw(config.num_nodes, config.num_blocks, config.within_ratio / inside, 1 / (num_edges - inside))
    return {
        "uniform": lambda: UniformLaw(),
        "two_level": lambda: TwoLevelLaw(config.kappa, config.seed),
        "zipf": lambda: ZipfLaw(num_edges, config.zipf_exponent, config.seed),
        "dirichlet": lambda: DirichletLaw(config.dirichlet_alpha, config.seed),
    }[config.weights]()


def _num_edges(config: WorldConfig) -> int:
    """The number of edges of a family that cannot know it."""
    if config.num_edges is None:
        raise ConfigError(f"world.num_edges=null: generator {config.generator} needs a number; give one")
    return config.num_edges


def _tree(config: WorldConfig) -> tuple[Part, ...]:
    """A family whose number of edges is fixed: another number is refused."""
    part = {"star": star, "chain": chain, "cross": cross}[config.generator](config.num_nodes)[0]
    if config.num_edges not in (None, part.num_edges):
        raise ConfigError(
            f"world.num_edges={config.num_edges}: a {config.generator} of {config.num_nodes} nodes has exactly "
            f"{part.num_edges} edges; leave it null"
        )
    return (part,)


_FAMILIES: dict[str, Callable[[WorldConfig], tuple[Part, ...]]] = {
    "uniform": lambda config: uniform(
        config.num_nodes, _num_edges(config), config.size if config.sizes is None else config.sizes, config.seed
    ),
    "gnm": lambda config: gnm(config.num_nodes, config.num_edges, config.seed),
    "star": _tree,
    "cross": _tree,
    "chain": _tree,
    "power_law": lambda config: power_law(
        config.num_nodes, _num_edges(config), config.size, config.power_law_exponent, config.seed
    ),
    "block": lambda config: block(
        config.num_nodes, config.num_edges, config.size, config.num_blocks, config.within_ratio, config.seed
    ),
}


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
    return class_patterns(world, config.num_blocks, within_only=config.block_law == "two_level")


_REST: dict[str, Literal["first", "last", "random_a", "random_b"]] = {
    "first": "last",
    "last": "first",
    "random_a": "random_b",
    "random_b": "random_a",
}
