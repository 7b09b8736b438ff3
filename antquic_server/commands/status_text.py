"""
A node's status as text for people.

Plain aligned columns: they survive ``watch``, ``grep``, a serial console and a pasted report, which drawn
tables do not. Nothing is assumed about the answer beyond its sections, so that an older command can show a
newer node: a missing value is ``-``, and a counter this module has never heard of is listed by its name.
"""

from collections.abc import Callable, Mapping, Sequence

from antquic_server.commands.status_figures import LOSSES, Answer, Figures
from antquic_server.commands.status_values import (
    UNKNOWN,
    count,
    decimal_rate,
    duration,
    milliseconds,
    percent,
    size,
    size_rate,
    table,
    text,
)

__all__ = ["render_status"]

_SUMMARY_COUNTERS = (
    "active_connections",
    "handshakes_in_flight",
    "datagrams_received",
    "datagrams_sent",
    "bytes_received",
    "bytes_sent",
)
"""Counters shown in the summary, and so not again in the list."""

_RELAY_COUNTERS = ("introductions", "relay_bytes", "relay_canary_latency_s", "relay_sessions")
"""Shown in words in the summary."""

_NOT_LISTED = frozenset((*_SUMMARY_COUNTERS, *_RELAY_COUNTERS, *LOSSES, "loop_lag_s"))
"""Loop lag is shown per worker; of all workers together it means nothing."""


def render_status(now: Answer, before: Answer | None = None) -> str:
    """
    Turn the answer of ``/status`` (see ``commands.status``) into text without a final newline.

    ``before`` is an older answer of the node, which the rates are taken since; without it there are none.
    """
    figures = Figures(now, before)
    blocks = [
        _columns([*_node_rows(figures), *_relay_rows(figures), *_punch_rows(figures)]),
        _columns([[title for title, _, _ in _WORKER_COLUMNS], *map(_worker_row, figures.workers)], right=True),
        _with_titles(
            ("PEER", "ADDRESS", "SLOT", "IN", "OUT", "RELAYED", "IN TOTAL", "OUT TOTAL"), _talker_rows(figures)
        ),
        _with_titles(("DROPPED OR REFUSED", "REASON", "TOTAL", "NOW"), _loss_rows(figures)),
        _columns(_counter_rows(figures.totals)),
    ]
    return "\n\n".join(block for block in blocks if block)


def _node_rows(figures: Figures) -> list[list[str]]:
    node, totals, directory = figures.node, figures.totals, figures.directory
    listen = node.get("listen")
    addresses = ", ".join(map(text, listen)) if isinstance(listen, list) else UNKNOWN
    state = "not healthy" if node.get("healthy") is False else "serving"
    state = "draining" if node.get("draining") is True else state
    peers = f"{count(directory.get('peers'))} peers with {count(directory.get('connections'))} connections"
    handshakes = count(totals.get("handshakes_in_flight", 0))
    active = f"{count(totals.get('active_connections', 0))} ({handshakes} handshakes in flight)"
    if figures.has_rates:
        active += f", {decimal_rate(figures.rate('handshakes') or 0.0)} handshakes"
    return [
        ["node", f"{state} for {duration(node.get('uptime_s'))}, version {text(node.get('version'))}"],
        ["peer id", text(node.get("peer_id"))],
        ["listen", addresses],
        ["provider", text(node.get("pqc_provider"))],
        ["connections", active],
        ["directory", peers],
        ["received", _traffic(figures, "received")],
        ["sent", _traffic(figures, "sent")],
    ]


def _traffic(figures: Figures, direction: str) -> str:
    datagrams, octets = (figures.totals.get(f"{what}_{direction}", 0) for what in ("datagrams", "bytes"))
    shown = f"{size(octets)} in {count(datagrams)} datagrams"
    return f"{shown}, {size_rate(figures.rate(f'bytes_{direction}'))}" if figures.has_rates else shown


