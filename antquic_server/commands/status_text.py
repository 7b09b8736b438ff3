"""
A node's status as text for people.

Plain aligned columns: they survive ``watch``, ``grep``, a serial console and a pasted report, which drawn
tables do not. Nothing is assumed about the answer beyond its sections, so that an older command can show a
newer node: a missing value is ``-``, and a counter this module has never heard of is listed by its name.
"""

from collections.abc import Callable, Mapping, Sequence

__all__ = ["render_status"]

_UNKNOWN = "-"

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

_NOT_LISTED = frozenset((*_SUMMARY_COUNTERS, *_RELAY_COUNTERS, "loop_lag_s"))
"""Loop lag is shown per worker; of all workers together it means nothing."""


def render_status(status: Mapping[str, object]) -> str:
    """Turn the answer of ``/status`` (see ``commands.status``) into text without a final newline."""
    node, totals = _table(status.get("node")), _table(status.get("totals"))
    directory = _table(status.get("directory"))
    workers = status.get("workers")
    rows = [_table(worker) for worker in workers] if isinstance(workers, list) else []
    blocks = [
        _columns([*_node_rows(node, totals, directory), *_relay_rows(_table(status.get("relay")))]),
        _columns([[title for title, _, _ in _WORKER_COLUMNS], *map(_worker_row, rows)], right=True),
        _columns(_counter_rows(totals)),
    ]
    return "\n\n".join(block for block in blocks if block)


def _node_rows(
    node: Mapping[str, object], totals: Mapping[str, object], directory: Mapping[str, object]
) -> list[list[str]]:
    listen = node.get("listen")
    addresses = ", ".join(map(_text, listen)) if isinstance(listen, list) else _UNKNOWN
    state = "not healthy" if node.get("healthy") is False else "serving"
    state = "draining" if node.get("draining") is True else state
    peers = f"{_count(directory.get('peers'))} peers with {_count(directory.get('connections'))} connections"
    handshakes = _count(totals.get("handshakes_in_flight", 0))
    active = f"{_count(totals.get('active_connections', 0))} ({handshakes} handshakes in flight)"
    return [
        ["node", f"{state} for {_duration(node.get('uptime_s'))}, version {_text(node.get('version'))}"],
        ["peer id", _text(node.get("peer_id"))],
        ["listen", addresses],
        ["provider", _text(node.get("pqc_provider"))],
        ["connections", active],
        ["directory", peers],
        ["received", _traffic(totals, "received")],
        ["sent", _traffic(totals, "sent")],
    ]


def _relay_rows(relay: Mapping[str, object]) -> list[list[str]]:
    """Nothing for a node that says nothing of a relay."""
    if not relay:
        return []
    sessions, introductions = _table(relay.get("sessions")), _table(relay.get("introductions"))
    delivered, canary = _table(relay.get("delivered")), _table(relay.get("canary"))
    channel, stream = (_table(delivered.get(mode)).get("bytes") for mode in ("channel", "stream"))
    state = "" if relay.get("enabled") is True else "off; "
    held = (
        f"{_count(sessions.get('channel'))} channels and {_count(sessions.get('stream'))} stream sessions "
        f"of {_count(sessions.get('peers'))} peers"
    )
    delays = (f"{_text(mode)} {_milliseconds(_table(canary[mode]).get('latency_s'))}" for mode in canary)
    return [
        ["relay", state + held],
        ["relayed", f"{_size(channel)} by channel, {_size(stream)} by stream"],
        ["canary", ", ".join(delays) or _UNKNOWN],
        ["introduced", f"{_count(introductions.get('direct'))} direct, {_count(introductions.get('relayed'))} relayed"],
    ]


def _traffic(totals: Mapping[str, object], direction: str) -> str:
    datagrams, octets = totals.get(f"datagrams_{direction}", 0), totals.get(f"bytes_{direction}", 0)
    return f"{_size(octets)} in {_count(datagrams)} datagrams"


def _worker_row(worker: Mapping[str, object]) -> list[str]:
    return [form(worker.get(key)) for _, key, form in _WORKER_COLUMNS]


def _counter_rows(totals: Mapping[str, object]) -> list[list[str]]:
    """One row per metric that is not zero, with the values of its labels side by side."""
    by_name: dict[str, list[str]] = {}
    for key in sorted(totals):
        name, _, label = key.partition("|")
        if name in _NOT_LISTED or totals[key] == 0:
            continue
        shown = _count(totals[key])
        by_name.setdefault(name, []).append(f"{_text(label.replace('|', ' '))} {shown}" if label else shown)
    return [[_text(name).replace("_", " "), ", ".join(values)] for name, values in by_name.items()]


def _columns(rows: Sequence[Sequence[str]], *, right: bool = False) -> str:
    """Align cells in columns two blanks apart, to the left or, as for numbers, to the right."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = str.rjust if right else str.ljust
    lines = ("  ".join(align(cell, width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    """Show a string or number; characters that could command a terminal are escaped."""
    if value is None:
        return _UNKNOWN
    text = str(value)
    return text if text.isprintable() else ascii(text)[1:-1]


def _count(value: object) -> str:
    number = _number(value)
    return _UNKNOWN if number is None else f"{number:,.0f}"


def _percent(value: object) -> str:
    number = _number(value)
    return _UNKNOWN if number is None else f"{number:.1f}%"


def _milliseconds(value: object) -> str:
    number = _number(value)
    return _UNKNOWN if number is None else f"{number * 1000:.1f} ms"


def _size(value: object) -> str:
    number = _number(value)
    if number is None:
        return _UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _duration(value: object) -> str:
    number = _number(value)
    if number is None:
        return _UNKNOWN
    minutes, seconds = divmod(int(number), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    first = next((index for index, (amount, _) in enumerate(parts) if amount), len(parts) - 1)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2])


_WORKER_COLUMNS: tuple[tuple[str, str, Callable[[object], str]], ...] = (
    ("SLOT", "slot", _text),
    ("PID", "pid", _text),
    ("STATE", "state", _text),
    ("GENERATION", "generation", _text),
    ("RESTARTS", "restarts", _text),
    ("CPU", "cpu_percent", _percent),
    ("MEMORY", "rss_bytes", _size),
    ("FILES", "open_files", _text),
    ("CONNECTIONS", "connections", _count),
    ("LOOP LAG", "loop_lag_s", _milliseconds),
    ("HEARTBEAT", "heartbeat_age_s", _milliseconds),
)
"""Title, key in the answer, and form of every column of the worker table."""
