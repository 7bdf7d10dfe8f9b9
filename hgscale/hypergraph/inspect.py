"""The verb ``inspect``: what a world is, what can be known of it, and what counting would cost."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hgscale.errors import ConfigError
from hgscale.hypergraph.bounds import count_floor, half_norm
from hgscale.hypergraph.identify import Diameter, Identifiability, identifiability, line_graph_diameter
from hgscale.hypergraph.world import WorldConfig, build_world

# More sizes than this are summed up in one line of text; ``to_dict`` holds them all.
_MAX_SIZES_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Describe a world: sizes, weights, identifiability, and the error of counting at given sample sizes."""

    world: WorldConfig = field(default_factory=WorldConfig)
    """The world to describe."""

    num_samples: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Sample sizes N at which to give the count floor."""

    def __post_init__(self) -> None:
        """Refuse sample sizes below 1 before a world is made."""
        for num in self.num_samples:
            if num < 1:
                raise ConfigError(f"num_samples={num} is below 1; the error of counting needs a sample")


@dataclass(frozen=True)
class SizeShare:
    """The edges of one size: how many, and their total weight."""

    size: int
    num_edges: int
    weight: float


@dataclass(frozen=True)
class InspectResult:
    """What ``inspect`` found.

    Attributes:
        digest: of the world: equal digests, equal worlds.
        num_nodes: n, nodes in no edge included.
        num_isolated: nodes in no edge.
        num_edges: E.
        sizes: count and total weight of the edges of each size that occurs, ascending.
        min_weight: smallest weight of an edge.
        max_weight: largest weight of an edge.
        kappa: max_weight / min_weight.
        entropy_nats: of the law of one sample; at most ln E.
        half_norm: (sum_e sqrt(w_e))^2, the effective number of edges: counting needs a multiple of it.
        diameter: of the line graph.
        identifiability: what one mask tells, with reason and remedy.
        count_floors: N -> expected l1 error in [0, 2] of counting N samples.
    """

    digest: str
    num_nodes: int
    num_isolated: int
    num_edges: int
    sizes: tuple[SizeShare, ...]
    min_weight: float
    max_weight: float
    kappa: float
    entropy_nats: float
    half_norm: float
    diameter: Diameter
    identifiability: Identifiability
    count_floors: dict[int, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts, lists and scalars that JSON can hold: an infinite diameter is null, and not connected."""
        plain = dataclasses.asdict(self)
        connected = math.isfinite(self.diameter.value_low)
        plain["diameter"] = {
            "low": self.diameter.value_low if connected else None,
            "high": self.diameter.value_high if connected else None,
            "exact": self.diameter.exact,
            "connected": connected,
        }
        plain["sizes"] = list(plain["sizes"])
        plain["count_floors"] = {str(num): floor for num, floor in self.count_floors.items()}
        return plain

    def text(self) -> str:
        """Aligned lines for a terminal."""
        isolated = f" ({self.num_isolated:,} in no edge)" if self.num_isolated else ""
        known = self.identifiability
        rows = [
            ("world", self.digest),
            ("nodes", f"{self.num_nodes:,}{isolated}"),
            ("edges", f"{self.num_edges:,}"),
            *self._size_rows(),
            ("weights", f"{self.min_weight:.3g} to {self.max_weight:.3g}, kappa (largest / smallest) {self.kappa:.4g}"),
            ("entropy", f"{self.entropy_nats:.4f} nats of at most ln E = {math.log(self.num_edges):.4f}"),
            ("effective edges", f"{self.half_norm:,.1f}, the half-norm (sum sqrt w)^2"),
            ("line graph", _diameter_text(self.diameter)),
            ("one mask", _one_mask_text(known, len(self.sizes))),
            ("  because", known.reason),
            *([("  needed", known.remedy)] if known.remedy else []),
            *(
                (f"floor at N={num:,}", f"{l1:.4g} expected l1 error of counting")
                for num, l1 in self.count_floors.items()
            ),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _size_rows(self) -> list[tuple[str, str]]:
        if len(self.sizes) > _MAX_SIZES_SHOWN:
            return [("sizes", f"{len(self.sizes)} sizes, {self.sizes[0].size} to {self.sizes[-1].size}")]
        return [
            (f"  of size {row.size}", f"{row.num_edges:,} with {row.weight:.4g} of the weight") for row in self.sizes
        ]


def inspect(config: InspectConfig) -> InspectResult:
    """Describe the world of a config.

    Raises:
        ConfigError: if the world cannot be made.
        DataError: if its file is wrong.
    """
    world = build_world(config.world)
    law = world.size_law()
    counts = np.bincount(world.sizes)
    return InspectResult(
        digest=world.digest,
        num_nodes=world.num_nodes,
        num_isolated=world.num_nodes - len(np.unique(world.nodes)),
        num_edges=world.num_edges,
        sizes=tuple(SizeShare(size, int(counts[size]), float(law[size])) for size in world.distinct_sizes),
        min_weight=float(world.weights.min()),
        max_weight=float(world.weights.max()),
        kappa=world.kappa,
        entropy_nats=float(-(world.weights * np.log(world.weights)).sum()),
        half_norm=half_norm(world.weights),
        diameter=line_graph_diameter(world),
        identifiability=identifiability(world),
        count_floors={num: count_floor(world.weights, num) for num in config.num_samples},
    )


def _one_mask_text(known: Identifiability, num_sizes: int) -> str:
    if not known.one_mask:
        return "does not identify the weights"
    return "identifies the weights" if num_sizes == 1 else "identifies the weights within each size, not across sizes"


def _diameter_text(diameter: Diameter) -> str:
    if math.isinf(diameter.value_low):
        return "not connected, so its diameter is infinite"
    if diameter.exact:
        return f"diameter {diameter.value_low:.0f}"
    return f"diameter between {diameter.value_low:.0f} and {diameter.value_high:.0f} (too large to search through)"
