"""A world that is not held in memory is described by what its weights tell, with the same numbers."""

import json
from typing import Any

import pytest

from hgscale.data.inspect import InspectConfig, inspect
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.hypergraph.worlds.inspect import InspectResult


def inspected(**fields: Any) -> InspectResult:
    world = WorldConfig(generator="uniform", num_nodes=50, num_edges=3000, size=3, weights="zipf", **fields)
    return inspect(InspectConfig(world=world, num_samples=(100, 1000)))


def test_a_computed_world_has_the_numbers_of_the_one_in_memory() -> None:
    computed, held = inspected(load="implicit"), inspected(load="memory")
    for name in ("num_nodes", "num_edges", "kappa", "entropy_nats", "half_norm"):
        assert getattr(computed, name) == pytest.approx(getattr(held, name), rel=1e-7), name
    assert computed.count_floors == pytest.approx(held.count_floors, rel=1e-7)


def test_what_only_a_world_in_memory_tells_is_missing() -> None:
    computed = inspected(load="implicit")
    assert (computed.diameter, computed.identifiability, computed.num_isolated, computed.sizes) == (None,) * 4
    assert json.loads(json.dumps(computed.to_dict(), allow_nan=False))["diameter"] is None
    assert "known only of worlds in memory" in computed.text()
