"""The verb ``preflight``: can this machine, or this cluster, run this training? Asked before paying.

Every node is asked the same questions (``cluster.node``), and this process is asked them too: it writes the run
directory and speaks to MLflow. What a training takes is its task's to say (``train.protocol.Costs``).

``--assume 4x8xH200`` asks nobody: the task plans it.
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hgscale import config as configs
from hgscale import verbs
from hgscale.cluster.job import Job
from hgscale.cluster.node import CREDENTIALS, Facts, Question
from hgscale.cluster.nodes import ANSWER_S, Member, Nodes, nodes_of
from hgscale.cluster.workers import OBJECT_STORE_BYTES, ClusterConfig
from hgscale.errors import ConfigError, DataError
from hgscale.plugins import imported
from hgscale.train.deepspeed_json import compiled_parts
from hgscale.train.protocol import Costs, Planned

SKEW_S, MOST_SKEW_S = 1.0, 300.0
"""Clocks that differ by more, beyond what the way there and back may hide: a warning; a failure."""

PROCESS_BYTES = 700 * 2**20
"""Of a worker before it holds a model: Python, torch, DeepSpeed, Ray."""

FEW_FILES = 4096
"""Open files, below which Ray, which holds some for each worker and object, is known to run out."""

KEPT = 3
"""Checkpoints on disk at once: the two that stay, and the one that is being written."""

Status = Literal["ok", "warning", "failed"]
Verdict = tuple[Status, str, str]


@dataclass(frozen=True, kw_only=True)
class PreflightConfig:
    """Check a training against this machine or a cluster, or plan it for one that is not there."""

    address: str | None = None
    """Ray cluster to check, in place of cluster.address."""

    assume: str | None = None
    """Machines to plan for, as 4x8xH200: nodes x GPUs x model (A100, H100, H200, B200, L40S). Nothing is started."""

    utilisation: float = 0.4
    """assume: share of the GPU's peak that matrix products are taken to reach: large ones reach 0.5 to 0.7 of a data
    sheet's number, and share the time with softmax, norms and starts of kernels."""

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"utilisation={self.utilisation} is outside (0, 1]; 0.4 is a good start")
        if self.address is not None and self.assume is not None:
            raise ConfigError(
                f"address={self.address} and assume={self.assume}: a cluster is either there or assumed; give one"
            )


