"""
What two of the settings are worth, measured on loopback without changing any.

Socket buffers: a burst is sent to a socket that nobody reads, as that of a slot is while its worker is
replaced, and what the kernel has kept is counted. Ports: sockets ask for any port, and those that get one of
the relay's default range are counted. Both are bounded: 24 MB pass, 4000 sockets are opened 200 at a time.
"""

import json
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Final

from antquic_server.config.model import RelaySettings

__all__ = ["Effects", "Kept", "measure_effects", "render_effects", "render_effects_json"]

BURST_DATAGRAMS: Final = 20_000
DATAGRAM_BYTES: Final = 1200
PORT_SOCKETS: Final = 4000
_SOCKETS_AT_ONCE: Final = 200

STOCK_BYTES: Final = 212_992
NODE_BYTES: Final = 8 << 20
GUIDE_BYTES: Final = 26_214_400

_SO_RCVBUFFORCE: Final = 33  # <asm-generic/socket.h>; Python names it from 3.13 on


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """
    One socket and the burst.

    ``asked_bytes`` is what SO_RCVBUF asked for, 0 for nothing, ``granted_bytes`` what the kernel says the socket
    has, which on Linux is twice the size it was given, for its own bookkeeping.
    """

    asked_bytes: int
    granted_bytes: int
    kept: int
    sent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Both measurements; ``ports_in_range`` of ``ports`` sockets were given a port of ``relay_ports``."""

    buffers: tuple[Kept, ...]
    ports: int
    ports_in_range: int
    relay_ports: tuple[int, int]


def measure_effects(*, burst: int = BURST_DATAGRAMS, ports: int = PORT_SOCKETS) -> Effects:
    """Take both measurements, with ``burst`` datagrams for each size and ``ports`` sockets."""
    sizes = (0, STOCK_BYTES, NODE_BYTES, GUIDE_BYTES)
    first, last = relay_ports = RelaySettings().port_range
    portions = (min(_SOCKETS_AT_ONCE, ports - start) for start in range(0, ports, _SOCKETS_AT_ONCE))
    given = [port for portion in portions for port in _given(portion)]
    return Effects(
        buffers=tuple(_keep(size, burst) for size in sizes),
        ports=ports,
        ports_in_range=sum(first <= port <= last for port in given),
        relay_ports=relay_ports,
    )


def _keep(size_bytes: int, burst: int) -> Kept:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        if size_bytes:
            _ask(receiver, size_bytes)
        receiver.setblocking(False)
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        data = bytes(DATAGRAM_BYTES)
        for _ in range(burst):
            sender.send(data)
        kept = 0
        try:
            while receiver.recv(DATAGRAM_BYTES):
                kept += 1
        except BlockingIOError:
            pass
        granted_bytes = receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return Kept(asked_bytes=size_bytes, granted_bytes=granted_bytes, kept=kept, sent=burst)


def _ask(sock: socket.socket, size_bytes: int) -> None:
    """Past the system's limit where the process may, so that every size can be compared before anything is set."""
    if sys.platform == "linux":
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size_bytes)
        except PermissionError:
            pass
        else:
            return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)


def _given(count: int) -> list[int]:
    ports = []
    with ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind(("127.0.0.1", 0))
            ports.append(int(sock.getsockname()[1]))
    return ports


def render_effects(effects: Effects) -> str:
    """Return both measurements as tables for people."""
    first, last = effects.relay_ports
    share = 100 * effects.ports_in_range / effects.ports
    got = f"{effects.ports_in_range} ({share:.0f} %) got one of {first}-{last}, which the relay wants"
    return "\n".join(
        [
            f"a burst of {effects.buffers[0].sent} datagrams of {DATAGRAM_BYTES} bytes to a socket that nobody reads",
            "",
            *_table(effects.buffers),
            "",
            "granted: on Linux twice what a socket was given, as the kernel adds its bookkeeping. Root gets more than",
            "rmem_max, others do not: the same figure in two rows is rmem_max at work.",
            "",
            f"{effects.ports} sockets that asked for any port: {got}",
        ]
    )


def _table(buffers: Sequence[Kept]) -> list[str]:
    lines = [f"{'asked for':>12}  {'granted':>12}  {'kept':>8}  {'lost':>8}"]
    for one in buffers:
        asked = f"{one.asked_bytes}" if one.asked_bytes else "nothing"
        lines.append(f"{asked:>12}  {one.granted_bytes:>12}  {one.kept:>8}  {one.sent - one.kept:>8}")
    return lines


def render_effects_json(effects: Effects) -> str:
    """Return both measurements as one JSON object with the fields of ``Effects``."""
    return json.dumps(asdict(effects))
