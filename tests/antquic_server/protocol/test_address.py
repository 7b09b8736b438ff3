"""Addresses: text and wire forms."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from aioquic.buffer import Buffer
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import AddressDecodeError
from antquic_server.protocol.address import (
    SocketAddress,
    address_length,
    pull_address_untrusted,
    push_address,
)
from support.strategies import ipv4_addresses, ports, socket_addresses


def encode(address: SocketAddress) -> bytes:
    """Write an address into a buffer of exactly the declared length."""
    buf = Buffer(capacity=address_length(address))
    push_address(buf, address)
    assert buf.eof()
    return buf.data


@given(address=socket_addresses(), trailing=st.binary(max_size=8))
def test_wire_form_survives_a_round_trip(address: SocketAddress, trailing: bytes) -> None:
    """What was pushed is pulled, and bytes that follow stay unread."""
    buf = Buffer(data=encode(address) + trailing)
    assert pull_address_untrusted(buf, ipv6=not address.is_ipv4) == address
    assert buf.data_slice(buf.tell(), buf.capacity) == trailing


@given(address=socket_addresses())
def test_cut_wire_form_is_refused(address: SocketAddress) -> None:
    """Every shorter prefix raises the decode error and nothing else."""
    data = encode(address)
    for length in range(len(data)):
        with pytest.raises(AddressDecodeError):
            pull_address_untrusted(Buffer(data=data[:length]), ipv6=not address.is_ipv4)


def test_wire_form_is_address_then_port() -> None:
    """Fixed bytes: network byte order throughout."""
    assert encode(SocketAddress.parse("203.0.113.7:4433")).hex() == "cb0071071151"
    expected = "20010db8000000000000000000000001 01bb"
    assert encode(SocketAddress.parse("[2001:db8::1]:443")) == bytes.fromhex(expected)


@given(address=socket_addresses())
def test_text_form_survives_a_round_trip(address: SocketAddress) -> None:
    """What str writes, parse reads."""
    assert SocketAddress.parse(str(address)) == address


@given(text=st.text(max_size=40) | st.from_regex(r"[\[\]0-9a-f:.%]{0,30}", fullmatch=True))
def test_arbitrary_text_is_parsed_or_refused(text: str) -> None:
    """Only the decode error leaves parse, whatever the text."""
    try:
        address = SocketAddress.parse(text)
    except AddressDecodeError:
        return
    assert SocketAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "198.18.0.5",
        "198.18.0.5:",
        "198.18.0.5:65536",
        "198.18.0.5:-1",
        "198.18.0.5:+1",
        "198.18.0.5:٣",
        "198.18.0.5:000080",
        "198.18.0:80",
        "198.18.0.256:80",
        "198.18.0.05:80",
        "localhost:80",
        "::1:80",
        "[::1]",
        "[::1:80",
        "::1]:80",
        "[198.18.0.5]:80",
        "[fe80::1%eth0]:80",
        " 198.18.0.5:80",
        "198.18.0.5:80\n",
    ],
)
def test_malformed_text_is_refused_in_one_line(text: str) -> None:
    """The error is a line for a person, with the text in it."""
    with pytest.raises(AddressDecodeError) as caught:
        SocketAddress.parse(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ends_of_the_port_range_parse() -> None:
    """Port 0 asks the kernel to choose, so it is legal here."""
    assert SocketAddress.parse("0.0.0.0:0").port == 0
    assert SocketAddress.parse("[::]:65535") == SocketAddress(host=IPv6Address("::"), port=65535)


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_out_of_range_cannot_be_constructed(port: int) -> None:
    """A value that exists can be written."""
    with pytest.raises(ValueError, match="port is"):
        SocketAddress(host=IPv4Address(0), port=port)
    with pytest.raises(AddressDecodeError, match="port is"):
        SocketAddress.from_host("0.0.0.0", port)


def test_host_text_of_the_operating_system_is_read() -> None:
    """Zones, which only this host understands, are dropped."""
    assert str(SocketAddress.from_host("198.18.0.5", 80)) == "198.18.0.5:80"
    assert str(SocketAddress.from_host("fe80::1%eth0", 80)) == "[fe80::1]:80"
    with pytest.raises(AddressDecodeError, match="'localhost' is not an IP address"):
        SocketAddress.from_host("localhost", 80)


@given(host=ipv4_addresses(), port=ports())
def test_mapped_address_is_normalised_to_ipv4(host: IPv4Address, port: int) -> None:
    """The same endpoint has one normal form, whatever socket saw it."""
    mapped = SocketAddress(host=IPv6Address(b"\x00" * 10 + b"\xff\xff" + host.packed), port=port)
    assert not mapped.is_ipv4
    assert mapped.normalised() == SocketAddress(host=host, port=port)


@given(address=socket_addresses())
def test_other_addresses_are_left_as_they_are(address: SocketAddress) -> None:
    """Normalising is for mapped addresses only."""
    assert address.normalised() is address


@given(data=st.binary(max_size=24), ipv6=st.booleans())
def test_arbitrary_bytes_are_read_or_refused(data: bytes, ipv6: bool) -> None:
    """Only the decode error leaves the reader, whatever the bytes."""
    buf = Buffer(data=data)
    try:
        address = pull_address_untrusted(buf, ipv6=ipv6)
    except AddressDecodeError:
        return
    assert encode(address) == data[: buf.tell()]
