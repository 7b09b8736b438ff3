"""Values about paths; ``test_udp`` has what sockets make of them."""

import socket

from antquic_server.net.paths import Destination, SendResult


def test_destination_is_ready_for_single_datagrams() -> None:
    """They leave from the address the peer knows, if there is more than one; trains are prepared for when one comes."""
    assert Destination(("192.0.2.1", 7), b"").control == []
    destination = Destination(("192.0.2.1", 7), bytes(12))
    assert [(level, data) for level, _, data in destination.control] == [(socket.IPPROTO_IP, bytes(12))]
    assert (destination.segment_size, destination.train_control) == (0, [])


def test_what_is_not_handled_is_the_callers() -> None:
    """Sent or dropped is handled."""
    assert SendResult(3, 2, 90).handled == 5
    assert SendResult(0, 0, 0).handled == 0
