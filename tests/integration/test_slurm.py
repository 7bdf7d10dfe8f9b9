"""launch/slurm.sbatch with stand-ins for SLURM's commands, and real Rays in the part of the nodes.

Where this machine allows it (root, and the command ip), each node is a network namespace of its own, with its own
address, ports and loopback, joined by a cable; elsewhere both are on loopback.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
import yaml

BIN = Path(sys.executable).parent
HEAD_IP, OTHER_IP = "10.213.7.1", "10.213.7.2"
SCONTROL = """#!/usr/bin/env bash
[ "$1 $2" = "show hostnames" ] && printf '%s\\n' ${3//,/ }
"""
SRUN = '''#!/usr/bin/env python
"""Stands for srun on one host: the command once per task, signals handed on, the worst exit code at the end."""
import os, re, signal, subprocess, sys

args = sys.argv[1:]
options = {}
while args and args[0].startswith("--"):
    name, _, value = args.pop(0).partition("=")
    options[name] = value
with open(os.environ["STUB_LOG"], "a") as log:
    log.write(repr((options, args)) + "\\n")
node = 0 if "--nodelist" in options else 1
if node and os.environ.get("STUB_LOSES"):
    args = ["sleep", "1000"]  # a node on which nothing starts
hosts = os.environ["STUB_HOSTS"].split()
args = ["ip", "netns", "exec", hosts[node], *args] if hosts else [*args, "--dashboard-agent-listen-port=0"]
environment = os.environ | {"RAY_TMPDIR": os.environ["RAY_TMPDIR"] + "-1" * node}
tasks = [subprocess.Popen(args, env=environment) for _ in range(int(options["--ntasks"]))]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
sys.exit(max(abs(task.wait()) for task in tasks))
'''


class Allocation:
    """A job of SLURM on one host: where the script runs, and what it leaves behind."""

    def __init__(self, repo_root: Path, folder: Path) -> None:
        self.folder, self.job = folder, f"t{uuid.uuid4().hex[:8]}"
        self.hosts = joined_namespaces(self.job)
        bin_dir = folder / "bin"
        bin_dir.mkdir()
        for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
            (bin_dir / name).write_text(text)
            (bin_dir / name).chmod(0o755)
        self.submit_dir = folder / "repository"
        self.submit_dir.mkdir()
        (self.submit_dir / "hgscale").symlink_to(repo_root / "hgscale")
        self.script = repo_root / "launch/slurm.sbatch"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = kept | {
            "PATH": f"{bin_dir}:{BIN}:{os.environ['PATH']}",
            "HGSCALE_HEAD_IP": HEAD_IP if self.hosts else "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "eth0" if self.hosts else "lo",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_JOB_ID": self.job,
            "SLURM_JOB_NODELIST": "node0,node1",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_SUBMIT_DIR": str(self.submit_dir),
            "STUB_HOSTS": " ".join(self.hosts),
            "STUB_LOG": str(folder / "srun.log"),
        }

    def start(self, *args: object, **environment: str) -> subprocess.Popen[str]:
        with (self.folder / "out").open("w") as out:
            there = ["ip", "netns", "exec", self.hosts[0]] if self.hosts else []
            return subprocess.Popen(
                [*there, "bash", str(self.script), *map(str, args)],
                env=self.environment | environment,
                cwd="/",
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return (self.folder / "out").read_text()

    def processes(self) -> list[psutil.Process]:
        """All that the job has started and that is there yet."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_JOB_ID") == self.job and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def nothing_is_left(self) -> None:
        end = time.monotonic() + 20
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.5)
        assert left == [], self.output
        assert list(self.submit_dir.glob(".ray-token*")) == []

    def close(self) -> None:
        for process in self.processes():
            process.kill()
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host], check=False)
        for folder in Path("/tmp").glob(f"hgscale-{self.job}*"):
            shutil.rmtree(folder, ignore_errors=True)