@dataclass(frozen=True)
class Row:
    """One check.

    Attributes:
        name: what was checked.
        status: ok; warning: it will run, and something may surprise; failed: it will not run, or not as asked.
        found: what was seen.
        remedy: what to do about it, "" where it is ok.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class PreflightResult:
    """What was found.

    Attributes:
        rows: of the table; of a plan, whether it fits.
        plan: what a task says of assumed machines, else "".
        seconds: that it took.
    """

    rows: tuple[Row, ...]
    plan: str
    seconds: float

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(row.name for row in self.rows if row.status == "failed")

    def text(self) -> str:
        """What the command prints."""
        lines = [self.plan, ""] if self.plan else []
        width = max(len(row.name) for row in self.rows)
        for row in self.rows:
            lines.append(f"{row.status:<8} {row.name:<{width}}  {row.found}")
            if row.remedy:
                lines.append(f"{'':<8} {'':<{width}}  -> {row.remedy}")
        if not self.plan:
            counts = {status: sum(row.status == status for row in self.rows) for status in ("ok", "warning", "failed")}
            lines.append(", ".join(f"{count} {status}" for status, count in counts.items()) + f", {self.seconds:.1f} s")
        return "\n".join(lines)

    @property
    def exit_code(self) -> int:
        return ConfigError.exit_code if self.failed else 0

    @property
    def note(self) -> str:
        """For standard error."""
        return f"preflight failed: {', '.join(self.failed)}; what to do stands below each" if self.failed else ""


def preflight(options: PreflightConfig, job: Job) -> PreflightResult:
    """Check a training, or plan it.

    Args:
        options: where.
        job: a verb that trains, and its config.

    Raises:
        ConfigError: if no cluster can be joined, or the request itself is wrong.
    """
    started = time.monotonic()
    trained = verbs.trained(job.verb, "verb")
    costs: Costs = imported(trained.costs, "costs")
    run = _Asked(job.verb, job.config, costs)
    if options.assume is not None:
        plan = costs.planned(job.config, options.assume, options.utilisation)
        return PreflightResult((_fit(plan),), plan.text(), time.monotonic() - started)
    if options.address is not None:
        run = replace(
            run,
            config=replace(job.config, cluster=replace(job.config.cluster, launcher="ray", address=options.address)),
        )
    run = replace(run, config=run.config.with_data_dir(None))  # nodes have a working directory of their own
    rows = list(_rows_of_config(run))
    if not any(row.status == "failed" for row in rows):
        with nodes_of(run.cluster) as nodes:
            rows += _rows_of_nodes(run, nodes)
    return PreflightResult(tuple(rows), "", time.monotonic() - started)


@dataclass(frozen=True)
class _Asked:
    """A training that is asked about."""

    verb: str
    config: Any
    costs: Costs

    @property
    def cluster(self) -> ClusterConfig:
        cluster: ClusterConfig = self.config.cluster
        return cluster

    @property
    def run_dir(self) -> Path:
        named = self.config.run_dir or configs.runs_home() / f"{self.verb}-{self.config.fingerprint()}"
        return Path(named).absolute()

    @property
    def files(self) -> tuple[str, ...]:
        """What it reads, files and folders."""
        job = Job(self.verb, self.config)
        named = (text for _, text in job.places("named") if os.path.isabs(text))
        return tuple(dict.fromkeys([*(text for _, text in job.places("reads")), *named]))

    @property
    def fewest(self) -> int:
        """Workers that it starts with at least."""
        sizes: list[int] = self.config.sizes(self.cluster.min_workers, self.cluster.max_workers)
        return sizes[0]


def _fit(plan: Planned) -> Row:
    found = f"{plan.needed_bytes / 2**30:.1f} of {plan.room_bytes / 2**30:.1f} GiB of each GPU"
    if plan.needed_bytes <= plan.room_bytes:
        return Row("fits", "ok", found)
    ways = plan.remedies()
    return Row("fits", "failed", found, "; or ".join(ways) or "a smaller model: no setting here makes it fit")


# What the config says by itself


def _rows_of_config(run: _Asked) -> Iterator[Row]:
    config, fewest, most = run.config, run.cluster.min_workers, run.cluster.max_workers
    try:
        config.check_task()
        config.beside()
        about = f"{config.fingerprint()}, {run.costs.about(config)}"
    except (ConfigError, DataError) as error:
        yield _of_error("config", str(error))
        return
    yield Row("config", "ok", about)
    try:
        sizes = config.sizes(fewest, most)
    except ConfigError as error:
        yield _of_error("batches", str(error))
        return
    shares = ", ".join(
        f"{size} x {config.train.num_micro(size)} x {config.train.global_batch // size // config.train.num_micro(size)}"
        for size in sizes[:4]
    )
    found = f"{config.train.global_batch:,} = workers x micro-batches x samples: {shares}"
    others = [size for size in range(fewest, most + 1) if size not in sizes]
    if others:
        remedy = f"a train.global_batch that is a multiple of {_listed(others)}, if they are to be used"
        yield Row("batches", "warning", f"{found}; not with {_listed(others)} workers", remedy)
    else:
        yield Row("batches", "ok", found)
    if not compiled_parts(config.engine):
        yield Row("compiler", "ok", "not needed: nothing is compiled when the run starts")


# What the nodes say


def _rows_of_nodes(run: _Asked, nodes: Nodes) -> list[Row]:
    cluster = run.cluster
    facts: dict[str, Facts] = nodes.ask("facts", Question(run.files, run.config.tracking, cluster.use_gpu))
    if not nodes.members:
        return [_members_row(nodes)]
    on_nodes = {name: fact for name, fact in facts.items() if name != "driver"} or facts
    rows = [
        _room(run, nodes),
        _memory(run, nodes, on_nodes),
        _over_nodes("threads", on_nodes, lambda fact: _threads(cluster, fact)),
        _versions(facts),
        *_files(run, facts),
        _storage(run, nodes),
        _disk(run),
        _over_nodes("tracking", facts, lambda fact: _tracking(run, fact)),
        _authentication(nodes, facts),
        _credentials(run, facts),
        _clocks(nodes),
        *_compilers(run, on_nodes),
        _over_nodes("locks", on_nodes, lambda fact: _locks(run, fact)),
        _over_nodes("shm", on_nodes, lambda fact: _shm(run, fact)),
        _over_nodes("open files", facts, _open_files),
    ]
    if cluster.use_gpu:
        wanted = 1 if nodes.is_joined else cluster.min_workers  # Ray's own count is in room
        rows.append(_over_nodes("gpu", on_nodes, lambda fact: _gpu(run, fact, wanted)))
    return [_members_row(nodes), *rows]


def _members_row(nodes: Nodes) -> Row:
    if nodes.silent:
        which = "; ".join(f"{name}: {why}" for name, why in nodes.silent.items())
        return Row("nodes", "failed", which, "`ray status`; restart that node, or take it out of the cluster")
    if not nodes.is_joined:
        return Row("nodes", "ok", f"this machine, {nodes.here.cpus:g} CPUs")
    return Row("nodes", "ok", ", ".join(member.name for member in nodes.members))


def _over_nodes(name: str, facts: dict[str, Facts], judge: Callable[[Facts], Verdict]) -> Row:
    """One row for all nodes: the worst verdict, and whose it is unless it is everybody's."""
    return _worst(name, {node: judge(fact) for node, fact in facts.items()})


