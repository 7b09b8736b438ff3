"""
How hole punches end: what peers report, held against the introductions that the hub has made.

A node introduces two peers and then sees nothing of them: they dial each other. Peers of our library say afterwards how
it went (``protocol.punch_report``), each on its own authenticated connection. What they say is believed as far as it
goes: a report counts only for a pair that was introduced here, once for each introduction and side, and two that lie
together spoil their own introductions and nobody else's.

One *attempt* lasts from the first introduction of a pair, whoever asked, over all further rounds. It is settled:

=====================================  =========================================================================
both sides have reported               at once: successful if either says so
one side has reported                  after ``LINGER_S``, the same way: the other may be an ant-quic peer
nobody has reported                    ``WINDOW_S`` after the last round: unknown, with a hint (see below)
a further round after a failure        not yet: the failed side goes on, and its report is forgotten
=====================================  =========================================================================

Peers that a relay channel connects look for a direct path again and again, for as long as the connection lasts. Where
they find one that is a success; that they find none is no news, and counted as a retry.

Peers of ant-quic report nothing, so that attempts between two of them end as unknown. What can be seen of them is only
whether one of the two holds a relay session of this node when the time is up. That hints at a failure, but is none: a
peer may keep a session to be reached at, and a success shows nowhere. Counted as failures, such attempts would make
every node with ant-quic peers look as if nothing could be punched; so they are counted apart.

An introduction that names the address of a relay session is no hole punch. Pure: time is an argument.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from antquic_server.ipc.punch_messages import PunchReported
from antquic_server.protocol.address_discovery import Mapping as NatMapping
from antquic_server.stats.counters import SEPARATOR, series_key
from antquic_server.supervisor.directory import PEER_ID_BYTES

__all__ = ["LINGER_S", "MAX_ATTEMPTS", "WINDOW_S", "Punches", "punch_document"]

WINDOW_S: Final = 60.0
"""The longest that a peer tries after an introduction (``nat.discovery_timeout_s``), and then some."""

LINGER_S: Final = 4.0
"""For the other side's report, and less than peers take to look for a direct path again once they are relayed. A peer
that is introduced without having asked tries on for longer than one that asks and then turns to a relay; what it says
after that decides nothing any more."""

MAX_ATTEMPTS: Final = 1 << 15
"""Attempts that are remembered, 26 MB; the oldest is settled early when there are more."""

SUCCESSFUL: Final = "successful"
FAILED: Final = "failed"

_Pair = frozenset[bytes]


@dataclass(slots=True)
class _Attempt:
    initiator: bytes
    target: bytes
    until_s: float
    nats: dict[bytes, NatMapping]
    is_retry: bool
    reports: dict[bytes, bool] = field(default_factory=dict)
    settle_at_s: float | None = None
    settled: bool = False


class Punches:
    """
    Every attempt of the last minute, and what has become of all of them.

    ``nat_of`` tells how a peer's NAT maps as far as the node knows, ``holds_relay`` whether a peer has a relay session,
    ``relayed`` whether a channel connects two peers.
    """

    def __init__(
        self,
        nat_of: Callable[[bytes], NatMapping],
        holds_relay: Callable[[bytes], bool],
        relayed: Callable[[bytes, bytes], bool],
    ) -> None:
        self._nat_of = nat_of
        self._holds_relay = holds_relay
        self._relayed = relayed
        self._attempts: dict[_Pair, _Attempt] = {}
        """In the order of their last rounds, and so of their ends."""
        self._lingering: dict[_Pair, _Attempt] = {}
        self._counters: dict[str, float] = {}

    def counters(self) -> dict[str, float]:
        """Return what is counted here, keys as in ``stats.counters``."""
        return dict(self._counters)

    def introduced(self, initiator: bytes, target: bytes, now_s: float) -> None:
        """Note that two peers were given each other's own addresses."""
        pair = frozenset((initiator, target))
        if len(pair) != 2 or any(len(peer) != PEER_ID_BYTES for peer in pair):
            return  # words of a worker, and a worker reads what strangers send
        attempt = self._attempts.pop(pair, None)
        self._lingering.pop(pair, None)
        if attempt is not None and not attempt.settled and True in attempt.reports.values():
            self._settle(attempt)
        if attempt is None or attempt.settled:
            nats = {peer: self._nat_of(peer) for peer in pair}
            is_retry = self._relayed(initiator, target)
            attempt = _Attempt(initiator, target, until_s=0.0, nats=nats, is_retry=is_retry)
        attempt.until_s = now_s + WINDOW_S
        attempt.reports.clear()
        attempt.settle_at_s = None
        if len(self._attempts) >= MAX_ATTEMPTS:
            oldest = next(iter(self._attempts))
            self._lingering.pop(oldest, None)
            self._settle(self._attempts.pop(oldest))
        self._attempts[pair] = attempt

    def reported(self, message: PunchReported, now_s: float) -> None:
        """Take in what an authenticated peer says about its attempt with another."""
        pair = frozenset((message.peer_id, message.other))
        attempt = self._attempts.get(pair)
        if attempt is None or attempt.until_s <= now_s:
            self._count("punch_reports", "not_introduced")
            return
        if attempt.settled or message.peer_id in attempt.reports:
            self._count("punch_reports", "repeated")
            return
        self._count("punch_reports", "counted")
        attempt.reports[message.peer_id] = message.succeeded
        # The node has seen the peer from several of its addresses, or has nothing but the peer's word.
        if attempt.nats[message.peer_id] is NatMapping.UNKNOWN and message.nat_mapping in _NAT_WORDS:
            attempt.nats[message.peer_id] = NatMapping(message.nat_mapping)
        if len(attempt.reports) == 2:
            self._lingering.pop(pair, None)
            self._settle(attempt)
        else:
            attempt.settle_at_s = now_s + LINGER_S
            self._lingering[pair] = attempt

    def tick(self, now_s: float) -> None:
        """Settle what is due; several times a second."""
        # Both are in the order in which they fall due.
        while self._lingering:
            pair, attempt = next(iter(self._lingering.items()))
            if attempt.settle_at_s is not None and attempt.settle_at_s > now_s:
                break
            del self._lingering[pair]
            self._settle(attempt)
        while self._attempts:
            pair, attempt = next(iter(self._attempts.items()))
            if attempt.until_s > now_s:
                break
            del self._attempts[pair]
            self._lingering.pop(pair, None)
            self._settle(attempt)

    def settle_all(self) -> None:
        """Settle what has been reported, for the very end of the node."""
        for attempt in self._attempts.values():
            if attempt.reports:
                self._settle(attempt)
        self._lingering.clear()

    def _settle(self, attempt: _Attempt) -> None:
        if attempt.settled:
            return
        attempt.settled = True
        succeeded = True in attempt.reports.values()
        if attempt.is_retry and not succeeded:
            self._count("hole_punch_retries")
        elif attempt.reports:
            result = SUCCESSFUL if succeeded else FAILED
            nats = (attempt.nats[attempt.initiator], attempt.nats[attempt.target])
            self._count("hole_punches", result, *nats)
        else:
            held = self._holds_relay(attempt.initiator) or self._holds_relay(attempt.target)
            self._count("hole_punches_unknown", "relay_held" if held else "none")

    def _count(self, name: str, *labels: str) -> None:
        key = series_key(name, *labels)
        self._counters[key] = self._counters.get(key, 0) + 1


_NAT_WORDS: Final = frozenset(map(str, NatMapping))


def punch_document(totals: Mapping[str, float]) -> dict[str, object]:
    """Return the part ``punches`` of ``/status``; ``totals`` are the counters of the whole node."""
    pairs: dict[tuple[str, str], dict[str, float]] = {}
    for key, value in totals.items():
        name, *labels = key.split(SEPARATOR)
        if name == "hole_punches":
            result, initiator, target = labels
            pairs.setdefault((initiator, target), {SUCCESSFUL: 0, FAILED: 0})[result] = value
    return {
        SUCCESSFUL: sum(each[SUCCESSFUL] for each in pairs.values()),
        FAILED: sum(each[FAILED] for each in pairs.values()),
        "unknown": sum(value for key, value in totals.items() if key.startswith("hole_punches_unknown" + SEPARATOR)),
        "by_nat_pair": [
            {"initiator": initiator, "target": target, **counts}
            for (initiator, target), counts in sorted(pairs.items())
        ],
    }
