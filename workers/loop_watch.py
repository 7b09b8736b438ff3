"""Measures how late the event loop does what is due: a datagram that arrives meanwhile waits as long."""

import asyncio
from collections.abc import Callable
from typing import Final

INTERVAL_S: Final = 0.1
"""Ten looks a second cost an idle worker about a ten-thousandth of a core, and a loop that is busy for a tenth of its
time is seen so once a second."""


class LoopWatch:
    """
    Tells ``observe`` the delay of a timer, in seconds, every ``INTERVAL_S`` between ``start`` and ``stop``.

    ``clock`` returns monotonic seconds. It is not the loop's own: that one stands still within a turn, and some count
    in milliseconds.
    """

    def __init__(
        self, observe: Callable[[float], None], *, clock: Callable[[], float], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._observe = observe
        self._clock = clock
        self._loop = loop
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look for the first time after one interval."""
        if self._timer is None:
            self._set()

    def stop(self) -> None:
        """Look no more; may be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self._due_s = self._clock() + INTERVAL_S
        self._timer = self._loop.call_later(INTERVAL_S, self._look)

    def _look(self) -> None:
        # A timer may be early by a tick of the loop's clock.
        late_s = max(0.0, self._clock() - self._due_s)
        self._set()
        self._observe(late_s)
