"""Extension frames: the whole codec battery."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from aioquic.buffer import Buffer, encode_uint_var, size_uint_var
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import FrameDecodeError
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import FrameType
from antquic_server.protocol.frames import (
    EXTENSION_FRAME_TYPES,
    AckFrequency,
    AddAddress,
    ExtensionFrame,
    ImmediateAck,
    ObservedAddress,
    PunchMeNow,
    RemoveAddress,
    TryConnectTo,
    TryConnectToResponse,
    frame_capacity,
    frame_type_of,
    pull_frame_untrusted,
    push_frame_body,
)
from support.strategies import extension_frames, ipv4_addresses, mutations, ports, uint_vars

ADDRESS_IPV4 = SocketAddress.parse("203.0.113.7:4433")
ADDRESS_IPV6 = SocketAddress.parse("[2001:db8::7]:4433")
ADDRESS_IPV6_HEX = "20010db8000000000000000000000007 1151"


def encode(frame: ExtensionFrame) -> bytes:
    """Write a frame, type included, into a buffer of exactly the declared capacity."""
    buf = Buffer(capacity=frame_capacity(frame))
    buf.push_uint_var(frame_type_of(frame))
    push_frame_body(buf, frame)
    assert buf.eof(), "the declared capacity is larger than the frame"
    return buf.data


def body_of(frame: ExtensionFrame) -> bytes:
    """Write a frame without its type."""
    return encode(frame)[size_uint_var(frame_type_of(frame)) :]


@given(frame=extension_frames(), trailing=st.binary(max_size=8))
def test_frame_survives_a_round_trip(frame: ExtensionFrame, trailing: bytes) -> None:
    """What was pushed is pulled, at its declared length, and the next frame's bytes stay unread."""
    buf = Buffer(data=encode(frame) + trailing)
    assert pull_frame_untrusted(buf.pull_uint_var(), buf) == frame
    assert buf.data_slice(buf.tell(), buf.capacity) == trailing


@given(frame=extension_frames())
def test_cut_frame_is_refused(frame: ExtensionFrame) -> None:
    """Every shorter prefix of the body raises the decode error and nothing else."""
    body = body_of(frame)
    for length in range(len(body)):
        with pytest.raises(FrameDecodeError, match="is cut short"):
            pull_frame_untrusted(frame_type_of(frame), Buffer(data=body[:length]))


@given(data=st.data(), frame=extension_frames())
def test_mutated_frame_is_read_or_refused(data: st.DataObject, frame: ExtensionFrame) -> None:
    """A changed body gives a frame that can be written again, or the decode error."""
    body = data.draw(mutations(body_of(frame)))
    try:
        read = pull_frame_untrusted(frame_type_of(frame), Buffer(data=body))
    except FrameDecodeError:
        return
    assert pull_frame_untrusted(frame_type_of(read), Buffer(data=body_of(read))) == read


@given(frame_type=st.sampled_from(sorted(EXTENSION_FRAME_TYPES)), body=st.binary(max_size=64))
def test_arbitrary_bytes_are_read_or_refused(frame_type: int, body: bytes) -> None:
    """Only the decode error leaves the reader, whatever the bytes."""
    buf = Buffer(data=body)
    try:
        frame = pull_frame_untrusted(frame_type, buf)
    except FrameDecodeError:
        return
    assert buf.tell() <= len(body)
    assert frame_type_of(frame) in EXTENSION_FRAME_TYPES


@given(frame_type=uint_vars().filter(lambda number: number not in EXTENSION_FRAME_TYPES))
def test_foreign_frame_type_is_refused(frame_type: int) -> None:
    """A type that is not ours is the decode error too, not a lookup error."""
    with pytest.raises(FrameDecodeError, match="is not one of ours"):
        pull_frame_untrusted(frame_type, Buffer(data=bytes(64)))


