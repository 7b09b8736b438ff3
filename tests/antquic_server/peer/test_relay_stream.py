"""Stream relays: the client alone, fed by hand, and whole peers with nodes that know no channels."""

import random
from typing import Any

import pytest
from aioquic.quic.events import StopSendingReceived, StreamDataReceived, StreamReset

from antquic_server.peer.events import PunchEnded, RelayListening
from antquic_server.peer.link import Link
from antquic_server.peer.punching import Failure
from antquic_server.peer.relay_paths import StreamRelayPath
from antquic_server.peer.relay_stream import (
    MAX_BACKLOG_BYTES,
    MAX_HEADERS,
    RESPONSE_TIMEOUT_S,
    StreamRelay,
    StreamRelays,
)
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_stream import (
    BIND_REQUEST,
    MAX_FRAME_BYTES,
    ConnectUdpResponse,
    decode_frame_untrusted,
    encode_frame,
    encode_response,
    frame_header,
)
from support.stand_in import StandIn, public_key_of
from support.virtual_network import Dependence, Host, NatKind, VirtualNetwork, attempt

SYMMETRIC = NatKind(mapping=Dependence.ADDRESS_AND_PORT, filtering=Dependence.ADDRESS_AND_PORT)
RELAY = SocketAddress.parse("203.0.113.7:4433")
RELAY_6 = SocketAddress.parse("[2001:db8::7]:4433")
FAR = SocketAddress.parse("198.51.100.9:5000")


class Quic(StandIn):
    """A connection to a node that remembers what is written to it."""

    def __init__(self) -> None:
        super().__init__(public_key=public_key_of("n"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
        self.written = b""
        self.ended = False
        self.resets: list[int] = []
        self.backlog = 0

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:  # noqa: D102
        self.written += data
        self.ended = self.ended or end_stream

    def stream_is_writable(self, stream_id: int) -> bool:  # noqa: D102
        return not self.ended

    def stream_backlog_bytes(self, stream_id: int) -> int:  # noqa: D102
        return self.backlog

    def reset_stream(self, stream_id: int, error_code: int) -> None:  # noqa: D102
        self.resets.append(stream_id)


class Client:
    """The relays of one peer, with one node."""

    def __init__(self) -> None:
        self.quic = Quic()
        self.node = Link(number=7, quic=self.quic, path=("198.18.0.1", 1), handshake_deadline_s=None, is_node=True)
        self.node.peer_id = b"N" * 32
        self.opened: list[StreamRelay] = []
        self.ended: list[str] = []
        self.tallies = Tallies()
        self.relays = StreamRelays(self, self.tallies)
        self.relay = self.relays.open(self.node, 0.0)

    def relay_opened(self, relay: StreamRelay, now_s: float) -> None:
        """Remember it."""
        self.opened.append(relay)

    def relay_ended(self, relay: StreamRelay, reason: str, now_s: float) -> None:
        """Remember why."""
        self.ended.append(reason)

    def feed(self, data: bytes, *, end: bool = False) -> list[tuple[bytes, StreamRelayPath]]:
        """Have the node write."""
        event = StreamDataReceived(data=data, end_stream=end, stream_id=0)
        return self.relays.stream_event(self.node, event, 1.0)

    def accept(self, address: SocketAddress = RELAY) -> "Client":
        """Have the node accept."""
        assert self.feed(encode_response(ConnectUdpResponse(status=200, address=address))) == []
        return self


def test_the_request_is_what_ant_quic_peers_ask_and_nothing_follows_it() -> None:
    """Data before the answer would end the stream at a Rust relay."""
    client = Client()

    assert client.quic.written == BIND_REQUEST
    assert client.relays.open(client.node, 0.0) is client.relay
    assert client.relays.at_node(b"N" * 32) is client.relay
    assert client.relays.owns(client.node, 0)
    assert not client.relays.owns(client.node, 4)
    assert client.relay.path_to(FAR) is None
    assert client.relays.send(StreamRelayPath("198.51.100.9", 5000, 1), [b"early"]) is None
    assert client.quic.written == BIND_REQUEST


@pytest.mark.parametrize("status", [200, 204, 299])
def test_any_success_with_an_address_is_one(status: int) -> None:
    """It comes in pieces, and the first frame in the same one as its end."""
    client = Client()
    answer = encode_response(ConnectUdpResponse(status=status, address=RELAY))
    frame = encode_frame(frame_header(FAR), b"hello")
    for index in range(len(answer) - 1):
        assert client.feed(answer[index : index + 1]) == []
    assert client.opened == []

    assert client.feed(answer[-1:] + frame) == [(b"hello", StreamRelayPath("198.51.100.9", 5000, 1))]
    assert client.opened == [client.relay]
    assert client.relay.address == RELAY
    assert client.tallies.relay_streams_opened == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ConnectUdpResponse(status=503, reason="node_sessions"), "node_sessions"),
        (ConnectUdpResponse(status=503, reason="Server at capacity"), "status_503"),
        (ConnectUdpResponse(status=404), "status_404"),
        (ConnectUdpResponse(status=200), "relay_without_address"),
    ],
)
def test_a_refusal_has_its_reason_and_our_side_ends(answer: ConnectUdpResponse, reason: str) -> None:
    """A sentence of a Rust relay becomes its status, a word of ours stays one."""
    client = Client()
    client.feed(encode_response(answer), end=True)

    assert client.ended == [reason]
    assert client.quic.ended
    assert len(client.relays) == 0


