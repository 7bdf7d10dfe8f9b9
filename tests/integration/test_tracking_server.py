"""Tracking on a real `mlflow server` that asks for a login: the server stops and returns, the client is killed.

One server for the whole module; what it holds is read with MLflow's own client, not through the trackers, and what a
person sees with a browser.
"""

import asyncio
import base64
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
import requests
import yaml
from mlflow import MlflowClient

from hgscale.errors import ConfigError
from hgscale.tracking import StudyTracker, Tracker, TrackingConfig, run, sender
from tests.integration.test_study import TINY
from tests.unit.tracking.material import cell, children, failed, history, records, two_attempts

USER, PASSWORD = "admin", "correct-horse-battery"

AUTHENTICATION = """
[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/users.db
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 600
"""
"""Its last line spares a tenth of a second of hashing per request; see mlflow/server/auth/basic_auth.ini."""


class Server:
    """A real `mlflow server` in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None
        (folder / "auth.ini").write_text(AUTHENTICATION.format(folder=folder, user=USER, password=PASSWORD))

    def run(self) -> None:
        if self.process is not None:
            return
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        env = os.environ | {
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "for this test",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that nobody here needs
        }
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            command, env=env, start_new_session=True, stdout=log, stderr=log, cwd=self.folder
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if requests.get(f"{self.uri}/health", timeout=5).ok:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        self.stop()
        pytest.fail((self.folder / "server.log").read_text()[-2000:])

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(timeout=60)
        self.process = None


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, up, whatever the test before did to it; who uses it is logged in."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    shared_server.run()
    return shared_server


@pytest.fixture
def client(server: Server) -> MlflowClient:
    return MlflowClient(tracking_uri=server.uri)


def start_study(directory: Path, uri: str | None = None) -> StudyTracker:
    return StudyTracker.start(
        TrackingConfig(uri=uri),
        directory=directory,
        name="samples of two worlds",
        fingerprint="beef",
        params={"seeds": "5"},
        tags={"hgscale.verb": "study"},
    )


def start_training(uri: str | None = None, resume_run_id: str | None = None, params: dict | None = None) -> Tracker:
    return Tracker.start(
        TrackingConfig(uri=uri),
        fingerprint="f00d",
        name="a-run",
        params=params or {"model.width": "64"},
        tags={"hgscale.verb": "pretrain"},
        resume_run_id=resume_run_id,
    )


def test_a_study_is_remembered_by_a_server_as_by_a_file(server, client, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "error.png").write_bytes(b"png")
    first = start_study(tmp_path)
    first.ship(cell(0, artifacts=[tmp_path / "summary.json"], records=records(range(3))))
    first.ship(failed(1))
    first.log_metrics({"fit/exponent": -0.5})
    first.log_artifact(tmp_path / "error.png")
    first.describe("error falls with N")
    first.finish("FAILED")

    again = start_study(tmp_path)
    assert again.run_id == first.run_id
    assert again.shipped() == {"f00d0": "FINISHED", "f00d1": "FAILED"}
    again.ship(cell(1))
    again.finish("FINISHED")
    finished, completed = children(client, again)
    assert {finished.info.status, completed.info.status} == {"FINISHED"}
    assert (finished.info.start_time, finished.info.end_time) == (1_000_000, 1_060_500)
    assert finished.data.params["axis/samples.num_samples"] == "0"
    assert history(client, finished.info.run_id) == [(s, 1 / (1 + s), int(1000 * (1.7e9 + s))) for s in range(3)]
    assert completed.data.metrics == {"axis/samples.num_samples": 100, "final/recovery_l1": 0.25}
    assert "hgscale.error" not in completed.data.tags
    assert [file.path for file in client.list_artifacts(finished.info.run_id)] == ["summary.json"]
    assert [file.path for file in client.list_artifacts(again.run_id)] == ["error.png"]
    assert client.get_run(again.run_id).info.status == "FINISHED"
    assert again.how_to_open().startswith(f"{server.uri}/#/experiments/")
    assert capfd.readouterr() == ("", "")  # MLflow would print two lines for each run that ends


def test_a_training_is_remembered_by_a_server_as_by_a_file(server, client, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    two_attempts(start_training, client)
    tracker = start_training()
    (tmp_path / "recovery.png").write_bytes(b"png")
    tracker.log_artifact(tmp_path / "recovery.png")
    assert [file.path for file in client.list_artifacts(tracker.run_id)] == ["recovery.png"]
    assert tracker.how_to_open().startswith(f"{server.uri}/#/experiments/")


def test_a_login_that_is_missing_or_wrong_is_refused_in_one_line_that_tells_no_password(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wr0ng")
    in_the_address = server.uri.replace("http://", f"http://{USER}:wr0ng@")
    for uri in (server.uri, in_the_address):
        with pytest.raises(ConfigError, match=r"401.* set MLFLOW_TRACKING_USERNAME and ") as refused:
            start_study(tmp_path, uri)
        assert "wr0ng" not in str(refused.value)
        assert "\n" not in str(refused.value)
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)


def test_a_login_in_the_address_is_used_and_not_told(server, client, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    tracker = start_study(tmp_path, server.uri.replace("http://", f"http://{USER}:{PASSWORD}@"))
    tracker.ship(cell())
    tracker.finish("FINISHED")
    assert tracker.shipped() == {"f00d0": "FINISHED"}
    assert tracker.how_to_open().startswith(f"http://{USER}:***@127.0.0.1:{server.port}/#/experiments/")
    assert capfd.readouterr() == ("", "")


def test_a_server_that_stops_in_the_middle_of_a_study_and_returns_has_every_cell_once(
    server, client, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(sender, "FIRST_RETRY_WAIT_S", 0.1)
    tracker = start_study(tmp_path, server.uri)
    for number in range(8):
        tracker.ship(cell(number, records=records(range(3))))
    wait_for(lambda: tracker.shipped())
    server.stop()  # most likely in the middle of a cell
    for number in range(8, 12):
        tracker.ship(cell(number, records=records(range(3))))
    wait_for(lambda: caplog.records)
    assert len(tracker.shipped()) < 12
    server.run()
    tracker.finish("FINISHED")
    assert_each_cell_is_there_once(client, tracker, 12)
    for child in children(client, tracker):
        assert [step for step, _, _ in history(client, child.info.run_id)] == [0, 1, 2]
    told = [record.getMessage() for record in caplog.records if "sending the last" not in record.getMessage()]
    assert len(told) == 2
    assert "the run goes on" in told[0]
    assert "answers again" in told[1]


def wait_for(fact: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_each_cell_is_there_once(client: MlflowClient, tracker: StudyTracker, num_cells: int) -> None:
    runs = children(client, tracker)
    assert sorted(run.data.tags["hgscale.fingerprint"] for run in runs) == sorted(f"f00d{n}" for n in range(num_cells))
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.data.metrics["final/recovery_l1"] == 0.25 for run in runs)
    assert all(run.data.params["train.seed"] == "3" for run in runs)
    parent = client.get_run(tracker.run_id)
    assert parent.info.status == "FINISHED"
    key = parent.data.tags["hgscale.study_key"]
    assert len(client.search_runs([parent.info.experiment_id], f"tags.`hgscale.study_key` = '{key}'")) == 1


STUDY = """
import os, signal, sys
from pathlib import Path
from hgscale.tracking import StudyTracker, TrackingConfig
from tests.integration.test_study import TINY
from tests.unit.tracking.material import cell

