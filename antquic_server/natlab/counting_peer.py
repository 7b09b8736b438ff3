"""
A peer of the library for the lab, which behaves and reports as ``ant-quic --json --counter-test`` does.

It connects to its nodes, looks for another peer if it is told one, and sends everybody it meets a counter of eight
bytes again and again. Each fact is one JSON line on standard output, by ant-quic's names: whoever watches a meeting
need not know which of the two programs took part.

It is a program of its own, run as ``python -m antquic_server.natlab.counting_peer``.
"""

import argparse
import asyncio
import json
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from antquic_server.errors import PeerClosedError, PeerUnreachableError
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.settings import PeerSettings

__all__ = ["COUNTER", "main"]

COUNTER = struct.Struct(">Q")
"""What both programs send each other."""

_CONNECTION_TYPES = {"direct": "direct", "punched": "nat_traversed", "relayed": "relayed"}
"""A connection's path, by ant-quic's name for it."""


def main(words: Sequence[str] | None = None) -> int:
    """Run until killed; returns the exit code when no node could be reached."""
    parser = argparse.ArgumentParser(prog="counting_peer")
    parser.add_argument("--listen", metavar="ADDRESS", default="0.0.0.0:0")
    parser.add_argument("--known-peers", metavar="ADDRESS,ADDRESS", default="")
    parser.add_argument("--connect-peer-id", metavar="ID")
    parser.add_argument("--counter-interval", metavar="MILLISECONDS", type=int, default=1000)
    parser.add_argument("--relay", choices=("auto", "never", "only"), default="auto")
    arguments = parser.parse_args(words)
    known_peers = tuple(filter(None, arguments.known_peers.split(",")))
    settings = PeerSettings(listen=(arguments.listen,), known_peers=known_peers, relay=arguments.relay)
    target = None if arguments.connect_peer_id is None else bytes.fromhex(arguments.connect_peer_id)
    try:
        # Interrupted, it says goodbye to everybody.
        with suppress(KeyboardInterrupt):
            asyncio.run(_run(settings, target, arguments.counter_interval / 1000))
    except PeerUnreachableError as error:
        # No node, nothing to report about: the last line is what a lab quotes of a program that has ended.
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _run(settings: PeerSettings, target: bytes | None, interval_s: float) -> None:
    async with Endpoint(settings) as endpoint, asyncio.TaskGroup() as tasks:
        _say("local_identity", peer_id=endpoint.peer_id.hex(), addr=str(endpoint.addresses[0]))
        nodes = endpoint.connections
        for node in nodes:
            _announce(node)
        for address in endpoint.stats().external_addresses:
            _say("external_address_discovered", addr=address)
        met: set[PeerConnection] = set()

        def meet(connection: PeerConnection) -> None:
            if connection in met:
                return
            met.add(connection)
            _announce(connection)
            tasks.create_task(_hear(connection))
            tasks.create_task(_count(connection, interval_s))

        if target is not None:
            tasks.create_task(_look_for(endpoint, target, meet))
        async for connection in endpoint.incoming():
            meet(connection)


async def _look_for(endpoint: Endpoint, target: bytes, meet: Callable[[PeerConnection], None]) -> None:
    try:
        meet(await endpoint.connect_peer(target))
    except PeerUnreachableError as error:
        _say("connect_failed", peer_id=error.target, reason=error.reason, detail=error.detail)


async def _hear(connection: PeerConnection) -> None:
    async for message in connection.messages():
        if len(message) == COUNTER.size:
            (counter,) = COUNTER.unpack(message)
            _say("counter_received", counter=counter, peer=connection.peer_id.hex())
    _say("peer_disconnected", peer_id=connection.peer_id.hex(), reason=connection.close_reason)


async def _count(connection: PeerConnection, interval_s: float) -> None:
    counter = 0
    with suppress(PeerClosedError):
        while True:
            counter += 1
            await connection.send_message(COUNTER.pack(counter))
            await asyncio.sleep(interval_s)


def _announce(connection: PeerConnection) -> None:
    host, port = connection.remote_address
    _say(
        "peer_connected",
        peer_id=connection.peer_id.hex(),
        addr=f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}",
        direction="outbound" if connection.dialled_by_us else "inbound",
        connection_type=_CONNECTION_TYPES[connection.path],
        why_not_direct=connection.why_not_direct,
    )


def _say(event: str, **facts: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
