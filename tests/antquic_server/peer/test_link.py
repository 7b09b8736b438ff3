"""One connection's deadlines and first flight."""

from antquic_server.peer.link import BURST_OFFSETS_S, Link
from antquic_server.protocol.address import SocketAddress
from support.stand_in import StandIn, public_key_of

PLACE = ("198.18.0.1", 4433)


def dial() -> tuple[Link, StandIn]:
    """Return a client that has sent its first flight at second 0."""
    quic = StandIn(public_key=public_key_of("a"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
    link = Link(number=1, quic=quic, path=PLACE, handshake_deadline_s=5.0, dialled=SocketAddress.from_host(*PLACE))
    quic.connect(PLACE, 0.0)
    link.keep_first_flight([data for data, _ in quic.datagrams_to_send(0.0)], 0.0)
    return link, quic


def test_the_first_flight_is_repeated_quickly_while_nobody_answers() -> None:
    """At the planned times, each once."""
    link, _ = dial()

    assert link.take_burst(0.0) == []
    for offset_s in BURST_OFFSETS_S:
        assert link.take_burst(offset_s) == link.first_flight != []
        assert link.take_burst(offset_s) == []
    assert link.bursts_left_s == []


def test_a_late_wake_up_repeats_once() -> None:
    """What was missed is not made up for."""
    link, _ = dial()

    assert len(link.take_burst(10.0)) == 1
    assert link.take_burst(10.0) == []


def test_an_answer_ends_the_repetitions() -> None:
    """From then on QUIC knows what to repeat."""
    link, quic = dial()
    quic.is_pristine = False

    assert link.take_burst(1.0) == []
    assert link.first_flight == []


def test_the_deadline_is_the_earliest_of_all() -> None:
    """Repetition, QUIC's timer, handshake, keep-alive, drain."""
    link, quic = dial()

    assert link.next_deadline_s() == BURST_OFFSETS_S[0]
    link.bursts_left_s.clear()
    assert link.next_deadline_s() == quic.get_timer()
    quic.is_closing = True
    assert link.next_deadline_s() == 5.0
    link.keep_alive_at_s = 3.0
    assert link.next_deadline_s() == 3.0
    link.drain_at_s = 2.0
    assert link.next_deadline_s() == 2.0


def test_who_dialled_is_known() -> None:
    """An accepted connection has no dialled address."""
    link, quic = dial()

    assert link.dialled_by_us
    assert not Link(number=2, quic=quic, path=PLACE, handshake_deadline_s=1.0).dialled_by_us