def _worst(name: str, verdicts: dict[str, Verdict]) -> Row:
    order = ("failed", "warning", "ok")
    worst = min((verdict[0] for verdict in verdicts.values()), key=order.index)
    those = {node: verdict for node, verdict in verdicts.items() if verdict[0] == worst}
    _, found, remedy = next(iter(those.values()))
    if worst != "ok" and len(verdicts) > 1:
        found = f"{', '.join(those)}: {found}"
    return Row(name, worst, found, remedy)


def _room(run: _Asked, nodes: Nodes) -> Row:
    """Whether workers and feeders have a place; a worker does not spread over nodes."""
    cluster = run.cluster
    low, high = cluster.min_workers, cluster.max_workers
    fit = sum(_places(cluster, member, nodes.is_joined) for member in nodes.members)
    kind = "GPUs and CPUs" if cluster.use_gpu else "CPUs"
    found = f"{_span(low, high)} workers; {kind} are there for {fit}"
    if fit < low:
        return Row("room", "failed", found, f"--cluster.num_workers {fit}" if fit else "add nodes")
    left = sum(member.cpus for member in nodes.members) - cluster.cpus_per_worker * low
    feeders = run.config.beside().num_feeders
    if feeders > left:
        return Row(
            "room", "failed", f"{found}, {left:g} are left for {feeders} feeders", f"--feed.num_feeders {left:g}"
        )
    if fit < high:
        return Row("room", "warning", found, "it starts with fewer workers, and takes more when nodes come")
    return Row("room", "ok", found)


