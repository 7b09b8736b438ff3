"""Tests of ``antquic_server.protocol.seam.key_update``: two ends that go on talking while their keys change."""

import random
from typing import Any

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import DatagramFrameReceived, StreamDataReceived
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import Epoch

from antquic_server.protocol.seam import key_update
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.key_update import UpdatingCryptoPair
from antquic_server.protocol.seam.options import ConnectionOptions, Tally
from support.pair import Link, Pair, client_connection, server_connection

LIMIT = 60
DATA = random.Random(6).randbytes(400_000)
RFC_9001_LIMIT = 1 << 23
"""Section 6.6, AES-GCM."""
UNORDERED = Link(delay_s=(0.01, 0.05))


def keys(end: NodeQuicConnection) -> UpdatingCryptoPair:
    """The keys of 1-RTT packets."""
    pair = end._cryptos[Epoch.ONE_RTT]
    assert isinstance(pair, UpdatingCryptoPair)
    return pair


def secrets(end: NodeQuicConnection) -> tuple[Any, Any]:
    """The secrets an end writes and reads with."""
    return keys(end).send.secret, keys(end).recv.secret


def pair_of(*, server: int = LIMIT, client: int = 1 << 22, **options: Any) -> tuple[Pair, Tally]:
    """Two ends that are established, and what both count."""
    tally = Tally()
    pair = Pair(
        client_connection(options={"key_update_packets": client, "tally": tally}),
        lambda cid: server_connection(cid, options={"key_update_packets": server, "tally": tally}),
        **options,
    )
    return pair.handshake(), tally


def send(pair: Pair, end: NodeQuicConnection, count: int) -> None:
    """Send so many DATAGRAM frames, each in a packet of its own, a millisecond apart."""
    for number in range(count):
        end.send_datagram_frame(number.to_bytes(2, "big"))
        pair.flush()
        pair.advance(0.001)


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """A limit of a key that a test can reach."""
    monkeypatch.setattr(key_update, "MAX_PACKETS_PER_KEY", 4 * LIMIT)
    return 4 * LIMIT


def test_keys_are_changed_before_the_limit_of_the_rfc() -> None:
    """A connection of a node begins well before 2^23 packets, and gives up before them too."""
    assert ConnectionOptions().key_update_packets <= RFC_9001_LIMIT // 2
    assert ConnectionOptions().key_update_packets < key_update.MAX_PACKETS_PER_KEY < RFC_9001_LIMIT


@pytest.mark.parametrize("link", [Link(), UNORDERED], ids=["in order", "reordered"])
def test_both_directions_flow_across_updates(link: Link) -> None:
    """While keys change several times every byte arrives both ways, and no packet is lost to a key that is gone."""
    pair, tally = pair_of(link=link)
    early = tally.packets_without_key  # packets of the handshake that arrived out of order
    first = secrets(pair.server)
    seen = {first}
    streams = {end: end.get_next_available_stream_id() for end in (pair.client, pair.server)}
    for end, stream_id in streams.items():
        end.send_stream_data(stream_id, DATA, end_stream=True)
    pair.flush()

    def arrived(*, of_server: bool) -> bytes:
        wanted = streams[pair.client if of_server else pair.server]
        events = pair.events(StreamDataReceived, of_server=of_server)
        return b"".join(event.data for event in events if event.stream_id == wanted)

    def done() -> bool:
        seen.add(secrets(pair.server))
        return len(arrived(of_server=True)) == len(arrived(of_server=False)) == len(DATA)

    assert pair.run(done)
    pair.advance(1)

    assert arrived(of_server=True) == arrived(of_server=False) == DATA
    assert len(seen) > 3
    assert secrets(pair.client) == secrets(pair.server)[::-1] != first[::-1]
    assert (tally.undecryptable_packets, tally.packets_without_key) == (0, early)


def test_datagrams_on_their_way_survive_an_update() -> None:
    """What the peer had sent with the old key when we took a new one is still read."""
    pair, tally = pair_of(link=Link(delay_s=(0.2, 0.2)))
    phase = keys(pair.server).key_phase
    for number in range(2 * LIMIT):
        pair.client.send_datagram_frame(number.to_bytes(2, "big"))
        pair.server.send_datagram_frame(number.to_bytes(2, "big"))
        pair.flush()
        pair.advance(0.002)
    pair.advance(2)

    assert keys(pair.client).key_phase == keys(pair.server).key_phase != phase
    for of_server in (True, False):
        frames = [event.data for event in pair.events(DatagramFrameReceived, of_server=of_server)]
        assert frames == [number.to_bytes(2, "big") for number in range(2 * LIMIT)]
    assert tally.undecryptable_packets == 0


