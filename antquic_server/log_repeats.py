"""
Keeps one kind of event from filling the log: what comes too often is counted instead, and summed up in one line.

An event is told apart by logger, level and text, not by its facts: "connection ended" of a thousand connections is one
event. Each has windows of its own. The first line opens a window, ``burst`` lines of it pass, the rest are counted, and
when the window is over the count is handed out once (``take_due``). Nothing else is ever held back, so the last line
before a crash is not lost behind a flood of others.

No more than ``max_events`` are followed at once; the one whose window began first makes room, and its count is handed
out then.
"""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf
from typing import Final

__all__ = ["MAX_EVENTS", "RepeatLimiter", "Repeated"]

MAX_EVENTS: Final = 512
"""The source has about fifty; libraries may bring more. A window is 200 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """``count`` lines of one event were left out in a window of ``window_s`` seconds."""

    logger: str
    level: int
    event: str
    count: int
    window_s: float


@dataclass(slots=True)
class _Window:
    until_s: float
    logger: str
    level: int
    event: str
    passed: int = 0
    left_out: int = 0


class RepeatLimiter:
    """
    Decides line by line; safe to be used from several threads.

    Args:
        burst: Lines of one event that pass in a window; 0 lets everything pass.
        window_s: Length of a window, seconds.
        clock: Monotonic seconds.
        max_events: Events that are followed at once.
    """

    def __init__(
        self, *, burst: int, window_s: float, clock: Callable[[], float], max_events: int = MAX_EVENTS
    ) -> None:
        self._burst = burst
        self._window_s = window_s
        self._clock = clock
        self._max_events = max_events
        self._windows: dict[Hashable, _Window] = {}
        self._ended: list[Repeated] = []
        self._due_at_s = inf
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Events that are followed now."""
        return len(self._windows)

    def change(self, *, burst: int, window_s: float) -> None:
        """Let other limits hold for windows that begin from now on."""
        self._burst = burst
        self._window_s = window_s

    def admit(self, logger: str, level: int, event: str, *, place: Hashable = None) -> bool:
        """
        Return whether this line is to be written.

        ``place`` tells events apart where the text does not, since it holds facts: a line of the source.
        """
        if not self._burst:
            return True
        now_s = self._clock()
        key = (logger, level, event if place is None else place)
        with self._lock:
            window = self._windows.get(key)
            if window is None or now_s >= window.until_s:
                window = self._open(key, _Window(now_s + self._window_s, logger, level, event))
            if window.passed < self._burst:
                window.passed += 1
                return True
            window.left_out += 1
            self._due_at_s = min(self._due_at_s, window.until_s)
            return False

    def take_due(self, *, everything: bool = False) -> list[Repeated]:
        """Hand out the counts of windows that are over, or of all windows; each once."""
        now_s = self._clock()
        if not everything and now_s < self._due_at_s and not self._ended:
            return []
        with self._lock:
            for key, window in list(self._windows.items()):
                if everything or now_s >= window.until_s:
                    del self._windows[key]
                    self._end(window)
            self._due_at_s = min((each.until_s for each in self._windows.values() if each.left_out), default=inf)
            ended, self._ended = self._ended, []
        return ended

    def _open(self, key: Hashable, window: _Window) -> _Window:
        # Taken out first: a dictionary keeps its order, and the front is to be the window that began first.
        earlier = self._windows.pop(key, None)
        if earlier is None and len(self._windows) >= self._max_events:
            earlier = self._windows.pop(next(iter(self._windows)))
        if earlier is not None:
            self._end(earlier)
        self._windows[key] = window
        return window

    def _end(self, window: _Window) -> None:
        if window.left_out:
            self._ended.append(
                Repeated(
                    logger=window.logger,
                    level=window.level,
                    event=window.event,
                    count=window.left_out,
                    window_s=self._window_s,
                )
            )
