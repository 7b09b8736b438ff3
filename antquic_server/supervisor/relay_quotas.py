"""
Who may have relay sessions, how many, how fast and for how many bytes.

All rules that do not depend on the way to relay are here, and nothing else: no messages, no clock. The first of these
that a session is too much for refuses it:

=================== ===========================================================================
relay_disabled      ``relay.enabled`` is false
draining            the node is about to end
unauthenticated     whoever asks has no peer id
peer_denied         ``relay.denied_peers`` has it, or ``relay.allowed_peers`` has not
open_rate           it, or all of its prefix (IPv4 /32, IPv6 /48), open sessions too fast
node_bytes          the node has relayed ``relay.max_bytes`` in this quota period
peer_bytes          the peer ``relay.max_bytes_per_peer``
node_sessions       there are ``relay.max_sessions``
peer_sessions       the peer has ``relay.max_sessions_per_peer``
prefix_sessions     its prefix has ``relay.max_sessions_per_prefix``
=================== ===========================================================================

Sessions that a changed limit, or a used up quota, no longer allows become *doomed*, the newest first: whoever asks for
them tells their workers. All sessions of a peer share its bandwidth evenly, and what they may send at the beginning
(``relay_starts``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from antquic_server.config.model import RelaySettings
from antquic_server.errors import AddressDecodeError
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.limits import KeyedBuckets, address_prefixes
from antquic_server.protocol.relay_limits import Refusal, RelayMode
from antquic_server.supervisor.byte_quotas import ByteQuotas
from antquic_server.supervisor.directory import PEER_ID_BYTES
from antquic_server.supervisor.relay_starts import RelayStarts

__all__ = ["Allowance", "RelayQuotas", "RelaySession"]

TURNOVER_S: Final = 10.0
"""In this time a peer, and a prefix, may open as many sessions as it may hold; no honest one comes near."""

TURNOVERS_AT_ONCE: Final = 2.0
"""That many times as many at once: all sessions of a worker that has died, just after they were opened."""

LEAST_OPENS_PER_S: Final = 0.5
LEAST_OPENS_AT_ONCE: Final = 8.0
"""A peer that may hold one session still has to find out which node can serve it."""

RATE_TABLE_ENTRIES: Final = 1 << 14
"""Buckets per table, 256 kB; peers that collide share one (``protocol.limits``)."""

MAX_REPORTED_BYTES: Final = 1 << 48
"""In one report of one session: more than any machine moves in an hour, so a worker that has lost its mind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How fast a session may be."""

    rate_bytes_per_s: float
    burst_bytes: float


@dataclass(slots=True, kw_only=True, eq=False)
class RelaySession:
    """
    One session: ``number`` is unique within the worker of ``slot``.

    ``allowance`` is what its worker was told last, ``start_bytes`` what it began with (``relay_starts``), ``address``
    where a stream session is reached.
    """

    slot: int
    number: int
    mode: RelayMode
    peer_id: bytes
    prefix: bytes
    allowance: Allowance
    start_bytes: float = 0.0
    address: SocketAddress | None = None
    is_ending: bool = False


class RelayQuotas:
    """All sessions of the node; time is monotonic seconds."""

    def __init__(self, settings: RelaySettings, now_s: float) -> None:
        self.draining = False
        self.settings = settings
        self.bytes = ByteQuotas(settings.quota_period_s, now_s)
        self._sessions: dict[tuple[int, int], RelaySession] = {}
        self._by_peer: dict[bytes, list[RelaySession]] = {}
        self._per_prefix: dict[bytes, int] = {}
        self._per_slot: dict[int, int] = {}
        self._doomed: dict[RelaySession, Refusal] = {}
        self._unsettled: set[bytes] = set()
        self._peer_opens = _opens(settings.max_sessions_per_peer)
        self._prefix_opens = _opens(settings.max_sessions_per_prefix)
        self._starts = _starts(settings)
        self._allowed, self._denied = _peer_lists(settings)

    # What there is.

    def count(self, mode: RelayMode) -> int:
        """Sessions of one way to relay."""
        return sum(session.mode is mode for session in self._sessions.values())

    def count_of(self, slot: int) -> int:
        """Sessions of the worker of ``slot``."""
        return self._per_slot.get(slot, 0)

    @property
    def peers(self) -> int:
        """Peers with sessions."""
        return len(self._by_peer)

    def find(self, slot: int, number: int) -> RelaySession | None:
        """Return a session, None if there is no such."""
        return self._sessions.get((slot, number))

    def addresses(self, peer_id: bytes) -> list[SocketAddress]:
        """Where a peer is reached through its stream sessions, the newest first."""
        return [each.address for each in reversed(self._by_peer.get(peer_id, [])) if each.address is not None]

    def holds(self, peer_id: bytes) -> bool:
        """Whether a peer has any session."""
        return peer_id in self._by_peer

    # Sessions come and go.

    def reserve(
        self, slot: int, number: int, mode: RelayMode, *, peer_id: bytes, host: str, now_s: float
    ) -> RelaySession | Refusal:
        """Charge a peer with one more session, or say which limit forbids it; ``host`` is its numeric address."""
        try:
            prefix = address_prefixes(SocketAddress.from_host(host, 0))[-1]
        except AddressDecodeError:
            # Words of a worker, and a worker reads what strangers send.
            return Refusal.INTERNAL
        refusal = self._refusal(peer_id, prefix, now_s)
        if refusal is None and (slot, number) in self._sessions:
            refusal = Refusal.INTERNAL
        if refusal is not None:
            return refusal
        held = self._by_peer.setdefault(peer_id, [])
        allowance = self._allowance(len(held) + 1)
        session = RelaySession(
            slot=slot,
            number=number,
            mode=mode,
            peer_id=peer_id,
            prefix=prefix,
            allowance=allowance,
            start_bytes=self._starts.take(peer_id, allowance.burst_bytes, now_s),
        )
        held.append(session)
        self._sessions[slot, number] = session
        self._per_prefix[prefix] = self._per_prefix.get(prefix, 0) + 1
        self._per_slot[slot] = self._per_slot.get(slot, 0) + 1
        self._unsettled.add(peer_id)
        return session

    def release(self, session: RelaySession) -> None:
        """Forget a session that has ended."""
        if self._sessions.get((session.slot, session.number)) is not session:
            return
        del self._sessions[session.slot, session.number]
        self._doomed.pop(session, None)
        held = self._by_peer[session.peer_id]
        held.remove(session)
        self._unsettled.add(session.peer_id)
        if not held:
            del self._by_peer[session.peer_id]
            self._unsettled.discard(session.peer_id)
        self._per_slot[session.slot] -= 1
        self._per_prefix[session.prefix] -= 1
        if not self._per_prefix[session.prefix]:
            del self._per_prefix[session.prefix]

    def slot_down(self, slot: int) -> int:
        """Forget the sessions of a dead worker; returns how many."""
        lost = [session for session in self._sessions.values() if session.slot == slot]
        for session in lost:
            self.release(session)
        return len(lost)

    def use(self, session: RelaySession, moved_bytes: int, now_s: float) -> int:
        """Charge what a session has moved; returns how much of it counts."""
        moved_bytes = min(max(0, moved_bytes), MAX_REPORTED_BYTES)
        node_was_out, peer_was_out = self._who_is_out(session.peer_id, now_s)
        self.bytes.use(session.peer_id, moved_bytes, now_s)
        node_is_out, peer_is_out = self._who_is_out(session.peer_id, now_s)
        # Only by the report that crosses the limit: nobody gets a session while it is used up.
        if node_is_out and not node_was_out:
            self._doom(self._sessions.values(), Refusal.NODE_BYTES)
        if peer_is_out and not peer_was_out:
            self._doom(self._by_peer.get(session.peer_id, ()), Refusal.PEER_BYTES)
        return moved_bytes

    def owe(self, session: RelaySession, owed_bytes: float) -> None:
        """Note what a session that is about to be released has sent before it was time; the next ones wait for it."""
        self._starts.owe(session.peer_id, owed_bytes, session.start_bytes)

    def _who_is_out(self, peer_id: bytes, now_s: float) -> tuple[bool, bool]:
        node_is_out = self.bytes.is_node_out(self.settings.max_bytes, now_s)
        return node_is_out, self.bytes.is_peer_out(peer_id, self.settings.max_bytes_per_peer, now_s)

    # What workers have to be told.

    def doomed(self) -> list[tuple[RelaySession, Refusal]]:
        """Return the sessions that have to end and whose workers have not been told."""
        return list(self._doomed.items())

    def ending(self, session: RelaySession) -> None:
        """Note that the session's worker has been told to end it; it counts until that says so."""
        session.is_ending = True
        self._doomed.pop(session, None)

    def unsettled(self) -> list[tuple[RelaySession, Allowance]]:
        """Return the sessions whose part of their peer's bandwidth is not what their workers were told last."""
        changed: list[tuple[RelaySession, Allowance]] = []
        for peer_id in self._unsettled:
            held = self._by_peer.get(peer_id, [])
            allowance = self._allowance(len(held))
            changed += [(session, allowance) for session in held if session.allowance != allowance]
        self._unsettled.clear()
        return changed

    def unsettle(self, session: RelaySession) -> None:
        """Note that the session's worker could not be told; it is to be told next time."""
        self._unsettled.add(session.peer_id)

    # Limits change.

    def change(self, settings: RelaySettings, now_s: float) -> None:
        """Let other limits hold from now on, for sessions that there are as well."""
        before, self.settings = self.settings, settings
        self.bytes.change_period(settings.quota_period_s, now_s)
        # New buckets are full: a limit that stays must not be handed out again by every change of another.
        if settings.max_sessions_per_peer != before.max_sessions_per_peer:
            self._peer_opens = _opens(settings.max_sessions_per_peer)
        if settings.max_sessions_per_prefix != before.max_sessions_per_prefix:
            self._prefix_opens = _opens(settings.max_sessions_per_prefix)
        if _bandwidth(settings) != _bandwidth(before):
            self._starts = _starts(settings)
        self._allowed, self._denied = _peer_lists(settings)
        self._unsettled.update(self._by_peer)
        self._doom_what_is_no_longer_allowed(now_s)

    def _doom_what_is_no_longer_allowed(self, now_s: float) -> None:
        limits = self.settings
        # What was doomed by the limits before may stay now, unless its worker has been told already.
        self._doomed.clear()
        if not limits.enabled:
            self._doom(self._sessions.values(), Refusal.DISABLED)
        elif self.bytes.is_node_out(limits.max_bytes, now_s):
            self._doom(self._sessions.values(), Refusal.NODE_BYTES)
        for peer_id, held in self._by_peer.items():
            if not self._may_relay(peer_id):
                self._doom(held, Refusal.PEER_DENIED)
            elif self.bytes.is_peer_out(peer_id, limits.max_bytes_per_peer, now_s):
                self._doom(held, Refusal.PEER_BYTES)
            self._doom(_stay(held)[limits.max_sessions_per_peer :], Refusal.PEER_SESSIONS)
        per_prefix: dict[bytes, int] = {}
        for session in self._not_doomed():
            per_prefix[session.prefix] = per_prefix.get(session.prefix, 0) + 1
            if per_prefix[session.prefix] > limits.max_sessions_per_prefix:
                self._doom((session,), Refusal.PREFIX_SESSIONS)
        self._doom(self._not_doomed()[limits.max_sessions :], Refusal.NODE_SESSIONS)

    def _not_doomed(self) -> list[RelaySession]:
        return [each for each in _stay(self._sessions.values()) if each not in self._doomed]

    def _doom(self, sessions: Iterable[RelaySession], reason: Refusal) -> None:
        for session in sessions:
            if not session.is_ending:
                self._doomed.setdefault(session, reason)

    # Rules.

    def _refusal(self, peer_id: bytes, prefix: bytes, now_s: float) -> Refusal | None:
        limits = self.settings
        refusal: Refusal | None = None
        if not limits.enabled:
            refusal = Refusal.DISABLED
        elif self.draining:
            refusal = Refusal.DRAINING
        elif len(peer_id) != PEER_ID_BYTES:
            refusal = Refusal.UNAUTHENTICATED
        elif not self._may_relay(peer_id):
            refusal = Refusal.PEER_DENIED
        elif not (self._peer_opens.take(peer_id, now_s) and self._prefix_opens.take(prefix, now_s)):
            refusal = Refusal.OPEN_RATE
        elif self.bytes.is_node_out(limits.max_bytes, now_s):
            refusal = Refusal.NODE_BYTES
        elif self.bytes.is_peer_out(peer_id, limits.max_bytes_per_peer, now_s):
            refusal = Refusal.PEER_BYTES
        elif len(self._sessions) >= limits.max_sessions:
            refusal = Refusal.NODE_SESSIONS
        elif len(self._by_peer.get(peer_id, ())) >= limits.max_sessions_per_peer:
            refusal = Refusal.PEER_SESSIONS
        elif self._per_prefix.get(prefix, 0) >= limits.max_sessions_per_prefix:
            refusal = Refusal.PREFIX_SESSIONS
        return refusal

    def _may_relay(self, peer_id: bytes) -> bool:
        return peer_id not in self._denied and (not self._allowed or peer_id in self._allowed)

    def _allowance(self, sessions: int) -> Allowance:
        rate = self.settings.bandwidth_per_peer_bytes_per_s / max(1, sessions)
        return Allowance(rate_bytes_per_s=rate, burst_bytes=rate * self.settings.burst_s)


def _stay(sessions: Iterable[RelaySession]) -> list[RelaySession]:
    """Those that are not about to end, in the order in which they came."""
    return [session for session in sessions if not session.is_ending]


def _opens(sessions: int) -> KeyedBuckets:
    rate_per_s = max(LEAST_OPENS_PER_S, sessions / TURNOVER_S)
    burst = max(LEAST_OPENS_AT_ONCE, sessions * TURNOVERS_AT_ONCE)
    return KeyedBuckets(rate_per_s, burst, RATE_TABLE_ENTRIES)


def _bandwidth(settings: RelaySettings) -> tuple[float, float]:
    rate = settings.bandwidth_per_peer_bytes_per_s
    return rate, rate * settings.burst_s


def _starts(settings: RelaySettings) -> RelayStarts:
    return RelayStarts(*_bandwidth(settings), RATE_TABLE_ENTRIES)


def _peer_lists(settings: RelaySettings) -> tuple[frozenset[bytes], frozenset[bytes]]:
    allowed, denied = (
        frozenset(map(bytes.fromhex, listed)) for listed in (settings.allowed_peers, settings.denied_peers)
    )
    return allowed, denied
