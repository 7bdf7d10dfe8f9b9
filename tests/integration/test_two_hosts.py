"""A training on two hosts that reach each other over a network only: two Rays, each in a network of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ADDRESSES = ("10.77.0.1", "10.77.0.2")
LINK = "hgscale0"
LIMIT_S = 120


@dataclass(frozen=True)
class Host:
    """A network namespace with one address."""

    name: str
    address: str
    folder: Path

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        """A process on this host. gloo is told the link, where it would take what the host's name resolves to."""
        environment = os.environ | {
            "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "GLOO_SOCKET_IFNAME": LINK, "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"), "PYTHONPATH": str(Path(__file__).parents[2]),
        }  # fmt: skip
        with (self.folder / f"{self.name}.txt").open("ab") as output:
            words = ["ip", "netns", "exec", self.name, *command]
            return subprocess.Popen(words, stdout=output, stderr=output, env=environment, start_new_session=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """Two hosts, and a link between them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making networks needs root and iproute2")
    names = [f"hgscale-{os.getpid()}-{side}" for side in "ab"]
    (tmp_path / "token").write_text("0123456789abcdef" * 4)
    (tmp_path / "token").chmod(0o600)

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    made: list[str] = []
    try:
        for name in names:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no networks can be made here: {error.stderr.decode().strip()}")
            made.append(name)
        ip("link", "add", LINK, "netns", names[0], "type", "veth", "peer", "name", LINK, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", LINK)
            ip("-n", name, "link", "set", LINK, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [Host(name, address, tmp_path) for name, address in zip(names, ADDRESSES, strict=True)]
    finally:
        for name in made:
            ip("netns", "del", name)


@pytest.fixture
def cluster(hosts: list[Host], tmp_path: Path) -> Iterator[str]:
    """A head on one host and a worker node on the other, with one CPU each."""
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", "--num-cpus=1"]
    ray += ["--object-store-memory=100000000"]
    head, other = hosts
    address = f"{head.address}:6379"
    temp = Path("/tmp") / f"hgscale-{os.getpid()}"  # Ray's sockets want a short path
    first = ["--head", "--port=6379", f"--node-ip-address={head.address}", "--include-dashboard=false"]
    second = [f"--address={address}", f"--node-ip-address={other.address}"]
    processes = [head.start(*ray, *first, f"--temp-dir={temp}")]
    try:
        wait_for(head, address, 1)
        processes.append(other.start(*ray, *second))
        wait_for(head, address, 2)
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(temp, ignore_errors=True)


def wait_for(host: Host, address: str, num_nodes: int) -> None:
    """Ask Ray until so many nodes are there."""
    question = (
        f"import ray; ray.init(address={address!r}, log_to_driver=False, logging_level='ERROR'); "
        f"raise SystemExit(sum(node['Alive'] for node in ray.nodes()) != {num_nodes})"
    )
    until = time.monotonic() + LIMIT_S
    while host.start(sys.executable, "-c", question).wait() != 0:
        assert time.monotonic() < until, "".join(path.read_text() for path in host.folder.glob("*.txt"))
        time.sleep(0.5)


@pytest.mark.slow
def test_two_hosts_train_together_and_the_ids_are_those_of_one(hosts: list[Host], cluster: str, tmp_path: Path) -> None:
    options = {
        "world.generator": "star", "world.num_nodes": 6, "samples.num_samples": 2000, "train.num_steps": 60,
        "train.global_batch": 480, "train.log_every": 10, "model.hidden_size": 32, "tracking.enabled": "false",
        "cluster.address": cluster, "cluster.num_workers": 2,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "hgscale", "pretrain", *words]
    process = hosts[0].start(*command, f"--run_dir={tmp_path / 'two'}")
    assert process.wait(LIMIT_S) == 0, (tmp_path / f"{hosts[0].name}.txt").read_text()
    alone = [*command, f"--run_dir={tmp_path / 'one'}", "--cluster.num_workers=1", "--cluster.launcher=none"]
    assert subprocess.run(alone, capture_output=True).returncode == 0
    (attempt,) = [json.loads(line) for line in (tmp_path / "two/attempts.jsonl").read_text().splitlines()]
    assert len(attempt["workers"]) == 2
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("two", "one")]
    histories = [[(json.loads(line)["step"], json.loads(line)["ids_hash"]) for line in log] for log in logs]
    assert histories[0] == histories[1]
