"""
The public ports of relay sessions: one UDP socket for each, from ``relay.port_range``.

A port is looked for from a random number upwards, so that nobody can tell which one comes next, and workers that share
the range seldom try the same. The kernel knows which ports are taken, by whomever.

Datagrams may be fragmented on their way from here, unlike those of the node's own port: what ant-quic peers relay are
QUIC packets of up to 4096 bytes, and what they think the path takes is not what ours does.
"""

import errno
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from antquic_server.errors import NoPortError
from antquic_server.net.udp import RECEIVE_BUFFER_BYTES, UdpSocket

_LINUX: Final = sys.platform == "linux"
# From <linux/in.h> and <linux/in6.h>; Python 3.11 names neither.
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_DONT: Final = 0

EXHAUSTED_FOR_S: Final = 0.25
"""How long a range counts as full after a search through all of it, which takes some 20 ms."""

MAX_SENDERS: Final = 256
"""Cache of sources per session, about 100 kB when full."""

SOCKET_BUFFER_BYTES: Final = 1 << 20
"""Asked for; the kernel gives as much as ``net.core.rmem_max`` and ``wmem_max`` allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayPort:
    """
    An open port: ``udp`` is its socket, bound to ``port``.

    ``host`` is the address of ours that it stands for. A socket for IPv6 takes IPv4 as well, at every address.
    """

    udp: UdpSocket
    host: str
    port: int

    @property
    def ipv6(self) -> bool:
        """Whether addresses on this socket have IPv6 form."""
        return self.udp.sock.family == socket.AF_INET6

    def close(self) -> None:
        """Give the port back."""
        self.udp.sock.close()


class RelayPorts:
    """Opens ports; ``random_below(n)`` is a number from 0 to n - 1."""

    def __init__(self, port_range: tuple[int, int], random_below: Callable[[int], int]) -> None:
        self._first, last = port_range
        self._count = last - self._first + 1
        self._random_below = random_below
        self._full_until_s = 0.0
        # Sockets are read one after another, and what was read is copied: they share the memory for it.
        self._buffer = bytearray(RECEIVE_BUFFER_BYTES)

    def open(self, host: str) -> RelayPort:
        """
        Open a port at an address of ours.

        Raises:
            NoPortError: Every port is taken, or the address is not one of ours.
        """
        family = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6
        if time.monotonic() < self._full_until_s:
            raise NoPortError(host, False)
        try:
            sock = _open_socket(family)
        except OSError as error:
            raise NoPortError(host, error.errno == errno.EAFNOSUPPORT) from error
        try:
            port = self._bind(sock, host)
            udp = UdpSocket(sock, wildcard=False, buffer=self._buffer, max_paths=MAX_SENDERS)
        except BaseException:
            sock.close()
            raise
        return RelayPort(udp=udp, host=host, port=port)

    def _bind(self, sock: socket.socket, host: str) -> int:
        # IPv4 third parties reach a session of an IPv6 peer too, which only the address of all takes.
        address = host if sock.family == socket.AF_INET else "::"
        start = self._random_below(self._count)
        for step in range(self._count):
            port = self._first + (start + step) % self._count
            try:
                sock.bind((address, port))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    continue
                raise NoPortError(host, error.errno == errno.EADDRNOTAVAIL) from error
            return port
        self._full_until_s = time.monotonic() + EXHAUSTED_FOR_S
        raise NoPortError(host, False)


def _open_socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
    if _LINUX:
        # Also of an IPv6 socket, for the IPv4 it carries.
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
    return sock
