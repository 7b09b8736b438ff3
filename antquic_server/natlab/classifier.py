"""
Finding out what a NAT does by asking from inside, as RFC 5780 does: two addresses, two ports.

A socket inside sends to four sockets of the node; the ports it comes from show the mapping. Then it talks to one of
the four alone, and the other three try to answer. Nothing is waited for blindly: after them the first socket sends
as well, whose packet always gets through and cannot overtake, so a packet that has not come by then was dropped.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import Filtering, Mapping, Nat, Ports
from antquic_server.natlab.topology import NODE_ADDRESSES

__all__ = ["Classification", "classify", "filtering_of", "mapping_of", "ports_of"]

_PROBE_TIMEOUT_S = 2.0
"""For packets that must arrive; in a lab they take microseconds."""

_GRACE_S = 0.02
"""After the packet that cannot be overtaken, for the case that two CPUs delivered out of order after all."""

_SOCKETS_FOR_PORTS = 4
_MAX_STEP = 8
"""Ports this close together, and rising, are taken from a sequence; by chance they are so once in many millions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What was observed; ``hairpin`` is None where no second host could ask."""

    mapping: Mapping
    filtering: Filtering
    ports: Ports
    hairpin: bool | None = None

    def agrees_with(self, nat: Nat) -> bool:
        """Whether this is what ``nat`` should look like."""
        as_told = (nat.mapping, nat.filtering, nat.ports)
        return as_told == (self.mapping, self.filtering, self.ports) and self.hairpin in (None, nat.hairpin)

    def __str__(self) -> str:
        """Name mapping, filtering and ports as ``Nat`` does."""
        return f"{self.mapping.value}/{self.filtering.value} {self.ports.value}"


def classify(lab: Lab, host: str = "a", *, neighbour: str | None = None) -> Classification | None:
    """
    Classify the NAT, or all NATs together, between ``host`` and the node; None if no UDP gets through.

    With ``neighbour``, another host behind the same router, hairpinning is tested too.
    """
    servers = _servers(lab)
    try:
        client = lab.udp_socket(host)
        ports = [_outside(client, server) for server in servers]
        lone = lab.udp_socket(host)
        filtering = _observe_filtering(lone, servers)
        others = [lab.udp_socket(host) for _ in range(_SOCKETS_FOR_PORTS)]
        inside = [sock.getsockname()[1] for sock in others]
        outside = [_outside(sock, servers[0])[1] for sock in others]
        hairpin = None if neighbour is None else _observe_hairpin(lab, neighbour, lone, servers[0])
    except TimeoutError:
        return None
    return Classification(
        mapping=mapping_of(ports), filtering=filtering, ports=ports_of(inside, outside), hairpin=hairpin
    )


def mapping_of(outside: Sequence[tuple[str, int]]) -> Mapping:
    """
    Tell the mapping from the outside addresses of one socket.

    They are those seen by the first address's first and second port, then the second address's.
    """
    if len(set(outside)) == 1:
        return Mapping.ENDPOINT_INDEPENDENT
    if outside[0] == outside[1] and outside[2] == outside[3]:
        return Mapping.ADDRESS_DEPENDENT
    return Mapping.ADDRESS_AND_PORT_DEPENDENT


def filtering_of(*, other_address: bool, other_port: bool) -> Filtering:
    """Tell the filtering from who could answer a socket that had talked to one address and port only."""
    if other_address:
        return Filtering.ENDPOINT_INDEPENDENT
    return Filtering.ADDRESS_DEPENDENT if other_port else Filtering.ADDRESS_AND_PORT_DEPENDENT


def ports_of(inside: Sequence[int], outside: Sequence[int]) -> Ports:
    """Tell how ports are picked from those of several sockets, in the order they first sent."""
    if list(inside) == list(outside):
        return Ports.PRESERVED
    steps = [after - before for before, after in pairwise(outside)]
    if all(0 < step <= _MAX_STEP for step in steps):
        return Ports.SEQUENTIAL
    return Ports.RANDOM


def _servers(lab: Lab) -> list[socket.socket]:
    """Two sockets on each of the node's two addresses, with the same two ports."""
    first_address, second_address = NODE_ADDRESSES
    first, second = lab.udp_socket("node", (first_address, 0)), lab.udp_socket("node", (first_address, 0))
    return [first, second, *(lab.udp_socket("node", (second_address, _port(sock))) for sock in (first, second))]


def _port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def _outside(client: socket.socket, server: socket.socket) -> tuple[str, int]:
    """Outside address of ``client`` as ``server`` sees it."""
    token = f"{_port(client)}".encode()
    client.sendto(token, server.getsockname())
    server.settimeout(_PROBE_TIMEOUT_S)
    while True:
        data, source = server.recvfrom(64)
        if data == token:
            return str(source[0]), int(source[1])


def _observe_filtering(client: socket.socket, servers: Sequence[socket.socket]) -> Filtering:
    talked_to, other_port, other_address, other_both = servers
    outside = _outside(client, talked_to)
    for number, server in enumerate((other_both, other_address, other_port, talked_to)):
        server.sendto(b"%d" % number, outside)
    arrived = _until(client, b"3")
    return filtering_of(other_address=bool(arrived & {b"0", b"1"}), other_port=b"2" in arrived)


def _until(client: socket.socket, last: bytes) -> set[bytes]:
    arrived: set[bytes] = set()
    client.settimeout(_PROBE_TIMEOUT_S)
    while last not in arrived:
        arrived.add(client.recv(64))
    return arrived | _within_grace(client)


def _within_grace(client: socket.socket) -> set[bytes]:
    arrived: set[bytes] = set()
    deadline_s = time.monotonic() + _GRACE_S
    while (remaining_s := deadline_s - time.monotonic()) > 0:
        client.settimeout(remaining_s)
        try:
            arrived.add(client.recv(64))
        except TimeoutError:
            break
    return arrived


def _observe_hairpin(lab: Lab, neighbour: str, client: socket.socket, server: socket.socket) -> bool:
    """Whether ``neighbour`` reaches ``client`` at its outside address, and under an outside address itself."""
    other = lab.udp_socket(neighbour)
    outside, other_outside = _outside(client, server), _outside(other, server)
    # Both send, as in hole punching, so that filtering does not decide.
    client.sendto(b"from client", other_outside)
    other.sendto(b"from neighbour", outside)
    return b"from neighbour" in _within_grace(client)
