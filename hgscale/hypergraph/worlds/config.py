"""The world of a run: read from a file, or made at random."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hgscale import config as configs
from hgscale import plugins
from hgscale.errors import ConfigError
from hgscale.hypergraph import io
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.subsets import MAX_RANK
from hgscale.hypergraph.worlds.families import FAMILIES, Family
from hgscale.hypergraph.worlds.memory import assemble
from hgscale.hypergraph.worlds.own import GENERATORS, WEIGHTS, OwnFunction, edges_of, weighed
from hgscale.hypergraph.worlds.parts import Part
from hgscale.hypergraph.worlds.weights import LAWS, UniformLaw, WeightLaw, check_even


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Which weighted hypergraph is the truth: a file (path), or a generator. Each field says whom it concerns."""

    path: str | None = field(default=None, metadata=configs.READS)
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

    generator: str = "gnm"
    """uniform: random sets; gnm: random connected graph; star, cross, chain: trees of pairs; power_law: uneven degrees;
    block: planted classes; or your own function as package.module:function."""

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

    weights: str = "two_level"
    """Every generator but block, whose classes set the weights. uniform: equal; two_level: 1 or kappa; zipf:
    rank^-zipf_exponent; dirichlet: a draw of Dirichlet's law; or your own function as package.module:function."""

    kappa: float = 3.0
    """weights two_level and block_law random: largest weight over smallest."""

    zipf_exponent: float = 1.0
    """weights zipf: 0 is equal weights, 1 Zipf's law."""

    dirichlet_alpha: float = 1.0
    """weights dirichlet: smaller is less even."""

    seed: int = 0
    """Every generator: of edges and weights."""

    config: dict[str, Any] = field(default_factory=dict)
    """Arguments by name of a generator or weight law of your own."""

    def __post_init__(self) -> None:
        for name, table in (("generator", GENERATORS), ("weights", WEIGHTS)):
            if not plugins.is_path(getattr(self, name)):
                table.get(getattr(self, name), f"world.{name}")
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

    def decides(self) -> dict[str, Any]:
        """What of a generator's config decides numbers, for a fingerprint: a user's functions count by their source.

        Where the world is kept decides its samples, held in memory or not; ``auto`` holds it. A world from a file
        counts by its digest instead.
        """
        assert self.path is None, self.path
        values = {name: value for name, value in configs.to_dict(self).items() if name in _used(self)}
        for name in ("generator", "weights"):
            if name in values:
                values[name] = plugins.identified(values[name], f"world.{name}")
        return values | {"load": "memory" if self.load == "auto" else self.load}


READING = ("format", "take", "split_frac", "keep_relations")
"""Fields that say how a file is read."""

PLACING = ("path", "load", "seed")
"""Fields that any world may have: a study writes the seed of a repetition into each."""


def _offered(config: WorldConfig) -> dict[str, Any]:
    """The fields that a generator or a law may ask for, by name."""
    names = {f.name for f in dataclasses.fields(config)} - {*READING, "path", "load", "generator", "config"}
    return {name: getattr(config, name) for name in names}


def _generator(config: WorldConfig) -> Family | OwnFunction:
    return GENERATORS.get(config.generator, "world.generator")


def _law(config: WorldConfig) -> tuple[str, Callable[..., Any]]:
    """The field that names the law of the weights, and the law."""
    family = _generator(config)
    if isinstance(family, OwnFunction) or family.law_field == "weights":
        return "weights", WEIGHTS.get(config.weights, "world.weights")
    return family.law_field, family.laws[getattr(config, family.law_field)]


def _used(config: WorldConfig) -> set[str]:
    """The fields that decide the edges and weights of a generated world."""
    field_of_law, law = _law(config)
    family = _generator(config)
    of_law = set(plugins.keywords(law.function if isinstance(law, OwnFunction) else law)) - {"num_edges"}
    of_edges = set(plugins.keywords(family.function if isinstance(family, OwnFunction) else family.parts))
    own = {"config"} if isinstance(law, OwnFunction) or isinstance(family, OwnFunction) else set()
    known = {f.name for f in dataclasses.fields(config)}
    return (of_edges | of_law | own | {"generator", "seed", field_of_law}) & known


def is_computed(config: WorldConfig) -> bool:
    """Whether any edge and weight of the world is a function of its number: so of all generators that are built in."""
    return (
        config.path is None
        and not isinstance(_generator(config), OwnFunction)
        and not isinstance(_law(config)[1], OwnFunction)
    )


def check_world(config: WorldConfig) -> None:
    """Refuse fields that are set and mean nothing: of generators where there is a file, of other generators, of files.

    Raises:
        ConfigError: naming the field and the repair; or what cannot be imported.
    """
    names = {f.name for f in dataclasses.fields(config)} - set(PLACING)
    if config.path is not None:
        configs.refuse_ignored(config, sorted(names - set(READING)), "world", f"world.path={config.path}")
        if config.take == "all":
            configs.refuse_ignored(config, ["split_frac"], "world", "world.take=all")
        if config.format not in ("auto", "facts", "statements"):
            configs.refuse_ignored(config, ["keep_relations"], "world", f"world.format={config.format}")
        return
    configs.refuse_ignored(config, READING, "world", "world.path=null")
    field_of_law, law = _law(config)
    used = _used(config)
    family = _generator(config)
    laws = LAWS if field_of_law == "weights" else family.laws if isinstance(family, Family) else {}
    of_edges = {name for other in FAMILIES.values() for name in plugins.keywords(other.parts)}
    of_laws = {name for other in laws.values() for name in plugins.keywords(other)} - of_edges
    ignored = sorted(names - used)
    by_law = [name for name in ignored if name in of_laws]
    configs.refuse_ignored(config, by_law, "world", f"world.{field_of_law}={getattr(config, field_of_law)}")
    configs.refuse_ignored(config, ignored, "world", f"world.generator={config.generator}")
    if config.sizes is not None:
        configs.refuse_ignored(config, ["size"], "world", f"world.sizes={config.sizes}")
    takes = {name for f in (family, law) if isinstance(f, OwnFunction) for name in plugins.keywords(f.function)}
    for name in config.config:
        if name not in takes:
            raise ConfigError(
                f"world.config.{name}: neither {config.generator} nor {config.weights} has such an argument; they take "
                f"{', '.join(sorted(takes))}"
            )