def test_an_update_of_the_peer_begins_the_count_anew() -> None:
    """After the peer has changed keys we send a whole limit of packets before we do."""
    pair, _ = pair_of()
    before = pair.server._packet_number
    send(pair, pair.server, LIMIT - 10 - before)
    first = secrets(pair.server)
    pair.client.request_key_update()
    send(pair, pair.client, 1)
    pair.advance(0.2)
    by_peer = secrets(pair.server)
    assert by_peer != first

    send(pair, pair.server, LIMIT - 20)
    pair.advance(0.2)
    assert secrets(pair.server) == by_peer
    send(pair, pair.server, 40)
    pair.advance(0.2)
    assert secrets(pair.server) != by_peer
    assert secrets(pair.client) == secrets(pair.server)[::-1]


def test_both_may_begin_at_once() -> None:
    """Updates that cross on the wire are one update."""
    pair, tally = pair_of(server=1 << 22)
    first = secrets(pair.server)
    for end in (pair.client, pair.server):
        end.request_key_update()
        end.send_ping(1)
    pair.flush()
    pair.advance(0.5)

    assert secrets(pair.client) == secrets(pair.server)[::-1] != first[::-1]
    assert keys(pair.client).key_phase == 1
    assert tally.undecryptable_packets == 0


def silence(end: NodeQuicConnection, tally_from: list[bytes]) -> None:
    """Make packets of an end like pure acknowledgements: nothing of the peer is delivered to it any more."""
    end.receive_datagram = lambda data, *_: tally_from.append(data)  # type: ignore[method-assign]


def acknowledge_only(pair: Pair, count: int) -> None:
    """Let the client send, so that the server sends acknowledgements, which nobody acknowledges."""
    for _ in range(count):
        pair.client.send_ping(1)
        pair.flush()
        pair.advance(0.08)


def test_no_second_update_before_the_first_is_acknowledged(low_limit: int) -> None:
    """Without an acknowledgement of the new key there is no other update; the connection ends before the limit."""
    pair, _ = pair_of()
    send(pair, pair.server, LIMIT)
    pair.advance(1)
    second = secrets(pair.server)
    updates: list[bool] = []
    pair.server.note_key_update = lambda: updates.append(True)  # type: ignore[method-assign]
    start = pair.server._packet_number
    # From here on no packet of the server arrives: nothing it sends can be acknowledged.
    lost: list[bytes] = []
    silence(pair.client, lost)
    pair.server._keys_start = start
    acknowledge_only(pair, low_limit - LIMIT)
    assert not pair.server.is_closing
    assert secrets(pair.server) == second

    acknowledge_only(pair, 2 * LIMIT)
    assert pair.server.close_code == QuicErrorCode.AEAD_LIMIT_REACHED
    assert updates == []
    assert len(lost) > low_limit - LIMIT


def test_a_side_that_only_receives_asks_for_an_acknowledgement() -> None:
    """Acknowledgements alone use up a key as well, and are never acknowledged: a ping is."""
    pair, _ = pair_of()
    seen = {secrets(pair.server)}
    for _ in range(4 * LIMIT):
        acknowledge_only(pair, 1)
        seen.add(secrets(pair.server))

    assert len(seen) > 2
    assert not pair.server.is_closing
    assert secrets(pair.client) == secrets(pair.server)[::-1]


def test_the_old_key_is_forgotten() -> None:
    """Once the peer has the new key, the old one is kept for three probe timeouts, not for ever."""
    pair, _ = pair_of()
    send(pair, pair.server, LIMIT)
    pair.advance(0.5)
    for since_s, forgotten in ((0.0, False), (0.0, False), (5.0, True)):
        pair.advance(since_s)
        pair.server._look_after_keys(pair.now_s)
        assert (keys(pair.server).reader.previous_aead is None) is forgotten


def test_a_connection_without_our_tls_is_left_alone() -> None:
    """Without options the keys are aioquic's, and nothing begins an update."""
    client = NodeQuicConnection(configuration=QuicConfiguration(is_client=True))
    client.connect(("192.0.2.1", 1), now=0.0)
    client._handshake_confirmed = True
    client._packet_number = 1 << 24
    client._look_after_keys(0.0)

    assert client._keys_due == client._packet_number + key_update.CHECK_INTERVAL_PACKETS
    assert not client.is_closing