def _relay_rows(figures: Figures) -> list[list[str]]:
    """Nothing for a node that says nothing of a relay."""
    relay = figures.relay
    if not relay:
        return []
    sessions, introductions = table(relay.get("sessions")), table(relay.get("introductions"))
    delivered, canary = table(relay.get("delivered")), table(relay.get("canary"))
    channel, stream = (table(delivered.get(mode)).get("bytes") for mode in ("channel", "stream"))
    state = "" if relay.get("enabled") is True else "off; "
    held = (
        f"{count(sessions.get('channel'))} channels and {count(sessions.get('stream'))} stream sessions "
        f"of {count(sessions.get('peers'))} peers"
    )
    moved = f"{size(channel)} by channel, {size(stream)} by stream"
    if figures.has_rates:
        moved += f", {size_rate(figures.rate('relay_bytes') or 0.0)}"
    delays = (f"{text(mode)} {milliseconds(table(canary[mode]).get('latency_s'))}" for mode in canary)
    return [
        ["relay", state + held],
        ["relayed", moved],
        ["canary", ", ".join(delays) or UNKNOWN],
        ["introduced", f"{count(introductions.get('direct'))} direct, {count(introductions.get('relayed'))} relayed"],
    ]


def _punch_rows(figures: Figures) -> list[list[str]]:
    """Nothing for a node that says nothing of hole punches."""
    punches = figures.punches
    if not punches:
        return []
    return [["punches", f"{count(punches.get('successful'))} successful, {count(punches.get('failed'))} failed"]]


def _worker_row(worker: Mapping[str, object]) -> list[str]:
    return [form(worker.get(key)) for _, key, form in _WORKER_COLUMNS]


def _talker_rows(figures: Figures) -> list[list[str]]:
    return [
        [
            text(talker.get("peer_id") or "no identity"),
            f"{text(talker.get('host') or None)} {text(talker.get('port'))}",
            text(talker.get("slot")),
            size_rate(talker.get("received_bytes_per_s")),
            size_rate(talker.get("sent_bytes_per_s")),
            size_rate(talker.get("relayed_bytes_per_s")),
            size(talker.get("bytes_received")),
            size(talker.get("bytes_sent")),
        ]
        for talker in figures.talkers
    ]


def _loss_rows(figures: Figures) -> list[list[str]]:
    return [[loss.what, text(loss.reason), count(loss.total), decimal_rate(loss.per_s)] for loss in figures.losses()]


def _counter_rows(totals: Mapping[str, object]) -> list[list[str]]:
    """One row per metric that is not zero, with the values of its labels side by side."""
    by_name: dict[str, list[str]] = {}
    for key in sorted(totals):
        name, _, label = key.partition("|")
        if name in _NOT_LISTED or totals[key] == 0:
            continue
        shown = count(totals[key])
        by_name.setdefault(name, []).append(f"{text(label.replace('|', ' '))} {shown}" if label else shown)
    return [[text(name).replace("_", " "), ", ".join(values)] for name, values in by_name.items()]


def _with_titles(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their titles, words to the left and numbers to the right; nothing without rows."""
    if not rows:
        return ""
    numeric = [all(cell[:1].isdigit() or cell == UNKNOWN for cell in column) for column in zip(*rows, strict=True)]
    return _columns([titles, *rows], right=numeric)


def _columns(rows: Sequence[Sequence[str]], *, right: bool | Sequence[bool] = False) -> str:
    """Align cells in columns two blanks apart, to the left or, as for numbers, to the right."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [right] * len(widths) if isinstance(right, bool) else right
    aligns = [str.rjust if side else str.ljust for side in sides]
    lines = (
        "  ".join(align(cell, width) for cell, width, align in zip(row, widths, aligns, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


_WORKER_COLUMNS: tuple[tuple[str, str, Callable[[object], str]], ...] = (
    ("SLOT", "slot", text),
    ("PID", "pid", text),
    ("STATE", "state", text),
    ("GENERATION", "generation", text),
    ("RESTARTS", "restarts", text),
    ("CPU", "cpu_percent", percent),
    ("MEMORY", "rss_bytes", size),
    ("FILES", "open_files", text),
    ("CONNECTIONS", "connections", count),
    ("LOOP LAG", "loop_lag_s", milliseconds),
    ("HEARTBEAT", "heartbeat_age_s", milliseconds),
)
"""Title, key in the answer, and form of every column of the worker table."""
