"""
The claim of one running node on one listen address, and the name of who has it.

With SO_REUSEPORT the kernel lets any process of the same user join a group of sockets, and a second
supervisor would silently take datagrams away from the first. ``sockets`` therefore binds the first socket of
each address without that option, which fails while anybody holds the port. That says *that* the port is
taken; this lock says by whom: it is a listening Unix socket in the abstract namespace, whose peer credentials
name the process, and which the kernel removes when that process ends, however it ends.

Both the abstract namespace and UDP ports are per network namespace, so nodes in different containers do not
collide. Only Linux has it; elsewhere the lock is always granted and the bind decides alone.
"""

import contextlib
import errno
import socket
import struct
import sys
from typing import Final

from antquic_server.errors import PortInUseError

__all__ = ["PortLock", "holder_pid"]

_LINUX: Final = sys.platform == "linux"
_SO_PEERCRED: Final = getattr(socket, "SO_PEERCRED", 17)
_PEER_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid

_QUEUED_QUESTIONS: Final = 128
"""Nobody accepts, so each question about the holder stays queued; one past the limit gets no name."""


class PortLock:
    """
    The lock on one address, held from construction to ``release`` or the end of the process.

    ``address`` is text such as ``0.0.0.0:10000``, the same for everybody who means the same socket address.
    The descriptor is not inheritable: a worker that outlives its supervisor does not keep the claim.

    Raises PortInUseError when another process has it; the detail names that process.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket: socket.socket | None = None
        if not _LINUX:
            return
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(_lock_name(address))
            lock.listen(_QUEUED_QUESTIONS)
        except OSError as error:
            lock.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortInUseError(address, describe_holder(address)) from None
        self._socket = lock

    def release(self) -> None:
        """Give the claim up; a second call does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def holder_pid(address: str) -> int | None:
    """Process ID of the node that has the lock on ``address``; None if nobody has or cannot be asked."""
    if not _LINUX:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as question, contextlib.suppress(OSError):
        question.setblocking(False)
        question.connect(_lock_name(address))
        credentials = question.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _PEER_CREDENTIALS.size)
        pid, _, _ = _PEER_CREDENTIALS.unpack(credentials)
        return int(pid)
    return None


def describe_holder(address: str) -> str:
    """Say in a few words who holds the port of ``address``, as the detail of a ``PortInUseError``."""
    pid = holder_pid(address)
    if pid is None:
        return "the port is in use by another process"
    return f"the port is in use by another antquic-server (process {pid})"


def _lock_name(address: str) -> str:
    return f"\0antquic-server/udp/{address}"
