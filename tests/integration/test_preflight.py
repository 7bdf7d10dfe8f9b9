"""`hgscale preflight`: the table, its exit code, that it leaves nothing behind, and what it says of a broken place."""

import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import hgscale
from hgscale import config as configs
from hgscale.cli import main
from hgscale.cluster import node, nodes
from hgscale.cluster import preflight as module
from hgscale.cluster.job import Job
from hgscale.cluster.node import Node, Question, stale_locks
from hgscale.cluster.preflight import PreflightConfig, PreflightResult, Row, preflight
from hgscale.errors import ConfigError
from hgscale.pretrain.cost import COSTS
from hgscale.tracking import TrackingConfig
from hgscale.train.deepspeed_json import compiled_parts

REPO = Path(__file__).parents[2]
SMALL = str(REPO / "configs/pretrain/uniform3.yaml")


def request(tmp_path: Path, address: str | None = None, **overrides: object) -> tuple[PreflightConfig, Job]:
    values = {"tracking__uri": f"sqlite:///{tmp_path}/mlflow.db", "run_dir": str(tmp_path / "run")}
    config = configs.load(hgscale.PretrainConfig, SMALL, **(values | overrides))
    return PreflightConfig(address=address), Job("pretrain", config)


def asked(tmp_path: Path) -> module._Asked:
    job = request(tmp_path)[1]
    return module._Asked(job.verb, job.config, COSTS)


def row(result: PreflightResult, name: str) -> Row:
    return next(row for row in result.rows if row.name == name)


def test_a_config_that_fits_this_machine_is_ok_and_nothing_is_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    args = ["preflight", "--config", SMALL, "--run_dir", str(tmp_path / "run"), "--tracking.uri", uri]
    started = time.monotonic()
    assert main(args) == 0
    assert time.monotonic() - started < 60
    lines = capsys.readouterr().out.splitlines()
    assert not any(tmp_path.iterdir())
    assert re.fullmatch(r"\d+ ok, \d+ warning, 0 failed, [\d.]+ s", lines[-1])
    starts = {line.split(None, 2)[2] and line.index(line.split(None, 2)[2]) for line in lines[:-1] if "->" not in line}
    names = [line.split()[1] for line in lines[:-1] if "->" not in line]
    assert {"batches", "room", "memory", "versions", "storage", "disk", "tracking", "locks", "shm"} <= {*names}
    assert len(starts) <= 2  # aligned; "open files" has two words


