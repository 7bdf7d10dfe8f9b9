"""Worlds in memory: exactly the edges and weights of their parts, canonical, refused where impossible."""

import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds import families, parts
from hgscale.hypergraph.worlds.config import WorldConfig, build_world, parts_of, weight_law_of
from hgscale.hypergraph.worlds.parts import AddressedPart, Part, bucket_of


def edges_by_number(part: Part) -> list[tuple[int, ...]]:
    """The edges of a part in their order, one at a time; those of an exchanged part by the book."""
    if isinstance(part, AddressedPart):
        return [tuple(part.rows(j, j + 1)[0].tolist()) for j in range(part.num_edges)]
    first: dict[tuple[int, ...], int] = {}
    counter = 0
    while len(first) < part.num_edges:
        rows, counters = part.propose(counter, counter + 7)
        for row, number in zip(rows.tolist(), counters.tolist(), strict=True):
            if len(first) < part.num_edges:
                first.setdefault(tuple(row), number)
        counter += 7
    buckets = {edge: int(bucket_of(np.array([edge], dtype=np.int32), part.num_buckets)[0]) for edge in first}
    return sorted(first, key=lambda edge: (buckets[edge], first[edge]))


@pytest.mark.parametrize(
    "fields",
    [
        {"num_nodes": 20, "num_edges": 60, "weights": "dirichlet"},
        {"generator": "uniform", "num_nodes": 30, "num_edges": 200, "sizes": {2: 0.5, 28: 0.2, 5: 0.3}},
        {"generator": "uniform", "num_nodes": 10**6, "num_edges": 200, "size": 5, "weights": "zipf"},
        {"generator": "power_law", "num_nodes": 30, "num_edges": 150, "weights": "zipf"},
        {"generator": "power_law", "num_nodes": 1000, "num_edges": 150, "weights": "dirichlet"},
        {"generator": "block", "num_nodes": 30, "num_edges": 150, "num_blocks": 3, "within_ratio": 0.4},
        {"generator": "block", "num_nodes": 30, "num_edges": 150, "block_law": "random", "kappa": 9.0},
        {"generator": "block", "num_nodes": 12, "num_blocks": 3},
        {"generator": "chain", "num_nodes": 40, "weights": "uniform"},
    ],
)
def test_the_world_in_memory_is_its_edges_by_number(monkeypatch: pytest.MonkeyPatch, fields: dict) -> None:
    monkeypatch.setattr(parts, "SHARD_EDGES", 32)  # several buckets
    config = WorldConfig(**fields, seed=3)
    numbered = parts_of(config)
    law = weight_law_of(config, numbered)
    weights: dict[tuple[int, ...], float] = {}
    for part in numbered:
        for edge in edges_by_number(part):
            weights[edge] = float(law.of(np.array([len(weights)]), np.array([edge]))[0])
    world = build_world(config)
    order = sorted(weights, key=lambda edge: (len(edge), edge))
    assert [world.edge(e) for e in range(world.num_edges)] == order
    total = math.fsum(weights.values())
    # One rounding of each piece's mass, one of the total and one of the quotient.
    np.testing.assert_allclose(world.weights, [weights[edge] / total for edge in order], rtol=4 * 2**-53)
    assert (world.offsets.dtype, world.nodes.dtype, world.weights.dtype) == (np.int64, np.int32, np.float64)


@given(seed=st.integers(0, 10), generator=st.sampled_from(["uniform", "power_law", "block"]))
def test_the_world_in_memory_is_canonical(seed: int, generator: str) -> None:
    # ``from_arrays`` sorts for itself, from edges and nodes in reverse order.
    world = build_world(WorldConfig(generator=generator, num_nodes=40, num_edges=90, seed=seed))
    edges = [world.edge(e)[::-1] for e in range(world.num_edges)][::-1]
    assert Hypergraph.from_edges(edges, world.weights[::-1], 40).digest == world.digest


