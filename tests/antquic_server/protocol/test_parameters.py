"""Extension transport parameters: codec and negotiation."""

from dataclasses import replace

import pytest
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.quic.packet import QuicTransportParameters, push_quic_transport_parameters
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import TransportParameterDecodeError
from antquic_server.protocol.codepoints import TransportParameterId
from antquic_server.protocol.parameters import (
    ExtensionParameters,
    nat_traversal_negotiated,
    pull_extension_parameters_untrusted,
    push_extension_parameters,
    receives_observed_address,
    sends_observed_address,
)
from support.strategies import extension_parameters, mutations, uint_vars

OURS = ExtensionParameters(nat_traversal=10, rfc_nat_traversal=True, address_discovery=2)
OURS_HEX = "fd7e9f0bca12fea6 01 0a  fd7e9f0bca12fea8 00  c00000009f81a176 01 02"
PEERS_HEX = "fd7e9f0bca12fea6 01 03  fd7e9f0bca12fea8 00  c00000009f81a176 01 02  800050c0 01 01  800050c2 00"


def parameter(parameter_id: int, value: bytes) -> bytes:
    """Write one entry of a transport parameter list."""
    return encode_uint_var(parameter_id) + encode_uint_var(len(value)) + value


def standard_parameters() -> bytes:
    """Write a list of standard parameters as the QUIC stack does."""
    buf = Buffer(capacity=256)
    push_quic_transport_parameters(
        buf,
        QuicTransportParameters(
            max_idle_timeout=30000, initial_max_data=1 << 20, initial_source_connection_id=bytes(10)
        ),
    )
    return buf.data


@given(params=extension_parameters())
def test_parameters_survive_a_round_trip(params: ExtensionParameters) -> None:
    """What was pushed is pulled, alone and among standard parameters."""
    data = push_extension_parameters(params)
    assert pull_extension_parameters_untrusted(data) == params
    assert pull_extension_parameters_untrusted(standard_parameters() + data) == params
    assert pull_extension_parameters_untrusted(data + standard_parameters()) == params


def test_our_parameters_have_the_fixed_bytes() -> None:
    """A change here is a change of the protocol."""
    assert push_extension_parameters(OURS) == bytes.fromhex(OURS_HEX)


def test_relay_channels_are_declared_in_eight_bytes_and_a_zero() -> None:
    """Under a number of ours, after everything that ant-quic knows."""
    data = push_extension_parameters(replace(OURS, relay_channels=True))
    assert data == bytes.fromhex(OURS_HEX + "fd7e9f0bca12fec0 00")
    assert pull_extension_parameters_untrusted(data).relay_channels
    assert not pull_extension_parameters_untrusted(bytes.fromhex(PEERS_HEX)).relay_channels


def test_parameters_of_a_real_peer_are_read() -> None:
    """The set of ant-quic, with a reserved parameter in between (RFC 9000, section 18.1)."""
    data = bytes.fromhex(PEERS_HEX) + parameter(31 * 5 + 27, b"grease")
    assert pull_extension_parameters_untrusted(data) == ExtensionParameters(
        nat_traversal=3, rfc_nat_traversal=True, address_discovery=2, pqc_algorithms=1, ack_receive_v2=True
    )


def test_empty_nat_traversal_is_the_client_form() -> None:
    """Empty and absent are different statements."""
    client_form = ExtensionParameters(nat_traversal_client_form=True)
    data = bytes.fromhex("fd7e9f0bca12fea6 00")
    assert push_extension_parameters(client_form) == data
    assert pull_extension_parameters_untrusted(data) == client_form
    assert pull_extension_parameters_untrusted(b"") == ExtensionParameters()


@given(params=extension_parameters())
def test_cut_parameters_are_refused_or_shorter(params: ExtensionParameters) -> None:
    """A prefix parses only where it ends between two parameters."""
    data = push_extension_parameters(params)
    whole = 0
    for length in range(len(data)):
        try:
            pull_extension_parameters_untrusted(data[:length])
        except TransportParameterDecodeError:
            continue
        whole += 1
    present = (
        params.nat_traversal is not None or params.nat_traversal_client_form,
        params.rfc_nat_traversal,
        params.address_discovery is not None,
        params.pqc_algorithms is not None,
        params.ack_receive_v2,
        params.relay_channels,
    )
    assert whole == sum(present)


@given(data=st.data(), params=extension_parameters())
def test_mutated_parameters_are_read_or_refused(data: st.DataObject, params: ExtensionParameters) -> None:
    """A changed list gives parameters that can be written again, or the decode error."""
    mutated = data.draw(mutations(push_extension_parameters(params)))
    try:
        read = pull_extension_parameters_untrusted(mutated)
    except TransportParameterDecodeError:
        return
    assert pull_extension_parameters_untrusted(push_extension_parameters(read)) == read


@given(data=st.binary(max_size=64))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    """Only the decode error leaves the reader, whatever the bytes."""
    try:
        read = pull_extension_parameters_untrusted(data)
    except TransportParameterDecodeError:
        return
    assert isinstance(read, ExtensionParameters)