def joined_namespaces(name: str) -> list[str]:
    """Two network namespaces with a cable between them; none where they cannot be made."""
    ip = shutil.which("ip")
    if ip is None or os.geteuid() != 0:
        return []
    hosts = [f"{name}a", f"{name}b"]
    if subprocess.run([ip, "netns", "add", hosts[0]], capture_output=True, check=False).returncode:
        return []
    lines = [f"netns add {hosts[1]}", f"link add eth0 netns {hosts[0]} type veth peer name eth0 netns {hosts[1]}"]
    for host, address in zip(hosts, (HEAD_IP, OTHER_IP), strict=True):
        lines += [
            f"-n {host} addr add {address}/24 dev eth0",
            f"-n {host} link set eth0 up",
            f"-n {host} link set lo up",
        ]
    for line in lines:
        subprocess.run([ip, *line.split()], check=True)
    return hosts


@pytest.fixture
def two_nodes(repo_root: Path, tmp_path: Path):
    allocation = Allocation(repo_root, tmp_path)
    yield allocation
    allocation.close()


def tiny(folder: Path, num_steps: int, num_workers: int = 2) -> list[object]:
    values = {
        "world": {"generator": "star", "num_nodes": 6},
        "samples": {"num_samples": 2000},
        "train": {"num_steps": num_steps, "global_batch": 500, "learning_rate": 0.01, "log_every": 10},
        "model": {"hidden_size": 32, "num_hidden_layers": 1},
        "engine": {"name": "torch"},
        "cluster": {"num_workers": num_workers},
        "tracking": {"enabled": False},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    return ["pretrain", "--config", folder / "tiny.yaml", "--run_dir", folder / "run"]


def test_a_training_on_two_nodes_ends_well_and_leaves_nothing(two_nodes: Allocation, tmp_path: Path) -> None:
    job = two_nodes.start(*tiny(tmp_path, num_steps=60))
    token = two_nodes.submit_dir / f".ray-token-{two_nodes.job}"
    while not (token.exists() and token.stat().st_size):
        assert job.poll() is None, two_nodes.output
        time.sleep(0.05)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    secret = token.read_text().strip()
    assert job.wait(240) == 0, two_nodes.output
    assert "recovery l1" in two_nodes.output
    assert "on 2 Ray workers" in two_nodes.output
    assert (tmp_path / "run/summary.json").exists()
    two_nodes.nothing_is_left()
    head, worker = map(eval, (tmp_path / "srun.log").read_text().splitlines())
    assert "--dashboard-host=127.0.0.1" in head[1]
    assert (head[0]["--nodelist"], worker[0]["--exclude"], worker[0]["--ntasks"]) == ("node0", "node0", "1")
    told = [two_nodes.output, (tmp_path / "srun.log").read_text(), (tmp_path / "run/config.yaml").read_text()]
    assert all(secret not in text for text in told)


@pytest.mark.slow
def test_told_to_end_it_ends_the_run_and_every_process(two_nodes: Allocation, tmp_path: Path) -> None:
    job = two_nodes.start(*tiny(tmp_path, num_steps=10**7))
    end = time.monotonic() + 200
    while "pretrain step=" not in two_nodes.output:
        assert job.poll() is None, two_nodes.output
        assert time.monotonic() < end, two_nodes.output
        time.sleep(0.5)
    job.send_signal(signal.SIGTERM)
    assert job.wait(120) == 130, two_nodes.output
    two_nodes.nothing_is_left()


@pytest.mark.slow
def test_a_refused_config_is_the_jobs_exit_code(two_nodes: Allocation, tmp_path: Path) -> None:
    job = two_nodes.start(*tiny(tmp_path, num_steps=60, num_workers=7))
    assert job.wait(240) == 2, two_nodes.output
    assert "it can be shared by 1, 2, 4, 5," in two_nodes.output
    two_nodes.nothing_is_left()


@pytest.mark.slow
def test_a_node_that_never_joins_ends_the_job_at_the_limit(two_nodes: Allocation, tmp_path: Path) -> None:
    job = two_nodes.start(*tiny(tmp_path, num_steps=60), STUB_LOSES="1", HGSCALE_WAIT_S="25")
    assert job.wait(200) == 1, two_nodes.output
    assert "1 of 2 nodes after 25 s" in two_nodes.output
    two_nodes.nothing_is_left()
    assert not (tmp_path / "run").exists()