FAILURES = {
    "a batch that does not divide": ({"train__global_batch": 8191, "cluster__num_workers": 2}, "batches"),
    "more workers than cores": ({"cluster__num_workers": 4096}, "room"),
    "more memory than there is": ({"model__hidden_size": 65536}, "memory"),
    "a server that is not there": ({"tracking__uri": "http://127.0.0.1:9"}, "tracking"),
    "a GPU that is not there": ({"cluster__use_gpu": True}, "gpu"),
    "a corpus smaller than a batch": ({"samples__num_samples": 10}, "config"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_cannot_run_is_a_failed_row_with_its_remedy(name: str, tmp_path: Path) -> None:
    if name == "a GPU that is not there":
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is one")
    overrides, failed = FAILURES[name]
    result = preflight(*request(tmp_path, **overrides))
    assert row(result, failed).status == "failed"
    assert row(result, failed).remedy
    assert not (tmp_path / "run").exists()


def test_sizes_that_cannot_share_the_batch_are_told_and_the_others_work(tmp_path: Path) -> None:
    result = preflight(*request(tmp_path, cluster__num_workers={"min": 1, "max": 4}))
    batches = row(result, "batches")
    assert batches.status == "warning"  # 8,192 is no multiple of 3
    assert "not with 3 workers" in batches.found
    assert row(result, "room").status in ("ok", "warning")


def test_a_fine_tuning_is_checked_by_what_its_own_room_says_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HGSCALE_HOME", str(tmp_path / "home"))
    args = ["preflight", "finetune", "--config", str(REPO / "configs/finetune/planted.yaml")]
    args += ["--data.planted.num_contexts", "200", "--tracking.enabled", "false", "--run_dir", str(tmp_path / "run")]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert re.search(r"^ok +config .* pairs in 200 contexts", out, flags=re.MULTILINE)
    assert re.search(r"^ok +memory +[\d.]+ of [\d.]+ GiB for 1 workers", out, flags=re.MULTILINE)
    assert re.search(r"^ok +disk +3 checkpoints of", out, flags=re.MULTILINE)
    assert not (tmp_path / "run").exists()
    assert main([*args, "--assume", "1x1xH100"]) == 2
    assert "only a pre-training is planned" in capsys.readouterr().err


def test_failed_rows_are_exit_2_and_one_line_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["preflight", "--config", SMALL, "--run_dir", str(tmp_path / "run"), "--tracking.enabled", "false"]
    assert main([*args, "--train.global_batch", "8191", "--cluster.num_workers", "2"]) == 2
    captured = capsys.readouterr()
    assert "failed   batches" in captured.out
    assert captured.err == "hgscale: preflight failed: batches; what to do stands below each\n"


def test_a_place_that_cannot_be_written_fails(tmp_path: Path) -> None:
    result = preflight(*request(tmp_path, run_dir="/proc/nowhere/run"))
    assert row(result, "storage").status == "failed"
    assert "--run_dir" in row(result, "storage").remedy


def test_a_disk_without_room_for_the_checkpoints_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 3 * 16 * 480_000  # fp32 weights, master weights and two means of its 0.48 million parameters
    for free, status in ((0.9 * needed, "failed"), (1.3 * needed, "ok")):
        usage = type("usage", (), {"free": int(free)})
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert module._disk(asked(tmp_path)).status == status, free


def test_a_lock_is_stale_when_no_process_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / "py311_cpu" / "cpu_adam" / "lock"
    lock.parent.mkdir(parents=True)
    held = os.open(lock, os.O_CREAT | os.O_EXCL)  # as torch's FileBaton does
    assert stale_locks([tmp_path]) == []
    os.close(held)
    assert stale_locks([tmp_path]) == [lock]


def test_a_stale_lock_matters_when_something_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "extensions" / "async_io").mkdir(parents=True)
    (tmp_path / "extensions" / "async_io" / "lock").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    plain = preflight(*request(tmp_path))
    assert row(plain, "locks").status == "warning"
    assert row(plain, "locks").remedy == f"rm {tmp_path}/extensions/async_io/lock"
    offload = '{"zero_optimization": {"offload_optimizer": {"device": "nvme", "nvme_path": "/tmp"}}}'
    (tmp_path / "ds.json").write_text(offload)
    config = request(tmp_path, engine__deepspeed_config=str(tmp_path / "ds.json"), engine__zero_stage=3)
    assert compiled_parts(config[1].config.engine) == ("zero_optimization.offload_optimizer.device",)
    assert row(preflight(*config), "locks").status == "failed"
    monkeypatch.setattr(node.shutil, "which", lambda _: None)
    assert row(preflight(*config), "compiler").status == "failed"


@pytest.mark.parametrize(("ahead_s", "round_trip_s", "status"), [
    (0.4, 0.01, "ok"), (3.0, 0.01, "warning"), (-3.0, 0.01, "warning"), (3.0, 5.0, "ok"), (400.0, 1.0, "failed"),
])  # fmt: skip
def test_clocks_may_differ_by_what_the_way_hides(ahead_s: float, round_trip_s: float, status: str) -> None:
    assert module._skew(round_trip_s, ahead_s)[0] == status


def test_a_password_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "planted-secret")
    result = preflight(*request(tmp_path, tracking__uri="http://ada:planted-secret@127.0.0.1:9"))
    assert row(result, "tracking").status == "failed"
    assert "planted-secret" not in result.text()
    assert "planted-secret" not in str(Node().facts(Question((), TrackingConfig(enabled=False), False)))
    assert "MLFLOW_TRACKING_PASSWORD" in row(result, "credentials").found


