"""
Whether a coordination request is served, and with which addresses.

Pure decisions of a coordinator (wire notes, sections 5.3 and 5.7): which requests are refused and why, and which one
address of each side the other is told. Time is an argument.

One address per side: a peer dials the addresses it is given one after the other, up to 30 s each, so a second one only
delays the punch. It is the address we see the peer's packets come from, because that is the mapping its NAT has made
and keeps; what a peer says about itself is used only where we have not seen it in the family the other side needs.
"""

from collections.abc import Callable
from dataclasses import dataclass

from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import CoordinationRequest, Envelope, RejectionReason

CLOCK_SKEW_MS = 60_000
"""Requests say when they expire by the initiator's clock, often two seconds ahead; a minute of skew is common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddresses:
    """Where a peer can be reached: as seen by us, and as advertised by itself."""

    observed: SocketAddress
    advertised: tuple[SocketAddress, ...] = ()

    def in_family(self, *, ipv4: bool) -> SocketAddress | None:
        """The best address of one family."""
        if self.observed.is_ipv4 == ipv4:
            return self.observed
        return next((item for item in self.advertised if item.is_ipv4 == ipv4 and _is_dialable(item)), None)


def refusal(
    envelope: Envelope,
    request: CoordinationRequest,
    *,
    now_unix_ms: int,
    take_token: Callable[[], bool],
) -> RejectionReason | None:
    """
    Return why a request of an authenticated initiator is refused, None if it is not.

    Args:
        envelope: Carries the expiry.
        request: The request; that its initiator is the sender has been checked.
        now_unix_ms: Our wall clock.
        take_token: Takes one from the initiator's rate limit; called only when the request is otherwise sound, so
            that nonsense does not use up what honest retries need.
    """
    if request.initiator == request.target:
        return RejectionReason.SELF_TARGET
    if envelope.expires_at_unix_ms + CLOCK_SKEW_MS < now_unix_ms:
        return RejectionReason.EXPIRED
    if not request.initiator_addrs:
        # What ant-quic's coordinator answers to it.
        return RejectionReason.INTERNAL_ERROR
    if not take_token():
        return RejectionReason.RATE_LIMITED
    return None


def choose_addresses(initiator: PeerAddresses, target: PeerAddresses) -> tuple[SocketAddress, SocketAddress] | None:
    """
    Return one address of each side, of one family, or None if they have no family in common.

    The pair we have seen ourselves comes first; else the family of the target's mapping, then the initiator's.
    """
    for ipv4 in (target.observed.is_ipv4, initiator.observed.is_ipv4):
        ours, theirs = initiator.in_family(ipv4=ipv4), target.in_family(ipv4=ipv4)
        if ours is not None and theirs is not None:
            return ours, theirs
    return None


def _is_dialable(address: SocketAddress) -> bool:
    host = address.host
    useless = host.is_unspecified or host.is_multicast or host.is_loopback or host.is_link_local or host.is_reserved
    return not useless and address.port > 0
