"""What is fed, without Ray: shares are a pure function of the step, and their hashes say what they hold."""

import dataclasses
import pickle

import numpy as np
import pytest

from hgscale.cluster.feed import FeedConfig
from hgscale.cluster.workers import Beside, ClusterConfig, check_room
from hgscale.data.masking import Contexts
from hgscale.data.stream import WORD, SamplesConfig, ids_hash
from hgscale.errors import ConfigError
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.pretrain.run import PretrainConfig, pretrain
from hgscale.pretrain.shares import PretrainShares
from hgscale.pretrain.task import PretrainTask
from hgscale.train.config import TrainConfig
from hgscale.train.shares import in_process


def task(num_samples: int | None = 1000, **train: int) -> PretrainTask:
    return PretrainTask(
        world=WorldConfig(generator="uniform", num_nodes=9, num_edges=20, size=3, weights="dirichlet"),
        samples=SamplesConfig(num_samples=num_samples),
        train=TrainConfig(**({"num_steps": 40, "global_batch": 96} | train)),
    )


def assert_equal(one: Contexts, other: Contexts) -> None:
    for field in dataclasses.fields(Contexts):
        assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name


@pytest.mark.parametrize("num_samples", [None, 100, 1000])
def test_the_workers_shares_have_the_hash_of_the_global_batch_for_any_number_of_them(num_samples):
    for step in (0, 1, 9, 33):
        hashes = set()
        for world_size in (1, 2, 3, 4):
            shares = [PretrainShares(task(num_samples), True, rank, world_size).at(step) for rank in range(world_size)]
            assert sum(batch.num_samples for share in shares for batch in share.micro_batches) == 96
            hashes.add(sum(share.ids_hash for share in shares) % WORD)
        ids = (stream := task(num_samples).stream()).global_batch(step)
        assert hashes == {ids_hash(step, ids, stream.visits(stream.positions(step)))}


def test_after_a_stop_another_number_of_workers_goes_on_with_the_same_batches():
    whole = [share.ids_hash for share in in_process(PretrainShares(task()), 0)]
    stop = int(np.random.default_rng(0).integers(1, 40))
    before = [in_process(PretrainShares(task(), True, rank, 4), 0) for rank in range(4)]
    history = [sum(next(source).ids_hash for source in before) % WORD for _ in range(stop)]
    after = [in_process(PretrainShares(task(), True, rank, 3), stop) for rank in range(3)]
    history += [sum(share.ids_hash for share in step) % WORD for step in zip(*after, strict=True)]
    assert history == whole


@pytest.mark.parametrize("merge", [True, False])
def test_a_share_is_cut_into_micro_batches_and_the_same_after_a_journey(merge):
    shares = PretrainShares(task(micro_batch=16), merge, rank=1, world_size=2)
    here = shares.at(5)
    assert [batch.num_samples for batch in here.micro_batches] == [16, 16, 16]
    there = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(shares)).at(5), protocol=5))
    assert (
        (there.step, there.ids_hash)
        == (here.step, here.ids_hash)
        == (5, PretrainShares(task(), merge, 1, 2).at(5).ids_hash)
    )
    for one, other in zip(here.micro_batches, there.micro_batches, strict=True):
        assert np.array_equal(one.size_counts, other.size_counts)
        for bucket, same in zip(one.buckets, other.buckets, strict=True):
            assert_equal(bucket, same)


def test_in_process_begins_anywhere_and_ends_at_the_last_step():
    assert [share.step for share in in_process(PretrainShares(task()), 37)] == [37, 38, 39]
    assert list(in_process(PretrainShares(task()), 40)) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FeedConfig(num_feeders=-1), ["feed.num_feeders=-1", "give 0"]),
        (lambda: FeedConfig(buffer_mib=0), ["feed.buffer_mib=0", "32"]),
        (
            lambda: pretrain(PretrainConfig(feed=FeedConfig(num_feeders=2), cluster=ClusterConfig(launcher="none"))),
            ["feed.num_feeders=2", "cluster.launcher=none", "set launcher to ray"],
        ),
        (
            lambda: check_room(ClusterConfig(num_workers=3), Beside(num_feeders=2)),
            ["feed.num_feeders=2", "cluster.num_workers=3", "5 CPUs", "there are 4", "at most 1 feeders"],
        ),
        (
            lambda: check_room(ClusterConfig(num_workers=5), Beside(num_feeders=2)),
            ["cluster.num_workers=5", "there are 4", "at most 4 workers"],
        ),
    ],
)
def test_refusals_name_the_field_and_the_repair_in_one_line(make, words, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError) as error:
        make()
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


def test_workers_and_feeders_that_fill_the_machine_fit(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_room(ClusterConfig(num_workers=2), Beside(num_feeders=2))
