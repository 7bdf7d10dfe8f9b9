"""`hgscale generate` as a user runs it: the same bytes whoever makes them, whatever happens on the way."""

import contextlib
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from hgscale.cli import main
from hgscale.cluster.generate import GenerateConfig, generate
from hgscale.data.disk import shards
from hgscale.data.stream import SamplesConfig
from hgscale.errors import RunError
from hgscale.hypergraph import io
from hgscale.hypergraph.worlds.config import WorldConfig

DEADLINE_S = 240

# Worlds of many shards although small: each size has its own.
WORLDS: dict[str, dict[str, Any]] = {
    "addressed": {
        "generator": "uniform", "num_nodes": 40, "num_edges": 4000, "sizes": dict.fromkeys(range(2, 12), 1.0),
        "weights": "dirichlet", "dirichlet_alpha": 0.5,
    },
    # C(1000, 20) is beyond 64-bit ranks, so edges are found by exchange.
    "exchanged": {
        "generator": "uniform", "num_nodes": 1000, "num_edges": 3000, "sizes": {20: 1.0, 21: 1.0, 22: 1.0},
        "weights": "zipf",
    },
    "weights by nodes": {
        "generator": "block", "num_nodes": 60, "num_edges": 9000, "size": 3, "num_blocks": 5, "block_law": "random",
    },
}  # fmt: skip
SAMPLES = SamplesConfig(num_samples=1000, seed=1)
# Four shards that take about half a second each.
LARGE: dict[str, Any] = {"generator": "uniform", "num_nodes": 10**5, "num_edges": 2**22, "weights": "zipf"}


def files(directory: Path) -> dict[str, bytes]:
    """Every file by name, hidden ones too."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def request(out: Path, world: dict[str, Any], num_workers: int = 0, **fields: Any) -> GenerateConfig:
    return GenerateConfig(world=WorldConfig(**world), out=str(out), num_workers=num_workers, **fields)


@pytest.fixture(scope="module")
def three_cores() -> Iterator[None]:
    """A private Ray that believes in three cores."""
    import ray

    ray.init(address="local", num_cpus=3, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the large world, made by this process."""
    out = tmp_path_factory.mktemp("large") / "out"
    generate(request(out, LARGE))
    return files(out)


