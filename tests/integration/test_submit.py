"""Jobs on a real cluster: a private head with its job server on loopback, asking for a token; submitted both ways."""

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.unit.models.tiny import save_text_encoder

BIN = Path(sys.executable).parent
TINY = {
    "world": {"generator": "star", "num_nodes": 6},
    "samples": {"num_samples": 2000},
    "train": {"num_steps": 60, "global_batch": 500, "learning_rate": 0.01, "log_every": 10},
    "model": {"hidden_size": 32, "num_hidden_layers": 1},
    "engine": {"name": "torch"},
}
LIMIT_S = 300  # that anything takes on a busy machine
FOR_EVER = 10**7


@dataclass(frozen=True)
class Cluster:
    """A head that is up."""

    address: str
    token: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of somebody who may use it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        return kept | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
        }

    def get(self, path: str) -> str:
        """What the job server's API answers."""
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()

    def jobs(self) -> dict[str, str]:
        """Status of each job by its submission id."""
        found = json.loads(self.get("/api/jobs/"))
        return {job["submission_id"]: job["status"] for job in found if job["submission_id"]}

    def packages(self) -> list[Path]:
        """What jobs were sent, unpacked."""
        return [path for path in self.folder.rglob("_ray_pkg_*") if path.is_dir()]


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="hg", dir="/tmp"))  # paths of sockets are short
    gcs, dashboard, agent, client = free_ports(4)
    token = secrets.token_hex(24)
    (folder / "token").touch(0o600)
    (folder / "token").write_text(token)
    found = Cluster(f"http://127.0.0.1:{dashboard}", token, folder)
    command = [BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2"]
    command += ["--object-store-memory=100000000", f"--port={gcs}", f"--ray-client-server-port={client}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    environment = found.environment | {"RAY_TMPDIR": str(folder), "RAY_worker_niceness": "0"}
    environment |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}  # it waits for work to end, which is not wanted here
    with (folder / "out").open("w") as out:
        head = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for(lambda: answers(found), LIMIT_S, lambda: (folder / "out").read_text())
        yield found
    finally:
        head.terminate()
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def answers(cluster: Cluster) -> bool:
    try:
        return "ray_version" in cluster.get("/api/version")
    except OSError:
        return False


def wait_for(is_so, limit_s: float, explain=lambda: "") -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end, explain()
        time.sleep(0.2)


def config(folder: Path, **changes: object) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    return path


def submit_command(cluster: Cluster, *args: object) -> list[str]:
    return [sys.executable, "-m", "hgscale", "submit", *map(str, args), "--address", cluster.address]


def submit(cluster: Cluster, *args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        submit_command(cluster, *args),
        env=cluster.environment | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def submission_id(result: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"job (hgscale-\S+-\d+)", result.stderr)
    assert found, result.stderr
    return found[1]


def files_with(text: str, folder: Path) -> list[Path]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_socket() and text.encode() in path.read_bytes():
            found.append(path)
    return found


def test_a_submitted_training_lands_on_shared_storage_and_tells_no_secret(cluster: Cluster, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    planted = {"MLFLOW_TRACKING_TOKEN": f"planted-{secrets.token_hex(8)}", "MLFLOW_TRACKING_PASSWORD": "plant-3d-too"}
    (shared / "secrets").touch(0o600)
    (shared / "secrets").write_text("".join(f"{name}={value}\n" for name, value in planted.items()))
    mine = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": f"local-{secrets.token_hex(8)}"}
    args = ["pretrain", "--config", config(tmp_path), "--run_dir", shared / "run", "--secrets", shared / "secrets"]
    args += ["--tracking.uri", f"sqlite:///{shared}/mlflow.db"]

    first = submit(cluster, *args, **mine)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "pretrain step=60/60" in first.stdout
    assert "recovery l1" in first.stdout
    assert json.loads((shared / "run/summary.json").read_text())["num_samples"] == 2000
    assert (shared / "mlflow.db").exists()
    name = submission_id(first)
    assert name.endswith("-1")

    again = submit(cluster, *args, **mine)
    assert again.returncode == 0
    assert f"{name} has succeeded already" in again.stderr
    assert again.stdout == ""
    assert [job for job in cluster.jobs() if job.startswith(name[:-1])] == [name]

    told = cluster.get("/api/jobs/") + cluster.get(f"/api/jobs/{name}") + cluster.get(f"/api/jobs/{name}/logs")
    told += first.stdout + first.stderr + again.stderr
    (cluster.folder / "token").unlink()
    (shared / "secrets").unlink()
    for secret in (cluster.token, *planted.values(), mine["MLFLOW_TRACKING_PASSWORD"]):
        assert secret not in told
        assert files_with(secret, shared) == []
        assert files_with(secret, cluster.folder) == []
    (cluster.folder / "token").touch(0o600)
    (cluster.folder / "token").write_text(cluster.token)


def test_the_documented_command_by_hand_packs_neither_data_nor_runs(
    cluster: Cluster, tmp_path: Path, repo_root
) -> None:
    checkout = tmp_path / "checkout"
    for name in ("hgscale", "configs"):
        shutil.copytree(repo_root / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".rayignore"):
        shutil.copy(repo_root / name, checkout)
    config(checkout)
    for decoy in ("runs/old/model.bin", "data/world.parquet", ".git/pack", ".venv/lib.so", "mlruns/x", "notes.npy"):
        (checkout / decoy).parent.mkdir(parents=True, exist_ok=True)
        (checkout / decoy).write_bytes(os.urandom(1 << 20))
    before = set(cluster.packages())
    command = (
        f"ray job submit --address {cluster.address} --working-dir . --submission-id mine-1 -- "
        f"python -m hgscale pretrain --config tiny.yaml --run_dir {tmp_path}/run --tracking.enabled false"
    )
    done = subprocess.run(
        shlex.split(command),
        cwd=checkout,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run/summary.json").exists()
    (package,) = set(cluster.packages()) - before
    assert {path.name for path in package.iterdir()} == {"hgscale", "configs", "tiny.yaml"}
    assert sum(path.stat().st_size for path in package.rglob("*") if path.is_file()) < 3e6


def test_a_refusal_on_the_cluster_is_the_exit_code_and_the_next_try_is_the_next_attempt(
    cluster: Cluster, tmp_path: Path
) -> None:
    args = ["generate", "--world.num_edges", 50, "--out", tmp_path / "world"]
    before = set(cluster.packages())
    refused = submit(cluster, *args, "--num_workers", 7)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "use at most 2" in refused.stdout
    assert "failed with exit status 2" in refused.stderr
    done = submit(cluster, *args, "--num_workers", 0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "world/manifest.json").exists()
    assert submission_id(done) == submission_id(refused)[:-1] + "2"
    for package in set(cluster.packages()) - before:
        assert {path.name for path in package.iterdir()} == {"hgscale", "job.yaml"}
        files = [path for path in package.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
        assert {path.suffix for path in files} == {".py", ".yaml"}


def test_ctrl_c_detaches_the_same_command_attaches_and_a_stop_is_told(cluster: Cluster, tmp_path: Path) -> None:
    train = TINY["train"] | {"num_steps": FOR_EVER, "log_every": 100}
    args = ["pretrain", "--config", config(tmp_path, train=train), "--run_dir", tmp_path / "run"]
    args += ["--tracking.enabled", "false"]
    first = Follower(submit_command(cluster, *args), cluster.environment)
    first.wait_until("pretrain step=")
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(LIMIT_S) == 130
    name = re.search(r"detached; job (\S+) goes on", first.text)[1]
    assert cluster.jobs()[name] == "RUNNING"
    glance = submit(cluster, *args, "--no_wait")
    assert glance.returncode == 0, glance.stderr
    assert f"job {name} is with the cluster; follow it by" in glance.stderr
    assert cluster.jobs()[name] == "RUNNING"

    second = Follower(submit_command(cluster, *args), cluster.environment)
    second.wait_until(f"{name} is running already; attaching")
    second.wait_until("pretrain step=")
    stop = re.search(r"end it by `(.*)`", first.text)[1]
    subprocess.run(shlex.split(stop), env=cluster.environment, capture_output=True, timeout=120, check=True)
    assert second.process.wait(LIMIT_S) == 130
    assert f"{name} was stopped" in second.text
    assert cluster.jobs()[name] == "STOPPED"


class Follower:
    """A command whose output is read while it runs."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.text = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.text += line

    def wait_until(self, text: str) -> None:
        wait_for(lambda: text in self.text, LIMIT_S, lambda: self.text)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RAY_AUTH_TOKEN": "not-the-cluster's"}, "the token is missing or is not the cluster's"),
        ({"RAY_AUTH_TOKEN_PATH": "", "HOME": "/nonexistent"}, "the token is missing or is not the cluster's"),
        ({"RAY_AUTH_TOKEN_PATH": "/nonexistent/token"}, "RAY_AUTH_TOKEN_PATH=/nonexistent/token: cannot be read"),
        ({"RAY_AUTH_TOKEN_PATH": os.devnull}, "is empty"),
    ],
    ids=["wrong", "none", "no file", "empty file"],
)
def test_a_token_that_does_not_open_is_one_line_and_exit_2(
    cluster: Cluster, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    args = ["pretrain", "--config", config(tmp_path), "--run_dir", tmp_path / "run", "--tracking.enabled", "false"]
    result = submit(cluster, *args, **environment)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert said in line
    assert "disabled" not in line


def test_no_job_server_is_one_line_and_exit_2(cluster: Cluster, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    nobody = Cluster(f"http://127.0.0.1:{port}", cluster.token, cluster.folder)
    args = ["pretrain", "--config", config(tmp_path), "--run_dir", tmp_path / "run", "--tracking.enabled", "false"]
    result = submit(nobody, *args)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert "no job server can be used there" in line


@pytest.mark.slow
def test_a_study_its_report_and_a_second_read_out_are_jobs_as_well(cluster: Cluster, tmp_path: Path) -> None:
    study = {"name": "tiny", "base": TINY, "axes": {"samples.num_samples": [1000, 2000]}, "seeds": 1}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    home = tmp_path / "home"
    done = submit(cluster, "study", "--config", tmp_path / "study.yaml", "--home", home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (home / "studies/tiny/report/report.html").exists()
    assert (home / "mlflow.db").exists()
    done = submit(cluster, "report", "--study", "tiny", "--out", tmp_path / "report", "--home", home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "report/table.md").exists()
    args = ["pretrain", "--config", config(tmp_path), "--run_dir", tmp_path / "run", "--tracking.enabled", "false"]
    assert submit(cluster, *args).returncode == 0
    done = submit(
        cluster, "recover", "--run_dir", tmp_path / "run", "--readout.method", "least_squares", "--home", home
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run/recover-least_squares.json").exists()


@pytest.mark.slow
def test_a_fine_tuning_on_planted_images_is_a_job_as_well(cluster: Cluster, tmp_path: Path) -> None:
    tree = {
        "data": {"name": "planted", "planted": {"num_contexts": 48, "num_eval_contexts": 24, "image_size": 32}},
        "text": {"path": str(save_text_encoder(tmp_path / "bert")), "tuning": "full", "max_length": 64},
        "vision": {"path": "scratch:resnet", "tuning": "frozen"},
        "model": {"hidden_size": 32, "top_objects": 4},
        "train": {"num_steps": 6, "global_batch": 8, "log_every": 3},
        "engine": {"name": "torch"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    run, home = tmp_path / "run", tmp_path / "home"
    args = ["finetune", "--config", tmp_path / "config.yaml", "--run_dir", run, "--home", home]
    done = submit(cluster, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 0 <= json.loads((run / "summary.json").read_text())["test_f1"] <= 1
    assert (home / "mlflow.db").exists()
    again = submit(cluster, *args)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "--again" in again.stdout + again.stderr
    assert not list((tmp_path / "home").rglob("*.part"))
