"""
What relay sessions of a worker move, and how much they may.

Both ways to relay share this: a bucket for each session, one for all of them together (the worker's part of
``relay.bandwidth_bytes_per_s``), the counters of bytes and sessions, and the report that the hub charges peers by.

A bucket lets pass whatever comes while it is not empty, and owes the rest. What comes is a train of up to 64 kB: were
it to wait for as many tokens, a session with a smaller burst could never send one.
"""

from collections.abc import Callable

from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import RelayUsage
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.stats.counters import CounterSet

CHANNEL_SESSION_BIT = 1 << 56
"""Set in the session numbers of channels, in none of the stream relay's."""


class Allowance:
    """A token bucket in bytes that may be overdrawn by one train; starts full."""

    __slots__ = ("burst_bytes", "rate_bytes_per_s", "tokens", "updated_s")

    def __init__(self, rate_bytes_per_s: float, burst_bytes: float) -> None:
        self.rate_bytes_per_s = rate_bytes_per_s
        self.burst_bytes = burst_bytes
        self.tokens = burst_bytes
        self.updated_s: float | None = None

    def change(self, rate_bytes_per_s: float, burst_bytes: float) -> None:
        """Change the rate, from now on; what was saved or owed stays, up to the new burst."""
        self.rate_bytes_per_s = rate_bytes_per_s
        self.burst_bytes = burst_bytes
        self.tokens = min(self.tokens, burst_bytes)

    def refill(self, now_s: float) -> float:
        """Gain what time has brought, and return the tokens there are."""
        if self.updated_s is None:
            self.updated_s = now_s
        elif now_s > self.updated_s:
            gained = (now_s - self.updated_s) * self.rate_bytes_per_s
            self.tokens = min(self.burst_bytes, self.tokens + gained)
            self.updated_s = now_s
        return self.tokens


class SessionMeter:
    """
    One session: how fast it may be, and what it has moved.

    ``moved_bytes`` and ``moved_datagrams`` are written by the data path, for what the kernel has taken; the meter reads
    them and sets them back to zero.
    """

    __slots__ = ("allowance", "mode", "moved_bytes", "moved_datagrams", "number", "share", "unreported_bytes")

    def __init__(
        self, *, number: int, mode: RelayMode, rate_bytes_per_s: float, burst_bytes: float, share: Allowance
    ) -> None:
        self.number = number
        self.mode = mode
        self.allowance = Allowance(rate_bytes_per_s, burst_bytes)
        self.share = share
        self.moved_bytes = 0
        self.moved_datagrams = 0
        self.unreported_bytes = 0

    def refuses(self, size_bytes: int, now_s: float) -> str:
        """Take tokens for a datagram or a train; returns which limit forbids it, for the counters, or nothing."""
        own, share = self.allowance, self.share
        if own.refill(now_s) <= 0:
            return "session_rate"
        if share.refill(now_s) <= 0:
            return "node_rate"
        own.tokens -= size_bytes
        share.tokens -= size_bytes
        return ""


class RelayMeter:
    """All sessions of the worker, of both ways to relay."""

    def __init__(self, counters: CounterSet, tell_hub: Callable[[Message], bool]) -> None:
        # Until the hub says how much this worker may move, each session's own rate is all that limits.
        self.share = Allowance(float("inf"), float("inf"))
        self._counters = counters
        self._tell_hub = tell_hub
        self._sessions: dict[int, SessionMeter] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, number: int, mode: RelayMode, *, rate_bytes_per_s: float, burst_bytes: float) -> SessionMeter:
        """Begin to count a session; ``number`` is its name towards the hub."""
        session = SessionMeter(
            number=number, mode=mode, rate_bytes_per_s=rate_bytes_per_s, burst_bytes=burst_bytes, share=self.share
        )
        self._sessions[number] = session
        self._counters.add("relay_sessions", 1, mode)
        self._counters.add("relay_sessions_opened", 1, mode)
        return session

    def close(self, session: SessionMeter, reason: str) -> int:
        """Count a session's end; returns the bytes it has moved since the last report, which the caller reports."""
        if self._sessions.pop(session.number, None) is None:
            return 0
        self._collect(session)
        self._counters.add("relay_sessions", -1, session.mode)
        self._counters.add("relay_sessions_closed", 1, session.mode, reason)
        return session.unreported_bytes

    def change_rate(self, number: int, rate_bytes_per_s: float, burst_bytes: float) -> None:
        """Change how fast a session may be, if it is still there."""
        session = self._sessions.get(number)
        if session is not None:
            session.allowance.change(rate_bytes_per_s, burst_bytes)

    def change_share(self, rate_bytes_per_s: float, burst_bytes: float) -> None:
        """Change how fast all sessions together may be."""
        self.share.change(rate_bytes_per_s, burst_bytes)

    def collect(self) -> None:
        """Bring the counters of bytes and datagrams up to date."""
        for session in self._sessions.values():
            if session.moved_datagrams:
                self._collect(session)

    def report(self) -> None:
        """Tell the hub what has been moved since it was last told; once a second."""
        self.collect()
        moved = [session for session in self._sessions.values() if session.unreported_bytes]
        if not moved:
            return
        usage = RelayUsage(
            sessions=[session.number for session in moved], moved_bytes=[session.unreported_bytes for session in moved]
        )
        if self._tell_hub(usage):
            for session in moved:
                session.unreported_bytes = 0

    def _collect(self, session: SessionMeter) -> None:
        self._counters.add("relay_bytes", session.moved_bytes, session.mode)
        self._counters.add("relay_datagrams", session.moved_datagrams, session.mode)
        session.unreported_bytes += session.moved_bytes
        session.moved_bytes = session.moved_datagrams = 0
