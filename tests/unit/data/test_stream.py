import hashlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from hgscale.data.stream import WORD, SamplesConfig, Stream, ids_hash
from hgscale.errors import ConfigError

P_VALUE = 1e-7  # one draw in ten million of an ideal source falls outside; seeds are fixed


def epoch(stream: Stream, number: int) -> np.ndarray:
    return stream.ids(np.arange(number * stream.num_samples, (number + 1) * stream.num_samples))


@settings(max_examples=60)
@given(st.integers(1, 10_000), st.integers(0, 1000), st.integers(0, 5))
@example(1, 0, 0)
@example(4096, 3, 0)  # a whole power of 4: no walk
@example(4097, 3, 0)  # the longest walks
def test_each_epoch_visits_each_sample_once(num_samples, number, seed):
    visited = epoch(Stream(num_samples, 1, seed), number)
    assert np.array_equal(np.sort(visited), np.arange(num_samples))


@pytest.mark.parametrize("num_samples", [10**12, 4**20, 4**20 + 1])
@pytest.mark.parametrize("start", [0, 10**12 - 50_000, 7 * 10**12 + 123])
def test_a_huge_corpus_is_visited_without_repetition(num_samples, start):
    positions = np.arange(start, start + 100_000)
    ids = Stream(num_samples, 1024, 0).ids(positions)
    assert ((ids >= 0) & (ids < num_samples)).all()
    for number in np.unique(positions // num_samples):
        inside = ids[positions // num_samples == number]
        assert len(np.unique(inside)) == len(inside)


def test_the_ids_of_a_stream_never_change():
    # Pinned: if these move, every recorded run sees its samples in another order.
    digest = hashlib.sha256()
    for num_samples, seed in ((1, 0), (2, 1), (97, 0), (4096, 2), (4097, 2), (10**12, 3), (4**20 + 1, 0), (2**62, 7)):
        positions = [np.arange(5000), np.arange(5000) * max(num_samples // 7, 1) % 2**62, 2**62 - 1 - np.arange(100)]
        digest.update(Stream(num_samples, 1, seed).ids(np.concatenate(positions)).astype("<i8").tobytes())
    assert digest.hexdigest() == "c7c9946f0814518d190a4700345dcd8fb1a0eca4d80e25573e4a14b2fbbb74b9"


def test_epochs_and_seeds_visit_in_different_orders():
    orders = [tuple(epoch(Stream(50, 5, seed), number)) for seed in range(3) for number in range(10)]
    assert len(set(orders)) == 30
    assert tuple(range(50)) not in orders


@pytest.mark.parametrize("num_samples", [100, 1000])
def test_any_sample_may_stand_at_any_place(num_samples):
    stream = Stream(num_samples, 1, 0)
    for place in (0, 1, num_samples - 1):
        ids = stream.ids(np.arange(20_000) * num_samples + place)
        assert stats.chisquare(np.bincount(ids, minlength=num_samples)).pvalue > P_VALUE


@pytest.mark.parametrize("num_samples", [None, 30])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_the_shares_of_the_ranks_make_up_the_global_batch(num_samples, world_size):
    stream = Stream(num_samples, 12, 0)
    for step in range(8):
        shares = [stream.ids(stream.positions(step, rank, world_size)) for rank in range(world_size)]
        assert [len(share) for share in shares] == [12 // world_size] * world_size
        assert np.concatenate(shares).tolist() == stream.global_batch(step).tolist()


def test_batches_cross_the_borders_of_epochs_without_dropping_or_repeating():
    stream = Stream(10, 4, 0)
    visited = np.concatenate([stream.global_batch(step) for step in range(5)])
    assert sorted(visited[:10]) == list(range(10))
    assert sorted(visited[10:]) == list(range(10))
    assert visited.tolist() == np.concatenate([epoch(stream, 0), epoch(stream, 1)]).tolist()


def test_a_batch_is_a_function_of_its_step_alone():
    again = Stream(1000, 8, 3)
    assert again.global_batch(777).tolist() == Stream(1000, 8, 3).global_batch(777).tolist()


def test_fresh_samples_are_numbered_by_position():
    stream = Stream(None, 6, 0)
    assert stream.global_batch(10**9).tolist() == list(range(6 * 10**9, 6 * 10**9 + 6))
    assert stream.positions(2, rank=1, world_size=3).tolist() == [14, 15]


def test_num_seen_counts_different_samples():
    assert [Stream(10, 4, 0).num_seen(steps) for steps in (0, 1, 2, 3, 100)] == [0, 4, 8, 10, 10]
    assert Stream(None, 4, 0).num_seen(100) == 400


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SamplesConfig(num_samples=0), ["samples.num_samples=0", "N >= 1"]),
        (lambda: SamplesConfig(num_samples=-5), ["samples.num_samples=-5"]),
        (lambda: Stream(None, 0, 0), ["train.global_batch=0", "at least 1"]),
        (lambda: Stream(7, 8, 0), ["samples.num_samples=7", "train.global_batch=8", "lower the batch to 7"]),
        (lambda: Stream(None, 10, 0).positions(0, 0, 4), ["train.global_batch=10", "4 workers", "use 12"]),
    ],
)
def test_refusals_name_the_field_and_the_repair_in_one_line(make, words):
    with pytest.raises(ConfigError) as error:
        make()
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_a_corpus_of_one_batch_is_enough():
    stream = Stream(8, 8, 0)
    assert sorted(stream.global_batch(0)) == sorted(stream.global_batch(1)) == list(range(8))


@given(
    ids=st.lists(st.integers(0, 2**62), min_size=2, max_size=30, unique=True),
    step=st.integers(0, 2**40),
    random=st.randoms(use_true_random=False),
)
def test_hashes_add_up_whatever_the_split_and_the_order(ids, step, random):
    whole = np.array(ids)
    visits = np.arange(len(ids)) % 3
    order, cut = np.array(random.sample(range(len(ids)), len(ids))), random.randrange(len(ids))
    parts = [ids_hash(step, whole[at], visits[at]) for at in np.split(order, [cut])]
    assert sum(parts) % WORD == ids_hash(step, whole, visits)


def test_a_hash_knows_a_sample_lost_repeated_replaced_moved_or_seen_at_another_visit():
    ids, visits = np.arange(100, 110), np.zeros(10, dtype=np.int64)
    twice = np.append(ids, ids[3])
    other = np.where(ids == 105, 106, ids)
    hashes = {
        "as it is": ids_hash(7, ids, visits),
        "lost": ids_hash(7, ids[1:], visits[1:]),
        "repeated": ids_hash(7, twice, np.append(visits, 0)),
        "repeated twice": ids_hash(7, np.append(twice, ids[3]), np.append(visits, [0, 0])),
        "replaced": ids_hash(7, other, visits),
        "moved": ids_hash(8, ids, visits),
        "seen again": ids_hash(7, ids, visits + 1),
        "nothing": ids_hash(7, ids[:0], visits[:0]),
    }
    assert len(set(hashes.values())) == len(hashes)
    assert hashes["nothing"] == 0


def test_hashes_are_spread_over_all_bits():
    words = np.array([ids_hash(step, np.array([1]), np.array([0])) for step in range(2000)], dtype=np.uint64)
    ones = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=0)
    # A bit is a fair coin, tossed 2,000 times: 1,000 with deviation 22.4; all 64 lie within 6 of those but 1 in 10**7.
    assert (np.abs(ones.astype(np.int64) - 1000) < 6 * 22.4).all()
