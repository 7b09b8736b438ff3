"""
``bench datagram``: echo throughput of a node with one worker against ``aioquic.asyncio.serve``, in one run.

The client is the same in both cases and has a core of its own if there is one. The figure that counts is echoed
frames per second of the server's CPU time, since a client in Python cannot always keep the faster server busy; the
wall-clock rate is printed beside it. Rounds of the servers alternate.
"""

import statistics
from collections.abc import Mapping

from antquic_server.bench.contenders import STOCK, echo_contenders
from antquic_server.bench.live import EchoLoad, LiveEcho, measure_live_echo
from antquic_server.bench.progress import Progress
from antquic_server.bench.report import Column, Report, Table, whole
from antquic_server.bench.variants import POOL_CONTEXTS
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider

OPTIONS: Mapping[str, str] = {
    "rounds": "3",
    "seconds": "3",
    "connections": "4",
    "in_flight": "16",
    "frame_bytes": "1100",
}


def run(options: Mapping[str, str]) -> Report:
    """Measure the three servers in turn, as often as asked for."""
    rounds = whole(options, "rounds", 1)
    load = EchoLoad(
        connections=whole(options, "connections", 1),
        in_flight=whole(options, "in_flight", 1),
        frame_bytes=whole(options, "frame_bytes", 1),
        seconds=whole(options, "seconds", 1),
    )
    contenders = echo_contenders(PqcPool(load_provider("auto"), POOL_CONTEXTS))
    progress = Progress(rounds * len(contenders))
    results: dict[str, list[LiveEcho]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            progress.step(name)
            with contender.start() as server:
                results[name].append(measure_live_echo(server, contender.settings, load))
    return Report(tables=[_table(results, load)], notes=_notes(load))


def _table(results: dict[str, list[LiveEcho]], load: EchoLoad) -> Table:
    table = Table(
        title=f"echo of DATAGRAM frames of {load.frame_bytes} bytes over real sockets",
        columns=(
            "server",
            Column(name="echoes/s", unit="1/s", better="higher"),
            Column(name="per CPU second", unit="1/s", better="higher"),
            Column(name="us each", unit="us", better="lower"),
            Column(name="Mb/s per core", unit="Mb/s", better="higher"),
            Column(name="x stock", unit="x", better="higher"),
        ),
        chart="x stock",
    )
    base = _per_cpu_s(results[STOCK])
    for name, echoes in results.items():
        per_cpu_s = _per_cpu_s(echoes)
        table.rows.append(
            (
                name,
                statistics.median(item.echoed / item.wall_s for item in echoes),
                per_cpu_s,
                1e6 / per_cpu_s,
                per_cpu_s * load.frame_bytes * 8 / 1e6,
                per_cpu_s / base,
            )
        )
    return table


def _per_cpu_s(echoes: list[LiveEcho]) -> float:
    return statistics.median(item.echoed / max(item.server_cpu_s, 0.01) for item in echoes)


def _notes(load: EchoLoad) -> list[str]:
    return [
        f"{load.connections} connections with {load.in_flight} frames in flight each; median of the rounds.",
        "per CPU second counts the server process alone, user and system time; each echo is one frame in, one out.",
    ]
