"""
``bench datagram``: echo throughput of a node with one worker against ``aioquic.asyncio.serve``, in one run.

The client is the same in both cases and has a core of its own if there is one. The figure that counts is echoed
frames per second of the server's CPU time, since a client in Python cannot always keep the faster server busy; the
wall-clock rate is printed beside it. Rounds of the servers alternate.
"""

import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial

from antquic_server.bench.live import EchoLoad, LiveEcho, measure_live_echo
from antquic_server.bench.load_client import ClientSettings, random_node_key
from antquic_server.bench.node_process import ServerUnderTest, running_node, running_stock_server
from antquic_server.bench.report import Progress, Report, Table, whole
from antquic_server.bench.variants import POOL_CONTEXTS
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile

OPTIONS: Mapping[str, str] = {
    "rounds": "3",
    "seconds": "3",
    "connections": "4",
    "in_flight": "16",
    "frame_bytes": "1100",
}

_NODE = "antquic-server, 1 worker"
_STOCK = "aioquic.asyncio.serve"
_STOCK_UVLOOP = "aioquic.asyncio.serve on uvloop"


def run(options: Mapping[str, str]) -> Report:
    """Measure the three servers in turn, as often as asked for."""
    rounds = whole(options, "rounds", 1)
    load = EchoLoad(
        connections=whole(options, "connections", 1),
        in_flight=whole(options, "in_flight", 1),
        frame_bytes=whole(options, "frame_bytes", 1),
        seconds=whole(options, "seconds", 1),
    )
    pool = PqcPool(load_provider("auto"), POOL_CONTEXTS)
    ours = ClientSettings(pqc=pool, node_key=random_node_key(pool))
    # Stock aioquic knows classical groups and X.509 only; after the handshake the bytes are the same.
    stock = ClientSettings(
        pqc=pool, profile=HandshakeProfile.X509, groups=(NamedGroup.X25519,), server_name="localhost"
    )
    contenders: dict[str, tuple[Callable[[], AbstractContextManager[ServerUnderTest]], ClientSettings]] = {
        _STOCK: (partial(running_stock_server, "asyncio"), stock),
        _STOCK_UVLOOP: (partial(running_stock_server, "uvloop"), stock),
        _NODE: (running_node, ours),
    }
    progress = Progress("datagram", rounds * len(contenders))
    results: dict[str, list[LiveEcho]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (start, settings) in contenders.items():
            progress.step(name)
            with start() as server:
                results[name].append(measure_live_echo(server, settings, load))
    progress.close()
    return Report(tables=[_table(results, load)], notes=_notes(load))


def _table(results: dict[str, list[LiveEcho]], load: EchoLoad) -> Table:
    table = Table(
        title=f"echo of DATAGRAM frames of {load.frame_bytes} bytes over real sockets",
        columns=("server", "echoes/s", "per CPU second", "us each", "Mb/s per core", "x stock"),
    )
    base = _per_cpu_s(results[_STOCK])
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
