"""
What the counters of several processes are together.

Counters and histograms of the dead stay in the totals, gauges leave with the process. Whoever watches a total may
therefore take any decrease as a fault, and a rate over a restart is right.
"""

from collections.abc import Iterable, Mapping

from antquic_server.stats.counters import split_key

Snapshot = Mapping[str, float]
"""Flat snapshot, keys as in ``counters``."""


def merge(snapshots: Iterable[Snapshot]) -> dict[str, float]:
    """Return one snapshot for all; series that this version does not declare are left out."""
    merged: dict[str, float] = {}
    for snapshot in snapshots:
        for key, value in snapshot.items():
            series = split_key(key)
            if series is None:
                continue
            before = merged.get(key)
            if before is None:
                merged[key] = value
            else:
                merged[key] = max(before, value) if series[0].merge == "max" else before + value
    return merged


class RetiredTotals:
    """
    What the dead workers of each slot have counted.

    Kept per slot, so that a slot's own series do not fall back either when its worker is replaced.
    """

    __slots__ = ("_by_slot",)

    def __init__(self) -> None:
        self._by_slot: dict[int, dict[str, float]] = {}

    def retire(self, slot: int, snapshot: Snapshot) -> None:
        """Keep the counters of a dead worker's last snapshot; its gauges are forgotten."""
        counters = {key: value for key, value in snapshot.items() if _is_counter(key)}
        self._by_slot[slot] = merge([self._by_slot.get(slot, {}), counters])

    def slot_total(self, slot: int, living: Snapshot | None) -> dict[str, float]:
        """Return what all workers of the slot have counted; ``living`` is the present one's snapshot."""
        return merge([self._by_slot.get(slot, {}), living or {}])

    def total(self, living: Mapping[int, Snapshot]) -> dict[str, float]:
        """Return the numbers of the node; ``living`` has the snapshot of each slot that has a worker."""
        return merge(self.slot_total(slot, living.get(slot)) for slot in self._by_slot.keys() | living.keys())


def _is_counter(key: str) -> bool:
    series = split_key(key)
    return series is not None and series[0].kind != "gauge"
