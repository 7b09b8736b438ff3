"""
How the node's relay bandwidth is divided among its workers.

``relay.bandwidth_bytes_per_s`` is a limit of the node, and each worker forwards by itself. So once a second every
worker is told its part, by what it uses of the last one: one that left something over gets what it used, and some more;
those that used up theirs share the rest evenly, since nobody knows how much more they want. What nobody wants is given
to all alike. A part is never so small that a worker which was idle cannot show its wish within a second.
"""

from collections.abc import Collection, Mapping
from typing import Final

__all__ = ["IDLE_PART", "USED_UP_PART", "WorkerShares", "divide"]

IDLE_PART: Final = 0.1
"""Of an even part: what a worker that relays nothing may begin with."""

MARGIN: Final = 1.25
"""A worker that left something over is given so much times what it used: its last second must not hold it back."""

USED_UP_PART: Final = 0.9
"""From this part on a share counts as used up; clearly more than a worker uses that has its margin."""

REPORT_INTERVAL_S: Final = 1.0
IDLE_AFTER_S: Final = 2.0
"""Without a report for so long a worker has moved nothing."""


def divide(total: float, demands: Mapping[int, float]) -> dict[int, float]:
    """
    Divide ``total`` by demand, max-min fair: nobody gets less so that somebody with a greater part gets more.

    A demand may be infinite. What is left when all demands are met is added evenly.
    """
    parts: dict[int, float] = {}
    left = total
    waiting = sorted(demands, key=lambda slot: demands[slot])
    for index, slot in enumerate(waiting):
        part = min(demands[slot], left / (len(waiting) - index))
        parts[slot] = part
        left -= part
    bonus = max(0.0, left) / len(parts) if parts else 0.0
    return {slot: part + bonus for slot, part in parts.items()}


class WorkerShares:
    """
    What each worker moves, and how much it may; time is monotonic seconds.

    Workers report once a second, and only if they have moved anything.
    """

    def __init__(self) -> None:
        self._unreported: dict[int, int] = {}
        self._reported: dict[int, tuple[float, float]] = {}
        """By slot: bytes per second of the last report, and when it came."""
        self._shares: dict[int, float] = {}

    def moved(self, slot: int, amount_bytes: int) -> None:
        """Note what the worker of ``slot`` has moved; it counts with the next report."""
        self._unreported[slot] = self._unreported.get(slot, 0) + amount_bytes

    def reported(self, slot: int, now_s: float) -> None:
        """Note that what was moved is all since the last report."""
        last = self._reported.get(slot)
        gap_s = now_s - last[1] if last is not None else REPORT_INTERVAL_S
        if not REPORT_INTERVAL_S / 2 <= gap_s <= IDLE_AFTER_S:
            # It has begun only now, or two reports were held up together.
            gap_s = REPORT_INTERVAL_S
        self._reported[slot] = self._unreported.pop(slot, 0) / gap_s, now_s

    def load(self, slot: int, now_s: float) -> float:
        """Bytes per second that the worker of ``slot`` moves, by its last report."""
        rate_per_s, reported_s = self._reported.get(slot, (0.0, now_s))
        return rate_per_s if now_s - reported_s <= IDLE_AFTER_S else 0.0

    def forget(self, slot: int) -> None:
        """Note that the worker of ``slot`` is gone."""
        self._unreported.pop(slot, None)
        self._reported.pop(slot, None)
        self._shares.pop(slot, None)

    def settle(self, total_per_s: float, slots: Collection[int], now_s: float) -> dict[int, float]:
        """Divide anew among the workers of ``slots``; returns the share of each in bytes per second."""
        least = IDLE_PART * total_per_s / max(1, len(slots))
        demands: dict[int, float] = {}
        for slot in slots:
            used, share = self.load(slot, now_s), self._shares.get(slot)
            used_up = share is not None and used >= USED_UP_PART * share
            demands[slot] = float("inf") if used_up else max(used * MARGIN, least)
        self._shares = divide(total_per_s, demands)
        return dict(self._shares)
