"""
Which of our addresses a datagram was sent to, and how to answer from it.

A socket bound to 0.0.0.0 or :: receives for every address of the machine. Its replies would leave from
whichever address routing prefers, and a peer that wrote to another one would not know the sender. With
IP_PKTINFO and IPV6_RECVPKTINFO (RFC 3542, section 6) the kernel tells the address with each datagram, and
takes it back on sending.
"""

import socket
import sys
from typing import Final

__all__ = ["local_host", "reply_control", "reply_control_message", "request_packet_info"]

_LINUX: Final = sys.platform == "linux"

_IP_PKTINFO: Final = 8  # from <linux/in.h>; Python 3.11 does not name it
_IPV6_RECVPKTINFO: Final = getattr(socket, "IPV6_RECVPKTINFO", 49)
_IPV6_PKTINFO: Final = getattr(socket, "IPV6_PKTINFO", 50)

_IN_PKTINFO_BYTES: Final = 12  # int interface, in_addr local address, in_addr destination of the header
_IN6_PKTINFO_BYTES: Final = 20  # in6_addr destination, unsigned interface


def request_packet_info(sock: socket.socket) -> None:
    """Have the kernel report, with each datagram, the local address it was sent to (Linux only)."""
    if not _LINUX:
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def reply_control(packet_info: bytes) -> bytes:
    """
    Turn the received ``in_pktinfo`` or ``in6_pktinfo`` into the one that answers it; empty for anything else.

    The interface is left out, since routing may have changed meanwhile or be asymmetric; only a link-local
    IPv6 address means nothing without it. What was sent to a group of hosts has to be answered from an
    address of our own: for IPv4 the kernel names it beside the one in the header, for IPv6 multicast it is
    left to choose.
    """
    if len(packet_info) == _IN_PKTINFO_BYTES:
        return bytes(4) + packet_info[4:8] + bytes(4)
    if len(packet_info) == _IN6_PKTINFO_BYTES and packet_info[0] != 0xFF:
        link_local = packet_info[0] == 0xFE and packet_info[1] & 0xC0 == 0x80
        return packet_info if link_local else packet_info[:16] + bytes(4)
    return b""


def reply_control_message(control: bytes) -> tuple[int, int, bytes]:
    """Wrap what ``reply_control`` returned as a control message for ``sendmsg``."""
    if len(control) == _IN6_PKTINFO_BYTES:
        return (socket.IPPROTO_IPV6, _IPV6_PKTINFO, control)
    return (socket.IPPROTO_IP, _IP_PKTINFO, control)


def local_host(control: bytes) -> str:
    """Read the local address in what ``reply_control`` returned; empty where there is none."""
    if len(control) == _IN_PKTINFO_BYTES:
        return socket.inet_ntop(socket.AF_INET, control[4:8])
    if len(control) == _IN6_PKTINFO_BYTES:
        return socket.inet_ntop(socket.AF_INET6, control[:16])
    return ""
