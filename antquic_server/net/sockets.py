"""
The sockets of all slots, opened once by the supervisor.

Every listen address has one socket per slot, all bound to the same port with SO_REUSEPORT. The kernel numbers
the sockets of such a group in the order in which they were bound and renumbers them when one is closed, so
slot *i* is the *i*-th socket bound and none is closed while the node runs. A classic BPF program
(``protocol.steering``) then returns the number of the socket for each datagram, or for the first of a GRO
train.

The first socket is bound *without* SO_REUSEPORT, which is switched on afterwards. The kernel refuses such a
bind while any other socket has the port, on this address or an overlapping one, with the option or without:
so a second node, or any other program, is noticed in the same step that takes the port. It also keeps port 0
honest: with the option set, the kernel may hand out a port on which another group of the same user already
listens.
"""

import contextlib
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from antquic_server.errors import CannotBootError, PortInUseError, PrivilegeError
from antquic_server.net.packet_info import request_packet_info
from antquic_server.net.port_lock import PortLock, describe_holder, holder_pid
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.steering import steering_program

__all__ = ["SOCKET_BUFFER_BYTES", "ListenGroup", "attach_steering", "bind_slots", "never_fragment"]

_LINUX: Final = sys.platform == "linux"

SOCKET_BUFFER_BYTES: Final = 8 << 20
"""A slot whose worker died must hold what arrives until the next one reads; this is about 3,600 datagrams."""

_RELEASE_PATIENCE_S: Final = 2.0
"""How long a port that no node claims may stay taken: workers outlive a supervisor that was killed by moments."""
_RELEASE_POLL_S: Final = 0.02

# From <asm-generic/socket.h>, <linux/in.h> and <linux/in6.h>; Python 3.11 names none of these.
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3

_SOCK_FILTER: Final = struct.Struct("=HBBI")
_SOCK_FPROG: Final = struct.Struct("@HP")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenGroup:
    """
    One listen address with a socket for each slot.

    ``family`` is AF_INET or AF_INET6, ``host`` the numeric address, ``port`` the real one even where 0 was
    asked for, ``sockets[i]`` that of slot ``i``, non-blocking and not inheritable. ``steered`` is False where
    the kernel took no filter: it then picks a slot by a hash of the addresses, and workers pass on what is
    not theirs.
    """

    family: int
    host: str
    port: int
    sockets: list[socket.socket]
    steered: bool = True
    lock: PortLock | None = None

    @property
    def wildcard(self) -> bool:
        """Whether the address stands for all addresses of the machine."""
        return ip_address(self.host).is_unspecified

    @property
    def address(self) -> str:
        """The address as text, ``0.0.0.0:10000`` or ``[::]:10000``."""
        return f"[{self.host}]:{self.port}" if self.family == socket.AF_INET6 else f"{self.host}:{self.port}"

    def close(self) -> None:
        """Close every socket and give the port up; for the very end of the node."""
        for sock in self.sockets:
            sock.close()
        if self.lock is not None:
            self.lock.release()


def bind_slots(listen: Sequence[str], worker_count: int) -> list[ListenGroup]:
    """
    Open the sockets of ``worker_count`` slots on each address of ``listen``, in that order.

    Where ``listen`` has both wildcards with the same port, as the default has, it asks for every address
    there is; on a machine without IPv6 that is every IPv4 address, and the IPv6 one is left out of the
    result.

    Raises PortInUseError when anybody holds one of the ports, PrivilegeError when the port needs a right this
    process does not have, CannotBootError for an address this machine does not have, AddressDecodeError for
    text that is none. Nothing stays open then.
    """
    addresses = [SocketAddress.parse(text) for text in listen]
    ipv4_wildcard_ports = {a.port for a in addresses if a.is_ipv4 and a.host.is_unspecified}
    groups: list[ListenGroup] = []
    try:
        for address in addresses:
            try:
                groups.append(_bind_group(address, worker_count))
            except OSError as error:
                dispensable = (
                    not address.is_ipv4
                    and address.host.is_unspecified
                    and address.port in ipv4_wildcard_ports
                    and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
                )
                if not dispensable:
                    raise _explain(address, error) from None
    except BaseException:
        for group in groups:
            group.close()
        raise
    return groups


