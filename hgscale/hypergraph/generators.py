"""Worlds made at random, and the laws of their weights.

Every family returns exactly as many distinct edges as asked for, all of equal weight (``block`` sets its own); a weight
law then goes on with ``reweigh``. An impossible request is refused with the largest possible one.

A k-subset of n nodes is addressed by its rank: its place among all C(n, k) in lexicographic order. Drawing ranks
without replacement and unranking them gives distinct edges in canonical order, for sparse and for complete worlds.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numba as nb
import numpy as np

from hgscale import rng
from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import MAX_EDGE_SIZE, Hypergraph, unique_rows

# Ranks and the sums that make them stay inside int64 below this.
_MAX_RANK = 2**62
# Up to this many candidate edges, all are listed: a race among them is then exact however dense the request.
_MAX_LISTED = 1_000_000
# A world is held in memory as a whole; more edges than this are a slip (a null meaning all sets of many nodes).
_MAX_EDGES = 2**31 - 1
# A drawing that still lacks edges after this many draws per edge asked for is given up.
_MAX_DRAWS_PER_EDGE = 200


def uniform(num_nodes: int, num_edges: int, sizes: int | Mapping[int, float], seed: int) -> Hypergraph:
    """Edges drawn uniformly without replacement, of one size or of several.

    Args:
        num_nodes: n.
        num_edges: exact number of edges.
        sizes: one size k, or size -> share of the edges (normalised here; counts rounded by largest remainder).
        seed: of the world; the same seed gives the same edges.

    Raises:
        ConfigError: a size outside [1, n], a share that leaves no edge, or more edges than there are sets.
    """
    _check_nodes(num_nodes, at_least=1)
    _check_num_edges(num_edges)
    shares = {sizes: 1.0} if isinstance(sizes, int) else dict(sorted(sizes.items()))
    _check_shares(num_nodes, shares)
    counts = _apportion(num_edges, shares)
    capacity = {size: math.comb(num_nodes, size) for size in shares}
    if any(counts[size] > capacity[size] for size in shares):
        most = _most_edges(shares, capacity)
        raise ConfigError(
            f"world.num_edges={num_edges} with shares {_shares_text(shares)} of {num_nodes} nodes asks for more sets "
            f"than there are; at most {most}"
        )
    empty = [size for size in shares if counts[size] == 0]
    if empty:
        raise ConfigError(
            f"world.num_edges={num_edges} leaves no edge of size {empty[0]} under shares {_shares_text(shares)}; "
            f"raise world.num_edges or drop that size"
        )
    _check_held(num_edges)
    draw = rng.stream(seed, "world/edges")
    return _world([_draw_subsets(num_nodes, size, counts[size], draw) for size in shares], num_nodes)


def gnm(num_nodes: int, num_edges: int | None, seed: int) -> Hypergraph:
    """A connected graph: a uniformly random spanning tree, and further pairs drawn uniformly from the rest.

    Every connected graph with that many edges can come out, those with many spanning trees more often.

    Args:
        num_nodes: n >= 2.
        num_edges: m in [n - 1, C(n, 2)]; None takes the density of the paper, int(0.2 n (n - 1) / 2).
        seed: of the world.

    Raises:
        ConfigError: too few edges to connect the nodes, or more than there are pairs.

    Source: the density and the name from the worlds of arXiv 2406.11249; the drawing is ours.
    """
    _check_nodes(num_nodes, at_least=2)
    pairs = math.comb(num_nodes, 2)
    shown = f"{num_edges}" if num_edges is not None else f"null (int(0.2 n (n - 1) / 2) = {int(0.2 * pairs)})"
    wanted = int(0.2 * pairs) if num_edges is None else num_edges
    if not num_nodes - 1 <= wanted <= pairs:
        raise ConfigError(
            f"world.num_edges={shown} cannot make a connected graph of world.num_nodes={num_nodes}; "
            f"at least {num_nodes - 1} and at most {pairs}"
        )
    _check_held(wanted)
    draw = rng.stream(seed, "world/edges")
    tree = _tree_from_pruefer(draw.integers(0, num_nodes, size=num_nodes - 2), num_nodes)
    taken = np.sort(_rank(np.sort(tree, axis=1), num_nodes))
    free = _draw_distinct(pairs - len(taken), wanted - len(taken), draw)
    # The f-th free rank is f plus the taken ranks below it; taken[i] - i counts the free ranks below taken[i].
    others = free + np.searchsorted(taken - np.arange(len(taken)), free, side="right")
    return _world([_unrank(np.sort(np.concatenate([taken, others])), num_nodes, 2)], num_nodes)


def star(num_nodes: int) -> Hypergraph:
    """Pairs {0, i}: line-graph diameter 1."""
    _check_nodes(num_nodes, at_least=2)
    return _tree(np.zeros(num_nodes - 1, dtype=np.int64))


def chain(num_nodes: int) -> Hypergraph:
    """Pairs {i, i + 1}: line-graph diameter n - 2."""
    _check_nodes(num_nodes, at_least=2)
    return _tree(np.arange(num_nodes - 1))


def cross(num_nodes: int) -> Hypergraph:
    """Four arms out of node 0, as equal as n allows: line-graph diameter 9 at n = 20 (arms of 5, 5, 5 and 4 pairs)."""
    _check_nodes(num_nodes, at_least=5)
    return _tree(np.maximum(np.arange(1, num_nodes) - 4, 0))


def power_law(num_nodes: int, num_edges: int, size: int, exponent: float, seed: int) -> Hypergraph:
    """Edges drawn in turn without replacement, a set's chance in proportion to the product of its nodes' pulls.

    Node i pulls with (i + 1)^(-1 / (exponent - 1)), so degrees have a tail P(degree > d) of about d^-(exponent - 1)
    while the request is sparse; node 0 is the hub. As edges are distinct, hubs flatten out in dense requests.

    Args:
        num_nodes: n.
        num_edges: exact number of edges.
        size: k, nodes in every edge.
        exponent: of the degree law; over 2 (finite mean).
        seed: of the world.

    Raises:
        ConfigError: more edges than there are sets, or so many that the drawing does not find them.

    Source: derived here from the Chung-Lu picture: k independent draws by pull, kept when all differ.
    """
    _check_nodes(num_nodes, at_least=1)
    _check_num_edges(num_edges)
    total = _check_size(num_nodes, size, num_edges)
    _check_held(num_edges)
    if not 2 < exponent < math.inf:
        raise ConfigError(f"world.power_law_exponent={exponent} is outside (2, inf); 2.5 is usual")
    draw = rng.stream(seed, "world/edges")
    log_pull = -np.log(np.arange(1, num_nodes + 1)) / (exponent - 1)
    if total <= max(_MAX_LISTED, 4 * num_edges):
        rows = _unrank(np.arange(total), num_nodes, size)
        # The first m of independent exponential clocks are m draws without replacement in proportion to their rates.
        log_time = np.log(draw.standard_exponential(total)) - log_pull[rows].sum(axis=1)
        first = np.argpartition(log_time, num_edges - 1)[:num_edges]
        return _world([rows[np.sort(first)]], num_nodes)
    cumulative = np.cumsum(np.exp(log_pull))

    def draw_rows(count: int) -> np.ndarray:
        rows = np.searchsorted(cumulative, draw.random((count, size)) * cumulative[-1], side="right")
        rows = np.sort(np.minimum(rows, num_nodes - 1), axis=1)  # Rounding can lift a draw to the very end.
        return rows[(rows[:, 1:] != rows[:, :-1]).all(axis=1)]

    return _world([_first_distinct(draw_rows, num_edges, size)], num_nodes)


def block(
    num_nodes: int, num_edges: int | None, size: int, num_blocks: int, within_ratio: float, seed: int
) -> Hypergraph:
    """A planted partition: all edges inside a class weigh the same, all edges across classes weigh the same.

    Node i is of class ``block_of(n, num_blocks)[i]``. Edges are drawn uniformly inside and across, as many of each as
    their share of all C(n, k) sets (at least one of each): the support says nothing about the classes, the weights do.
    With ``num_edges=None`` every set is an edge, so that the classes alone give the whole world (block-constant).

    Args:
        num_nodes: n.
        num_edges: exact number of edges, or None for all C(n, size).
        size: k >= 2.
        num_blocks: classes, as equal as n allows.
        within_ratio: total weight inside classes over total weight across.
        seed: of the world.

    Raises:
        ConfigError: more edges than there are sets, fewer than two, or classes too small to hold an edge.
    """
    _check_nodes(num_nodes, at_least=2)
    if not 2 <= num_blocks <= num_nodes:
        raise ConfigError(f"world.num_blocks={num_blocks} is outside [2, world.num_nodes={num_nodes}]")
    if not 0 < within_ratio < math.inf:
        raise ConfigError(f"world.within_ratio={within_ratio} is not a positive finite number")
    total = _check_size(num_nodes, size, num_edges)
    if size < 2:
        raise ConfigError(f"world.size={size} cannot lie across classes; generator block needs at least 2")
    classes = block_of(num_nodes, num_blocks)
    members = np.bincount(classes)
    capacities = [math.comb(int(count), size) for count in members]
    if sum(capacities) == 0:
        raise ConfigError(
            f"world.num_blocks={num_blocks} makes classes of at most {members.max()} nodes, which hold no edge of "
            f"world.size={size}; take fewer blocks or a smaller size"
        )
    wanted = total if num_edges is None else num_edges
    if wanted < 2:
        raise ConfigError(f"world.num_edges={wanted} cannot lie both inside and across classes; at least 2")
    _check_held(wanted)
    share = sum(capacities) / total
    num_within = min(max(round(wanted * share), 1, wanted - (total - sum(capacities))), wanted - 1, sum(capacities))
    draw = rng.stream(seed, "world/edges")
    within = _draw_within(members, capacities, size, num_within, draw)
    across = _draw_across(classes, total, size, wanted - num_within, draw)
    rows, order = unique_rows(np.concatenate([within, across]))
    mass = np.empty(wanted)
    mass[order] = np.repeat([within_ratio / num_within, 1 / (wanted - num_within)], [num_within, wanted - num_within])
    return reweigh(_world([rows], num_nodes), mass)


def block_of(num_nodes: int, num_blocks: int) -> np.ndarray:
    """[n] int64: the class of each node of a ``block`` world; classes are runs of ids, their lengths within 1."""
    return np.arange(num_nodes) * num_blocks // num_nodes


def class_patterns(world: Hypergraph, num_blocks: int, within_only: bool = False) -> np.ndarray:
    """[E] int64 from 0: which edges of a ``block`` world fall into classes in the same way.

    Two edges do where they have as many nodes in every class; with ``within_only`` where both or neither lie inside one
    class (1 or 0). Patterns are numbered as they ascend, nodes of an edge being ordered.
    """
    rows = block_of(world.num_nodes, num_blocks)[world.edges_of_size(world.max_size)]
    if within_only:
        return (rows[:, 0] == rows[:, -1]).astype(np.int64)
    return unique_rows(rows)[1]


def pattern_weights(patterns: np.ndarray, kappa: float, seed: int) -> np.ndarray:
    """[E] float64: one weight per pattern, kappa^u with u uniform, stretched so that max / min is kappa; normalised.

    Args:
        patterns: [E] int64 from 0, without gaps.
        kappa: largest weight over smallest, where there are two patterns or more.
        seed: of the weights.

    Raises:
        ConfigError: if kappa is below 1 or not finite, or so large that weights underflow.
    """
    _check_kappa(kappa)
    level = rng.stream(seed, "world/weights").random(int(patterns.max()) + 1)
    level = (level - level.min()) / max(np.ptp(level), np.finfo(np.float64).tiny)
    return _normalised(np.exp(level * math.log(kappa))[patterns], f"world.kappa={kappa}")


def uniform_weights(num_edges: int) -> np.ndarray:
    """[E] float64, all 1 / E."""
    return np.full(num_edges, 1 / num_edges)


def two_level_weights(num_edges: int, kappa: float, seed: int) -> np.ndarray:
    """[E] float64: 1 or kappa with equal chance, normalised; from two edges on both occur, so max / min is kappa.

    Raises:
        ConfigError: if kappa is below 1 or not finite.

    Source: the {1, 3} weights of arXiv 2406.11249.
    """
    _check_kappa(kappa)
    draw = rng.stream(seed, "world/weights")
    heavy = draw.random(num_edges) < 0.5
    if num_edges >= 2 and heavy.all() == heavy.any():
        heavy[draw.integers(num_edges)] ^= True
    return _normalised(np.where(heavy, kappa, 1.0), f"world.kappa={kappa}")


def zipf_weights(num_edges: int, exponent: float, seed: int) -> np.ndarray:
    """[E] float64: rank^-exponent, ranks 1 to E dealt to the edges at random.

    Raises:
        ConfigError: if the exponent is negative or not finite, or so large that weights underflow.
    """
    if not 0 <= exponent < math.inf:
        raise ConfigError(f"world.zipf_exponent={exponent} is outside [0, inf); 1 is Zipf's law")
    ranks = rng.stream(seed, "world/weights").permutation(num_edges) + 1.0
    return _normalised(ranks**-exponent, f"world.zipf_exponent={exponent}")


def dirichlet_weights(num_edges: int, alpha: float, seed: int) -> np.ndarray:
    """[E] float64: one draw of the symmetric Dirichlet law; smaller alpha, less even weights.

    Raises:
        ConfigError: if alpha is not positive and finite, or so small that weights underflow.
    """
    if not 0 < alpha < math.inf:
        raise ConfigError(f"world.dirichlet_alpha={alpha} is not a positive finite number")
    draws = rng.stream(seed, "world/weights").standard_gamma(alpha, num_edges)
    return _normalised(draws, f"world.dirichlet_alpha={alpha}")


def reweigh(world: Hypergraph, weights: np.ndarray) -> Hypergraph:
    """The same edges with other weights: [E] float64, positive, in canonical edge order; normalised here."""
    return dataclasses.replace(world, weights=weights / weights.sum())


def _normalised(weights: np.ndarray, setting: str) -> np.ndarray:
    """Weights over their sum, refused where one is too small for a float: it would be an edge that never occurs."""
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not 0 < total < math.inf or weights.min() / total < np.finfo(np.float64).tiny:
        raise ConfigError(
            f"{setting} makes weights of {len(weights)} edges too uneven for a float; ask for a milder one"
        )
    return weights / total


def _world(parts: list[np.ndarray], num_nodes: int) -> Hypergraph:
    """Rows that are canonical already, one array [E_k, k] per ascending size, as a world of equal weights.

    Built without ``from_arrays``, whose sorting costs more than the drawing; tests hold the two against each other.
    """
    sizes = np.concatenate([np.full(len(rows), rows.shape[1], dtype=np.int64) for rows in parts])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    nodes = np.concatenate([rows.ravel() for rows in parts]).astype(np.int32)
    return Hypergraph(offsets, nodes, uniform_weights(len(sizes)), num_nodes)


def _tree(parents: np.ndarray) -> Hypergraph:
    """The tree in which node i + 1 hangs on parents[i] <= i."""
    pairs = np.stack([parents, np.arange(1, len(parents) + 1)], axis=1)
    return _world([unique_rows(pairs)[0]], len(parents) + 1)


def _draw_subsets(num_nodes: int, size: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """[count, size]: distinct subsets drawn uniformly without replacement, in lexicographic order."""
    total = math.comb(num_nodes, size)
    if total <= _MAX_RANK:
        return _unrank(_draw_distinct(total, count, draw), num_nodes, size)
    # Beyond 64-bit ranks any feasible request is so sparse that repeats are rare; draw whole sets.
    return _first_distinct(lambda some: _random_subsets(num_nodes, size, some, draw), count, size)


def _draw_distinct(total: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """[count] int64: distinct numbers of [0, total), every set of them equally likely, ascending."""
    if 2 * count > total:
        kept = np.ones(total, dtype=bool)
        kept[_draw_distinct(total, total - count, draw)] = False
        return np.flatnonzero(kept)
    drawn = np.zeros(0, dtype=np.int64)
    while len(drawn) < count:  # Topping up by what is missing never overshoots, so nothing is thrown away by its value.
        drawn = np.sort(np.concatenate([drawn, draw.integers(0, total, size=count - len(drawn))]))
        drawn = drawn[np.diff(drawn, prepend=-1) > 0]  # np.unique hashes, which is six times slower here.
    return drawn


def _random_subsets(num_nodes: int | np.ndarray, size: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """[count, size]: uniform subsets of [0, n), nodes ascending, repeated sets allowed; n may differ by row ([count]).

    Floyd's method, all rows at once.
    """
    rows = np.empty((count, size), dtype=np.int64)
    for j in range(size):
        top = num_nodes - size + j
        node = draw.integers(0, top + 1, size=count)
        rows[:, j] = np.where((rows[:, :j] == node[:, None]).any(axis=1), top, node)
    return np.sort(rows, axis=1)


def _first_distinct(draw_rows: Callable[[int], np.ndarray], count: int, size: int) -> np.ndarray:
    """[count, size]: the first ``count`` distinct rows that a source yields, in lexicographic order.

    Args:
        draw_rows: asked for some rows, returns at most as many.
        count: rows wanted.
        size: nodes in a row.

    Raises:
        ConfigError: when the source repeats itself too much, with the number it did yield.
    """
    found, asked, new_frac = np.zeros((0, size), dtype=np.int64), 0, 1.0
    while (missing := count - len(found)) > 0:
        if asked > _MAX_DRAWS_PER_EDGE * (count + 64):
            raise ConfigError(
                f"world.num_edges={count} is too dense to draw: {asked} draws gave {len(found)} distinct edges; "
                f"ask for at most {len(found)}"
            )
        some = min(int(missing / new_frac) + 1, 4 * count + 64)
        distinct, group = unique_rows(np.concatenate([found, draw_rows(some)]))
        asked, new_frac = asked + some, max(len(distinct) - len(found), 1) / some
        if len(distinct) > count:  # Keep those drawn first: the lexicographically first would favour low ids.
            drawn_at = np.unique(group, return_index=True)[1]
            distinct = distinct[np.sort(np.argsort(drawn_at)[:count])]
        found = distinct
    return found


def _draw_within(
    members: np.ndarray, capacities: list[int], size: int, count: int, draw: np.random.Generator
) -> np.ndarray:
    """[count, size]: distinct sets that lie inside one class, uniform among all of them; members: [B] class lengths."""
    first_node = np.cumsum(members) - members
    if sum(capacities) > _MAX_RANK:
        chance = np.array([capacity / sum(capacities) for capacity in capacities])

        def draw_rows(some: int) -> np.ndarray:
            chosen = draw.choice(len(members), size=some, p=chance / chance.sum())
            return first_node[chosen, None] + _random_subsets(members[chosen], size, some, draw)

        return _first_distinct(draw_rows, count, size)
    ranks = _draw_distinct(sum(capacities), count, draw)
    starts = np.concatenate([[0], np.cumsum(capacities)])
    parts = []
    for c, num_members in enumerate(members):
        lo, hi = np.searchsorted(ranks, starts[c : c + 2])
        parts.append(first_node[c] + _unrank(ranks[lo:hi] - starts[c], int(num_members), size))
    return np.concatenate(parts)


def _draw_across(classes: np.ndarray, total: int, size: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """[count, size]: distinct sets that meet at least two classes, uniform among all of them."""

    def crossing(rows: np.ndarray) -> np.ndarray:
        return rows[classes[rows[:, 0]] != classes[rows[:, -1]]]  # Classes are runs: first and last node tell.

    if total <= max(_MAX_LISTED, 4 * count):
        rows = crossing(_unrank(np.arange(total), len(classes), size))
        return rows[_draw_distinct(len(rows), count, draw)]
    return _first_distinct(lambda some: crossing(_random_subsets(len(classes), size, some, draw)), count, size)


def _binomials(num_nodes: int, size: int) -> np.ndarray:
    """[size + 1, n + 1] int64: C(c, j) at [j, c], held at 2^62 where larger."""
    table = np.ones((size + 1, num_nodes + 1), dtype=np.int64)
    for j in range(1, size + 1):
        table[j, 0] = 0
        np.cumsum(table[j - 1, :-1], out=table[j, 1:])
        # Entries up to the first that is too large are exact; what follows has wrapped, and the float sum tells where.
        table[j, 1:][np.cumsum(table[j - 1, :-1], dtype=np.float64) >= _MAX_RANK] = _MAX_RANK
    return table


def _unrank(ranks: np.ndarray, num_nodes: int, size: int) -> np.ndarray:
    """[r, size] int64: the subsets of these lexicographic ranks, nodes ascending.

    Source: derived here. Under i -> n - 1 - i lexicographic order is the reverse of the combinatorial number system
    N = C(b_1, k) + C(b_2, k - 1) + ... with b_1 > b_2 > ..., whose digits are found greedily.
    """
    table = _binomials(num_nodes, size)
    left = math.comb(num_nodes, size) - 1 - np.asarray(ranks, dtype=np.int64)
    rows = np.empty((len(left), size), dtype=np.int64)
    for j in range(size):
        digit = np.searchsorted(table[size - j], left, side="right") - 1
        left -= table[size - j, digit]
        rows[:, j] = num_nodes - 1 - digit
    return rows


def _rank(rows: np.ndarray, num_nodes: int) -> np.ndarray:
    """[r] int64: the lexicographic ranks of subsets given with nodes ascending; the inverse of ``_unrank``."""
    size = rows.shape[1]
    table = _binomials(num_nodes, size)
    digits = num_nodes - 1 - rows
    reverse = np.zeros(len(rows), dtype=np.int64)
    for j in range(size):
        reverse += table[size - j, digits[:, j]]
    return math.comb(num_nodes, size) - 1 - reverse


@nb.njit(cache=True)
def _tree_from_pruefer(sequence: np.ndarray, num_nodes: int) -> np.ndarray:
    """[n - 1, 2] int64: the tree of a Pruefer sequence [n - 2]; a bijection, so uniform in gives uniform out."""
    degree = np.ones(num_nodes, dtype=np.int64)
    for node in sequence:
        degree[node] += 1
    tree = np.empty((num_nodes - 1, 2), dtype=np.int64)
    scan = 0
    while degree[scan] != 1:
        scan += 1
    leaf = scan
    for i in range(num_nodes - 2):
        node = sequence[i]
        tree[i, 0], tree[i, 1] = leaf, node
        degree[node] -= 1
        if degree[node] == 1 and node < scan:
            leaf = node
        else:
            scan += 1
            while degree[scan] != 1:
                scan += 1
            leaf = scan
    tree[num_nodes - 2, 0], tree[num_nodes - 2, 1] = leaf, num_nodes - 1
    return tree


def _apportion(num_edges: int, shares: Mapping[int, float]) -> dict[int, int]:
    """Whole counts that sum to ``num_edges``: floors, and the rest to the largest remainders, smaller sizes first."""
    total = sum(shares.values())
    exact = {size: num_edges * share / total for size, share in shares.items()}
    counts = {size: int(value) for size, value in exact.items()}
    by_remainder = sorted(shares, key=lambda size: (counts[size] - exact[size], size))
    for size in by_remainder[: num_edges - sum(counts.values())]:
        counts[size] += 1
    return counts


def _most_edges(shares: Mapping[int, float], capacity: Mapping[int, int]) -> int:
    """The largest number of edges whose apportionment fits; rounding moves it a little above min capacity / share."""
    total = sum(shares.values())
    most = int(min((min(capacity[size], _MAX_RANK) + 1) * total / share for size, share in shares.items()))
    while any(count > capacity[size] for size, count in _apportion(most, shares).items()):
        most -= 1
    return most


def _shares_text(shares: Mapping[int, float]) -> str:
    return "{" + ", ".join(f"{size}: {share:g}" for size, share in shares.items()) + "}"


def _check_kappa(kappa: float) -> None:
    if not 1 <= kappa < math.inf:
        raise ConfigError(f"world.kappa={kappa} is outside [1, inf): largest weight over smallest; the paper's is 3")


def _check_nodes(num_nodes: int, at_least: int) -> None:
    if not at_least <= num_nodes < 2**31:
        raise ConfigError(f"world.num_nodes={num_nodes} is outside [{at_least}, 2^31)")


def _check_num_edges(num_edges: int) -> None:
    if num_edges < 1:
        raise ConfigError(f"world.num_edges={num_edges} is below 1; a world needs an edge")


def _check_held(num_edges: int) -> None:
    if num_edges > _MAX_EDGES:
        raise ConfigError(f"world.num_edges is {num_edges}, more than one memory holds; at most {_MAX_EDGES}")


def _check_shares(num_nodes: int, shares: Mapping[int, float]) -> None:
    if not shares:
        raise ConfigError("world.sizes={} is empty; give size: share, as {2: 0.5, 3: 0.5}")
    for size, share in shares.items():
        _check_size(num_nodes, size, None)
        if not 0 < share < math.inf:
            raise ConfigError(f"world.sizes gives size {size} the share {share}; a positive finite number is wanted")


def _check_size(num_nodes: int, size: int, num_edges: int | None) -> int:
    """Refuse a size that no set has, or more edges than sets; return C(n, k)."""
    largest = min(num_nodes, MAX_EDGE_SIZE)
    if not 1 <= size <= largest:
        raise ConfigError(f"world.size={size} is outside [1, {largest}] for world.num_nodes={num_nodes}")
    total = math.comb(num_nodes, size)
    if num_edges is not None and num_edges > total:
        raise ConfigError(
            f"world.num_edges={num_edges} is more than all sets of {size} out of {num_nodes} nodes; at most {total}"
        )
    return total
