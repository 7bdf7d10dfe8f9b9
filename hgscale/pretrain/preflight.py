"""The verb ``preflight``: can this machine, or this cluster, run this config? Asked before paying.

Every node is asked the same questions (``cluster.node``) by an actor pinned to it, within a time limit, and this
process is asked them too: it writes the run directory and speaks to MLflow. Where pretrain would start a private Ray,
or none, this process is the only node, and no Ray is started: what a private Ray could add is known without it.

``--assume 4x8xH200`` asks nobody: see ``pretrain.cost``.
"""

import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from hgscale import config as configs
from hgscale.cluster.node import CREDENTIALS, Facts, Node, Question
from hgscale.cluster.workers import OBJECT_STORE_BYTES, ClusterConfig, ray_cluster
from hgscale.errors import ConfigError, DataError
from hgscale.pretrain import cost as planning
from hgscale.pretrain.run import PretrainConfig
from hgscale.train.deepspeed_json import compiled_parts

ANSWER_S = 60.0
"""That a node is given for one answer, the start of its actor included."""

JOIN_S = 5.0
"""That a cluster's port is given to answer."""

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
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PreflightConfig(PretrainConfig):
    """Check a pre-training against this machine or a cluster, or plan it for one that is not there."""

    address: str | None = None
    """Ray cluster to check, in place of cluster.address."""

    assume: str | None = None
    """Machines to plan for, as 4x8xH200: nodes x GPUs x model (A100, H100, H200, B200, L40S). Nothing is started."""

    utilisation: float = planning.UTILISATION
    """assume: share of the GPU's peak that matrix products are taken to reach."""

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
        plan: of assumed machines, else None.
        seconds: that it took.
    """

    rows: tuple[Row, ...]
    plan: planning.Plan | None
    seconds: float

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(row.name for row in self.rows if row.status == "failed")

    def text(self) -> str:
        """What the command prints."""
        lines = [] if self.plan is None else [self.plan.text(), ""]
        width = max(len(row.name) for row in self.rows)
        for row in self.rows:
            lines.append(f"{row.status:<8} {row.name:<{width}}  {row.found}")
            if row.remedy:
                lines.append(f"{'':<8} {'':<{width}}  -> {row.remedy}")
        if self.plan is None:
            counts = {status: sum(row.status == status for row in self.rows) for status in ("ok", "warning", "failed")}
            lines.append(", ".join(f"{count} {status}" for status, count in counts.items()) + f", {self.seconds:.1f} s")
        return "\n".join(lines)


def preflight(config: PreflightConfig) -> PreflightResult:
    """Check a config, or plan it.

    Raises:
        ConfigError: if no cluster can be joined, or the request itself is wrong.
    """
    started = time.monotonic()
    if config.assume is not None:
        machines = planning.Machines.parse(config.assume)
        plan = planning.plan(config, machines, config.utilisation)
        return PreflightResult((_fit(config, plan),), plan, time.monotonic() - started)
    if config.address is not None:
        config = replace(config, cluster=replace(config.cluster, launcher="ray", address=config.address))
    config = config.with_data_dir(None)  # nodes have a working directory of their own
    rows = list(_rows_of_config(config))
    if not any(row.status == "failed" for row in rows):
        with _nodes(config.cluster) as nodes:
            rows += _rows_of_nodes(config, nodes)
    return PreflightResult(tuple(rows), None, time.monotonic() - started)


def _fit(config: PreflightConfig, plan: planning.Plan) -> Row:
    needed, room = plan.memory.total / 2**30, plan.room / 2**30
    found = f"{needed:.1f} of {room:.1f} GiB of each GPU"
    if plan.fits:
        return Row("fits", "ok", found)
    ways = planning.remedies(config, plan.machines)
    return Row("fits", "failed", found, "; or ".join(ways) or "a smaller model: no setting here makes it fit")


# What the config says by itself


def _rows_of_config(config: PreflightConfig) -> Iterator[Row]:
    fewest, most = config.cluster.min_workers, config.cluster.max_workers
    try:
        config.check_task()
        world = config.target_world
    except (ConfigError, DataError) as error:
        yield _of_error("config", str(error))
        return
    if config.feed.num_feeders and config.cluster.launcher == "none":
        yield Row("config", "failed", "feed.num_feeders without Ray", "--feed.num_feeders 0, or --cluster.launcher ray")
        return
    yield Row("config", "ok", f"{config.fingerprint()}, {world.num_edges:,} edges over {world.num_nodes:,} nodes")
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


@dataclass(frozen=True)
class _Member:
    """A node that can be asked.

    Attributes:
        name: its host and address.
        cpus, gpus, store_bytes: that it offers to Ray.
        call: (method, arguments) -> a way to wait for the answer.
    """

    name: str
    cpus: float
    gpus: float
    store_bytes: float
    call: Callable[..., Any]


class _Nodes:
    """This process, and the nodes of a cluster if there is one."""

    def __init__(self, here: _Member, members: Sequence[_Member], is_joined: bool, is_local: bool) -> None:
        self.here, self.members, self.is_joined, self.is_local = here, list(members), is_joined, is_local
        self.silent: dict[str, str] = {}

    def ask(self, method: str, *arguments: Any) -> dict[str, Any]:
        """The answers by name of node; one that gives none within the time limit is asked no more."""
        answers = {self.here.name: self.here.call(method, *arguments)}
        if not self.is_joined:
            return answers
        import ray

        pending = {member.call(method, *arguments): member for member in self.members}
        deadline = time.monotonic() + ANSWER_S
        for reference, member in pending.items():
            try:
                answers[member.name] = ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
            except Exception as error:  # whatever Ray makes of a node that is lost, full, or without hgscale
                lines = [line for line in str(error).splitlines() if line.strip()]
                slow = isinstance(error, ray.exceptions.GetTimeoutError)
                self.silent[member.name] = f"no answer in {ANSWER_S:g} s" if slow else lines[-1].strip()
        self.members = [member for member in self.members if member.name not in self.silent]
        return answers


@contextmanager
def _nodes(cluster: ClusterConfig) -> Iterator[_Nodes]:
    """Those on which a run would be."""
    node = Node()
    here = _Member(
        "driver", float(len(os.sched_getaffinity(0))), 0.0, 0.0, lambda method, *rest: getattr(node, method)(*rest)
    )
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if cluster.launcher == "none" or not address:
        yield _Nodes(here, [here], is_joined=False, is_local=True)
        return
    _knock(address)
    with ray_cluster(address, cluster.threads_per_worker):
        members, actors = _members()
        try:
            alive = [member for member, _ in members]
            is_local = all(host.startswith("127.") for _, host in members)
            yield _Nodes(here, alive, is_joined=True, is_local=is_local)
        finally:
            import ray

            for actor in actors:
                ray.kill(actor)


def _members() -> tuple[list[tuple[_Member, str]], list[Any]]:
    """An actor on every node that is alive: (member, address) of each, and the actors."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    members, actors = [], []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        pinned = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        actor = ray.remote(num_cpus=0, scheduling_strategy=pinned)(Node).remote()
        actors.append(actor)

        def call(method: str, *arguments: Any, actor: Any = actor) -> Any:
            return getattr(actor, method).remote(*arguments)

        offers, host = node["Resources"], node["NodeManagerAddress"]
        name = f"{node['NodeManagerHostname']} ({host}, {node['NodeID'][:6]})"
        size = offers.get("object_store_memory", 0.0)
        members.append((_Member(name, offers.get("CPU", 0.0), offers.get("GPU", 0.0), size, call), host))
    return members, actors