@given(parameter_id=uint_vars(), first=st.binary(max_size=2), second=st.binary(max_size=2))
def test_any_parameter_that_comes_twice_is_refused(parameter_id: int, first: bytes, second: bytes) -> None:
    """RFC 9000, section 7.4, whether the id is known or not."""
    data = parameter(parameter_id, first) + parameter(parameter_id, second)
    with pytest.raises(TransportParameterDecodeError, match="comes twice"):
        pull_extension_parameters_untrusted(data)


def test_long_form_of_an_id_is_the_same_id() -> None:
    """A varint may be longer than needed; the second copy must not slip through."""
    data = bytes.fromhex("800050c2 00 c0000000000050c2 00")
    with pytest.raises(TransportParameterDecodeError, match="0x50c2 comes twice"):
        pull_extension_parameters_untrusted(data)


@pytest.mark.parametrize(
    ("parameter_id", "value_hex", "complaint"),
    [
        (TransportParameterId.NAT_TRAVERSAL, "00", "nat_traversal is 0"),
        (TransportParameterId.NAT_TRAVERSAL, "4065", "nat_traversal is 101"),
        (TransportParameterId.NAT_TRAVERSAL, "40", "nat_traversal is cut short"),
        (TransportParameterId.NAT_TRAVERSAL, "0a00", "nat_traversal has bytes after"),
        (TransportParameterId.RFC_NAT_TRAVERSAL, "00", "rfc_nat_traversal has a value"),
        (TransportParameterId.ADDRESS_DISCOVERY, "03", "address_discovery is 3"),
        (TransportParameterId.ADDRESS_DISCOVERY, "", "address_discovery is cut short"),
        (TransportParameterId.ADDRESS_DISCOVERY, "0200", "address_discovery has bytes after"),
        (TransportParameterId.PQC_ALGORITHMS, "", "pqc_algorithms has 0 bytes"),
        (TransportParameterId.PQC_ALGORITHMS, "0101", "pqc_algorithms has 2 bytes"),
        (TransportParameterId.ACK_RECEIVE_V2, "01", "ack_receive_v2 has a value"),
        (TransportParameterId.RELAY_CHANNELS, "01", "relay_channels has a value"),
    ],
)
def test_malformed_value_is_refused(parameter_id: TransportParameterId, value_hex: str, complaint: str) -> None:
    """Each rule a real peer applies to us, applied to it."""
    with pytest.raises(TransportParameterDecodeError, match=complaint):
        pull_extension_parameters_untrusted(parameter(parameter_id, bytes.fromhex(value_hex)))


def test_a_server_may_declare_any_limit() -> None:
    """The ceiling protects servers; a client takes the minimum of both anyway."""
    data = parameter(TransportParameterId.NAT_TRAVERSAL, encode_uint_var(101))
    assert pull_extension_parameters_untrusted(data, from_server=True).nat_traversal == 101
    zero = parameter(TransportParameterId.NAT_TRAVERSAL, encode_uint_var(0))
    with pytest.raises(TransportParameterDecodeError):
        pull_extension_parameters_untrusted(zero, from_server=True)


@pytest.mark.parametrize(
    "params",
    [
        ExtensionParameters(nat_traversal=0),
        ExtensionParameters(nat_traversal=101),
        ExtensionParameters(nat_traversal=1, nat_traversal_client_form=True),
        ExtensionParameters(address_discovery=3),
        ExtensionParameters(pqc_algorithms=256),
    ],
    ids=str,
)
def test_parameters_a_peer_must_refuse_are_not_written(params: ExtensionParameters) -> None:
    """Our own mistake is found here, not by the first real peer."""
    with pytest.raises(ValueError, match=r"nat_traversal|address_discovery|range\(0, 256\)"):
        push_extension_parameters(params)


@pytest.mark.parametrize(
    ("local", "remote", "sends"),
    [
        (0, 0, False),
        (0, 1, True),
        (0, 2, True),
        (0, None, False),
        (1, 0, False),
        (1, 1, False),
        (1, 2, False),
        (1, None, False),
        (2, 0, False),
        (2, 1, True),
        (2, 2, True),
        (2, None, False),
        (None, 0, False),
        (None, 1, False),
        (None, 2, False),
        (None, None, False),
    ],
)
def test_observed_address_flows_from_sender_to_receiver(local: int | None, remote: int | None, sends: bool) -> None:
    """We send iff we can and they want it; they send by the same rule, seen from there."""
    ours = ExtensionParameters(address_discovery=local)
    theirs = ExtensionParameters(address_discovery=remote)
    assert sends_observed_address(ours, theirs) is sends
    assert receives_observed_address(theirs, ours) is sends


@pytest.mark.parametrize(
    ("local", "remote", "negotiated"),
    [
        ("limit", "limit", True),
        ("limit", "client", True),
        ("client", "limit", True),
        ("client", "client", False),
        ("limit", "absent", False),
        ("absent", "limit", False),
        ("client", "absent", False),
        ("absent", "client", False),
        ("absent", "absent", False),
    ],
)
def test_nat_traversal_needs_both_sides_and_one_limit(local: str, remote: str, negotiated: bool) -> None:
    """Two pure clients have nobody to coordinate them."""
    forms = {
        "limit": ExtensionParameters(nat_traversal=3),
        "client": ExtensionParameters(nat_traversal_client_form=True),
        "absent": ExtensionParameters(rfc_nat_traversal=True),
    }
    assert nat_traversal_negotiated(forms[local], forms[remote]) is negotiated
