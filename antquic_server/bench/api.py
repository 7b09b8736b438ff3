"""
What a benchmark of your own needs; ``docs/benchmarks.md`` and ``docs/examples/my_benchmark.py`` show how it is used.

A file for ``antquic-server bench --load FILE`` has a dictionary ``BENCHMARKS`` of names and :class:`Benchmark` objects.
A benchmark is a function from its options to a :class:`Report`. Listing, progress, repetition, saving, comparing and
drawing then work for it as for those that come with the package.

These names stay; everything else in ``antquic_server.bench`` may change.
"""

from antquic_server.bench.benchmark import Benchmark
from antquic_server.bench.load_client import ClientConnection, ClientSettings, LoadClient, random_node_key
from antquic_server.bench.node_process import ServerUnderTest, running_node, running_stock_server
from antquic_server.bench.progress import Progress
from antquic_server.bench.report import Column, Report, Table, listed, whole, whole_list
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider

__all__ = [
    "Benchmark",
    "ClientConnection",
    "ClientSettings",
    "Column",
    "LoadClient",
    "PqcPool",
    "Progress",
    "Report",
    "ServerUnderTest",
    "Table",
    "listed",
    "load_provider",
    "random_node_key",
    "running_node",
    "running_stock_server",
    "whole",
    "whole_list",
]
