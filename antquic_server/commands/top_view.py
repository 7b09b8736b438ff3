"""
One frame of ``antquic-server top``: figures in, something that ``rich`` can print out.

A frame fits the terminal: columns give way from the right of their importance where it is narrow, rows where it is low,
and what was left out is said. Nothing here looks at a clock or a node.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from antquic_server.commands.status_figures import Figures
from antquic_server.commands.status_values import (
    UNKNOWN,
    count,
    decimal_rate,
    duration,
    milliseconds,
    number,
    percent,
    size,
    size_rate,
    table,
    text,
)

__all__ = ["TALKER_ORDERS", "WORKER_ORDERS", "History", "View", "render", "sparkline"]

HISTORY_LENGTH = 60
"""Points of a sparkline at most: a minute, at one answer a second."""

BUSY_PERCENT = 90.0
"""Of one core: a worker that needs more soon keeps its peers waiting."""

KEYS_HELP = "q quit   p pause   t or ←→ order of talkers   w or ↑↓ order of workers"

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-=+*#@"
_HEADING = "bold"
_GOOD, _WARNING, _BAD, _FAINT = "green", "yellow", "bold red", "dim"


@dataclass(slots=True)
class History:
    """The last rates of the node's throughput, bytes per second, the newest last."""

    received: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)

    def add(self, figures: Figures) -> None:
        """Take the rates of one more answer, if it has any."""
        for values, name in ((self.received, "bytes_received"), (self.sent, "bytes_sent")):
            per_s = figures.rate(name)
            if per_s is not None:
                values.append(per_s)
                del values[:-HISTORY_LENGTH]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """
    How to show it: ``width`` and ``height`` in characters (``height`` None: as many lines as there are).

    ``trouble`` is why there is no newer answer, ``keys`` whether somebody can press any.
    """

    width: int
    height: int | None = None
    url: str = ""
    interval_s: float = 1.0
    paused: bool = False
    trouble: str = ""
    talker_order: str = "total"
    worker_order: str = "slot"
    keys: bool = False
    unicode: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """``from_width`` is the narrowest terminal that shows it."""

    title: str
    value: Callable[[Figures, Mapping[str, object]], str]
    from_width: int = 0
    left: bool = False


def _plain(key: str, form: Callable[[object], str]) -> Callable[[Figures, Mapping[str, object]], str]:
    return lambda _, row: form(row.get(key))


def _of_worker(name: str, form: Callable[[object], str]) -> Callable[[Figures, Mapping[str, object]], str]:
    return lambda figures, row: form(figures.worker_rate(row, name))


def _address(_: Figures, row: Mapping[str, object]) -> str:
    host, port = row.get("host"), row.get("port")
    if not host:
        return UNKNOWN
    return f"[{text(host)}]:{text(port)}" if ":" in str(host) else f"{text(host)}:{text(port)}"


def _peer(_: Figures, row: Mapping[str, object]) -> str:
    shown = text(row.get("peer_id") or "no identity")
    return shown if len(shown) <= 16 else f"{shown[:15]}…"


def _handshakes_of(figures: Figures, row: Mapping[str, object]) -> str:
    per_s = figures.worker_rate(row, "handshakes")
    return decimal_rate(0.0 if per_s is None and figures.has_rates else per_s)


_WORKER_COLUMNS = (
    _Column(title="SLOT", value=_plain("slot", text)),
    _Column(title="PID", value=_plain("pid", text), from_width=50),
    _Column(title="STATE", value=_plain("state", text), left=True),
    _Column(title="RESTARTS", value=_plain("restarts", text), from_width=70),
    _Column(title="CPU", value=_plain("cpu_percent", percent)),
    _Column(title="MEMORY", value=_plain("rss_bytes", size), from_width=60),
    _Column(title="CONNS", value=_plain("connections", count)),
    _Column(title="HANDSHAKES", value=_handshakes_of, from_width=90),
    _Column(title="IN", value=_of_worker("bytes_received", size_rate), from_width=80),
    _Column(title="OUT", value=_of_worker("bytes_sent", size_rate), from_width=80),
    _Column(title="LOOP LAG", value=_plain("loop_lag_s", milliseconds), from_width=40),
    _Column(title="HEARTBEAT", value=_plain("heartbeat_age_s", milliseconds), from_width=110),
)

_TALKER_COLUMNS = (
    _Column(title="PEER", value=_peer, left=True),
    _Column(title="ADDRESS", value=_address, from_width=70, left=True),
    _Column(title="SLOT", value=_plain("slot", text), from_width=100),
    _Column(title="IN", value=_plain("received_bytes_per_s", size_rate)),
    _Column(title="OUT", value=_plain("sent_bytes_per_s", size_rate)),
    _Column(title="RELAYED", value=_plain("relayed_bytes_per_s", size_rate), from_width=80),
    _Column(title="IN TOTAL", value=_plain("bytes_received", size), from_width=100),
    _Column(title="OUT TOTAL", value=_plain("bytes_sent", size), from_width=100),
)


def _value(row: Mapping[str, object], *keys: str) -> float:
    return sum(number(row.get(key)) or 0.0 for key in keys)


