"""Tests of ``protocol.relay_stream``: the bytes that ant-quic peers and their relays exchange."""

import random
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import RelayDecodeError
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_stream import (
    BIND_REQUEST,
    MAX_FRAME_BYTES,
    MAX_REQUEST_BYTES,
    ConnectUdpRequest,
    ConnectUdpResponse,
    FrameReader,
    MessageReader,
    decode_frame_untrusted,
    decode_request_untrusted,
    decode_response_untrusted,
    encode_frame,
    encode_request,
    encode_response,
    frame_header,
)
from support.strategies import ports, socket_addresses

ADDRESS = SocketAddress.parse("203.0.113.7:4433")
MAPPED = SocketAddress(host=IPv6Address("::ffff:203.0.113.7"), port=4433)

# Wire specification, sections 6.1, 6.2 and 6.4.
REQUEST = bytes.fromhex("00000006 01 02 3a3a 0000")
SUCCESS = bytes.fromhex("0000000a 00c8 01 04 cb007107 1151")
AT_CAPACITY = bytes.fromhex("00000016 01f7 02 12 536572766572206174206361706163697479")
FRAME = bytes.fromhex("0000000b 00 04 cb007107 1151 616263")

any_address = socket_addresses() | st.builds(
    SocketAddress, host=st.integers(0, (1 << 32) - 1).map(lambda n: IPv6Address((0xFFFF << 32) | n)), port=ports()
)
payloads = st.binary(max_size=64) | st.sampled_from([bytes(1200), bytes(4096)])


def test_request_of_ant_quic_peers() -> None:
    """The bind request, byte for byte, both ways."""
    assert BIND_REQUEST == REQUEST
    assert decode_request_untrusted(REQUEST[4:]) == ConnectUdpRequest(bind=True, host="::", port=0)


def test_responses_of_ant_quic_relays() -> None:
    """Success with an address and refusal with a reason, byte for byte, both ways."""
    success = ConnectUdpResponse(status=200, address=ADDRESS)
    refused = ConnectUdpResponse(status=503, reason="Server at capacity")
    assert encode_response(success) == SUCCESS
    assert encode_response(refused) == AT_CAPACITY
    assert decode_response_untrusted(SUCCESS[4:]) == success
    assert decode_response_untrusted(AT_CAPACITY[4:]) == refused
    assert success.is_success
    assert not refused.is_success
    assert not ConnectUdpResponse(status=200).is_success


def test_frame_of_ant_quic_peers() -> None:
    """Three bytes for an IPv4 address, byte for byte, both ways."""
    assert encode_frame(frame_header(ADDRESS), b"abc") == FRAME
    assert decode_frame_untrusted(FRAME[4:]) == (ADDRESS, b"abc")


@given(st.booleans(), st.text(max_size=60), ports())
def test_request_survives(bind: bool, host: str, port: int) -> None:
    """Whatever is asked, the reader sees the same."""
    request = ConnectUdpRequest(bind=bind, host=host, port=port)
    assert decode_request_untrusted(encode_request(request)[4:]) == request


@given(st.integers(0, 0xFFFF), st.none() | any_address, st.text(max_size=60))
def test_response_survives(status: int, address: SocketAddress | None, reason: str) -> None:
    """Whatever is answered, the reader sees the same."""
    response = ConnectUdpResponse(status=status, address=address, reason=reason)
    assert decode_response_untrusted(encode_response(response)[4:]) == response


@given(any_address, payloads)
def test_frame_survives(address: SocketAddress, payload: bytes) -> None:
    """Address and payload come out as they went in; a mapped address stays mapped."""
    assert decode_frame_untrusted(encode_frame(frame_header(address), payload)[4:]) == (address, payload)


@pytest.mark.parametrize(
    "body",
    ["", "01", "01 02 3a", "01 02 3a3a 00", "01 02 3a3a 0000 00", "01 4100" + "61" * 256 + "0000", "01 01 ff 0000"],
)
def test_request_that_is_none_is_refused(body: str) -> None:
    """Cut short, too long, with bytes behind it, a host that is too long or no text."""
    with pytest.raises(RelayDecodeError):
        decode_request_untrusted(bytes.fromhex(body))