@pytest.mark.parametrize(
    ("frame", "expected_hex"),
    [
        (ObservedAddress(sequence_number=0, address=ADDRESS_IPV4), "809f81a6 00 cb007107 1151"),
        (ObservedAddress(sequence_number=0, address=ADDRESS_IPV6), "809f81a7 00" + ADDRESS_IPV6_HEX),
        (AddAddress(sequence_number=1, address=ADDRESS_IPV4), "803d7e90 01 cb007107 1151"),
        (AddAddress(sequence_number=64, address=ADDRESS_IPV6), "803d7e91 4040" + ADDRESS_IPV6_HEX),
        (
            PunchMeNow(round=1, paired_with_sequence_number=5, address=ADDRESS_IPV4),
            "803d7e92 01 05 cb007107 1151",
        ),
        (
            PunchMeNow(round=1, paired_with_sequence_number=5, address=ADDRESS_IPV6),
            "803d7e93 01 05" + ADDRESS_IPV6_HEX,
        ),
        (RemoveAddress(sequence_number=5), "803d7e94 05"),
        (
            TryConnectTo(request_id=7, address=ADDRESS_IPV4, timeout_ms=5000),
            "803d7e95 07 cb007107 1151 1388",
        ),
        (
            TryConnectTo(request_id=7, address=ADDRESS_IPV6, timeout_ms=5000),
            "803d7e96 07" + ADDRESS_IPV6_HEX + "1388",
        ),
        (
            TryConnectToResponse(request_id=7, success=False, error=1, address=ADDRESS_IPV4),
            "803d7e97 07 00 01 cb007107 1151",
        ),
        (
            TryConnectToResponse(request_id=7, success=True, error=0, address=ADDRESS_IPV6),
            "803d7e98 07 01 00" + ADDRESS_IPV6_HEX,
        ),
        (
            AckFrequency(
                sequence_number=1,
                ack_eliciting_threshold=10,
                request_max_ack_delay_us=25000,
                reordering_threshold=3,
            ),
            "40af 01 0a 800061a8 03",
        ),
        (ImmediateAck(), "1f"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_frame_has_the_fixed_bytes(frame: ExtensionFrame, expected_hex: str) -> None:
    """Snapshots of each layout; a change here is a change of the protocol."""
    expected = bytes.fromhex(expected_hex)
    assert encode(frame) == expected
    buf = Buffer(data=expected)
    assert pull_frame_untrusted(buf.pull_uint_var(), buf) == frame


def test_every_frame_type_is_read() -> None:
    """The registry of numbers and the table of readers list the same types."""
    assert frozenset(FrameType) == EXTENSION_FRAME_TYPES


@given(host=ipv4_addresses(), port=ports())
def test_mapped_address_is_read_as_ipv4(host: IPv4Address, port: int) -> None:
    """A peer with one socket for both families reports IPv4 addresses in the mapped form."""
    body = encode_uint_var(3) + bytes(10) + b"\xff\xff" + host.packed + port.to_bytes(2, "big")
    frame = pull_frame_untrusted(FrameType.OBSERVED_ADDRESS_IPV6, Buffer(data=body))
    assert frame == ObservedAddress(sequence_number=3, address=SocketAddress(host=host, port=port))


def test_mapped_address_is_sent_as_ipv4() -> None:
    """Type, body and capacity agree on the IPv4 form."""
    mapped = SocketAddress(host=IPv6Address("::ffff:203.0.113.7"), port=4433)
    frame = AddAddress(sequence_number=1, address=mapped)
    assert encode(frame) == bytes.fromhex("803d7e90 01 cb007107 1151")


@pytest.mark.parametrize("success", [2, 255])
def test_response_whose_success_is_no_boolean_is_refused(success: int) -> None:
    """The byte has two values."""
    body = bytes((7, success, 0)) + ADDRESS_IPV4.host.packed + b"\x11\x51"
    with pytest.raises(FrameDecodeError, match=f"success {success}"):
        pull_frame_untrusted(FrameType.TRY_CONNECT_TO_RESPONSE_IPV4, Buffer(data=body))


@pytest.mark.parametrize(
    "frame",
    [
        RemoveAddress(sequence_number=1 << 62),
        TryConnectTo(request_id=0, address=ADDRESS_IPV4, timeout_ms=1 << 16),
        TryConnectTo(request_id=0, address=ADDRESS_IPV4, timeout_ms=-1),
        TryConnectToResponse(request_id=0, success=True, error=256, address=ADDRESS_IPV4),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_number_that_does_not_fit_is_not_written(frame: ExtensionFrame) -> None:
    """Our own mistake is an error here, never a wrapped number on the wire."""
    with pytest.raises(ValueError, match=r"does not fit|too big"):
        push_frame_body(Buffer(capacity=64), frame)
