"""
What the channels of a worker move, and how much they may.

Each has a bucket, and all relay sessions of the worker one together, its part of ``relay.bandwidth_bytes_per_s``.
Buckets may be overdrawn: what comes is a train of up to 64 kB, and were it to wait for as many tokens, a session with a
smaller burst could never send one.
"""

from typing import Final

from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.stats.counters import CounterSet

CHANNEL_SESSION_BIT = 1 << 56
"""Set in the session numbers of channels, in none of the stream relay's."""

MIN_COST_BYTES: Final = 100
"""What a datagram counts at least towards a rate, since short ones cost the machine as much as long ones do."""


class SessionMeter:
    """
    One channel's session: how fast it may be, and what it has moved.

    ``passed_bytes`` and ``passed_datagrams`` are written by the data path, for what the kernel has taken, and set back
    to zero when they are collected; ``moved_bytes`` is what the hub has not been told yet (``relay_reports``).
    """

    __slots__ = ("moved_bytes", "number", "passed_bytes", "passed_datagrams", "rate", "share")

    def __init__(
        self,
        *,
        number: int,
        rate_bytes_per_s: float,
        burst_bytes: float,
        share: TokenBucket,
        start_bytes: float | None = None,
        now_s: float | None = None,
    ) -> None:
        self.number = number
        self.rate = TokenBucket(rate_bytes_per_s, burst_bytes, tokens=start_bytes, since_s=now_s)
        self.share = share
        self.passed_bytes = 0
        self.passed_datagrams = 0
        self.moved_bytes = 0

    def refuses(self, cost_bytes: int, now_s: float) -> str:
        """Take tokens for a datagram or a train; returns which limit forbids it, for the counters, or nothing."""
        if not self.rate.overdraw(now_s, cost_bytes):
            return "session_rate"
        if not self.share.overdraw(now_s, cost_bytes):
            self.rate.give_back(cost_bytes)
            return "node_rate"
        return ""


class RelayMeter:
    """All channels' sessions of the worker; ``share`` is what they and the stream relay's may move together."""

    def __init__(self, counters: CounterSet, share: TokenBucket) -> None:
        self._share = share
        self._counters = counters
        self._values = counters.values
        self._bytes_key = counters.declare("relay_bytes", RelayMode.CHANNEL)
        self._datagrams_key = counters.declare("relay_datagrams", RelayMode.CHANNEL)
        self._sessions: dict[int, SessionMeter] = {}
        self._count()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(
        self, number: int, *, rate_bytes_per_s: float, burst_bytes: float, start_bytes: float, now_s: float
    ) -> SessionMeter:
        """Begin to count a session; ``number`` is its name towards the hub."""
        session = SessionMeter(
            number=number,
            rate_bytes_per_s=rate_bytes_per_s,
            burst_bytes=burst_bytes,
            share=self._share,
            start_bytes=start_bytes,
            now_s=now_s,
        )
        self._sessions[number] = session
        self._counters.add("relay_sessions_opened", 1, RelayMode.CHANNEL)
        self._count()
        return session

    def close(self, session: SessionMeter, reason: str) -> int:
        """Count a session's end; returns the bytes it has moved that the hub has not been told of."""
        if self._sessions.pop(session.number, None) is None:
            return 0
        self._collect(session)
        self._counters.add("relay_sessions_closed", 1, RelayMode.CHANNEL, reason)
        self._count()
        return session.moved_bytes

    def change_rate(self, number: int, rate_bytes_per_s: float, burst_bytes: float, now_s: float) -> None:
        """Change how fast a session may be, if it is still there."""
        session = self._sessions.get(number)
        if session is not None:
            session.rate.change(rate_bytes_per_s, burst_bytes, now_s)

    def collect(self) -> None:
        """Bring the counters of bytes and datagrams up to date."""
        for session in self._sessions.values():
            if session.passed_datagrams:
                self._collect(session)

    def sessions(self) -> list[tuple[int, SessionMeter]]:
        """Return what is to be reported to the hub, by number."""
        self.collect()
        return list(self._sessions.items())

    def _collect(self, session: SessionMeter) -> None:
        values = self._values
        values[self._bytes_key] += session.passed_bytes
        values[self._datagrams_key] += session.passed_datagrams
        # It has been sent by the node's own sockets, whose counters the data path leaves alone.
        values["bytes_sent"] += session.passed_bytes
        values["datagrams_sent"] += session.passed_datagrams
        session.moved_bytes += session.passed_bytes
        session.passed_bytes = session.passed_datagrams = 0

    def _count(self) -> None:
        self._counters.set("relay_sessions", len(self._sessions), RelayMode.CHANNEL)
