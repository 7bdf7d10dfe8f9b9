import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgscale.errors import DataError
from hgscale.hypergraph.structure import MAX_EDGE_SIZE, Hypergraph, edge_text, unique_rows

# Rounding of a sum of at most 12 weights, and of the division by their total: far below 12 * 2**-52 each.
CLOSE = 1e-14

node_sets = st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True)
weighted_edges = st.lists(st.tuples(node_sets, st.floats(0.01, 10.0)), min_size=1, max_size=12)


def build(edges: list[tuple[list[int], float]], **options) -> Hypergraph:
    return Hypergraph.from_edges([nodes for nodes, _ in edges], [weight for _, weight in edges], **options)


def as_dict(hypergraph: Hypergraph) -> dict[tuple[int, ...], float]:
    return {hypergraph.edge(e): float(hypergraph.weights[e]) for e in range(hypergraph.num_edges)}


def test_a_small_hypergraph_by_hand():
    hypergraph = Hypergraph.from_edges([[2, 0], [3, 1, 2], [1], [0, 2], [0, 1]], [1, 2, 1, 3, 1])
    assert [hypergraph.edge(e) for e in range(4)] == [(1,), (0, 1), (0, 2), (1, 2, 3)]
    assert hypergraph.weights.tolist() == [1 / 8, 1 / 8, 4 / 8, 2 / 8]
    assert (hypergraph.num_edges, hypergraph.num_nodes, hypergraph.max_size) == (4, 4, 3)
    assert hypergraph.offsets.tolist() == [0, 1, 3, 5, 8]
    assert hypergraph.nodes.tolist() == [1, 0, 1, 0, 2, 1, 2, 3]
    assert hypergraph.sizes.tolist() == [1, 2, 2, 3]
    assert hypergraph.distinct_sizes == (1, 2, 3)
    assert hypergraph.span(2) == slice(1, 3)
    assert hypergraph.edges_of_size(2).tolist() == [[0, 1], [0, 2]]
    assert hypergraph.edges_of_size(4).shape == (0, 4)
    assert hypergraph.size_law().tolist() == [0, 1 / 8, 5 / 8, 2 / 8]
    assert hypergraph.kappa == 4
    assert (hypergraph.offsets.dtype, hypergraph.nodes.dtype, hypergraph.weights.dtype) == (np.int64, np.int32, float)


@given(weighted_edges)
def test_equal_edges_merge_and_weights_keep_their_proportions(edges):
    parts = defaultdict(list)
    for nodes, weight in edges:
        parts[tuple(sorted(nodes))].append(weight)
    total = math.fsum(weight for _, weight in edges)
    expected = {nodes: math.fsum(weights) / total for nodes, weights in parts.items()}
    assert as_dict(build(edges)) == pytest.approx(expected, rel=CLOSE)


@given(weighted_edges)
def test_edges_stand_by_size_and_then_by_nodes(edges):
    found = list(as_dict(build(edges)))
    assert found == sorted({tuple(sorted(nodes)) for nodes, _ in edges}, key=lambda nodes: (len(nodes), nodes))


@given(weighted_edges, st.randoms(use_true_random=False))
def test_the_digest_does_not_see_the_order_of_edges_or_of_their_nodes(edges, random):
    shuffled = [(random.sample(nodes, len(nodes)), weight) for nodes, weight in random.sample(edges, len(edges))]
    assert build(shuffled, num_nodes=8).digest == build(edges, num_nodes=8).digest


