"""The read-out of any model, trained anywhere: what ``hgscale.read_out`` is."""

from typing import Any

from hgscale.hypergraph.recovery import readout
from hgscale.hypergraph.recovery.comparison import sparse_from
from hgscale.hypergraph.recovery.conditionals import Conditionals
from hgscale.hypergraph.recovery.methods import Asks
from hgscale.hypergraph.recovery.readout import ReadOut, ReadoutConfig
from hgscale.hypergraph.structure import Hypergraph, World


def read_out(
    conditionals: Conditionals,
    world: World,
    method: str = "auto",
    *,
    num_samples: int | None = None,
    trained: Asks = "any_order",
    seed: int = 0,
    **fields: Any,
) -> ReadOut:
    """Read a weighted hypergraph out of a model, and lay it beside the world it should be.

    Args:
        conditionals: the model: an object with ``num_nodes``, ``sizes``, ``size_law()`` and
            ``log_probs(visible, num_masked)``, see ``hgscale.Conditionals``.
        world: the truth, for the error. ``bfs``, ``stationary`` and ``chain`` take of it which sets to report on,
            ``least_squares`` which sets are edges; a read-out of your own gets nothing of it.
        method: bfs, stationary, least_squares, chain; auto, one of them by the world; yours, package.module:function.
        num_samples: N, samples the model saw; needed for ``min_count``, and for the sparse reading of ``compare``.
        trained: what the model has learnt to answer: "one_mask", one hidden node, or "any_order", any number.
        seed: of random orders and sampled edges.
        **fields: of ``hgscale.ReadoutConfig``, as num_orders=2.

    Returns:
        ``error``: the distance from the world, l1 in [0, 2], and its parts; ``law``: ``on_support``, [E] float64, what
        each edge of the world gets, and ``off_support_mass``; ``recovered``: the law, or the list cut from it.

    Raises:
        ConfigError: if the method cannot read this world or a field means nothing to it.
        RunError: if a solver does not converge, or your read-out answers with what is no hypergraph.
    """
    config = readout.check_readout(world, ReadoutConfig(method=method, **fields), trained)
    list_from = sparse_from(world, num_samples) if num_samples and isinstance(world, Hypergraph) else None
    return readout.read_out(conditionals, world, config, seed, list_from, num_samples)
