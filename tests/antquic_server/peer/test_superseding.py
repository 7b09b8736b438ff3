"""When a connection that has lost to another one is closed."""

from antquic_server.peer.link import Link
from antquic_server.peer.superseding import DRAIN_S, LONGEST_DRAIN_S, drained, supersede
from antquic_server.protocol.codepoints import ApplicationErrorCode
from support.stand_in import StandIn, public_key_of


def link(number: int) -> Link:
    """A ready connection."""
    quic = StandIn(public_key=public_key_of("x"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
    made = Link(number=number, quic=quic, path=("198.18.0.1", number), handshake_deadline_s=None)
    made.ready = True
    return made


def closed_with(quic: StandIn) -> object:
    """The close that waits to be sent."""
    return quic._close


def pair() -> tuple[Link, Link]:
    """A connection that lost at second 0, and the one that won and lives."""
    loser, live = link(1), link(2)
    supersede(loser, live, 0.0)
    live.last_received_s = 1.0
    return loser, live


def test_silence_ends_it() -> None:
    """After the grace, with the reason that ant-quic's have."""
    loser, live = pair()
    assert loser.drain_at_s == DRAIN_S

    assert drained(loser, live, DRAIN_S) is loser
    assert closed_with(loser.quic) == (ApplicationErrorCode.SUPERSEDED, "Superseded")  # type: ignore[arg-type]


def test_data_puts_it_off() -> None:
    """Each piece anew."""
    loser, live = pair()
    loser.last_data_s = 3.0

    assert drained(loser, live, DRAIN_S) is None
    assert loser.drain_at_s == 3.0 + DRAIN_S


def test_open_streams_and_unacknowledged_data_put_it_off_longer() -> None:
    """But not for ever: somebody may have forgotten a stream."""
    for what in ("open_streams", "data"):
        loser, live = pair()
        if what == "data":
            loser.quic.send_message(b"not acknowledged")
        else:
            loser.quic.open_streams = 1  # type: ignore[misc]
        now_s, rounds = DRAIN_S, 0
        while drained(loser, live, now_s) is None:
            assert loser.drain_at_s is not None
            assert loser.drain_at_s > now_s
            now_s, rounds = loser.drain_at_s, rounds + 1

        assert now_s >= LONGEST_DRAIN_S
        assert rounds < 20


def test_it_lives_again_when_the_winner_is_dead() -> None:
    """Nothing has been heard of that one since."""
    loser, live = pair()
    live.last_received_s = -1.0

    assert drained(loser, live, DRAIN_S) is live
    assert live.quic.is_closing
    assert closed_with(loser.quic) is None  # type: ignore[arg-type]
