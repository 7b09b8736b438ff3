"""
Whether a coordination request is served, and with which addresses.

Pure decisions of a coordinator (wire notes, sections 5.3 and 5.7): which requests are refused and why, and which one
address of each side the other is told. Time is an argument.

One address per side: a peer dials the addresses it is given one after the other, up to 30 s each, so a second one only
delays the punch. It is the address we see the peer's packets come from, because that is the mapping its NAT has made
and keeps.

Where that leaves the two sides without a family in common, one of them needs a *stand-in* of the other's family: the
address we see another connection of the same peer come from, which is proven, or one that it has advertised. Nobody has
proven the latter: it may be a third party's, whom the other side would then send its Initials to. So whoever hands one
out limits how often each prefix is named.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_network

from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import CoordinationRequest, Envelope, RejectionReason

CLOCK_SKEW_MS = 60_000
"""Requests say when they expire by the initiator's clock, often two seconds ahead; a minute of skew is common."""


_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
"""RFC 1918 and RFC 4193; not what Python calls private, which has the networks of benchmarks and examples in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddresses:
    """
    Where a peer can be reached: as seen by us on this connection and on ``others``, and as advertised by itself.

    The best of ``others`` and ``advertised`` comes first.
    """

    observed: SocketAddress
    others: tuple[SocketAddress, ...] = ()
    advertised: tuple[SocketAddress, ...] = ()

    def in_family(self, *, ipv4: bool) -> SocketAddress | None:
        """The best address of one family."""
        if self.observed.is_ipv4 == ipv4:
            return self.observed
        return _seen(self.others, ipv4=ipv4) or _claimed(self.advertised, ipv4=ipv4)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """An address of the family that a peer does not use with us, and whether we have seen the peer there."""

    address: SocketAddress
    of_initiator: bool
    proven: bool


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


def find_stand_in(initiator: PeerAddresses, target: PeerAddresses) -> StandIn | None:
    """
    Return the address that brings two peers of different families together; None if there is none or no need for one.

    A proven one of either side comes before an advertised one, and in both cases the initiator's, which lets the
    target's mapping decide, before the target's.
    """
    needs = ((initiator, target.observed.is_ipv4, True), (target, initiator.observed.is_ipv4, False))
    if initiator.observed.is_ipv4 == target.observed.is_ipv4:
        return None
    for side, ipv4, of_initiator in needs:
        seen = _seen(side.others, ipv4=ipv4)
        if seen is not None:
            return StandIn(address=seen, of_initiator=of_initiator, proven=True)
    for side, ipv4, of_initiator in needs:
        claimed = _claimed(side.advertised, ipv4=ipv4)
        if claimed is not None:
            return StandIn(address=claimed, of_initiator=of_initiator, proven=False)
    return None


def _seen(addresses: Iterable[SocketAddress], *, ipv4: bool) -> SocketAddress | None:
    return next((item for item in addresses if item.is_ipv4 == ipv4), None)


def _claimed(addresses: Iterable[SocketAddress], *, ipv4: bool) -> SocketAddress | None:
    return next((item for item in addresses if item.is_ipv4 == ipv4 and _is_dialable(item)), None)


def _is_dialable(address: SocketAddress) -> bool:
    host = address.host
    useless = host.is_unspecified or host.is_multicast or host.is_loopback or host.is_link_local or host.is_reserved
    # A private address names a host of whoever dials it, not one of the peer that claims it.
    private = any(host in each for each in _PRIVATE)
    return not (useless or private) and address.port > 0
