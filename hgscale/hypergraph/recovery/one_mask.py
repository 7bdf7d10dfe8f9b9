"""Read-outs that hide one node: breadth-first and stationary for pairs, least squares for any size.

They identify a world only where its swap graph is connected, and refuse it otherwise. All numbers are derived here
unless a source is given.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph
from scipy.sparse import linalg as splinalg
from scipy.special import logsumexp

from hgscale.errors import ConfigError, RunError
from hgscale.hypergraph.recovery.conditionals import (
    Conditionals,
    Recovered,
    WeightedEdges,
    ask_in_blocks,
    ask_questions,
    drop_one,
    match_edges,
    support_threshold,
)
from hgscale.hypergraph.structure import Hypergraph, unique_rows

DENSE_UNKNOWNS = 2_000  # up to here linear systems are solved densely or by elimination, above iteratively
TINY_PROBABILITY = 1e-7  # dropped from chains over more than DENSE_UNKNOWNS nodes, so that their matrix stays sparse
LISTED_PROBABILITY = 1e-3  # conditional probability from which least_squares names an edge off the support
REWEIGHTINGS = 3  # solves of least_squares; each takes its weights from the one before

# Pairs: one node visible, one hidden


def bfs(
    conditionals: Conditionals, world: Hypergraph, *, bfs_threshold: float = 1e-2, root: int | None = None
) -> Recovered:
    """Pairs by walking breadth-first from a root, multiplying ratios: the read-out of Chen et al. (arXiv 2406.11249).

    Neighbours of u are the v with p(v|u) >= bfs_threshold. Edges at the root weigh p(v|root); a node v first reached
    over {u, v} gives {v, x} the weight w(u,v) p(x|v) / p(u|v), unless the edge has one already. So errors multiply
    along the path, and the answer depends on the root. An edge of a node of more than 1/bfs_threshold neighbours may
    be missed. A node that does not count the one it was reached from among its neighbours has no ratio and is not
    walked from.
    (How their walk orders equals, and where it starts, is not known to us; here neighbours are taken by id.)

    Args:
        conditionals: the model.
        world: connected, pairs only.
        bfs_threshold: conditional probability from which a pair is an edge.
        root: where to start; by default the node of highest degree in the world, so that all models start alike.

    Raises:
        ConfigError: if the world has other sizes or is not connected.
    """
    check_pairs(world, "bfs")
    edges = world.edges_of_size(2)
    matrix = _pair_matrix(conditionals)
    matrix.data[matrix.data < bfs_threshold] = 0
    matrix.eliminate_zeros()
    reverse = sp.csr_matrix(matrix.T)
    start = int(np.argmax(np.bincount(edges.ravel()))) if root is None else root
    log_weight: dict[tuple[int, int], float] = {}
    log_scale = {start: 0.0}  # of u: log of w(u, v) / p(v|u), the same for every v
    queue = deque([start])
    while queue:
        u = queue.popleft()
        back = dict(_row(reverse, u))
        for v, p in _row(matrix, u):
            pair = (min(u, v), max(u, v))
            log_weight.setdefault(pair, log_scale[u] + np.log(p))
            if v not in log_scale and v in back:
                log_scale[v] = log_weight[pair] - np.log(back[v])
                queue.append(v)
    found = np.array(list(log_weight), dtype=np.int64).reshape(-1, 2)
    logs = np.array(list(log_weight.values()))
    weights = np.exp(logs - logsumexp(logs)) if logs.size else logs
    at = match_edges(edges, found)
    on = np.zeros(len(edges))
    on[at[at >= 0]] = weights[at >= 0]
    off = (at < 0) & (weights >= support_threshold(world))
    off_edges = WeightedEdges((found[off],), (weights[off],))
    # Where nothing passes the threshold nothing was recovered, and all of the mass is missing from the support.
    return Recovered(on, float(weights[at < 0].sum()) if logs.size else 1.0, off_edges, None, "bfs")


def stationary(conditionals: Conditionals, world: Hypergraph, *, list_from: float | None = None) -> Recovered:
    """Pairs from the stationary law of the chain that goes from a visible node to the hidden one.

    In a world of pairs pi_u p(v|u) = w(u,v) / 2 with pi the stationary law, so {u, v} is given
    pi_u p(v|u) + pi_v p(u|v). Every conditional enters, so errors average out instead of multiplying.
    ``incompatibility`` is the sum over pairs of |pi_u p(v|u) - pi_v p(u|v)|, in [0, 1].

    Args:
        conditionals: the model.
        world: connected, pairs only.
        list_from: weight from which a pair off the support is listed; None: ``support_threshold(world)``.

    Raises:
        ConfigError: if the world has other sizes or is not connected.
        RunError: if the eigenvalue iteration (above 2,000 nodes) does not converge.
    """
    check_pairs(world, "stationary")
    edges = world.edges_of_size(2)
    matrix = _pair_matrix(conditionals)
    flow = sp.csr_matrix(sp.diags(stationary_law(matrix)) @ matrix)
    both = sp.csr_matrix(flow + flow.T)
    on = np.asarray(both[edges[:, 0], edges[:, 1]]).ravel()
    listed = sp.triu(both, k=1, format="coo")
    heavy = listed.data >= (support_threshold(world) if list_from is None else list_from)
    pairs, weights = np.stack([listed.row[heavy], listed.col[heavy]], axis=1), listed.data[heavy]
    off = match_edges(edges, pairs) < 0
    return Recovered(
        on,
        max(0.0, 1 - float(on.sum())),
        WeightedEdges((pairs[off],), (weights[off],)),
        float(abs(flow - flow.T).sum() / 2),
        "stationary",
    )


def stationary_law(matrix: sp.csr_matrix) -> np.ndarray:
    """[n] float64 summing to 1: pi with pi P = pi, for transition probabilities [n, n] (rows are scaled to sum to 1).

    Nodes that the chain leaves for ever get 0. If it falls apart into several closed classes, each gets mass in
    proportion to its nodes: transitions cannot say more.

    Raises:
        RunError: if the eigenvalue iteration does not converge.
    """
    num_classes, label = csgraph.connected_components(matrix, directed=True, connection="strong")
    links = matrix.tocoo()
    closed = np.ones(num_classes, dtype=bool)
    closed[label[links.row[label[links.row] != label[links.col]]]] = False
    law = np.zeros(matrix.shape[0])
    for chosen in np.flatnonzero(closed):
        members = np.flatnonzero(label == chosen)
        law[members] = len(members) * _irreducible_law(matrix[members][:, members])
    normalised: np.ndarray = law / law.sum()
    return normalised


def _irreducible_law(block: sp.csr_matrix) -> np.ndarray:
    """Stationary law of one closed class: densely, or above DENSE_UNKNOWNS by Arnoldi iteration."""
    num = block.shape[0]
    if num == 1:
        return np.ones(1)
    block = sp.diags(1 / np.asarray(block.sum(axis=1)).ravel()) @ block
    if num <= DENSE_UNKNOWNS:
        system = np.eye(num) - block.toarray().T
        system[-1] = 1
        law = np.linalg.solve(system, np.eye(num)[-1])
    else:
        try:
            # Of largest real part, not modulus: a bipartite graph has the eigenvalue -1 besides 1.
            law = np.real(splinalg.eigs(block.T, k=1, which="LR", v0=np.ones(num), tol=1e-12)[1][:, 0])
        except splinalg.ArpackNoConvergence:
            raise RunError(
                f"stationary: no convergence on {num} nodes, the graph mixes too slowly; use method chain"
            ) from None
        law *= np.sign(law.sum())
    law = np.maximum(law, 0)
    normalised: np.ndarray = law / law.sum()
    return normalised


def check_pairs(world: Hypergraph, method: str) -> None:
    """Refuse a world that one-mask read-outs of pairs cannot identify.

    Raises:
        ConfigError: if it has other sizes or is not connected.
    """
    if world.distinct_sizes != (2,):
        raise ConfigError(
            f"method {method} reads pairs; this world has sizes {_listed(world.distinct_sizes)}; use method chain"
        )
    _check_connected(world.edges_of_size(2), method)


def _row(matrix: sp.csr_matrix, u: int) -> Iterator[tuple[int, float]]:
    """The (column, value) pairs of one row, columns ascending."""
    row = slice(matrix.indptr[u], matrix.indptr[u + 1])
    return zip(matrix.indices[row].tolist(), matrix.data[row].tolist(), strict=True)


def _pair_matrix(conditionals: Conditionals) -> sp.csr_matrix:
    """[V, V] p(v|u) of pairs; above DENSE_UNKNOWNS nodes without the entries below TINY_PROBABILITY."""
    num = conditionals.num_nodes
    dropped = TINY_PROBABILITY if num > DENSE_UNKNOWNS else 0.0
    rows = []
    for _, block in ask_in_blocks(conditionals, np.arange(num)[:, None], 1):
        p = np.exp(block)
        p[p < dropped] = 0
        rows.append(sp.csr_matrix(p))
    return sp.csr_matrix(sp.vstack(rows))


# Any size, one node hidden


def least_squares(conditionals: Conditionals, world: Hypergraph, *, allow_unidentified: bool = False) -> Recovered:
    """Weights whose log-ratios fit the one-mask conditionals best, size by size.

    A context c is an edge less one node; the model says log p(v|c) = x_e - z_c for e = c + v, with x the log weights
    and z the log mass of each context. Counting n_c samples of a context gives log p(v|c) the variance 1 / (n_c p(v|c))
    (what the row's scale adds is taken up by z), and n_c is in proportion to exp(z_c); so each equation weighs
    exp(z_c) p(v|c), with z from the solve before. The swap graph has a clique for every context; eliminating z from
    a sparse Laplacian over edges and contexts is the same, and linear in the sum of sizes.

    Fitted are the edges of the world. An edge off it is weighed by the contexts that see it; off-support mass is what
    contexts leave to such edges, divided by size: exact if every subset of such an edge less one node lies in an
    edge of the world (as for pairs), and down to 1/size of the truth otherwise. Named in ``off_edges`` are those of
    conditional probability 1e-3 or more. Sizes are weighed by the model's size law.

    ``incompatibility`` is the root mean square misfit of the log-ratios, under the same weights.

    Args:
        conditionals: the model.
        world: any world.
        allow_unidentified: read a world whose swap graph is not connected as well; groups of edges that no mask
            compares then share the mass, what is off the support included, by number, which is all that is left to say.

    Raises:
        ConfigError: if the swap graph of a size is not connected: then no one-mask conditionals determine the weights.
        RunError: if conjugate gradients do not converge.
    """
    check_swaps(world, "least_squares", allow_unidentified)
    law = _padded_size_law(conditionals, world)
    on = np.zeros(world.num_edges)
    misfit, edges_off, weights_off = 0.0, [], []
    threshold = support_threshold(world)
    for size in world.distinct_sizes:
        edges = world.edges_of_size(size).astype(np.int64)
        if law[size] == 0:
            continue
        fit = _fit_size(conditionals, edges)
        on[world.span(size)] = law[size] * fit.weights
        misfit += law[size] * fit.misfit**2
        heavy = law[size] * fit.off_weights >= threshold
        edges_off.append(fit.off_edges[heavy])
        weights_off.append(law[size] * fit.off_weights[heavy])
    total = law[list(world.distinct_sizes)].sum()
    return Recovered(
        on,
        max(0.0, 1 - float(on.sum())),
        WeightedEdges(tuple(edges_off), tuple(weights_off)),
        float(np.sqrt(misfit / total)) if total > 0 else None,
        "least_squares",
    )


@dataclass(frozen=True)
class _Fit:
    """Weights within one size, on the support [E] and of what is named off it [o]; the rest of 1 is off it, unnamed."""

    weights: np.ndarray
    misfit: float
    off_edges: np.ndarray
    off_weights: np.ndarray


def _fit_size(conditionals: Conditionals, edges: np.ndarray) -> _Fit:
    """Fit the edges [E, size] of one size; see ``least_squares``."""
    size = edges.shape[1]
    contexts, which = drop_one(edges)
    log_p = np.full(edges.shape, -np.inf)
    seen = []
    for first, block, entries, row, node in ask_questions(conditionals, contexts, 1, which, edges):
        log_p.flat[entries] = block[row, node]
        off = np.exp(block)
        off[row, node] = 0
        row, node = np.nonzero(off >= LISTED_PROBABILITY)
        seen.append((row + first, node, off[row, node]))
    p = np.exp(log_p)
    inside = np.bincount(which.ravel(), weights=p.ravel(), minlength=len(contexts))
    if not inside.any():
        return _Fit(np.zeros(len(edges)), 0.0, edges[:0], np.zeros(0))
    scale = np.ones(len(contexts))  # of a context: mass of its edges over their conditional probability
    for _ in range(REWEIGHTINGS):
        log_weights, misfit = _fit_logs(which, log_p, scale[which] * p)
        weights = np.exp(log_weights - logsumexp(log_weights))
        mass = np.bincount(which.ravel(), weights=np.repeat(weights, size), minlength=len(contexts))
        scale = np.divide(mass, inside, out=np.zeros_like(mass), where=inside > 0)
    off = scale * np.maximum(0, 1 - inside) / size
    edge_group, context_group = _swap_groups(which)
    wanted = np.bincount(edge_group) / len(edges)
    found = np.bincount(edge_group, weights) + np.bincount(context_group, off, minlength=len(wanted))
    factor = np.divide(wanted, found, out=np.zeros_like(found), where=found > 0)
    row, node, p_off = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    off_edges, which_off = unique_rows(np.sort(np.column_stack([contexts[row], node]), axis=1))
    off_weights = np.bincount(which_off, (factor[context_group] * scale)[row] * p_off) / np.bincount(which_off)
    return _Fit(weights * factor[edge_group], misfit, off_edges, off_weights)


def _swap_groups(which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Component of the swap graph of each edge [E] and context [C], from the contexts of each edge [E, size]."""
    num_edges, num = len(which), len(which) + int(which.max()) + 1
    links = (np.repeat(np.arange(num_edges), which.shape[1]), num_edges + which.ravel())
    graph = sp.coo_matrix((np.ones(which.size), links), shape=(num, num))
    _, label = csgraph.connected_components(graph, directed=False)
    return label[:num_edges], label[num_edges:]


def _fit_logs(which: np.ndarray, log_p: np.ndarray, reliability: np.ndarray) -> tuple[np.ndarray, float]:
    """Weighted least squares of log_p[e, j] = x[e] - z[which[e, j]].

    Args:
        which: [E, size] context of each equation, numbered from 0 without gaps.
        log_p: [E, size], -inf where reliability is 0.
        reliability: [E, size] >= 0, not all 0.

    Returns:
        x [E], -inf for an edge without equations; edges that the equations leave unconnected (a model may give exact
        zeros) share the mass by number. And the weighted root mean square residual.
    """
    num_edges, size = which.shape
    num = num_edges + int(which.max()) + 1
    target = np.where(reliability > 0, log_p, 0)
    edge = np.repeat(np.arange(num_edges), size)
    context = num_edges + which.ravel()
    half = sp.coo_matrix((reliability.ravel(), (edge, context)), shape=(num, num))
    links = sp.csr_matrix(half + half.T)
    pull = (reliability * target).ravel()
    right = np.bincount(edge, weights=pull, minlength=num) - np.bincount(context, weights=pull, minlength=num)
    laplacian = sp.csr_matrix(sp.diags(np.asarray(links.sum(axis=1)).ravel()) - links)
    links.eliminate_zeros()
    _, label = csgraph.connected_components(links, directed=False)
    unknown = np.full(num, -np.inf)
    by_label = np.argsort(label, kind="stable")
    for members in np.split(by_label, np.flatnonzero(np.diff(label[by_label])) + 1):
        inside = members[members < num_edges]
        if len(members) == 1 or len(inside) == 0:
            continue
        solution = _solve_laplacian(laplacian[members][:, members], right[members])
        unknown[members] = solution - logsumexp(solution[members < num_edges]) + np.log(len(inside))
    weight = reliability.ravel()
    used = weight > 0
    residual = target.ravel()[used] - unknown[edge[used]] + unknown[context[used]]
    return unknown[:num_edges], float(np.sqrt(weight[used] @ residual**2 / weight.sum()))


def _solve_laplacian(laplacian: sp.csr_matrix, right: np.ndarray) -> np.ndarray:
    """Solve a connected Laplacian, up to a constant: by elimination, or above DENSE_UNKNOWNS by conjugate gradients."""
    num = len(right)
    if num <= DENSE_UNKNOWNS:
        solution = np.zeros(num)
        solution[1:] = splinalg.spsolve(sp.csc_matrix(laplacian[1:, 1:]), right[1:])
        return solution
    found: np.ndarray
    jacobi = sp.diags(1 / laplacian.diagonal())
    found, failed = splinalg.cg(laplacian, right, rtol=1e-11, maxiter=20 * num, M=jacobi)
    if failed:
        raise RunError(f"least_squares: conjugate gradients did not converge on {num} unknowns; use method chain")
    return found


# What one hidden node can tell


def num_swap_components(edges: np.ndarray) -> int:
    """Components of the graph that joins edges [E, s] sharing all nodes but one."""
    _, which = drop_one(edges)
    return int(_swap_groups(which)[0].max()) + 1


def check_swaps(world: Hypergraph, method: str, allow_unidentified: bool) -> None:
    """Refuse a world with a size whose edges one hidden node at a time does not compare, unless that is allowed.

    Raises:
        ConfigError: naming the size.
    """
    for size in () if allow_unidentified else world.distinct_sizes:
        _check_connected(world.edges_of_size(size), method)


def _check_connected(edges: np.ndarray, method: str) -> None:
    """Refuse edges [E, s] whose weights one hidden node at a time cannot tell."""
    num = num_swap_components(edges)
    if num > 1:
        raise ConfigError(
            f"method {method}: the {len(edges)} edges of size {edges.shape[1]} fall into {num} groups of which no "
            "two edges share all nodes but one, so with one node hidden their weights cannot be compared; use method "
            "chain and random-subset masking"
        )


def _padded_size_law(conditionals: Conditionals, world: Hypergraph) -> np.ndarray:
    """Size law up to the world's largest size; 0 for sizes the model does not know."""
    law = np.zeros(max(world.max_size + 1, len(conditionals.size_law())))
    law[: len(conditionals.size_law())] = conditionals.size_law()
    law[~np.isin(np.arange(len(law)), conditionals.sizes)] = 0
    return law


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in sizes[:6]) + (", ..." if len(sizes) > 6 else "")
