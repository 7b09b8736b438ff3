"""
Questions that only a socket can answer: what the kernel grants, refuses and does, tried for real.

Every socket is on loopback or unused, and closed at once. Nothing here raises: what cannot be tried is a False, or the
reason as ``CannotTellError`` where somebody has to be told.
"""

import contextlib
import errno
import socket
import sys
from collections.abc import Iterator
from typing import Final

from antquic_server.errors import CannotTellError
from antquic_server.net.sockets import attach_steering
from antquic_server.net.trains import SOL_UDP, UDP_GRO, UDP_SEGMENT, segment_control, switch_gro
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.steering import run_program, steering_program

__all__ = ["bind_error", "granted_buffer", "passes_trains", "steering", "tcp_bind_error"]

_LINUX: Final = sys.platform == "linux"
_LOOPBACK: Final = "127.0.0.1"
_PROBE_TIMEOUT_S: Final = 1.0
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33

STEERED_SLOTS: Final = 4
STEERED_DATAGRAMS: Final = 32
"""By chance, a hash would put them all right once in 4^32 times."""

TRAIN_DATAGRAMS: Final = 3
TRAIN_BYTES: Final = 100


def granted_buffer(*, receive: bool, wanted_bytes: int, forced: bool) -> int:
    """
    Return how much of ``wanted_bytes`` a socket gets, in the unit in which it is asked for.

    Linux doubles what it grants, for its own bookkeeping, and reports the double. ``forced`` asks past the system's
    limit, as the node does where it may (CAP_NET_ADMIN).
    """
    option = socket.SO_RCVBUF if receive else socket.SO_SNDBUF
    force = _SO_RCVBUFFORCE if receive else _SO_SNDBUFFORCE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # Some systems refuse more than their limit instead of granting that; the socket then keeps its default.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, wanted_bytes)
        if forced and _LINUX:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, force, wanted_bytes)
        granted = sock.getsockopt(socket.SOL_SOCKET, option)
    return granted // 2 if _LINUX else granted


@contextlib.contextmanager
def _bound_socket() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_PROBE_TIMEOUT_S)
        sock.bind((_LOOPBACK, 0))
        yield sock


def passes_trains() -> tuple[bool, bool]:
    """
    Send a train through loopback; returns whether the kernel cut it (GSO) and whether it gave it back whole (GRO).

    Raises:
        CannotTellError: Not even loopback works.
    """
    if not _LINUX:
        return False, False
    try:
        with _bound_socket() as sender, _bound_socket() as receiver:
            gro = switch_gro(receiver, on=True) and receiver.getsockopt(SOL_UDP, UDP_GRO) == 1
            train = bytes(TRAIN_DATAGRAMS * TRAIN_BYTES)
            try:
                sender.getsockopt(SOL_UDP, UDP_SEGMENT)
                sender.sendmsg([train], [segment_control(TRAIN_BYTES)], 0, receiver.getsockname())
            except OSError:
                return False, gro
            # With GRO the train arrives as it left, without as the first of its datagrams.
            arrived = receiver.recv(len(train) + 1)
            return True, gro and len(arrived) == len(train)
    except OSError as error:
        raise CannotTellError("UDP on loopback", _reason(error)) from None


def steering() -> tuple[bool, int]:
    """
    Attach the node's filter to a group of sockets and send through it.

    Returns:
        Whether the kernel took the filter, and how many of STEERED_DATAGRAMS datagrams came to the right socket.

    Raises:
        CannotTellError: The group cannot be made.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        return False, 0
    try:
        with contextlib.ExitStack() as stack:
            group: list[socket.socket] = []
            for _ in range(STEERED_SLOTS):
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                if group:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    sock.bind((_LOOPBACK, group[0].getsockname()[1]))
                else:
                    # Only then with the option: else port 0 may be one on which a node of ours serves, whose group
                    # these sockets would join and whose filter they would replace.
                    sock.bind((_LOOPBACK, 0))
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.setblocking(False)
                group.append(sock)
            if not attach_steering(group[0], STEERED_SLOTS):
                return False, 0
            sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            return True, sum(_arrives_right(sender, group, number) for number in range(STEERED_DATAGRAMS))
    except OSError as error:
        raise CannotTellError("SO_REUSEPORT on loopback", _reason(error)) from None


def _arrives_right(sender: socket.socket, group: list[socket.socket], number: int) -> bool:
    """Send one short-header datagram whose steering byte is ``number``; whether its slot gets it."""
    datagram = bytes((0x40, 0, 0, 0, number)) + bytes(16)
    wanted = group[run_program(steering_program(len(group)), datagram)]
    sender.sendto(datagram, wanted.getsockname())
    for sock in (wanted, *(other for other in group if other is not wanted)):
        # Loopback delivers before sendto returns: who has nothing now will have nothing.
        try:
            return sock.recv(64) == datagram and sock is wanted
        except BlockingIOError:
            continue
    return False


def bind_error(address: str) -> int:
    """Bind a UDP socket to ``address`` for a moment; returns 0, or the errno of the refusal."""
    parsed = SocketAddress.parse(address)
    family = socket.AF_INET if parsed.is_ipv4 else socket.AF_INET6
    return _bind_error(family, socket.SOCK_DGRAM, str(parsed.host), parsed.port)


def tcp_bind_error(host: str, port: int) -> int:
    """Like ``bind_error``, for a listening TCP socket as the admin endpoint opens it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return _bind_error(family, socket.SOCK_STREAM, host, port)


def _bind_error(family: socket.AddressFamily, kind: socket.SocketKind, host: str, port: int) -> int:
    try:
        with socket.socket(family, kind) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            # With SO_REUSEADDR a TCP socket may be bound beside a listening one; it may not listen then.
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
