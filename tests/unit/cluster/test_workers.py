"""What a group of workers may be, and what is said of one that failed."""

from typing import Any

import pytest
from ray.train import WorkerGroupError

from hgscale.cluster.workers import ClusterConfig, LostError, cause
from hgscale.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("given", "range_"), [(3, (3, 3)), ({"min": 1, "max": 4}, (1, 4)), ({"max": 2, "min": 2}, (2, 2))]
)
def test_a_number_of_workers_is_a_range(given: Any, range_: tuple[int, int]) -> None:
    config = ClusterConfig(num_workers=given)
    assert (config.min_workers, config.max_workers) == range_


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_workers": 0}, "give at least 1"),
        ({"num_workers": {"min": 2, "max": 1}}, "min no larger than max"),
        ({"num_workers": {"min": 2}}, "give a number, or {min: 1, max: 4}"),
        ({"num_workers": {"min": 1, "max": 2}, "launcher": "none"}, "set num_workers to 1, or launcher to ray"),
        ({"max_failures": -1}, "0 never restarts"),
        ({"grace_s": 0}, "give a value above 0"),
        ({"stuck_after_s": -1}, "give a value above 0"),
    ],
)
def test_what_no_group_can_be_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ClusterConfig(**fields)


def test_of_several_failures_the_one_that_we_raised_is_shown() -> None:
    failures = {0: RuntimeError("Connection closed by peer"), 1: DataError("world.csv: row 3 is empty")}
    found = cause(WorkerGroupError("two workers failed", failures))
    assert isinstance(found, DataError)
    assert str(found) == "world.csv: row 3 is empty"


def test_a_worker_that_failed_by_no_fault_of_ours_is_a_loss_in_one_line() -> None:
    reason = "Read error [10.0.0.2]:31900: Connection reset by peer. This is typically caused by a remote worker."
    found = cause(WorkerGroupError("a worker failed", {0: RuntimeError(reason)}))
    assert isinstance(found, LostError)
    assert str(found) == "a worker failed: RuntimeError: Read error [10.0.0.2]:31900: Connection reset by peer"
