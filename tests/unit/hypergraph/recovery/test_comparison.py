"""Every number of a comparison, against going through all node sets or a formula written out again."""

import json
from itertools import combinations
from math import comb, log, log2
from pathlib import Path

import numpy as np
import pytest

from hgscale.hypergraph import bounds
from hgscale.hypergraph.recovery import estimators
from hgscale.hypergraph.recovery.comparison import read_and_compare
from hgscale.hypergraph.recovery.readout import ReadoutConfig
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds.config import WorldConfig, build_world, held_out_config
from tests.unit.hypergraph.oracles import Oracle, brute_chain, make_world

CHAIN = ReadoutConfig(method="chain", max_candidates=0)
HELD_OUT_FIELDS = {
    f"heldout_{name}"
    for name in (
        *("l1", "log_likelihood", "world_l1", "count_l1", "new_edge_frac", "new_size_frac"),
        *("good_turing_l1", "good_turing_log_likelihood"),
        *("absolute_discounting_l1", "absolute_discounting_log_likelihood"),
    )
}


def split_file(folder: Path) -> WorldConfig:
    """A file whose second half has pairs and a size that the first lacks."""
    first = [(0, 1)] * 5 + [(1, 2)] * 3 + [(2, 5)] + [(1, 2, 4)] * 2 + [(0, 3, 4)]
    last = [(0, 1)] * 4 + [(2, 3)] * 2 + [(1, 2, 4)] * 3 + [(0, 3, 5)] * 2 + [(0, 1, 2, 3)]
    path = folder / "edges.txt"
    path.write_text("".join(" ".join(map(str, edge)) + "\n" for edge in first + last))
    return WorldConfig(path=str(path), take="first", split_frac=0.5)


def total_error(law: dict, estimate: dict) -> float:
    return sum(abs(law.get(s, 0) - estimate.get(s, 0)) for s in law.keys() | estimate.keys())


def law_of(world: Hypergraph) -> dict:
    return {world.edge(e): float(world.weights[e]) for e in range(world.num_edges)}


def test_during_training_only_what_is_cheap_is_said():
    world = make_world([(0, 1), (1, 2), (0, 2)], 3)
    metrics = read_and_compare(Oracle(world), world, ReadoutConfig(), np.array([2, 1, 1]), 0).metrics
    assert {"recovery_l1", "ratio_to_floor", "ratio_to_count", "log_likelihood", "half_norm"} <= set(metrics)
    assert not {"good_turing_l1", "capacity_bits", "structured_floor_l1", "heldout_l1"} & set(metrics)
    assert metrics["log_likelihood"] == pytest.approx(float(world.weights @ np.log(world.weights)))
    assert metrics["count_l1"] == pytest.approx(np.abs(world.weights - [0.5, 0.25, 0.25]).sum())
    assert metrics["ratio_to_floor"] == pytest.approx(metrics["recovery_l1"] / metrics["count_floor_l1"])
    assert (metrics["readout"], metrics["num_edges_compared"], metrics["num_samples"]) == ("stationary", 3, 4)


def test_a_perfect_model_of_a_uniform_world_knows_what_its_edges_are_worth():
    origin = WorldConfig(generator="uniform", num_nodes=7, num_edges=10, weights="uniform")
    world = build_world(origin)
    metrics = read_and_compare(Oracle(world), world, CHAIN, np.ones(10, dtype=int), 0, origin).metrics
    assert metrics["capacity_bits"] == pytest.approx(10 * log2(comb(7, 3) / 10))
    assert metrics["entropy_nats"] == pytest.approx(log(10)) == pytest.approx(-metrics["log_likelihood"])
    assert metrics["kappa"] == 1
    assert metrics["structured_floor_l1"] is None
    assert {name: metrics[name] for name in HELD_OUT_FIELDS} == dict.fromkeys(HELD_OUT_FIELDS)


def test_smoothed_counting_is_laid_beside_the_world_over_all_node_sets():
    origin = WorldConfig(generator="uniform", num_nodes=6, num_edges=8, sizes={2: 0.5, 3: 0.5})
    world = build_world(origin)
    counts = np.array([3, 1, 0, 2, 1, 0, 1, 0])
    metrics = read_and_compare(Oracle(world), world, CHAIN, counts, 0, origin).metrics
    every = Hypergraph.from_edges([s for size in (2, 3) for s in combinations(range(6), size)], None, 6)
    for name in ("good_turing", "absolute_discounting"):
        smoothed = dict(
            zip(law_of(every), getattr(estimators, name)(estimators.sample_of(world, counts)).of(every), strict=True)
        )
        assert metrics[f"{name}_l1"] == pytest.approx(total_error(law_of(world), smoothed))
        expected = sum(w * log(smoothed[edge]) for edge, w in law_of(world).items())
        assert metrics[f"{name}_log_likelihood"] == pytest.approx(expected)


def test_blocks_have_a_structured_floor_below_that_of_counting():
    origin = WorldConfig(generator="block", num_nodes=9, num_blocks=3, within_ratio=4.0)
    world = build_world(origin)
    counts = np.random.default_rng(0).multinomial(50, world.weights)
    metrics = read_and_compare(Oracle(world), world, CHAIN, counts, 0, origin).metrics
    assert metrics["structured_floor_l1"] == pytest.approx(bounds.count_floor(np.array([0.8, 0.2]), 50))
    assert metrics["structured_floor_l1"] < metrics["count_floor_l1"] / 5


