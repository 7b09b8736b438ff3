"""Something to do again and again while the loop runs."""

import asyncio
from collections.abc import Callable


class Periodic:
    """Calls ``action`` every ``interval_s`` seconds between ``start`` and ``stop``; an interval of 0 means never."""

    def __init__(self, interval_s: float, action: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._interval_s = interval_s
        self._action = action
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Call for the first time after one interval."""
        if self._interval_s and self._timer is None:
            self._timer = self._loop.call_later(self._interval_s, self._due)

    def stop(self) -> None:
        """Call no more; may be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        # First, since the action may stop us.
        self._timer = self._loop.call_later(self._interval_s, self._due)
        self._action()
