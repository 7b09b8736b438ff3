"""
``bench loopback``: how long one echo takes when nothing else goes on, against ``aioquic.asyncio.serve``, in one run.

One connection, one DATAGRAM frame on its way at a time, the same client for every server; rounds of the servers
alternate. What is measured holds the client and twice the kernel as well, so the ratio is closer to one than that of
the servers alone.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Final

import uvloop

from antquic_server.bench.contenders import STOCK, echo_contenders
from antquic_server.bench.load_client import ClientSettings, LoadClient
from antquic_server.bench.node_process import ServerUnderTest
from antquic_server.bench.progress import Progress
from antquic_server.bench.report import Column, Report, Table, whole
from antquic_server.bench.variants import POOL_CONTEXTS
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider

__all__ = ["OPTIONS", "QUICK", "run"]

OPTIONS: Mapping[str, str] = {"rounds": "3", "echoes": "2000", "frame_bytes": "64"}
QUICK: Mapping[str, str] = {"rounds": "1", "echoes": "200"}

_WARM_UP_ECHOES: Final = 50
_TIMEOUT_S: Final = 10.0


def run(options: Mapping[str, str]) -> Report:
    """Measure every server in turn, as often as asked for."""
    rounds = whole(options, "rounds", 1)
    echoes = whole(options, "echoes", 2)
    frame_bytes = whole(options, "frame_bytes", 1)
    contenders = echo_contenders(PqcPool(load_provider("auto"), POOL_CONTEXTS))
    times_us: dict[str, list[list[float]]] = {name: [] for name in contenders}
    progress = Progress(rounds * len(contenders))
    for _ in range(rounds):
        for name, contender in contenders.items():
            progress.step(name)
            with contender.start() as server:
                times_us[name].append(uvloop.run(_echo(server, contender.settings, echoes, bytes(frame_bytes))))
    return Report(tables=[_table(times_us, frame_bytes)], notes=_notes(rounds, echoes))


async def _echo(server: ServerUnderTest, settings: ClientSettings, echoes: int, frame: bytes) -> list[float]:
    """Return how many microseconds each echo took."""
    client = LoadClient()
    connection = client.connect("127.0.0.1", server.port, settings)
    try:
        await connection.wait_connected(_TIMEOUT_S)
        for _ in range(_WARM_UP_ECHOES):
            await connection.echo_datagram(frame, _TIMEOUT_S)
        found = []
        for _ in range(echoes):
            started_ns = time.perf_counter_ns()
            await connection.echo_datagram(frame, _TIMEOUT_S)
            found.append((time.perf_counter_ns() - started_ns) / 1000)
        return found
    finally:
        connection.close()
        client.close()


def _table(times_us: Mapping[str, Sequence[Sequence[float]]], frame_bytes: int) -> Table:
    table = Table(
        title=f"latency of an echo of {frame_bytes} bytes over loopback, one at a time",
        columns=(
            "server",
            Column(name="p50 us", unit="us", better="lower"),
            Column(name="p99 us", unit="us", better="lower"),
            Column(name="x stock p50", unit="x", better="lower"),
            Column(name="x stock p99", unit="x", better="lower"),
        ),
        chart="p50 us",
    )
    base = [_percentile(times_us[STOCK], percent) for percent in (50, 99)]
    for name, rounds in times_us.items():
        p50_us, p99_us = (_percentile(rounds, percent) for percent in (50, 99))
        table.rows.append((name, p50_us, p99_us, p50_us / base[0], p99_us / base[1]))
    return table


def _percentile(rounds: Sequence[Sequence[float]], percent: int) -> float:
    """Return the median over the rounds of a percentile of each."""
    return statistics.median(statistics.quantiles(times, n=100, method="inclusive")[percent - 1] for times in rounds)


def _notes(rounds: int, echoes: int) -> list[str]:
    return [
        f"{echoes} echoes on one connection, one on its way at a time; median of the rounds ({rounds}).",
        "There and back, with the client's own time, which is the same for every server; stock is the unit.",
    ]
