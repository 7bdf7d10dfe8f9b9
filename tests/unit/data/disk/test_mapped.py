"""A world mapped from shards: its edges, its weights, and draws that follow them."""

import pickle
import resource

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import chi2_contingency, chisquare

from hgscale.data.disk import mapped, shards
from hgscale.data.disk.mapped import ShardedWorld, open_shards
from hgscale.data.masking import Masker, ObjectiveConfig
from hgscale.errors import DataError
from hgscale.hypergraph.structure import EdgeSampler, World
from hgscale.hypergraph.worlds import parts
from hgscale.hypergraph.worlds.config import WorldConfig, build_world

MIXED = WorldConfig(
    generator="uniform", num_nodes=60, num_edges=2500, sizes={2: 0.3, 3: 0.4, 4: 0.3}, weights="dirichlet", seed=1
)
LEAST_P = 1e-4  # the seeds are fixed: this is how surprising they may be


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ShardedWorld:
    """2,500 edges of 2, 3 and 4 nodes in shards of at most 300."""
    folder = tmp_path_factory.mktemp("mapped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SHARD_EDGES", 300)
        shards.write(MIXED, folder)
    return open_shards(folder)


def edges_on_disk(world: ShardedWorld) -> tuple[list[list[int]], np.ndarray]:
    files = [pq.read_table(world.directory / shard.file) for shard in world.manifest.shards]
    nodes = [row for file in files for row in file["nodes"].to_pylist()]
    return nodes, np.concatenate([file["weight"].to_numpy() for file in files])


def sets_of(world: World, edges: np.ndarray) -> list[tuple[int, ...]]:
    rows = world.rows(edges)
    return [tuple(rows.nodes[rows.offsets[i] : rows.offsets[i + 1]].tolist()) for i in rows.index]


def test_rows_and_weights_are_those_of_the_files_in_their_order(world):
    nodes, weights = edges_on_disk(world)
    edges = np.random.default_rng(0).integers(0, world.num_edges, 5000)
    assert len(world.manifest.shards) == 10  # 750, 1000 and 750 edges, 300 at a time
    assert sets_of(world, edges) == [tuple(nodes[edge]) for edge in edges]
    assert (world.weights_of(edges) == weights[edges]).all()
    assert (np.concatenate(list(world.weight_chunks())) == weights).all()
    assert world.rows(edges).sizes.tolist() == [len(nodes[edge]) for edge in edges]


def test_a_sharded_world_describes_itself(world):
    whole: World = world
    memory = build_world(MIXED)
    assert (whole.num_nodes, whole.num_edges, whole.distinct_sizes, whole.max_size) == (60, 2500, (2, 3, 4), 4)
    assert world.kappa == pytest.approx(memory.kappa)
    assert len(whole.digest) == 32
    assert whole.digest != memory.digest  # edges have other numbers, so samples are other samples


@pytest.mark.parametrize("bits", [0, 4, 11, 16])
def test_shards_are_found_across_the_marks_of_the_search(bits, world, monkeypatch):
    monkeypatch.setattr(mapped, "_HINT_BITS", bits)
    edges = np.arange(world.num_edges)
    hints = open_shards(world.directory)._hints
    found = mapped._locate.py_func(edges, world.first, hints)
    assert (found == np.repeat(np.arange(10), np.diff(world.first))).all()


@pytest.mark.parametrize("edge", [-1, 2500])
def test_an_edge_that_is_not_there_is_refused(edge, world):
    with pytest.raises(IndexError, match="edges run from 0 to 2499"):
        world.rows(np.array([0, edge]))
    with pytest.raises(IndexError):
        world.weights_of(np.array([edge]))


def test_drawn_edges_follow_the_weights(world):
    counts = np.bincount(world.sampler(5).draw(np.arange(400_000)), minlength=world.num_edges)
    weights = np.concatenate(list(world.weight_chunks()))
    often = weights * 400_000 >= 5
    found = np.append(counts[often], counts[~often].sum())
    expected = np.append(weights[often], weights[~often].sum()) * 400_000
    assert chisquare(found, expected * (400_000 / expected.sum())).pvalue > LEAST_P


def test_two_levels_draw_as_one_does(world):
    memory = build_world(MIXED)
    number = {edge: place for place, edge in enumerate(sets_of(memory, np.arange(memory.num_edges)))}
    places = np.array([number[edge] for edge in sets_of(world, np.arange(world.num_edges))])
    ids = np.arange(400_000)
    two = np.bincount(places[world.sampler(5).draw(ids)], minlength=memory.num_edges)
    one = np.bincount(EdgeSampler(memory, 6).draw(ids), minlength=memory.num_edges)
    often = memory.weights * 400_000 >= 5
    table = np.stack([np.append(counts[often], counts[~often].sum()) for counts in (two, one)])
    assert chi2_contingency(table).pvalue > LEAST_P


