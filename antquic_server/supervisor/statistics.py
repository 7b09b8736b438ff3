"""
The line of the log that says how the node as a whole is doing, every ``log.stats_interval_s`` and once more at the end.

What it holds::

    active_connections, relay_channels ...                 as they are now
    bytes_sent, handshakes, successful_hole_punches ...    since the node has started
    bytes_sent_per_s, handshakes_per_s ...                 over the interval, whose length is interval_s

Pure: the counters of the node and the time come in, the fields of a line come out.
"""

from collections.abc import Mapping
from typing import Final

from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.stats.counters import SEPARATOR, series_key
from antquic_server.supervisor.punches import FAILED, SUCCESSFUL

__all__ = ["Statistics"]

_GAUGES: Final = {
    "active_connections": "active_connections",
    "handshakes_in_flight": "handshakes_in_flight",
    "relay_channels": series_key("relay_sessions", RelayMode.CHANNEL),
    "relay_streams": series_key("relay_sessions", RelayMode.STREAM),
}
_COUNTERS: Final = {
    "bytes_sent": "bytes_sent",
    "bytes_received": "bytes_received",
    "datagrams_sent": "datagrams_sent",
    "datagrams_received": "datagrams_received",
    "handshakes": "handshakes",
    "handshake_failures": "handshake_failures",
    "introductions": "introductions",
    "successful_hole_punches": SEPARATOR.join(("hole_punches", SUCCESSFUL)),
    "failed_hole_punches": SEPARATOR.join(("hole_punches", FAILED)),
    "relayed_bytes": "relay_bytes",
    "drops": "drops",
    "relay_drops": "relay_drops",
    "worker_restarts": "worker_restarts",
}
"""Field of the line, and the beginning of the keys of what it adds up."""
_RATES: Final = (
    "bytes_sent",
    "bytes_received",
    "datagrams_sent",
    "datagrams_received",
    "handshakes",
    "relayed_bytes",
    "drops",
)


class Statistics:
    """
    What the line says, from one to the next.

    ``totals`` are counters and gauges of the whole node, keys as in ``stats.counters``; time is monotonic seconds.
    """

    def __init__(self, now_s: float) -> None:
        self._last_s = now_s
        self._last: dict[str, float] = {}

    def line(self, totals: Mapping[str, float], now_s: float) -> dict[str, float]:
        """Return the fields of a line; the interval that its rates are over begins with the line before."""
        interval_s = now_s - self._last_s
        sums = {field: _sum(totals, start) for field, start in _COUNTERS.items()}
        rates = {
            f"{field}_per_s": round((sums[field] - self._last.get(field, 0)) / interval_s if interval_s > 0 else 0.0, 3)
            for field in _RATES
        }
        gauges = {field: totals.get(key, 0) for field, key in _GAUGES.items()}
        self._last_s, self._last = now_s, sums
        return {**gauges, **sums, **rates, "interval_s": round(interval_s, 3)}


def _sum(totals: Mapping[str, float], start: str) -> float:
    return sum(value for key, value in totals.items() if key == start or key.startswith(start + SEPARATOR))
