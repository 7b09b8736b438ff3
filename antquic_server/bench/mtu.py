"""
``bench mtu``: what path MTU discovery is worth, as throughput of streams over loopback.

A node with one worker and a client with ``mtu.max = 1200`` each, against the same two with discovery up to ``max``
(1452 unless said otherwise), in one run, rounds alternating. Every connection keeps one stream of ``kilobytes`` going
there and back. Then two peers of the library, without a node, one of which sends such streams one after another. The
clock starts when discovery has settled.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import uvloop

from antquic_server.bench.load_client import ClientConnection, ClientSettings, LoadClient, random_node_key
from antquic_server.bench.node_process import ServerUnderTest, running_node
from antquic_server.bench.progress import Progress
from antquic_server.bench.report import Column, Report, Table, whole
from antquic_server.bench.variants import POOL_CONTEXTS
from antquic_server.errors import CannotBootError
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.stream import PeerStream
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from antquic_server.protocol.path_mtu import MIN_DATAGRAM_BYTES

OPTIONS: Mapping[str, str] = {
    "rounds": "3",
    "seconds": "3",
    "connections": "2",
    "kilobytes": "500",
    "max": "1452",
}

_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MtuEcho:
    """Bytes echoed, in how much wall time and CPU time of the server, and the client's datagram size."""

    echoed_bytes: int
    wall_s: float
    server_cpu_s: float
    path_mtu_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MtuTransfer:
    """Bytes that one peer got from another, in how much wall time and CPU time of both, and the datagram size."""

    moved_bytes: int
    wall_s: float
    cpu_s: float
    path_mtu_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    connections: int
    stream_bytes: int
    seconds: int


def run(options: Mapping[str, str]) -> Report:
    """Measure both sizes in turn, as often as asked for."""
    rounds = whole(options, "rounds", 1)
    load = _Load(
        connections=whole(options, "connections", 1),
        stream_bytes=1000 * whole(options, "kilobytes", 1),
        seconds=whole(options, "seconds", 1),
    )
    sizes = (MIN_DATAGRAM_BYTES, whole(options, "max", MIN_DATAGRAM_BYTES))
    pool = PqcPool(load_provider("auto"), POOL_CONTEXTS)
    key = random_node_key(pool)
    echoes: dict[int, list[MtuEcho]] = {size: [] for size in sizes}
    transfers: dict[int, list[MtuTransfer]] = {size: [] for size in sizes}
    progress = Progress(rounds * len(echoes) * 2)
    for _ in range(rounds):
        for size in sizes:
            progress.step(f"node, mtu.max={size}")
            settings = ClientSettings(pqc=pool, node_key=key, mtu_max=size)
            with running_node("--set", f"mtu.max={size}") as server:
                echoes[size].append(uvloop.run(_measure(server, settings, load, size)))
            progress.step(f"peer to peer, mtu_max={size}")
            transfers[size].append(uvloop.run(_measure_peers(load, size)))
    return Report(tables=[_table(echoes), _peer_table(transfers)], notes=_notes(load))


async def _measure(server: ServerUnderTest, settings: ClientSettings, load: _Load, size: int) -> MtuEcho:
    # A socket each: a train of datagrams then belongs to one connection.
    clients = [LoadClient() for _ in range(load.connections)]
    connections = [client.connect("127.0.0.1", server.port, settings) for client in clients]
    try:
        for connection in connections:
            await connection.wait_connected(_TIMEOUT_S)
            await _settle(connection, size)
        return await _echo(server, connections, load)
    finally:
        for client, connection in zip(clients, connections, strict=True):
            connection.close()
            client.close()


async def _settle(connection: ClientConnection, size: int) -> None:
    """Go there and back with little data until the client, and by then the node, has found the size."""
    deadline_s = time.monotonic() + _TIMEOUT_S
    while connection.quic.path_mtu_bytes < size:
        if time.monotonic() > deadline_s:
            raise CannotBootError(f"loopback does not carry {size} bytes; it did {connection.quic.path_mtu_bytes}")
        await connection.echo(bytes(1000), _TIMEOUT_S)
    await connection.echo(bytes(20_000), _TIMEOUT_S)


