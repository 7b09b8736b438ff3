"""Hypothesis strategies for the values that travel on the wire."""

from collections.abc import Callable
from hashlib import shake_128
from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import (
    CoordinationAccepted,
    CoordinationMessage,
    CoordinationRejected,
    CoordinationRequest,
    Envelope,
    RejectionReason,
)
from antquic_server.protocol.frames import (
    AckFrequency,
    AddAddress,
    ExtensionFrame,
    ImmediateAck,
    ObservedAddress,
    PunchMeNow,
    RemoveAddress,
    TryConnectTo,
    TryConnectToResponse,
)
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.steering import MAX_WORKER_COUNT

UINT_VAR_BORDERS = (0, 0x3F, 0x40, 0x3FFF, 0x4000, 0x3FFFFFFF, 0x40000000, (1 << 62) - 1)


def uint_vars() -> st.SearchStrategy[int]:
    """Numbers that fit a QUIC varint, with the borders between its four lengths."""
    return st.sampled_from(UINT_VAR_BORDERS) | st.integers(0, (1 << 62) - 1)


def ports() -> st.SearchStrategy[int]:
    """UDP ports, 0 included: what it means is not a codec's business."""
    return st.integers(0, 0xFFFF)


def ipv4_addresses() -> st.SearchStrategy[IPv4Address]:
    """Any IPv4 address."""
    return st.integers(0, (1 << 32) - 1).map(IPv4Address)


def ipv6_addresses() -> st.SearchStrategy[IPv6Address]:
    """Any IPv6 address that is not IPv4-mapped."""
    return st.integers(0, (1 << 128) - 1).map(IPv6Address).filter(lambda host: host.ipv4_mapped is None)


def socket_addresses() -> st.SearchStrategy[SocketAddress]:
    """Addresses in their normal form: never IPv4-mapped."""
    return st.builds(SocketAddress, host=ipv4_addresses() | ipv6_addresses(), port=ports())


def extension_frames() -> st.SearchStrategy[ExtensionFrame]:
    """Every kind of extension frame."""
    numbers, addresses = uint_vars(), socket_addresses()
    return st.one_of(
        st.builds(ObservedAddress, sequence_number=numbers, address=addresses),
        st.builds(AddAddress, sequence_number=numbers, address=addresses),
        st.builds(PunchMeNow, round=numbers, paired_with_sequence_number=numbers, address=addresses),
        st.builds(RemoveAddress, sequence_number=numbers),
        st.builds(TryConnectTo, request_id=numbers, address=addresses, timeout_ms=st.integers(0, 0xFFFF)),
        st.builds(
            TryConnectToResponse,
            request_id=numbers,
            success=st.booleans(),
            error=st.integers(0, 255),
            address=addresses,
        ),
        st.builds(
            AckFrequency,
            sequence_number=numbers,
            ack_eliciting_threshold=numbers,
            request_max_ack_delay_us=numbers,
            reordering_threshold=numbers,
        ),
        st.just(ImmediateAck()),
    )


def extension_parameters() -> st.SearchStrategy[ExtensionParameters]:
    """Every set of extension parameters that may be sent."""
    nat_traversal = st.one_of(
        st.just((None, False)),
        st.just((None, True)),
        st.integers(1, 100).map(lambda limit: (limit, False)),
    )
    return st.builds(
        lambda nat, rfc, discovery, pqc, ack, channels: ExtensionParameters(
            nat_traversal=nat[0],
            nat_traversal_client_form=nat[1],
            rfc_nat_traversal=rfc,
            address_discovery=discovery,
            pqc_algorithms=pqc,
            ack_receive_v2=ack,
            relay_channels=channels,
        ),
        nat_traversal,
        st.booleans(),
        st.none() | st.integers(0, 2),
        st.none() | st.integers(0, 255),
        st.booleans(),
        st.booleans(),
    )


def connection_ids(min_size: int = 0) -> st.SearchStrategy[bytes]:
    """Connection IDs of QUIC version 1."""
    return st.binary(min_size=min_size, max_size=20)


def worker_counts() -> st.SearchStrategy[int]:
    """Numbers of workers a node can have."""
    return st.integers(1, MAX_WORKER_COUNT)


def random_sources() -> st.SearchStrategy[Callable[[int], bytes]]:
    """Sources of random bytes that repeat with the example."""
    return st.binary(min_size=8, max_size=8).map(random_source)


def random_source(seed: bytes) -> Callable[[int], bytes]:
    """Make a source whose bytes follow from a seed, new ones with each call."""
    calls = 0

    def random_bytes(length: int) -> bytes:
        nonlocal calls
        calls += 1
        return shake_128(seed + calls.to_bytes(8, "big")).digest(length)

    return random_bytes


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """Change bytes, cut out a piece or put one in, up to four times."""
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(data)))
        rest = data[position:]
        match draw(st.sampled_from(("change", "remove", "insert"))):
            case "change" if rest:
                data = data[:position] + bytes((rest[0] ^ draw(st.integers(1, 255)),)) + rest[1:]
            case "remove":
                data = data[:position] + rest[draw(st.integers(1, 8)) :]
            case _:
                data = data[:position] + draw(st.binary(min_size=1, max_size=8)) + rest
    return data


def peer_ids() -> st.SearchStrategy[bytes]:
    """Any 32 bytes."""
    return st.binary(min_size=32, max_size=32)


def coordination_envelopes() -> st.SearchStrategy[Envelope]:
    """Every kind of coordination message that is read."""
    addresses = st.lists(socket_addresses(), max_size=5).map(tuple)
    rounds = st.integers(0, (1 << 32) - 1)
    messages: st.SearchStrategy[CoordinationMessage] = st.one_of(
        st.builds(
            CoordinationRequest, initiator=peer_ids(), target=peer_ids(), round=rounds, initiator_addrs=addresses
        ),
        st.builds(
            CoordinationAccepted,
            initiator=peer_ids(),
            target=peer_ids(),
            round=rounds,
            initiator_addrs=addresses,
            target_addrs=addresses,
        ),
        st.builds(
            CoordinationRejected,
            initiator=peer_ids(),
            target=peer_ids(),
            round=rounds,
            reason=st.sampled_from(RejectionReason),
        ),
    )
    numbers = st.integers(0, (1 << 64) - 1)
    return st.builds(Envelope, request_id=numbers, expires_at_unix_ms=numbers, message=messages)
