"""
Looks at a node from outside, as a stranger would.

Version negotiation, a real handshake, the observed address, and a port of its relay. What a machine's own rules let
in, a check on that machine can tell; what a provider's firewall or a router in between drops, only somebody outside.
"""

import asyncio
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.examination import Result
from antquic_server.doctor.finding import Finding, cannot_tell, fault, note, ok
from antquic_server.doctor.machine import Machine
from antquic_server.errors import AddressDecodeError, ConfigurationError, ConnectionIdDecodeError, PeerUnreachableError
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.settings import PeerSettings
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.version_negotiation import (
    ID_BYTES,
    PROBE_BYTES,
    encode_probe,
    offered_versions_untrusted,
)

__all__ = ["REACH_CHECKS", "reach"]

PROBES: Final = 3
PROBE_WAIT_S: Final = 1.0
DIAL_TIMEOUT_S: Final = 5.0
RELAY_WAIT_S: Final = 8.0
QUIC_VERSION_1: Final = 1

_OPEN_PORT = "antquic-server doctor firewall-listen   # on the node's machine; then the provider's firewall"
_OPEN_RANGE = "antquic-server doctor firewall-relay   # on the node's machine; then the provider's firewall"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """Findings by check."""

    versions: Finding
    handshake: Finding
    address: Finding
    relay: Finding


def reach(target: str) -> list[Result]:
    """
    Look at the node at ``HOST:PORT``; names are looked up.

    Raises:
        ConfigurationError: The text is no address, or the name is not known.
    """
    seen = asyncio.run(_look(resolve(target)))
    findings = (seen.versions, seen.handshake, seen.address, seen.relay)
    return [Result(check=check, finding=finding) for check, finding in zip(REACH_CHECKS, findings, strict=True)]


def resolve(target: str) -> SocketAddress:
    """Turn ``HOST:PORT`` into an address, asking the resolver for a name; ConfigurationError if that fails."""
    expected = "HOST:PORT, like 192.0.2.1:10000 or node.example.org:10000"
    with suppress(AddressDecodeError):
        return SocketAddress.parse(target)
    host, _, port = target.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError("command line", "--reach", target, expected)
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        raise ConfigurationError("command line", "--reach", target, f"{expected} (no such host is known)") from None
    return SocketAddress.from_host(str(found[0][4][0]), int(port))


async def _look(target: SocketAddress) -> _Seen:
    versions = await asyncio.to_thread(_versions, target)
    unspecified = "0.0.0.0:0" if target.is_ipv4 else "[::]:0"
    endpoint = Endpoint(PeerSettings(listen=(unspecified,), dial_timeout_s=DIAL_TIMEOUT_S))
    async with endpoint:
        started_s = time.monotonic()
        try:
            connection = await endpoint.connect(target)
        except PeerUnreachableError as error:
            missing = cannot_tell("there is no connection to ask over")
            failed = fault(f"{error.reason}: {error.detail}", _OPEN_PORT)
            return _Seen(versions=versions, handshake=failed, address=missing, relay=missing)
        took_s = time.monotonic() - started_s
        round_trip_s = await connection.ping()
        shown = f"{took_s * 1000:.0f} ms; round trip {round_trip_s * 1000:.1f} ms; node {connection.peer_id.hex()}"
        address = await _observed(endpoint)
    relay = await _relay(target, unspecified)
    return _Seen(versions=versions, handshake=ok(shown), address=address, relay=relay)


def _versions(target: SocketAddress) -> Finding:
    """Ask three times, as packets may be lost."""
    family = socket.AF_INET if target.is_ipv4 else socket.AF_INET6
    destination_id, source_id = secrets.token_bytes(ID_BYTES), secrets.token_bytes(ID_BYTES)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(target.host), target.port))
            sock.settimeout(PROBE_WAIT_S)
            for _ in range(PROBES):
                sock.send(encode_probe(destination_id, source_id))
                with suppress(TimeoutError, ConnectionIdDecodeError):
                    versions = offered_versions_untrusted(sock.recv(PROBE_BYTES + 1), destination_id, source_id)
                    return _offer(versions)
    except ConnectionRefusedError:
        return fault(f"{target}: the machine answers that nobody listens there", "antquic-server serve   # on it")
    except OSError as error:
        return fault(
            f"{target}: {error.strerror or type(error).__name__}", "ip route get ADDRESS   # is there a route?"
        )
    return fault(f"{target}: no answer to {PROBES} probes within {PROBES * PROBE_WAIT_S:g} s", _OPEN_PORT)


def _offer(versions: list[int]) -> Finding:
    listed = ", ".join(f"{version:#x}" for version in versions[:8])
    if QUIC_VERSION_1 in versions:
        return ok(f"it speaks QUIC versions {listed}")
    return fault(
        f"it speaks QUIC versions {listed} and not version 1", "antquic-server serve   # is another program there?"
    )


async def _observed(endpoint: Endpoint) -> Finding:
    try:
        seen = await endpoint.external_address(timeout_s=5)
    except PeerUnreachableError as error:
        return fault(f"{error.detail}: it is no node, or its answer was lost", "antquic-server status   # on it")
    local = {address.port for address in endpoint.addresses}
    how = "the port is ours: no NAT, or one that keeps ports" if seen.port in local else "a NAT has given another port"
    return ok(f"we are seen at {seen}; {how}")


async def _relay(target: SocketAddress, unspecified: str) -> Finding:
    """Have the node give us a port of its relay, and knock at it from another socket."""
    settings = PeerSettings(listen=(unspecified,), known_peers=(str(target),))
    try:
        async with Endpoint(settings) as inside:
            address = await inside.listen_relayed(timeout_s=RELAY_WAIT_S)
            # Behind one NAT both of us would come from one address, to which the node sends either way.
            async with Endpoint(PeerSettings(listen=(unspecified,), relay="never")) as outside:
                started_s = time.monotonic()
                try:
                    await outside.connect(address)
                except PeerUnreachableError as error:
                    found = f"a session came about at {address}, but nothing gets through ({error.reason})"
                    return fault(found, _OPEN_RANGE)
                took_ms = (time.monotonic() - started_s) * 1000
                return ok(f"a handshake through its port {address.port} took {took_ms:.0f} ms")
    except PeerUnreachableError as error:
        return note(f"it gives us no relay session: {error.detail}")


def _never(_: Case) -> Finding:
    """These are answered together, see ``reach``."""
    return cannot_tell(f"needs --reach ({Machine.__name__} is not looked at)")


REACH_CHECKS = (
    Check(
        name="reach-versions",
        topic=Topic.REACH,
        looks_at="a packet of a version that nobody speaks, and the versions in the answer",
        why="a node whose port is closed on the way there is none; this answer needs nothing but the port and QUIC",
        examine=_never,
    ),
    Check(
        name="reach-handshake",
        topic=Topic.REACH,
        looks_at="a post-quantum handshake as an ant-quic peer makes it, and a round trip",
        why="a handshake needs full-size datagrams both ways, the node's key and a worker that is alive",
        examine=_never,
    ),
    Check(
        name="reach-address",
        topic=Topic.REACH,
        looks_at="the address the node sees us at",
        why="peers tell others what the node tells them; without it nobody can punch through to them",
        examine=_never,
    ),
    Check(
        name="reach-relay",
        topic=Topic.REACH,
        looks_at="a session of the stream relay, and a handshake through its port",
        why="a firewall before the node may let its port through and not relay.port_range: sessions then carry nothing",
        examine=_never,
    ),
)
"""In the order in which they are shown; only with ``--reach``."""
