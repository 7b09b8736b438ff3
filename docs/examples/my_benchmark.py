"""
A benchmark of one's own: what does it cost a node to echo streams of different sizes?

Run it with ``antquic-server bench --load my_benchmark.py mine``; docs/benchmarks.md goes through it line by line.
"""

import asyncio
import statistics
from collections.abc import Mapping

from antquic_server.bench.api import (
    Benchmark,
    ClientSettings,
    Column,
    LoadClient,
    PqcPool,
    Progress,
    Report,
    ServerUnderTest,
    Table,
    load_provider,
    random_node_key,
    running_node,
    whole,
    whole_list,
)

OPTIONS = {"rounds": "5", "streams": "50", "sizes": "1000,10000,100000"}


def run(options: Mapping[str, str]) -> Report:
    """Let the sizes take turns, round by round, and return CPU time of the node for each stream and each byte."""
    rounds, streams = whole(options, "rounds", 1), whole(options, "streams", 1)
    sizes = whole_list(options, "sizes", 1)
    pool = PqcPool(load_provider("auto"), 2)
    settings = ClientSettings(pqc=pool, node_key=random_node_key(pool))
    found: dict[int, list[float]] = {size: [] for size in sizes}
    progress = Progress(rounds * len(sizes))
    with running_node() as node:
        for _ in range(rounds):
            for size in sizes:
                progress.step(f"streams of {size} bytes")
                found[size].append(asyncio.run(echo(node, settings, streams, size)))
    return Report(tables=[table(found)], notes=["CPU time is the worker's; the smallest size is the unit."])


async def echo(node: ServerUnderTest, settings: ClientSettings, streams: int, size: int) -> float:
    """Return the CPU microseconds that the node took for one stream there and back."""
    client = LoadClient()
    connection = client.connect("127.0.0.1", node.port, settings)
    try:
        await connection.wait_connected(timeout_s=10)
        before_s = node.cpu_s()
        for _ in range(streams):
            await connection.echo(bytes(size), timeout_s=10)
        return 1e6 * (node.cpu_s() - before_s) / streams
    finally:
        connection.close()
        client.close()


def table(found: Mapping[int, list[float]]) -> Table:
    """One row for each size: a plain name is what the row is about, a Column has figures."""
    shown = Table(
        title="streams echoed by a node",
        columns=(
            "bytes",
            Column(name="CPU us each", unit="us", better="lower"),
            Column(name="x smallest", unit="x", better="lower"),
        ),
        chart="CPU us each",
    )
    smallest_us = statistics.median(found[min(found)])
    for size, times_us in found.items():
        each_us = statistics.median(times_us)
        shown.rows.append((size, each_us, each_us / smallest_us))
    return shown


BENCHMARKS = {
    "mine": Benchmark(
        summary="CPU time of echoed streams by their size",
        ratio="each size / the smallest",
        about_s=15,
        quick_s=4,
        options=OPTIONS,
        quick={"rounds": "1", "streams": "5"},
        run=run,
    )
}
