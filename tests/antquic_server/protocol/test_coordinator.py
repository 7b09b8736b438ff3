"""Tests of the coordinator's decisions."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import CoordinationRequest, Envelope, RejectionReason
from antquic_server.protocol.coordinator import (
    CLOCK_SKEW_MS,
    PeerAddresses,
    StandIn,
    choose_addresses,
    find_stand_in,
    refusal,
)
from support.coordination import ALICE, BOB
from support.strategies import socket_addresses

NOW_MS = 1_764_000_000_000
FOUR_A = SocketAddress.parse("203.0.113.1:1001")
FOUR_B = SocketAddress.parse("203.0.113.2:1002")
SIX_A = SocketAddress.parse("[2001:470::1]:1001")
SIX_B = SocketAddress.parse("[2001:470::2]:1002")


def asked(
    *,
    target: bytes = BOB,
    expires_in_ms: int = 2000,
    addresses: tuple[SocketAddress, ...] = (FOUR_A,),
    tokens: int = 1,
) -> tuple[RejectionReason | None, int]:
    """Ask; returns the reason to refuse and how many tokens are left."""
    left = [tokens]

    def take() -> bool:
        left[0] -= 1
        return left[0] >= 0

    request = CoordinationRequest(initiator=ALICE, target=target, round=1, initiator_addrs=addresses)
    envelope = Envelope(request_id=1, expires_at_unix_ms=NOW_MS + expires_in_ms, message=request)
    return refusal(envelope, request, now_unix_ms=NOW_MS, take_token=take), left[0]


def test_sound_request_is_served() -> None:
    """It costs one token."""
    assert asked() == (None, 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target": ALICE}, RejectionReason.SELF_TARGET),
        ({"expires_in_ms": -CLOCK_SKEW_MS - 1}, RejectionReason.EXPIRED),
        ({"addresses": ()}, RejectionReason.INTERNAL_ERROR),
        ({"target": ALICE, "expires_in_ms": -(10**9), "addresses": ()}, RejectionReason.SELF_TARGET),
        ({"expires_in_ms": -(10**9), "addresses": ()}, RejectionReason.EXPIRED),
    ],
)
def test_unsound_requests_are_refused_for_nothing(changes: dict[str, object], reason: RejectionReason) -> None:
    """The first reason in ant-quic's order is given, and no token is spent on it."""
    assert asked(**changes) == (reason, 1)  # type: ignore[arg-type]


def test_more_than_the_rate_is_refused() -> None:
    """Without a token the request is refused, however sound."""
    assert asked(tokens=0) == (RejectionReason.RATE_LIMITED, -1)


@pytest.mark.parametrize("expires_in_ms", [-CLOCK_SKEW_MS, -1, 0, 2000, 10**12])
def test_clocks_may_differ_by_a_minute(expires_in_ms: int) -> None:
    """Up to the skew a request that looks expired is served, and one from the far future is too."""
    assert asked(expires_in_ms=expires_in_ms)[0] is None


@pytest.mark.parametrize(
    ("initiator", "target", "chosen"),
    [
        pytest.param(PeerAddresses(observed=FOUR_A), PeerAddresses(observed=FOUR_B), (FOUR_A, FOUR_B), id="4 and 4"),
        pytest.param(PeerAddresses(observed=SIX_A), PeerAddresses(observed=SIX_B), (SIX_A, SIX_B), id="6 and 6"),
        pytest.param(PeerAddresses(observed=FOUR_A), PeerAddresses(observed=SIX_B), None, id="nothing in common"),
        pytest.param(
            PeerAddresses(observed=FOUR_A, advertised=(SIX_A,)),
            PeerAddresses(observed=SIX_B),
            (SIX_A, SIX_B),
            id="initiator advertises the family of the target",
        ),
        pytest.param(
            PeerAddresses(observed=SIX_A),
            PeerAddresses(observed=FOUR_B, advertised=(SIX_B,)),
            (SIX_A, SIX_B),
            id="target advertises the family of the initiator",
        ),
        pytest.param(
            PeerAddresses(observed=FOUR_A, advertised=(SIX_A,)),
            PeerAddresses(observed=SIX_B, advertised=(FOUR_B,)),
            (SIX_A, SIX_B),
            id="both advertise: the target's mapping decides",
        ),
        pytest.param(
            PeerAddresses(observed=FOUR_A, advertised=(SIX_A, SocketAddress.parse("203.0.113.9:9"))),
            PeerAddresses(observed=FOUR_B, advertised=(SIX_B,)),
            (FOUR_A, FOUR_B),
            id="what we have seen comes first",
        ),
    ],
)
def test_one_address_of_each_side_in_one_family(
    initiator: PeerAddresses, target: PeerAddresses, chosen: tuple[SocketAddress, SocketAddress] | None
) -> None:
    """Observed addresses are preferred; advertised ones stand in where the families differ."""
    assert choose_addresses(initiator, target) == chosen