def test_frames_both_ways() -> None:
    """To where the path says, from where the frame says; a frame that is none is passed over."""
    client = Client().accept()
    path = client.relay.path_to(FAR)
    assert path is not None
    client.quic.written = b""

    assert client.relays.send(path, [b"one", b"two"]) is client.node
    assert client.quic.written == encode_frame(frame_header(FAR), b"one") + encode_frame(frame_header(FAR), b"two")
    assert client.feed(b"\0\0\0\x02\0\x09" + encode_frame(frame_header(FAR), b"x" * 4096)) == [(b"x" * 4096, path)]
    assert client.tallies.drops == {"relay_frame": 1}
    assert (client.relay.bytes_sent, client.relay.bytes_received) == (6, 4096)
    assert client.relays.find(path) is client.relay
    assert client.relays.find(("198.51.100.9", 5000)) is None


def test_families_are_written_as_the_wire_wants_them() -> None:
    """An IPv6 port reaches IPv4 by mapped addresses, and both forms are one path; an IPv4 port reaches IPv4 only."""
    client = Client().accept(RELAY_6)
    path = client.relay.path_to(FAR)
    assert path is not None
    client.quic.written = b""
    client.relays.send(path, [b"x"])

    target, _ = decode_frame_untrusted(client.quic.written[4:])
    assert str(target.host) == "::ffff:c633:6409"
    assert client.feed(encode_frame(frame_header(target), b"back")) == [(b"back", path)]
    assert Client().accept().relay.path_to(RELAY_6) is None


def test_what_a_slow_node_does_not_read_is_dropped() -> None:
    """Bounded, and counted."""
    client = Client().accept()
    path = client.relay.path_to(FAR)
    assert path is not None
    client.quic.written, client.quic.backlog = b"", MAX_BACKLOG_BYTES + 1
    client.relays.send(path, [b"one", b"two"])

    assert client.quic.written == b""
    assert client.tallies.drops == {"relay_stream_full": 2}


def test_a_frame_that_is_too_long_ends_the_relay() -> None:
    """Nobody means such a length; what follows cannot be made out."""
    for accepted in (True, False):
        client = Client().accept() if accepted else Client()
        client.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))

        assert client.ended == ["relay_malformed"]
        assert client.quic.resets == [0]
        assert len(client.relays) == 0


def test_headers_are_kept_for_so_many_addresses() -> None:
    """A scan by somebody must not fill our memory."""
    client = Client().accept()
    for port in range(1, MAX_HEADERS + 100):
        client.relays.send(StreamRelayPath("198.51.100.9", port, 1), [b"x"])

    assert len(client.relay._headers) == MAX_HEADERS


@pytest.mark.parametrize(
    "event", [StreamReset(error_code=1, stream_id=0), StopSendingReceived(error_code=1, stream_id=0)]
)
def test_the_end_of_the_stream_is_the_end_of_the_relay(event: Any) -> None:
    """However it ends; datagrams for it are then dropped."""
    client = Client().accept()
    client.relays.stream_event(client.node, event, 1.0)

    assert client.ended == ["stream_ended"]
    assert client.relays.send(StreamRelayPath("198.51.100.9", 5000, 1), [b"x"]) is None
    assert client.tallies.drops == {"relay_path_gone": 1}


def test_half_close_connection_loss_and_our_own_end() -> None:
    """The node's end, the connection's, and ours, which is told the node and nobody else."""
    client = Client().accept()
    client.feed(b"", end=True)
    assert client.ended == ["stream_ended"]
    client = Client().accept()
    client.relays.link_closed(client.node, 2.0)
    assert client.ended == ["connection_lost"]
    client = Client().accept()
    client.relays.close(client.relay)
    client.relays.close(client.relay)
    assert client.quic.ended
    assert client.ended == []


def test_a_node_that_does_not_answer_is_given_up() -> None:
    """In time, and the stream is reset; a connection that is closed already is left alone."""
    for closed in (False, True):
        client = Client()
        client.node.closed = closed
        assert client.relays.next_deadline_s() == RESPONSE_TIMEOUT_S
        client.relays.handle_timer(RESPONSE_TIMEOUT_S - 0.1)
        assert client.ended == []
        client.relays.handle_timer(RESPONSE_TIMEOUT_S)

        assert client.ended == ["relay_silent"]
        assert client.quic.resets == ([] if closed else [0])
    assert Client().accept().relays.next_deadline_s() is None


# Whole peers.


def network_of(**settings: Any) -> VirtualNetwork:
    """A network whose one node knows no channels, as ant-quic's."""
    network = VirtualNetwork(real=True, settings=PeerSettings(discovery_timeout_s=3, **settings))
    network.add_node().offers_channels = False
    return network


def data_of(host: Host) -> bytes:
    """What has come on streams."""
    return b"".join(event.event.data for event in host.events if hasattr(event, "event"))


