"""What a user writes: own pairs, a world, a model, a read-out, a comparison."""

import numpy as np
import pytest

import hgscale
from hgscale.errors import ConfigError
from hgscale.hypergraph.bounds import count_floor

NAMED = [("ada", "bob"), ("bob", "cy"), ("ada", "cy"), ("cy", "dan"), ("ada", "bob")]


class Counted:
    """A user's model: conditionals of pairs by counting, with one half added; shares nothing with the package."""

    sizes = (2,)

    def __init__(self, num_nodes: int, pairs: list[tuple[int, int]]) -> None:
        self.num_nodes = num_nodes
        self.table = np.full((num_nodes, num_nodes), 0.5)
        for u, v in pairs:
            self.table[u, v] += 1
            self.table[v, u] += 1
        np.fill_diagonal(self.table, 0)

    def size_law(self) -> np.ndarray:
        return np.array([0.0, 0.0, 1.0])

    def log_probs(self, visible: np.ndarray, num_masked: int) -> np.ndarray:
        rows = self.table.sum(axis=0)[None, :] if num_masked == 2 else self.table[visible[:, 0]]
        with np.errstate(divide="ignore"):
            return np.log(rows / rows.sum(axis=1, keepdims=True))


def test_from_own_pairs_to_numbers() -> None:
    world = hgscale.world(NAMED)
    assert world.labels == ("ada", "bob", "cy", "dan")
    assert world.weights.tolist() == [0.4, 0.2, 0.2, 0.2]
    drawn = world.sampler(0).draw(np.arange(200))
    model: hgscale.Conditionals = Counted(4, [world.edge(e) for e in drawn])
    result = hgscale.read_out(model, world, "chain", num_samples=200)
    # Of such a table the chain gives each pair its share: p(u) p(v|u) + p(v) p(u|v) = 2 table[u, v] / all of it.
    expected = {(u, v): 2 * model.table[u, v] / model.table.sum() for u in range(4) for v in range(u + 1, 4)}
    truth = {world.edge(e): world.weights[e] for e in range(4)}
    l1 = sum(abs(weight - truth.get(pair, 0)) for pair, weight in expected.items())
    assert result.error.recovery_l1 == pytest.approx(l1)
    counts = np.bincount(drawn, minlength=4)
    numbers = hgscale.compare(result, world, counts)
    assert numbers["recovery_l1"] == result.error.recovery_l1
    assert numbers["count_l1"] == pytest.approx(np.abs(counts / 200 - world.weights).sum())
    assert numbers["ratio_to_floor"] == pytest.approx(l1 / count_floor(world.weights, 200))
    assert {"good_turing_l1", "sparse_l1", "capacity_bits", "line_graph_diameter"} <= set(numbers)
    assert numbers["sparse_l1"] is not None
    assert hgscale.compare(result, world, counts, groups=np.array([0, 1, 1, 1]))["structured_floor_l1"] > 0


def test_a_perfect_model_is_read_out_perfectly_by_every_method() -> None:
    world = hgscale.world(NAMED)
    for method in ("auto", "stationary", "least_squares", "bfs", "chain"):
        result = hgscale.read_out(hgscale.OracleConditionals(world), world, method)
        assert result.error.recovery_l1 < 1e-10, method


def test_fields_of_a_read_out_are_passed_on_and_refused_as_in_a_config() -> None:
    world = hgscale.world("uniform", num_nodes=8, num_edges=12, size=3)
    oracle = hgscale.OracleConditionals(world)
    assert hgscale.read_out(oracle, world, sampled_edges=50).error.num_edges == 50
    for fields, complaint in (
        ({"method": "stationary"}, "reads pairs; this world has sizes 3"),
        ({"method": "chian"}, "did you mean chain"),
        ({"method": "chain", "bfs_threshold": 0.5}, "bfs_threshold=0.5 has no meaning"),
        ({"method": "chain", "trained": "one_mask"}, "asks about several hidden nodes"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            hgscale.read_out(oracle, world, **fields)
    with pytest.raises(ConfigError, match=r"counts of shape \(3,\) for 12 edges"):
        hgscale.compare(hgscale.read_out(oracle, world), world, np.ones(3))