@pytest.mark.parametrize(
    "useless",
    ["0.0.0.0:9", "127.0.0.1:9", "169.254.1.1:9", "224.0.0.1:9", "255.255.255.255:9", "240.0.0.1:9", "203.0.113.1:0"],
)
def test_useless_advertised_addresses_are_passed_over(useless: str) -> None:
    """Wildcards, loopback, link-local, broadcast, groups and port 0 are nobody's address."""
    advertised = (SocketAddress.parse(useless), FOUR_A)
    initiator = PeerAddresses(observed=SIX_A, advertised=advertised)

    assert choose_addresses(initiator, PeerAddresses(observed=FOUR_B)) == (FOUR_A, FOUR_B)
    initiator = PeerAddresses(observed=SIX_A, advertised=advertised[:1])
    assert choose_addresses(initiator, PeerAddresses(observed=FOUR_B)) is None


@pytest.mark.parametrize(
    ("initiator", "target", "expected"),
    [
        pytest.param(
            PeerAddresses(observed=FOUR_A, advertised=(SIX_A,)), PeerAddresses(observed=FOUR_B), None, id="no need"
        ),
        pytest.param(PeerAddresses(observed=FOUR_A), PeerAddresses(observed=SIX_B), None, id="none there"),
        pytest.param(
            PeerAddresses(observed=FOUR_A, others=(FOUR_A, SIX_A), advertised=(SIX_B,)),
            PeerAddresses(observed=SIX_B, others=(FOUR_B,)),
            StandIn(address=SIX_A, of_initiator=True, proven=True),
            id="seen of both: the target's mapping decides",
        ),
        pytest.param(
            PeerAddresses(observed=FOUR_A, advertised=(SIX_A,)),
            PeerAddresses(observed=SIX_B, others=(FOUR_B,)),
            StandIn(address=FOUR_B, of_initiator=False, proven=True),
            id="seen before claimed",
        ),
        pytest.param(
            PeerAddresses(observed=FOUR_A, advertised=(SIX_A,)),
            PeerAddresses(observed=SIX_B, advertised=(FOUR_B,)),
            StandIn(address=SIX_A, of_initiator=True, proven=False),
            id="claimed by both",
        ),
        pytest.param(
            PeerAddresses(observed=SIX_A),
            PeerAddresses(observed=FOUR_B, advertised=(SocketAddress.parse("[::1]:1"), SIX_B)),
            StandIn(address=SIX_B, of_initiator=False, proven=False),
            id="claimed by the target",
        ),
    ],
)
def test_stand_in_is_a_proven_address_before_a_claimed_one(
    initiator: PeerAddresses, target: PeerAddresses, expected: StandIn | None
) -> None:
    """And the initiator's before the target's."""
    assert find_stand_in(initiator, target) == expected


@pytest.mark.parametrize("private", ["10.1.2.3:9", "172.31.0.1:9", "192.168.0.1:9", "[fd00::1]:9"])
def test_private_address_counts_only_where_the_peer_was_seen(private: str) -> None:
    """To whoever dials it, it is a host of the own network."""
    address = SocketAddress.parse(private)
    here = PeerAddresses(observed=SIX_A if address.is_ipv4 else FOUR_A)
    there = PeerAddresses(observed=FOUR_B if address.is_ipv4 else SIX_B)
    claims, seen = replace(here, advertised=(address,)), replace(here, others=(address,))

    assert find_stand_in(claims, there) is None
    assert choose_addresses(claims, there) is None
    assert find_stand_in(seen, there) == StandIn(address=address, of_initiator=True, proven=True)
    assert choose_addresses(seen, there) == (address, there.observed)


TUPLES = st.lists(socket_addresses()).map(tuple)
ADDRESSES = st.builds(PeerAddresses, observed=socket_addresses(), others=TUPLES, advertised=TUPLES)


@given(ADDRESSES, ADDRESSES)
def test_stand_in_is_all_that_is_needed_to_choose(initiator: PeerAddresses, target: PeerAddresses) -> None:
    """Whoever chooses with the observed addresses and the stand-in alone can choose whenever there is a choice."""
    stand_in = find_stand_in(initiator, target)
    ours = (stand_in.address,) if stand_in is not None and stand_in.of_initiator else ()
    theirs = (stand_in.address,) if stand_in is not None and not stand_in.of_initiator else ()
    chosen = choose_addresses(
        PeerAddresses(observed=initiator.observed, others=ours),
        PeerAddresses(observed=target.observed, others=theirs),
    )

    assert (chosen is None) == (choose_addresses(initiator, target) is None)
    if stand_in is not None:
        assert chosen is not None
        assert stand_in.address in chosen


@given(ADDRESSES, ADDRESSES)
def test_chosen_addresses_are_the_peers_own_and_of_one_family(initiator: PeerAddresses, target: PeerAddresses) -> None:
    """Whatever the peers advertise, nobody is sent where the other side has not said it is."""
    chosen = choose_addresses(initiator, target)
    if chosen is None:
        assert initiator.observed.is_ipv4 != target.observed.is_ipv4
        return
    ours, theirs = chosen
    assert ours in (initiator.observed, *initiator.others, *initiator.advertised)
    assert theirs in (target.observed, *target.others, *target.advertised)
    assert ours.is_ipv4 == theirs.is_ipv4
    assert ours == initiator.observed or theirs == target.observed
