"""Connections that outlive a NAT's memory: when they count as stalled, and that they go on, on a virtual network."""

import itertools

import pytest

from antquic_server.peer.events import MessageArrived, PeerGone
from antquic_server.peer.link import Link
from antquic_server.peer.recovery import SILENCE_S, Recovery, data_arrived, is_silent, is_stalled
from antquic_server.peer.registry import Candidate, Registry
from antquic_server.peer.settings import PeerSettings
from antquic_server.protocol.address import SocketAddress
from support.stand_in import PTO_S, StandIn, public_key_of
from support.virtual_network import Dependence, Host, NatKind, VirtualNetwork, attempt, direct_in_theory

PLACE, ELSEWHERE = ("198.18.0.1", 4433), ("198.18.0.1", 5555)
NAT_KINDS = [
    NatKind(mapping=mapping, filtering=filtering) for mapping, filtering in itertools.product(Dependence, Dependence)
]
PEER = b"p" * 32
MESSAGES = 20
MOST_REQUESTS = 8
"""Of both peers together, the first meeting included: whoever notices asks, and not again and again."""
RECOVERED_S = 15.0
"""Much less than the idle timeout of 30 seconds, which would end the connection."""


def live_link(*, punched: bool = True) -> tuple[Link, StandIn]:
    """Return a connection that has just been made."""
    quic = StandIn(public_key=public_key_of("a"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
    link = Link(number=1, quic=quic, path=PLACE, handshake_deadline_s=5.0, dialled=SocketAddress.from_host(*PLACE))
    quic.connect(PLACE, 0.0)
    quic.handshake_complete = True
    link.ready, link.punched = True, punched
    return link, quic


def let_probes_expire(quic: StandIn, count: int) -> None:
    """Send something, and let that many probe timeouts pass."""
    quic.send_message(b"anybody?")
    for _ in range(count):
        quic.handle_timer(quic.get_timer() or 0.0)


def test_a_connection_is_stalled_when_nothing_is_answered_for_long() -> None:
    """Both conditions count: a slow path has no probe timeouts, and a fast one has them after a moment."""
    link, quic = live_link()
    assert not is_stalled(link, SILENCE_S)
    let_probes_expire(quic, 1)
    assert not is_stalled(link, SILENCE_S)
    let_probes_expire(quic, 2)

    assert is_stalled(link, SILENCE_S)
    assert not is_stalled(link, SILENCE_S - 0.01)
    link.last_received_s = SILENCE_S
    assert not is_stalled(link, SILENCE_S)


def test_only_punched_connections_to_peers_count_as_stalled() -> None:
    """A node is dialled again by its keeper, a peer whose address was known is where it was."""
    for punched, is_node, closing in ((False, False, False), (True, True, False), (True, False, True)):
        link, quic = live_link(punched=punched)
        let_probes_expire(quic, 3)
        link.is_node, quic.is_closing = is_node, closing
        assert not is_stalled(link, 10.0)


def test_a_receiver_asks_once_after_the_last_data() -> None:
    """However much has come before."""
    link, _ = live_link()
    for now_s in (0.0, 1.0, 1.9):
        data_arrived(link, now_s)

    assert link.next_deadline_s() is not None
    assert [is_silent(link, at_s) for at_s in (1.9, 2.0, 3.8, 3.9, 10.0)] == [False, False, False, True, False]
    for other in (live_link(punched=False)[0], link):
        other.is_node = other is link
        data_arrived(other, 20.0)
        assert other.silence_at_s is None


class Peers:
    """A table of connections to one peer, the last one live, and what was done about them."""

    def __init__(self, *links: Link) -> None:
        self.links = dict(enumerate(links, 1))
        self.touched: list[Link] = []
        self.looked_for: list[float] = []
        registry = Registry()
        for number, link in self.links.items():
            link.number, link.peer_id = number, PEER
            registry.add(PEER, Candidate(number=number, dialled_by_us=True, rank=b""))
        self.recovery = Recovery(registry, self.find, self.touched.append, self.look_for)

    def find(self, number: int | None) -> Link | None:
        """Return a connection."""
        return None if number is None else self.links.get(number)

    def look_for(self, peer_id: bytes, now_s: float) -> None:
        """Note that the peer is looked for."""
        assert peer_id == PEER
        self.looked_for.append(now_s)


def test_only_what_is_quiet_is_moved() -> None:
    """To where the peer has just proven to be; a connection that works stays."""
    (found, _), (quiet, _), (lively, _) = live_link(), live_link(), live_link()
    found.path = ELSEWHERE
    found.last_received_s = lively.last_received_s = 10.0
    peers = Peers(quiet, lively, found)

    peers.recovery.found(found, 10.0)

    assert peers.touched == [quiet]
    assert (quiet.path, quiet.quic.get_peer_address()) == (ELSEWHERE, ELSEWHERE)
    assert (lively.path, lively.quic.get_peer_address()) == (PLACE, PLACE)


def test_a_stalled_connection_is_looked_after_now_and_then() -> None:
    """Its timers fire more often than both sides are to dial."""
    link, quic = live_link()
    let_probes_expire(quic, 3)
    peers = Peers(link)

    for now_s in (1.0, 2.0, 3.0, 6.9, 7.0, 8.0):
        peers.recovery.check(link, now_s)

    assert peers.looked_for == [2.0, 7.0]
    assert peers.touched == []


def test_a_stalled_connection_follows_the_live_one() -> None:
    """Nobody need be asked where the peer is."""
    (stalled, quic), (live, _) = live_link(), live_link()
    let_probes_expire(quic, 3)
    live.path = ELSEWHERE
    peers = Peers(stalled, live)

    peers.recovery.check(stalled, 10.0)

    assert peers.looked_for == []
    assert peers.touched == [stalled]
    assert quic.get_peer_address() == ELSEWHERE


def test_a_superseded_connection_lasts_while_what_it_sends_is_acknowledged() -> None:
    """Who only sends hears nothing but acknowledgements."""
    link, quic = live_link()
    link.last_data_s, link.last_received_s = 1.0, 9.0
    assert link.last_progress_s == 1.0
    quic.send_message(b"more")
    assert link.last_progress_s == 9.0


def received(host: Host) -> list[bytes]:
    """Return the messages a host has got of its peers, those over again as often as they came."""
    return sorted(event.data for event in host.events if isinstance(event, MessageArrived))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_under_way_arrives_whoever_has_moved(seed: int) -> None:
    """Every pair of NATs that can be punched, either one forgets, either side sends: each message comes, once."""
    pairs = [pair for pair in itertools.product(NAT_KINDS, NAT_KINDS) if direct_in_theory(*pair)]
    for (one_kind, other_kind), forgetful, sending in itertools.product(pairs, (0, 1), (0, 1)):
        network = VirtualNetwork(seed=seed, settings=PeerSettings())
        network.add_node()
        hosts = [network.add_host(one_kind), network.add_host(other_kind)]
        assert attempt(network, *hosts)
        network.run(lambda: False, limit_s=8)
        sender, receiver = hosts[sending], hosts[1 - sending]
        expected = [b"%02d" % number for number in range(MESSAGES)]
        for number, message in enumerate(expected):
            if number == MESSAGES // 2:
                nat = hosts[forgetful].nat
                assert nat is not None
                nat.rebind()
            link = sender.core.live_link(receiver.peer_id)
            assert link is not None
            sender.core._send_message(link, message)
            network.run(lambda: False, limit_s=PTO_S)
        came = network.run(lambda host=receiver: len(received(host)) == MESSAGES, limit_s=RECOVERED_S)  # type: ignore[misc]
        story = f"{one_kind} and {other_kind}, {forgetful} forgets, {sending} sends"
        assert network.nodes[0].requests <= MOST_REQUESTS, story

        assert came, story
        assert received(receiver) == expected, story
        assert not [event for host in hosts for event in host.events if isinstance(event, PeerGone)], story


def test_without_a_node_nothing_is_tried() -> None:
    """Nobody could introduce the two; the connection ends by its idle timeout."""
    port_restricted = NatKind(mapping=Dependence.NOTHING, filtering=Dependence.ADDRESS_AND_PORT)
    network = VirtualNetwork()
    network.add_node()
    one, other = network.add_host(port_restricted), network.add_host(port_restricted)
    assert attempt(network, one, other)
    for link in one.core.node_links + other.core.node_links:
        link.quic.close()
    network.run(lambda: False, limit_s=8)
    assert one.nat is not None
    one.nat.rebind()
    live = one.core.live_link(other.peer_id)
    assert live is not None
    one.core._send_message(live, b"lost")

    network.run(lambda: not one.connected_to(other), limit_s=60)
    assert not one.connected_to(other)
    assert received(other) == []
