"""
``bench logging``: what log levels cost a node, in one run.

One worker echoes DATAGRAM frames, for which it logs nothing at any level, and shakes hands, for which it logs a line or
two at ``debug``. Counted is what it does per second of its CPU time. The levels of running nodes are changed over their
control sockets, in another order every round, so that what else the machine does falls on all of them; the ratio is to
logging nothing at all. A second table shows a single call: of a line that is off, as our logger and as
structlog's own has it, and of one that is written.
"""

import asyncio
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import uvloop
from structlog.typing import Processor

from antquic_server.bench.live import EchoLoad, LiveEcho, measure_live_echo
from antquic_server.bench.load_client import ClientSettings, LoadClient, random_node_key
from antquic_server.bench.node_process import Here, ServerUnderTest, running_node
from antquic_server.bench.progress import Progress
from antquic_server.bench.report import Column, Report, Table, whole
from antquic_server.bench.variants import POOL_CONTEXTS
from antquic_server.control_client import ControlClient
from antquic_server.logs import NodeLogger
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider

OPTIONS: Mapping[str, str] = {
    "rounds": "7",
    "seconds": "1",
    "connections": "4",
    "in_flight": "16",
    "frame_bytes": "1100",
    "calls": "200000",
}

QUICK: Mapping[str, str] = {"rounds": "1", "seconds": "1", "calls": "2000"}

_CONCURRENT_HANDSHAKES = 16
_HANDSHAKE_TIMEOUT_S = 10.0

_SETTLE_S = 0.5
"""For the worker to hear of its new level, and to be done with the connections of the turn before."""


_EVERY_LINE = ("--set", "log.repeat_burst=0")

_NODES: Mapping[str, Sequence[str]] = {"every line": _EVERY_LINE, "limited": (), "/dev/null": _EVERY_LINE}
"""Nodes that run side by side, with the options that make them different."""

_KINDS = (
    ("every line", "critical", "nothing (critical)"),
    ("every line", "warning", "warning"),
    ("every line", "info", "info"),
    ("limited", "debug", "debug"),
    ("every line", "debug", "debug, every line"),
    ("/dev/null", "debug", "debug, every line, to /dev/null"),
)
"""Ways to log: which node, its level, and what the row is called."""


class _StderrTo(Here):
    """This machine, with the server's standard error in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def command(self, command: Sequence[str]) -> Sequence[str]:
        """Return the command behind a shell that redirects and becomes it."""
        return ["/bin/sh", "-c", 'exec "$@" 2>"$0"', str(self._path), *command]


@dataclass(slots=True)
class _Found:
    echoes: list[LiveEcho] = field(default_factory=list)
    handshakes_per_cpu_s: list[float] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Node:
    """A node whose level can be changed, and where its lines go."""

    server: ServerUnderTest
    control: ControlClient
    log: Path

    def lines(self) -> int | None:
        """Lines written so far, None where they go nowhere."""
        return self.log.read_bytes().count(b"\n") if self.log.is_file() else None


@contextmanager
def _running(arguments: Sequence[str], *, kept: bool) -> Iterator[_Node]:
    with tempfile.TemporaryDirectory(prefix="aqbench-") as directory:
        log = Path(directory) / "log" if kept else Path("/dev/null")
        control = Path(directory) / "control.sock"
        options = ("--set", f'admin.control="{control}"', *arguments)
        with running_node(*options, where=_StderrTo(log)) as server:
            yield _Node(server, ControlClient(control), log)


def run(options: Mapping[str, str]) -> Report:
    """Measure every way to log in turn, as often as asked for."""
    rounds, calls = whole(options, "rounds", 1), whole(options, "calls", 1)
    load = EchoLoad(
        connections=whole(options, "connections", 1),
        in_flight=whole(options, "in_flight", 1),
        frame_bytes=whole(options, "frame_bytes", 1),
        seconds=whole(options, "seconds", 1),
    )
    pool = PqcPool(load_provider("auto"), POOL_CONTEXTS + _CONCURRENT_HANDSHAKES)
    settings = ClientSettings(pqc=pool, node_key=random_node_key(pool))
    progress = Progress(rounds * len(_KINDS))
    found = {title: _Found() for _, _, title in _KINDS}
    order = random.Random(rounds)
    with ExitStack() as stack:
        nodes = {
            name: stack.enter_context(_running(arguments, kept=name != "/dev/null"))
            for name, arguments in _NODES.items()
        }
        for _ in range(rounds):
            # In another order each time: who comes last on a machine that is getting busier is not worse for it.
            for name, level, title in order.sample(_KINDS, len(_KINDS)):
                progress.step(title)
                _measure(nodes[name], level, settings, load, found[title])
    return Report(tables=[_table(found), _call_table(calls)], notes=_notes(load))


def _measure(node: _Node, level: str, settings: ClientSettings, load: EchoLoad, found: _Found) -> None:
    node.control.ask("POST", "/log", {"set": [level]})
    time.sleep(_SETTLE_S)
    before = node.lines()
    found.echoes.append(measure_live_echo(node.server, settings, load))
    found.handshakes_per_cpu_s.append(uvloop.run(_shake_hands(node.server, settings, load.seconds)))
    after = node.lines()
    if before is not None and after is not None:
        found.lines.append(after - before)


async def _shake_hands(server: ServerUnderTest, settings: ClientSettings, seconds: float) -> float:
    """Return completed handshakes per second of the worker's CPU time."""
    completed = 0
    deadline_s = time.monotonic() + seconds

    async def client() -> None:
        nonlocal completed
        endpoint = LoadClient()
        try:
            while time.monotonic() < deadline_s:
                connection = endpoint.connect("127.0.0.1", server.port, settings)
                try:
                    await connection.wait_connected(_HANDSHAKE_TIMEOUT_S)
                except ConnectionError:
                    pass
                else:
                    completed += 1
                connection.close()
                endpoint.abandon_all()
        finally:
            endpoint.close()

    before_s = server.cpu_s()
    await asyncio.gather(*(client() for _ in range(_CONCURRENT_HANDSHAKES)))
    return completed / max(server.cpu_s() - before_s, 0.01)


