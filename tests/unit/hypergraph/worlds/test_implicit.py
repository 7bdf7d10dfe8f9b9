import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph import bounds
from hgscale.hypergraph.worlds import implicit
from hgscale.hypergraph.worlds.config import WorldConfig, build_world
from hgscale.hypergraph.worlds.implicit import EXACT_RANKS, ImplicitWorld
from hgscale.rng import key, random_bits

# One draw in ten million of an ideal source falls outside; seeds are fixed, so these tests never flicker.
P_VALUE = 1e-7

WORLDS = {
    "uniform": WorldConfig(generator="uniform", num_nodes=30, num_edges=500, weights="uniform", seed=1),
    "zipf": WorldConfig(generator="uniform", num_nodes=30, num_edges=500, weights="zipf", seed=2),
    "mixed sizes, mild zipf": WorldConfig(
        generator="uniform", num_nodes=25, num_edges=300, sizes={2: 0.4, 4: 0.6}, weights="zipf", zipf_exponent=0.5
    ),
    "graph, steep zipf": WorldConfig(generator="gnm", num_nodes=40, num_edges=200, weights="zipf", zipf_exponent=2.5),
    "star": WorldConfig(generator="star", num_nodes=20, weights="zipf", zipf_exponent=1.2),
    "flat zipf": WorldConfig(generator="chain", num_nodes=20, weights="zipf", zipf_exponent=0.0),
    "one edge": WorldConfig(generator="uniform", num_nodes=5, num_edges=1, weights="zipf"),
}

every_world = pytest.mark.parametrize("config", WORLDS.values(), ids=WORLDS.keys())


def large(num_edges: int, **fields) -> ImplicitWorld:
    return ImplicitWorld(WorldConfig(generator="uniform", num_nodes=1_000_000, num_edges=num_edges, **fields))


def edges_of(world: ImplicitWorld) -> list[tuple[int, ...]]:
    rows = world.rows(np.arange(world.num_edges))
    return [tuple(rows.nodes[lo:hi].tolist()) for lo, hi in pairwise(rows.offsets)]


# The same world as in memory


@every_world
def test_edges_and_weights_are_those_of_the_world_in_memory(config):
    held, world = build_world(config), ImplicitWorld(config)
    weights = world.weights_of(np.arange(world.num_edges))
    in_memory = {held.edge(e): held.weights[e] for e in range(held.num_edges)}
    computed = dict(zip(edges_of(world), weights, strict=True))
    # Both divide by a sum of the same terms, each to 53 bits.
    assert computed == pytest.approx(in_memory, rel=1e-13)
    assert (world.num_nodes, world.num_edges, world.distinct_sizes, world.max_size) == (
        held.num_nodes,
        held.num_edges,
        held.distinct_sizes,
        held.max_size,
    )
    assert world.kappa == pytest.approx(held.kappa, rel=1e-13)
    np.testing.assert_array_equal(np.concatenate(list(world.weight_chunks())), weights)


def test_rows_are_those_of_the_edges_asked_for_in_their_order():
    world = ImplicitWorld(WORLDS["mixed sizes, mild zipf"])
    everything, asked = edges_of(world), np.array([299, 0, 150, 150, 7])
    rows = world.rows(asked)
    found = [tuple(rows.nodes[rows.offsets[i] : rows.offsets[i + 1]].tolist()) for i in rows.index]
    assert found == [everything[edge] for edge in asked]
    at, fours = rows.of_size(4)
    assert [tuple(row) for row in fours.tolist()] == [found[i] for i in at]


@pytest.mark.parametrize(
    ("fields", "same"),
    [({}, True), ({"seed": 5}, False), ({"zipf_exponent": 1.5}, False), ({"size": 2}, False)],
)
def test_the_digest_names_the_law(fields, same):
    assert (large(1000, weights="zipf").digest == large(1000, **({"weights": "zipf"} | fields)).digest) == same


# Drawing


@every_world
def test_edges_are_drawn_by_weight(config):
    world = ImplicitWorld(config)
    weights = world.weights_of(np.arange(world.num_edges))
    drawn = world.sampler(3).draw(np.arange(400_000))
    expected, counts = len(drawn) * weights, np.bincount(drawn, minlength=world.num_edges)
    rare = expected < 5  # the chi-square law asks for 5 in each cell
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    chosen = expected > 0
    assert observed[~chosen].sum() == 0
    assert chosen.sum() == 1 or stats.chisquare(observed[chosen], expected[chosen]).pvalue > P_VALUE


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.3])
def test_a_quadrillion_ranks_follow_their_law_from_the_first_to_the_last(exponent):
    world = large(10**15, weights="zipf", zipf_exponent=exponent)
    drawn = world.sampler(0).draw(np.arange(200_000))
    ranks = drawn + 1.0 if world.zipf is None else world.zipf.ranks(drawn)
    # Cells of a factor of 4; their shares are sums up to rank 4,096, beyond integrals by the midpoint rule, to 1e-7.
    ends = np.append(4.0 ** np.arange(25), 1e15 + 1)

    def mass(lo, hi):
        if hi <= 5000:
            return (np.arange(lo, hi) ** -exponent).sum()
        if exponent == 1:
            return math.log((hi - 0.5) / (lo - 0.5))
        return ((hi - 0.5) ** (1 - exponent) - (lo - 0.5) ** (1 - exponent)) / (1 - exponent)

    shares = np.array([mass(lo, hi) for lo, hi in pairwise(ends)])
    expected = len(drawn) * shares / shares.sum()
    counts = np.histogram(ranks, ends)[0]
    rare = expected < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    kept = expected > 0
    assert stats.chisquare(observed[kept], expected[kept]).pvalue > P_VALUE
    if exponent < 1:  # most samples lie among ranks that a float of the inverse would leave out: none repeats
        assert len(np.unique(drawn)) > 0.999 * len(drawn)


