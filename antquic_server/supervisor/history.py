"""
What the node did in the last minutes, second by second: the charts of the status page.

The document of ``/history``; every list has one number for each second, the oldest first::

    interval_s                   seconds between two numbers, as far as the supervisor keeps up
    kept_s                       how far back the node remembers
    t_s                          when, in seconds since the node started
    connections                  in the table of the workers, handshakes included
    received_bytes_per_s         UDP payload; likewise sent_bytes_per_s
    handshakes_per_s             completed; failed ones are in handshake_failures_per_s
    relayed_channel_bytes_per_s  delivered by relaying; likewise relayed_stream_bytes_per_s
    drops_per_s                  datagrams dropped on purpose, those of the relay included
    loop_lag_s                   largest delay of any event loop of the node in that second

A rate is that of each worker between two of its heartbeats, added up: a window of one second of the supervisor holds
three heartbeats now and five then, and a chart of what it holds would jitter. What a worker did between its last
look and its death is in the totals, not here.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from antquic_server.ipc.messages import Heartbeat
from antquic_server.stats.counters import SEPARATOR

__all__ = ["COLUMNS", "INTERVAL_S", "KEPT_POINTS", "BeatingWorker", "History"]

INTERVAL_S: Final = 1.0

KEPT_POINTS: Final = 300
"""Five minutes: what somebody who opens the page after an alarm wants to see. About 30 kB of memory."""

_RATES: Final[Mapping[str, str]] = {
    "bytes_received": "received_bytes_per_s",
    "bytes_sent": "sent_bytes_per_s",
    "handshakes": "handshakes_per_s",
    "handshake_failures": "handshake_failures_per_s",
    "relay_bytes|channel": "relayed_channel_bytes_per_s",
    "relay_bytes|stream": "relayed_stream_bytes_per_s",
    "drops": "drops_per_s",
    "relay_drops": "drops_per_s",
}
"""Which counters make a rate: by their key, or by their name where all labels go together."""

_RATE_COLUMNS: Final = tuple(dict.fromkeys(_RATES.values()))

COLUMNS: Final = ("t_s", "connections", *_RATE_COLUMNS, "loop_lag_s")
"""Lists of the document."""

_MICROSECONDS: Final = 6


class BeatingWorker(Protocol):
    """What is read of a worker; ``WorkerProcess``."""

    @property
    def pid(self) -> int:
        """Another process begins to count at zero."""

    @property
    def slot(self) -> int | None:
        """The slot it serves, None for a spare."""

    @property
    def heartbeat(self) -> Heartbeat | None:
        """The last one, None before the first."""

    @property
    def last_heartbeat_s(self) -> float:
        """When that came, monotonic seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """The counters of one worker at one heartbeat, in the order of ``_RATE_COLUMNS``."""

    pid: int
    beat_s: float
    counts: list[float]


class History:
    """
    A ring of the last ``KEPT_POINTS`` seconds.

    The work is one pass over the counters of each worker a second, however many connections and peers there are.
    ``started_s`` is when the node started, on the clock that ``tick`` is told.
    """

    def __init__(self, *, started_s: float) -> None:
        self._started_s = started_s
        self._points: deque[tuple[float, ...]] = deque(maxlen=KEPT_POINTS)
        self._readings: dict[int, _Reading] = {}
        self._sampled_s = self._due_s = started_s
        self._lag_s = 0.0

    def tick(self, workers: Iterable[BeatingWorker], own_lag_s: float, now_s: float) -> None:
        """Note what is due; called at every heartbeat interval with the supervisor's own loop lag in seconds."""
        beating = [worker for worker in workers if worker.slot is not None and worker.heartbeat is not None]
        # A heartbeat tells the lag of its own interval only, so each of them is looked at.
        self._lag_s = max(
            self._lag_s, own_lag_s, *(worker.heartbeat.loop_lag_s for worker in beating if worker.heartbeat)
        )
        if now_s < self._due_s:
            return
        self._due_s = max(self._due_s + INTERVAL_S, now_s + INTERVAL_S / 2)
        self._points.append(self._point(beating, now_s))
        self._sampled_s, self._lag_s = now_s, 0.0

    def document(self, after_s: float, *, interval_s: float = INTERVAL_S) -> dict[str, object]:
        """Return the document of ``/history`` for the time after ``after_s`` seconds since the start."""
        points = [point for point in self._points if point[0] > after_s]
        columns = zip(*points, strict=True) if points else ((),) * len(COLUMNS)
        document: dict[str, object] = {"interval_s": max(INTERVAL_S, interval_s)}
        document["kept_s"] = KEPT_POINTS * max(INTERVAL_S, interval_s)
        return document | {name: list(column) for name, column in zip(COLUMNS, columns, strict=True)}

    def _point(self, workers: list[BeatingWorker], now_s: float) -> tuple[float, ...]:
        rates = [0.0] * len(_RATE_COLUMNS)
        readings: dict[int, _Reading] = {}
        connections = 0
        for worker in workers:
            assert worker.heartbeat is not None, "only those with a heartbeat are asked"
            assert worker.slot is not None, "nor are spares"
            connections += worker.heartbeat.connections
            counts = _counts(worker.heartbeat.counters)
            reading = _Reading(pid=worker.pid, beat_s=worker.last_heartbeat_s, counts=counts)
            before = self._readings.get(worker.slot)
            if before is None or before.pid != worker.pid:
                before = _Reading(pid=worker.pid, beat_s=self._sampled_s, counts=[0.0] * len(counts))
            readings[worker.slot] = reading
            passed_s = reading.beat_s - before.beat_s
            if passed_s > 0:
                rates = [
                    rate + (count - earlier) / passed_s
                    for rate, count, earlier in zip(rates, counts, before.counts, strict=True)
                ]
        self._readings = readings
        rounded = (round(rate, 1) for rate in rates)
        return round(now_s - self._started_s, 3), connections, *rounded, round(self._lag_s, _MICROSECONDS)


def _counts(counters: Mapping[str, float]) -> list[float]:
    counts = [0.0] * len(_RATE_COLUMNS)
    for key, value in counters.items():
        column = _column(key)
        if column is not None:
            counts[column] += value
    return counts


@lru_cache(maxsize=4096)
def _column(key: str) -> int | None:
    name = _RATES.get(key) or _RATES.get(key.partition(SEPARATOR)[0])
    return None if name is None else _RATE_COLUMNS.index(name)
