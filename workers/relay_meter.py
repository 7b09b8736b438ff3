"""
What relay sessions of a worker move, and how much they may.

Both ways to relay share this: a bucket for each session, one for all of them together (the worker's part of
``relay.bandwidth_bytes_per_s``), the counters of bytes and sessions, and the report that the hub charges peers by.

Buckets may be overdrawn: what comes is a train of up to 64 kB, and were it to wait for as many tokens, a session with a
smaller burst could never send one.
"""

from collections.abc import Callable

from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import RelayUsage
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.stats.counters import CounterSet

CHANNEL_SESSION_BIT = 1 << 56
"""Set in the session numbers of channels, in none of the stream relay's."""


class SessionMeter:
    """
    One session: how fast it may be, and what it has moved.

    ``moved_bytes`` and ``moved_datagrams`` are written by the data path, for what the kernel has taken; the meter reads
    them and sets them back to zero.
    """

    __slots__ = ("mode", "moved_bytes", "moved_datagrams", "number", "rate", "share", "unreported_bytes")

    def __init__(
        self, *, number: int, mode: RelayMode, rate_bytes_per_s: float, burst_bytes: float, share: TokenBucket
    ) -> None:
        self.number = number
        self.mode = mode
        self.rate = TokenBucket(rate_bytes_per_s, burst_bytes)
        self.share = share
        self.moved_bytes = 0
        self.moved_datagrams = 0
        self.unreported_bytes = 0

    def refuses(self, size_bytes: int, now_s: float) -> str:
        """Take tokens for a datagram or a train; returns which limit forbids it, for the counters, or nothing."""
        if not self.rate.overdraw(now_s, size_bytes):
            return "session_rate"
        if not self.share.overdraw(now_s, size_bytes):
            self.rate.give_back(size_bytes)
            return "node_rate"
        return ""


class RelayMeter:
    """All sessions of the worker; ``share`` is what they may move together."""

    def __init__(self, counters: CounterSet, tell_hub: Callable[[Message], bool], share: TokenBucket) -> None:
        self.share = share
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

    def change_rate(self, number: int, rate_bytes_per_s: float, burst_bytes: float, now_s: float) -> None:
        """Change how fast a session may be, if it is still there."""
        session = self._sessions.get(number)
        if session is not None:
            session.rate.change(rate_bytes_per_s, burst_bytes, now_s)

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
        if session.mode is RelayMode.CHANNEL:
            # It has been sent by the node's own sockets, whose counters the data path leaves alone.
            self._counters.values["bytes_sent"] += session.moved_bytes
            self._counters.values["datagrams_sent"] += session.moved_datagrams
        session.unreported_bytes += session.moved_bytes
        session.moved_bytes = session.moved_datagrams = 0