def test_without_an_address_a_private_ray_is_started_whatever_ray_start_has_left_on_the_machine(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:  # the names of Ray's sockets may not be long
        (Path(short) / "ray").mkdir()
        (Path(short) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        world = {"generator": "star", "num_nodes": 5}
        process = start(tmp_path / "out", world, "--num_workers", "1", env=environment | {"RAY_TMPDIR": short})
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said


@pytest.mark.parametrize("name", WORLDS)
def test_the_bytes_do_not_depend_on_who_makes_them(name: str, tmp_path: Path, three_cores: None) -> None:
    made = []
    for num_workers in (0, 1, 2, 3):
        out = tmp_path / str(num_workers)
        generate(request(out, WORLDS[name], num_workers, samples=SAMPLES))
        made.append(files(out))
    assert made[0] == made[1] == made[2] == made[3]
    assert {"manifest.json", "README.md", "edges/00000.parquet", "samples/00000.parquet"} <= made[0].keys()


def test_ray_data_reads_edges_and_samples_as_they_are(tmp_path: Path, three_cores: None) -> None:
    import ray.data

    generate(request(tmp_path, WORLDS["addressed"], samples=SAMPLES))
    edges = ray.data.read_parquet(str(tmp_path / "edges"), file_extensions=["parquet"]).take_all()
    assert len(edges) == 4000
    assert sum(row["weight"] for row in edges) == pytest.approx(1, rel=1e-12)
    world = {tuple(row["nodes"]) for row in edges}
    assert world == {tuple(nodes) for file in (tmp_path / "edges").glob("*.parquet") for nodes in nodes_in(file)}
    samples = ray.data.read_parquet(str(tmp_path / "samples")).take_all()
    assert sorted(row["id"] for row in samples) == list(range(1000))
    assert {tuple(sorted(row["nodes"])) for row in samples} <= world


def nodes_in(file: Path) -> list[list[int]]:
    return pq.read_table(file)["nodes"].to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["uniform", "power_law"])
def test_the_bytes_of_shards_of_full_size_do_not_depend_on_who_makes_them(
    generator: str, tmp_path: Path, three_cores: None
) -> None:
    world = LARGE | {"generator": generator, "num_edges": 5 * 2**19}  # three shards, the last one half full
    for num_workers in (0, 1, 2, 3):
        generate(request(tmp_path / str(num_workers), world, num_workers))
    plain = files(tmp_path / "0")
    assert sum(name.endswith(".parquet") for name in plain) == 3
    assert all(files(tmp_path / str(num_workers)) == plain for num_workers in (1, 2, 3))


def test_more_workers_than_cores_are_refused_and_nothing_is_written(
    tmp_path: Path, three_cores: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--world.generator", "star", "--num_workers", "4", "--out", str(tmp_path / "out")]) == 2
    assert "use at most 3" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_worker_killed_in_the_middle_of_a_shard_changes_nothing(
    tmp_path: Path, three_cores: None, large: dict[str, bytes]
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        """As soon as one shard is written, the worker of another."""
        deadline = time.monotonic() + DEADLINE_S
        while not list((tmp_path / "out" / "edges").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        # Ray names a process after the method that it is in.
        busy = [p for p in psutil.process_iter(["cmdline"]) if "ray::_Worker.call" in " ".join(p.info["cmdline"] or [])]
        ours = [p for p in busy if psutil.Process() in p.parents()]
        ours[0].kill()
        killed.append(ours[0].pid)

    thread = threading.Thread(target=kill_one)
    thread.start()
    result = generate(request(tmp_path / "out", LARGE, 2))
    thread.join()
    assert killed
    assert result.num_written == 4
    assert files(tmp_path / "out") == large


def start(out: Path, world: dict[str, Any], *args: str, **options: Any) -> subprocess.Popen[str]:
    """The command that writes a world."""
    fields = [word for name, value in world.items() for word in (f"--world.{name}", str(value))]
    command = [sys.executable, "-m", "hgscale", "generate", *fields, "--out", str(out), *args]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "num_workers", "code"),
    [
        (signal.SIGINT, "0", 130),
        pytest.param(signal.SIGKILL, "0", -signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "2", 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, "2", -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_command_that_was_ended_is_gone_on_with(
    number: int, num_workers: str, code: int, tmp_path: Path, large: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    process = start(out, LARGE, "--num_workers", num_workers)
    below: list[psutil.Process] = []
    try:
        wait_for(lambda: list((out / "edges").glob("*.json")), "the first shard")
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, said = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == code, said
    _, left = psutil.wait_procs(below, timeout=DEADLINE_S)
    assert not left
    assert not (out / "manifest.json").exists()
    half = {
        name
        for name, content in files(out).items()
        if name.startswith(("edges/0", "table/0")) and not name.endswith(".json") and content != large[name]
    }
    assert not half
    if number != signal.SIGKILL:
        assert "goes on where this one was" in said
        assert not list(out.rglob(".*.part"))
    result = generate(request(out, LARGE))
    assert result.num_written < 4  # none where workers, their driver being dead, have ended what they had in hand
    assert files(out) == large


@pytest.mark.slow
def test_an_exchange_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    world = LARGE | {"generator": "power_law", "num_edges": 5 * 2**19}
    process = start(tmp_path / "out", world, "--num_workers", "2")
    wait_for(lambda: list((tmp_path / "out").rglob("chunk-*.npy")), "the first chunk")
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(below, timeout=DEADLINE_S)
    assert not left
    generate(request(tmp_path / "out", world, 2))
    generate(request(tmp_path / "plain", world))
    assert files(tmp_path / "out") == files(tmp_path / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["uniform", "power_law"])
def test_eight_times_the_edges_take_no_more_memory(generator: str, tmp_path: Path) -> None:
    peaks = []
    for num_edges in (2**20, 2**23):
        world = LARGE | {"generator": generator, "num_edges": num_edges, "num_nodes": 10**6}
        process = start(tmp_path / str(num_edges), world, "--num_workers", "0")
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        peaks.append(usage.ru_maxrss / 2**10)
    # In MiB. Seven million edges more are 84 of nodes and 56 of weights.
    assert peaks[1] < peaks[0] + 40, peaks


def test_a_disk_that_refuses_in_the_middle_is_one_line_and_the_run_goes_on_after_room_was_made(
    tmp_path: Path, large: dict[str, bytes]
) -> None:
    limit = (len(large["edges/00000.parquet"]) + len(large["table/00000.npy"])) // 2  # the table is the larger file

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(tmp_path / "out", LARGE, "--num_workers", "0", preexec_fn=little_room)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    (line,) = said.splitlines()
    assert "00000.npy: cannot be written" in line
    assert "make room, and run `hgscale generate` again: it resumes" in line
    left = files(tmp_path / "out")
    assert left["edges/00000.parquet"] == large["edges/00000.parquet"]
    assert left.keys() == {".lock", "edges/00000.parquet"}
    generate(request(tmp_path / "out", LARGE))
    assert files(tmp_path / "out") == large


def test_a_full_disk_keeps_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        plain = tmp_path / "plain"
        generate(request(plain, WORLDS["addressed"]))
        write_one = shards.write_shard

        def write_shard(plan: Any, number: int, *args: Any) -> Any:
            if number == 5:  # somebody else takes what is left of the disk
                fill(mount / "ballast")
            return write_one(plan, number, *args)

        with monkeypatch.context() as patch:
            patch.setattr(shards, "write_shard", write_shard)
            with pytest.raises(RunError, match="No space left on device"):
                generate(request(mount / "out", WORLDS["addressed"]))
        there = files(mount / "out")
        assert sum(name.endswith(".json") for name in there) == 5
        assert not [name for name in there if name.endswith(".part")]
        (mount / "ballast").unlink()
        assert generate(request(mount / "out", WORLDS["addressed"])).num_written == 5
        assert files(mount / "out") == files(plain)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_verify_names_every_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(request(tmp_path / "out", WORLDS["addressed"], samples=SAMPLES))
    verify = ["generate", "--verify", "true", "--out", str(tmp_path / "out")]
    assert main(verify) == 0
    digest = [line for line in capsys.readouterr().out.splitlines() if line.startswith("digest")]
    assert digest
    bad = ("edges/00002.parquet", "table/00004.npy", "samples/00000.parquet")
    for name in bad:
        content = bytearray((tmp_path / "out" / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "out" / name).write_bytes(content)
    assert main(verify) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(name in line for name in bad)
    assert "00003" not in line


def test_on_a_terminal_a_bar_shows_how_many_shards_there_are_to_write(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    fields = [
        "--world.generator",
        "star",
        "--world.num_nodes",
        "50",
        "--num_workers",
        "0",
        "--out",
        str(tmp_path / "out"),
    ]
    command = [sys.executable, "-m", "hgscale", "generate", *fields]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # an error at its end
        while piece := terminal.read(4096):
            shown += piece
    assert process.wait(timeout=DEADLINE_S) == 0
    assert re.search(r"\rshards: +0%\| +\| 0/1 ", shown.decode())


def lose(out: Path, other: Path) -> None:
    (out / "edges/00001.parquet").unlink()


def take_a_shard(out: Path, other: Path) -> None:
    shutil.copy(other / "edges/00001.parquet", out / "edges/00001.parquet")


def take_the_manifest(out: Path, other: Path) -> None:
    shutil.copy(other / "manifest.json", out / "manifest.json")


@pytest.mark.parametrize("load", ["memory", "mapped"])
@pytest.mark.parametrize("spoil", [lose, take_a_shard, take_the_manifest])
def test_a_training_on_shards_that_do_not_belong_together_is_refused_in_one_line_before_it_starts(
    spoil: Callable[[Path, Path], None], load: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("out", "other")):
        generate(request(tmp_path / name, WORLDS["addressed"] | {"seed": seed}))
    spoil(tmp_path / "out", tmp_path / "other")
    capsys.readouterr()
    where = ["--world.path", str(tmp_path / "out"), "--world.load", load, "--run_dir", str(tmp_path / "run")]
    assert main(["pretrain", *where, "--cluster.launcher", "none", "--tracking.enabled", "false"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "edges/00001.parquet" in line
    assert "run `hgscale generate` again" in line
    assert not (tmp_path / "run").exists()


def test_verify_of_no_finished_world_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--verify", "true", "--out", str(tmp_path)]) == 2
    assert "manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "format"),
    [
        ("nary/JF17K-3/train.txt", "facts"),
        ("wd50k/test.txt", "statements"),
        ("benson/contact-high-school", "simplices"),
    ],
)
def test_real_worlds_come_back_as_they_were(path: str, format: str, tmp_path: Path, shared_data: Path) -> None:
    out = tmp_path / "out"
    generate(request(out, {"path": str(shared_data / path), "format": format}, samples=SAMPLES))
    world = io.read(shared_data / path, format=format)
    # Read by pyarrow alone, as another program would.
    tables = [pq.read_table(file) for file in sorted((out / "edges").glob("*.parquet"))]
    edges = [tuple(nodes) for table in tables for nodes in table["nodes"].to_pylist()]
    weights = np.concatenate([table["weight"].to_numpy() for table in tables])
    assert edges == [world.edge(e) for e in range(world.num_edges)]
    assert (weights == world.weights).all()
    samples = pq.read_table(out / "samples" / "00000.parquet")
    assert samples["id"].to_pylist() == list(range(1000))
    drawn = Counter(tuple(sorted(nodes)) for nodes in samples["nodes"].to_pylist())
    assert drawn.keys() <= set(edges)