@pytest.mark.parametrize("weights", [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
def test_the_digest_does_not_see_the_order_in_which_equal_edges_are_added(weights):
    # In floating point (.1 + .2) + .3 is not (.3 + .2) + .1.
    edges = [[0, 1], [1, 0], [0, 1], [1, 2]]
    expected = Hypergraph.from_edges(edges, [0.2, 0.1, 0.3, 0.7]).digest
    assert Hypergraph.from_edges(edges, [*weights, 0.7]).digest == expected


@given(weighted_edges)
def test_canonical_form_is_a_fixed_point_to_the_last_bit(edges):
    once = build(edges)
    twice = Hypergraph.from_arrays(once.offsets, once.nodes, once.weights, once.num_nodes)
    assert twice.digest == once.digest
    assert abs(once.weights.sum() - 1) < CLOSE


@pytest.mark.parametrize(
    "other",
    [
        Hypergraph.from_edges([[0, 1], [1, 2]], [1, 2]),
        Hypergraph.from_edges([[0, 1], [0, 2]], [1, 1]),
        Hypergraph.from_edges([[0, 1], [1, 2]], [1, 1], num_nodes=4),
        Hypergraph.from_edges([[0, 1], [1, 2], [2]], [1, 1, 1]),
    ],
    ids=["weights", "nodes", "num_nodes", "edges"],
)
def test_the_digest_sees_every_part_of_the_structure(other):
    assert other.digest != Hypergraph.from_edges([[0, 1], [1, 2]], [1, 1]).digest


def test_the_digest_does_not_see_labels():
    edges = [[0, 1], [1, 2]]
    assert Hypergraph.from_edges(edges, labels=["a", "b", "c"]).digest == Hypergraph.from_edges(edges).digest


def test_without_weights_an_edge_weighs_as_often_as_it_stands():
    assert as_dict(Hypergraph.from_edges([[0, 1], [1, 2], [1, 0], [0, 1]])) == {(0, 1): 0.75, (1, 2): 0.25}


def test_edges_of_weight_zero_are_dropped_and_their_nodes_stay():
    hypergraph = Hypergraph.from_edges([[0, 1], [2, 3]], [1, 0])
    assert as_dict(hypergraph) == {(0, 1): 1.0}
    assert hypergraph.num_nodes == 4


def test_num_nodes_comes_from_the_argument_or_the_labels_or_the_largest_node():
    assert Hypergraph.from_edges([[0, 5]]).num_nodes == 6
    assert Hypergraph.from_edges([[0, 5]], num_nodes=9).num_nodes == 9
    labelled = Hypergraph.from_edges([[0, 1]], labels=["a", "b", "c"])
    assert (labelled.num_nodes, labelled.labels) == (3, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("edges", "weights", "options", "complaint"),
    [
        ([], [], {}, "no edges"),
        ([[0, 1], [1, 2]], [1, -1], {}, r"edge 1 \{1, 2\} has weight -1.0; finite and not negative"),
        ([[0, 1], [1, 2]], [1, float("nan")], {}, r"edge 1 \{1, 2\} has weight nan"),
        ([[0, 1], [1, 2]], [float("inf"), 1], {}, r"edge 0 \{0, 1\} has weight inf"),
        ([[0, 1], [1, 2]], [0, 0], {}, "the weights sum to 0.0; a positive finite sum"),
        ([[0, 1], [1, 2]], [1e308, 1e308], {}, "the weights sum to inf"),
        ([[0, 1], [1, 2]], [1], {}, "do not fit together"),
        ([[0, 1], []], [1, 1], {}, "edge 1 is empty"),
        ([[], [0, 1]], [1, 1], {}, "edge 0 is empty"),
        ([[0, 1], [2, 1, 2]], [1, 1], {}, r"edge 1 \{2, 1, 2\} holds a node twice"),
        ([[0, 1], [-1, 2]], [1, 1], {}, r"edge 1 \{-1, 2\} holds node -1; ids run from 0 to 2"),
        ([[0, 1], [1, 5]], [1, 1], {"num_nodes": 5}, "holds node 5; ids run from 0 to 4"),
        ([[0, 1], [1, 5]], [1, 1], {"labels": ["a", "b"]}, "holds node 5; ids run from 0 to 1"),
        ([[0, 2**31]], [1], {}, f"{2**31 + 1} nodes; at most {2**31}"),
        ([[0, 1.5]], [1], {}, "node ids are float64; integers"),
        ([[0, 1]], [1], {"labels": ["a", "b"], "num_nodes": 3}, "2 labels for 3 nodes"),
        ([range(MAX_EDGE_SIZE + 1)], [1], {}, f"edge 0 has {MAX_EDGE_SIZE + 1} nodes; at most"),
    ],
)
def test_what_is_no_weighted_hypergraph_is_refused_by_name(edges, weights, options, complaint):
    with pytest.raises(DataError, match=complaint) as caught:
        Hypergraph.from_edges(edges, weights, where="some/file.csv", **options)
    assert str(caught.value).startswith("some/file.csv: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("offsets", "nodes", "complaint"),
    [
        ([0, 2, 3], [0, 1, 2, 3], "do not fit together"),
        ([1, 2, 4], [0, 1, 2, 3], "do not fit together"),
        ([0, 4], [0, 1, 2, 3], "do not fit together"),
        ([0, 5, 4], [0, 1, 2, 3], "edge 1 is empty"),
        ([0, 2, 4], [0.0, 1.0, 2.0, 3.0], "node ids are float64; integers are wanted"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(offsets, nodes, complaint):
    with pytest.raises(DataError, match=complaint):
        Hypergraph.from_arrays(np.array(offsets), np.array(nodes), np.ones(2))


def test_the_largest_edge_is_taken():
    assert Hypergraph.from_edges([range(MAX_EDGE_SIZE)]).max_size == MAX_EDGE_SIZE


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30))
def test_unique_rows_are_a_sorted_set_with_a_way_back(rows):
    distinct, group = unique_rows(np.array(rows))
    assert [tuple(row) for row in distinct.tolist()] == sorted(set(rows))
    assert [tuple(row) for row in distinct[group].tolist()] == rows


def test_an_edge_is_written_as_a_set():
    assert edge_text(np.array([0, 3, 7])) == "{0, 3, 7}"