def build_world(config: WorldConfig) -> Hypergraph:
    """The world that a config names; the same config gives the same world, bit for bit.

    Raises:
        ConfigError: naming the field that cannot be met, and the largest value that can.
        DataError: if the file is wrong.
    """
    check_world(config)
    if config.path is not None:
        return io.read(
            config.path,
            format=config.format,
            take=config.take,
            split_frac=config.split_frac,
            keep_relations=config.keep_relations,
        )
    if not is_computed(config):
        return _own_world(config)
    parts = parts_of(config)
    return assemble(parts, weight_law_of(config, parts), config.num_nodes)


def parts_of(config: WorldConfig) -> tuple[Part, ...]:
    """The parts of the world of a generator, in order.

    Raises:
        ConfigError: naming the field that cannot be met, and the largest value that can.
    """
    assert config.path is None, config.path
    check_world(config)
    family = _generator(config)
    if isinstance(family, OwnFunction) or not is_computed(config):
        name = "generator" if isinstance(family, OwnFunction) else "weights"
        raise ConfigError(
            f"world.load={config.load} with world.{name}={getattr(config, name)}: the world of a function of your own "
            "is held in memory; set load to memory"
        )
    parts: tuple[Part, ...] = family.parts(**_given(family.parts, config))
    if sum(part.num_edges for part in parts) > MAX_RANK:
        raise ConfigError(
            f"world.num_edges is {sum(part.num_edges for part in parts)}, more than edges have numbers; at most 2^62"
        )
    return parts


def weight_law_of(config: WorldConfig, parts: Sequence[Part]) -> WeightLaw:
    """The law of the weights of these parts of the world of a config.

    Raises:
        ConfigError: naming the field that no law has.
    """
    return _built_in_law(config, sum(part.num_edges for part in parts))


def _built_in_law(config: WorldConfig, num_edges: int) -> WeightLaw:
    _, law = _law(config)
    found: WeightLaw = law(**_given(law, config, num_edges=num_edges))
    return found


def _given(function: Callable[..., Any], config: WorldConfig, **more: Any) -> dict[str, Any]:
    """The arguments of a built-in function."""
    offered = _offered(config) | more
    return {name: offered[name] for name in plugins.keywords(function)}


def _own_world(config: WorldConfig) -> Hypergraph:
    """The world of a user's generator, of a user's law of weights, or of both: made twice, as every worker makes it.

    Raises:
        ConfigError: if the two differ, or a function is not what it should be.
    """
    world = _made_once(config)
    if _made_once(config).digest != world.digest:
        named = [getattr(config, name) for name in ("generator", "weights") if plugins.is_path(getattr(config, name))]
        raise ConfigError(
            f"world: {' and '.join(named)} gave another world for the same arguments, as every worker would; "
            "draw from a generator of random numbers that is made from the argument seed"
        )
    return world


def _made_once(config: WorldConfig) -> Hypergraph:
    family, law = _generator(config), _law(config)[1]
    if isinstance(family, OwnFunction):
        made = family(_offered(config), config.config)
        if isinstance(made, Hypergraph):
            weighing = {name for law in LAWS.values() for name in plugins.keywords(law)} | {"weights"}
            configs.refuse_ignored(
                config,
                sorted((weighing & _used(config)) - {"seed", *plugins.keywords(family.function)}),
                "world",
                f"world.generator={family.path}, which weighs its edges itself",
            )
            return made
        world = edges_of(family, made, config.num_nodes)
    else:
        world = assemble(family.parts(**_given(family.parts, config)), UniformLaw(), config.num_nodes)
    if isinstance(law, OwnFunction):
        edges = [world.edge(e) for e in range(world.num_edges)]
        return weighed(law, world, law(_offered(config) | {"edges": edges}, config.config))
    built_in = _built_in_law(config, world.num_edges)
    weights = np.empty(world.num_edges)
    for size in world.distinct_sizes:
        at = np.arange(world.num_edges)[world.span(size)]
        weights[at] = built_in.of(at, world.edges_of_size(size))
    check_even(built_in, float(weights.min()), float(weights.sum()), world.num_edges)
    return dataclasses.replace(world, weights=weights / weights.sum())


def held_out_config(config: WorldConfig) -> WorldConfig | None:
    """The config of the occurrences in a file that ``take`` leaves out, on the same nodes; None without any."""
    if config.path is None or config.take == "all":
        return None
    return dataclasses.replace(config, take=_REST[config.take])


def weight_groups(config: WorldConfig, world: Hypergraph) -> np.ndarray | None:
    """[E] int64 from 0: the edges of the world of a config that weigh the same by construction of its hidden classes.

    None where there are none: all but generator block.
    """
    family = None if config.path is not None else _generator(config)
    if not isinstance(family, Family) or family.groups is None:
        return None
    offered = _offered(config) | {"world": world}
    return family.groups(**{name: offered[name] for name in plugins.keywords(family.groups)})


_REST: dict[str, Literal["first", "last", "random_a", "random_b"]] = {
    "first": "last",
    "last": "first",
    "random_a": "random_b",
    "random_b": "random_a",
}
