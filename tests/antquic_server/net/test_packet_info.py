"""Which of our addresses a datagram was sent to."""

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest

from antquic_server.net import packet_info
from antquic_server.net.packet_info import (
    local_host,
    reply_control,
    reply_control_message,
    request_packet_info,
)

INTERFACE = (7).to_bytes(4, "little")


def test_ipv4_reply_leaves_from_the_local_address_without_an_interface() -> None:
    """Of the three fields only the local one is kept: the header's may be a broadcast address."""
    received = INTERFACE + IPv4Address("192.0.2.1").packed + IPv4Address("192.0.2.255").packed

    control = reply_control(received)

    assert control == bytes(4) + IPv4Address("192.0.2.1").packed + bytes(4)
    assert local_host(control) == "192.0.2.1"
    assert reply_control_message(control) == (socket.IPPROTO_IP, 8, control)


@pytest.mark.parametrize(
    ("address", "interface"),
    [("2001:db8::1", bytes(4)), ("fe80::1", INTERFACE), ("febf::1", INTERFACE), ("fec0::1", bytes(4))],
)
def test_ipv6_reply_names_the_interface_for_link_local_addresses_only(address: str, interface: bytes) -> None:
    """A link-local address (fe80::/10) means nothing without its interface; others are routed freely."""
    control = reply_control(IPv6Address(address).packed + INTERFACE)

    assert control == IPv6Address(address).packed + interface
    assert local_host(control) == address
    assert reply_control_message(control)[0] == socket.IPPROTO_IPV6


@pytest.mark.parametrize("received", [b"", bytes(8), IPv6Address("ff02::1").packed + INTERFACE])
def test_reply_address_is_left_to_the_kernel_where_none_was_ours(received: bytes) -> None:
    """Nothing known or an IPv6 multicast group: no source address is demanded."""
    assert reply_control(received) == b""
    assert local_host(b"") == ""


def test_nothing_is_asked_of_a_system_that_is_not_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the option numbers may mean something else."""
    monkeypatch.setattr(packet_info, "_LINUX", False)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request_packet_info(sock)
        assert sock.getsockopt(socket.IPPROTO_IP, 8) == 0
