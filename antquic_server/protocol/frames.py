"""
The extension frames: their values, and their bytes.

Layouts after the frame type; numbers are varints (RFC 9000, section 16) unless a width in bits is given, an
address is 32 or 128 bits, as the frame type says, with a port of 16 bits::

    OBSERVED_ADDRESS          sequence number, address        draft-ietf-quic-address-discovery
    ADD_ADDRESS               sequence number, address        draft-seemann-quic-nat-traversal
    PUNCH_ME_NOW              round, paired with sequence number, address        (same)
    REMOVE_ADDRESS            sequence number        (same)
    TRY_CONNECT_TO            request id, address, timeout in ms (16)        ant-quic
    TRY_CONNECT_TO_RESPONSE   request id, success (8), error (8), address        ant-quic
    ACK_FREQUENCY             sequence number, ack-eliciting threshold, requested max ack delay in µs,
                              reordering threshold        draft-ietf-quic-ack-frequency
    IMMEDIATE_ACK             nothing        draft-ietf-quic-ack-frequency

ant-quic has older layouts of ADD_ADDRESS and PUNCH_ME_NOW for peers that do not declare
``rfc_nat_traversal``. A node that always declares it neither gets nor sends them, and the bytes do not tell
the two apart, so they are not read here.

IPv4-mapped IPv6 addresses stop at this module: those read become IPv4, those written go out with the IPv4
type.
"""

from collections.abc import Callable
from dataclasses import dataclass

from aioquic.buffer import Buffer, BufferReadError, size_uint_var

from antquic_server.errors import AddressDecodeError, FrameDecodeError
from antquic_server.protocol.address import (
    SocketAddress,
    address_length,
    pull_address_untrusted,
    push_address,
)
from antquic_server.protocol.codepoints import FrameType

