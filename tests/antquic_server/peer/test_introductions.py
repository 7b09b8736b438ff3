"""Coordination messages, in and out."""

import pytest

from antquic_server.peer.introductions import INTRODUCTION_BURST, Introductions, Surroundings
from antquic_server.peer.link import Link
from antquic_server.peer.nat_behaviour import PortGrowth
from antquic_server.peer.punching import Failure
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import (
    CoordinationAccepted,
    CoordinationRejected,
    CoordinationRequest,
    Envelope,
    RejectionReason,
    decode_envelope_untrusted,
)
from support.stand_in import StandIn, public_key_of

ME, PEER, STRANGER = b"M" * 32, b"P" * 32, b"S" * 32
HERE, THERE = SocketAddress.parse("198.18.2.1:20000"), SocketAddress.parse("198.18.2.2:30000")
NOWHERE = SocketAddress.parse("0.0.0.0:1")


class Around:
    """Remembers what introductions do."""

    def __init__(self, **settings: bool) -> None:
        quic = StandIn(public_key=public_key_of("n"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
        self.node = Link(number=1, quic=quic, path=("198.18.0.1", 1), handshake_deadline_s=0, is_node=True)
        self.sent: list[Envelope] = []
        self.dialled: list[SocketAddress] = []
        self.ended: list[tuple[bytes, Failure | None, bool]] = []
        self.growth = PortGrowth()
        self.asked_growth_of: list[Link] = []
        self.tallies = Tallies()
        surroundings = Surroundings(
            send=self._send,
            find=lambda number: self.node if number == self.node.number else None,
            own_candidates=lambda _: [HERE],
            port_growth=self._port_growth,
            dial=lambda address, *_: self.dialled.append(address),
            ended=lambda *facts: self.ended.append(facts),
            unix_s=lambda: 1_000_000.0,
        )
        self.introductions = Introductions(
            surroundings,
            settings=PeerSettings(**settings),  # type: ignore[arg-type]
            own_peer_id=ME,
            tallies=self.tallies,
        )

    def _port_growth(self, node: Link) -> PortGrowth:
        self.asked_growth_of.append(node)
        return self.growth

    def _send(self, _link: Link, data: bytes) -> bool:
        envelope = decode_envelope_untrusted(data)
        assert envelope is not None
        self.sent.append(envelope)
        return True

    def accepted(
        self,
        *,
        initiator: bytes = ME,
        target: bytes = PEER,
        request_id: int = 1,
        there: SocketAddress = THERE,
        round_number: int = 1,
    ) -> None:
        """Deliver an acceptance."""
        message = CoordinationAccepted(
            initiator=initiator, target=target, round=round_number, initiator_addrs=(there,), target_addrs=(there,)
        )
        envelope = Envelope(request_id=request_id, expires_at_unix_ms=0, message=message)
        self.introductions.handle_message(envelope, self.node, 0.1)


def test_a_request_says_who_wants_whom_and_where_we_are() -> None:
    """And until when an answer is of use."""
    around = Around()
    around.introductions.begin(PEER, [1], 0.0)

    (envelope,) = around.sent
    assert envelope.message == CoordinationRequest(initiator=ME, target=PEER, round=1, initiator_addrs=(HERE,))
    assert envelope.expires_at_unix_ms == 1_000_010_000
    assert around.introductions.is_asking(PEER)
    assert PEER in around.introductions


def test_an_answer_makes_us_dial() -> None:
    """The connection that follows is a success."""
    around = Around()
    around.introductions.begin(PEER, [1], 0.0)
    around.accepted()

    assert around.dialled == [THERE]
    assert around.introductions.connected(PEER, 0.2)
    assert around.ended == [(PEER, None, False)]
    assert not around.introductions.connected(PEER, 0.3)


def test_an_answer_to_a_question_that_was_not_asked_is_dropped() -> None:
    """Another id, another target, or no attempt at all."""
    around = Around()
    around.accepted()
    around.introductions.begin(PEER, [1], 0.0)
    around.accepted(request_id=77)
    around.accepted(target=STRANGER)

    assert around.dialled == []
    assert around.tallies.drops["answer_too_late"] == 3


def test_an_introduction_makes_us_dial_unasked() -> None:
    """The other side is in the same round as we are then."""
    around = Around()
    around.accepted(initiator=PEER, target=ME)

    assert around.dialled == [THERE]
    assert PEER in around.introductions
    assert not around.introductions.is_asking(PEER)
    assert around.tallies.introductions_received == 1
    around.introductions.connected(PEER, 0.2)
    assert around.ended == [(PEER, None, True)]


@pytest.mark.parametrize("asked", [True, False])
def test_guesses_follow_our_own_ports_as_the_node_in_question_knows_them(asked: bool) -> None:
    """In both roles: the first guess is two steps above the port that the other side was told."""
    around = Around()
    around.growth = PortGrowth(step=3, ahead=4)
    if asked:
        around.introductions.begin(PEER, [1], 0.0)
    around.accepted(initiator=ME if asked else PEER, target=PEER if asked else ME, round_number=2)

    assert [item.port - THERE.port for item in around.dialled[:3]] == [0, 10, 13]
    assert around.asked_growth_of == [around.node]


def test_an_introduction_can_be_refused() -> None:
    """By the setting, and beyond the rate."""
    refusing = Around(accept_introductions=False)
    refusing.accepted(initiator=PEER, target=ME)
    assert refusing.dialled == []

    flooded = Around()
    for _ in range(int(INTRODUCTION_BURST) + 5):
        flooded.accepted(initiator=PEER, target=ME)
    assert len(flooded.dialled) == INTRODUCTION_BURST
    assert flooded.tallies.drops["introduction_refused"] == 5


def test_an_introduction_during_our_own_attempt_is_taken_for_its_answer() -> None:
    """Both sides have asked at the same time."""
    around = Around()
    around.introductions.begin(PEER, [1], 0.0)
    around.accepted(initiator=PEER, target=ME)

    assert around.dialled == [THERE]
    assert around.introductions.is_asking(PEER)


def test_introductions_of_others_are_none_of_our_business() -> None:
    """Nor are requests."""
    around = Around()
    around.accepted(initiator=PEER, target=STRANGER)
    request = CoordinationRequest(initiator=PEER, target=ME, round=1, initiator_addrs=())
    around.introductions.handle_message(Envelope(request_id=1, expires_at_unix_ms=0, message=request), around.node, 0.0)

    assert around.dialled == []
    assert around.tallies.drops == {"introduction_of_others": 1, "request_to_a_peer": 1}


def test_addresses_nobody_can_have_are_not_dialled() -> None:
    """The attempt goes on to its deadline."""
    around = Around()
    around.accepted(initiator=PEER, target=ME, there=NOWHERE)

    assert around.dialled == []


def test_a_rejection_ends_the_attempt_with_its_reason() -> None:
    """It is counted by the node's word."""
    around = Around()
    around.introductions.begin(PEER, [1], 0.0)
    message = CoordinationRejected(initiator=ME, target=PEER, round=1, reason=RejectionReason.UNKNOWN_TARGET)
    around.introductions.handle_message(Envelope(request_id=1, expires_at_unix_ms=0, message=message), around.node, 0.1)

    assert around.ended == [(PEER, Failure.UNKNOWN_TARGET, False)]
    assert around.tallies.coordination_rejections == {"UnknownTarget": 1}
    assert PEER not in around.introductions


def test_losing_the_node_ends_what_waits_for_it() -> None:
    """Only the attempts that asked this one."""
    around = Around()
    around.introductions.begin(PEER, [1], 0.0)
    around.introductions.link_lost(around.node, 0.5)

    assert around.ended == [(PEER, Failure.COORDINATOR_LOST, False)]


def test_a_node_that_is_gone_already_is_reported() -> None:
    """Before anything is sent."""
    around = Around()
    around.introductions.begin(PEER, [99], 0.0)

    assert around.ended == [(PEER, Failure.COORDINATOR_LOST, False)]


def test_time_ends_an_attempt() -> None:
    """At its deadline."""
    around = Around()
    around.introductions.begin(PEER, [1], 0.0)
    while (deadline_s := around.introductions.next_deadline_s()) is not None:
        around.introductions.handle_timer(deadline_s)

    assert deadline_s is None
    assert len(around.sent) == 4
    assert around.ended == [(PEER, Failure.COORDINATOR_SILENT, False)]
