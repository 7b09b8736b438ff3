"""
How long a client waits until it is connected, by the round-trip time of the network.

A node with one worker, one client that dials again and again, and between them a path that delays every datagram
(``delay``). What a handshake of more bytes costs beside CPU time shows here: round trips, if the server may not send
all of its answer before it knows the client's address (three times what it got, RFC 9000, section 8.1).
"""

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import uvloop

from antquic_server.bench.delay import DelayedPath
from antquic_server.bench.live import client_settings, running_node_for
from antquic_server.bench.load_client import ClientSettings, LoadClient
from antquic_server.bench.report import Column, Table
from antquic_server.bench.variants import Variant

__all__ = ["Latency", "latency_table", "measure_latencies"]

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Handshakes at one round-trip time, and the seconds that each took."""

    rtt_s: float
    times_s: Sequence[float]


def measure_latencies(variant: Variant, rtts_ms: Sequence[int], dials: int) -> list[Latency]:
    """Dial ``dials`` times at each round-trip time, in turn, after one dial that warms up the node."""
    with running_node_for(variant) as server:
        settings = client_settings(variant, 1)
        times_s: dict[int, list[float]] = {rtt_ms: [] for rtt_ms in rtts_ms}
        uvloop.run(_dial(server.port, settings))
        for _ in range(dials):
            for rtt_ms in rtts_ms:
                with DelayedPath(server.port, rtt_ms / 1000) as path:
                    times_s[rtt_ms].append(uvloop.run(_dial(path.port, settings)))
    return [Latency(rtt_s=rtt / 1000, times_s=times) for rtt, times in times_s.items()]


def latency_table(results: Mapping[str, Sequence[Latency]]) -> Table:
    """
    One row for each handshake and round-trip time; the first handshake is the unit at each time.

    Round trips are those of the fastest dial: a busy machine can only add to them.
    """
    table = Table(
        title="time until the client is connected, by round-trip time of the network",
        columns=(
            *("handshake", "RTT ms"),
            Column(name="latency ms", unit="ms", better="lower"),
            Column(name="+- ms", unit="ms"),
            Column(name="least ms", unit="ms", better="lower"),
            Column(name="round trips", better="lower"),
            Column(name="x latency", unit="x", better="lower"),
        ),
        chart="latency ms",
    )
    base_s: dict[float, float] = {}
    for label, latencies in results.items():
        for latency in latencies:
            median_s = statistics.median(latency.times_s)
            unit_s = base_s.setdefault(latency.rtt_s, median_s)
            table.rows.append(
                (
                    label,
                    round(1000 * latency.rtt_s),
                    1000 * median_s,
                    500 * (max(latency.times_s) - min(latency.times_s)),
                    1000 * min(latency.times_s),
                    min(latency.times_s) / latency.rtt_s if latency.rtt_s else None,
                    median_s / unit_s,
                )
            )
    return table


async def _dial(port: int, settings: ClientSettings) -> float:
    """Return how many seconds one handshake took, and let its last datagrams pass."""
    client = LoadClient()
    try:
        started_s = time.perf_counter()
        connection = client.connect("127.0.0.1", port, settings)
        await connection.wait_connected(_TIMEOUT_S)
        took_s = time.perf_counter() - started_s
        connection.close()
        await asyncio.sleep(0)
        return took_s
    finally:
        client.close()