def test_a_model_is_read_as_a_law_and_as_a_list_whichever_of_them_is_the_answer():
    origin = WorldConfig(generator="uniform", num_nodes=6, num_edges=8, sizes={2: 0.5, 3: 0.5})
    world = build_world(origin)
    oracle, counts = Oracle(world, noise=0.3, leak=0.05), np.array([3, 1, 0, 2, 1, 0, 1, 0])
    law, as_list = (
        read_and_compare(oracle, world, ReadoutConfig(min_count=count), counts, 0, origin).metrics
        for count in (None, 0.1)
    )
    assert (law["readout"], as_list["readout"]) == ("chain", "chain-list")
    assert (law["list_from"], as_list["list_from"]) == (None, 0.1 / counts.sum())
    for ending in ("l1", "ratio_to_floor"):
        main = "recovery_l1" if ending == "l1" else ending
        assert law[f"sparse_{ending}"] == pytest.approx(as_list[main], rel=1e-12)
        assert as_list[f"dense_{ending}"] == pytest.approx(law[main], rel=1e-12)
        assert as_list[f"sparse_{ending}"] is law[f"dense_{ending}"] is None
    assert law["recovery_l1"] != as_list["recovery_l1"]
    for name in ("log_likelihood", "capacity_bits"):
        assert as_list[name] == law[name] is not None
    early = read_and_compare(oracle, world, ReadoutConfig(min_count=0.1), counts, 0).metrics
    assert early["recovery_l1"] == as_list["recovery_l1"]  # during training, too


@pytest.mark.parametrize(("generator", "diameter"), [("star", 1), ("cross", 9), ("chain", 18)])
def test_the_diameter_is_that_of_the_line_graph(generator, diameter):
    origin = WorldConfig(generator=generator, num_nodes=20)
    world = build_world(origin)
    metrics = read_and_compare(Oracle(world), world, ReadoutConfig(), np.ones(19, dtype=int), 0, origin).metrics
    assert metrics["line_graph_diameter"] == diameter


def test_a_line_graph_in_pieces_has_no_diameter_and_what_was_not_recovered_no_capacity():
    world = make_world([(0, 1), (2, 3)], 4)
    metrics = read_and_compare(Oracle(world), world, CHAIN, np.array([1, 1]), 0, WorldConfig()).metrics
    assert metrics["line_graph_diameter"] is None
    triples = make_world([(0, 1), (0, 1, 2)], 3)
    blind = Oracle(triples, sizes=(2,))
    metrics = read_and_compare(blind, triples, CHAIN, np.array([1, 1]), 0, WorldConfig()).metrics
    assert (metrics["log_likelihood"], metrics["capacity_bits"]) == (None, None)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_the_held_out_part_of_a_file_is_compared_with_model_counts_and_smoothed_counts(tmp_path):
    origin = split_file(tmp_path)
    world, held_out = build_world(origin), build_world(held_out_config(origin))
    oracle, counts = Oracle(world, noise=0.4, leak=0.2), np.array([4, 2, 0, 1, 1])
    metrics = read_and_compare(oracle, world, CHAIN, counts, 0, origin, held_out).metrics
    assert set(metrics) >= HELD_OUT_FIELDS
    sets = [s for size in (2, 3) for s in combinations(range(6), size)]
    every = Hypergraph.from_edges(sets, None, 6)
    counted = dict(zip(law_of(world), counts.tolist(), strict=True))
    truth = law_of(held_out)
    laws = {
        "heldout_": {s: brute_chain(oracle, s)[0] for s in sets},
        "heldout_world_": law_of(world),
        "heldout_count_": {edge: count / 8 for edge, count in counted.items()},
    } | {
        f"heldout_{name}_": dict(
            zip(law_of(every), getattr(estimators, name)(estimators.sample_of(world, counts)).of(every), strict=True)
        )
        for name in ("good_turing", "absolute_discounting")
    }
    for name, law in laws.items():
        assert metrics[f"{name}l1"] == pytest.approx(total_error(truth, law)), name
    known = {edge: weight for edge, weight in truth.items() if len(edge) < 4}
    for name in ("heldout_", "heldout_good_turing_", "heldout_absolute_discounting_"):
        expected = sum(w * log(laws[name][edge]) for edge, w in known.items()) / sum(known.values())
        assert metrics[f"{name}log_likelihood"] == pytest.approx(expected), name
    assert metrics["heldout_new_edge_frac"] == pytest.approx(5 / 12)
    assert metrics["heldout_new_size_frac"] == pytest.approx(1 / 12)


def test_a_one_mask_read_out_leaves_the_models_held_out_numbers_missing(tmp_path):
    path = tmp_path / "edges.txt"
    path.write_text("0 1\n1 2\n0 2\n0 1\n")
    origin = WorldConfig(path=str(path), take="first", split_frac=0.75)
    world, held_out, counts = build_world(origin), build_world(held_out_config(origin)), np.ones(3, dtype=int)
    metrics = read_and_compare(Oracle(world), world, ReadoutConfig(), counts, 0, origin, held_out).metrics
    assert (metrics["heldout_l1"], metrics["heldout_log_likelihood"]) == (None, None)
    assert metrics["heldout_count_l1"] == pytest.approx(4 / 3)