def send(network: VirtualNetwork, one: Host, other: Host, data: bytes) -> bool:
    """Send data from one to the other; returns whether all of it arrives."""
    link = one.core.live_link(other.peer_id)
    assert link is not None
    link.quic.send_stream_data(0 if link.dialled_by_us else 1, data, end_stream=True)
    one.core.links.touch(link)
    return network.run(lambda: data_of(other) == data, limit_s=30)


def test_a_peer_is_reached_from_the_relays_port() -> None:
    """Both behind symmetric NATs: the other side is told of our relay, and lets it in by dialling it."""
    network = network_of()
    one, other = network.add_host(SYMMETRIC), network.add_host(SYMMETRIC)

    assert attempt(network, one, other)
    link = one.core.live_link(other.peer_id)
    assert link is not None
    assert link.relayed
    assert link.relayed_by == one.core.node_links[0].peer_id
    assert send(network, one, other, random.Random(1).randbytes(100_000))
    statistics = one.core.statistics()
    assert statistics.relay_streams == 1
    assert statistics.relayed_bytes_sent > 50_000
    assert len(network.nodes[0].streams.ports) == 1


def test_a_stranger_dials_the_relay_address_of_a_listener() -> None:
    """Symmetric NAT, no coordination: the address is enough, and it stays the same peer."""
    network = network_of(relay_listen=True)
    listener = network.add_host(SYMMETRIC)
    network.run(lambda: bool(listener.core.statistics().relay_addresses), limit_s=5)
    address = listener.core.relaying.listener.address
    assert address is not None
    stranger = network.add_host(None, settings=PeerSettings(relay="never"))
    stranger.core.dial(address, network.now_s)

    assert network.run(lambda: stranger.connected_to(listener) and listener.connected_to(stranger), limit_s=5)
    link = listener.core.live_link(stranger.peer_id)
    assert link is not None
    assert link.relayed
    assert send(network, stranger, listener, random.Random(2).randbytes(50_000))


def test_the_listener_tells_its_nodes_and_begins_anew_when_the_connection_is_lost() -> None:
    """Another relay, with another address, which the nodes are told; the old one is taken back."""
    network = network_of(relay_listen=True)
    listener = network.add_host(SYMMETRIC)
    network.run(lambda: bool(listener.core.statistics().relay_addresses), limit_s=5)
    first = listener.core.relaying.listener.address
    network.run(lambda: False, limit_s=1)
    assert [str(item) for item in network.nodes[0].candidates(listener.peer_id)] == [str(first)]
    network.nodes[0].lose_connections(silently=False)
    network.run(lambda: False, limit_s=1)
    assert listener.core.statistics().relay_addresses == ()
    listener.core.dial(network.nodes[0].address, network.now_s)
    network.run(lambda: bool(listener.core.statistics().relay_addresses), limit_s=5)
    network.run(lambda: False, limit_s=1)

    second = listener.core.relaying.listener.address
    assert second is not None
    assert second != first
    assert [str(item) for item in network.nodes[0].candidates(listener.peer_id)] == [str(second)]
    told = [event.address for event in listener.events if isinstance(event, RelayListening)]
    assert told == [first, None, second]


def test_a_refusal_is_reported_and_unused_relays_are_given_back() -> None:
    """The node has no room; or it has, and nobody answers there."""
    network = network_of(relay_timeout_s=4)
    network.nodes[0].streams.refuse = "node_sessions"
    one, other = network.add_host(SYMMETRIC), network.add_host(SYMMETRIC)
    assert not attempt(network, one, other)
    ended = [event for event in one.events if isinstance(event, PunchEnded)][-1]
    assert (ended.failure, ended.relay_refusal) == (Failure.NO_PATH, "node_sessions")

    network.nodes[0].streams.refuse = None
    deaf = network.add_host(SYMMETRIC, settings=PeerSettings(accept_introductions=False))
    assert not attempt(network, one, deaf)
    assert one.core.statistics().relay_streams == 1
    network.run(lambda: False, limit_s=40)
    assert one.core.statistics().relay_streams == 0
    assert network.nodes[0].streams.ports == {}


def test_a_lost_carrier_is_replaced_under_the_connection() -> None:
    """Our connection to the node ends and comes back: the same connection goes on from another port."""
    network = network_of()
    target = network.add_host(None, settings=PeerSettings(accept_introductions=False))
    one = network.add_host(SYMMETRIC)
    network.drop = lambda source, destination: {source[0], destination[0]} == {"198.18.2.2", "198.18.1.1"}
    assert attempt(network, one, target)
    before = one.core.live_link(target.peer_id)
    assert before is not None
    assert before.relayed
    # Until the other side's spare connection IDs are there, nothing can be moved.
    network.run(lambda: False, limit_s=1)
    network.nodes[0].lose_connections(silently=False)
    network.run(lambda: False, limit_s=0.5)
    one.core.dial(network.nodes[0].address, network.now_s)

    assert send(network, one, target, random.Random(3).randbytes(50_000))
    assert one.core.live_link(target.peer_id) is before
    assert one.core.statistics().moved_to_relay == 1