@pytest.mark.parametrize(
    "fields",
    [
        {"generator": "uniform", "num_nodes": 10**5, "num_edges": 10**10},
        {"num_nodes": 10**6},
        {"generator": "power_law", "num_nodes": 10**5, "num_edges": 10**10},
        {"generator": "block", "num_nodes": 10**5},
    ],
)
def test_worlds_beyond_memory_are_refused_not_begun(fields: dict) -> None:
    with pytest.raises(ConfigError, match=r"more than one memory holds; at most 2147483647$"):
        build_world(WorldConfig(**fields))


def test_a_part_too_dense_to_draw_is_refused_with_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_MAX_DRAWS_PER_EDGE", 1)
    monkeypatch.setattr(families, "_MAX_LISTED", 0)
    config = WorldConfig(generator="power_law", num_nodes=150, num_edges=2000, size=2, power_law_exponent=2.01)
    with pytest.raises(ConfigError, match=r"world\.num_edges=2000 is too dense .*ask for at most (\d+)$") as refusal:
        build_world(config)
    found = int(str(refusal.value).split()[-1])
    part = parts_of(config)[0]
    assert not isinstance(part, AddressedPart)
    assert found == len(np.unique(part.propose(0, part.max_proposals)[0], axis=0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kappa": 1e308}, r"world\.kappa=1e\+308 .*too uneven"),
        ({"weights": "zipf", "zipf_exponent": 400.0}, r"world\.zipf_exponent=400\.0 .*too uneven"),
        ({"weights": "dirichlet", "dirichlet_alpha": 1e-4}, r"world\.dirichlet_alpha=0\.0001 .*too uneven"),
    ],
)
def test_weights_too_uneven_for_a_float_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_world(WorldConfig(**fields))


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: WorldConfig(generator="uniform", num_nodes=100, num_edges=500, seed=seed),
        lambda seed: WorldConfig(generator="uniform", num_nodes=100, num_edges=500, sizes={2: 1, 5: 1}, seed=seed),
        lambda seed: WorldConfig(generator="uniform", num_nodes=10**6, num_edges=500, size=6, seed=seed),
        lambda seed: WorldConfig(num_nodes=30, num_edges=60, seed=seed),
        lambda seed: WorldConfig(generator="power_law", num_nodes=100, num_edges=500, seed=seed),
        lambda seed: WorldConfig(generator="power_law", num_nodes=10_000, num_edges=500, seed=seed),
        lambda seed: WorldConfig(generator="block", num_nodes=60, num_edges=500, seed=seed),
    ],
)
def test_the_seed_and_nothing_else_decides_the_world(make: Callable[[int], WorldConfig]) -> None:
    np.random.seed(0)
    first = build_world(make(0))
    np.random.seed(1)
    assert build_world(make(0)).digest == first.digest
    assert build_world(make(1)).nodes.tolist() != first.nodes.tolist()


@pytest.mark.parametrize(
    ("fields", "digest"),
    [
        ({"num_nodes": 100}, "f50bb9ffad642671"),
        ({"generator": "uniform", "num_nodes": 10**6, "num_edges": 10**8}, "e6d68b3b013fd648"),
        ({"generator": "uniform", "num_nodes": 10**6, "num_edges": 10**8, "size": 5}, "380a1314372c8c65"),
        ({"generator": "power_law", "num_nodes": 10**4, "num_edges": 10**6}, "d78cf808daaef2b6"),
        ({"generator": "block", "num_nodes": 1000, "num_edges": 10**6}, "868a6b0b422288b0"),
    ],
)
def test_generated_edges_never_change(fields: dict, digest: str) -> None:
    # Pinned: if these move, shards on disk and recorded runs are of other worlds than their configs name.
    sha = hashlib.sha256()
    for part in parts_of(WorldConfig(**fields)):
        rows = part.rows(0, 900) if isinstance(part, AddressedPart) else part.propose(0, 900)[0]
        sha.update(rows.astype("<i4").tobytes())
    assert sha.hexdigest()[:16] == digest
