"""A relay that is kept: asked for, told to the nodes, asked for again."""

from antquic_server.peer.link import Link
from antquic_server.peer.relay_listener import FIRST_WAIT_S, LONGEST_WAIT_S, RelayListener
from antquic_server.peer.relay_stream import StreamRelay, StreamRelays
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.frames import AddAddress, RemoveAddress
from support.stand_in import StandIn, public_key_of

ADDRESS = SocketAddress.parse("203.0.113.7:4433")


class Desk:
    """A listener with two nodes."""

    def __init__(self) -> None:
        self.told: list[tuple[int, AddAddress | RemoveAddress]] = []
        self.changes: list[tuple[SocketAddress | None, str]] = []
        self.all_nodes = [self._node(1), self._node(2)]
        self.nodes = list(self.all_nodes)
        self.streams = StreamRelays(self, Tallies())
        self.listener = RelayListener(
            streams=self.streams,
            node_links=lambda: self.nodes,
            touch=lambda _: None,
            changed=lambda address, why: self.changes.append((address, why)),
        )

    def _node(self, number: int) -> Link:
        quic = StandIn(public_key=public_key_of("n"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
        quic.advertise_address = lambda frame: self.told.append((number, frame))  # type: ignore[method-assign]
        link = Link(number=number, quic=quic, path=("198.18.0.1", number), handshake_deadline_s=None, is_node=True)
        link.peer_id = bytes([number]) * 32
        return link

    def relay_opened(self, relay: StreamRelay, now_s: float) -> None:
        """Hand it on."""
        self.listener.opened(relay)

    def relay_ended(self, relay: StreamRelay, reason: str, now_s: float) -> None:
        """Hand it on."""
        self.listener.ended(relay, reason, now_s)

    def answer(self) -> StreamRelay:
        """Have the node give the relay an address."""
        relay = self.listener.relay
        assert relay is not None
        relay.address = ADDRESS
        self.listener.opened(relay)
        return relay

    def asked(self) -> int | None:
        """Number of the node that is asked, or carries the relay."""
        return None if self.listener.relay is None else self.listener.relay.link.number

    def end(self, now_s: float) -> None:
        """Have the connection that carries it end."""
        relay = self.listener.relay
        assert relay is not None
        self.streams.link_closed(relay.link, now_s)


def test_every_node_is_told_of_the_address_and_of_its_end() -> None:
    """Those that come later as well; one that is gone is not."""
    desk = Desk()
    desk.nodes = [desk.all_nodes[0]]
    desk.listener.want(0.0)
    desk.listener.want(0.0)
    assert desk.told == []
    desk.answer()
    desk.listener.node_ready(desk.all_nodes[0], 1.0)
    desk.listener.node_ready(desk.all_nodes[1], 1.0)
    assert desk.listener.address == ADDRESS
    assert desk.told == [
        (1, AddAddress(sequence_number=0, address=ADDRESS)),
        (2, AddAddress(sequence_number=1, address=ADDRESS)),
    ]
    desk.all_nodes[0].closed = True
    desk.end(2.0)
    assert desk.told[2:] == [(2, RemoveAddress(sequence_number=1))]
    assert desk.changes == [(ADDRESS, ""), (None, "connection_lost")]


def test_it_waits_for_a_node() -> None:
    """And asks the first that comes."""
    desk = Desk()
    desk.nodes = []
    desk.listener.node_ready(desk.all_nodes[0], 0.0)
    desk.listener.want(0.0)
    assert desk.asked() is None
    assert desk.listener.next_deadline_s() is None
    desk.nodes = desk.all_nodes
    desk.listener.node_ready(desk.all_nodes[0], 1.0)
    assert desk.asked() == 1


def test_it_asks_another_node_ever_more_rarely() -> None:
    """After a success the waits begin anew."""
    desk = Desk()
    desk.listener.want(0.0)
    asked, waits, now_s = [], [], 0.0
    for _ in range(9):
        asked.append(desk.asked())
        desk.end(now_s)
        at_s = desk.listener.next_deadline_s()
        assert at_s is not None
        waits.append(at_s - now_s)
        desk.listener.handle_timer(at_s - 0.01)
        assert desk.asked() is None
        now_s = at_s
        desk.listener.handle_timer(now_s)
    assert asked == [1, 2, 1, 2, 1, 2, 1, 2, 1]
    assert waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits[-1] == LONGEST_WAIT_S

    desk.answer()
    desk.end(now_s)
    at_s = desk.listener.next_deadline_s()
    assert at_s is not None
    assert at_s - now_s == FIRST_WAIT_S


def test_other_relays_are_none_of_its_business() -> None:
    """Those that connections of ours go through."""
    desk = Desk()
    other = desk.streams.open(desk.all_nodes[1], 0.0)
    desk.listener.want(0.0)
    desk.listener.opened(other)
    desk.listener.ended(other, "relay_silent", 1.0)

    assert desk.changes == []
    assert desk.listener.relay is not other
