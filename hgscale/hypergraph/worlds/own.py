"""Generators and laws of weights that a config may name: the tables, and what a user's functions are to return."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hgscale import plugins
from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds.families import FAMILIES, Family
from hgscale.hypergraph.worlds.weights import LAWS, WeightLaw

MAKES = "my_world(num_nodes, ..., seed) -> Hypergraph, or edges"
"""A user's generator: it names the fields of ``world`` that it wants, and arguments of its own (``world.config``).

Returns: a weighted ``Hypergraph``; or one sequence of distinct node ids for each edge, which ``world.weights`` weighs.
The same arguments must give the same world: every worker makes it.
"""

WEIGHS = "my_weights(edges, seed) -> weights"
"""A user's law of weights; besides ``edges`` it may name fields of ``world`` and arguments of its own.

Args: edges, a list of tuples of node ids in canonical order.
Returns: a positive number for each edge [E]; they are divided by their sum. The same arguments must give the same.
"""


@dataclass(frozen=True)
class OwnFunction:
    """A generator or a law of weights that is a user's.

    Attributes:
        path: its import path.
        function: itself.
        where: the field that names it.
        protocol: what it should be.
    """

    path: str
    function: Callable[..., Any]
    where: str
    protocol: str

    def __call__(self, offered: Mapping[str, Any], own: Mapping[str, Any]) -> Any:
        """What it returns for what the package offers, and those of the user's own arguments that it names.

        Raises:
            ConfigError: if it lacks an argument, or fails.
        """
        mine = {name: value for name, value in own.items() if name in plugins.keywords(self.function)}
        given = plugins.arguments(self.function, offered, mine, self.path, "world.config")
        try:
            return self.function(**given)
        except plugins.FAILURES as error:  # whatever the user's own code raises
            raise self.refusal(f"fails ({_short(f'{type(error).__name__}: {error}')})") from None

    def refusal(self, why: str) -> ConfigError:
        """The error of an answer that is none."""
        return ConfigError(f"{self.where}={self.path} {why}; {self.protocol} is wanted")


def edges_of(generator: OwnFunction, answer: Any, num_nodes: int) -> Hypergraph:
    """The edges that a user's generator gave, of equal weight.

    Raises:
        ConfigError: if they are no edges of ``num_nodes`` nodes; a generator that does not name these has as many as
            its largest node id says.
    """
    known = num_nodes if "num_nodes" in plugins.keywords(generator.function) else None
    try:
        world = Hypergraph.from_edges(answer, None, known)
    except (DataError, TypeError, ValueError) as error:
        raise generator.refusal(f"gave no edges ({_short(str(error))})") from None
    return dataclasses.replace(world, weights=np.full(world.num_edges, 1 / world.num_edges))


def weighed(law: OwnFunction, world: Hypergraph, answer: Any) -> Hypergraph:
    """A world with the weights that a user's law gave.

    Raises:
        ConfigError: if they are no positive numbers, one an edge.
    """
    try:
        weights = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        raise law.refusal(f"gave {type(answer).__name__}") from None
    if weights.shape != (world.num_edges,):
        raise law.refusal(f"gave weights of shape {weights.shape} for {world.num_edges} edges")
    wrong = ~(np.isfinite(weights) & (weights > 0))
    if wrong.any():
        raise law.refusal(f"gave the weight {weights[wrong][0]}")
    return dataclasses.replace(world, weights=weights / weights.sum())


def _short(text: str) -> str:
    return " ".join(text.split())[:200]


def _adapt(where: str, protocol: str, needed: str | None) -> Callable[[str, Any], OwnFunction]:
    def adapted(path: str, function: Any) -> OwnFunction:
        found = OwnFunction(path, function, where, protocol)
        if not callable(function) or (needed is not None and needed not in plugins.keywords(function)):
            raise found.refusal("is no such function")
        return found

    return adapted


GENERATORS: plugins.Table[Family | OwnFunction] = plugins.Table(
    "generator", FAMILIES, _adapt("world.generator", MAKES, None)
)
WEIGHTS: plugins.Table[Callable[..., WeightLaw] | OwnFunction] = plugins.Table(
    "law of weights", LAWS, _adapt("world.weights", WEIGHS, "edges")
)
