"""
What two answers of ``/status`` say together: the values of the newer one, and rates since the older one.

A worker's counters are those of its last heartbeat, so its rates are taken over the time between the two heartbeats and
not between the two answers: otherwise a quarter of a second more or less would show as a throughput that jumps.
Nothing is assumed about an answer beyond what ``status_values`` can read.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from antquic_server.commands.status_values import number, table, tables

__all__ = ["LOSSES", "Answer", "Figures", "Loss"]

SEPARATOR = "|"
"""Between the name and the labels of a counter, as ``stats.counters`` writes them."""

LEAST_INTERVAL_S = 0.05
"""A shorter time between two heartbeats is none: nothing new has been heard of the worker."""

LOSSES = {
    "drops": "datagrams dropped",
    "handshake_failures": "handshakes failed",
    "introductions_limited": "introductions limited",
    "relay_refusals": "relay sessions refused",
    "relay_drops": "relay datagrams dropped",
    "directory_dropped": "peers not listed",
    "ipc_dropped": "messages to workers lost",
    "worker_restarts": "workers replaced",
}
"""Counters of what was refused, dropped or lost, and what each counts."""


_Read = Callable[[Mapping[str, object]], float | None]
"""Finds a value among the counters of the node or of a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A document of ``/status`` and when it came, in monotonic seconds."""

    at_s: float
    document: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """One reason why something was refused, dropped or lost; ``per_s`` is None without an older answer."""

    what: str
    reason: str
    total: float
    per_s: float | None


class Figures:
    """``before`` is None for the first answer; one of another process, or of a node started anew, does not count."""

    def __init__(self, now: Answer, before: Answer | None = None) -> None:
        self.node = table(now.document.get("node"))
        self.totals = table(now.document.get("totals"))
        self.directory = table(now.document.get("directory"))
        self.relay = table(now.document.get("relay"))
        self.punches = table(now.document.get("punches"))
        self.workers = tables(now.document.get("workers"))
        self.talkers = tables(now.document.get("talkers"))
        self._now = now
        self._before = before if before is not None and _same_run(before, now) else None
        self._workers_before = self._by_slot(self._before)

    @property
    def has_rates(self) -> bool:
        """Whether there is an older answer of the same run."""
        return self._before is not None

    def total(self, name: str) -> float | None:
        """Return a metric of the whole node with its labels added up; None if the node does not have it."""
        return _sum(self.totals, name)

    def rate(self, name: str) -> float | None:
        """Return how much a counter of the whole node grows per second, its labels added up."""
        return self._rate(lambda counters: _sum(counters, name))

    def series_rate(self, key: str) -> float | None:
        """Return how much one series of a counter grows per second."""
        return self._rate(lambda counters: number(counters.get(key)))

    def worker_rate(self, worker: Mapping[str, object], name: str) -> float | None:
        """Return how much a counter of one of ``workers`` grows per second."""
        change = self._worker_change(worker, lambda counters: _sum(counters, name))
        return None if change is None else change[0] / change[1]

    def losses(self) -> list[Loss]:
        """Return why things were refused, dropped or lost, what happens most at present first."""
        found = []
        for key, value in self.totals.items():
            name, _, labels = key.partition(SEPARATOR)
            total = number(value)
            if name in LOSSES and total:
                reason = labels.replace(SEPARATOR, " ")
                found.append(Loss(what=LOSSES[name], reason=reason, total=total, per_s=self.series_rate(key)))
        return sorted(found, key=lambda loss: (-(loss.per_s or 0.0), -loss.total, loss.what, loss.reason))

    def _rate(self, read: _Read) -> float | None:
        if self._before is None:
            return None
        now, before = read(self.totals), read(table(self._before.document.get("totals")))
        if now is None:
            return None
        # What the workers do not account for is the supervisor's own, whose counters are of this moment.
        rest = now - (before or 0.0)
        total = 0.0
        for worker in self.workers:
            change = self._worker_change(worker, read)
            if change is not None:
                rest -= change[0]
                total += change[0] / change[1]
        return max(0.0, total + rest / self._elapsed_s(self._before))

    def _worker_change(self, worker: Mapping[str, object], read: _Read) -> tuple[float, float] | None:
        """Return how much a counter of a worker has grown, and in how many seconds."""
        if self._before is None:
            return None
        then = self._workers_before.get(str(worker.get("slot")))
        if then is None:
            return None
        now_value, then_value = read(table(worker.get("counters"))), read(table(then.get("counters")))
        if now_value is None:
            return None
        elapsed_s = self._elapsed_s(self._before)
        ages = number(worker.get("heartbeat_age_s")), number(then.get("heartbeat_age_s"))
        if ages[0] is not None and ages[1] is not None:
            between_s = elapsed_s - ages[0] + ages[1]
            elapsed_s = between_s if between_s >= LEAST_INTERVAL_S else elapsed_s
        return max(0.0, now_value - (then_value or 0.0)), elapsed_s

    def _elapsed_s(self, before: Answer) -> float:
        return max(self._now.at_s - before.at_s, LEAST_INTERVAL_S)

    @staticmethod
    def _by_slot(answer: Answer | None) -> dict[str, Mapping[str, object]]:
        rows = tables(answer.document.get("workers")) if answer is not None else []
        return {str(row.get("slot")): row for row in rows}


def _same_run(before: Answer, now: Answer) -> bool:
    then, this = table(before.document.get("node")), table(now.document.get("node"))
    uptime_before_s, uptime_s = number(then.get("uptime_s")) or 0.0, number(this.get("uptime_s")) or 0.0
    same_node = all(then.get(key) == this.get(key) for key in ("pid", "peer_id"))
    return same_node and now.at_s > before.at_s and uptime_s >= uptime_before_s


def _sum(counters: Mapping[str, object], name: str) -> float | None:
    return _added(counters.get(key) for key in counters if key.partition(SEPARATOR)[0] == name)


def _added(values: Iterable[object]) -> float | None:
    known = [found for found in map(number, values) if found is not None]
    return sum(known) if known else None
