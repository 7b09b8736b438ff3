"""
``bench connections``: what an idle connection costs a server, against ``aioquic.asyncio.serve``, in one run.

A fresh server gets a few connections to warm up, then as many as asked for, which then say nothing. Memory is what its
resident set has grown by; CPU time is what it uses per second while they are idle, less what it used before they came.
A node sends pings, every 15 s unless configured otherwise: watched for less, some connections seem to cost nothing.
"""

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psutil
import uvloop

from antquic_server.bench.contenders import NODE, STOCK, EchoContender, echo_contenders
from antquic_server.bench.load_client import ClientConnection, ClientSettings, LoadClient
from antquic_server.bench.node_process import ServerUnderTest
from antquic_server.bench.progress import Progress
from antquic_server.bench.report import Column, Report, Table, whole, whole_list
from antquic_server.errors import UsageError
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider

__all__ = ["OPTIONS", "QUICK", "Idle", "measure_idle", "run"]

OPTIONS: Mapping[str, str] = {"rounds": "1", "connections": "500", "seconds": "15"}
QUICK: Mapping[str, str] = {"connections": "50", "seconds": "1"}

MAX_CONNECTIONS: Final = 5000
"""Keeps the client, which has them all as well, within half a gigabyte."""

_WARM_UP_CONNECTIONS: Final = 20
_AT_ONCE: Final = 20
"""Handshakes at a time, and connections on one socket of the client, which looks at all of them for each datagram."""
_TIMEOUT_S: Final = 20.0
_SETTLE_S: Final = 1.0
_IDLE_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Memory of a server per connection, and its CPU seconds per second: with a few connections, and with all."""

    bytes_per_connection: float
    base_cpu_share: float
    cpu_share: float
    connections: int

    @property
    def cpu_us_per_connection_s(self) -> float:
        """Microseconds of CPU time in each second for each connection; below 0 if there is nothing but noise."""
        return 1e6 * (self.cpu_share - self.base_cpu_share) / self.connections


def run(options: Mapping[str, str]) -> Report:
    """Measure both servers in turn with each number of connections."""
    rounds = whole(options, "rounds", 1)
    counts = whole_list(options, "connections", 1)
    seconds = whole(options, "seconds", 1)
    if max(counts) > MAX_CONNECTIONS:
        raise UsageError(f"bench: connections = {options['connections']!r}: at most {MAX_CONNECTIONS}")
    contenders = echo_contenders(PqcPool(load_provider("auto"), _AT_ONCE), idle_timeout_s=_IDLE_TIMEOUT_S)
    chosen = {name: contenders[name] for name in (STOCK, NODE)}
    results: dict[tuple[int, str], list[Idle]] = {(number, name): [] for number in counts for name in chosen}
    progress = Progress(rounds * len(results))
    for _ in range(rounds):
        for (number, name), found in results.items():
            progress.step(f"{number} connections, {name}")
            found.append(measure_idle(chosen[name], number, seconds))
    return Report(tables=[_table(results)], notes=_notes(seconds))


def measure_idle(contender: EchoContender, connections: int, seconds: float) -> Idle:
    """Start a server, connect to it and let it be for ``seconds``, twice."""
    with contender.start() as server:
        return uvloop.run(_measure(server, contender.settings, connections, seconds))


async def _measure(server: ServerUnderTest, settings: ClientSettings, connections: int, seconds: float) -> Idle:
    clients: list[LoadClient] = []
    opened: list[ClientConnection] = []
    try:
        await _open(server, settings, _WARM_UP_CONNECTIONS, clients, opened)
        base_cpu_share = await _idle_cpu_share(server, seconds)
        process = psutil.Process(server.pid)
        before_bytes = process.memory_info().rss
        await _open(server, settings, connections, clients, opened)
        cpu_share = await _idle_cpu_share(server, seconds)
        grown_bytes = process.memory_info().rss - before_bytes
        return Idle(
            bytes_per_connection=grown_bytes / connections,
            base_cpu_share=base_cpu_share,
            cpu_share=cpu_share,
            connections=connections,
        )
    finally:
        for connection in opened:
            connection.close()
        for client in clients:
            client.close()


async def _open(
    server: ServerUnderTest,
    settings: ClientSettings,
    connections: int,
    clients: list[LoadClient],
    opened: list[ClientConnection],
) -> None:
    for begun in range(0, connections, _AT_ONCE):
        client = LoadClient()
        clients.append(client)
        batch = [client.connect("127.0.0.1", server.port, settings) for _ in range(min(_AT_ONCE, connections - begun))]
        opened.extend(batch)
        for connection in batch:
            await connection.wait_connected(_TIMEOUT_S)


async def _idle_cpu_share(server: ServerUnderTest, seconds: float) -> float:
    # Acknowledgements and the like of the handshakes are still on their way.
    await asyncio.sleep(_SETTLE_S)
    started_s, before_s = time.monotonic(), server.cpu_s()
    await asyncio.sleep(seconds)
    return (server.cpu_s() - before_s) / (time.monotonic() - started_s)


def _table(results: Mapping[tuple[int, str], Sequence[Idle]]) -> Table:
    table = Table(
        title="idle connections",
        columns=(
            *("connections", "server"),
            Column(name="kB each", unit="kB", better="lower"),
            Column(name="x stock memory", unit="x", better="lower"),
            Column(name="CPU us/s each", unit="us/s", better="lower"),
            Column(name="CPU %", unit="%", better="lower"),
            Column(name="CPU % without", unit="%", better="lower"),
        ),
        chart="kB each",
    )
    for (number, name), rounds in results.items():
        kilobytes = _kilobytes(rounds)
        table.rows.append(
            (
                number,
                name,
                kilobytes,
                kilobytes / _kilobytes(results[number, STOCK]),
                statistics.median(item.cpu_us_per_connection_s for item in rounds),
                100 * statistics.median(item.cpu_share for item in rounds),
                100 * statistics.median(item.base_cpu_share for item in rounds),
            )
        )
    return table


def _kilobytes(rounds: Sequence[Idle]) -> float:
    return statistics.median(item.bytes_per_connection for item in rounds) / 1000


def _notes(seconds: int) -> list[str]:
    return [
        f"kB each: growth of the server's resident memory, after {_WARM_UP_CONNECTIONS} connections to warm up.",
        f"CPU: of the process that has the connections, over {seconds} s in which the client says nothing.",
        f"Without: with the {_WARM_UP_CONNECTIONS} connections to warm up alone.",
        "A node's connections have post-quantum handshakes behind them, stock aioquic's classical ones.",
    ]