def test_consecutive_samples_are_independent(world):
    edges = world.sampler(5).draw(np.arange(400_000))
    group = (np.cumsum(np.concatenate(list(world.weight_chunks()))) * 20).astype(int).clip(max=19)
    pairs = np.bincount(group[edges[:-1:2]] * 20 + group[edges[1::2]], minlength=400).reshape(20, 20)
    assert chi2_contingency(pairs).pvalue > LEAST_P


def test_a_sample_depends_on_seed_and_id_alone(world):
    sampler, ids = world.sampler(5), np.arange(10**12, 10**12 + 5000)
    edges, order = sampler.draw(ids), np.random.default_rng(0).permutation(5000)
    assert (sampler.draw(ids[order]) == edges[order]).all()
    assert (np.concatenate([sampler.draw(ids[:1]), sampler.draw(ids[1:1030]), sampler.draw(ids[1030:])]) == edges).all()
    assert (open_shards(world.directory).sampler(5).draw(ids) == edges).all()
    assert (world.sampler(6).draw(ids) != edges).mean() > 0.9
    assert len(sampler.draw(ids[:0])) == 0


def test_shuffled_rows_are_the_edges_in_every_order(world):
    sampler = world.sampler(5)
    edges = np.full(24_000, int(np.flatnonzero(world.rows(np.arange(2500)).sizes == 4)[7]))
    rows = sampler.shuffled(np.arange(24_000), edges, 4)
    assert {tuple(sorted(row)) for row in rows.tolist()} == set(sets_of(world, edges[:1]))
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(counts) == 24
    assert chisquare(counts).pvalue > LEAST_P


def test_drawing_with_nodes_is_drawing_and_gathering(tmp_path):
    config = WorldConfig(generator="uniform", num_nodes=60, num_edges=2500, size=3, weights="zipf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SHARD_EDGES", 300)
        shards.write(config, tmp_path)
    world = open_shards(tmp_path)
    sampler, ids = world.sampler(0), np.arange(3000)
    assert (sampler.draw_nodes(ids, 3) == world.rows(sampler.draw(ids)).nodes.reshape(-1, 3)).all()


def test_a_world_of_one_edge_is_drawn(tmp_path):
    shards.write(WorldConfig(generator="star", num_nodes=2), tmp_path)
    world = open_shards(tmp_path)
    assert world.sampler(0).draw_nodes(np.arange(3), 2).tolist() == [[0, 1]] * 3


def test_another_process_maps_the_files_instead_of_getting_them(world):
    data = pickle.dumps(world.sampler(5))
    assert len(data) < 1000
    ids = np.arange(500)
    assert (pickle.loads(data).draw(ids) == world.sampler(5).draw(ids)).all()


def test_batches_are_made_of_mapped_edges(world):
    batch = Masker(world.sampler(5), ObjectiveConfig()).batch(np.arange(512), np.zeros(512, dtype=np.int64))
    sizes = world.rows(world.sampler(5).draw(np.arange(512))).sizes
    assert batch.size_counts.tolist() == np.bincount(sizes, minlength=5).tolist()
    # Each sample hides h of its k nodes, each with weight k / h.
    assert sum(float(bucket.weights.sum()) for bucket in batch.buckets) == pytest.approx(sizes.sum(), rel=1e-5)


def test_a_broken_table_is_not_read_past_its_end(tmp_path):
    shards.write(WorldConfig(generator="uniform", num_nodes=100, num_edges=1000, weights="zipf"), tmp_path)
    path = tmp_path / "table/00000.npy"
    records = np.load(path, mmap_mode="r+")
    records["alias"][300:700] = 0xFFFFFFFF00000000  # always on to an edge far outside
    records.flush()
    world = open_shards(tmp_path)  # looks at the ends only
    edges = world.sampler(0).draw(np.arange(20_000))
    assert (edges >= 0).all()
    assert (edges < 1000).all()
    with pytest.raises(DataError, match=r"table/00000\.npy: sha256"):
        shards.verify(tmp_path)


def test_more_shards_than_files_may_be_open_lift_the_limit(world):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 600:
        pytest.skip("the hard limit leaves no room")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (260, hard))
        open_shards(world.directory)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 266  # 10 maps, and 256 for everybody else
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
