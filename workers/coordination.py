"""
Introduces peers to each other, so that they can punch through their NATs.

A request comes in on a unidirectional stream of an authenticated peer. The hub finds the worker that has the target;
that worker chooses the addresses, tells the target, and answers; then the asking worker tells the initiator. Both sides
so begin to dial within a millisecond of each other. What is refused, and why, is decided in ``protocol.coordinator``.

::

    initiator → worker A   CoordinationRequest
    worker A  → hub        Introduce      → worker B (has the target)
    worker B  → target     CoordinationAccepted
    worker B  → hub        Introduced     → worker A
    worker A  → initiator  CoordinationAccepted or CoordinationRejected
"""

from collections.abc import Callable
from dataclasses import dataclass

from antquic_server.errors import AddressDecodeError, CoordinationDecodeError
from antquic_server.ipc.messages import Introduce, Introduced, Message
from antquic_server.logs import get_logger
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import (
    CoordinationAccepted,
    CoordinationMessage,
    CoordinationRejected,
    CoordinationRequest,
    Envelope,
    RejectionReason,
    decode_envelope_untrusted,
    encode_envelope,
)
from antquic_server.protocol.coordinator import PeerAddresses, choose_addresses, refusal
from antquic_server.protocol.limits import KeyedBuckets
from antquic_server.stats.counters import CounterSet
from workers.connection import Connection

log = get_logger(__name__)

OUTCOMES = {
    "": "accepted",
    RejectionReason.SELF_TARGET: "self_target",
    RejectionReason.UNKNOWN_TARGET: "unknown_target",
    RejectionReason.EXPIRED: "expired",
    RejectionReason.RATE_LIMITED: "rate_limited",
    RejectionReason.UNAUTHENTICATED: "unauthenticated",
    RejectionReason.INTERNAL_ERROR: "internal_error",
}
"""Reason, as the wire spells it, and its word in the metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """
    What coordination needs of its worker: the hub, its connections, and the clocks.

    ``flush`` sends what was written to a connection, soon: it may be called while events of that very connection are
    being handled.
    """

    tell_hub: Callable[[Message], bool]
    find: Callable[[int], Connection | None]
    flush: Callable[[Connection], None]
    monotonic_s: Callable[[], float]
    unix_s: Callable[[], float]


class Coordination:
    """The coordinator of one worker."""

    def __init__(self, surroundings: Surroundings, *, counters: CounterSet, rates: KeyedBuckets) -> None:
        self._around = surroundings
        self._counters = counters
        self._rates = rates

    def handle_message_untrusted(self, connection: Connection, data: bytes) -> None:
        """Serve or refuse one message of a peer; anything but a sound request of its own is dropped and counted."""
        try:
            envelope = decode_envelope_untrusted(data)
        except CoordinationDecodeError:
            self._counters.add("coordinations", 1, "malformed")
            return
        if envelope is None or not isinstance(envelope.message, CoordinationRequest):
            self._counters.add("coordinations", 1, "not_a_request")
            return
        request = envelope.message
        if connection.peer_id is None or request.initiator != connection.peer_id:
            # Silently, as ant-quic does it: an answer would go to somebody who was not asked for.
            self._counters.add("coordinations", 1, "forged_initiator")
            return
        reason = refusal(
            envelope,
            request,
            now_unix_ms=int(self._around.unix_s() * 1000),
            take_token=lambda: self._rates.take(request.initiator, self._around.monotonic_s()),
        )
        question = _question(envelope, request, connection)
        if reason is not None:
            self.introduced(question.answer(reason=reason.value))
        elif not self._around.tell_hub(question):
            self.introduced(question.answer(reason=RejectionReason.INTERNAL_ERROR.value))

    def count_malformed(self) -> None:
        """Count a message that was too long to be one."""
        self._counters.add("coordinations", 1, "malformed")

    def introduce(self, question: Introduce) -> None:
        """Choose addresses for a peer of ours and one of another worker, tell ours, and answer the hub."""
        self._around.tell_hub(self._introduce(question))

    def introduced(self, answer: Introduced) -> None:
        """Tell the initiator how its request ended."""
        self._counters.add("coordinations", 1, OUTCOMES.get(answer.reason, "internal_error"))
        connection = self._around.find(answer.connection)
        if connection is None or connection.peer_id != answer.initiator:
            return
        message: CoordinationMessage
        if answer.reason:
            message = CoordinationRejected(
                initiator=answer.initiator,
                target=answer.target,
                round=answer.round,
                reason=RejectionReason(answer.reason),
            )
        else:
            message = _accepted(answer)
        self._send(connection, answer, message)

    def _introduce(self, question: Introduce) -> Introduced:
        connection = self._around.find(question.target_connection)
        if connection is None or connection.peer_id != question.target or connection.quic.is_closing:
            # Also one that is leaving: the directory hears of it when nothing more of it can arrive.
            return question.answer(reason=RejectionReason.UNKNOWN_TARGET.value)
        try:
            # What the two have advertised is used only as far as the hub says so.
            initiator = PeerAddresses(
                observed=SocketAddress.parse(question.address),
                others=tuple(map(SocketAddress.parse, question.advertised)),
            )
            target = PeerAddresses(
                observed=SocketAddress.parse(question.target_relay) if question.target_relay else _observed(connection),
                others=tuple(map(SocketAddress.parse, question.target_advertised)),
            )
        except AddressDecodeError:
            return question.answer(reason=RejectionReason.INTERNAL_ERROR.value)
        chosen = choose_addresses(initiator, target)
        if chosen is None:
            log.debug("no address family in common", initiator=question.initiator, target=question.target)
            return question.answer(reason=RejectionReason.INTERNAL_ERROR.value)
        answer = question.answer(initiator_address=str(chosen[0]), target_address=str(chosen[1]))
        if not self._send(connection, answer, _accepted(answer)):
            return question.answer(reason=RejectionReason.INTERNAL_ERROR.value)
        self._counters.add("introductions_received")
        return answer

    def _send(self, connection: Connection, answer: Introduced, message: CoordinationMessage) -> bool:
        envelope = Envelope(request_id=answer.request_id, expires_at_unix_ms=answer.expires_at_unix_ms, message=message)
        if connection.quic.is_closing or not connection.quic.send_message(encode_envelope(envelope)):
            self._counters.add("drops", 1, "answer_blocked")
            return False
        self._around.flush(connection)
        return True


def _observed(connection: Connection) -> SocketAddress:
    # Of the state machine, not of the connection, which follows only after the events of a burst: a request may be the
    # first packet from behind a NAT that has rebound.
    path = connection.quic.get_peer_address() or connection.path
    return SocketAddress.from_host(path[0], path[1]).normalised()


def _question(envelope: Envelope, request: CoordinationRequest, connection: Connection) -> Introduce:
    return Introduce(
        request_id=envelope.request_id,
        expires_at_unix_ms=envelope.expires_at_unix_ms,
        round=request.round,
        initiator=request.initiator,
        target=request.target,
        connection=connection.number,
        address=str(_observed(connection)),
        advertised=[str(item) for item in connection.quic.candidates],
    )


def _accepted(answer: Introduced) -> CoordinationAccepted:
    return CoordinationAccepted(
        initiator=answer.initiator,
        target=answer.target,
        round=answer.round,
        initiator_addrs=(SocketAddress.parse(answer.initiator_address),),
        target_addrs=(SocketAddress.parse(answer.target_address),),
    )
