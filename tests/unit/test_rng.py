import numba as nb
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from hgscale import rng

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
# One draw in ten million of an ideal source falls outside; seeds are fixed, so these tests never flicker.
P_VALUE = 1e-7
SIGMAS = float(stats.norm.isf(P_VALUE / 2))


def mix(z: int) -> int:
    """The finalizer of SplitMix64 in whole numbers of any length."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


@nb.njit
def words(key: np.uint64, first: np.uint64, num_words: int) -> np.ndarray:
    """[num_words] uint64: random bits of counters first, first + 1, ..."""
    out = np.empty(num_words, dtype=np.uint64)
    for i in range(num_words):
        out[i] = rng.random_bits(key, first + np.uint64(i))
    return out


@nb.njit
def values_below(bits: np.ndarray, bound: np.uint64) -> np.ndarray:
    out = np.empty(len(bits), dtype=np.uint64)
    for i in range(len(bits)):
        out[i] = rng.below(bits[i], bound)
    return out


def ones_in_each_bit(bits: np.ndarray) -> np.ndarray:
    return np.array([int(((bits >> np.uint64(i)) & np.uint64(1)).sum()) for i in range(64)])


def assert_bits_are_balanced(bits: np.ndarray) -> None:
    # The number of ones is binomial(n, 1/2): standard deviation sqrt(n) / 2.
    deviation = np.abs(ones_in_each_bit(bits) - len(bits) / 2) / (np.sqrt(len(bits)) / 2)
    assert deviation.max() < SIGMAS


def test_the_mixing_is_the_published_one():
    assert mix(GOLDEN) == 0xE220A8397B1DCDAF  # SplitMix64 seeded with 0 begins with this word


@given(st.integers(0, MASK), st.integers(0, MASK))
@example(0, 0)
@example(MASK, MASK)
def test_random_bits_match_arithmetic_in_whole_numbers(key, counter):
    expected = mix((mix((counter * GOLDEN + key) & MASK) + key) & MASK)
    assert int(rng.random_bits(np.uint64(key), np.uint64(counter))) == expected


def test_the_stream_of_a_key_never_changes():
    # Pinned: if these move, every recorded run draws other samples.
    key = rng.key(0, "samples")
    assert int(key) == 0xD375F07FC437CA96
    drawn = [int(rng.random_bits(key, np.uint64(counter))) for counter in (0, 1, 10**15)]
    assert drawn == [0x41C36A535380DD6A, 0x9E6BAC6FE9FFCA8F, 0x9FF0AFB86D0EA5B5]
    assert rng.stream(0, "world").integers(2**32, size=3).tolist() == [1199285358, 3101487512, 397608758]


@given(st.integers(0, MASK), st.integers(1, 2**32))
@example(MASK, 2**32)
@example(MASK, 1)
def test_below_is_the_product_rounded_down(bits, bound):
    assert int(rng.below(np.uint64(bits), np.uint64(bound))) == bits * bound >> 64


@pytest.mark.parametrize("bound", [2, 3, 10, 1000])
def test_below_is_uniform_by_chi_square(bound):
    drawn = values_below(words(rng.key(1, "test"), np.uint64(0), 200_000), np.uint64(bound))
    counts = np.bincount(drawn.astype(np.int64), minlength=bound)
    assert len(counts) == bound
    assert stats.chisquare(counts).pvalue > P_VALUE


@pytest.mark.parametrize("seed", range(3))
def test_every_bit_is_balanced(seed):
    assert_bits_are_balanced(words(rng.key(seed, "test"), np.uint64(0), 2**16))


@pytest.mark.parametrize("distance", [1, 2, 2**32, 2**63])
def test_neighbouring_counters_share_nothing(distance):
    key = rng.key(2, "test")
    assert_bits_are_balanced(words(key, np.uint64(0), 2**16) ^ words(key, np.uint64(distance), 2**16))


@pytest.mark.parametrize("flip", [1, 2, 2**32, 2**63])
def test_neighbouring_keys_share_nothing(flip):
    key = np.uint64(12345)
    assert_bits_are_balanced(words(key, np.uint64(0), 2**16) ^ words(key ^ np.uint64(flip), np.uint64(0), 2**16))


def test_keys_that_differ_by_a_step_of_the_counter_are_not_shifts_of_each_other():
    key = 12345
    ahead = words(np.uint64(key), np.uint64(1), 2**16)
    other = words(np.uint64((key + GOLDEN) & MASK), np.uint64(0), 2**16)
    assert_bits_are_balanced(ahead ^ other)


def test_successive_words_fill_the_square_evenly():
    bits = words(rng.key(3, "test"), np.uint64(0), 200_000) >> np.uint64(60)
    pairs = (bits[0::2] * np.uint64(16) + bits[1::2]).astype(np.int64)  # disjoint, so that counts are multinomial
    assert stats.chisquare(np.bincount(pairs, minlength=256)).pvalue > P_VALUE


def test_words_of_one_key_do_not_repeat():
    # 2**18 words of 64 bits: an ideal source repeats one with probability 2**36 / 2**65.
    assert len(np.unique(words(rng.key(4, "test"), np.uint64(0), 2**18))) == 2**18


def test_a_stream_is_a_function_of_its_name_and_numbers():
    first = rng.stream(7, "mask", 3).integers(2**63, size=100)
    assert (rng.stream(7, "mask", 3).integers(2**63, size=100) == first).all()
    assert rng.key(7, "mask", 3) == rng.key(7, "mask", 3)


def test_streams_of_another_seed_name_or_index_differ():
    places = [(7, "mask", 3), (8, "mask", 3), (7, "order", 3), (7, "mask", 4), (7, "mask", 0), (-7, "mask", 3)]
    assert len({int(rng.key(*place)) for place in places}) == len(places)
    drawn = np.stack([rng.stream(*place).random(1000) for place in places])
    # The correlation of independent columns has standard deviation 1 / sqrt(1000).
    apart = np.corrcoef(drawn)[np.triu_indices(len(places), 1)]
    assert np.abs(apart).max() < SIGMAS / np.sqrt(1000)


def test_drawing_leaves_the_global_state_alone():
    before = np.random.get_state()[1].copy()
    rng.stream(0, "world").random(10)
    rng.random_bits(rng.key(0, "world"), np.uint64(0))
    assert (np.random.get_state()[1] == before).all()


@settings(max_examples=60)
@given(st.integers(1, 10_000), st.integers(0, MASK))
@example(1, 0)
@example(2, 0)
def test_permute_takes_each_value_to_another_and_unpermute_takes_it_back(size, key):
    order = rng.permute(np.arange(size), size, np.uint64(key))
    assert np.array_equal(np.sort(order), np.arange(size))
    assert np.array_equal(rng.unpermute(order, size, np.uint64(key)), np.arange(size))


@pytest.mark.parametrize("size", [2**16, 2**16 + 1, 257**2, 257**2 + 1, 100_003])  # shuffle; no walks; longest walks
def test_permute_is_a_bijection_on_both_sides_of_where_tables_end(size):
    order = rng.permute(np.arange(size), size, rng.key(0, "test"))
    assert np.array_equal(np.sort(order), np.arange(size))
    assert np.array_equal(rng.unpermute(order, size, rng.key(0, "test")), np.arange(size))


@pytest.mark.parametrize("size", [10**12, 2**61 - 1, 2**62 - 1, 2**62])
def test_permute_of_huge_sizes_is_undone_exactly(size):
    key = rng.key(0, "test")
    values = np.unique(np.concatenate([np.arange(5000), size - 1 - np.arange(5000), size // 7 * np.arange(7)]))
    order = rng.permute(values, size, key)
    assert ((order >= 0) & (order < size)).all()
    assert len(np.unique(order)) == len(values)
    assert np.array_equal(rng.unpermute(order, size, key), values)
    assert np.array_equal(rng.permute(rng.unpermute(values, size, key), size, key), values)
    # Neighbours land evenly in each of ten parts.
    assert stats.chisquare(np.bincount(order[:5000] // (size // 10 + 1), minlength=10)).pvalue > P_VALUE


def test_all_orders_of_four_come_equally_often():
    orders = [tuple(rng.permute(np.arange(4), 4, rng.key(seed, "test"))) for seed in range(24 * 200)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > P_VALUE


def test_any_value_beyond_the_tables_may_stand_at_any_place():
    size = 70_000
    places = [rng.permute(np.array([0, 1, size - 1]), size, rng.key(seed, "test")) for seed in range(5000)]
    for place in np.array(places).T:
        assert stats.kstest(place / size, "uniform").pvalue > P_VALUE


def test_permutations_of_other_keys_are_unrelated():
    size = 100_000
    first, second = (rng.permute(np.arange(size), size, rng.key(seed, "test")) for seed in range(2))
    # Two random orders agree in about one place; fewer than 30 but for chances below 1e-30.
    assert (first == second).sum() < 30
    assert (first == np.arange(size)).sum() < 30


@pytest.mark.parametrize("bits", [0, 1, MASK - 1, MASK])
def test_the_open_unit_interval_is_open(bits):
    assert 0 < rng.open_unit(np.uint64(bits)) < 1
    assert np.log(rng.open_unit(np.uint64(bits))) < 0
