"""What a group of workers may be, and what is said of one that failed."""

import sys
from typing import Any

import pytest
from ray.train import WorkerGroupError
from ray.train.torch import TorchConfig

from hgscale.cluster import workers
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


# Names that are private to Ray: that they are there in the pinned version, and what happens where they are not.


def test_a_worker_whose_process_is_gone_is_told_from_one_that_raised() -> None:
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    gone = WorkerHealthCheckFailedError("Worker 1 failed a health check", RayActorError())
    assert str(cause(WorkerGroupError("one failed", {1: gone}))) == "worker 1 died"


def test_without_rays_name_for_it_a_death_is_a_loss_in_rays_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    gone = WorkerHealthCheckFailedError("Worker 1 failed a health check", RayActorError())
    monkeypatch.setitem(sys.modules, "ray.train.v2._internal.exceptions", None)
    found = cause(WorkerGroupError("one failed", {1: gone}))
    assert isinstance(found, LostError)
    assert "Worker 1 failed a health check" in str(found)


def test_ray_can_be_asked_which_nodes_are_about_to_be_taken_away() -> None:
    assert callable(workers._draining_nodes())


@pytest.mark.parametrize("lacking", ["module", "method"])
def test_where_ray_cannot_be_asked_a_worker_works_unwatched(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    from ray._private import state

    if lacking == "module":
        monkeypatch.setitem(sys.modules, "ray._private.state", None)
    else:
        monkeypatch.setattr(state, "state", object())
    assert workers._draining_nodes() is None
    done = False
    with workers._told_when_drained():  # Ray does not run here, so asking it anything would fail
        done = True
    assert done


def test_each_worker_is_asked_to_hear_sigterm_and_a_group_that_cannot_ask_starts_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.train._internal.base_worker_group import BaseWorkerGroup

    assert callable(BaseWorkerGroup.execute)
    monkeypatch.setattr(TorchConfig().backend_cls, "on_start", lambda *_: None)
    asked: list[Any] = []
    group = type("Group", (), {"execute": lambda _, function: asked.append(function)})()
    backend = workers._torch_config("gloo", hears_sigterm=True).backend_cls()
    backend.on_start(group, None)
    assert asked == [workers._hear_sigterm]
    backend.on_start(object(), None)
