"""
Where ``bench relay`` runs: sender, relay and receiver in network namespaces of their own, or all on loopback.

::

    sender 198.18.1.2 ──veth── 198.18.1.1 relay 198.18.2.1 ──veth── 198.18.2.2 receiver

No forwarding, no other way around: what arrives has been through the relay. 198.18.0.0/15 is set aside for benchmarks
(RFC 2544). Making namespaces needs root; without it everybody is 127.0.0.1.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Final, NoReturn, TypeVar

from antquic_server.errors import UsageError
from antquic_server.natlab.namespaces import (
    LabUnavailableError,
    NamespaceName,
    Tools,
    find_tools,
    in_namespace,
    new_run_number,
    own_run,
    remove,
    run_tool,
    write_sysctls,
)

__all__ = ["PLACES", "RECEIVER", "RELAY", "SENDER", "Place", "open_place"]

SENDER: Final = "sender"
RELAY: Final = "relay"
RECEIVER: Final = "receiver"
PLACES: Final = ("auto", "namespaces", "loopback")

_BUFFER_BYTES: Final = 8 << 20
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_NO_LIMIT_SEGMENTS: Final = 65535
_SYSCTLS: Final = {
    "ipv4/ip_forward": 0,
    "ipv6/conf/all/disable_ipv6": 1,
    "ipv6/conf/default/disable_ipv6": 1,
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    Addresses of the three, and how to act as each of them.

    ``front`` is the relay as the sender sees it, ``back`` as the receiver does. ``names`` is empty on loopback.
    """

    sender: str = "127.0.0.1"
    front: str = "127.0.0.1"
    back: str = "127.0.0.1"
    receiver: str = "127.0.0.1"
    names: dict[str, NamespaceName] = field(default_factory=dict)
    tools: Tools | None = None

    @property
    def description(self) -> str:
        """Words for the report."""
        return "network namespaces joined by veth" if self.names else "loopback"

    @property
    def relay_listen(self) -> str:
        """Address for a server that both sides have to reach."""
        return "0.0.0.0" if self.names else self.front  # noqa: S104 - of a namespace that nobody else can reach

    def command(self, role: str, command: Sequence[str]) -> list[str]:
        """Return the command that runs ``command`` where ``role`` is, in the same process."""
        if self.tools is None:
            return list(command)
        return [self.tools.ip, "netns", "exec", str(self.names[role]), *command]

    def call(self, role: str, action: Callable[[], _T]) -> _T:
        """Call ``action`` where ``role`` is; sockets it makes stay there."""
        return in_namespace(self.names[role], action) if self.names else action()

    def udp(self, role: str) -> socket.socket:
        """Open a non-blocking UDP socket with large buffers, bound to the address of ``role``."""
        host = {SENDER: self.sender, RELAY: self.front, RECEIVER: self.receiver}[role]
        return self.call(role, lambda: _udp(host))

    @property
    def server(self) -> "ServerPlace":
        """The relay's place, for a node or a stock server."""
        return ServerPlace(place=self)

    def free_port(self) -> int:
        """Return a UDP port that is free at both addresses of the relay, for servers that cannot choose one."""

        def probe() -> int:
            with _udp(self.relay_listen) as sock:
                port: int = sock.getsockname()[1]
                return port

        return self.call(RELAY, probe)

    def cut_trains(self, *, on: bool) -> None:
        """
        Have the kernel cut trains as they leave the relay, at the relay's cost, instead of passing them on whole.

        That is what a network card without segmentation offload for UDP makes of them. On loopback it cannot be had.
        """
        if self.tools is not None:
            limit = 1 if on else _NO_LIMIT_SEGMENTS
            self._ip(RELAY, f"link set back gso_max_segs {limit}\n")

    def _ip(self, role: str | None, script: str) -> None:
        if self.tools is not None:
            inside = [] if role is None else ["-n", str(self.names[role])]
            run_tool([self.tools.ip, *inside, "-batch", "-"], stdin=script)

    def build(self) -> None:
        """Make the namespaces and join them."""
        self._ip(None, "".join(f"netns add {name}\n" for name in self.names.values()))
        for name in self.names.values():
            write_sysctls(name, _SYSCTLS)
        relay = self.names[RELAY]
        self._ip(
            None,
            f"link add front netns {relay} type veth peer name eth0 netns {self.names[SENDER]}\n"
            f"link add back netns {relay} type veth peer name eth0 netns {self.names[RECEIVER]}\n",
        )
        self._ip(
            RELAY,
            f"link set lo up\naddr add {self.front}/24 dev front\naddr add {self.back}/24 dev back\n"
            "link set front up\nlink set back up\n",
        )
        for role, host, gateway in ((SENDER, self.sender, self.front), (RECEIVER, self.receiver, self.back)):
            self._ip(
                role,
                f"link set lo up\naddr add {host}/24 dev eth0\nlink set eth0 up\nroute add default via {gateway}\n",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlace:
    """Where the relay is, as ``node_process`` wants to know it."""

    place: Place

    @property
    def listen(self) -> str:
        """Address for the server's socket."""
        return self.place.relay_listen

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs ``command`` there, in the same process."""
        return self.place.command(RELAY, command)

    def call(self, action: Callable[[], _T]) -> _T:
        """Call ``action`` there."""
        return self.place.call(RELAY, action)


@contextmanager
def open_place(kind: str) -> Iterator[Place]:
    """
    Open the place named by ``kind``: ``namespaces``, ``loopback``, or ``auto`` for the first where it can be had.

    Raises:
        UsageError: There is no such kind.
        LabUnavailableError: Namespaces were asked for and cannot be made here.
    """
    if kind not in PLACES:
        raise UsageError(f"bench: place = {kind!r}: expected one of {', '.join(PLACES)}")
    tools = None if kind == "loopback" else _tools(required=kind == "namespaces")
    if tools is None:
        yield Place()
        return
    pid, started_ticks = own_run()
    number = new_run_number()
    names = {
        role: NamespaceName(pid=pid, started_ticks=started_ticks, number=number, role=role)
        for role in (SENDER, RELAY, RECEIVER)
    }
    place = Place(
        sender="198.18.1.2",
        front="198.18.1.1",
        back="198.18.2.1",
        receiver="198.18.2.2",
        names=names,
        tools=tools,
    )
    with _ending_signals_unwind():
        try:
            place.build()
            yield place
        finally:
            remove(list(names.values()), tools)


def _tools(*, required: bool) -> Tools | None:
    try:
        return find_tools()
    except LabUnavailableError:
        if required:
            raise
        return None


def _udp(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for plain, forced in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
        except OSError:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)
    sock.bind((host, 0))
    return sock


@contextmanager
def _ending_signals_unwind() -> Iterator[None]:
    """SIGTERM and SIGHUP leave every ``with`` block in order, as SIGINT does by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unwind(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def cpus_for_load() -> list[int]:
    """CPUs that the relay is not pinned to: all but the first; empty where there is only one, or no telling."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[1:]


def pin_relay(pid: int) -> None:
    """Pin a relay with all its threads to the first CPU, where a node pins its first worker."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cpu = min(os.sched_getaffinity(0))
    for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - numbers, not paths
        os.sched_setaffinity(int(thread), {cpu})
