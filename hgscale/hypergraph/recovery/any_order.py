"""Read-outs that hide any number of nodes: probabilities by unmasking node after node, and a search for heavy edges.

They identify every world. All numbers are derived here.
"""

from math import comb, lgamma

import numpy as np
from scipy.special import logsumexp

from hgscale.hypergraph.recovery.conditionals import (
    BLOCK_ENTRIES,
    Conditionals,
    Recovered,
    WeightedEdges,
    ask_in_blocks,
    distinct_sets,
    drop_one,
    match_edges,
    pick_log_probs,
    support_threshold,
)
from hgscale.hypergraph.structure import Hypergraph
from hgscale.rng import stream

MIN_CANDIDATES = 50_000
CANDIDATE_SLACK = 0.25  # a search keeps prefixes down to this share of the wanted weight: conditionals are not exact


def chain(
    conditionals: Conditionals,
    world: Hypergraph,
    *,
    num_orders: int = 6,
    exact_size: int = 6,
    seed: int = 0,
    max_candidates: int | None = 0,
    list_from: float | None = None,
) -> Recovered:
    """Probability of each edge by unmasking its nodes one after another, averaged over orders.

    Normalised over all node sets by construction, so what the support does not get is off it (with sampled orders up to
    their noise, and not below 0). ``incompatibility`` is the relative standard deviation among the orders of an edge,
    averaged by recovered weight.

    Args:
        conditionals: the model; must answer for any number hidden.
        world: any world; identified whatever its sizes.
        num_orders: random orders averaged for an edge of more than ``exact_size`` nodes.
        exact_size: largest edge averaged over all its orders.
        seed: of the random orders.
        max_candidates: node sets kept per step of the search for ``off_edges``; 0 skips it, None keeps twice the edges,
            at least 50,000.
        list_from: weight from which they are sought; None: ``support_threshold(world)``.
    """
    on, spread = np.empty(world.num_edges), np.empty(world.num_edges)
    for size in world.distinct_sizes:
        log_p, spread[world.span(size)] = chain_log_prob(
            conditionals, world.edges_of_size(size), num_orders=num_orders, exact_size=exact_size, seed=seed
        )
        on[world.span(size)] = np.exp(log_p)
    off_edges = None
    kept = max(2 * world.num_edges, MIN_CANDIDATES) if max_candidates is None else max_candidates
    if kept > 0:
        found = candidates(
            conditionals,
            support_threshold(world) if list_from is None else list_from,
            kept,
            num_orders=num_orders,
            exact_size=exact_size,
            seed=seed,
        )
        off = [match_edges(world.edges_of_size(edges.shape[1]), edges) < 0 for edges in found.edges]
        off_edges = WeightedEdges(
            tuple(edges[chosen] for edges, chosen in zip(found.edges, off, strict=True)),
            tuple(weights[chosen] for weights, chosen in zip(found.weights, off, strict=True)),
            found.missing_below,
        )
    total = on.sum()
    incompatibility = float(on @ spread / total) if total > 0 else None
    return Recovered(on, max(0.0, 1 - float(total)), off_edges, incompatibility, "chain")