__all__ = [
    "EXTENSION_FRAME_TYPES",
    "AckFrequency",
    "AddAddress",
    "ExtensionFrame",
    "ImmediateAck",
    "ObservedAddress",
    "PunchMeNow",
    "RemoveAddress",
    "TryConnectTo",
    "TryConnectToResponse",
    "frame_capacity",
    "frame_type_of",
    "pull_frame_untrusted",
    "push_frame_body",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedAddress:
    """OBSERVED_ADDRESS: the sender sees the receiver at ``address``; a higher sequence number is newer."""

    sequence_number: int
    address: SocketAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAddress:
    """ADD_ADDRESS: the sender can also be reached, perhaps, at ``address``."""

    sequence_number: int
    address: SocketAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class PunchMeNow:
    """PUNCH_ME_NOW: asks for a probe to ``address``, in pair with an address the receiver advertised."""

    round: int
    paired_with_sequence_number: int
    address: SocketAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAddress:
    """REMOVE_ADDRESS: takes back the ADD_ADDRESS of that sequence number."""

    sequence_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TryConnectTo:
    """TRY_CONNECT_TO: asks the receiver to dial ``address`` within ``timeout_ms`` (0 to 65535)."""

    request_id: int
    address: SocketAddress
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TryConnectToResponse:
    """TRY_CONNECT_TO_RESPONSE: how it went; ``error`` is a ``TryConnectToError`` or an unknown byte."""

    request_id: int
    success: bool
    error: int
    address: SocketAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class AckFrequency:
    """ACK_FREQUENCY: how often the receiver of this frame should acknowledge."""

    sequence_number: int
    ack_eliciting_threshold: int
    request_max_ack_delay_us: int
    reordering_threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImmediateAck:
    """IMMEDIATE_ACK: asks for an acknowledgement at once."""


ExtensionFrame = (
    ObservedAddress
    | AddAddress
    | PunchMeNow
    | RemoveAddress
    | TryConnectTo
    | TryConnectToResponse
    | AckFrequency
    | ImmediateAck
)


def pull_frame_untrusted(frame_type: int, buf: Buffer) -> ExtensionFrame:
    """
    Read the body of one extension frame; the frame type is already consumed.

    ``frame_type`` must be one of ``EXTENSION_FRAME_TYPES``. The buffer is left behind the frame. Sequence
    numbers, rounds and addresses are not judged here, port 0 and private ones included: what they mean
    depends on the use. Raises ``FrameDecodeError``, to be answered with FRAME_ENCODING_ERROR (RFC 9000,
    section 12.4).
    """
    puller = _PULLERS.get(frame_type)
    if puller is None:
        raise FrameDecodeError(f"frame type {frame_type:#x} is not one of ours")
    pull, ipv6 = puller
    try:
        return pull(buf, ipv6)
    except (BufferReadError, AddressDecodeError):
        raise FrameDecodeError(f"{FrameType(frame_type).name} is cut short") from None


def frame_type_of(frame: ExtensionFrame) -> int:
    """Tell the frame type a frame is sent with."""
    if isinstance(frame, (RemoveAddress, AckFrequency, ImmediateAck)):
        return _PLAIN_TYPES[type(frame)]
    ipv4_type, ipv6_type = _ADDRESS_TYPES[type(frame)]
    return ipv4_type if frame.address.normalised().is_ipv4 else ipv6_type


def push_frame_body(buf: Buffer, frame: ExtensionFrame) -> None:
    """
    Write everything after the frame type.

    Raises ``ValueError`` when a number does not fit its field or the buffer is too small.
    """
    for number in _leading_varints(frame):
        buf.push_uint_var(number)
    if isinstance(frame, TryConnectToResponse):
        buf.push_uint8(1 if frame.success else 0)
        buf.push_uint8(_require_fits(frame.error, 8))
    if not isinstance(frame, (RemoveAddress, AckFrequency, ImmediateAck)):
        push_address(buf, frame.address.normalised())
    if isinstance(frame, TryConnectTo):
        buf.push_uint16(_require_fits(frame.timeout_ms, 16))


def frame_capacity(frame: ExtensionFrame) -> int:
    """Tell how many bytes a frame takes in a packet, its type included; exact, not an estimate."""
    capacity = size_uint_var(frame_type_of(frame))
    for number in _leading_varints(frame):
        capacity += size_uint_var(number)
    if not isinstance(frame, (RemoveAddress, AckFrequency, ImmediateAck)):
        capacity += address_length(frame.address.normalised())
    if isinstance(frame, (TryConnectTo, TryConnectToResponse)):
        capacity += 2
    return capacity


def _pull_observed_address_untrusted(buf: Buffer, ipv6: bool) -> ObservedAddress:
    return ObservedAddress(sequence_number=buf.pull_uint_var(), address=_pull_normalised_untrusted(buf, ipv6))


def _pull_add_address_untrusted(buf: Buffer, ipv6: bool) -> AddAddress:
    return AddAddress(sequence_number=buf.pull_uint_var(), address=_pull_normalised_untrusted(buf, ipv6))


def _pull_punch_me_now_untrusted(buf: Buffer, ipv6: bool) -> PunchMeNow:
    return PunchMeNow(
        round=buf.pull_uint_var(),
        paired_with_sequence_number=buf.pull_uint_var(),
        address=_pull_normalised_untrusted(buf, ipv6),
    )


def _pull_remove_address_untrusted(buf: Buffer, _ipv6: bool) -> RemoveAddress:
    return RemoveAddress(sequence_number=buf.pull_uint_var())


def _pull_try_connect_to_untrusted(buf: Buffer, ipv6: bool) -> TryConnectTo:
    return TryConnectTo(
        request_id=buf.pull_uint_var(),
        address=_pull_normalised_untrusted(buf, ipv6),
        timeout_ms=buf.pull_uint16(),
    )


def _pull_try_connect_to_response_untrusted(buf: Buffer, ipv6: bool) -> TryConnectToResponse:
    request_id = buf.pull_uint_var()
    success = buf.pull_uint8()
    if success > 1:
        raise FrameDecodeError(f"TRY_CONNECT_TO_RESPONSE has success {success}, expected 0 or 1")
    return TryConnectToResponse(
        request_id=request_id,
        success=success == 1,
        error=buf.pull_uint8(),
        address=_pull_normalised_untrusted(buf, ipv6),
    )


def _pull_ack_frequency_untrusted(buf: Buffer, _ipv6: bool) -> AckFrequency:
    return AckFrequency(
        sequence_number=buf.pull_uint_var(),
        ack_eliciting_threshold=buf.pull_uint_var(),
        request_max_ack_delay_us=buf.pull_uint_var(),
        reordering_threshold=buf.pull_uint_var(),
    )


def _pull_immediate_ack_untrusted(_buf: Buffer, _ipv6: bool) -> ImmediateAck:
    return ImmediateAck()


def _pull_normalised_untrusted(buf: Buffer, ipv6: bool) -> SocketAddress:
    return pull_address_untrusted(buf, ipv6=ipv6).normalised()


def _leading_varints(frame: ExtensionFrame) -> tuple[int, ...]:
    match frame:
        case ObservedAddress() | AddAddress() | RemoveAddress():
            return (frame.sequence_number,)
        case PunchMeNow():
            return (frame.round, frame.paired_with_sequence_number)
        case TryConnectTo() | TryConnectToResponse():
            return (frame.request_id,)
        case AckFrequency():
            return (
                frame.sequence_number,
                frame.ack_eliciting_threshold,
                frame.request_max_ack_delay_us,
                frame.reordering_threshold,
            )
        case ImmediateAck():
            return ()


def _require_fits(number: int, bits: int) -> int:
    # The buffer would wrap a number that is too large instead of refusing it.
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{number} does not fit into {bits} bits")
    return number


_PLAIN_TYPES: dict[type, int] = {
    RemoveAddress: FrameType.REMOVE_ADDRESS,
    AckFrequency: FrameType.ACK_FREQUENCY,
    ImmediateAck: FrameType.IMMEDIATE_ACK,
}

_ADDRESS_TYPES: dict[type, tuple[int, int]] = {
    ObservedAddress: (FrameType.OBSERVED_ADDRESS_IPV4, FrameType.OBSERVED_ADDRESS_IPV6),
    AddAddress: (FrameType.ADD_ADDRESS_IPV4, FrameType.ADD_ADDRESS_IPV6),
    PunchMeNow: (FrameType.PUNCH_ME_NOW_IPV4, FrameType.PUNCH_ME_NOW_IPV6),
    TryConnectTo: (FrameType.TRY_CONNECT_TO_IPV4, FrameType.TRY_CONNECT_TO_IPV6),
    TryConnectToResponse: (FrameType.TRY_CONNECT_TO_RESPONSE_IPV4, FrameType.TRY_CONNECT_TO_RESPONSE_IPV6),
}

_PULLERS: dict[int, tuple[Callable[[Buffer, bool], ExtensionFrame], bool]] = {
    FrameType.OBSERVED_ADDRESS_IPV4: (_pull_observed_address_untrusted, False),
    FrameType.OBSERVED_ADDRESS_IPV6: (_pull_observed_address_untrusted, True),
    FrameType.ADD_ADDRESS_IPV4: (_pull_add_address_untrusted, False),
    FrameType.ADD_ADDRESS_IPV6: (_pull_add_address_untrusted, True),
    FrameType.PUNCH_ME_NOW_IPV4: (_pull_punch_me_now_untrusted, False),
    FrameType.PUNCH_ME_NOW_IPV6: (_pull_punch_me_now_untrusted, True),
    FrameType.REMOVE_ADDRESS: (_pull_remove_address_untrusted, False),
    FrameType.TRY_CONNECT_TO_IPV4: (_pull_try_connect_to_untrusted, False),
    FrameType.TRY_CONNECT_TO_IPV6: (_pull_try_connect_to_untrusted, True),
    FrameType.TRY_CONNECT_TO_RESPONSE_IPV4: (_pull_try_connect_to_response_untrusted, False),
    FrameType.TRY_CONNECT_TO_RESPONSE_IPV6: (_pull_try_connect_to_response_untrusted, True),
    FrameType.ACK_FREQUENCY: (_pull_ack_frequency_untrusted, False),
    FrameType.IMMEDIATE_ACK: (_pull_immediate_ack_untrusted, False),
}

EXTENSION_FRAME_TYPES: frozenset[int] = frozenset(_PULLERS)
"""Every frame type ``pull_frame_untrusted`` reads."""
