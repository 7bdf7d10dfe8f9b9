"""Over an epoch every sample is seen once, however many workers there are and whenever their number changes."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hgscale.data.stream import Stream
from hgscale.rng import key, random_bits, unpermute


def ids_of_steps(stream: Stream, steps: range, world_size: int) -> np.ndarray:
    """What the workers draw between them."""
    if not steps:
        return np.empty(0, dtype=np.int64)
    shares = [stream.positions(step, rank, world_size) for step in steps for rank in range(world_size)]
    return stream.ids(np.concatenate(shares))


@settings(max_examples=150)
@given(data=st.data(), num_samples=st.integers(1, 10_000), before=st.integers(1, 4), after=st.integers(1, 4))
@example(data=None, num_samples=1, before=1, after=1)
def test_each_id_once_per_epoch_through_a_stop_and_another_number_of_workers(data, num_samples, before, after):
    unit = int(np.lcm(before, after))
    if num_samples < unit:
        before = after = unit = 1
    batch = unit if data is None else unit * data.draw(st.integers(1, num_samples // unit))
    stream = Stream(num_samples, batch, seed=num_samples)
    num_steps = -(-2 * num_samples // batch)  # two epochs and what is begun of a third
    stop = 0 if data is None else data.draw(st.integers(0, num_steps))
    parts = [ids_of_steps(stream, range(stop), before), ids_of_steps(stream, range(stop, num_steps), after)]
    history = np.concatenate(parts)
    for epoch in range(2):
        seen = history[epoch * num_samples : (epoch + 1) * num_samples]
        assert np.array_equal(np.sort(seen), np.arange(num_samples))


@pytest.mark.parametrize("num_samples", [10**12, 10**12 + 39])
@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize("start", [0, 123_456_789_012, 10**12 - 50_000])
def test_at_a_trillion_samples_each_id_leads_back_to_its_one_position(num_samples, epoch, start):
    places = np.arange(start, start + 50_000)
    ids = Stream(num_samples, 1024, seed=5).ids(places + epoch * num_samples)
    assert ids.min() >= 0
    assert ids.max() < num_samples
    # Whatever unpermute does, a function that leads from ids to positions leaves no two positions with one id.
    order = np.uint64(random_bits(key(5, "stream/epoch"), np.uint64(epoch)))
    assert np.array_equal(unpermute(ids, num_samples, order), places)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_at_a_trillion_samples_the_batch_over_the_border_of_epochs_has_both(world_size):
    num_samples, batch = 10**12, 7 * 12 * 1000  # which does not divide it
    stream = Stream(num_samples, batch, seed=0)
    step = num_samples // batch
    whole = np.concatenate([stream.ids(stream.positions(step, rank, world_size)) for rank in range(world_size)])
    assert np.array_equal(whole, stream.global_batch(step))
    visits = stream.visits(stream.positions(step))
    assert visits.tolist() == [0] * (num_samples % batch) + [1] * (batch - num_samples % batch)
    for epoch in range(2):
        ids = whole[visits == epoch]
        assert len(np.unique(ids)) == len(ids)
