from itertools import combinations

import numpy as np
import pytest

from hgscale.errors import ConfigError
from hgscale.hypergraph.recovery import one_mask
from hgscale.hypergraph.structure import Hypergraph
from tests.unit.hypergraph.oracles import Oracle, Table, connected_graph, make_world

# bfs


def test_bfs_multiplies_ratios_along_the_path():
    p = np.zeros((4, 4))  # a path 0-1-2-3 whose conditionals fit no single world
    p[0, 1], p[1, 0], p[1, 2], p[2, 1], p[2, 3], p[3, 2] = 1, 0.2, 0.8, 0.3, 0.7, 1
    world = make_world([(0, 1), (1, 2), (2, 3)], 4)
    expected = np.array([1, 0.8 / 0.2, (0.8 / 0.2) * (0.7 / 0.3)])
    for root in (0, 1, 2, 3):  # on a path every root gives the same ratios
        recovered = one_mask.bfs(Table(p), world, root=root)
        np.testing.assert_allclose(recovered.on_support, expected / expected.sum(), rtol=1e-12)


def test_bfs_depends_on_its_root_and_starts_from_the_node_of_highest_degree():
    world = make_world([(0, 1), (1, 2), (0, 2), (2, 3)], 4)
    oracle = Oracle(world, noise=0.3)
    by_root = [one_mask.bfs(oracle, world, root=root).on_support for root in range(4)]
    assert np.abs(by_root[0] - by_root[1]).max() > 1e-3
    np.testing.assert_array_equal(one_mask.bfs(oracle, world).on_support, by_root[2])


def test_bfs_sees_no_edge_below_its_threshold():
    p = np.array([[0, 0.995, 0.005], [1, 0, 0], [1, 0, 0]])
    world = Hypergraph.from_edges([(0, 1), (0, 2)], [0.995, 0.005])
    assert one_mask.bfs(Table(p), world).on_support.tolist() == [1, 0]
    assert one_mask.bfs(Table(p), world, bfs_threshold=1e-3).on_support == pytest.approx([0.995, 0.005])
    nothing = one_mask.bfs(Table(p), world, bfs_threshold=0.9999, root=0)
    assert (nothing.on_support.tolist(), nothing.off_support_mass) == ([0, 0], 1)


# stationary


def test_stationary_is_closer_to_the_truth_than_bfs_on_noisy_conditionals():
    l1 = {one_mask.bfs: [], one_mask.stationary: []}
    for seed in range(12):
        world = connected_graph(12, 24, seed)
        for method in l1:
            l1[method].append(
                np.abs(method(Oracle(world, noise=0.1, seed=seed), world).on_support - world.weights).sum()
            )
    assert np.mean(l1[one_mask.stationary]) < 0.7 * np.mean(l1[one_mask.bfs])
    assert np.sum(np.array(l1[one_mask.stationary]) < l1[one_mask.bfs]) >= 11


def test_stationary_is_the_long_run_flow_of_the_chain():
    world = connected_graph(6, 9, seed=3)
    oracle = Oracle(world, noise=0.5, leak=0.1)
    p = np.exp(oracle.log_probs(np.arange(6)[:, None], 1))
    law = np.linalg.matrix_power((p + np.eye(6)) / 2, 4096)[0]  # lazy: a bipartite chain never settles
    flow = law[:, None] * p
    recovered = one_mask.stationary(oracle, world)
    on = [flow[u, v] + flow[v, u] for u, v in map(world.edge, range(world.num_edges))]
    np.testing.assert_allclose(recovered.on_support, on, rtol=1e-9)
    assert recovered.off_support_mass == pytest.approx(1 - sum(on), abs=1e-12)
    assert recovered.incompatibility == pytest.approx(
        sum(abs(flow[u, v] - flow[v, u]) for u, v in combinations(range(6), 2))
    )
    assert recovered.incompatibility > 0.01


def test_arnoldi_and_dense_stationary_laws_agree_on_bipartite_and_other_chains(monkeypatch):
    for edges in ([(v, v + 1) for v in range(19)], sorted({(u, v) for u in range(8) for v in range(u + 1, 20, 3)})):
        world = make_world(edges, 20)
        matrix = one_mask._pair_matrix(Oracle(world))
        dense = one_mask.stationary_law(matrix)
        monkeypatch.setattr(one_mask, "DENSE_UNKNOWNS", 5)
        arnoldi = one_mask.stationary_law(one_mask._pair_matrix(Oracle(world)))
        monkeypatch.undo()
        degree = [sum(w for e, w in enumerate(world.weights) if v in world.edge(e)) / 2 for v in range(20)]
        np.testing.assert_allclose(dense, degree, atol=1e-12)
        np.testing.assert_allclose(arnoldi, degree, atol=1e-9)


def test_a_chain_that_falls_apart_shares_mass_by_nodes_and_leaves_transient_nodes_none():
    p = np.zeros((6, 6))
    p[0, 1] = p[1, 0] = 1
    p[2, 3] = p[3, 4] = p[4, 2] = 1
    p[5] = 0.2  # node 5 is only ever left
    p[5, 5] = 0
    np.testing.assert_allclose(
        one_mask.stationary_law(one_mask._pair_matrix(Table(p))), [0.2, 0.2, 0.2, 0.2, 0.2, 0], atol=1e-15
    )


