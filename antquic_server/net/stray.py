"""
The channel on which a slot passes on datagrams that belong to another.

Steering reads the connection ID of the first datagram of a GRO train only, and some systems have no steering
at all. A datagram that surfaces in the wrong slot is sent, with its path, through a Unix datagram socket to
the slot that owns its connection.

One socket pair per slot: the slot reads one end, all others write to the other. The kernel's short queue
limit for Unix datagrams (``net.unix.max_dgram_qlen``, often 10) does not apply to the two ends of a pair;
``SO_SNDBUF`` bounds them.

Layout of one datagram, integers big-endian::

    offset  bytes
    0       1      address length: 4 or 16
    1       1      length of ``local``
    2       2      socket index
    4       2      port
    6       4      flow information
    10      4      scope ID
    14      4/16   address
    …       0-20   ``local``
    …       rest   the datagram
"""

import socket
import struct
from typing import Final, NamedTuple

from antquic_server.errors import MessageDecodeError
from antquic_server.net.udp import PathAddress

__all__ = [
    "StrayPair",
    "StrayReceiver",
    "decode_stray_untrusted",
    "encode_stray",
    "make_stray_pairs",
    "send_stray",
]

_HEADER: Final = struct.Struct("!BBHHII")
_LOCAL_LENGTHS: Final = frozenset((0, 12, 20))

STRAY_BUFFER_BYTES: Final = 4 << 20
"""Asked of the kernel for each sending end: about 1,800 full-size datagrams with their bookkeeping."""

MAX_STRAY_BYTES: Final = (1 << 16) + _HEADER.size + 16 + 20


class StrayPair(NamedTuple):
    """``receiver`` is read by the owner of the slot, ``sender`` is written by every other slot."""

    receiver: socket.socket
    sender: socket.socket


def make_stray_pairs(slot_count: int) -> list[StrayPair]:
    """One non-blocking pair per slot, in slot order; making them inheritable is left to the caller."""
    pairs: list[StrayPair] = []
    for _ in range(slot_count):
        receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.setblocking(False)
        sender.setblocking(False)
        # The sender's buffer bounds the queue; the kernel silently grants less where wmem_max is smaller.
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STRAY_BUFFER_BYTES)
        pairs.append(StrayPair(receiver, sender))
    return pairs


def encode_stray(path: PathAddress, data: bytes) -> bytes:
    """Write one stray datagram with its path."""
    host = socket.inet_pton(socket.AF_INET6 if ":" in path.host else socket.AF_INET, path.host)
    header = _HEADER.pack(len(host), len(path.local), path.socket_index, path.port, path.flowinfo, path.scope_id)
    return b"".join((header, host, path.local, data))


def decode_stray_untrusted(message: bytes) -> tuple[bytes, PathAddress]:
    """
    Read one stray datagram: its data and its path.

    Raises MessageDecodeError if the message is cut short or a length in it is impossible.
    """
    if len(message) < _HEADER.size:
        raise MessageDecodeError(f"stray datagram of {len(message)} bytes is shorter than its header")
    host_length, local_length, socket_index, port, flowinfo, scope_id = _HEADER.unpack_from(message)
    if host_length not in (4, 16):
        raise MessageDecodeError(f"stray datagram with an address of {host_length} bytes")
    if local_length not in _LOCAL_LENGTHS:
        raise MessageDecodeError(f"stray datagram with {local_length} bytes of local address")
    local_start = _HEADER.size + host_length
    data_start = local_start + local_length
    if len(message) < data_start:
        raise MessageDecodeError("stray datagram is cut short in its path")
    family = socket.AF_INET6 if host_length == 16 else socket.AF_INET
    host = socket.inet_ntop(family, message[_HEADER.size : local_start])
    path = PathAddress(host, port, flowinfo, scope_id, message[local_start:data_start], socket_index)
    return message[data_start:], path


def send_stray(sender: socket.socket, path: PathAddress, data: bytes) -> bool:
    """
    Pass a datagram on; False when it could not be queued, which the caller counts as a drop.

    The other slot's queue is full or, as everything comes down, its end is closed.
    """
    try:
        sender.send(encode_stray(path, data))
    except OSError:
        return False
    return True


class StrayReceiver:
    """
    The reading end of this slot's channel; same shape as ``UdpSocket`` towards its caller.

    ``malformed`` counts messages that did not parse and were dropped.
    """

    __slots__ = ("malformed", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.malformed = 0

    def fileno(self) -> int:
        """File descriptor, for ``loop.add_reader``."""
        return self.sock.fileno()

    def receive_datagrams(self, limit: int = 64) -> list[tuple[bytes, PathAddress]]:
        """Read until the channel is empty or ``limit`` messages were read."""
        received: list[tuple[bytes, PathAddress]] = []
        for _ in range(limit):
            try:
                message = self.sock.recv(MAX_STRAY_BYTES)
            except OSError:  # nothing is waiting or, as everything comes down, the other end is closed
                break
            try:
                received.append(decode_stray_untrusted(message))
            except MessageDecodeError:
                self.malformed += 1
        return received
