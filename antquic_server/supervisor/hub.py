"""
Passes introductions between workers.

Initiator and target of a hole punch are usually on different workers. The worker that is asked knows only its own
peers, so it asks the hub; the hub looks the target up and passes the question to the worker that has it, and the answer
back. Nothing is remembered in between: messages carry all that is needed, and one that gets lost with its worker ends
in the initiator's own timeout. What has become of those who were introduced is a book of its own (``punches``).

The hub is also where the limits of the whole node are: every sound request passes it, whichever worker it came in on,
and a peer may have connections to all of them. What it counts by:

==================== ===========================================================================================
initiator            requests of one peer; the same limit as each worker's own, which keeps a flood off the hub
target               introductions to one peer, by all others together: each makes it dial somebody
target_share         of those, the ones asked for from one address (/48 for IPv6): at most half, so that nobody
                     can use up a target's limit from one place and make it unreachable for everybody else
unproven_address     introductions to an address that nobody has been seen at, by its prefix
==================== ===========================================================================================
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from antquic_server.config.model import NatSettings
from antquic_server.errors import AddressDecodeError
from antquic_server.ipc.messages import Introduce, Introduced, Message
from antquic_server.ipc.punch_messages import PunchReported
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import RejectionReason
from antquic_server.protocol.coordinator import PeerAddresses, find_stand_in
from antquic_server.protocol.limits import KeyedBuckets, address_prefixes
from antquic_server.supervisor.directory import Directory, PeerConnection
from antquic_server.supervisor.punches import Punches
from antquic_server.supervisor.target_limits import RATE_TABLE_ENTRIES, Limit, TargetLimits

DIRECT: Final = "direct"
RELAYED: Final = "relayed"
"""Kinds of introductions: both addresses are the peers' own, or one is that of a relay session."""

UNPROVEN_PER_S = 0.2
UNPROVEN_BURST = 5.0
"""A peer that dials in vain sends some 15 kB; so those who are made to dial a stranger send him 3 kB/s altogether."""


RELAY_FROM_ROUND: Final = 2
"""The round of an initiator from which on it is taken to dial through its relay session, if it has one."""


HubMessage = Introduce | Introduced | PunchReported
"""What workers say about introductions."""