def _knock(address: str) -> None:
    """Refuse an address where no Ray answers: Ray itself tries for minutes, and then ends this process.

    Raises:
        ConfigError: naming the address.
    """
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"address={address} is of a job server; `hgscale submit --address {address}` checks there before it runs"
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdigit():
        raise ConfigError(f'address={address}: not an address of Ray; give "auto", "host:6379" or "ray://host:10001"')
    try:
        with socket.create_connection((host, int(port)), timeout=JOIN_S):
            pass
    except OSError as error:
        raise ConfigError(
            f"address={address}: nothing answers there ({error.strerror or error}); start Ray on that host, or see "
            "that its port can be reached from here"
        ) from None
    if os.environ.get("RAY_USE_TLS") != "1":
        _greet(address, f"{host}:{port}")


def _greet(address: str, target: str) -> None:
    """See that what listens speaks gRPC, as Ray does."""
    import grpc

    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=JOIN_S)
        except grpc.FutureTimeoutError:
            raise ConfigError(
                f"address={address}: what listens there is no Ray; give the port of its head, 6379 (ray://: 10001)"
            ) from None


def _rows_of_nodes(config: PreflightConfig, nodes: _Nodes) -> list[Row]:
    question = Question(config.world.path, config.tracking, config.cluster.use_gpu)
    facts: dict[str, Facts] = nodes.ask("facts", question)
    if not nodes.members:
        return [_members_row(nodes)]
    on_nodes = {name: fact for name, fact in facts.items() if name != "driver"} or facts
    rows = [
        _room(config, nodes),
        _memory(config, nodes, on_nodes),
        _over_nodes("threads", on_nodes, lambda fact: _threads(config.cluster, fact)),
        _versions(facts),
        _storage(config, nodes),
        _disk(config),
        _over_nodes("tracking", facts, lambda fact: _tracking(config, fact)),
        _authentication(nodes, facts),
        _credentials(config, facts),
        _clocks(nodes),
        *_compilers(config, on_nodes),
        _over_nodes("locks", on_nodes, lambda fact: _locks(config, fact)),
        _over_nodes("shm", on_nodes, lambda fact: _shm(config, fact)),
        _over_nodes("open files", facts, _open_files),
    ]
    if config.world.path is not None:
        rows.insert(4, _world(facts))
    if config.cluster.use_gpu:
        wanted = 1 if nodes.is_joined else config.cluster.min_workers  # Ray's own count is in room
        rows.append(_over_nodes("gpu", on_nodes, lambda fact: _gpu(config, fact, wanted)))
    return [_members_row(nodes), *rows]