@pytest.mark.parametrize(
    "body", ["", "00c8", "00c8 01", "00c8 01 05 cb007107 1151", "00c8 01 04 cb0071", "01f7 02 05 61"]
)
def test_response_that_is_none_is_refused(body: str) -> None:
    """Cut short, or an address of no family."""
    with pytest.raises(RelayDecodeError):
        decode_response_untrusted(bytes.fromhex(body))


@pytest.mark.parametrize("body", ["", "00", "00 05 cb007107 1151", "00 04 cb007107 11", "00 06 cb007107 1151", "40"])
def test_frame_that_is_none_is_refused(body: str) -> None:
    """Cut short, or an address of no family; by both readers."""
    data = bytes.fromhex(body)
    with pytest.raises(RelayDecodeError):
        decode_frame_untrusted(data)
    reader = FrameReader()
    reader.feed(len(data).to_bytes(4, "big") + data + FRAME)
    assert reader.take_untrusted() == [(b"", b""), (frame_header(ADDRESS), b"abc")]


def test_message_reader_cuts_and_bounds() -> None:
    """Messages come out whole and in order; a longer one than the limit is refused as soon as its length is there."""
    reader = MessageReader(MAX_REQUEST_BYTES)
    for byte in REQUEST[:-1]:
        reader.feed(bytes((byte,)))
        assert reader.next_untrusted() is None
    assert reader.pending_bytes == len(REQUEST) - 1
    reader.feed(REQUEST[-1:] + SUCCESS)
    assert reader.next_untrusted() == REQUEST[4:]
    assert reader.next_untrusted() == SUCCESS[4:]
    assert reader.next_untrusted() is None
    assert reader.pending_bytes == 0
    reader.feed((MAX_REQUEST_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(RelayDecodeError, match="1025"):
        reader.next_untrusted()


@given(st.lists(st.tuples(any_address, payloads), max_size=12), st.randoms(use_true_random=False))
def test_frame_reader_cuts_anywhere(items: list[tuple[SocketAddress, bytes]], randomness: random.Random) -> None:
    """However a stream is cut, its frames come out once each, in order, and nothing is left."""
    stream = b"".join(encode_frame(frame_header(address), payload) for address, payload in items)
    reader = FrameReader()
    taken = []
    while stream:
        size = randomness.choice((1, 3, 7, 60, 1200, 9000))
        reader.feed(stream[:size])
        stream = stream[size:]
        if randomness.random() < 0.7:
            taken += reader.take_untrusted()
    taken += reader.take_untrusted()
    assert [(decode_frame_untrusted(header)[0], payload) for header, payload in taken] == items
    assert reader.held_bytes == 0


def test_frame_reader_takes_any_context_id() -> None:
    """As in ant-quic, whatever the context id is, and however long: it belongs to the header."""
    for context in (b"\x01", b"\x40\x07", b"\x80\x00\x00\x07", b"\xc0" + bytes(6) + b"\x07"):
        for address in (ADDRESS, MAPPED):
            header = context + frame_header(address)[1:]
            reader = FrameReader()
            reader.feed(encode_frame(header, b"abc"))
            assert reader.take_untrusted() == [(header, b"abc")]
            assert decode_frame_untrusted(header) == (address, b"")


def test_frame_reader_refuses_what_is_too_long() -> None:
    """A frame of the greatest length passes; one byte more is refused before it has arrived."""
    header = frame_header(ADDRESS)
    reader = FrameReader()
    longest = encode_frame(header, bytes(MAX_FRAME_BYTES - len(header)))
    reader.feed(longest[:100])
    assert reader.take_untrusted() == []
    assert reader.held_bytes == 100
    reader.feed(longest[100:])
    assert reader.take_untrusted() == [(header, bytes(MAX_FRAME_BYTES - len(header)))]
    reader.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(RelayDecodeError, match="65537"):
        reader.take_untrusted()


def test_frame_reader_keeps_no_crumbs() -> None:
    """A frame that comes byte by byte is not kept as so many objects."""
    reader = FrameReader()
    frame = encode_frame(frame_header(ADDRESS), bytes(5000))
    for byte in frame[:-1]:
        reader.feed(bytes((byte,)))
        assert reader.take_untrusted() == []
        assert len(reader._chunks) <= 256
    assert reader.held_bytes == len(frame) - 1
    reader.feed(frame[-1:])
    assert reader.take_untrusted() == [(frame_header(ADDRESS), bytes(5000))]
