"""Tests of ``antquic_server.protocol.seam.connection``: handshakes on bad links, extension frames, connection IDs."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from aioquic import tls
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.events import ConnectionIdIssued, DatagramFrameReceived, StreamDataReceived
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder

from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import FrameType, NamedGroup, TransportParameterId
from antquic_server.protocol.frames import (
    AddAddress,
    ExtensionFrame,
    ObservedAddress,
    PunchMeNow,
    RemoveAddress,
    TryConnectTo,
    TryConnectToResponse,
    frame_type_of,
    push_frame_body,
)
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.seam.connection import ExtensionFrameReceived, NodeQuicConnection
from antquic_server.protocol.stateless_reset import reset_token
from support.pair import (
    CLIENT_ADDRESS,
    CLIENT_EXTENSIONS,
    LAYOUT,
    RESET_KEY,
    SERVER_ADDRESS,
    SERVER_EXTENSIONS,
    SLOT,
    TERRIBLE,
    Datagram,
    Link,
    Pair,
    client_connection,
    crypto_frames,
    edited_hello,
    forge_packet,
    node_key,
    open_initial,
    server_connection,
)

FRAME_ENCODING_ERROR = 0x07
TRANSPORT_PARAMETER_ERROR = 0x08
PROTOCOL_VIOLATION = 0x0A

SOMEWHERE = SocketAddress.parse("203.0.113.9:9999")
SOMEWHERE_V6 = SocketAddress.parse("[2001:db8::9]:9999")
HANDSHAKES: dict[str, dict[str, Any]] = {
    "ant-quic": {"groups": (NamedGroup.ML_KEM_768,)},
    "hybrid": {"groups": (NamedGroup.X25519_ML_KEM_768,), "profile": HandshakeProfile.RAW_PUBLIC_KEY},
    "x509": {"groups": (NamedGroup.X25519_ML_KEM_768,), "profile": HandshakeProfile.X509},
    "retry-request": {
        "groups": (NamedGroup.X25519, NamedGroup.ML_KEM_768),
        "share_group": NamedGroup.X25519,
    },
}


def encoded(frame: ExtensionFrame) -> bytes:
    """A whole frame with its type."""
    buf = Buffer(capacity=64)
    buf.push_uint_var(frame_type_of(frame))
    push_frame_body(buf, frame)
    return buf.data


def received_by_server(pair: Pair) -> list[tuple[ExtensionFrame, bool]]:
    """The extension frames the server has announced so far, and whether they had an effect."""
    return [(event.frame, event.used) for event in pair.events(ExtensionFrameReceived)]


def reports_sent(pair: Pair) -> int:
    """How many OBSERVED_ADDRESS frames the server has written."""
    return pair.server._options.tally.observed_addresses_sent


# Handshakes on links of every kind.


@pytest.mark.parametrize("name", HANDSHAKES)
def test_hundred_handshakes_on_a_terrible_link(name: str) -> None:
    """25 seeds for each kind of client: loss, repetition and reordering delay a handshake and never end it."""
    for seed in range(25):
        pair = Pair(client_connection(**HANDSHAKES[name]), link=TERRIBLE, seed=seed).handshake()
        pair.advance(5.0)
        assert pair.established, f"seed {seed}: {pair.describe()}"
        assert pair.client.close_code is pair.server.close_code is None
        assert pair.client.observed_by_peer.address == SocketAddress.from_host(*CLIENT_ADDRESS)


@pytest.mark.parametrize("name", HANDSHAKES)
def test_any_single_lost_datagram_is_made_good(name: str) -> None:
    """Whichever one datagram of the handshake is lost, in either direction, it completes within seconds."""
    whole = Pair(client_connection(**HANDSHAKES[name])).handshake()
    for lost in [(item.from_client, item.number) for item in whole.sent]:

        def lose(item: Datagram, lost: tuple[bool, int] = lost) -> Sequence[bytes]:
            return [] if (item.from_client, item.number) == lost else [item.data]

        pair = Pair(client_connection(**HANDSHAKES[name]), tamper=lose).connect()
        assert pair.run(lambda pair=pair: pair.established, 5.0), f"{lost} lost: {pair.describe()}"  # type: ignore[misc]


def test_first_flight_of_the_client_takes_two_datagrams() -> None:
    """The premise of the tests above: a post-quantum ClientHello does not fit one datagram."""
    pair = Pair().connect()
    assert [len(item.data) for item in pair.sent] == [1200, 1200]


@pytest.mark.parametrize("lost_count", [1, 2, 3])
def test_second_half_of_the_hello_lost_repeatedly(lost_count: int) -> None:
    """With only half a ClientHello the server stays within its limit, and goes on when the rest arrives."""
    lost = 0

    def lose(item: Datagram) -> Sequence[bytes]:
        nonlocal lost
        if item.from_client and item.number % 2 and lost < lost_count:
            lost += 1
            return []
        return [item.data]

    pair = Pair(tamper=lose).connect()
    assert pair.run(lambda: pair.established, 20.0), pair.describe()
    assert lost == lost_count


def test_silent_client_gets_no_more_than_the_limit() -> None:
    """A client that falls silent after its hello gets three times its bytes in all, however long it waits."""
    pair = Pair(tamper=lambda item: [item.data] if not item.from_client or item.number < 2 else []).connect()
    pair.run(lambda: False, 25.0)
    sent_bytes = sum(len(item.data) for item in pair.sent if not item.from_client)
    assert 0 < sent_bytes <= 3 * 2400
    assert not pair.server.is_path_validated
    assert pair.server.validated_address is None


def test_spoofed_padding_counts_but_buys_no_more_than_its_bytes() -> None:
    """Junk from an unproven address is credited by its length and nothing else."""
    pair = Pair(tamper=lambda item: [item.data] if not item.from_client or item.number < 2 else []).connect()
    for _ in range(5):
        pair.advance(0.5)
        pair.deliver(b"\x40" + bytes(99))
    pair.run(lambda: False, 20.0)
    assert sum(len(item.data) for item in pair.sent if not item.from_client) <= 3 * (2400 + 500)


class ClientWithoutSpareIds(NodeQuicConnection):
    """A client that issues no further connection IDs, since its own have no or hardly any bytes."""

    def _replenish_connection_ids(self) -> None:
        pass


def reframed_hello(first_flight: list[bytes], randomness: random.Random, pieces: int, source_cid: bytes) -> list[bytes]:
    """Return the ClientHello of a flight in two new Initials, cut into pieces that come in any order."""
    header = None
    stream: dict[int, bytes] = {}
    for datagram in first_flight:
        header, payload, _ = open_initial(datagram)
        stream.update(crypto_frames(payload))
    assert header is not None
    hello = b"".join(data for _, data in sorted(stream.items()))
    cuts = sorted(randomness.sample(range(1, len(hello)), pieces - 1))
    frames = [(start, hello[start:end]) for start, end in zip([0, *cuts], [*cuts, len(hello)], strict=True)]
    randomness.shuffle(frames)
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination_cid, is_client=True, version=1)
    builder = QuicPacketBuilder(
        host_cid=source_cid,
        is_client=True,
        max_datagram_size=1452,
        peer_cid=header.destination_cid,
        version=1,
    )
    datagrams = []
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    for offset, data in frames:
        if builder.remaining_buffer_space < 8 + len(data):
            datagrams += builder.flush()[0]
            builder.start_packet(QuicPacketType.INITIAL, crypto)
        buf = builder.start_frame(QuicFrameType.CRYPTO, capacity=8 + len(data))
        buf.push_uint_var(offset)
        buf.push_uint_var(len(data))
        buf.push_bytes(data)
    datagrams += builder.flush()[0]
    assert len(datagrams) == 2
    return datagrams


@pytest.mark.parametrize("connection_id_bytes", [0, 3, 20])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("backwards", [False, True])
def test_hello_in_thirty_shuffled_pieces(connection_id_bytes: int, seed: int, backwards: bool) -> None:
    """A hello cut up as some browsers do, from a client with any length of connection ID, in either order."""
    client = client_connection(kind=ClientWithoutSpareIds, connection_id_bytes=connection_id_bytes)
    flight: list[bytes] = []

    def reframe(item: Datagram) -> Sequence[bytes]:
        if not item.from_client or item.number > 1:
            return [item.data]
        flight.append(item.data)
        if item.number == 0:
            return []
        pieces = reframed_hello(flight, random.Random(seed), 30, client.host_cid)
        return pieces[::-1] if backwards else pieces

    pair = Pair(client, tamper=reframe).connect()
    assert pair.run(lambda: pair.established, 10.0), pair.describe()
    assert pair.server.peer_public_key == node_key("client").public_key


def test_damaged_datagrams_are_survived() -> None:
    """Flipped bits anywhere cost at most a retransmission, and are counted."""
    randomness = random.Random(7)

    def damage(item: Datagram) -> Sequence[bytes]:
        if randomness.random() > 0.2:
            return [item.data]
        data = bytearray(item.data)
        data[randomness.randrange(len(data))] ^= 1 << randomness.randrange(8)
        return [bytes(data)]

    failures = 0
    for _ in range(10):
        pair = Pair(tamper=damage).handshake()
        failures += pair.server._options.tally.undecryptable_packets
    assert failures > 0


@pytest.mark.parametrize("seed", range(10))
def test_streams_and_datagrams_on_a_terrible_link(seed: int) -> None:
    """What is sent on a stream arrives whole and in order; DATAGRAM frames arrive unchanged or not at all."""
    pair = Pair(link=TERRIBLE, seed=seed).handshake()
    payload = random.Random(seed).randbytes(50_000)
    pair.client.send_stream_data(0, payload, end_stream=True)
    pair.client.send_datagram_frame(b"datagram")
    pair.flush()
    assert pair.run(lambda: any(event.end_stream for event in pair.events(StreamDataReceived)), 30.0)
    assert b"".join(event.data for event in pair.events(StreamDataReceived)) == payload
    assert all(event.data == b"datagram" for event in pair.events(DatagramFrameReceived))


# OBSERVED_ADDRESS.


def test_both_ends_are_told_their_address() -> None:
    """After the handshake each end knows what the other sees."""
    pair = Pair().handshake()
    assert pair.client.observed_by_peer.address == SocketAddress.from_host(*CLIENT_ADDRESS)
    assert pair.server.observed_by_peer.address == SocketAddress.from_host(*SERVER_ADDRESS)
    assert received_by_server(pair) == [
        (ObservedAddress(sequence_number=0, address=SocketAddress.from_host(*SERVER_ADDRESS)), True)
    ]
    assert reports_sent(pair) == 1


@pytest.mark.parametrize(
    ("server_role", "client_role", "told"),
    [(2, 2, True), (0, 1, True), (2, 1, True), (0, 2, True), (1, 2, False), (2, 0, False), (None, 2, False)],
)
def test_address_is_reported_by_agreement_only(server_role: int | None, client_role: int, told: bool) -> None:
    """We report if we send and the peer receives: 0 sends, 1 receives, 2 does both."""
    client = client_connection(extensions=replace(CLIENT_EXTENSIONS, address_discovery=client_role))
    extensions = replace(SERVER_EXTENSIONS, address_discovery=server_role)
    pair = Pair(client, lambda cid: server_connection(cid, extensions=extensions)).handshake()
    assert (pair.client.observed_by_peer.address is not None) is told
    assert reports_sent(pair) == int(told)
    assert pair.client.close_code is None


def test_peer_without_extensions_hears_nothing() -> None:
    """A client that knows none of this gets no frame it would have to refuse."""
    pair = Pair(client_connection(extensions=None)).handshake()
    pair.advance(5.0)
    assert pair.established
    assert reports_sent(pair) == 0
    assert pair.client.close_code is None


def test_lost_report_is_sent_again() -> None:
    """OBSERVED_ADDRESS is repeated, with the same number, until it is acknowledged."""
    blocked = True
    pair = Pair()

    # The server's answers vanish from the moment it has completed the handshake until it has repeated itself.
    def block(item: Datagram) -> Sequence[bytes]:
        return [] if blocked and not item.from_client and pair.server.handshake_complete else [item.data]

    pair.tamper = block
    pair.connect()
    assert pair.run(lambda: pair.has_server and reports_sent(pair) >= 2, 10.0), pair.describe()
    assert pair.client.observed_by_peer.address is None
    blocked = False
    assert pair.run(lambda: pair.client.observed_by_peer.address is not None, 10.0)
    frames = [event.frame for event in pair.events(ExtensionFrameReceived, of_server=False)]
    assert frames == [ObservedAddress(sequence_number=0, address=SocketAddress.from_host(*CLIENT_ADDRESS))]


@pytest.mark.parametrize("link", [Link(), TERRIBLE])
def test_new_address_is_reported_with_a_higher_number(link: Link) -> None:
    """A client whose NAT gives it another port is told so, on the new path."""
    pair = Pair(link=link, seed=3).handshake()
    pair.advance(5.0)
    for port in (50_008, 50_009, 50_007):
        pair.client_address = (CLIENT_ADDRESS[0], port)
        pair.client.send_ping(1)
        pair.flush()
        moved = SocketAddress.from_host(CLIENT_ADDRESS[0], port)
        assert pair.run(lambda moved=moved: pair.client.observed_by_peer.address == moved, 20.0)  # type: ignore[misc]
        assert pair.run(lambda: pair.server.is_path_validated, 20.0)
        assert pair.server.get_peer_address() == pair.server.validated_address == pair.client_address
    reports = [event.frame for event in pair.events(ExtensionFrameReceived, of_server=False) if event.used]
    numbers = [frame.sequence_number for frame in reports]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 3 if link == Link() else numbers[-1] >= 3


# Extension frames from the peer.


def forged(pair: Pair, frames: bytes, epoch: tls.Epoch = tls.Epoch.ONE_RTT) -> None:
    """Let the client send frames of its own making to the server, at once."""
    pair.deliver(forge_packet(pair.client, epoch, frames))


EXTENSION_FRAMES: list[tuple[ExtensionFrame, bool]] = [
    (ObservedAddress(sequence_number=8, address=SOMEWHERE), True),
    (ObservedAddress(sequence_number=9, address=SOMEWHERE_V6), True),
    (AddAddress(sequence_number=1, address=SOMEWHERE), True),
    (AddAddress(sequence_number=2, address=SOMEWHERE_V6), True),
    (RemoveAddress(sequence_number=1), True),
    (PunchMeNow(round=1, paired_with_sequence_number=1, address=SOMEWHERE), False),
    (PunchMeNow(round=1, paired_with_sequence_number=1, address=SOMEWHERE_V6), False),
    (TryConnectTo(request_id=1, address=SOMEWHERE, timeout_ms=100), False),
    (TryConnectTo(request_id=1, address=SOMEWHERE_V6, timeout_ms=100), False),
    (TryConnectToResponse(request_id=1, success=True, error=0, address=SOMEWHERE), False),
    (TryConnectToResponse(request_id=1, success=False, error=1, address=SOMEWHERE_V6), False),
]


@pytest.mark.parametrize(("frame", "used"), EXTENSION_FRAMES)
def test_extension_frame_is_read(frame: ExtensionFrame, used: bool) -> None:
    """Every frame type is understood and announced; the connection goes on."""
    pair = Pair().handshake()
    pair.server_events.clear()
    forged(pair, encoded(frame))
    assert received_by_server(pair) == [(frame, used)]
    assert pair.server.close_code is None


def test_several_frames_in_one_packet() -> None:
    """Frames follow one another, ours between standard ones."""
    pair = Pair().handshake()
    pair.server_events.clear()
    frames = [frame for frame, _ in EXTENSION_FRAMES]
    forged(pair, b"\x01" + b"".join(encoded(frame) + b"\x01\x00" for frame in frames))
    assert [frame for frame, _ in received_by_server(pair)] == frames


@pytest.mark.parametrize(("frame", "used"), EXTENSION_FRAMES)
def test_frame_without_negotiation_is_a_protocol_violation(frame: ExtensionFrame, used: bool) -> None:
    """A frame of an extension that one side has not declared ends the connection."""
    nothing = ExtensionParameters()
    for client_extensions, server_extensions in ((nothing, SERVER_EXTENSIONS), (CLIENT_EXTENSIONS, nothing)):
        client = client_connection(extensions=client_extensions)
        pair = Pair(client, partial(server_connection, extensions=server_extensions)).handshake()
        forged(pair, encoded(frame))
        assert pair.server.close_code == PROTOCOL_VIOLATION
        assert received_by_server(pair) == []


@pytest.mark.parametrize(("frame", "used"), EXTENSION_FRAMES)
def test_truncated_frame_is_an_encoding_error(frame: ExtensionFrame, used: bool) -> None:
    """A frame that ends with the packet before its own end, wherever it is cut."""
    whole = encoded(frame)
    for length in (4, len(whole) - 1):
        pair = Pair().handshake()
        pair.server_events.clear()
        forged(pair, whole[:length])
        assert pair.server.close_code == FRAME_ENCODING_ERROR
        assert received_by_server(pair) == []


@pytest.mark.parametrize(
    "frame_type", [0x3D7E8F, 0x3D7E99, 0x9F81A5, 0x9F81A8, FrameType.ACK_FREQUENCY, FrameType.IMMEDIATE_ACK, 0x21]
)
def test_unknown_frame_is_an_encoding_error(frame_type: int) -> None:
    """Frame types that are not ours, and those we never agree to, end the connection."""
    pair = Pair().handshake()
    forged(pair, encode_uint_var(frame_type) + bytes(32))
    assert pair.server.close_code == FRAME_ENCODING_ERROR


@pytest.mark.parametrize("epoch", [tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE])
@pytest.mark.parametrize("frame", [EXTENSION_FRAMES[0][0], EXTENSION_FRAMES[2][0], EXTENSION_FRAMES[4][0]])
def test_extension_frame_before_1rtt_is_a_protocol_violation(epoch: tls.Epoch, frame: ExtensionFrame) -> None:
    """Extension frames belong into 1-RTT packets, whatever has been negotiated."""
    done = False

    def insert(item: Datagram) -> Sequence[bytes]:
        nonlocal done
        wanted = item.number == 1 if epoch is tls.Epoch.INITIAL else pair.client._cryptos[epoch].send.is_valid()
        if item.from_client and wanted and not done:
            done = True
            return [forge_packet(pair.client, epoch, encoded(frame))]
        return [item.data]

    pair = Pair()
    pair.tamper = insert
    pair.connect()
    assert pair.run(lambda: pair.has_server and pair.server.is_closing, 10.0), pair.describe()
    assert pair.server.close_code == PROTOCOL_VIOLATION
    assert received_by_server(pair) == []


def test_candidates_of_a_peer_are_bounded() -> None:
    """Beyond the bound a candidate has no effect and the connection goes on."""
    pair = Pair(make_server=partial(server_connection, options={"max_candidates": 3})).handshake()
    pair.server_events.clear()
    for number in range(6):
        forged(pair, encoded(AddAddress(sequence_number=number, address=SOMEWHERE)))
    assert [used for _, used in received_by_server(pair)] == [True, True, True, False, False, False]
    assert len(pair.server.candidates) == 3
    forged(pair, encoded(RemoveAddress(sequence_number=0)))
    assert len(pair.server.candidates) == 2
    assert pair.server.close_code is None


def test_stale_report_has_no_effect() -> None:
    """A report with an old number is announced as unused."""
    pair = Pair().handshake()
    forged(pair, encoded(ObservedAddress(sequence_number=5, address=SOMEWHERE)))
    forged(pair, encoded(ObservedAddress(sequence_number=4, address=SOMEWHERE_V6)))
    assert [used for _, used in received_by_server(pair)] == [True, True, False]
    assert pair.server.observed_by_peer.address == SOMEWHERE


# Transport parameters.


def parameter(identifier: int, value: bytes) -> bytes:
    """One transport parameter."""
    return encode_uint_var(identifier) + encode_uint_var(len(value)) + value


NAT = TransportParameterId.NAT_TRAVERSAL
DISCOVERY = TransportParameterId.ADDRESS_DISCOVERY
MAX_IDLE_TIMEOUT = 0x01


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda body: body + parameter(MAX_IDLE_TIMEOUT, b"\x05"), id="duplicate-standard"),
        pytest.param(lambda body: body + parameter(DISCOVERY, b"\x02"), id="duplicate-ours"),
        pytest.param(lambda body: body + 2 * parameter(0x1F41, b""), id="duplicate-unknown"),
        pytest.param(lambda body: parameter(NAT, b"\x00"), id="zero-concurrency"),
        pytest.param(lambda body: parameter(NAT, b"\x40\x65"), id="concurrency-above-100"),
        pytest.param(lambda body: parameter(NAT, b"\x40"), id="truncated-varint"),
        pytest.param(lambda body: parameter(DISCOVERY, b"\x03"), id="unknown-role"),
        pytest.param(lambda body: parameter(DISCOVERY, b""), id="empty-role"),
        pytest.param(lambda body: parameter(TransportParameterId.RFC_NAT_TRAVERSAL, b"\x00"), id="flag-with-value"),
        pytest.param(lambda body: body + b"\x7f\xff\x04\x00", id="cut-short"),
    ],
)
def test_malformed_transport_parameters(change: Callable[[bytes], bytes]) -> None:
    """Every flaw is a TRANSPORT_PARAMETER_ERROR, sent in the first flight of the server."""

    def edit(hello: tls.ClientHello, _number: int) -> None:
        hello.other_extensions = [
            (kind, change(value) if kind == tls.ExtensionType.QUIC_TRANSPORT_PARAMETERS else value)
            for kind, value in hello.other_extensions
        ]

    with edited_hello(edit):
        pair = Pair().connect()
        assert pair.run(lambda: pair.both_closed, 10.0), pair.describe()
    assert pair.client.close_code == TRANSPORT_PARAMETER_ERROR
    assert not pair.server.handshake_complete


def test_unknown_transport_parameters_are_ignored() -> None:
    """Reserved parameters (RFC 9000, section 18.1) and those of other extensions do no harm."""

    def edit(hello: tls.ClientHello, _number: int) -> None:
        hello.other_extensions = [
            (kind, value + parameter(27 + 31 * 7, b"grease") + parameter(0x50C0, b"\x01") if kind == 0x39 else value)
            for kind, value in hello.other_extensions
        ]

    with edited_hello(edit):
        pair = Pair().handshake()
    assert pair.server.remote_extensions == replace(CLIENT_EXTENSIONS, pqc_algorithms=1)


def test_what_each_end_learns_of_the_other() -> None:
    """The parameters arrive as they were declared."""
    pair = Pair().handshake()
    assert pair.server.remote_extensions == CLIENT_EXTENSIONS
    assert pair.client.remote_extensions == SERVER_EXTENSIONS


# Connection IDs.


def test_issued_connection_ids_have_our_layout() -> None:
    """All IDs we issue, the first included, lead to our slot; their reset tokens derive from the key."""
    pair = Pair().handshake()
    issued = pair.server.issued_connection_ids
    assert len(issued) == len(set(issued)) == 8
    assert all(LAYOUT.is_ours(cid) and LAYOUT.slot_of(cid) == SLOT for cid in issued)
    announced = {event.connection_id for event in pair.events(ConnectionIdIssued)}
    assert announced == set(issued[1:])
    assert set(pair.client.peer_reset_tokens) == {reset_token(RESET_KEY, cid) for cid in issued}


def test_connection_ids_are_replenished_in_our_layout() -> None:
    """An ID that is retired is replaced by another of ours, which works."""
    pair = Pair().handshake()
    before = set(pair.server.issued_connection_ids)
    for _ in range(5):
        pair.client.change_connection_id()
        pair.flush()
        pair.advance(1.0)
    after = set(pair.server.issued_connection_ids)
    assert len(after - before) == 5
    assert all(LAYOUT.is_ours(cid) and LAYOUT.slot_of(cid) == SLOT for cid in after)
    assert set(pair.client.peer_reset_tokens) == {reset_token(RESET_KEY, cid) for cid in after}
    pair.client.send_stream_data(0, b"still here", end_stream=True)
    pair.flush()
    assert pair.run(lambda: bool(pair.events(StreamDataReceived)), 5.0)


def test_short_header_packets_carry_our_connection_id() -> None:
    """What a client sends after the handshake can be steered."""
    pair = Pair().handshake()
    short = [item.data for item in pair.sent if item.from_client and not item.data[0] & 0x80]
    assert short
    assert all(LAYOUT.is_ours(data[1:11]) for data in short)


# The end of a connection, and small facts about it.


@pytest.mark.parametrize("server_moves", [True, False])
def test_connection_goes_on_at_an_address_it_is_told(server_moves: bool) -> None:
    """When the other end is not where it was and does not say so, either role follows the word of others."""
    pair = Pair().handshake()
    pair.advance(5.0)
    stays = pair.client if server_moves else pair.server
    moved = ("198.51.100.9", 9999)
    if server_moves:
        pair.server_address = moved
    else:
        pair.client_address = moved
    stays.send_stream_data(stays.get_next_available_stream_id(), bytes(200_000), end_stream=True)
    pair.flush()
    assert pair.run(lambda: stays.unanswered_probes >= 3, 10.0)

    stays.use_path(moved, pair.now_s)
    pair.flush()

    def all_arrived() -> bool:
        return sum(len(event.data) for event in pair.events(StreamDataReceived, of_server=server_moves)) == 200_000

    assert pair.run(all_arrived, 5.0), pair.describe()
    pair.advance(5.0)
    assert stays.unanswered_probes == 0
    assert stays.get_peer_address() == moved
    assert stays.is_path_validated


def test_abandon_ends_without_a_word() -> None:
    """An abandoned connection reports its end and sends nothing."""
    pair = Pair().handshake()
    count = len(pair.sent)
    pair.server.abandon(7, "gone")
    pair.server.abandon(8, "again")
    pair.advance(1.0)
    assert pair.server.is_terminated
    assert pair.server.close_code == 7
    assert [item for item in pair.sent[count:] if not item.from_client] == []


def test_peer_key_is_shown_after_the_handshake_only() -> None:
    """A key whose owner has not signed yet is nobody's."""
    pair = Pair(tamper=lambda item: [item.data] if not item.from_client or item.number < 2 else []).connect()
    pair.run(lambda: pair.client.handshake_complete, 10.0)
    assert pair.client.handshake_complete
    assert pair.server.peer_public_key is None


