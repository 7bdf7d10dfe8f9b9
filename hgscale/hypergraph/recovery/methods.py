"""The read-outs that ``readout.method`` may name: one row each, built in or anybody's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hgscale import plugins
from hgscale.errors import ConfigError, DataError, RunError
from hgscale.hypergraph.recovery.any_order import chain, chain_log_prob
from hgscale.hypergraph.recovery.conditionals import (
    SUM_TOLERANCE,
    Conditionals,
    OracleConditionals,
    Recovered,
    WeightedEdges,
    find_edges,
)
from hgscale.hypergraph.recovery.one_mask import bfs, check_pairs, check_swaps, least_squares, stationary
from hgscale.hypergraph.structure import Hypergraph

Asks = Literal["one_mask", "any_order"]

PROTOCOL = "my_readout(conditionals) -> (edges, weights)"
"""A user's read-out. It may name ``seed`` and arguments of its own (``readout.config``) besides.

Args: the model, a ``Conditionals``; nothing of the truth.
Returns: edges, one sequence of distinct node ids each, and their weights [E], not negative, that sum to 1.
"""


@dataclass(frozen=True, kw_only=True)
class Method:
    """What a read-out is, and what it can do."""

    read: Callable[..., Recovered]
    """(conditionals, world, fields of the config by name) -> what it gives to the world's edges and to all others."""
    asks: Asks
    """Whether one hidden node is enough, or the model must answer for any number hidden."""
    check: Callable[[Hypergraph, bool], None] = lambda world, allow_unidentified: None
    """(world, readout.allow_unidentified): raises ConfigError where it cannot read such a world."""
    lists: bool = False
    """Finds the sets off the support as well, down to the weight asked for: so it can be cut to a list."""
    log_prob: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None
    """(conditionals, sets of one size [c, k], fields by name) -> their log probabilities [c] and spreads [c]."""
    fields: tuple[str, ...] = ()
    """Of the config, those that decide its numbers."""
    plugin: bool = False
    """Whether it is not built in."""


def _row(read: Callable[..., Recovered], asks: Asks, **rest: Any) -> Method:
    """A built-in read-out: the fields that it uses are the names of its arguments."""
    lists, log_prob = rest.get("lists", False), rest.get("log_prob")
    fields = (*plugins.keywords(read), *(["min_count"] * lists), *(["sampled_edges"] * (log_prob is not None)))
    return Method(read=read, asks=asks, fields=fields, **rest)


def adapted(path: str, function: Any) -> Method:
    """The row of a user's read-out.

    Raises:
        ConfigError: if it is no function of ``conditionals``.
    """
    named = plugins.keywords(function) if callable(function) else ()
    if "conditionals" not in named:
        raise ConfigError(f"readout.method={path} is no function of conditionals; {PROTOCOL} is wanted")

    def read(
        conditionals: Conditionals, world: Hypergraph, *, seed: int, config: Mapping[str, Any], **_: Any
    ) -> Recovered:
        offered = {"conditionals": conditionals, "seed": seed}
        answer = function(**plugins.arguments(function, offered, config, path, "readout.config"))
        return _laid_beside(world, _checked(path, answer, conditionals.num_nodes), path.rpartition(":")[2])

    own = ("config", "min_count", *(["seed"] if "seed" in named else []))
    return Method(read=read, asks="one_mask", lists=True, fields=own, plugin=True)


METHODS = plugins.Table(
    "read-out",
    {
        "bfs": _row(bfs, "one_mask", check=lambda world, _: check_pairs(world, "bfs")),
        "stationary": _row(stationary, "one_mask", check=lambda world, _: check_pairs(world, "stationary"), lists=True),
        "least_squares": _row(
            least_squares, "one_mask", check=lambda world, allowed: check_swaps(world, "least_squares", allowed)
        ),
        "chain": _row(chain, "any_order", lists=True, log_prob=chain_log_prob),
    },
    adapted,
)


def try_out(path: str, method: Method, sizes: tuple[int, ...], config: Mapping[str, Any]) -> int:
    """Call a user's read-out on the exact conditionals of a tiny world, before anything starts.

    Args:
        path: its import path.
        method: its row.
        sizes: of edges in the world that it is to read; the trial has the two smallest.
        config: its own arguments.

    Returns:
        The most nodes that it asked about at once.

    Raises:
        ConfigError: if it fails, or its answer is no hypergraph.
    """
    num_nodes = sizes[:2][-1] + 2
    edges = [range(first, first + size) for size in sizes[:2] for first in range(num_nodes - size + 1)]
    world = Hypergraph.from_edges([list(edge) for edge in edges], np.arange(1.0, len(edges) + 1), num_nodes)
    asked = _Watched(world)
    try:
        method.read(asked, world, seed=0, config=config)
    except (ConfigError, RunError) as error:
        raise ConfigError(str(error)) from None
    except plugins.FAILURES as error:  # whatever the plug-in's own code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(
            f"readout.method={path} fails on a trial of {num_nodes} nodes ({reason}); {PROTOCOL} is wanted"
        ) from None
    return asked.most_masked


class _Watched(OracleConditionals):
    """Remembers how many hidden nodes it was asked about."""

    most_masked = 0

    def log_probs(self, visible: np.ndarray, num_masked: int) -> np.ndarray:
        self.most_masked = max(self.most_masked, num_masked)
        return super().log_probs(visible, num_masked)


def _checked(path: str, answer: Any, num_nodes: int) -> Hypergraph:
    """The answer of a user's read-out as a hypergraph, or a RunError in one line."""
    where, wanted = f"readout.method={path}", f"{PROTOCOL} is wanted"
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise RunError(f"{where} gave {type(answer).__name__}; {wanted}")
    edges = [np.asarray(edge) for edge in answer[0]]
    try:
        weights = np.asarray(answer[1], dtype=np.float64)
        if weights.shape != (len(edges),) or any(edge.ndim != 1 for edge in edges):
            raise RunError(f"{where} gave {len(edges)} edges and weights of shape {weights.shape}; {wanted}")
        offsets = np.cumsum([0, *(len(edge) for edge in edges)])
        nodes = np.concatenate([*edges, np.zeros(0, dtype=np.int64)]) if any(map(len, edges)) else np.zeros(0, int)
        found = Hypergraph.from_arrays(offsets, nodes, weights, num_nodes, where=where)
    except (DataError, TypeError, ValueError) as error:
        raise RunError(f"{' '.join(str(error).split())}; {where}: {wanted}") from None
    if abs(weights.sum() - 1) > SUM_TOLERANCE:
        raise RunError(f"{where} gave weights that sum to {weights.sum():g}, not 1; {wanted}")
    return found


def _laid_beside(world: Hypergraph, found: Hypergraph, name: str) -> Recovered:
    """A hypergraph beside the world that it should be: all that is off the support is named."""
    at = find_edges(found, world)
    on = np.where(at >= 0, found.weights[at], 0.0)
    off = find_edges(world, found) < 0
    chosen = [(found.edges_of_size(size), off[found.span(size)], found.span(size)) for size in found.distinct_sizes]
    off_edges = WeightedEdges(
        tuple(edges[outside] for edges, outside, _ in chosen),
        tuple(found.weights[span][outside] for _, outside, span in chosen),
    )
    return Recovered(on, max(0.0, 1 - float(on.sum())), off_edges, None, name)
