"""
``bench reuse``: what it costs to open a connection for each request, instead of a stream on one that is there.

A request is a stream of a few bytes that a node with one worker echoes. *New* dials, asks and closes; *live* only asks.
Both take turns, for each kind of handshake and each round-trip time of the network (``delay``), in one run.
"""

import statistics
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import uvloop

from antquic_server.bench.delay import DelayedPath
from antquic_server.bench.live import client_settings, running_node_for
from antquic_server.bench.load_client import ClientSettings, LoadClient
from antquic_server.bench.node_process import ServerUnderTest
from antquic_server.bench.progress import Progress
from antquic_server.bench.report import Column, Report, Table, whole, whole_list
from antquic_server.bench.variants import Variant, available_pools, variants

__all__ = ["OPTIONS", "QUICK", "run"]

OPTIONS: Mapping[str, str] = {"rounds": "5", "requests": "10", "bytes": "100", "rtt_ms": "0,50"}
QUICK: Mapping[str, str] = {"rounds": "1", "requests": "3", "rtt_ms": "0"}

_NEW: Final = "new connection"
_LIVE: Final = "live connection"
_TIMEOUT_S: Final = 30.0


@dataclass(slots=True)
class _Requests:
    """Seconds that each request took, and the server's CPU seconds for all of them together."""

    times_s: list[float]
    server_cpu_s: float = 0.0


def run(options: Mapping[str, str]) -> Report:
    """Measure both ways in turn."""
    rounds = whole(options, "rounds", 1)
    requests = whole(options, "requests", 1)
    data = bytes(whole(options, "bytes", 1))
    rtts_ms = whole_list(options, "rtt_ms", 0)
    # The provider that a node takes by itself; bench handshake compares them.
    chosen = variants([next(iter(available_pools()))])
    progress = Progress(len(chosen) * len(rtts_ms))
    results = {}
    for variant in chosen:
        with running_node_for(variant) as server:
            for rtt_ms in rtts_ms:
                progress.step(f"{variant.label}, RTT {rtt_ms} ms")
                with DelayedPath(server.port, rtt_ms / 1000) as path:
                    results[variant.label, rtt_ms] = uvloop.run(
                        _measure(variant, server, path.port, data, (rounds, requests))
                    )
    return Report(tables=[_table(results)], notes=_notes(rounds * requests, len(data)))


async def _measure(
    variant: Variant, server: ServerUnderTest, port: int, data: bytes, amount: tuple[int, int]
) -> dict[str, _Requests]:
    rounds, requests = amount
    settings = client_settings(variant, 1)
    found = {_NEW: _Requests([]), _LIVE: _Requests([])}
    async with AsyncExitStack() as stack:
        client = LoadClient()
        stack.callback(client.close)
        await _ask_anew(client, port, settings, data)  # warms up both sides
        for _ in range(rounds):
            before_s = server.cpu_s()
            for _ in range(requests):
                started_s = time.perf_counter()
                await _ask_anew(client, port, settings, data)
                found[_NEW].times_s.append(time.perf_counter() - started_s)
            found[_NEW].server_cpu_s += server.cpu_s() - before_s
            connection = client.connect("127.0.0.1", port, settings)
            await connection.wait_connected(_TIMEOUT_S)
            await connection.echo(data, _TIMEOUT_S)
            before_s = server.cpu_s()
            for _ in range(requests):
                started_s = time.perf_counter()
                await connection.echo(data, _TIMEOUT_S)
                found[_LIVE].times_s.append(time.perf_counter() - started_s)
            found[_LIVE].server_cpu_s += server.cpu_s() - before_s
            connection.close()
            client.abandon_all()
    return found


async def _ask_anew(client: LoadClient, port: int, settings: ClientSettings, data: bytes) -> None:
    connection = client.connect("127.0.0.1", port, settings)
    await connection.wait_connected(_TIMEOUT_S)
    await connection.echo(data, _TIMEOUT_S)
    connection.close()
    client.abandon_all()


def _table(results: Mapping[tuple[str, int], Mapping[str, _Requests]]) -> Table:
    table = Table(
        title="a small request: on a new connection, or on one that is there",
        columns=(
            *("handshake", "RTT ms", "request on a"),
            Column(name="latency ms", unit="ms", better="lower"),
            Column(name="x latency", unit="x", better="lower"),
            Column(name="server CPU us", unit="us", better="lower"),
            Column(name="x CPU", unit="x", better="lower"),
        ),
        chart="x CPU",
    )
    for (label, rtt_ms), ways in results.items():
        live = ways[_LIVE]
        for way in (_LIVE, _NEW):
            requests = ways[way]
            table.rows.append(
                (
                    *(label, rtt_ms, way),
                    1000 * statistics.median(requests.times_s),
                    statistics.median(requests.times_s) / statistics.median(live.times_s),
                    _cpu_us(requests),
                    _cpu_us(requests) / _cpu_us(live),
                )
            )
    return table


def _cpu_us(requests: _Requests) -> float:
    # Never nothing: a ratio to it is wanted.
    return max(0.01, 1e6 * requests.server_cpu_s / len(requests.times_s))


def _notes(requests: int, data_bytes: int) -> list[str]:
    return [
        f"{requests} requests of {data_bytes} bytes each way in turn; latency is the client's, its own time included.",
        "x is the ratio to the live connection of the same handshake and round-trip time.",
        "A new connection is closed by the client after its answer; CPU is the worker's, everything included.",
    ]
