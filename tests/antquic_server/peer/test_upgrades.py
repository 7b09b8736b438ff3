"""From relayed to direct: when it is tried, what is done with a direct connection that comes about."""

from antquic_server.peer.link import Link
from antquic_server.peer.moves import Moves
from antquic_server.peer.relay_paths import RelayPath, StreamRelayPath
from antquic_server.peer.upgrades import DELAYS_S, FOLLOW_S, LATE_S, MAX_SPARES, MOVE_S, SOON_S, Upgrades
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.parameters import ExtensionParameters
from support.stand_in import StandIn, public_key_of

PEER = b"P" * 32
RELAY = RelayPath("198.18.0.1", 10_000, b"channel")


def link(number: int, *, relayed: bool = False, dialled: bool = True, ours: bool = True) -> Link:
    """A ready connection to the peer."""
    quic = StandIn(public_key=public_key_of("p"), own_cid=bytes(8), first_cid=bytes(8), is_client=dialled)
    quic.remote_extensions = ExtensionParameters(relay_channels=ours)
    path = RELAY if relayed else ("198.18.1.2", number)
    made = Link(number=number, quic=quic, path=path, handshake_deadline_s=None)
    made.dialled = SocketAddress.parse("198.18.1.2:1") if dialled else None
    made.peer_id, made.ready = PEER, True
    return made