# least_squares


def counted(world, num_samples, seed):
    """p(v|u) counted from samples of pairs with one static mask each: every direction has its own counts."""
    rng = np.random.default_rng(seed)
    edges = world.edges_of_size(2)
    counts = np.zeros((world.num_nodes, world.num_nodes))
    counts[edges[:, 0], edges[:, 1]] = rng.poisson(num_samples * world.weights / 2)
    counts[edges[:, 1], edges[:, 0]] = rng.poisson(num_samples * world.weights / 2)
    return Table(counts / counts.sum(axis=1, keepdims=True))


def unweighted_fit(table, world):
    """Ordinary least squares of log p(v|u) = x_uv - z_u, every equation alike."""
    edges, n = world.edges_of_size(2), world.num_nodes
    rows, right = [], []
    for e, (u, v) in enumerate(edges):
        for a, b in ((u, v), (v, u)):
            row = np.zeros(len(edges) + n)
            row[e], row[len(edges) + a] = 1, -1
            rows.append(row)
            right.append(np.log(table.matrix[a, b]))
    x = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0][: len(edges)]
    return np.exp(x) / np.exp(x).sum()


def test_weighing_log_ratios_by_their_reliability_lowers_the_error_to_that_of_the_stationary_law():
    graph = connected_graph(20, 40, seed=1)
    weights = np.exp(np.random.default_rng(0).normal(0, 1.5, 40))  # over three decades
    world = Hypergraph.from_edges([graph.edge(e) for e in range(40)], weights)
    l1 = {"weighted": [], "unweighted": [], "stationary": [], "bfs": []}
    for seed in range(20):
        table = counted(world, 2_000_000, seed)
        for name, estimated in (
            ("weighted", one_mask.least_squares(table, world).on_support),
            ("unweighted", unweighted_fit(table, world)),
            ("stationary", one_mask.stationary(table, world).on_support),
            ("bfs", one_mask.bfs(table, world, bfs_threshold=1e-9).on_support),
        ):
            l1[name].append(np.abs(estimated - world.weights).sum())
    mean = {name: np.mean(values) for name, values in l1.items()}
    assert mean["weighted"] < 0.85 * mean["unweighted"]
    assert mean["weighted"] < 0.5 * mean["bfs"]
    # Both use every ratio by its reliability: they differ only in the second order of the noise, here about 1%.
    assert mean["weighted"] == pytest.approx(mean["stationary"], rel=0.01)


def test_conjugate_gradients_and_elimination_agree(monkeypatch):
    world = make_world(list(combinations(range(6), 3)), 6)
    oracle = Oracle(world, noise=0.3)
    direct = one_mask.least_squares(oracle, world)
    monkeypatch.setattr(one_mask, "DENSE_UNKNOWNS", 0)
    iterated = one_mask.least_squares(oracle, world)
    np.testing.assert_allclose(iterated.on_support, direct.on_support, rtol=1e-8)
    assert direct.incompatibility > 0.05


def test_edges_without_any_probability_get_no_weight():
    world = make_world([(0, 1), (1, 2), (0, 2)], 4)
    p = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    recovered = one_mask.least_squares(Table(p), world)
    assert recovered.on_support[1:].tolist() == [0, 0]
    assert recovered.on_support.sum() + recovered.off_support_mass == pytest.approx(1)
    nothing = one_mask.least_squares(Table([[0, 0, 0, 1]] * 3 + [[1, 0, 0, 0]]), world)
    assert (nothing.on_support.tolist(), nothing.off_support_mass) == ([0, 0, 0], 1)


def test_unidentified_worlds_are_read_only_if_allowed_and_their_groups_share_the_mass_by_number():
    # {0,1,2} and {0,1,3} are compared, and so are {4,5,6}, {4,5,7} and {4,6,7}; the two groups never are.
    world = Hypergraph.from_edges([(0, 1, 2), (0, 1, 3), (4, 5, 6), (4, 5, 7), (4, 6, 7)], [0.1, 0.3, 0.2, 0.3, 0.1])
    with pytest.raises(ConfigError, match="fall into 2 groups"):
        one_mask.least_squares(Oracle(world), world)
    recovered = one_mask.least_squares(Oracle(world), world, allow_unidentified=True)
    shared = np.concatenate([2 / 5 * np.array([0.25, 0.75]), 3 / 5 * np.array([2, 3, 1]) / 6])
    np.testing.assert_allclose(recovered.on_support, shared, rtol=1e-9)


def test_a_group_that_a_model_hardly_believes_in_takes_no_more_than_its_share():
    # Two edges that no mask compares; the contexts of the second leave a part in 1e6 to it.
    world = Hypergraph.from_edges([(0, 1), (2, 3)], [0.5, 0.5])
    p = np.zeros((4, 4))
    p[0, 1] = p[1, 0] = 1
    p[2, 3] = p[3, 2] = 1e-6
    p[2, 0] = p[3, 1] = 1 - 1e-6
    recovered = one_mask.least_squares(Table(p), world, allow_unidentified=True)
    np.testing.assert_allclose(recovered.on_support, [0.5, 0.5e-6], rtol=1e-6)
    assert recovered.off_support_mass == pytest.approx(0.5, abs=1e-6)
