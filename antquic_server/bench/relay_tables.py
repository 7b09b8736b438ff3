"""The tables of ``bench relay``, from what was measured."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from antquic_server.bench.relay_load import LoadResult
from antquic_server.bench.relay_plan import Cell
from antquic_server.bench.report import Column, Table

__all__ = ["ChannelResults", "StreamResults", "channel_table", "ratios", "stream_table", "target_table"]

ChannelResults = Mapping[Cell, Mapping[str, Sequence[LoadResult]]]
"""Results by cell and relay, round by round."""

StreamResults = Mapping[tuple[int, int], Mapping[str, Sequence[LoadResult]]]
"""Results by payload bytes and sessions, and by what carried it, round by round."""

_FIGURES = (
    Column(name="per CPU second", unit="1/s", better="higher"),
    Column(name="+- %", unit="%"),
    Column(name="Gb/s per core", unit="Gb/s", better="higher"),
    Column(name="busy %", unit="%"),
    Column(name="lost %", unit="%", better="lower"),
)

_LONG_TRAIN = 10
"""Datagrams in a train from which on the target counts."""


def ratios(results: Sequence[LoadResult], yardstick: Sequence[LoadResult]) -> list[float]:
    """
    Return the ratio of each round.

    The two of a round are measured right after one another: what else the machine does meanwhile hits both.
    """
    return [ours.per_cpu_s / other.per_cpu_s for ours, other in zip(results, yardstick, strict=True)]


def channel_table(results: ChannelResults, yardstick: str) -> Table:
    """One row for each cell and relay."""
    table = Table(
        title="relay of datagrams, client to peer",
        columns=(
            *("datagrams", "payload bytes", "sessions", "relay"),
            *_FIGURES,
            Column(name=f"x {yardstick}", unit="x", better="higher"),
        ),
        chart="Gb/s per core",
    )
    for cell, relays in results.items():
        for name, rounds in relays.items():
            table.rows.append(
                (
                    cell.form,
                    cell.payload_bytes,
                    cell.sessions,
                    name,
                    *_figures(rounds, cell.payload_bytes),
                    _ratio(relays, name, yardstick),
                )
            )
    return table


def stream_table(results: StreamResults, yardstick: str) -> Table:
    """One row for each load and direction."""
    table = Table(
        title="stream relay against a stream echo: payload carried per second of the server's CPU time",
        columns=(
            *("payload bytes", "sessions", "server"),
            *_FIGURES,
            Column(name=f"x {yardstick}", unit="x", better="higher"),
        ),
        chart=f"x {yardstick}",
    )
    for (payload_bytes, sessions), servers in results.items():
        for name, rounds in servers.items():
            table.rows.append(
                (payload_bytes, sessions, name, *_figures(rounds, payload_bytes), _ratio(servers, name, yardstick))
            )
    return table


def target_table(
    channel: ChannelResults,
    stream: StreamResults,
    *,
    relay: str,
    coturn: str,
    stock: str,
    streams: Mapping[str, float | None],
) -> Table:
    """What the project has set itself, and the worst and the median cell of this run; ``streams`` by name."""
    table = Table(
        title="targets",
        columns=(
            "ratio",
            Column(name="at least", unit="x"),
            Column(name="worst", unit="x", better="higher"),
            Column(name="median", unit="x", better="higher"),
            Column(name="cells"),
            Column(name="met"),
        ),
    )

    def add(what: str, target: float | None, found: list[float]) -> None:
        if found:
            worst = min(found)
            met = None if target is None else "yes" if worst >= target else "no"
            table.rows.append((what, target, worst, statistics.median(found), len(found), met))

    singles = [relays for cell, relays in channel.items() if cell.train == 1]
    trains = [relays for cell, relays in channel.items() if cell.train >= _LONG_TRAIN]
    add("channel relay / coturn, single datagrams", 0.5, _all_ratios(singles, relay, coturn))
    add(f"channel relay / coturn, trains of {_LONG_TRAIN} or more", 2.0, _all_ratios(trains, relay, coturn))
    for name, target in streams.items():
        add(f"{name} / {stock}", target, _all_ratios(stream.values(), name, stock))
    return table


def _figures(rounds: Sequence[LoadResult], payload_bytes: int) -> tuple[float, float, float, float, float]:
    """Median rate, half of its range in per cent, Gb/s of one core, share of the time on a CPU, share lost."""
    rates = [item.per_cpu_s for item in rounds]
    median = statistics.median(rates)
    return (
        median,
        50 * (max(rates) - min(rates)) / median,
        median * payload_bytes * 8 / 1e9,
        100 * statistics.median(item.busy_share for item in rounds),
        100 * statistics.median(item.lost_share for item in rounds),
    )


def _all_ratios(cells: Iterable[Mapping[str, Sequence[LoadResult]]], name: str, yardstick: str) -> list[float]:
    found = [_ratio(relays, name, yardstick) for relays in cells]
    return [ratio for ratio in found if ratio is not None]


def _ratio(relays: Mapping[str, Sequence[LoadResult]], name: str, yardstick: str) -> float | None:
    if name not in relays or yardstick not in relays:
        return None
    return statistics.median(ratios(relays[name], relays[yardstick]))
