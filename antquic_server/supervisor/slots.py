"""
Which worker serves which slot.

A slot is a place among the sockets and outlives its workers: it is filled, falls vacant and is filled again,
with a higher generation each time. Only bookkeeping: nothing here starts or stops a process.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

WorkerT = TypeVar("WorkerT")


@dataclass(slots=True)
class Slot(Generic[WorkerT]):
    """
    One slot.

    ``generation`` counts the workers it has had, 0 before the first. A vacant slot may be filled from
    ``vacant_until_s`` on. ``restarts`` counts the workers that were lost.
    """

    index: int
    worker: WorkerT | None = None
    generation: int = 0
    restarts: int = 0
    vacant_until_s: float = 0.0


class SlotTable(Generic[WorkerT]):
    """All slots of the node, in order."""

    def __init__(self, count: int) -> None:
        self._slots: list[Slot[WorkerT]] = [Slot(index) for index in range(count)]

    def __iter__(self) -> Iterator[Slot[WorkerT]]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: int) -> Slot[WorkerT]:
        return self._slots[index]

    def fill(self, slot: Slot[WorkerT], worker: WorkerT) -> int:
        """Give the vacant ``slot`` to ``worker``; returns the new generation."""
        assert slot.worker is None, f"slot {slot.index} is taken"
        slot.worker = worker
        slot.generation += 1
        return slot.generation

    def vacate(self, index: int, *, until_s: float) -> None:
        """Note that the slot has lost its worker and may be filled again from ``until_s`` on."""
        slot = self._slots[index]
        slot.worker = None
        slot.restarts += 1
        slot.vacant_until_s = until_s

    def next_vacant(self, now_s: float) -> Slot[WorkerT] | None:
        """Return the slot to fill next: of those whose wait is over, the one vacant longest."""
        due = [slot for slot in self._slots if slot.worker is None and slot.vacant_until_s <= now_s]
        return min(due, key=lambda slot: (slot.vacant_until_s, slot.index), default=None)
