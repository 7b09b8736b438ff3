"""
Trains: several datagrams of one flow in one system call.

Two kernel offloads make and take them (Linux 5.0 and later). With UDP_GRO one ``recvmsg`` returns datagrams
of one flow, in order, all of the same size but the last, which may be shorter; a control message gives that
size. With UDP_SEGMENT (GSO) one ``sendmsg`` sends such a train, the size again in a control message.
"""

import socket
import sys
from collections.abc import Sequence
from typing import Final, TypeVar

__all__ = [
    "MAX_TRAIN_BYTES",
    "MAX_TRAIN_DATAGRAMS",
    "SOL_UDP",
    "UDP_GRO",
    "UDP_SEGMENT",
    "end_of_train",
    "has_gso",
    "segment_control",
    "split_train",
    "switch_gro",
]

_LINUX: Final = sys.platform == "linux"

# From <linux/udp.h>; Python 3.11 does not name them.
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

MAX_TRAIN_DATAGRAMS: Final = 64
"""UDP_MAX_SEGMENTS of Linux 5.0 to 6.8; newer kernels take 128."""

MAX_TRAIN_BYTES: Final = 65_000
"""A train is one IP packet until the kernel cuts it: 65,535 bytes less the headers, rounded down."""


Data = TypeVar("Data", bytes, memoryview)


def split_train(data: Data, segment_size_bytes: int) -> list[Data]:
    """Cut a train into its datagrams; the last may be shorter. Size 0 means that it is a single datagram."""
    size = len(data)
    if segment_size_bytes <= 0 or segment_size_bytes >= size:
        return [data]
    return [data[i : i + segment_size_bytes] for i in range(0, size, segment_size_bytes)]


def end_of_train(datagrams: Sequence[bytes], start: int) -> int:
    """Index after the longest train that begins at ``start``: equal sizes, the last one possibly shorter."""
    size = len(datagrams[start])
    if not size:
        return start + 1
    limit = min(len(datagrams), start + min(MAX_TRAIN_DATAGRAMS, max(1, MAX_TRAIN_BYTES // size)))
    end = start + 1
    while end < limit:
        length = len(datagrams[end])
        if length != size:
            # An empty last datagram would vanish: a train carries no trace of it.
            return end + 1 if 0 < length < size else end
        end += 1
    return end


def switch_gro(sock: socket.socket, *, on: bool) -> bool:
    """
    Switch UDP_GRO and tell whether it is on now.

    Off is said explicitly, as an inherited socket keeps what the previous worker chose.
    """
    if not _LINUX:
        return False
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1 if on else 0)
    except OSError:
        return False
    return on


def has_gso(sock: socket.socket) -> bool:
    """Whether the kernel knows UDP_SEGMENT; a route may still refuse it later."""
    if not _LINUX:
        return False
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True


def segment_control(segment_size_bytes: int) -> tuple[int, int, bytes]:
    """Return the control message with which ``sendmsg`` cuts a train into datagrams of this size."""
    return (SOL_UDP, UDP_SEGMENT, segment_size_bytes.to_bytes(2, sys.byteorder))