directory, num_cells, fatal_call, fatal_time = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
tracker = StudyTracker.start(
    TrackingConfig(), directory=directory, name="samples", fingerprint="beef", params={"seeds": "5"}, tags={}
)
num_calls = 0

def die_in_time(call):
    def counted(*args, **more):
        global num_calls
        num_calls += 1
        if num_calls == fatal_time:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **more)
    return counted

if fatal_call:
    setattr(tracker._client, fatal_call, die_in_time(getattr(tracker._client, fatal_call)))
there = tracker.shipped()
print("started", len(there), flush=True)
for number in range(num_cells):
    if there.get(f"f00d{number}") != "FINISHED":
        tracker.ship(cell(number))
tracker.finish("FINISHED")
"""


def run_study(directory: Path, uri: str, num_cells: int, fatal_call: str = "", fatal_time: int = 0) -> subprocess.Popen:
    """A process that ships the cells that are not in the store; it may kill itself before a call to the store."""
    command = [sys.executable, "-c", STUDY, str(directory), str(num_cells), fatal_call, str(fatal_time)]
    env = os.environ | {"MLFLOW_TRACKING_URI": uri}
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        command, env=env, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def test_a_study_killed_while_it_sends_is_completed_by_the_next_one_without_doubles(server, client, tmp_path):
    """Once with a child that was just created, once with one that lacks nothing but its end."""
    for fatal_call, fatal_time in [("log_batch", 3), ("set_terminated", 2)]:
        killed = run_study(tmp_path, server.uri, 8, fatal_call, fatal_time)
        killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL
    last = run_study(tmp_path, server.uri, 8)
    # Two cells by the first, one more by the second, after it had completed the one that the first left half sent.
    assert words_of(last) == ("started 3", [])
    assert_each_cell_is_there_once(client, start_and_end(tmp_path, server.uri), 8)


def words_of(study: subprocess.Popen) -> tuple[str, list[str]]:
    """What a study that ends well says on stdout and, but for how much is left to send, on stderr."""
    out, err = study.communicate(timeout=300)
    assert study.returncode == 0
    return out.strip(), [line for line in err.splitlines() if not line.startswith("tracking: sending the last")]


def start_and_end(directory: Path, uri: str) -> StudyTracker:
    tracker = start_study(directory, uri)
    tracker.finish("FINISHED")
    return tracker


@pytest.mark.slow
def test_a_study_killed_at_any_moment_is_completed_without_doubles(server, client, tmp_path):
    moments = random.Random(3)
    for _ in range(12):
        killed = run_study(tmp_path, server.uri, 60)
        if moments.random() < 0.7:
            killed.stdout.readline()
        else:
            time.sleep(moments.uniform(0, 6))
        time.sleep(moments.uniform(0, 1.5))
        killed.kill()
        killed.communicate(timeout=60)
    last = run_study(tmp_path, server.uri, 60)
    assert words_of(last)[1] == []
    assert_each_cell_is_there_once(client, start_and_end(tmp_path, server.uri), 60)


@pytest.mark.slow
def test_a_server_that_is_gone_for_a_minute_loses_nothing(server, client, tmp_path, caplog):
    tracker = start_study(tmp_path, server.uri)
    tracker.ship(cell(0))
    wait_for(lambda: tracker.shipped())
    server.stop()
    for number in range(1, 20):
        tracker.ship(cell(number))
        time.sleep(60 / 19)
    server.run()
    tracker.finish("FINISHED")
    assert_each_cell_is_there_once(client, tracker, 20)
    assert sum("the run goes on" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.slow
def test_a_server_that_vanishes_and_returns_loses_no_point_of_a_training(server, client, monkeypatch, caplog):
    monkeypatch.setattr(run, "RETRY_WAIT_S", 0.0)
    tracker = start_training(server.uri)
    tracker.ship(records(range(3)))
    server.stop()
    tracker.ship(records(range(3, 6)))
    tracker.ship(records(range(6, 9)))
    assert len(caplog.records) == 1
    with pytest.raises(ConfigError, match="cannot be used"):
        start_training(server.uri)
    server.run()
    tracker.ship(records(range(9, 10)))
    tracker.finish("FINISHED")
    assert history(client, tracker.run_id) == [(s, 1 / (1 + s), int(1000 * (1.7e9 + s))) for s in range(10)]
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_a_training_whose_server_is_gone_for_good_ends_with_a_warning(server, caplog):
    tracker = start_training(server.uri)
    server.stop()
    tracker.ship(records(range(4)))
    tracker.finish("FINISHED")
    assert "misses 4 points" in caplog.records[-1].getMessage()
    assert "same command sends it again" in caplog.text


def test_the_page_of_a_study_shows_it_and_its_cells(server, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium; install the package chromium")
    tracker = start_study(tmp_path, server.uri)
    tracker.ship(cell(7))
    tracker.log_metrics({"fit/gnm/exponent": -0.5})
    tracker.describe("## Error falls with N")
    tracker.finish("FINISHED")
    expected = [
        "samples of two worlds",
        "gnm num_samples=7",
        "Error falls with N",
        "fit/gnm/exponent",
        "Model training",
    ]
    shown = asyncio.run(text_of_page(browser, tmp_path, tracker.how_to_open(), expected))
    assert [text for text in expected if text not in shown] == [], shown


async def text_of_page(browser: str, folder: Path, address: str, expected: list[str]) -> str:
    """The text that a browser shows at an address once all that is expected is there, or after a minute.

    It is driven by the DevTools protocol, which can log in, and look again until the page's scripts are done.
    """
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    flags += [f"--user-data-dir={folder / 'browser'}", "about:blank"]
    process = await asyncio.create_subprocess_exec(
        browser, *flags, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(60):
            while not (found := re.search(r"ws://([\w.:]+)/", (await process.stderr.readline()).decode())):
                pass
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{found[1]}/json/list") as answer:
                tab = next(target for target in await answer.json() if target["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as devtools:
                login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                await ask(devtools, "Network.enable")
                await ask(devtools, "Network.setExtraHTTPHeaders", headers={"Authorization": f"Basic {login}"})
                await ask(devtools, "Page.navigate", url=address)
                deadline, shown = time.monotonic() + 60, ""
                while time.monotonic() < deadline and not all(text in shown for text in expected):
                    await asyncio.sleep(0.3)
                    answer = await ask(devtools, "Runtime.evaluate", expression="document.body.innerText")
                    shown = answer["result"].get("value") or ""
                return shown
    finally:
        process.kill()
        await process.wait()


async def ask(devtools: aiohttp.ClientWebSocketResponse, method: str, **params: object) -> dict:
    """Send a command and return its result, past whatever the browser reports meanwhile."""
    await devtools.send_json({"id": 1, "method": method, "params": params})
    while True:
        message = await devtools.receive_json()
        if message.get("id") == 1:
            return message["result"]


@pytest.mark.slow
def test_a_study_on_ray_survives_a_server_that_is_gone_for_a_minute(server, client, tmp_path):
    """The whole command against a server with logins: cells go on running, and each is there in the end, once."""
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(TINY | {"name": "outage", "seeds": 5}))
    environment = os.environ | {"HGSCALE_HOME": str(tmp_path / "runs")}
    command = [sys.executable, "-m", "hgscale", "study", "--config", str(tmp_path / "study.yaml")]
    options = ["--tracking.uri", server.uri, "--cluster.max_parallel", "1"]
    study = subprocess.Popen(
        [*command, *options], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_for(lambda: list((tmp_path / "runs").glob("studies/outage/cells/*/cell.json")))
        server.stop()
        time.sleep(60)
        server.run()
        _, said = study.communicate(timeout=240)
    finally:
        if study.poll() is None:
            os.killpg(study.pid, signal.SIGKILL)
    assert study.returncode == 0, said
    assert PASSWORD not in said
    ended = {path.parent.name for path in (tmp_path / "runs").glob("studies/outage/cells/*/cell.json")}
    (experiment,) = [found for found in client.search_experiments() if found.name == "hgscale"]
    cells = client.search_runs([experiment.experiment_id], "tags.`hgscale.study` = 'outage'")
    (parent,) = [found for found in cells if "mlflow.parentRunId" not in found.data.tags]
    there = [found for found in cells if found.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(found.data.tags["hgscale.fingerprint"] for found in there) == sorted(ended)
    assert {found.info.status for found in cells} == {"FINISHED"}
