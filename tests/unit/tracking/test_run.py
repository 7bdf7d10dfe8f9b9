"""One training is one MLflow run: across attempts, without doubles, whatever the store does.

The store is real: sqlite in a temporary folder. What it holds is read with MLflow's own client, not through the
tracker. Servers are in tests/integration/test_tracking_server.py.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hgscale.errors import ConfigError
from hgscale.tracking import DataInput, Tracker, TrackingConfig
from hgscale.tracking import run as run_module
from tests.unit.tracking.material import history, records, two_attempts

Start = Callable[..., Tracker]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs home shared by the tests of this module: a fresh store costs seconds."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def store(home: Path) -> MlflowClient:
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=f"sqlite:///{home}/mlflow.db")


@pytest.fixture
def start(home: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setenv("HGSCALE_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def start(resume_run_id: str | None = None, params: dict | None = None, **config: object) -> Tracker:
        return Tracker.start(
            TrackingConfig(**config),
            fingerprint="f00d",
            name="a-run",
            params=params or {"model.width": "64"},
            tags={"hgscale.verb": "pretrain"},
            resume_run_id=resume_run_id,
        )

    return start


def test_one_training_is_one_run_across_two_attempts(start, store):
    two_attempts(start, store)


def test_points_keep_the_step_the_value_and_the_time_of_the_log(start, store):
    tracker = start()
    tracker.ship([{"step": 7, "time": 1700000000.25, "loss": 0.5, "eval/l1 (%)": 3, "text": "a", "flag": True}])
    assert history(store, tracker.run_id) == [(7, 0.5, 1700000000250)]
    assert set(store.get_run(tracker.run_id).data.metrics) == {"loss", "eval/l1____"}


def test_a_loss_that_is_not_a_number_is_shipped_and_is_not_the_best(start, store):
    tracker = start()
    tracker.ship([{"step": 1, "time": 1.0, "loss": 2.0}, {"step": 2, "time": 2.0, "loss": float("nan")}])
    tracker.log_final({})
    assert [step for step, _, _ in history(store, tracker.run_id)] == [1, 2]
    assert store.get_run(tracker.run_id).data.metrics["best/loss"] == 2.0


def test_the_best_accuracy_is_the_highest(start, store):
    tracker = start()
    tracker.ship([{"step": step, "time": 1.0, "eval/accuracy": value} for step, value in enumerate([0.2, 0.9, 0.5])])
    tracker.log_final({})
    assert store.get_run(tracker.run_id).data.metrics["best/eval/accuracy"] == 0.9


def test_2500_points_go_in_batches_not_one_by_one(start, store, monkeypatch):
    tracker = start()
    sizes = []
    log_batch = tracker._client.log_batch

    def counted(run_id: str, metrics: list) -> None:
        sizes.append(len(metrics))
        log_batch(run_id, metrics=metrics)

    monkeypatch.setattr(tracker._client, "log_batch", counted)
    tracker.ship(records(range(2500)))
    assert sizes == [1000, 1000, 500]
    assert [step for step, _, _ in history(store, tracker.run_id)] == list(range(2500))
    tracker.ship(records(range(2500)))
    assert sizes == [1000, 1000, 500]


def test_a_store_that_fails_costs_one_warning_and_is_sent_everything_later(start, store, monkeypatch, caplog):
    tracker = start()
    log_batch = tracker._client.log_batch

    def refuse(*args: object, **more: object) -> None:
        raise MlflowException("connection refused")

    monkeypatch.setattr(tracker._client, "log_batch", refuse)
    monkeypatch.setattr(run_module, "RETRY_WAIT_S", 0.0)
    for step in range(5):
        tracker.ship(records(range(step + 1)))
    assert history(store, tracker.run_id) == []
    assert len(caplog.records) == 1
    assert "connection refused" in caplog.text
    monkeypatch.setattr(tracker._client, "log_batch", log_batch)
    tracker.ship(records(range(5, 6)))
    assert [step for step, _, _ in history(store, tracker.run_id)] == list(range(6))
    assert len(caplog.records) == 2
    assert "answers again" in caplog.text


def test_a_store_that_failed_is_left_alone_for_a_while_but_not_at_the_end(start, store, monkeypatch):
    tracker = start()
    log_batch = tracker._client.log_batch

    def refuse(*args: object, **more: object) -> None:
        raise MlflowException("connection refused")

    monkeypatch.setattr(tracker._client, "log_batch", refuse)
    tracker.ship(records(range(1)))
    monkeypatch.setattr(tracker._client, "log_batch", log_batch)
    tracker.ship(records(range(1, 2)))
    assert history(store, tracker.run_id) == []
    tracker.finish("KILLED")
    assert [step for step, _, _ in history(store, tracker.run_id)] == [0, 1]
    assert store.get_run(tracker.run_id).info.status == "KILLED"


def test_an_artifact_lies_beside_the_store_and_a_missing_one_does_not_keep_the_run_from_ending(
    start, store, home, tmp_path, caplog
):
    tracker = start()
    (tmp_path / "recovery.png").write_bytes(b"png")
    tracker.log_artifact(tmp_path / "nowhere.png")
    tracker.log_artifact(tmp_path / "recovery.png")
    tracker.finish("FINISHED")
    assert (home / "mlartifacts" / tracker.run_id / "artifacts" / "recovery.png").read_bytes() == b"png"
    assert store.get_run(tracker.run_id).info.status == "FINISHED"
    assert "nowhere.png" in caplog.records[-1].getMessage()


def test_many_and_long_params_are_all_logged(start, store):
    params = {f"p{i}": str(i) for i in range(250)} | {"long": "x" * 7000, "odd name!": "1"}
    logged = store.get_run(start(params=params).run_id).data.params
    assert len(logged) == 252
    assert logged["long"] == "x" * 5997 + "..."
    assert logged["odd_name_"] == "1"


def test_a_param_that_changes_between_attempts_is_a_tag_of_the_attempt(start, store):
    run_id = start(params={"cluster.workers": "2"}).run_id
    start(resume_run_id=run_id, params={"cluster.workers": "4"})
    run = store.get_run(run_id)
    assert run.data.params == {"cluster.workers": "2"}
    assert run.data.tags["hgscale.attempt.2.cluster.workers"] == "4"


def test_the_run_carries_its_fingerprint_name_and_tags(start, store):
    run = store.get_run(start().run_id)
    assert run.info.run_name == "a-run"
    assert run.data.tags["hgscale.fingerprint"] == "f00d"
    assert run.data.tags["hgscale.verb"] == "pretrain"
    assert store.get_run(start(run_name="mine").run_id).info.run_name == "mine"


def test_a_run_that_is_not_in_the_store_is_refused(start):
    with pytest.raises(ConfigError, match=r"0123 is not in sqlite:.*tracking\.json"):
        start(resume_run_id="0123")


def test_a_run_that_was_deleted_is_refused(start, store):
    run_id = start().run_id
    store.delete_run(run_id)
    with pytest.raises(ConfigError, match="was deleted"):
        start(resume_run_id=run_id)


def test_a_run_of_another_training_is_refused(start, store):
    run_id = start().run_id
    store.set_tag(run_id, "hgscale.fingerprint", "beef")
    with pytest.raises(ConfigError, match="fingerprint beef, this one has f00d"):
        start(resume_run_id=run_id)
    assert store.get_run(run_id).data.tags["hgscale.attempt"] == "1"


def test_a_deleted_experiment_is_refused(start, store):
    store.delete_experiment(store.create_experiment("gone"))
    with pytest.raises(ConfigError, match="gone was deleted"):
        start(experiment="gone")


def test_a_store_that_cannot_be_used_is_refused_at_once(start, tmp_path):
    (tmp_path / "file").write_text("not a database, and not a folder " * 100)
    began = time.monotonic()
    for uri, complaint in [
        (f"sqlite:///{tmp_path}/file/mlflow.db", "Not a directory|File exists"),
        (f"sqlite:///{tmp_path}/file", "not a database"),
        (f"sqlite:///{tmp_path}", "unable to open"),
        (str(tmp_path / "mlruns"), "filesystem tracking backend"),
        ("bogus://host", "unsupported URI"),
    ]:
        with pytest.raises(ConfigError, match=f"cannot be used: .*({complaint}).*--tracking.enabled false") as refused:
            start(uri=uri)
        assert "\n" not in str(refused.value)
    assert time.monotonic() - began < 10  # MLflow alone tries an unusable sqlite file for 100 s


def test_the_uri_comes_from_the_config_then_the_environment_then_the_runs_home(start, home, monkeypatch):
    assert f"mlflow ui --backend-store-uri sqlite:///{home}/mlflow.db " in start().how_to_open()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "bogus://environment")
    with pytest.raises(ConfigError, match="bogus://environment"):
        start()
    monkeypatch.chdir(home)
    assert f"sqlite:///{home}/mlflow.db " in start(uri="sqlite:///mlflow.db").how_to_open()


def test_a_password_in_the_uri_is_not_told(start, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=r"http://me:\*\*\*@127\.0\.0\.1:9 cannot be used.*refused") as refused:
        start(uri="http://me:secret@127.0.0.1:9")  # port 9, discard: nobody listens
    assert "secret" not in str(refused.value)


def test_tracking_that_is_off_takes_every_call_and_leaves_nothing(start, tmp_path, monkeypatch):
    monkeypatch.setenv("HGSCALE_HOME", str(tmp_path))
    tracker = start(enabled=False)
    tracker.log_input(DataInput("world", "d", {}, "here"))
    tracker.ship(records(range(3)))
    tracker.log_final({"l1": 1.0})
    tracker.log_artifact(tmp_path / "nowhere")
    tracker.finish("FINISHED")
    assert tracker.run_id is None
    assert "off" in tracker.how_to_open()
    assert list(tmp_path.iterdir()) == []


def test_importing_the_module_does_not_import_mlflow():
    check = "import sys, hgscale.tracking; sys.exit('mlflow' in sys.modules or 'sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


@pytest.mark.slow
def test_trainings_that_start_at_once_on_a_new_store_all_get_their_run(tmp_path):
    code = """
import sys
from hgscale.tracking import Tracker, TrackingConfig
tracker = Tracker.start(TrackingConfig(), fingerprint="f00d", name=sys.argv[1], params={}, tags={})
tracker.ship([{"step": step, "time": 1.0, "loss": 1.0} for step in range(100)])
tracker.finish("FINISHED")
from mlflow.telemetry.client import get_telemetry_client
assert get_telemetry_client() is None
"""
    env = os.environ | {"HGSCALE_HOME": str(tmp_path)}
    trainings = [
        subprocess.Popen([sys.executable, "-c", code, name], env=env, stderr=subprocess.PIPE) for name in "abc"
    ]
    for training in trainings:
        # Not a word of MLflow's and alembic's chatter either.
        assert (training.communicate(timeout=200)[1], training.returncode) == (b"", 0)
    store = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    runs = store.search_runs([store.get_experiment_by_name("hgscale").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["a", "b", "c"]
    assert {run.info.status for run in runs} == {"FINISHED"}
