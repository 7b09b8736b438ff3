"""Values that sockets take and return."""

import socket

from antquic_server.net.paths import Destination, SendResult


def test_what_was_sent_or_dropped_is_handled() -> None:
    """The rest is the caller's."""
    assert SendResult(3, 2, 90).handled == 5


def test_destination_leaves_from_the_address_that_was_written_to() -> None:
    """With control data made once; a socket bound to one address needs none."""
    local = bytes(4) + socket.inet_aton("192.0.2.1") + bytes(4)

    assert Destination(("192.0.2.2", 1), local).control == [(socket.IPPROTO_IP, 8, local)]
    assert Destination(("192.0.2.2", 1), b"").control == []