@pytest.mark.parametrize("connection_id_bytes", [4, 8, 20])
def test_largest_datagram_frame_fits(connection_id_bytes: int) -> None:
    """A payload of ``max_datagram_frame_bytes`` arrives; one byte more would wait for ever."""
    pair = Pair(client_connection(connection_id_bytes=connection_id_bytes)).handshake()
    size = pair.server.max_datagram_frame_bytes
    pair.server.send_datagram_frame(bytes(size))
    pair.flush()
    pair.advance(1.0)
    assert [len(event.data) for event in pair.events(DatagramFrameReceived, of_server=False)] == [size]
    assert pair.server.datagrams_pending == 0
    pair.server.send_datagram_frame(bytes(size + 1))
    pair.flush()
    pair.advance(1.0)
    assert pair.server.datagrams_pending == 1


@pytest.mark.parametrize(("declared", "expected"), [(None, 0), (100, 97)])
def test_datagram_limit_of_the_peer(declared: int | None, expected: int) -> None:
    """What the peer accepts bounds what we send, and no limit means no DATAGRAM frames."""
    pair = Pair(client_connection(max_datagram_frame_size=declared)).handshake()
    assert pair.server.max_datagram_frame_bytes == expected


def test_options_absent_leave_stock_behaviour() -> None:
    """Without options of ours a connection has random IDs and aioquic's own TLS."""
    stock: Any = NodeQuicConnection(configuration=QuicConfiguration(is_client=True))
    stock.connect(SERVER_ADDRESS, 0.0)
    assert type(stock.tls) is tls.Context
    assert stock.profile is None
    assert len(stock.issued_connection_ids[0]) == 8