async def _echo(server: ServerUnderTest, connections: list[ClientConnection], load: _Load) -> MtuEcho:
    data = os.urandom(load.stream_bytes)
    started_s = time.monotonic()
    before_s = server.cpu_s()

    async def keep_busy(connection: ClientConnection) -> int:
        echoed = 0
        while time.monotonic() < started_s + load.seconds:
            echoed += len(await connection.echo(data, _TIMEOUT_S))
        return echoed

    echoed_bytes = sum(await asyncio.gather(*map(keep_busy, connections)))
    return MtuEcho(
        echoed_bytes=echoed_bytes,
        wall_s=time.monotonic() - started_s,
        server_cpu_s=server.cpu_s() - before_s,
        path_mtu_bytes=min(connection.quic.path_mtu_bytes for connection in connections),
    )


async def _measure_peers(load: _Load, size: int) -> MtuTransfer:
    settings = PeerSettings(listen=("127.0.0.1:0",), mtu_max=size)
    async with Endpoint(settings) as sender, Endpoint(settings) as receiver:
        here = await sender.connect(receiver.addresses[0])
        there = await receiver.accept()
        deadline_s = time.monotonic() + _TIMEOUT_S
        while (found := min(here.path_mtu_bytes, there.path_mtu_bytes)) < size:
            if time.monotonic() > deadline_s:
                raise CannotBootError(f"loopback does not carry {size} bytes; it did {found}")
            await here.ping()
        return await _transfer(here, there, load)


async def _transfer(here: PeerConnection, there: PeerConnection, load: _Load) -> MtuTransfer:
    data = os.urandom(load.stream_bytes)
    moved_bytes = 0
    started_s, cpu_before_s = time.monotonic(), time.process_time()
    while time.monotonic() < started_s + load.seconds:
        stream = await here.open_stream()
        _, arrived_bytes = await asyncio.gather(_write(stream, data), _count(there))
        moved_bytes += arrived_bytes
    return MtuTransfer(
        moved_bytes=moved_bytes,
        wall_s=time.monotonic() - started_s,
        cpu_s=time.process_time() - cpu_before_s,
        path_mtu_bytes=min(here.path_mtu_bytes, there.path_mtu_bytes),
    )


async def _write(stream: PeerStream, data: bytes) -> None:
    await stream.write(data)
    await stream.close()


async def _count(connection: PeerConnection) -> int:
    """Return the length of the next stream."""
    stream = await connection.accept_stream()
    arrived_bytes = 0
    while part := await stream.read():
        arrived_bytes += len(part)
    # Else the stream would stay half open and count against the limit.
    await stream.close()
    return arrived_bytes


def _table(results: dict[int, list[MtuEcho]]) -> Table:
    table = Table(
        title="echo of streams over loopback, with and without path MTU discovery",
        columns=("mtu.max", *_columns("MB per server CPU second")),
        chart="x 1200",
    )
    base = None
    for size, echoes in results.items():
        per_cpu_s = statistics.median(item.echoed_bytes / max(item.server_cpu_s, 0.01) for item in echoes) / 1e6
        base = base or per_cpu_s
        table.rows.append(
            (
                size,
                min(item.path_mtu_bytes for item in echoes),
                statistics.median(item.echoed_bytes / item.wall_s for item in echoes) / 1e6,
                per_cpu_s,
                per_cpu_s / base,
            )
        )
    return table


def _peer_table(results: dict[int, list[MtuTransfer]]) -> Table:
    table = Table(
        title="peer to peer over loopback, with and without path MTU discovery",
        columns=("mtu_max", *_columns("MB per CPU second of both")),
        chart="x 1200",
    )
    base = None
    for size, transfers in results.items():
        per_cpu_s = statistics.median(item.moved_bytes / max(item.cpu_s, 0.01) for item in transfers) / 1e6
        base = base or per_cpu_s
        table.rows.append(
            (
                size,
                min(item.path_mtu_bytes for item in transfers),
                statistics.median(item.moved_bytes / item.wall_s for item in transfers) / 1e6,
                per_cpu_s,
                per_cpu_s / base,
            )
        )
    return table


def _columns(per_cpu_second: str) -> tuple[Column, ...]:
    return (
        Column(name="datagram bytes", unit="B"),
        Column(name="MB/s", unit="MB/s", better="higher"),
        Column(name=per_cpu_second, unit="MB/s", better="higher"),
        Column(name="x 1200", unit="x", better="higher"),
    )


def _notes(load: _Load) -> list[str]:
    return [
        f"{load.connections} connections, one stream of {load.stream_bytes // 1000} kB at a time; median of rounds.",
        "Echoed bytes are counted once, though each travels both ways; the ratio is that of the server's CPU time.",
        "Peer to peer both ends share one process and so one CPU; the ratio is that of its CPU time.",
    ]
