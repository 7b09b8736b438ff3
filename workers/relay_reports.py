"""
What a worker owes the hub about relay sessions: how much they have moved, each second, and that they have ended.

A message that the hub's queue has no room for is kept until it has: one that is lost would count a session against its
peer for ever.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import RelayUsage

__all__ = ["USAGE_INTERVAL_S", "Metered", "RelayReports"]

USAGE_INTERVAL_S = 1.0


class Metered(Protocol):
    """A session; the report sets ``moved_bytes`` to 0."""

    moved_bytes: int


class RelayReports:
    """Reports about the sessions that ``sessions`` gives, by their numbers, as long as there are any."""

    def __init__(
        self,
        tell_hub: Callable[[Message], bool],
        sessions: Callable[[], Iterable[tuple[int, Metered]]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._tell_hub = tell_hub
        self._sessions = sessions
        self._loop = loop
        self._owed: deque[Message] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, message: Message) -> None:
        """Tell the hub something that it must hear; at most one message per session waits."""
        if self._owed or not self._tell_hub(message):
            self._owed.append(message)
            self.wake()

    def wake(self) -> None:
        """There is something to report, or will be."""
        if self._timer is None:
            self._timer = self._loop.call_later(USAGE_INTERVAL_S, self._report)

    def stop(self) -> None:
        """Report no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _report(self) -> None:
        self._timer = None
        while self._owed and self._tell_hub(self._owed[0]):
            self._owed.popleft()
        sessions = list(self._sessions())
        busy = [(number, session) for number, session in sessions if session.moved_bytes]
        if busy and not self._owed:
            usage = RelayUsage(
                sessions=[number for number, _ in busy], moved_bytes=[session.moved_bytes for _, session in busy]
            )
            if self._tell_hub(usage):
                for _, session in busy:
                    session.moved_bytes = 0
        if sessions or self._owed:
            self.wake()
