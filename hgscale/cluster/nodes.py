"""The nodes of a cluster as they can be asked: an actor pinned to each, an answer within a time limit.

Where a run would start a private Ray, or none, this process is the only node, and no Ray is started.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hgscale.cluster.node import Node
from hgscale.cluster.workers import ClusterConfig, ray_cluster
from hgscale.errors import ConfigError

ANSWER_S = 60.0
"""That a node is given for one answer, the start of its actor included."""

JOIN_S = 5.0
"""That a cluster's port is given to answer."""


@dataclass(frozen=True)
class Member:
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


class Nodes:
    """This process, and the nodes of a cluster if there is one."""

    def __init__(self, here: Member, members: Sequence[Member], is_joined: bool, is_local: bool) -> None:
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

    def ask_each(self, method: str, arguments: Callable[[str], tuple[Any, ...]]) -> dict[str, str | None]:
        """Ask each node, and this process, with arguments of its own.  -> by name a complaint, or None."""
        answers = {self.here.name: self.here.call(method, *arguments(self.here.name))}
        if not self.is_joined:
            return answers
        import ray

        pending = {member.name: member.call(method, *arguments(member.name)) for member in self.members}
        for name, reference in pending.items():
            try:
                answers[name] = ray.get(reference, timeout=ANSWER_S)
            except Exception as error:  # as in ``ask``
                answers[name] = f"no answer ({type(error).__name__})"
        return answers


@contextmanager
def nodes_of(cluster: ClusterConfig) -> Iterator[Nodes]:
    """Those on which a run would be."""
    node = Node()
    here = Member(
        "driver", float(len(os.sched_getaffinity(0))), 0.0, 0.0, lambda method, *rest: getattr(node, method)(*rest)
    )
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if cluster.launcher == "none" or not address:
        yield Nodes(here, [here], is_joined=False, is_local=True)
        return
    _knock(address)
    with ray_cluster(address, cluster.threads_per_worker):
        members, actors = _members()
        try:
            alive = [member for member, _ in members]
            is_local = all(host.startswith("127.") for _, host in members)
            yield Nodes(here, alive, is_joined=True, is_local=is_local)
        finally:
            import ray

            for actor in actors:
                ray.kill(actor)


def _members() -> tuple[list[tuple[Member, str]], list[Any]]:
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
        members.append((Member(name, offers.get("CPU", 0.0), offers.get("GPU", 0.0), size, call), host))
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