def attach_steering(sock: socket.socket, worker_count: int) -> bool:
    """
    Attach the steering filter to the group of ``sock``; True when the kernel took it.

    The filter belongs to the group, so any one of its sockets will do. It needs no privilege. A group has at
    least two sockets: one alone needs no filter.
    """
    if not _LINUX:
        return False
    program = steering_program(worker_count)
    instructions = create_string_buffer(b"".join(_SOCK_FILTER.pack(*line) for line in program))
    descriptor = _SOCK_FPROG.pack(len(program), addressof(instructions))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, descriptor)
    except OSError:
        return False
    return True


def _bind_group(address: SocketAddress, worker_count: int) -> ListenGroup:
    family = socket.AF_INET if address.is_ipv4 else socket.AF_INET6
    host = str(address.host)
    with contextlib.ExitStack() as on_failure:
        first = on_failure.enter_context(_open_socket(family))
        _bind_when_released(first, address)
        port: int = first.getsockname()[1]
        lock = PortLock(str(SocketAddress(host=address.host, port=port)))
        on_failure.callback(lock.release)
        sockets = [first]
        if worker_count > 1:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        while len(sockets) < worker_count:
            sock = on_failure.enter_context(_open_socket(family))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            sockets.append(sock)
        if address.host.is_unspecified:
            # Before the first datagram can matter: one read without it could not be answered from the right
            # address.
            for sock in sockets:
                request_packet_info(sock)
        steered = worker_count == 1 or attach_steering(first, worker_count)
        on_failure.pop_all()
    return ListenGroup(family=family, host=host, port=port, sockets=sockets, steered=steered, lock=lock)


def _bind_when_released(sock: socket.socket, address: SocketAddress) -> None:
    """
    Bind, waiting a moment for a predecessor's last processes to let go of the port.

    A service manager starts the next supervisor as soon as it has reaped the one that was killed, which may be
    before the kernel has closed the sockets of the workers. A port that a running node claims is refused at once.
    """
    deadline_s = time.monotonic() + _RELEASE_PATIENCE_S
    while True:
        try:
            sock.bind((str(address.host), address.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or holder_pid(str(address)) is not None:
                raise
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(_RELEASE_POLL_S)
        else:
            return


def _open_socket(family: socket.AddressFamily) -> socket.socket:
    """An unbound socket with everything set that must or may be set before binding."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    _ask_for_buffers(sock)
    never_fragment(sock)
    return sock


def never_fragment(sock: socket.socket) -> None:
    """
    Have datagrams leave whole or not at all (RFC 9000, section 14), as far as the system can.

    The kernel's path MTU cache, which any host could lower with one forged ICMP message, is ignored too: connections
    probe for themselves. What the link itself does not take is refused with EMSGSIZE.
    """
    if _LINUX:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)


def _ask_for_buffers(sock: socket.socket) -> None:
    """Large buffers: past the system's limit where the process may, up to that limit otherwise."""
    for plain, forced in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        if _LINUX:
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BUFFER_BYTES)
                continue
            except PermissionError:
                pass
        # Some systems refuse more than their limit; Linux grants the limit.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, plain, SOCKET_BUFFER_BYTES)


def _explain(address: SocketAddress, error: OSError) -> CannotBootError:
    """The error of ours that says what the operating system meant."""
    text = str(address)
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(text, describe_holder(text))
    if error.errno in (errno.EACCES, errno.EPERM):
        return PrivilegeError(f"cannot listen on {text}: no right to use port {address.port}")
    if error.errno == errno.EADDRNOTAVAIL:
        return CannotBootError(f"cannot listen on {text}: this machine does not have that address")
    if error.errno == errno.EAFNOSUPPORT:
        return CannotBootError(f"cannot listen on {text}: this machine has no IPv6")
    return CannotBootError(f"cannot listen on {text}: {os.strerror(error.errno or 0)}")