def chain_log_prob(
    conditionals: Conditionals, edges: np.ndarray, *, num_orders: int = 6, exact_size: int = 6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Log probability of edges, p(size) times the sum over all orders of prod_t p(node_t | nodes before it).

    Up to ``exact_size`` nodes the sum is exact, by dynamic programming over subsets that edges share; beyond, size!
    times the mean over ``num_orders`` random orders, which is unbiased for the probability (not for its log).

    Args:
        conditionals: the model.
        edges: [c, size] integers, distinct nodes in each row; all of one size.
        num_orders: random orders beyond ``exact_size``.
        exact_size: largest size summed exactly.
        seed: of the random orders.

    Returns:
        log probability [c], -inf for a size the model does not know; and the relative standard deviation among the
        orders of each edge [c], 0 where there is one order or no probability.
    """
    num, size = edges.shape
    law = conditionals.size_law()
    if size not in conditionals.sizes or size >= len(law) or law[size] <= 0:
        return np.full(num, -np.inf), np.zeros(num)
    edges = np.sort(edges.astype(np.int64), axis=1)
    exact = size <= exact_size
    generator = stream(seed, "recovery orders", size)
    per_edge = comb(size, size // 2) * size if exact else num_orders * size
    step = max(1, BLOCK_ENTRIES // per_edge)
    mean, mean_square = np.empty(num), np.empty(num)
    for start in range(0, num, step):
        rows = slice(start, min(num, start + step))
        if exact:
            mean[rows], mean_square[rows] = _all_orders(conditionals, edges[rows])
        else:
            mean[rows], mean_square[rows] = _random_orders(conditionals, edges[rows], num_orders, generator)
    spread = np.zeros(num)
    possible = mean > -np.inf
    spread[possible] = np.sqrt(np.maximum(0, np.expm1(mean_square[possible] - 2 * mean[possible])))
    return mean + lgamma(size + 1) + np.log(law[size]), spread


def _all_orders(conditionals: Conditionals, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log mean [c], and log mean square [c], over all orders of prod_t p(node_t | nodes before it), for rows [c, size].

    f(S) = sum over v in S of f(S - v) p(v | S - v), from the empty set up; the same with squares.
    """
    size = edges.shape[1]
    levels = []
    sets = edges
    while sets.shape[1] > 0:
        smaller, parent = drop_one(sets)
        levels.append((sets, smaller, parent))
        sets = smaller
    first, second = np.zeros(1), np.zeros(1)
    for sets, smaller, parent in reversed(levels):
        log_p = pick_log_probs(conditionals, smaller, size - smaller.shape[1], parent, sets)
        first = np.logaddexp.reduce(first[parent] + log_p, axis=1)
        second = np.logaddexp.reduce(second[parent] + 2 * log_p, axis=1)
    return first - lgamma(size + 1), second - lgamma(size + 1)


def _random_orders(
    conditionals: Conditionals, edges: np.ndarray, num_orders: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same two means over random orders, the second such that their spread is the sample variance (n - 1)."""
    num, size = edges.shape
    order = np.argsort(generator.random((num, num_orders, size)), axis=2)
    nodes = np.take_along_axis(edges[:, None, :], order, axis=2).reshape(num * num_orders, size)
    total = np.zeros(num * num_orders)
    for done in range(size):
        contexts, which = distinct_sets(np.sort(nodes[:, :done], axis=1))
        total += pick_log_probs(conditionals, contexts, size - done, which, nodes[:, done])
    total = total.reshape(num, num_orders)
    mean = logsumexp(total, axis=1) - np.log(num_orders)
    scaled = np.exp(total - np.where(mean > -np.inf, mean, 0)[:, None])
    variance = scaled.var(axis=1, ddof=1) if num_orders > 1 else np.zeros(num)
    return mean, 2 * mean + np.log1p(variance)


def candidates(
    conditionals: Conditionals,
    min_weight: float,
    max_edges: int,
    *,
    num_orders: int = 6,
    exact_size: int = 6,
    seed: int = 0,
) -> WeightedEdges:
    """Every edge of probability ``min_weight`` or more, found by unmasking with pruning.

    Each edge is sought along one path only, its nodes from the rarest to the most frequent, so a set S found on the
    way is a prefix. Two bounds on the mass of the edges beginning with S prune it: a(S) = P(S in e), which only falls
    as S grows (a(S + v) = a(S) m p(v|S), m nodes being hidden), and a(S) (1 - m p(u|S)) for every u rarer than the last
    of S, for if u is hidden S is no prefix. The latter cuts the 2^size subsets of a large edge to its prefixes.

    If the conditionals are compatible and ``max_edges`` is not reached, all are found. Conditionals that are not can
    lose an edge whose prefix they underrate fourfold (prefixes are kept down to a quarter of ``min_weight``), so
    for them this is a heuristic. What is found is weighed by ``chain_log_prob`` and dropped if below ``min_weight``.

    Args:
        conditionals: the model; must answer for any number hidden.
        min_weight: smallest probability of interest.
        max_edges: sets kept per size and step, the heaviest first. Where there were more, ``missing_below`` is what the
            heaviest of the others could weigh, with the same room for conditionals that are not compatible.
        num_orders: see ``chain_log_prob``.
        exact_size: see there.
        seed: see there.
    """
    law = conditionals.size_law()
    edges, weights, missing_below = [], [], 0.0
    for size in conditionals.sizes:
        if size >= len(law) or law[size] < min_weight:
            continue
        found, lost = _search(conditionals, size, CANDIDATE_SLACK * min_weight / law[size], max_edges)
        missing_below = max(missing_below, lost * float(law[size]) / CANDIDATE_SLACK)
        log_p, _ = chain_log_prob(conditionals, found, num_orders=num_orders, exact_size=exact_size, seed=seed)
        kept = np.exp(log_p) >= min_weight
        edges.append(found[kept])
        weights.append(np.exp(log_p[kept]))
    return WeightedEdges(tuple(edges), tuple(weights), missing_below)


def _search(conditionals: Conditionals, size: int, least: float, max_edges: int) -> tuple[np.ndarray, float]:
    """Prefix search for edges [c, size] of mass ``least`` or more in their size; and the largest bound it dropped."""
    marginal = conditionals.log_probs(np.zeros((1, 0), dtype=np.int64), size)[0]
    rarity = np.empty(conditionals.num_nodes, dtype=np.int64)
    rarity[np.argsort(marginal, kind="stable")] = np.arange(conditionals.num_nodes)
    sets, mass, last, lost = np.zeros((1, 0), dtype=np.int64), np.ones(1), np.full(1, -1), 0.0
    for done in range(size):
        if len(sets) == 0:
            return np.zeros((0, size), dtype=np.int64), lost
        grown, grown_mass, grown_bound = [], [], []
        for rows, block in ask_in_blocks(conditionals, sets, size - done):
            hidden = (size - done) * np.exp(block)  # P(v in e | S)
            earlier = rarity[None, :] < last[rows, None]
            bound = mass[rows] * np.maximum(0, 1 - np.max(np.where(earlier, hidden, 0), axis=1))
            child = mass[rows, None] * np.where(earlier, 0, hidden)
            row, node = np.nonzero(np.minimum(child, bound[:, None]) >= least)
            grown.append(np.column_stack([sets[rows][row], node]))
            grown_mass.append(child[row, node])
            grown_bound.append(np.minimum(child[row, node], bound[row]))
        sets, mass, bound = np.concatenate(grown), np.concatenate(grown_mass), np.concatenate(grown_bound)
        if len(sets) > max_edges:
            heaviest = np.argsort(-bound, kind="stable")
            lost = max(lost, float(bound[heaviest[max_edges]]))
            kept = np.sort(heaviest[:max_edges])
            sets, mass = sets[kept], mass[kept]
        last = rarity[sets[:, done]]
    return np.sort(sets, axis=1), lost
