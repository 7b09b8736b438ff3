"""
Hole punching through nodes: requests, answers, and introductions that come unasked.

Keeps one :class:`Punch` per peer and turns its steps into messages and dials::

    we ask           CoordinationRequest  →  node
    node answers     CoordinationAccepted or CoordinationRejected
    node introduces  CoordinationAccepted, to the side that did not ask
    both sides       dial the address they were given, at the same time

An introduction is believed from a node that we dialled ourselves, and from nobody else; since it makes us send packets
to an address of somebody else's choice, there is a limit on how many are followed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from antquic_server.peer.link import Link
from antquic_server.peer.nat_behaviour import PortGrowth
from antquic_server.peer.punching import MIN_ROUND_S, Ask, Dial, Failure, Give, Punch, Step
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import (
    CoordinationAccepted,
    CoordinationRejected,
    CoordinationRequest,
    Envelope,
    encode_envelope,
)
from antquic_server.protocol.limits import TokenBucket

__all__ = ["Introductions", "Surroundings"]

REQUEST_LIFETIME_S = 10.0
INTRODUCTIONS_PER_S = 5.0
INTRODUCTION_BURST = 20.0

ELSEWHERE = frozenset(
    (
        Failure.UNKNOWN_TARGET,
        Failure.COORDINATOR_LOST,
        Failure.COORDINATOR_ERROR,
        Failure.RATE_LIMITED,
        Failure.EXPIRED,
        Failure.UNAUTHENTICATED,
    )
)
"""Failures of one node that another may not share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What introductions need of the rest of the peer."""

    send: Callable[[Link, bytes], bool]
    find: Callable[[int], Link | None]
    own_candidates: Callable[[Link], list[SocketAddress]]
    port_growth: Callable[[Link], PortGrowth]
    """How the ports of our own NAT go on from the one that a node has told the other side."""
    dial: Callable[[SocketAddress, bytes, float, float], None]
    """Address, peer id, now, deadline: dial, or repeat a dial that is under way."""
    ended: Callable[[bytes, Failure | None, bool], None]
    """Peer id, failure, whether the other side had asked."""
    unix_s: Callable[[], float]


@dataclass(slots=True, kw_only=True)
class _Attempt:
    punch: Punch
    coordinators: list[int]
    """Numbers of the connections to ask; the first one now, the others if that one cannot help."""
    introduced_by: int | None = None
    """Number of the connection on which an introduction has come last."""
    met_directly: bool = False


class Introductions:
    """Every attempt of one endpoint, in both roles."""

    def __init__(self, surroundings: Surroundings, *, settings: PeerSettings, own_peer_id: bytes, tallies: Tallies):
        self._around = surroundings
        self._settings = settings
        self._own_peer_id = own_peer_id
        self._tallies = tallies
        self._attempts: dict[bytes, _Attempt] = {}
        self._requests: dict[int, tuple[bytes, float]] = {}
        """Whom a request was about, and when it was sent, by its id."""
        self._bucket = TokenBucket(INTRODUCTIONS_PER_S, INTRODUCTION_BURST)
        self.last_addresses: tuple[SocketAddress, ...] = ()
        """Where the other side of the attempt was that has ended last, as far as we were told."""
        self.last_introduced_by: int | None = None
        """Number of the connection on which that attempt was introduced last; None if it never was."""
        self.last_met_directly = False
        """Whether it has ended with a connection that no node carries."""

    def __contains__(self, peer_id: bytes) -> bool:
        return peer_id in self._attempts

    def is_asking(self, peer_id: bytes) -> bool:
        """Whether we ourselves are trying to reach this peer."""
        attempt = self._attempts.get(peer_id)
        return attempt is not None and not attempt.punch.invited

    def begin(
        self,
        target: bytes,
        coordinators: list[int],
        now_s: float,
        deadline_s: float | None = None,
        *,
        first_round: int = 1,
    ) -> None:
        """Ask the first of these connections for an introduction; ``ended`` is called exactly once for it."""
        self.last_addresses, self.last_introduced_by, self.last_met_directly = (), None, False
        if target == self._own_peer_id:
            self._around.ended(target, Failure.SELF_TARGET, False)
            return
        if not coordinators:
            self._around.ended(target, Failure.NO_COORDINATOR, False)
            return
        punch = Punch(target=target, settings=self._settings, now_s=now_s, first_round=first_round)
        if deadline_s is not None:
            punch.deadline_s = min(punch.deadline_s, deadline_s)
        self._attempts[target] = _Attempt(punch=punch, coordinators=coordinators)
        self._take(target, punch.steps, now_s)

    def connected(self, peer_id: bytes, now_s: float, *, directly: bool = True) -> bool:
        """Take in that a peer is connected; returns whether that was being attempted."""
        attempt = self._attempts.get(peer_id)
        if attempt is None:
            return False
        attempt.met_directly = directly
        self._take(peer_id, attempt.punch.connected(), now_s)
        return True

    def link_lost(self, link: Link, now_s: float) -> None:
        """Take in that a connection has ended that may have been to a coordinator."""
        for target, attempt in list(self._attempts.items()):
            if attempt.coordinators and attempt.coordinators[0] == link.number:
                self._take(target, attempt.punch.coordinator_lost(), now_s)

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` is due."""
        times = (attempt.punch.timer_at_s for attempt in self._attempts.values())
        return min((at_s for at_s in times if at_s is not None), default=None)

    def handle_timer(self, now_s: float) -> None:
        """Start rounds and end attempts that are due."""
        for target, attempt in list(self._attempts.items()):
            self._take(target, attempt.punch.handle_timer(now_s), now_s)

    def handle_message(self, envelope: Envelope, node: Link, now_s: float) -> None:
        """Take in an answer or an introduction of a node."""
        message = envelope.message
        if isinstance(message, CoordinationRequest):
            self._tallies.drops["request_to_a_peer"] += 1
        elif message.initiator == self._own_peer_id:
            self._answered(envelope, message, node, now_s)
        elif isinstance(message, CoordinationAccepted) and message.target == self._own_peer_id:
            self._introduced(message, node, now_s)
        else:
            self._tallies.drops["introduction_of_others"] += 1

    def _answered(
        self, envelope: Envelope, message: CoordinationAccepted | CoordinationRejected, node: Link, now_s: float
    ) -> None:
        target, asked_s = self._requests.pop(envelope.request_id, (None, 0.0))
        attempt = self._attempts.get(message.target)
        if isinstance(message, CoordinationRejected):
            self._tallies.coordination_rejections[message.reason.value] += 1
        if target != message.target or attempt is None:
            self._tallies.drops["answer_too_late"] += 1
            return
        self._tallies.coordination_answers += 1
        self._tallies.coordination_wait_s += now_s - asked_s
        if isinstance(message, CoordinationAccepted):
            addresses, growth = _dialable(message.target_addrs), self._around.port_growth(node)
            attempt.introduced_by = node.number
            steps = attempt.punch.accepted(addresses, round_number=message.round, growth=growth)
        else:
            steps = attempt.punch.rejected(message.reason)
        self._take(target, steps, now_s)

    def _introduced(self, message: CoordinationAccepted, node: Link, now_s: float) -> None:
        if not self._settings.accept_introductions or not self._bucket.take(now_s):
            self._tallies.drops["introduction_refused"] += 1
            return
        self._tallies.introductions_received += 1
        attempt = self._attempts.get(message.initiator)
        if attempt is None:
            punch = Punch(target=message.initiator, settings=self._settings, now_s=now_s, invited=True)
            attempt = self._attempts[message.initiator] = _Attempt(punch=punch, coordinators=[])
        elif attempt.punch.invited:
            attempt.punch.extend(now_s)
        addresses, growth = _dialable(message.initiator_addrs), self._around.port_growth(node)
        attempt.introduced_by = node.number
        steps = attempt.punch.accepted(addresses, round_number=message.round, growth=growth)
        self._take(message.initiator, steps, now_s)

    def _take(self, target: bytes, steps: list[Step], now_s: float) -> None:
        for step in steps:
            attempt = self._attempts[target]
            if isinstance(step, Ask):
                self._ask(target, attempt, step.round_number, now_s)
            elif isinstance(step, Dial):
                for address in step.addresses:
                    self._around.dial(address, target, now_s, attempt.punch.deadline_s)
            elif isinstance(step, Give):
                self._end(target, attempt, step.failure, now_s)

    def _ask(self, target: bytes, attempt: _Attempt, round_number: int, now_s: float) -> None:
        coordinator = self._around.find(attempt.coordinators[0])
        if coordinator is None:
            self._take(target, attempt.punch.coordinator_lost(), now_s)
            return
        self._tallies.coordination_requests += 1
        request_id = self._tallies.coordination_requests
        self._requests[request_id] = target, now_s
        lifetime_s = min(REQUEST_LIFETIME_S, max(attempt.punch.deadline_s - now_s, MIN_ROUND_S))
        envelope = Envelope(
            request_id=request_id,
            expires_at_unix_ms=int((self._around.unix_s() + lifetime_s) * 1000),
            message=CoordinationRequest(
                initiator=self._own_peer_id,
                target=target,
                round=round_number,
                initiator_addrs=tuple(self._around.own_candidates(coordinator)),
            ),
        )
        # Should the stream have to wait for credit for ever, the timers of the attempt notice.
        self._around.send(coordinator, encode_envelope(envelope))

    def _end(self, target: bytes, attempt: _Attempt, failure: Failure | None, now_s: float) -> None:
        self._requests = {key: value for key, value in self._requests.items() if value[0] != target}
        del self._attempts[target]
        others = attempt.coordinators[1:]
        if failure in ELSEWHERE and others and now_s < attempt.punch.deadline_s:
            self.begin(target, others, now_s, attempt.punch.deadline_s)
            return
        self.last_addresses, self.last_introduced_by = attempt.punch.addresses, attempt.introduced_by
        self.last_met_directly = attempt.met_directly
        self._around.ended(target, failure, attempt.punch.invited)


def _dialable(addresses: tuple[SocketAddress, ...]) -> tuple[SocketAddress, ...]:
    """Leave out what nobody can be reached at; loopback and private addresses may well be meant."""
    return tuple(item for item in addresses if item.port and not (item.host.is_unspecified or item.host.is_multicast))
