"""Which shards a world has: what each holds, what a task needs, what the disk must hold. Nothing is drawn here."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hgscale import config as configs
from hgscale.data.disk.manifest import FORMAT, MANIFEST
from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds import parts as laws
from hgscale.hypergraph.worlds.config import WorldConfig, build_world, is_computed, parts_of, weight_law_of
from hgscale.hypergraph.worlds.parts import AddressedPart, ExchangedPart, Part
from hgscale.hypergraph.worlds.weights import WeightLaw

# Memory of a task per edge and per node of an edge, measured over sizes 2 to 20 (93 to 137 and 20) and rounded up.
_EDGE_BYTES, _ENTRY_BYTES = 150, 28


@dataclass(frozen=True)
class Shard:
    """One shard.

    Attributes:
        number: from 0 over the whole world.
        part: which part of the world it belongs to.
        place: its number within the part; of an exchanged part its bucket.
        size: nodes of each edge.
        start: number of its first edge in the world, None until the exchange has counted.
        num_edges: edges in it, None until the exchange has counted.
    """

    number: int
    part: int
    place: int
    size: int
    start: int | None
    num_edges: int | None


@dataclass(frozen=True)
class Plan:
    """Which shards a world has, before any is made.

    Attributes:
        config: the world.
        identity: fingerprint of what decides the bytes.
        num_nodes: n.
        parts, law: edges and weights by number.
        shards: in the order that numbers the edges.
        labels: names of the nodes of a world from a file.
    """

    config: WorldConfig
    identity: str
    num_nodes: int
    parts: tuple[Part, ...]
    law: WeightLaw
    shards: tuple[Shard, ...]
    labels: tuple[str, ...] | None

    @cached_property
    def num_edges(self) -> int:
        return sum(part.num_edges for part in self.parts)

    @property
    def exchanged(self) -> tuple[int, ...]:
        """The parts that need an exchange."""
        return tuple(number for number, part in enumerate(self.parts) if isinstance(part, ExchangedPart))

    @property
    def task_bytes(self) -> int:
        """Memory of one task at its most, on top of what a process holds anyway and of ``held_bytes``."""
        size = max(part.size for part in self.parts)
        num_edges = max(min(laws.SHARD_EDGES, part.num_edges) for part in self.parts)
        return num_edges * (_EDGE_BYTES + _ENTRY_BYTES * size)

    @property
    def held_bytes(self) -> int:
        """Memory that each process holds to make edges: tables of the family, or the edges of a file."""
        return sum(part.table_bytes for part in self.parts)

    def disk_bytes(self, table: bool) -> int:
        """Bytes of the finished directory, within a few percent; an exchange needs as much again while it runs."""
        return sum(part.num_edges * (4 * part.size + 9 + (16 + 4 * part.size) * table) for part in self.parts)


def plan(config: WorldConfig) -> Plan:
    """Plan the shards of a generator's world, or of a file's in canonical order.

    Raises:
        ConfigError: naming the field that cannot be met, and the largest value that can.
        DataError: if the file is wrong.
    """
    section = world_section(config)
    if is_computed(config):
        parts = parts_of(config)
        identity = configs.fingerprint({"format": FORMAT, "world": section})
        return Plan(config, identity, config.num_nodes, parts, weight_law_of(config, parts), _shards(parts), None)
    if config.path is not None and (config.format == "shards" or (Path(config.path) / MANIFEST).is_file()):
        raise ConfigError(f"world.path={config.path} holds shards already; train from it as it is")
    world = build_world(config)
    held = tuple(HeldPart(size, len(world.edges_of_size(size)), world) for size in world.distinct_sizes)
    names = {"format": FORMAT, "digest": world.digest, "labels": world.labels}
    law = HeldLaw(world)
    return Plan(config, configs.fingerprint(names), world.num_nodes, held, law, _shards(held), world.labels)


def world_section(config: WorldConfig) -> dict[str, Any]:
    """The config of a world as plain values, without what only says how it is opened, or says nothing."""
    section = configs.to_dict(config)
    return {name: value for name, value in section.items() if name != "load" and (name != "config" or value)}


@dataclass(frozen=True)
class HeldPart(AddressedPart):
    """The edges of one size of a world from a file, in canonical order."""

    world: Hypergraph

    def rows(self, lo: int, hi: int) -> np.ndarray:
        return self.world.edges_of_size(self.size)[lo:hi]

    def rows_at(self, index: np.ndarray) -> np.ndarray:
        rows: np.ndarray = self.world.edges_of_size(self.size)[index]
        return rows

    @property
    def table_bytes(self) -> int:
        return self.num_edges * (4 * self.size + 16)


@dataclass(frozen=True)
class HeldLaw(WeightLaw):
    """The weights of a world from a file, which sum to 1."""

    world: Hypergraph

    def of(self, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
        weights: np.ndarray = self.world.weights[index]
        return weights


def _shards(parts: tuple[Part, ...]) -> tuple[Shard, ...]:
    """Of an addressed part a shard for every SHARD_EDGES edges, of an exchanged one for every bucket."""
    shards: list[Shard] = []
    before = 0
    for part_number, part in enumerate(parts):
        if isinstance(part, ExchangedPart):
            shards += [
                Shard(len(shards) + place, part_number, place, part.size, None, None)
                for place in range(part.num_buckets)
            ]
        else:
            for place, lo in enumerate(range(0, part.num_edges, laws.SHARD_EDGES)):
                num_edges = min(laws.SHARD_EDGES, part.num_edges - lo)
                shards.append(Shard(len(shards), part_number, place, part.size, before + lo, num_edges))
        before += part.num_edges
    return tuple(shards)