def _members_row(nodes: _Nodes) -> Row:
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


def _room(config: PreflightConfig, nodes: _Nodes) -> Row:
    """Whether workers and feeders have a place; a worker does not spread over nodes."""
    cluster = config.cluster
    low, high = cluster.min_workers, cluster.max_workers
    fit = sum(_places(cluster, member, nodes.is_joined) for member in nodes.members)
    kind = "GPUs and CPUs" if cluster.use_gpu else "CPUs"
    found = f"{_span(low, high)} workers; {kind} are there for {fit}"
    if fit < low:
        return Row("room", "failed", found, f"--cluster.num_workers {fit}" if fit else "add nodes")
    left = sum(member.cpus for member in nodes.members) - cluster.cpus_per_worker * low
    feeders = config.feed.num_feeders
    if feeders > left:
        return Row(
            "room", "failed", f"{found}, {left:g} are left for {feeders} feeders", f"--feed.num_feeders {left:g}"
        )
    if fit < high:
        return Row("room", "warning", found, "it starts with fewer workers, and takes more when nodes come")
    return Row("room", "ok", found)


def _places(cluster: ClusterConfig, member: _Member, is_joined: bool) -> int:
    """Workers that a node can hold."""
    if cluster.launcher == "none":
        return 1
    by_cpu = int(member.cpus // cluster.cpus_per_worker)
    return min(by_cpu, int(member.gpus)) if cluster.use_gpu and is_joined else by_cpu


def _memory(config: PreflightConfig, nodes: _Nodes, facts: dict[str, Facts]) -> Row:
    """Model, optimizer and activations of the workers of a node, against what is free there."""
    number = config.sizes(config.cluster.min_workers, config.cluster.max_workers)[0]
    if not config.model.kind().planned:
        return Row("memory", "warning", f"not known of {config.model.name}", "see mem_gib in the log of a short run")
    num_micro = config.train.num_micro(number)
    micro_batch = config.train.global_batch // (num_micro * number)
    shape = planning.Shape.of(config.model, config.target_world)
    batch = planning.Batch.worst(shape, config.objective, micro_batch)
    model = planning.memory(shape, batch, config.engine, number).total
    verdicts: dict[str, Verdict] = {}
    for member in nodes.members:
        fact = facts.get(member.name)
        if fact is None:
            continue
        here = max(1, min(number, _places(config.cluster, member, nodes.is_joined)))
        if config.cluster.use_gpu:
            free = min(fact.gpus.memory) if fact.gpus and fact.gpus.memory else 0
            needed, words = model, "GiB of a GPU"
        else:
            free, needed, words = fact.memory_bytes, here * (model + PROCESS_BYTES), f"GiB for {here} workers"
        found = f"{needed / 2**30:.1f} of {free / 2**30:.1f} {words}, if no samples share a context"
        if needed <= free:
            verdicts[member.name] = ("ok", found, "")
        elif config.cluster.use_gpu and not free:
            verdicts[member.name] = ("failed", found, "see gpu below")
        else:
            smaller = f"--train.micro_batch {max(1, micro_batch // 2)}"
            more = "" if config.engine.zero_stage == 3 else f", or --engine.zero_stage {config.engine.zero_stage + 1}"
            verdicts[member.name] = ("failed", found, f"{smaller}{more}, or --model.activation_checkpointing true")
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


def _world(facts: dict[str, Facts]) -> Row:
    seen: dict[str, list[str]] = {}
    for node, fact in facts.items():
        seen.setdefault(str(fact.world), []).append(node)
    if len(seen) == 1 and not next(iter(seen)).startswith("cannot"):
        return Row("world", "ok", f"the same file everywhere, {next(iter(seen))}")
    found = "; ".join(f"{digest} on {_named(at)}" for digest, at in seen.items())
    return Row("world", "failed", found, "put the file on storage that all nodes see, and name it in world.path")


def _storage(config: PreflightConfig, nodes: _Nodes) -> Row:
    """Every node writes a file beside the run directory, and every other one reads it."""
    run_dir = _run_dir(config)
    place = _existing(run_dir)
    folder = place / f".preflight-{secrets.token_hex(4)}"
    remedy = "give --run_dir on storage that every node sees and can write"
    try:
        folder.mkdir()
    except OSError as error:
        return Row("storage", "failed", f"{place}: cannot be written ({error.strerror})", remedy)
    try:
        texts = {member.name: secrets.token_hex(16) for member in (nodes.here, *nodes.members)}
        complaints = _each(nodes, "write", lambda name: (str(folder), name, texts[name]))
        wanted = {name: text for name, text in texts.items() if name in complaints and complaints[name] is None}
        complaints |= {
            name: said for name, said in _each(nodes, "read", lambda _: (str(folder), wanted)).items() if said
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


def _each(nodes: _Nodes, method: str, arguments: Callable[[str], tuple[Any, ...]]) -> dict[str, str | None]:
    """Ask each node with arguments of its own, and this process."""
    answers = {nodes.here.name: nodes.here.call(method, *arguments(nodes.here.name))}
    if not nodes.is_joined:
        return answers
    import ray

    pending = {member.name: member.call(method, *arguments(member.name)) for member in nodes.members}
    for name, reference in pending.items():
        try:
            answers[name] = ray.get(reference, timeout=ANSWER_S)
        except Exception as error:  # as in ``ask``
            answers[name] = f"no answer ({type(error).__name__})"
    return answers


def _run_dir(config: PreflightConfig) -> Path:
    named = Path(config.run_dir) if config.run_dir else configs.runs_home() / f"pretrain-{config.fingerprint()}"
    return named.absolute()


def _existing(path: Path) -> Path:
    """The nearest directory that is there."""
    return next(place for place in (path, *path.parents) if place.is_dir())


def _disk(config: PreflightConfig) -> Row:
    if not config.model.kind().planned:
        return Row("disk", "warning", f"size not known of {config.model.name}", "see that there is room")
    run_dir = _run_dir(config)
    shape = planning.Shape.of(config.model, config.target_world)
    each = planning.checkpoint_bytes(shape.num_parameters, config.engine)
    there = sum(path.stat().st_size for path in (run_dir / "checkpoints").rglob("*") if path.is_file())
    needed = KEPT * each + 4 * shape.num_parameters - there
    free = shutil.disk_usage(_existing(run_dir)).free
    found = f"{KEPT} checkpoints of {each / 1e9:.3g} GB; {free / 1e9:.3g} GB are free"
    if needed > free:
        return Row("disk", "failed", found, f"free {(needed - free) / 1e9:.3g} GB, or give --run_dir on a larger disk")
    return Row("disk", "ok", found)


def _tracking(config: PreflightConfig, fact: Facts) -> Verdict:
    if not config.tracking.enabled:
        return "ok", "off", ""
    if fact.tracking is None:
        return "ok", "MLflow answers", ""
    found, _, remedy = fact.tracking.rpartition("; ")
    return "failed", found, remedy


def _authentication(nodes: _Nodes, facts: dict[str, Facts]) -> Row:
    if not nodes.is_joined:
        return Row("token", "ok", "not needed: no Ray is joined")
    without = [name for name, fact in facts.items() if not fact.token_auth]
    if not without:
        return Row("token", "ok", "Ray asks for a token on both ends")
    if nodes.is_local:
        return Row("token", "ok", "none, but Ray listens on this machine alone")
    remedy = "`ray get-auth-token --generate`, and RAY_AUTH_MODE=token on every node and here"
    return Row("token", "warning", f"none on {_named(without)}: who reaches Ray's ports runs code", remedy)


def _credentials(config: PreflightConfig, facts: dict[str, Facts]) -> Row:
    """MLflow's: whether the nodes have those that this process has. Names are shown, values never leave a node."""
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not config.tracking.enabled or not uri.startswith("http"):
        return Row("credentials", "ok", "not needed: MLflow is no server")
    mine = [name for name in CREDENTIALS if name in facts["driver"].credentials]
    lacking = [node for node, fact in facts.items() if not set(mine) <= set(fact.credentials)]
    if lacking:
        names = " and ".join(mine)
        remedy = f"set {names} in the environment of `ray start`, or env_vars of the job"
        return Row("credentials", "warning", f"{names} not set on {_named(lacking)}", remedy)
    return Row("credentials", "ok", f"{' and '.join(mine)} set everywhere" if mine else "none set, none asked for")


def _clocks(nodes: _Nodes) -> Row:
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


def _compilers(config: PreflightConfig, facts: dict[str, Facts]) -> list[Row]:
    parts = compiled_parts(config.engine)
    if not parts:
        return []
    needed = " and ".join(parts)

    def judge(fact: Facts) -> Verdict:
        missing = [name for name in ("c++", "ninja") if name not in fact.compilers]
        if missing:
            return "failed", f"no {' and no '.join(missing)} for {needed}", "apt-get install g++ ninja-build"
        return "ok", f"there, for {needed}", ""

    return [_over_nodes("compiler", facts, judge)]


def _locks(config: PreflightConfig, fact: Facts) -> Verdict:
    if not fact.locks:
        return "ok", "no build of an extension was broken off", ""
    status: Status = "failed" if compiled_parts(config.engine) else "warning"
    return (
        status,
        f"{len(fact.locks)} left by builds that were killed; the next build waits for ever",
        (f"rm {' '.join(fact.locks[:3])}"),
    )


def _shm(config: PreflightConfig, fact: Facts) -> Verdict:
    if config.cluster.launcher == "none":
        return "ok", "not needed without Ray", ""
    high = config.cluster.max_workers
    needed = OBJECT_STORE_BYTES + (2 * config.feed.buffer_bytes * high if config.feed.num_feeders else 0)
    free = fact.shm_bytes or 0
    found = f"{free / 2**20:,.0f} MiB free in /dev/shm, {needed / 2**20:,.0f} wanted"
    if free < needed:
        return "warning", found, f"docker run --shm-size={max(1, round(2 * needed / 2**30))}g; Ray is slow on a disk"
    return "ok", found, ""


def _open_files(fact: Facts) -> Verdict:
    if fact.open_files < FEW_FILES:
        return "warning", f"{fact.open_files} a process", "ulimit -n 65536, before Ray starts"
    return "ok", f"{fact.open_files} a process", ""


def _gpu(config: PreflightConfig, fact: Facts, wanted: int) -> Verdict:
    gpus = fact.gpus
    if gpus is None or gpus.complaint is not None:
        return "failed", f"torch cannot be asked: {gpus.complaint if gpus else 'nothing'}", "python -c 'import torch'"
    if not gpus.names:
        return "failed", "torch sees no GPU", "install the driver and a CUDA torch, or --cluster.use_gpu false"
    if len(gpus.names) < wanted:
        return "failed", f"{len(gpus.names)} x {gpus.names[0]}", f"--cluster.num_workers {len(gpus.names)}"
    if not all(gpus.works):
        return "failed", "a GPU does not multiply", "nvidia-smi; restart that node"
    if config.engine.precision == "bf16" and min(gpus.capability) < (8, 0):
        return "failed", f"{gpus.names[0]} has no bf16", "--engine.precision fp32"
    if config.cluster.max_workers > 1 and not gpus.nccl:
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
