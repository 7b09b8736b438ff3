"""What is examined: the machine, the settings of the node on it, and the node itself where one is running."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from antquic_server.config.model import Settings
from antquic_server.config.rules import split_listen_address
from antquic_server.doctor.finding import Finding
from antquic_server.doctor.machine import Machine
from antquic_server.errors import CannotTellError
from antquic_server.supervisor.cpus import UsableCpus, cpu_quota

__all__ = ["MAX_WORKERS", "Case", "Check", "Topic"]

MAX_WORKERS = 64
"""What a node starts at most when the number is left to it."""


class Topic(StrEnum):
    """What a check is about, in the order in which they are shown."""

    SOCKETS = "sockets"
    PROCESSORS = "processors"
    KERNEL = "kernel"
    PYTHON = "python"
    CRYPTOGRAPHY = "cryptography"
    CLOCK = "clock"
    NETWORK = "network"
    PORTS = "ports"
    NODE = "node"
    REACH = "reach"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    One examination.

    ``configuration_error`` says why ``settings`` are the defaults although others were asked for. ``node_key`` is the
    path of the node key. ``node_pid`` is the supervisor that serves one of the listen addresses on this machine, None
    if nobody does. ``status`` is what the admin endpoint answered, at TCP port ``admin_port``, ``status_error`` why it
    did not; ``admin_given`` tells that the user has named it, ``settings_told`` that ``settings`` are from its answer.
    """

    machine: Machine
    settings: Settings = field(default_factory=Settings)
    configuration_error: str | None = None
    node_key: str = ""
    node_pid: int | None = None
    status: Mapping[str, object] | None = None
    status_error: str = ""
    admin_port: int = 0
    admin_given: bool = False
    settings_told: bool = False

    def affinity(self) -> tuple[tuple[int, ...], bool]:
        """
        Return the numbers of the CPUs in the affinity mask, and whether it is the running node's.

        Else it is this process's, as a node that is started from here would have it.
        """
        if self.node_pid is not None:
            try:
                return self.machine.affinity(self.node_pid), True
            except CannotTellError:
                pass
        return self.machine.affinity(), False

    def control_groups(self) -> tuple[list[str], bool]:
        """
        Return the lines of ``/proc/PID/cgroup``, and whether they are the running node's; else this process's.

        No lines where the system has no control groups, or hides them.
        """
        if self.node_pid is not None:
            try:
                return self.machine.read(f"/proc/{self.node_pid}/cgroup").splitlines(), True
            except CannotTellError:
                pass
        try:
            return self.machine.read("/proc/self/cgroup").splitlines(), False
        except CannotTellError:
            return [], False

    def control_group_words(self) -> str:
        """Return what to call the control group, by whose it is."""
        return "the running node's control group" if self.control_groups()[1] else "the control group"

    def cpus(self) -> UsableCpus:
        """Return the CPUs the node may use, by affinity and quota, as it finds them itself."""
        root, pid = self.machine.root, self.node_pid if self.control_groups()[1] else "self"
        quota = cpu_quota(root / "sys/fs/cgroup", root / f"proc/{pid}/cgroup")
        return UsableCpus(numbers=self.affinity()[0], quota=quota)

    def workers(self) -> int:
        """Return how many workers the node has or would have."""
        return self.settings.endpoint.workers or self._running_workers() or min(MAX_WORKERS, self.cpus().count)

    def _running_workers(self) -> int:
        """How many workers the running node has by its own account, 0 if it does not say."""
        count = self._told("workers")
        return count if isinstance(count, int) and 0 < count <= MAX_WORKERS else 0

    def pqc_provider(self) -> str | None:
        """Return the post-quantum provider that the running node says it uses; None if it does not say."""
        name = self._told("pqc_provider")
        return name if isinstance(name, str) else None

    def _told(self, key: str) -> object:
        """What the running node says of itself under ``node``, None if nothing."""
        node = None if self.status is None else self.status.get("node")
        return node.get(key) if isinstance(node, dict) else None

    def listen_ports(self) -> list[int]:
        """Return the UDP ports the node listens on, without duplicates; 0 stands for a free one."""
        addresses = (split_listen_address("settings", "listen", text) for text in self.settings.endpoint.listen)
        return list(dict.fromkeys(port for _, port in addresses))


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """
    One question about the machine.

    ``looks_at`` says what is looked at, ``why`` why it matters, ``effect`` what it costs, measured, with the command;
    empty where nothing was measured. ``examine`` answers; it may raise CannotTellError.
    """

    name: str
    topic: Topic
    looks_at: str
    why: str
    effect: str = ""
    examine: Callable[[Case], Finding]
