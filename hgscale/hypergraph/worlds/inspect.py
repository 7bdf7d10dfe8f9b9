"""What a world is, what can be known of it, and what counting would cost."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hgscale.hypergraph.bounds import count_floor, half_norm, weight_sums
from hgscale.hypergraph.identify import Diameter, Identifiability, identifiability, line_graph_diameter
from hgscale.hypergraph.structure import Hypergraph, World
from hgscale.hypergraph.worlds.implicit import weight_pieces

# More sizes than this are summed up in one line of text; ``to_dict`` holds them all.
_MAX_SIZES_SHOWN = 12


@dataclass(frozen=True)
class SizeShare:
    """The edges of one size: how many, and their total weight."""

    size: int
    num_edges: int
    weight: float


@dataclass(frozen=True)
class InspectResult:
    """What is known of a world; None is what only a world held in memory tells.

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
    num_isolated: int | None
    num_edges: int
    sizes: tuple[SizeShare, ...] | None
    min_weight: float | None
    max_weight: float | None
    kappa: float
    entropy_nats: float
    half_norm: float
    diameter: Diameter | None
    identifiability: Identifiability | None
    count_floors: dict[int, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts, lists and scalars that JSON can hold: an infinite diameter is null, and not connected."""
        plain = dataclasses.asdict(self)
        if self.diameter is not None:
            connected = math.isfinite(self.diameter.value_low)
            plain["diameter"] = {
                "low": self.diameter.value_low if connected else None,
                "high": self.diameter.value_high if connected else None,
                "exact": self.diameter.exact,
                "connected": connected,
            }
        plain["sizes"] = None if self.sizes is None else list(plain["sizes"])
        plain["count_floors"] = {str(num): floor for num, floor in self.count_floors.items()}
        return plain

    def text(self) -> str:
        """Aligned lines for a terminal."""
        isolated = f" ({self.num_isolated:,} in no edge)" if self.num_isolated else ""
        rows = [
            ("world", self.digest),
            ("nodes", f"{self.num_nodes:,}{isolated}"),
            ("edges", f"{self.num_edges:,}"),
            *self._size_rows(),
            ("weights", f"{self._range_text()}kappa (largest / smallest) {self.kappa:.4g}"),
            ("entropy", f"{self.entropy_nats:.4f} nats of at most ln E = {math.log(self.num_edges):.4f}"),
            ("effective edges", f"{self.half_norm:,.1f}, the half-norm (sum sqrt w)^2"),
            *self._structure_rows(),
            *(
                (f"floor at N={num:,}", f"{l1:.4g} expected l1 error of counting")
                for num, l1 in self.count_floors.items()
            ),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _range_text(self) -> str:
        return "" if self.min_weight is None else f"{self.min_weight:.3g} to {self.max_weight:.3g}, "

    def _structure_rows(self) -> list[tuple[str, str]]:
        known = self.identifiability
        if self.diameter is None or known is None or self.sizes is None:
            return [("not held", "its diameter and identifiability are known only of worlds in memory")]
        return [
            ("line graph", _diameter_text(self.diameter)),
            ("one mask", _one_mask_text(known, len(self.sizes))),
            ("  because", known.reason),
            *([("  needed", known.remedy)] if known.remedy else []),
        ]

    def _size_rows(self) -> list[tuple[str, str]]:
        if self.sizes is None:
            return []
        if len(self.sizes) > _MAX_SIZES_SHOWN:
            return [("sizes", f"{len(self.sizes)} sizes, {self.sizes[0].size} to {self.sizes[-1].size}")]
        return [
            (f"  of size {row.size}", f"{row.num_edges:,} with {row.weight:.4g} of the weight") for row in self.sizes
        ]


def describe(world: World, num_samples: Sequence[int]) -> InspectResult:
    """Describe a world: all of it where it is held in memory, else what follows from its weights.

    Args:
        world: the world.
        num_samples: sample sizes N >= 1 at which to give the count floor.
    """
    return _whole(world, num_samples) if isinstance(world, Hypergraph) else _large(world, num_samples)


def _whole(world: Hypergraph, num_samples: Sequence[int]) -> InspectResult:
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
        count_floors={num: count_floor(world.weights, num) for num in num_samples},
    )


def _large(world: World, num_samples: Sequence[int]) -> InspectResult:
    sums = {num: weight_sums(weight_pieces(world, num), num) for num in num_samples or (1,)}
    first = next(iter(sums.values()))
    return InspectResult(
        digest=world.digest,
        num_nodes=world.num_nodes,
        num_isolated=None,
        num_edges=world.num_edges,
        sizes=None,
        min_weight=None,
        max_weight=None,
        kappa=world.kappa,
        entropy_nats=first.entropy_nats,
        half_norm=first.half_norm,
        diameter=None,
        identifiability=None,
        count_floors={num: sums[num].count_floor for num in num_samples},
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