def test_equal_weights_reach_every_one_of_3e18_edges_alike():
    world = ImplicitWorld(
        WorldConfig(generator="uniform", num_nodes=3_000_000, num_edges=2**61 + 2**60, size=3, weights="uniform")
    )
    drawn = world.sampler(0).draw(np.arange(100_000))
    counts = np.bincount(drawn >> 55, minlength=96)
    low_bits = np.bincount(drawn & 63, minlength=64)
    assert counts.sum() == low_bits.sum() == 100_000
    assert (len(counts), len(low_bits)) == (96, 64)
    assert min(stats.chisquare(counts).pvalue, stats.chisquare(low_bits).pvalue) > P_VALUE


def test_a_uniform_draw_is_the_upper_half_of_a_product_of_128_bits():
    world = large(10**15 + 7, weights="uniform")
    ids = np.array([0, 1, 2, 10**15])
    words = [int(random_bits(key(4, "sample/edge"), np.uint64(i))) for i in ids]
    assert world.sampler(4).draw(ids).tolist() == [word * (10**15 + 7) >> 64 for word in words]


@pytest.mark.parametrize("weights", ["uniform", "zipf"])
def test_a_sample_is_a_function_of_its_id_alone(weights):
    sampler, ids = large(10**12, weights=weights).sampler(5), np.arange(1000)
    drawn = sampler.draw(ids)
    assert sampler.draw(ids[::-1].copy())[::-1].tolist() == drawn.tolist()
    assert sampler.draw(ids[600:]).tolist() == drawn[600:].tolist()
    assert large(10**12, weights=weights).sampler(6).draw(ids).tolist() != drawn.tolist()
    rows = sampler.shuffled(ids, drawn, 3)
    held = sampler.world.rows(drawn).nodes.reshape(-1, 3)
    assert np.sort(rows, axis=1).tolist() == held.tolist()
    assert (rows != held).any()


# Sums over all edges


def assert_sums_are_exact(world: ImplicitWorld, num_samples: int, rel: float) -> None:
    weights = np.concatenate(list(world.weight_chunks()))
    sums = bounds.weight_sums(world.weight_quadrature(num_samples), num_samples)
    assert weights.sum() == pytest.approx(1, rel=rel)
    assert sums.count_floor == pytest.approx(bounds.count_floor(weights, num_samples), rel=rel)
    assert sums.half_norm == pytest.approx(bounds.half_norm(weights), rel=rel)
    assert sums.entropy_nats == pytest.approx(-(weights @ np.log(weights)), rel=rel)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("num_samples", [1, 10**5, 10**8])
def test_sums_by_quadrature_are_those_over_all_edges(exponent, num_samples, monkeypatch):
    """Fewer ranks gone through make the errors larger: of the midpoint rule (1.5 / 4096)^2 / 24 = 6e-9, and in sum over
    the 2,000 kinks that 10^8 samples make, each of either sign, at most 2,000 / (8 * 4096^2) = 1.5e-5 of the part."""
    monkeypatch.setattr(implicit, "EXACT_RANKS", 4096)
    assert_sums_are_exact(large(50_000, weights="zipf", zipf_exponent=exponent), num_samples, rel=1e-7)


def test_sums_over_more_edges_than_are_gone_through_are_exact():
    assert_sums_are_exact(large(EXACT_RANKS + 300_000, weights="zipf"), 10**6, rel=1e-12)


def test_the_total_of_zipfs_law_is_the_harmonic_number():
    world = large(10**15, weights="zipf")
    harmonic = math.log(10**15) + np.euler_gamma + 0.5e-15
    heaviest = world.zipf.edges_at(np.zeros(1, dtype=np.int64))
    assert 1 / world.weights_of(heaviest)[0] == pytest.approx(harmonic, rel=1e-12)


def test_pieces_that_are_no_distribution_are_refused():
    with pytest.raises(ConfigError, match="at least 1 sample"):
        bounds.weight_sums([(np.ones(1), np.ones(1))], 0)
    with pytest.raises(DataError, match="sum to 2"):
        bounds.weight_sums([(np.ones(1), np.ones(1)), (np.ones(1), np.ones(1))], 5)


# Refusals


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"generator": "power_law", "num_nodes": 10**6, "num_edges": 10**6}, "generator power_law.*hgscale generate"),
        ({"generator": "uniform", "num_nodes": 10**7, "num_edges": 9}, "2\\^62 sets"),
        ({"generator": "block", "num_nodes": 40, "num_edges": 100}, "generator block"),
        ({"generator": "uniform", "num_edges": 100, "weights": "dirichlet"}, "uniform or zipf"),
        ({"generator": "uniform", "num_edges": 100, "weights": "two_level"}, "uniform or zipf"),
        ({"generator": "uniform", "num_nodes": 10**6, "num_edges": 2**54, "weights": "zipf"}, "2\\^53"),
        ({"generator": "uniform", "num_edges": 100, "weights": "zipf", "zipf_exponent": 200.0}, "too uneven"),
    ],
)
def test_worlds_that_cannot_be_computed_are_refused_with_the_remedy(fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        ImplicitWorld(WorldConfig(**fields))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [({"load": "mapped"}, "hgscale generate"), ({"load": "implicit", "path": "x.csv"}, "set load to auto")],
)
def test_a_load_that_cannot_be_meant_is_refused(fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        WorldConfig(**fields)