def _table(results: Mapping[str, _Found]) -> Table:
    table = Table(
        title="one worker by log level",
        columns=(
            "level",
            Column(name="echoes per CPU second", unit="1/s", better="higher"),
            Column(name="echo ratio", unit="x", better="higher"),
            Column(name="handshakes per CPU second", unit="1/s", better="higher"),
            Column(name="handshake ratio", unit="x", better="higher"),
            Column(name="lines", unit="lines"),
        ),
        chart="echo ratio",
    )
    first = results[_KINDS[0][2]]
    for name, found in results.items():
        echoes, handshakes = _echoes(found), statistics.median(found.handshakes_per_cpu_s)
        base = statistics.median(first.handshakes_per_cpu_s)
        lines = statistics.median(found.lines) if found.lines else None
        table.rows.append((name, echoes, echoes / _echoes(first), handshakes, handshakes / max(base, 1e-9), lines))
    return table


def _echoes(found: _Found) -> float:
    return statistics.median(item.echoed / max(item.server_cpu_s, 0.01) for item in found.echoes)


def _call_table(calls: int) -> Table:
    """Time single calls in this process, with loggers of their own."""
    table = Table(title="one call with three facts", columns=("call", Column(name="ns", unit="ns", better="lower")))
    quiet, loud = logging.getLogger("antquic_server.bench.quiet"), logging.getLogger("antquic_server.bench.loud")
    handler = logging.StreamHandler(Path("/dev/null").open("w", encoding="utf-8"))  # noqa: SIM115 - closed below
    for logger, level in ((quiet, logging.WARNING), (loud, logging.DEBUG)):
        logger.setLevel(level)
        logger.propagate = False
    loud.addHandler(handler)
    rendering: list[Processor] = [
        structlog.stdlib.filter_by_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(),
    ]
    contenders: dict[str, Callable[..., Any]] = {
        "off, as this node does": NodeLogger(quiet, rendering, {}).debug,
        "off, structlog's own": structlog.stdlib.BoundLogger(quiet, rendering, {}).debug,
        "off, the standard library's": quiet.debug,
        "written to /dev/null": NodeLogger(loud, rendering, {}).debug,
    }
    try:
        for name, call in contenders.items():
            facts: dict[str, Any] = {} if call == quiet.debug else {"connection": 1, "code": 2, "ready": True}
            table.rows.append((name, _time_ns(call, facts, calls)))
    finally:
        loud.removeHandler(handler)
        handler.stream.close()
    return table


def _time_ns(call: Callable[..., Any], facts: Mapping[str, Any], calls: int) -> float:
    started_ns = time.perf_counter_ns()
    for _ in range(calls):
        call("connection ended", **facts)
    return (time.perf_counter_ns() - started_ns) / calls


def _notes(load: EchoLoad) -> list[str]:
    flight = f"{load.connections} connections with {load.in_flight} frames of {load.frame_bytes} bytes in flight each"
    limit = "log.repeat_burst lets a hundred lines in ten seconds pass"
    return [
        f"echoes: {flight}.",
        f"handshakes: pure post-quantum ones, {_CONCURRENT_HANDSHAKES} at a time, two lines each at debug; {limit}.",
        "per CPU second counts the worker alone, user and system time; medians of the rounds.",
    ]