class Desk:
    """Upgrades, and what they do."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.punched_s: list[float] = []
        self.able = True
        self.adopted: list[Link] = []
        self.closed: list[Link] = []
        self.moves = Moves(touch=lambda _: None, moved=lambda *_: None, failed=self._failed)
        self.upgrades = Upgrades(
            moves=self.moves,
            punch=self._punch,
            adopt=lambda link, _now_s: self.adopted.append(link),
            close=self.closed.append,
            enabled=enabled,
        )
        self.live = link(1, relayed=True)

    def _punch(self, _peer_id: bytes, now_s: float) -> bool:
        if self.able:
            self.punched_s.append(now_s)
        return self.able

    def _failed(self, live: Link, _path: object, now_s: float) -> None:
        self.upgrades.move_failed(PEER, live, now_s)

    def pass_time(self, until_s: float, *, direct: bool = False) -> None:
        """Fire every timer until then."""
        while True:
            times = [
                at_s for at_s in (self.upgrades.next_deadline_s(), self.moves.next_deadline_s()) if at_s is not None
            ]
            if not times or min(times) > until_s:
                return
            self.moves.handle_timer(min(times))
            self.upgrades.handle_timer(min(times), lambda _: direct)

    def keep(self, made: Link, live: Link | None = None, now_s: float = 0.0) -> bool:
        """Have a connection come about."""
        return self.upgrades.keep(PEER, made, live or self.live, now_s)


def test_attempts_become_rarer() -> None:
    """After 5, 20, 80, 380 seconds and so on; the same connection is watched once."""
    desk = Desk()
    desk.upgrades.watch(PEER, desk.live, 0.0)
    desk.upgrades.watch(PEER, desk.live, 4.0)
    desk.pass_time(1000)
    first, second, third, last = DELAYS_S

    assert desk.punched_s == [
        first,
        first + second,
        first + second + third,
        first + second + third + last,
        first + second + third + 2 * last,
        first + second + third + 3 * last,
    ]


def test_a_change_of_our_address_is_reason_to_try_at_once() -> None:
    """Also for the side that was dialled, which else leaves it to the other one."""
    for dialled in (True, False):
        desk = Desk()
        desk.upgrades.watch(PEER, link(1, relayed=True, dialled=dialled), 0.0)
        desk.pass_time(4.0)
        desk.upgrades.hurry(4.0)
        desk.pass_time(8.0)

        assert desk.punched_s == [4.0 + SOON_S]
        assert (desk.upgrades.next_deadline_s() is not None) == dialled


def test_without_a_node_it_is_tried_later() -> None:
    """And nothing is counted."""
    desk = Desk()
    desk.able = False
    desk.upgrades.watch(PEER, desk.live, 0.0)
    desk.pass_time(6.0)
    desk.able = True
    desk.pass_time(11.0)

    assert desk.punched_s == [2 * DELAYS_S[0]]


def test_nothing_is_tried_where_it_is_not_wanted_or_over() -> None:
    """Relayed only; or direct by now."""
    desk = Desk(enabled=False)
    desk.upgrades.watch(PEER, desk.live, 0.0)
    assert desk.upgrades.next_deadline_s() is None
    desk = Desk()
    desk.upgrades.watch(PEER, desk.live, 0.0)
    desk.upgrades.forget(PEER)
    assert desk.upgrades.next_deadline_s() is None


def test_what_is_no_spare() -> None:
    """A first connection, one beside a direct one, a relayed one, and one of a peer that does not move."""
    desk = Desk()
    assert not desk.upgrades.keep(PEER, link(2), None, 0.0)
    assert not desk.keep(link(2), link(3))
    assert not desk.keep(link(2, relayed=True))
    assert not desk.keep(link(2), link(1, relayed=True, ours=False))
    by_stream = link(1, relayed=True)
    by_stream.path = StreamRelayPath("198.18.1.2", 4433, 1)
    assert not desk.keep(link(2), by_stream)
    unready = link(1, relayed=True)
    unready.ready = False
    assert not desk.keep(link(2), unready)


def test_the_client_moves_and_closes_the_spares() -> None:
    """Both dials may have succeeded; too many are closed at once."""
    desk = Desk()
    spares = [link(2 + number) for number in range(MAX_SPARES)]
    for spare in spares:
        assert desk.keep(spare)
        assert spare.spare
    assert desk.live in desk.moves
    assert desk.keep(link(99))
    assert len(desk.closed) == 1
    desk.upgrades.arrived(PEER, 1.0, by_us=True)

    assert desk.closed[1:] == spares
    for spare in spares:
        desk.upgrades.link_closed(spare)
    assert desk.upgrades.next_deadline_s() is None
    assert desk.adopted == []


def test_the_server_waits_and_leaves_the_closing_to_the_client() -> None:
    """Should nobody close them, it does in the end."""
    desk = Desk()
    spare = link(2, dialled=False)
    assert desk.keep(spare, link(1, relayed=True, dialled=False))
    assert desk.live not in desk.moves
    desk.upgrades.arrived(PEER, 1.0, by_us=False)
    assert desk.closed == []
    desk.pass_time(FOLLOW_S, direct=True)
    assert desk.closed == [spare]
    assert desk.adopted == []


def test_a_dial_that_comes_through_late_is_a_spare_as_well() -> None:
    """The connection has moved already: its client closes the late one, its server waits for that."""
    for dialled in (True, False):
        desk = Desk()
        moved, late = link(1, dialled=dialled), link(2, dialled=not dialled)
        desk.upgrades.arrived(PEER, 1.0, by_us=dialled)
        assert desk.keep(late, moved, 1.0 + LATE_S - 0.1)
        assert late.spare
        assert desk.closed == ([late] if dialled else [])
        desk.pass_time(1.0 + LATE_S + FOLLOW_S, direct=True)
        assert desk.closed == [late]
        assert not desk.keep(link(3), moved, 1.0 + LATE_S)
        assert desk.adopted == []


def test_a_move_that_does_not_come_leaves_two_connections() -> None:
    """At either end: the client gives up first."""
    desk = Desk()
    spare = link(2)
    desk.keep(spare)
    desk.pass_time(MOVE_S)
    assert desk.adopted == [spare]
    assert not spare.spare

    desk = Desk()
    first, gone = link(2), link(3)
    for waiting in (first, gone):
        desk.keep(waiting, link(1, relayed=True, dialled=False))
    gone.closed = True
    desk.pass_time(FOLLOW_S)
    assert desk.adopted == [first]


def test_a_spare_takes_the_place_of_a_dead_connection() -> None:
    """One of them; who gives the peer up gets all."""
    desk = Desk()
    one, other = link(2), link(3)
    desk.keep(one)
    desk.keep(other)
    assert desk.upgrades.give_up(PEER) == [one, other]
    assert desk.upgrades.take_spare(PEER) is one
    assert not one.spare
    assert desk.upgrades.take_spare(PEER) is other
    assert desk.upgrades.take_spare(PEER) is None
    assert desk.upgrades.give_up(PEER) == []
    desk.upgrades.link_closed(one)
