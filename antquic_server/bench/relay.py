"""
``bench relay``: what relaying costs this node, against coturn and a bare forwarder in one run.

Everybody forwards the same load between the same places (``relay_place``), in turn, round by round. The figure is
delivered datagrams per second of the relay process's CPU time, as the kernel counts it: for a node the worker that owns
the sessions, for coturn all its threads. That is what one core could forward; how much the load managed to send does
not matter.

1. Channel relay: single datagrams and trains, one session and many, against coturn's TURN channels (client to peer)
   and a forwarder in C that has nothing but a table, the ceiling.
2. Stream relay, against a stream echo of stock aioquic.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import uvloop

from antquic_server.bench.node_process import ServerUnderTest, running_node, running_stock_server
from antquic_server.bench.progress import Progress
from antquic_server.bench.relay_channel import CHANNEL, open_channels
from antquic_server.bench.relay_contender import Contender, Load, running_load
from antquic_server.bench.relay_coturn import COTURN, coturn_version, find_coturn, running_coturn
from antquic_server.bench.relay_forwarder import FORWARDER, running_forwarder
from antquic_server.bench.relay_load import LoadResult
from antquic_server.bench.relay_place import Place, cpus_for_load, open_place, pin_relay
from antquic_server.bench.relay_plan import Cell, Plan
from antquic_server.bench.relay_stream import (
    Direction,
    StreamLoad,
    StreamSession,
    measure_streams,
    open_relay_sessions,
    open_stock_streams,
)
from antquic_server.bench.relay_tables import channel_table, stream_table, target_table
from antquic_server.bench.report import Report
from antquic_server.bench.variants import POOL_CONTEXTS
from antquic_server.errors import CannotBootError
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider

__all__ = ["run"]

_STOCK = "aioquic.asyncio.serve"
_STOCK_UVLOOP = "the same on uvloop"
_STREAM = {direction: f"stream relay, {direction}" for direction in (Direction.UP, Direction.DOWN, Direction.BOTH)}

_STREAM_TARGETS = {
    _STREAM[Direction.UP]: 1.0,
    _STREAM[Direction.DOWN]: 1.0,
    # Twice relayed and counted once: more than an echo does, so there is no saying what it should be.
    _STREAM[Direction.BOTH]: None,
}
_ALLOW_LOOPBACK = ("--set", 'relay.allowed_targets=["127.0.0.0/8"]')


@dataclass(slots=True, kw_only=True)
class _Findings:
    progress: Progress
    channel: dict[Cell, dict[str, list[LoadResult]]] = field(default_factory=dict)
    stream: dict[tuple[int, int], dict[str, list[LoadResult]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def run(options: Mapping[str, str]) -> Report:
    """Measure everything that the options ask for."""
    plan = Plan.parse(options)
    with open_place(plan.place) as place:
        findings = _Findings(progress=Progress(_steps(plan, place)))
        uvloop.run(_measure(plan, place, findings))
    tables = [
        target_table(
            findings.channel,
            findings.stream,
            relay=CHANNEL,
            coturn=COTURN,
            stock=_STOCK,
            streams=_STREAM_TARGETS,
        )
    ]
    if findings.channel:
        tables.append(channel_table(findings.channel, COTURN))
    if findings.stream:
        tables.append(stream_table(findings.stream, _STOCK))
    return Report(tables=tables, notes=_notes(plan, place, findings))


async def _measure(plan: Plan, place: Place, findings: _Findings) -> None:
    pool = PqcPool(load_provider("auto"), POOL_CONTEXTS)
    with running_node(*(() if place.names else _ALLOW_LOOPBACK), where=place.server) as node:
        if "channel" in plan.modes:
            await _measure_channels(plan, place, node, pool, findings)
        if "stream" in plan.modes:
            await _measure_stream_relay(plan, place, node, pool, findings)


def _steps(plan: Plan, place: Place) -> int:
    """How many measurements there will be, with every yardstick."""
    channels = len(plan.cells(cutting=bool(place.names))) * len((CHANNEL, COTURN, FORWARDER))
    streams = len(plan.sizes) * len(plan.sessions) * len((*_STREAM, _STOCK, _STOCK_UVLOOP))
    return plan.rounds * (channels * ("channel" in plan.modes) + streams * ("stream" in plan.modes))


async def _measure_channels(
    plan: Plan, place: Place, node: ServerUnderTest, pool: PqcPool, findings: _Findings
) -> None:
    cells = plan.cells(cutting=bool(place.names))
    async with AsyncExitStack() as stack:
        contenders = [
            await stack.enter_async_context(open_channels(place, node, pool, max(plan.sessions))),
            *await stack.enter_async_context(_yardsticks(place, max(plan.sessions), findings.notes)),
        ]
        process = await stack.enter_async_context(running_load(contenders, cpus_for_load()))
        for cell in cells:
            place.cut_trains(on=cell.cut)
            load = Load(
                sessions=cell.sessions, train=cell.train, payload_bytes=cell.payload_bytes, seconds=plan.seconds
            )
            results = findings.channel[cell] = {contender.name: [] for contender in contenders}
            for _ in range(plan.rounds):
                for contender in contenders:
                    findings.progress.step(
                        f"{cell.form}, {cell.payload_bytes} bytes, {cell.sessions}: {contender.name}"
                    )
                    results[contender.name].append(await process.measure(contender, load))
        place.cut_trains(on=False)


@asynccontextmanager
async def _yardsticks(place: Place, sessions: int, notes: list[str]) -> AsyncIterator[list[Contender]]:
    """Start coturn and the forwarder; a note says why one of them is missing."""
    async with AsyncExitStack() as stack:
        started = []
        for name, start in ((COTURN, running_coturn), (FORWARDER, running_forwarder)):
            try:
                started.append(stack.enter_context(start(place, sessions)))
            except CannotBootError as error:
                notes.append(f"Without {name}: {error}.")
        yield started


async def _measure_stream_relay(
    plan: Plan, place: Place, node: ServerUnderTest, pool: PqcPool, findings: _Findings
) -> None:
    most = max(plan.sessions)
    async with AsyncExitStack() as stack:
        relayed = await stack.enter_async_context(open_relay_sessions(place, node, pool, most))
        runs: list[tuple[str, Direction, ServerUnderTest, list[StreamSession]]] = [
            (name, direction, node, relayed) for direction, name in _STREAM.items()
        ]
        for name, loop in ((_STOCK, "asyncio"), (_STOCK_UVLOOP, "uvloop")):
            stock = stack.enter_context(running_stock_server(loop, place.server))
            pin_relay(stock.pid)
            echoes = await stack.enter_async_context(open_stock_streams(place, stock, pool, most))
            runs.append((name, Direction.ECHO, stock, echoes))
        loads = [(size, count) for size in plan.sizes for count in plan.sessions]
        for size, count in loads:
            load = StreamLoad(payload_bytes=size, seconds=plan.seconds)
            results = findings.stream[size, count] = {name: [] for name, *_ in runs}
            for _ in range(plan.rounds):
                for name, direction, server, sessions in runs:
                    findings.progress.step(f"{size} bytes, {count}: {name}")
                    results[name].append(await measure_streams(sessions[:count], direction, load, server))


def _notes(plan: Plan, place: Place, findings: _Findings) -> list[str]:
    program = find_coturn()
    notes = [
        f"Across {place.description}; {plan.rounds} rounds of {plan.seconds:g} s in turn; medians, and half the range.",
        "Per CPU second: payloads delivered for a second of the relay's own user and system time; busy: its CPU time.",
        "A ratio is the median of the ratios of the rounds.",
    ]
    if findings.channel:
        notes.append(
            "A node reads up to 16 datagrams or trains at once and sends on those of one peer as a train, however they "
            "came; coturn takes and sends each by itself."
        )
        if place.names:
            notes.append(
                "Trains leave whole, as with a card that cuts them, or are cut by the kernel at the relay's cost; also "
                "those that a node makes of single datagrams."
            )
        else:
            notes.append("On loopback trains are never cut; namespaces (as root) show what that costs, too.")
        if program is not None:
            notes.append(f"coturn {coturn_version(program)}, one relay thread, no authentication.")
    if findings.stream:
        notes.append(
            "Stream relay and echo have the same client. An echo carries each payload over QUIC twice; so does "
            "'there and back', which counts it once and has UDP on top."
        )
    return notes + findings.notes
