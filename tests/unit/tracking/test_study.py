"""One study is one MLflow run with exactly one child for each cell, whatever was interrupted when.

The store is real: sqlite in a temporary folder. What it holds is read with MLflow's own client, not through the
tracker. Servers, and processes that are killed, are in tests/integration/test_tracking_server.py.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from hgscale.tracking import DataInput, StudyTracker, TrackingConfig, sender, store, study
from tests.unit.tracking.material import cell, children, failed, history

Start = Callable[..., StudyTracker]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs home shared by the tests of this module: a fresh store costs seconds."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def client(home: Path) -> MlflowClient:
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=f"sqlite:///{home}/mlflow.db")


@pytest.fixture
def start(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start the study in this test's directory, for the first time or again."""
    monkeypatch.setenv("HGSCALE_HOME", str(home))

    def start(directory: Path = tmp_path, params: dict | None = None, **config: object) -> StudyTracker:
        return StudyTracker.start(
            TrackingConfig(**config),
            directory=directory,
            name="samples",
            fingerprint="beef",
            params=params or {"seeds": "5"},
            tags={"hgscale.verb": "study"},
        )

    return start


def refuse(*_: object, **__: object) -> None:
    raise MlflowException("connection refused")


def test_a_cell_is_a_child_that_holds_all_that_is_known_about_it(start, client, tmp_path, home):
    (tmp_path / "summary.json").write_text("{}")
    tracker = start()
    tracker.ship(
        cell(
            1,
            variant="gnm",
            axes={"samples.num_samples": 100, "objective.masking": "one"},
            params={"samples.num_samples": 100, "train.seed": 3},
            tags={"hgscale.commit": "abc"},
            summary={"recovery_l1": 0.25, "regime": "corpus", "good_turing_l1": None},
            records=[{"step": 10, "time": 1010.0, "loss": 2.0}, {"step": 20, "time": 1020.0, "loss": 1.0}],
            data=DataInput("world", "d" * 32, {"num_nodes": 50, "num_edges": 245}, "gnm(50, 245)"),
            artifacts=[tmp_path / "summary.json", tmp_path / "nowhere.json"],
        )
    )
    tracker.finish("FINISHED")
    (child,) = children(client, tracker)
    assert child.info.run_name == "gnm num_samples=1"
    assert (child.info.status, child.info.start_time, child.info.end_time) == ("FINISHED", 1_000_000, 1_060_500)
    assert child.data.params == {
        "axis/samples.num_samples": "100",
        "axis/objective.masking": "one",
        "samples.num_samples": "100",
        "train.seed": "3",
    }
    assert child.data.metrics == {
        "axis/samples.num_samples": 100,
        "final/recovery_l1": 0.25,
        "loss": 1.0,
        "best/loss": 1.0,
    }
    assert history(client, child.info.run_id, "loss") == [(10, 2.0, 1_010_000), (20, 1.0, 1_020_000)]
    assert history(client, child.info.run_id, "final/recovery_l1") == [(20, 0.25, 1_060_500)]
    expected = {"fingerprint": "f00d1", "study": "samples", "variant": "gnm", "seed": "3", "commit": "abc"}
    assert expected.items() <= {name.removeprefix("hgscale."): tag for name, tag in child.data.tags.items()}.items()
    (world,) = child.inputs.dataset_inputs
    assert (world.dataset.digest, world.dataset.profile) == ("d" * 32, '{"num_nodes": 50, "num_edges": 245}')
    folder = home / "mlartifacts" / child.info.run_id / "artifacts"
    assert [path.name for path in folder.iterdir()] == ["summary.json"]


def test_the_study_is_a_run_with_its_own_params_metrics_artifacts_and_description(start, client, tmp_path, home):
    (tmp_path / "report").mkdir()
    (tmp_path / "report/error.png").write_bytes(b"png")
    (tmp_path / "table.md").write_text("| N |")
    tracker = start(params={"seeds": "5", "axes": "samples.num_samples"})
    tracker.log_metrics({"fit/gnm/exponent": -0.5, "fit/gnm/offset_low": None, "note": "text"})
    tracker.log_artifact(tmp_path / "report")
    tracker.log_artifact(tmp_path / "table.md")
    tracker.describe("error **falls** with N" + "!" * 9000)
    assert client.get_run(tracker.run_id).info.status == "RUNNING"
    tracker.finish("FINISHED")
    parent = client.get_run(tracker.run_id)
    assert (parent.info.run_name, parent.info.status) == ("samples", "FINISHED")
    assert parent.data.params == {"seeds": "5", "axes": "samples.num_samples"}
    assert parent.data.metrics == {"fit/gnm/exponent": -0.5}
    assert parent.data.tags["hgscale.study"] == "samples"
    assert parent.data.tags["hgscale.fingerprint"] == "beef"
    assert parent.data.tags["mlflow.note.content"].startswith("error **falls** with N!")
    assert "mlflow.parentRunId" not in parent.data.tags
    folder = home / "mlartifacts" / tracker.run_id / "artifacts"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == ["report/error.png", "table.md"]
    assert str(tracker.run_id) in tracker.how_to_open()


