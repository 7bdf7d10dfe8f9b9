"""``hgscale.world``: from a config, a generator's name, or edges."""

from typing import Any

import pytest

import hgscale
from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds.config import WorldConfig, build_world


def test_a_world_is_made_from_a_config_a_name_or_edges() -> None:
    config = WorldConfig(generator="star", num_nodes=9, weights="zipf", zipf_exponent=0.5)
    made = hgscale.world("star", "zipf", num_nodes=9, zipf_exponent=0.5)
    assert made.digest == hgscale.world(config).digest == build_world(config).digest
    by_id = hgscale.world([(1, 0), (2, 1), (0, 1)], num_nodes=5)
    assert by_id.digest == Hypergraph.from_edges([(0, 1), (1, 2)], [2, 1], 5).digest
    named = hgscale.world([("b", "a"), ("c", "b", "a")], [3, 1])
    assert (named.labels, named.edge(1), named.weights.tolist()) == (("a", "b", "c"), (0, 1, 2), [0.75, 0.25])
    assert hgscale.world(WorldConfig(generator="star", num_nodes=9, weights="uniform", load="implicit")).num_edges == 8


@pytest.mark.parametrize(
    ("what", "more", "error", "complaint"),
    [
        ("stra", {}, ConfigError, "did you mean star"),
        ("star", {"weights": [1.0]}, ConfigError, "a generator takes the name of a law"),
        (WorldConfig(), {"num_nodes": 3}, ConfigError, "num_nodes beside a config"),
        ([(0, 1)], {"weights": "zipf"}, ConfigError, "give one number for each"),
        ([("a", "a")], {}, DataError, "holds a node twice"),
        ([("a", 1)], {}, DataError, "integers are wanted"),
        ([], {}, DataError, "no edges"),
    ],
)
def test_what_is_no_world_is_refused(what: Any, more: dict[str, Any], error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        hgscale.world(what, **more)


def test_names_follow_the_labels_that_are_given() -> None:
    world = Hypergraph.from_edges([("b", "a")], labels=["b", "a", "z"])
    assert (world.num_nodes, world.labels, world.edge(0)) == (3, ("b", "a", "z"), (0, 1))
    with pytest.raises(DataError, match="node c is none of the labels"):
        Hypergraph.from_edges([("b", "c")], labels=["b", "a"])
