"""Dials: begun, repeated, cancelled."""

from antquic_server.peer.dials import DIRECT_SERVER_NAME, PUNCH_SERVER_NAME, Dials
from antquic_server.peer.links import Links
from antquic_server.peer.relay_paths import RelayPath, StreamRelayPath
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.address import SocketAddress
from support.stand_in import StandIn, public_key_of

PEER = b"P" * 32
THERE = SocketAddress.parse("198.18.1.2:4433")
SIXTH = SocketAddress.parse("[2001:db8::1]:4433")
BY_RELAY = StreamRelayPath("198.18.1.2", 4433, 1)


class Desk:
    """Dials over stand-ins; nothing is sent anywhere."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.by_relay: StreamRelayPath | None = None
        self.tallies = Tallies()
        self.links = Links(
            observer=self,  # type: ignore[arg-type]  # nothing happens on these connections
            make_server=self._make,
            handshake_timeout_s=5,
            keep_alive_s=0,
            max_connections=100,
        )
        self.dials = Dials(
            links=self.links,
            make_client=self._make,
            path_to=lambda address: (str(address.host), address.port) if address.is_ipv4 else None,
            path_by_stream=lambda _target, _address: self.by_relay,
            tallies=self.tallies,
        )

    def _make(self, name: str) -> StandIn:
        self.names.append(name)
        cid = len(self.names).to_bytes(8, "big")
        return StandIn(public_key=public_key_of("me"), own_cid=cid, first_cid=cid, is_client=True)

    def link_closed(self, *_: object) -> None:
        """Nobody wants to know."""


def test_an_address_is_dialled_as_a_node() -> None:
    """If a socket of ours can send there."""
    desk = Desk()
    link = desk.dials.direct(THERE, 0.0, 5.0)
    assert link is not None
    assert (link.is_node, link.introduced, link.handshake_deadline_s) == (True, False, 5.0)
    assert desk.names == [DIRECT_SERVER_NAME]
    assert desk.dials.direct(SIXTH, 0.0, 5.0) is None


def test_a_candidate_is_dialled_once_and_repeated() -> None:
    """Directly and from a relay's port are two dials; where nothing goes there is none."""
    desk = Desk()
    for _ in range(2):
        desk.dials.candidate(THERE, PEER, 0.0, 5.0)
    desk.by_relay = BY_RELAY
    for deadline_s in (5.0, 9.0):
        desk.dials.candidate(THERE, PEER, 0.0, deadline_s)
    desk.by_relay = None
    desk.dials.candidate(SIXTH, PEER, 0.0, 5.0)

    assert [link.path for link in desk.links] == [("198.18.1.2", 4433), BY_RELAY]
    assert [link.handshake_deadline_s for link in desk.links] == [5.0, 9.0]
    assert desk.names == [PUNCH_SERVER_NAME] * 2
    assert desk.tallies.drops == {"no_route": 1}


def test_a_relayed_dial_expects_its_peer() -> None:
    """Through a channel, whose addresses are the node's."""
    desk = Desk()
    link = desk.dials.relayed(RelayPath("198.18.0.1", 10_000, bytes(7)), PEER, 0.0, 5.0)

    assert (link.expected_peer_id, link.introduced, link.is_node) == (PEER, True, False)
    assert link.relayed
    assert str(link.dialled) == "198.18.0.1:10000"


def test_what_is_not_needed_is_ended() -> None:
    """Silently if nobody has heard of it, else with a word; what is complete stays."""
    desk = Desk()
    ports = range(1, 4)
    for port in ports:
        desk.dials.candidate(SocketAddress.parse(f"198.18.1.2:{port}"), PEER, 0.0, 5.0)
    unheard, heard, complete = desk.links
    heard.quic.is_pristine = False  # type: ignore[misc]
    complete.quic.handshake_complete = True  # type: ignore[misc]
    desk.dials.cancel(PEER)
    desk.links.flush(0.0)

    assert [link.closed for link in (unheard, heard, complete)] == [True, True, False]
    assert heard.quic.close_reason == ""