def _places(cluster: ClusterConfig, member: Member, is_joined: bool) -> int:
    """Workers that a node can hold."""
    if cluster.launcher == "none":
        return 1
    by_cpu = int(member.cpus // cluster.cpus_per_worker)
    return min(by_cpu, int(member.gpus)) if cluster.use_gpu and is_joined else by_cpu


def _memory(run: _Asked, nodes: Nodes, facts: dict[str, Facts]) -> Row:
    """Model, optimizer and activations of the workers of a node, against what is free there."""
    number = run.fewest
    model = run.costs.worker_bytes(run.config, number)
    if model is None:
        return Row("memory", "warning", "not known of this model", "see mem_gib in the log of a short run")
    verdicts: dict[str, Verdict] = {}
    for member in nodes.members:
        fact = facts.get(member.name)
        if fact is None:
            continue
        here = max(1, min(number, _places(run.cluster, member, nodes.is_joined)))
        if run.cluster.use_gpu:
            free = min(fact.gpus.memory) if fact.gpus and fact.gpus.memory else 0
            needed, words = model, "GiB of a GPU"
        else:
            free, needed, words = fact.memory_bytes, here * (model + PROCESS_BYTES), f"GiB for {here} workers"
        found = f"{needed / 2**30:.1f} of {free / 2**30:.1f} {words}, {run.costs.assumed}"
        if needed <= free:
            verdicts[member.name] = ("ok", found, "")
        elif run.cluster.use_gpu and not free:
            verdicts[member.name] = ("failed", found, "see gpu below")
        else:
            verdicts[member.name] = ("failed", found, run.costs.smaller(run.config, number))
    return _worst("memory", verdicts)


def _threads(cluster: ClusterConfig, fact: Facts) -> Verdict:
    asked = f"{cluster.threads_per_worker} per worker on {cluster.cpus_per_worker:g} CPUs"
    if cluster.threads_per_worker > max(1.0, cluster.cpus_per_worker):
        return "warning", asked, f"--cluster.cpus_per_worker {cluster.threads_per_worker}, or fewer threads"
    omp = fact.omp_threads
    if omp is not None and omp.isdigit() and int(omp) > max(1.0, cluster.cpus_per_worker):
        return "warning", f"{asked}, OMP_NUM_THREADS={omp}", f"OMP_NUM_THREADS={cluster.threads_per_worker}"
    return "ok", asked, ""


def _versions(facts: dict[str, Facts]) -> Row:
    different = []
    for name in sorted({name for fact in facts.values() for name in fact.versions}):
        seen: dict[str, list[str]] = {}
        for node, fact in facts.items():
            seen.setdefault(fact.versions.get(name, "missing"), []).append(node)
        if len(seen) > 1:
            different.append(f"{name} " + ", ".join(f"{version} on {_named(at)}" for version, at in seen.items()))
    if different:
        return Row(
            "versions", "failed", "; ".join(different), "pip install -r docker/requirements.lock, and hgscale, on all"
        )
    mine = next(iter(facts.values())).versions
    found = ", ".join(f"{name} {mine[name]}" for name in ("python", "hgscale", "torch", "deepspeed", "ray"))
    return Row("versions", "ok", found)


def _files(run: _Asked, facts: dict[str, Facts]) -> list[Row]:
    """Whether every node sees the same files that the training reads."""
    if not run.files:
        return []
    complaints = []
    for path in run.files:
        seen: dict[str, list[str]] = {}
        for node, fact in facts.items():
            seen.setdefault(fact.files[path], []).append(node)
        if len(seen) > 1 or next(iter(seen)).startswith("cannot"):
            complaints.append(f"{path}: " + "; ".join(f"{digest} on {_named(at)}" for digest, at in seen.items()))
    if complaints:
        remedy = "put them on storage that all nodes see, and name them there"
        return [Row("files", "failed", "; ".join(complaints), remedy)]
    digests = next(iter(facts.values())).files
    return [Row("files", "ok", "the same everywhere, " + ", ".join(digests[path] for path in run.files))]


def _storage(run: _Asked, nodes: Nodes) -> Row:
    """Every node writes a file beside the run directory, and every other one reads it."""
    run_dir = run.run_dir
    place = _existing(run_dir)
    folder = place / f".preflight-{secrets.token_hex(4)}"
    remedy = "give --run_dir on storage that every node sees and can write"
    try:
        folder.mkdir()
    except OSError as error:
        return Row("storage", "failed", f"{place}: cannot be written ({error.strerror})", remedy)
    try:
        texts = {member.name: secrets.token_hex(16) for member in (nodes.here, *nodes.members)}
        complaints = nodes.ask_each("write", lambda name: (str(folder), name, texts[name]))
        wanted = {name: text for name, text in texts.items() if name in complaints and complaints[name] is None}
        complaints |= {
            name: said for name, said in nodes.ask_each("read", lambda _: (str(folder), wanted)).items() if said
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bad = {name: said for name, said in complaints.items() if said}
    if bad:
        return Row("storage", "failed", "; ".join(f"{name}: {said}" for name, said in bad.items()), remedy)
    who = f"written and read by all {len(nodes.members)} nodes" if nodes.is_joined else "written and read"
    if str(place).startswith(("/tmp", "/dev/shm")) and nodes.is_joined:
        return Row("storage", "warning", f"{run_dir}: {who}, but may go with the machine", remedy)
    return Row("storage", "ok", f"{run_dir}: {who}")


def _existing(path: Path) -> Path:
    """The nearest directory that is there."""
    return next(place for place in (path, *path.parents) if place.is_dir())


def _disk(run: _Asked) -> Row:
    each = run.costs.checkpoint_bytes(run.config)
    if each is None:
        return Row("disk", "warning", "size not known of this model", "see that there is room")
    run_dir = run.run_dir
    there = sum(path.stat().st_size for path in (run_dir / "checkpoints").rglob("*") if path.is_file())
    needed = KEPT * each + each / 3 - there  # and the model itself
    free = shutil.disk_usage(_existing(run_dir)).free
    found = f"{KEPT} checkpoints of {each / 1e9:.3g} GB; {free / 1e9:.3g} GB are free"
    if needed > free:
        return Row("disk", "failed", found, f"free {(needed - free) / 1e9:.3g} GB, or give --run_dir on a larger disk")
    return Row("disk", "ok", found)


def _tracking(run: _Asked, fact: Facts) -> Verdict:
    if not run.config.tracking.enabled:
        return "ok", "off", ""
    if fact.tracking is None:
        return "ok", "MLflow answers", ""
    found, _, remedy = fact.tracking.rpartition("; ")
    return "failed", found, remedy


def _authentication(nodes: Nodes, facts: dict[str, Facts]) -> Row:
    if not nodes.is_joined:
        return Row("token", "ok", "not needed: no Ray is joined")
    without = [name for name, fact in facts.items() if not fact.token_auth]
    if not without:
        return Row("token", "ok", "Ray asks for a token on both ends")
    if nodes.is_local:
        return Row("token", "ok", "none, but Ray listens on this machine alone")
    remedy = "`ray get-auth-token --generate`, and RAY_AUTH_MODE=token on every node and here"
    return Row("token", "warning", f"none on {_named(without)}: who reaches Ray's ports runs code", remedy)


def _credentials(run: _Asked, facts: dict[str, Facts]) -> Row:
    """MLflow's: whether the nodes have those that this process has. Names are shown, values never leave a node."""
    tracking = run.config.tracking
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not tracking.enabled or not uri.startswith("http"):
        return Row("credentials", "ok", "not needed: MLflow is no server")
    mine = [name for name in CREDENTIALS if name in facts["driver"].credentials]
    lacking = [node for node, fact in facts.items() if not set(mine) <= set(fact.credentials)]
    if lacking:
        names = " and ".join(mine)
        remedy = f"set {names} in the environment of `ray start`, or env_vars of the job"
        return Row("credentials", "warning", f"{names} not set on {_named(lacking)}", remedy)
    return Row("credentials", "ok", f"{' and '.join(mine)} set everywhere" if mine else "none set, none asked for")


def _clocks(nodes: Nodes) -> Row:
    if not nodes.is_joined:
        return Row("clocks", "ok", "one machine")
    import ray

    verdicts: dict[str, Verdict] = {}
    for member in nodes.members:
        best = (float("inf"), 0.0)
        for _ in range(3):
            before = time.time()
            try:
                theirs = ray.get(member.call("clock"), timeout=ANSWER_S)
            except Exception as error:  # as in ``ask``
                verdicts[member.name] = ("failed", f"no answer ({type(error).__name__})", "restart that node")
                break
            after = time.time()
            best = min(best, (after - before, theirs - (before + after) / 2))
        else:
            verdicts[member.name] = _skew(*best)
    return _worst("clocks", verdicts)


def _skew(round_trip_s: float, ahead_s: float) -> Verdict:
    """How a node's clock stands to ours; half of the way there and back may be hidden in it."""
    certain = max(0.0, abs(ahead_s) - round_trip_s / 2)
    found = f"{ahead_s:+.3f} s beside the driver's, +-{round_trip_s / 2:.3f}"
    if certain > SKEW_S:
        status: Status = "failed" if certain > MOST_SKEW_S else "warning"
        return status, found, "run chrony or ntpd on that node"
    return "ok", found, ""


def _compilers(run: _Asked, facts: dict[str, Facts]) -> list[Row]:
    parts = compiled_parts(run.config.engine)
    if not parts:
        return []
    needed = " and ".join(parts)

    def judge(fact: Facts) -> Verdict:
        missing = [name for name in ("c++", "ninja") if name not in fact.compilers]
        if missing:
            return "failed", f"no {' and no '.join(missing)} for {needed}", "apt-get install g++ ninja-build"
        return "ok", f"there, for {needed}", ""

    return [_over_nodes("compiler", facts, judge)]


def _locks(run: _Asked, fact: Facts) -> Verdict:
    if not fact.locks:
        return "ok", "no build of an extension was broken off", ""
    status: Status = "failed" if compiled_parts(run.config.engine) else "warning"
    return (
        status,
        f"{len(fact.locks)} left by builds that were killed; the next build waits for ever",
        (f"rm {' '.join(fact.locks[:3])}"),
    )


def _shm(run: _Asked, fact: Facts) -> Verdict:
    if run.cluster.launcher == "none":
        return "ok", "not needed without Ray", ""
    needed = OBJECT_STORE_BYTES + run.config.beside().store_bytes
    free = fact.shm_bytes or 0
    found = f"{free / 2**20:,.0f} MiB free in /dev/shm, {needed / 2**20:,.0f} wanted"
    if free < needed:
        return "warning", found, f"docker run --shm-size={max(1, round(2 * needed / 2**30))}g; Ray is slow on a disk"
    return "ok", found, ""


def _open_files(fact: Facts) -> Verdict:
    if fact.open_files < FEW_FILES:
        return "warning", f"{fact.open_files} a process", "ulimit -n 65536, before Ray starts"
    return "ok", f"{fact.open_files} a process", ""


def _gpu(run: _Asked, fact: Facts, wanted: int) -> Verdict:
    gpus = fact.gpus
    if gpus is None or gpus.complaint is not None:
        return "failed", f"torch cannot be asked: {gpus.complaint if gpus else 'nothing'}", "python -c 'import torch'"
    if not gpus.names:
        return "failed", "torch sees no GPU", "install the driver and a CUDA torch, or --cluster.use_gpu false"
    if len(gpus.names) < wanted:
        return "failed", f"{len(gpus.names)} x {gpus.names[0]}", f"--cluster.num_workers {len(gpus.names)}"
    if not all(gpus.works):
        return "failed", "a GPU does not multiply", "nvidia-smi; restart that node"
    if run.config.engine.precision == "bf16" and min(gpus.capability) < (8, 0):
        return "failed", f"{gpus.names[0]} has no bf16", "--engine.precision fp32"
    if run.cluster.max_workers > 1 and not gpus.nccl:
        return "failed", "torch has no NCCL", "install a CUDA torch for Linux"
    return "ok", f"{len(gpus.names)} x {gpus.names[0]}, NCCL {'there' if gpus.nccl else 'not needed'}", ""


def _of_error(name: str, text: str) -> Row:
    """A row for a refusal, which ends with its repair."""
    found, _, remedy = text.rpartition("; ")
    return Row(name, "failed", found or text, remedy if found else "")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:6])) + (", ..." if len(numbers) > 6 else "")


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"