WORKER_ORDERS: Mapping[str, Callable[[Figures, Mapping[str, object]], float]] = {
    "slot": lambda _, row: _value(row, "slot"),
    "cpu": lambda _, row: -_value(row, "cpu_percent"),
    "memory": lambda _, row: -_value(row, "rss_bytes"),
    "connections": lambda _, row: -_value(row, "connections"),
    "throughput": lambda figures, row: (
        -sum(figures.worker_rate(row, name) or 0.0 for name in ("bytes_received", "bytes_sent"))
    ),
    "lag": lambda _, row: -_value(row, "loop_lag_s"),
}
"""What the workers can be ordered by, and the key to sort them with."""

TALKER_ORDERS: Mapping[str, Callable[[Figures, Mapping[str, object]], float]] = {
    "total": lambda _, row: -_value(row, "received_bytes_per_s", "sent_bytes_per_s"),
    "in": lambda _, row: -_value(row, "received_bytes_per_s"),
    "out": lambda _, row: -_value(row, "sent_bytes_per_s"),
    "relayed": lambda _, row: -_value(row, "relayed_bytes_per_s"),
}
"""What the talkers can be ordered by."""


def sparkline(values: Sequence[float], width: int, *, unicode: bool = True) -> str:
    """Draw the last ``width`` values as a line of bars, the largest of them of full height."""
    shown = values[-width:] if width > 0 else []
    blocks = _BLOCKS if unicode else _ASCII_BLOCKS
    largest = max(shown, default=0.0)
    if largest <= 0:
        return blocks[0] * len(shown)
    return "".join(blocks[round(max(0.0, value) / largest * (len(blocks) - 1))] for value in shown)


def render(figures: Figures, history: History, view: View) -> RenderableType:
    """Return one frame."""
    head = [*_title(figures, view), *_summary(figures, history, view)][: view.height]
    has_room = view.height is None or view.height > len(head)
    footer = [Text(KEYS_HELP, style=_FAINT)] if view.keys and has_room else []
    wanted = [
        _Rows("WORKERS", f"by {view.worker_order}", _WORKER_COLUMNS, _sorted_workers(figures, view)),
        _Rows("TOP TALKERS", f"by {view.talker_order}", _TALKER_COLUMNS, _sorted_talkers(figures, view)),
        _Rows("DROPPED AND REFUSED", "since the start, and now", _LOSS_COLUMNS, _loss_rows(figures)),
    ]
    rooms = _divide(None if view.height is None else view.height - len(head) - len(footer), wanted)
    parts: list[RenderableType] = [*head]
    for rows, room in zip(wanted, rooms, strict=True):
        parts += _section(figures, rows, view, room)
    return Group(*map(_cropped, [*parts, *footer]))


@dataclass(frozen=True, slots=True)
class _Rows:
    """A section of the frame: a table with a heading."""

    title: str
    remark: str
    columns: Sequence[_Column]
    rows: Sequence[Mapping[str, object]]


_FRAME_LINES = 3
"""Of a section: an empty line, the heading, the titles of its columns."""


def _divide(lines: int | None, wanted: Sequence[_Rows]) -> list[int]:
    """Return how many rows each section may have; in a low terminal the first are served first."""
    if lines is None:
        return [len(rows.rows) for rows in wanted]
    rooms = []
    for index, rows in enumerate(wanted):
        later = sum(_FRAME_LINES + 1 for other in wanted[index + 1 :] if other.rows)
        room = max(0, min(len(rows.rows), max(lines - later, min(lines, _FRAME_LINES + 1)) - _FRAME_LINES))
        rooms.append(room)
        lines -= room + _FRAME_LINES if room else 0
    return rooms


def _section(figures: Figures, rows: _Rows, view: View, room: int) -> list[RenderableType]:
    if not rows.rows or room <= 0:
        return []
    shown = rows.rows[:room]
    left_out = len(rows.rows) - len(shown)
    remark = f"{rows.remark}, {left_out} more" if left_out else rows.remark
    heading = Text.assemble((rows.title, _HEADING), "  ", (remark, _FAINT))
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="underline")
    columns = [column for column in rows.columns if view.width >= column.from_width]
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.left else "right"
        grid.add_column(column.title, justify=justify, no_wrap=True, overflow="ellipsis")
    for row in shown:
        grid.add_row(*(_styled(column, column.value(figures, row), row) for column in columns))
    return [Text(""), heading, grid]


def _styled(column: _Column, cell: str, row: Mapping[str, object]) -> Text:
    if column.title == "STATE":
        return Text(cell, style=_GOOD if cell == "ready" else _WARNING)
    busy = column.title == "CPU" and _value(row, "cpu_percent") >= BUSY_PERCENT
    happening = column.title == "NOW" and _value(row, "per_s") > 0.0
    return Text(cell, style=_WARNING if busy or happening else "")


def _cropped(part: RenderableType) -> RenderableType:
    if isinstance(part, Text):
        part.no_wrap = True
        part.overflow = "ellipsis"
    return part


# Rows.