def test_a_study_that_is_run_again_goes_on_with_its_run_and_says_what_is_there(start, client):
    first = start()
    for number in range(3):
        first.ship(cell(number))
    first.ship(failed(3))
    first.log_metrics({"fit/exponent": -0.4})
    first.finish("KILLED")
    assert client.get_run(first.run_id).info.status == "KILLED"

    again = start(params={"seeds": "6"})
    assert again.run_id == first.run_id
    assert again.shipped() == {"f00d0": "FINISHED", "f00d1": "FINISHED", "f00d2": "FINISHED", "f00d3": "FAILED"}
    again.ship(cell(4))
    again.log_metrics({"fit/exponent": -0.4})
    again.finish("FINISHED")
    assert again.shipped()["f00d4"] == "FINISHED"
    assert [child.data.tags["hgscale.fingerprint"] for child in children(client, again)] == [
        f"f00d{number}" for number in range(5)
    ]
    parent = client.get_run(again.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["seeds"] == "5"
    assert parent.data.tags["hgscale.attempt.2.seeds"] == "6"
    assert len(history(client, parent.info.run_id, "fit/exponent")) == 1


def test_the_same_study_in_another_directory_is_another_run(start, tmp_path):
    (tmp_path / "other").mkdir()
    assert start().run_id != start(directory=tmp_path / "other").run_id


def test_a_study_whose_run_was_deleted_or_that_goes_to_another_experiment_is_sent_anew(start, client):
    first = start()
    first.ship(cell())
    first.finish("FINISHED")
    other = start(experiment="another")
    assert other.run_id != first.run_id
    assert other.shipped() == {}
    client.delete_run(first.run_id)
    anew = start()
    assert anew.run_id not in (first.run_id, other.run_id)
    assert anew.shipped() == {}


def test_a_cell_that_failed_and_finished_later_is_the_same_child(start, client):
    first = start()
    first.ship(failed(records=[{"step": 10, "time": 1010.0, "loss": 2.0}]))
    first.finish("FINISHED")
    (child,) = children(client, first)
    assert (child.info.status, child.data.tags["hgscale.error"]) == ("FAILED", "out of memory")
    assert not any(metric.startswith("final/") for metric in child.data.metrics)

    again = start()
    records = [{"step": 10, "time": 2010.0, "loss": 2.0}, {"step": 20, "time": 2020.0, "loss": 1.0}]
    again.ship(cell(end_s=2060.0, records=records, params={"samples.num_samples": 0, "train.seed": 4}))
    again.finish("FINISHED")
    (completed,) = children(client, again)
    assert completed.info.run_id == child.info.run_id
    assert (completed.info.status, completed.info.end_time) == ("FINISHED", 2_060_000)
    assert "hgscale.error" not in completed.data.tags
    assert completed.data.tags["hgscale.attempt"] == "2"
    assert completed.data.tags["hgscale.attempt.2.train.seed"] == "4"
    assert history(client, completed.info.run_id, "loss") == [(10, 2.0, 1_010_000), (20, 1.0, 2_020_000)]
    assert completed.data.metrics["final/recovery_l1"] == 0.25


def test_of_one_cell_that_waits_the_newest_end_is_sent(start, client, monkeypatch):
    monkeypatch.setattr(sender, "FIRST_RETRY_WAIT_S", 0.2)
    tracker = start()
    create_run = tracker._client.create_run
    monkeypatch.setattr(tracker._client, "create_run", refuse)
    tracker.ship(failed())
    tracker.ship(cell())
    monkeypatch.setattr(tracker._client, "create_run", create_run)
    tracker.finish("FINISHED")
    (child,) = children(client, tracker)
    assert child.info.status == "FINISHED"
    assert "hgscale.error" not in child.data.tags


def half_sent(client: MlflowClient, tracker: StudyTracker, fingerprint: str | None, params: dict[str, str]) -> str:
    """A child as a process leaves it that is killed before its end."""
    experiment = client.get_run(tracker.run_id).info.experiment_id
    tags = {"mlflow.parentRunId": tracker.run_id}
    if fingerprint is not None:
        tags["hgscale.fingerprint"] = fingerprint
    run = client.create_run(experiment, tags=tags)
    for name, value in params.items():
        client.log_param(run.info.run_id, name, value)
    return run.info.run_id


def test_a_child_that_was_left_half_sent_is_completed(start, client):
    first = start()
    run_id = half_sent(client, first, "f00d0", {"train.seed": "3"})
    again = start()
    assert again.shipped() == {}
    again.ship(cell())
    again.finish("FINISHED")
    (child,) = children(client, again)
    assert (child.info.run_id, child.info.status) == (run_id, "FINISHED")
    assert child.data.params["axis/samples.num_samples"] == "0"
    assert child.data.metrics["final/recovery_l1"] == 0.25
    assert child.data.tags["hgscale.attempt"] == "1"


def test_a_cell_that_is_sent_twice_is_there_as_if_sent_once(start, client):
    first = start()
    first.ship(cell(records=[{"step": 10, "time": 1010.0, "loss": 2.0}]))
    first.finish("FINISHED")
    (once,) = children(client, first)
    again = start()
    again.ship(cell(records=[{"step": 10, "time": 1010.0, "loss": 2.0}]))
    again.finish("FINISHED")
    (twice,) = children(client, again)
    assert set(once.data.metrics) == {"axis/samples.num_samples", "loss", "best/loss", "final/recovery_l1"}
    assert twice.data.metrics == once.data.metrics
    assert all(len(history(client, twice.info.run_id, name)) == 1 for name in twice.data.metrics)
    assert twice.data.params == once.data.params


def test_of_doubles_the_one_that_got_furthest_stays_and_a_run_of_somebody_else_is_left_alone(start, client):
    first = start()
    first.ship(cell(0))
    first.finish("FINISHED")
    (ended,) = children(client, first)
    half_sent(client, first, "f00d0", {"train.seed": "3"})
    half_sent(client, first, "f00d1", {})
    further = half_sent(client, first, "f00d1", {"train.seed": "3"})
    others = half_sent(client, first, None, {})
    assert start().shipped() == {"f00d0": "FINISHED"}
    assert {child.info.run_id for child in children(client, first)} == {ended.info.run_id, further, others}


def test_a_run_that_was_created_although_the_answer_was_lost_is_found_not_doubled(start, client, monkeypatch):
    monkeypatch.setattr(sender, "FIRST_RETRY_WAIT_S", 0.01)
    tracker = start()
    create_run = tracker._client.create_run
    num_asked = 0

    def lose_the_answer(*args: object, **more: object) -> Run:
        nonlocal num_asked
        num_asked += 1
        create_run(*args, **more)
        raise MlflowException("connection reset by peer")

    monkeypatch.setattr(tracker._client, "create_run", lose_the_answer)
    tracker.ship(cell())
    tracker.finish("FINISHED")
    (child,) = children(client, tracker)
    assert (child.info.status, num_asked) == ("FINISHED", 1)


def test_a_run_that_the_client_asked_for_twice_is_there_once_in_the_end(start, client, monkeypatch):
    tracker = start()
    create_run = tracker._client.create_run

    def ask_twice(*args: object, **more: object) -> Run:
        create_run(*args, **more)
        return create_run(*args, **more)

    monkeypatch.setattr(tracker._client, "create_run", ask_twice)
    tracker.ship(cell())
    tracker.finish("FINISHED")
    (child,) = children(client, tracker)
    assert child.info.status == "FINISHED"


def test_a_store_that_does_not_answer_costs_one_warning_and_gets_everything_later(start, client, monkeypatch, caplog):
    monkeypatch.setattr(sender, "FIRST_RETRY_WAIT_S", 0.01)
    tracker = start()
    log_batch = tracker._client.log_batch
    monkeypatch.setattr(tracker._client, "log_batch", refuse)
    for number in range(3):
        tracker.ship(cell(number))
    wait_for(lambda: caplog.records)
    assert tracker.shipped() == {}
    monkeypatch.setattr(tracker._client, "log_batch", log_batch)
    tracker.finish("FINISHED")
    assert [child.info.status for child in children(client, tracker)] == ["FINISHED"] * 3
    refused, again = [record.getMessage() for record in caplog.records]
    assert "connection refused; the run goes on" in refused
    assert "answers again" in again


def wait_for(fact: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_study_does_not_wait_for_a_slow_store(start, client, monkeypatch):
    tracker = start()
    log_batch = tracker._client.log_batch

    def slow(*args: object, **more: object) -> None:
        time.sleep(0.3)
        log_batch(*args, **more)

    monkeypatch.setattr(tracker._client, "log_batch", slow)
    began = time.monotonic()
    for number in range(3):
        tracker.ship(cell(number))
    tracker.log_metrics({"fit/exponent": -0.5})
    assert time.monotonic() - began < 0.3
    tracker.finish("FINISHED")
    assert len(children(client, tracker)) == 3


def test_a_store_that_is_gone_for_good_costs_a_stated_wait_and_a_warning_and_the_next_run_sends_it(
    start, client, monkeypatch, caplog
):
    monkeypatch.setattr(sender, "FIRST_RETRY_WAIT_S", 0.01)
    monkeypatch.setattr(study, "PATIENCE_S", 0.3)
    first = start()
    for name in ("create_run", "log_batch", "set_terminated", "search_runs"):
        monkeypatch.setattr(first._client, name, refuse)
    first.ship(cell(0))
    first.ship(cell(1))
    first.log_metrics({"fit/exponent": -0.5})
    began = time.monotonic()
    first.finish("FINISHED")
    assert 0.3 <= time.monotonic() - began < 5
    assert "2 cells and 2 other entries of study samples, which is FINISHED" in caplog.records[-1].getMessage()
    assert "the same command sends it again" in caplog.text

    again = start()
    again.ship(cell(0))
    again.ship(cell(1))
    again.log_metrics({"fit/exponent": -0.5})
    again.finish("FINISHED")
    assert [child.info.status for child in children(client, again)] == ["FINISHED"] * 2
    assert client.get_run(again.run_id).data.metrics == {"fit/exponent": -0.5}


def test_a_cell_that_the_store_refuses_is_named_and_holds_up_nothing(start, client, monkeypatch, caplog):
    tracker = start()
    create_run = tracker._client.create_run

    def create_and_lose(*args: object, **more: object) -> Run:
        run = create_run(*args, **more)
        if more["run_name"] == "gnm num_samples=0":
            client.delete_run(run.info.run_id)  # as a person does on MLflow's page
        return run

    monkeypatch.setattr(tracker._client, "create_run", create_and_lose)
    tracker.ship(cell(0))
    tracker.ship(cell(1))
    tracker.log_artifact(Path("nowhere.png"))
    began = time.monotonic()
    tracker.finish("FINISHED")
    assert time.monotonic() - began < 10
    assert tracker.shipped() == {"f00d1": "FINISHED"}
    first, second = [record.getMessage() for record in caplog.records]
    assert "refuses cell f00d0" in first
    assert "refuses artifact nowhere.png" in second


def test_children_are_read_page_by_page(start, monkeypatch):
    first = start()
    for number in range(5):
        first.ship(cell(number))
    first.finish("FINISHED")
    monkeypatch.setattr(store, "RUNS_PER_PAGE", 2)
    assert sorted(start().shipped()) == [f"f00d{number}" for number in range(5)]


def test_tracking_that_is_off_takes_every_call_and_leaves_nothing(start, tmp_path):
    tracker = start(enabled=False)
    tracker.ship(cell())
    tracker.log_metrics({"fit/exponent": 1.0})
    tracker.log_artifact(tmp_path / "nowhere")
    tracker.describe("text")
    tracker.finish("FINISHED")
    assert tracker.run_id is None
    assert tracker.shipped() == {}
    assert "off" in tracker.how_to_open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("password", ["secret", "se@cret", "se:cret", ""])
def test_a_password_is_starred_out_wherever_it_stands(password):
    text = f"API request to http://me:{password}@host:5000/api failed for http://host:5000 and a@b"
    assert store.without_password(text) == (
        "API request to http://me:***@host:5000/api failed for http://host:5000 and a@b"
    )