def test_versions_that_differ_are_named_with_their_nodes() -> None:
    fact = Node().facts(Question((), TrackingConfig(enabled=False), False))
    other = replace(fact, versions=fact.versions | {"torch": "1.0"})
    assert module._versions({"driver": fact, "a": fact}).status == "ok"
    differing = module._versions({"driver": fact, "a": other})
    assert differing.status == "failed"
    assert "1.0 on a" in differing.found


# What is refused in one line


def _silent_port() -> tuple[socket.socket, int]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1)
    return listening, listening.getsockname()[1]


def test_an_address_where_no_ray_answers_is_refused_within_seconds(tmp_path: Path) -> None:
    listening, port = _silent_port()
    with listening:
        for address, said in (
            (f"127.0.0.1:{port}", "is no Ray"),
            ("127.0.0.1:9", "nothing answers"),
            ("ray://127.0.0.1:9", "nothing answers"),
            ("http://127.0.0.1:8265", "hgscale submit"),
            ("somewhere", "not an address"),
        ):
            started = time.monotonic()
            with pytest.raises(ConfigError, match=said) as error:
                preflight(*request(tmp_path, address=address))
            assert "\n" not in str(error.value)
            assert time.monotonic() - started < 30


@pytest.mark.parametrize(("options", "said"), [
    (["--assume", "4x8xH900"], "table of GPUs"),
    (["--assume", "many"], "4x8xH200"),
    (["--assume", "1x1xH100", "--address", "auto"], "give one"),
    (["--assume", "1x3xH100"], "not a multiple"),
    (["--utilisation", "0"], "outside"),
])  # fmt: skip
def test_a_request_that_means_nothing_is_one_line_and_exit_2(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preflight", "--config", SMALL, *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_plan_that_does_not_fit_is_exit_2_and_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["preflight", "--config", str(REPO / "configs/pretrain/large.yaml"), "--assume", "1x8xH100"]
    assert main(args) == 0
    assert "samples/s" in capsys.readouterr().out
    assert main([*args, "--model.config.embedding_size", "512", "--engine.zero_stage", "0"]) == 2
    captured = capsys.readouterr()
    assert "-> --engine.zero_stage" in captured.out
    assert captured.err.startswith("hgscale: preflight failed: fits")


# A cluster of three nodes on this machine


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A head and two more nodes, each a raylet of its own; with the token that a local Ray asks for."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 10**8})
    for _ in range(2):
        made.add_node(num_cpus=2, object_store_memory=10**8)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_every_node_of_a_cluster_is_asked(cluster, tmp_path: Path) -> None:
    config = request(tmp_path, address=cluster.address, cluster__num_workers=4, train__global_batch=8192)
    started = time.monotonic()
    result = preflight(*config)
    assert result.failed == ()
    assert row(result, "nodes").found.count("(") == 3
    assert "all 3 nodes" in row(result, "storage").found
    assert row(result, "room").status == "ok"
    assert row(result, "clocks").status == "ok"
    assert not any(tmp_path.iterdir())
    assert time.monotonic() - started < 90
    # Six cores in all, but no node holds a worker of four.
    wide = preflight(*request(tmp_path, address=cluster.address, cluster__cpus_per_worker=4))
    assert row(wide, "room").status == "failed"


@pytest.mark.slow
def test_a_node_that_does_not_answer_is_named(cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    raylet = cluster.list_all_nodes()[-1].all_processes["raylet"][0].process.pid
    workers = psutil.Process(raylet).children(recursive=True)
    monkeypatch.setattr(nodes, "ANSWER_S", 20.0)
    for process in [psutil.Process(raylet), *workers]:
        process.suspend()
    try:
        result = preflight(*request(tmp_path, address=cluster.address))
    finally:
        for process in [psutil.Process(raylet), *workers]:
            if process.is_running():
                process.resume()
    assert "nodes" in result.failed
    assert row(result, "nodes").found.count("no answer in 20 s") == 1
    assert "all 2 nodes" in row(result, "storage").found
