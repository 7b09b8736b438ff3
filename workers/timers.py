"""
One timer structure for all deadlines of a worker.

A heap of (deadline, number, owner). Moving a deadline later, by far the most frequent change, touches nothing: the
old entry stays, and when it comes up its owner is asked for its present deadline and put back. Moving it earlier
pushes another entry; an owner remembers which entries it has, so that it never gets a second one for the same purpose.
Every owner therefore has at most a few entries, and arming is free on the hot path.
"""

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Protocol


class TimerOwner(Protocol):
    """Anything with a deadline; the two attributes belong to the heap's bookkeeping and to the owner together."""

    timer_at_s: float | None
    """When the owner wants to be woken, monotonic seconds; None for never."""
    timer_entries_s: list[float]
    """The owner's entries in the heap, latest first, as every push is earlier than all before; the heap's to write."""


class TimerHeap:
    """All deadlines of one worker, earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TimerOwner]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def earliest_s(self) -> float | None:
        """The earliest entry, possibly of an owner that has moved on; None if there is none."""
        return self._heap[0][0] if self._heap else None

    def update(self, owner: TimerOwner) -> None:
        """Take note of ``owner.timer_at_s``; call after every change."""
        deadline_s = owner.timer_at_s
        entries = owner.timer_entries_s
        if deadline_s is not None and (not entries or deadline_s < entries[-1]):
            self._push(owner, deadline_s)

    def pop_due(self, now_s: float) -> list[TimerOwner]:
        """Return the owners whose deadline has come, each once; they must be updated again."""
        due: dict[TimerOwner, None] = {}
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            _, _, owner = heapq.heappop(heap)
            # The earliest entry of the heap is also the earliest of its owner.
            owner.timer_entries_s.pop()
            deadline_s = owner.timer_at_s
            if deadline_s is None:
                continue
            if deadline_s > now_s:
                self.update(owner)
            else:
                due[owner] = None
        return list(due)

    def _push(self, owner: TimerOwner, deadline_s: float) -> None:
        # The number keeps equal deadlines in order and owners from being compared.
        self._number += 1
        owner.timer_entries_s.append(deadline_s)
        heapq.heappush(self._heap, (deadline_s, self._number, owner))


class Alarm:
    """Wakes the event loop for the earliest deadline of a heap; ``on_due`` gets the owners that are due."""

    def __init__(
        self,
        heap: TimerHeap,
        on_due: Callable[[list[TimerOwner], float], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._heap = heap
        self._on_due = on_due
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self._handle_at_s = 0.0

    def arm(self) -> None:
        """Set the loop's timer; call after changes to the heap. Does nothing if an early enough one is set."""
        earliest_s = self._heap.earliest_s
        if earliest_s is None:
            return
        if self._handle is not None:
            if self._handle_at_s <= earliest_s:
                return
            self._handle.cancel()
        self._handle_at_s = earliest_s
        self._handle = self._loop.call_later(max(0.0, earliest_s - time.monotonic()), self._fire)

    def cancel(self) -> None:
        """Wake nobody any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        now_s = time.monotonic()
        self._on_due(self._heap.pop_due(now_s), now_s)
        self.arm()