class Hub:
    """
    ``tell_slot`` sends a message to the worker of a slot; False if there is none or its queue is full.

    ``relay_addresses`` returns where a peer is reached through its relay sessions here, the newest first;
    ``holds_relay`` and ``relayed`` are for ``punches.Punches``. ``limited``
    counts the requests that were refused as RateLimited, ``introduced_by`` the pairs of peers that were given
    addresses, ``punches`` keeps how it went on, ``clock`` is in monotonic seconds.
    """

    def __init__(
        self,
        directory: Directory,
        tell_slot: Callable[[int, Message], bool],
        *,
        nat: NatSettings,
        clock: Callable[[], float],
        relay_addresses: Callable[[bytes], Sequence[SocketAddress]] = lambda _: (),
        holds_relay: Callable[[bytes], bool] = lambda _: False,
        relayed: Callable[[bytes, bytes], bool] = lambda *_: False,
    ) -> None:
        self.punches = Punches(directory.mapping, holds_relay, relayed)
        self.limited = dict.fromkeys(Limit, 0)
        self.introduced_by = dict.fromkeys((DIRECT, RELAYED), 0)
        self._directory = directory
        self._tell_slot = tell_slot
        self._clock = clock
        self._relay_addresses = relay_addresses
        self._targets = TargetLimits(nat)
        self._buckets = {
            Limit.INITIATOR: _buckets(nat.coordination_rate_per_s, nat.coordination_burst),
            Limit.UNPROVEN_ADDRESS: _buckets(UNPROVEN_PER_S, UNPROVEN_BURST),
        }

    def heard(self, slot: int, message: HubMessage) -> None:
        """React to what the worker of ``slot`` says."""
        match message:
            case Introduce():
                self.introduce(slot, message)
            case Introduced():
                self.introduced(message)
            case PunchReported():
                self.punches.reported(message, self._clock())

    def introduce(self, slot: int, message: Introduce) -> None:
        """Pass a question of the worker of ``slot`` on, or answer why not."""
        question = self._readable_from(replace(message, slot=slot))
        target = self._directory.newest(question.target)
        reason: RejectionReason | None = RejectionReason.UNKNOWN_TARGET
        if not self._take(Limit.INITIATOR, question.initiator):
            reason = RejectionReason.RATE_LIMITED
        elif target is not None:
            try:
                reason = self._pass_on(question, target)
            except AddressDecodeError:
                # Words of a worker, and a worker reads what strangers send.
                reason = RejectionReason.INTERNAL_ERROR
        if reason is not None:
            self.introduced(question.answer(reason=reason.value))

    def introduced(self, message: Introduced) -> None:
        """Pass an answer back to the worker that asked; if it is gone, so is its peer's connection."""
        if not message.reason:
            relays = (*self._relay_addresses(message.initiator), *self._relay_addresses(message.target))
            named = {message.initiator_address, message.target_address}
            path = RELAYED if named & set(map(str, relays)) else DIRECT
            self.introduced_by[path] += 1
            if path is DIRECT:
                self.punches.introduced(message.initiator, message.target, self._clock())
        self._tell_slot(message.slot, message)

    def _pass_on(self, question: Introduce, target: PeerConnection) -> RejectionReason | None:
        """Send a question to the worker that has the target; returns why not."""
        initiator = PeerAddresses(
            observed=SocketAddress.parse(question.address).normalised(),
            others=self._directory.addresses(question.initiator),
            advertised=tuple(map(SocketAddress.parse, question.advertised)),
        )
        exceeded = self._targets.exceeded(question.target, initiator.observed, self._clock())
        if exceeded is not None:
            self.limited[exceeded] += 1
            return RejectionReason.RATE_LIMITED
        initiator, target_relay = self._with_relay(question, initiator)
        known = PeerAddresses(
            observed=target.address if target_relay is None else target_relay,
            others=self._directory.addresses(question.target),
            advertised=tuple(map(SocketAddress.parse, target.advertised)),
        )
        # The worker uses what it is told here and nothing else that a peer has advertised.
        question = replace(
            question,
            target_connection=target.connection,
            address=str(initiator.observed),
            advertised=[],
            target_advertised=[],
            target_relay="" if target_relay is None else str(target_relay),
        )
        stand_in = find_stand_in(initiator, known)
        if stand_in is not None:
            if not stand_in.proven and not self._take(Limit.UNPROVEN_ADDRESS, address_prefixes(stand_in.address)[-1]):
                return RejectionReason.RATE_LIMITED
            named = [str(stand_in.address)]
            if stand_in.of_initiator:
                question = replace(question, advertised=named)
            else:
                question = replace(question, target_advertised=named)
        return None if self._tell_slot(target.slot, question) else RejectionReason.INTERNAL_ERROR

    def _with_relay(self, question: Introduce, initiator: PeerAddresses) -> tuple[PeerAddresses, SocketAddress | None]:
        """
        Return the initiator, and the address to name for the target if that is not to be the one it is seen at.

        A target that has advertised the address of its relay session listens there, because its NAT gives it another
        port for everybody it talks to. An initiator whose first round has failed, and which holds a session, dials
        through it: the target has to open its NAT for packets from there.
        """
        advertised = {text for each in self._directory.find(question.target) for text in each.advertised}
        usable = (each for each in self._relay_addresses(question.target) if str(each) in advertised)
        target_relay = next((each for each in usable if initiator.in_family(ipv4=each.is_ipv4) is not None), None)
        if question.round >= RELAY_FROM_ROUND:
            relays = self._relay_addresses(question.initiator)
            same_family = (each for each in relays if each.is_ipv4 == initiator.observed.is_ipv4)
            initiator = replace(initiator, observed=next(same_family, initiator.observed))
        return initiator, target_relay

    def _take(self, limit: Limit, key: bytes) -> bool:
        taken = self._buckets[limit].take(key, self._clock())
        self.limited[limit] += not taken
        return taken

    def _readable_from(self, question: Introduce) -> Introduce:
        """
        Return the question with the connection on which the initiator reads the answer.

        That is the one it asked on, unless a peer dialled that one only to ask, and listens on another.
        """
        asked = (question.slot, question.connection)
        for each in self._directory.find(question.initiator):
            if (each.slot, each.connection) == asked and not each.readable:
                reader = self._directory.newest(question.initiator)
                if reader is not None:
                    return replace(question, slot=reader.slot, connection=reader.connection)
        return question


def _buckets(rate_per_s: float, burst: float) -> KeyedBuckets:
    return KeyedBuckets(rate_per_s, burst, RATE_TABLE_ENTRIES)