def _sorted_workers(figures: Figures, view: View) -> list[Mapping[str, object]]:
    order = WORKER_ORDERS[view.worker_order]
    return sorted(figures.workers, key=lambda row: (order(figures, row), _value(row, "slot")))


def _sorted_talkers(figures: Figures, view: View) -> list[Mapping[str, object]]:
    order = TALKER_ORDERS[view.talker_order]
    return sorted(figures.talkers, key=lambda row: order(figures, row))


def _loss_rows(figures: Figures) -> list[Mapping[str, object]]:
    return [
        {"what": loss.what, "reason": loss.reason, "total": loss.total, "per_s": loss.per_s}
        for loss in figures.losses()
    ]


_LOSS_COLUMNS = (
    _Column(title="WHAT", value=_plain("what", text), left=True),
    _Column(title="REASON", value=_plain("reason", text), left=True),
    _Column(title="TOTAL", value=_plain("total", count)),
    _Column(title="NOW", value=_plain("per_s", decimal_rate)),
)


# The lines above the tables.


def _title(figures: Figures, view: View) -> list[Text]:
    node = figures.node
    state, style = "serving", _GOOD
    if node.get("healthy") is False:
        state, style = "not healthy", _BAD
    if node.get("draining") is True:
        state, style = "draining", _WARNING
    if view.trouble:
        state, style = "not answering", _BAD
    line = Text.assemble(
        ("antquic-server", _HEADING),
        f" {text(node.get('version'))}  ",
        (state, style),
        f" {duration(node.get('uptime_s'))}",
    )
    if view.paused:
        line.append("  PAUSED", style=_WARNING)
    peer_id = text(node.get("peer_id"))
    line.append(f"  {peer_id if view.width >= 140 else peer_id[:12] + '…'}", style=_FAINT)
    line.append(f"  {text(view.url)}", style=_FAINT)
    line.append(f"  every {view.interval_s:g} s", style=_FAINT)
    if view.trouble:
        return [line, Text(f"trying again: {text(view.trouble)}", style=_BAD)]
    return [line]


def _summary(figures: Figures, history: History, view: View) -> list[Text]:
    bars = max(0, min(HISTORY_LENGTH, view.width - _BARS_FROM_COLUMN))
    lines = [
        ("connections", _connections(figures)),
        ("handshakes", _handshakes(figures)),
        ("received", _throughput(figures, "received", sparkline(history.received, bars, unicode=view.unicode))),
        ("sent", _throughput(figures, "sent", sparkline(history.sent, bars, unicode=view.unicode))),
        *_relay(figures),
        *_punches(figures),
    ]
    return [Text.assemble((f"{title:<13}", _FAINT), shown) for title, shown in lines]


_BARS_FROM_COLUMN = 54


def _connections(figures: Figures) -> str:
    directory = figures.directory
    return (
        f"{count(figures.total('active_connections'))}, {count(figures.total('handshakes_in_flight'))} handshakes in "
        f"flight; {count(directory.get('peers'))} listed peers"
    )


def _handshakes(figures: Figures) -> str:
    completed, failed = (_rate_or_none_yet(figures, name) for name in ("handshakes", "handshake_failures"))
    return f"{decimal_rate(completed)}, failed {decimal_rate(failed)}"


def _rate_or_none_yet(figures: Figures, name: str) -> float | None:
    """Return the rate of a counter with labels, of which a node says nothing as long as nothing has happened."""
    per_s = figures.rate(name)
    return 0.0 if per_s is None and figures.has_rates else per_s


def _throughput(figures: Figures, direction: str, bars: str) -> str:
    moved, datagrams = figures.rate(f"bytes_{direction}"), figures.rate(f"datagrams_{direction}")
    # Of a fixed width, so that the bars stay where they are.
    return f"{size_rate(moved):>11}  {decimal_rate(datagrams):>11} datagrams  {bars}".rstrip()


def _relay(figures: Figures) -> list[tuple[str, str]]:
    relay = figures.relay
    if not relay:
        return []
    sessions, introductions = table(relay.get("sessions")), table(relay.get("introductions"))
    off = "" if relay.get("enabled") is True else "off; "
    direct, relayed = number(introductions.get("direct")), number(introductions.get("relayed"))
    share = ""
    if direct is not None and relayed is not None and direct + relayed > 0:
        share = f" ({percent(100 * relayed / (direct + relayed))} relayed)"
    held = f"{count(sessions.get('channel'))} channels, {count(sessions.get('stream'))} stream sessions"
    return [
        ("relay", f"{off}{held}, {size_rate(_rate_or_none_yet(figures, 'relay_bytes'))}"),
        ("introduced", f"{count(direct)} direct, {count(relayed)} relayed{share}"),
    ]


def _punches(figures: Figures) -> list[tuple[str, str]]:
    """Nothing for a node that says nothing of hole punches."""
    successful, failed = number(figures.punches.get("successful")), number(figures.punches.get("failed"))
    if successful is None and failed is None:
        return []
    share = ""
    if successful is not None and failed is not None and successful + failed > 0:
        share = f" ({percent(100 * successful / (successful + failed))} successful)"
    return [("punches", f"{count(successful)} successful, {count(failed)} failed{share}")]
