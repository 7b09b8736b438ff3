"""
``bench profiled``: what it costs a worker to be profiled, against the same worker left alone, in one run.

The same echo load runs without a profiler and under each; rounds alternate. Echoes per second of wall-clock time is
what clients feel, and includes the time for which the worker is held; echoes per second of its CPU time is what it can
do at most. A profiler that is missing here is left out.
"""

import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from antquic_server.bench.live import EchoLoad, LiveEcho, measure_live_echo
from antquic_server.bench.load_client import ClientSettings, random_node_key
from antquic_server.bench.node_process import ServerUnderTest, running_node
from antquic_server.bench.progress import Progress
from antquic_server.bench.report import Column, Report, Table, whole
from antquic_server.bench.variants import POOL_CONTEXTS
from antquic_server.errors import AntQuicError, ProfilerUnavailableError
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from antquic_server.profiling.cpu import CpuProfile, record_cpu
from antquic_server.profiling.memory import MemoryProfile, record_memory

__all__ = ["OPTIONS", "QUICK", "run"]

OPTIONS: Mapping[str, str] = {"rounds": "3", "seconds": "4", "rate": "100"}
QUICK: Mapping[str, str] = {"rounds": "1", "seconds": "1"}

BEGIN_TIMEOUT_S = 60.0
_ALONE = "left alone"

Record = Callable[[int, Path, Callable[[float], None]], object]
"""Profiles a process, with a directory for its files, and says now and then that it is at it."""


def run(options: Mapping[str, str]) -> Report:
    """Measure one worker alone and under each profiler, as often as asked for."""
    rounds, seconds, rate = (whole(options, key, 1) for key in ("rounds", "seconds", "rate"))
    profilers = _profilers(seconds + 1, rate)
    pool = PqcPool(load_provider("auto"), POOL_CONTEXTS)
    settings = ClientSettings(pqc=pool, node_key=random_node_key(pool))
    load = EchoLoad(connections=4, in_flight=16, frame_bytes=1100, seconds=seconds)
    results: dict[str, list[LiveEcho]] = {}
    missing: dict[str, str] = {}
    progress = Progress(rounds * len(profilers))
    with running_node() as server:
        for _ in range(rounds):
            for name, record in profilers.items():
                progress.step(name)
                try:
                    with _profiling(server, record):
                        results.setdefault(name, []).append(measure_live_echo(server, settings, load))
                except ProfilerUnavailableError as error:
                    missing[name] = str(error)
    return Report(tables=[_table(results)], notes=[f"{name} left out: {why}" for name, why in missing.items()])


def _profilers(seconds: int, rate: int) -> dict[str, Record | None]:
    def cpu(exact: bool) -> Record:
        def record(pid: int, directory: Path, waiting: Callable[[float], None]) -> object:
            profile = CpuProfile(pid=pid, seconds=seconds, rate=rate, output=directory / "cpu.svg", exact=exact)
            return record_cpu(profile, waiting)

        return record

    def memory(pid: int, directory: Path, waiting: Callable[[float], None]) -> object:
        return record_memory(MemoryProfile(pid=pid, seconds=seconds, output=directory / "m.html"), waiting, directory)

    return {
        _ALONE: None,
        f"profile cpu, {rate} Hz": cpu(False),
        f"profile cpu --exact, {rate} Hz": cpu(True),
        "profile memory": memory,
    }


@contextmanager
def _profiling(server: ServerUnderTest, record: Record | None) -> Iterator[None]:
    """Profile a server inside the block, which is entered when that has begun; None profiles nothing."""
    if record is None:
        yield
        return
    begun = threading.Event()
    failed: list[AntQuicError] = []
    with tempfile.TemporaryDirectory(prefix="antquic-bench-") as directory:

        def work() -> None:
            try:
                record(server.pid, Path(directory), lambda _: begun.set())
            except AntQuicError as error:
                failed.append(error)
            begun.set()

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait(BEGIN_TIMEOUT_S)
        if failed:
            thread.join()
            raise failed[0]
        try:
            yield
        finally:
            thread.join()
        if failed:
            raise failed[0]


def _table(results: Mapping[str, list[LiveEcho]]) -> Table:
    table = Table(
        title="echo of DATAGRAM frames by one worker while it is profiled",
        columns=(
            "worker",
            Column(name="echoes/s", unit="1/s", better="higher"),
            Column(name="per CPU second", unit="1/s", better="higher"),
            Column(name="x alone", unit="x", better="higher"),
            Column(name="x alone per CPU", unit="x", better="higher"),
        ),
        chart="x alone",
    )
    figures = {
        name: (
            statistics.median(item.echoed / item.wall_s for item in echoes),
            statistics.median(item.echoed / max(item.server_cpu_s, 0.01) for item in echoes),
        )
        for name, echoes in results.items()
    }
    base = figures[_ALONE]
    for name, (per_s, per_cpu_s) in figures.items():
        table.rows.append((name, per_s, per_cpu_s, per_s / base[0], per_cpu_s / base[1]))
    return table
