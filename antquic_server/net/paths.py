"""Where datagrams come from and go to, and what became of those that were sent."""

from typing import NamedTuple

from antquic_server.net.packet_info import reply_control_message
from antquic_server.net.trains import segment_control

__all__ = ["Address", "Ancillary", "Destination", "PathAddress", "SendResult"]

Address = tuple[object, ...]
"""As the socket module has them: host and port, for IPv6 flow information and scope as well."""

Ancillary = list[tuple[int, int, bytes]]
"""Control messages of ``sendmsg``."""


class PathAddress(NamedTuple):
    """
    The network path of a datagram: who sent it, to which of our addresses, on which socket.

    ``host`` is the numeric address without a scope; ``flowinfo`` and ``scope_id`` are those of
    ``sockaddr_in6`` and 0 for IPv4. ``local`` is the control data that makes a reply leave from the address
    the peer wrote to, empty when the socket is bound to one address (``packet_info.local_host`` reads it).
    ``socket_index`` is the number its ``UdpSocket`` was given.
    """

    host: str
    port: int
    flowinfo: int
    scope_id: int
    local: bytes
    socket_index: int

    def __str__(self) -> str:
        """The remote end, ``host:port`` with brackets for IPv6, as logs have it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Destination:
    """
    Where a socket forwards trains to: the remote end of a path, with everything ``sendmsg`` wants made beforehand.

    Of the trains that come one after the other nearly all have datagrams of one size, so the control data for the
    last size is kept.
    """

    __slots__ = ("address", "control", "segment_size", "train_control")

    def __init__(self, address: Address, local: bytes) -> None:
        self.address = address
        self.control: Ancillary = [reply_control_message(local)] if local else []
        self.segment_size = 0
        self.train_control: Ancillary = []

    def control_for(self, segment_size: int) -> Ancillary:
        """Return the control data for a train of datagrams of this size."""
        if self.segment_size != segment_size:
            self.segment_size = segment_size
            self.train_control = [segment_control(segment_size), *self.control]
        return self.train_control


class SendResult(NamedTuple):
    """
    What became of the datagrams given to ``UdpSocket.send``.

    The first ``sent + dropped`` of them are dealt with. If that is fewer than were given, the socket would
    block and the rest (``datagrams[result.handled:]``) is the caller's to queue. ``errno`` belongs to the
    last dropped datagram, 0 if none was.
    """

    sent: int
    dropped: int
    errno: int

    @property
    def handled(self) -> int:
        """Number of leading datagrams that need no further attention."""
        return self.sent + self.dropped
