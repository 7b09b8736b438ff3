"""
Many datagrams, or trains, in one system call: sendmmsg and recvmmsg of the C library.

A load in Python that called ``sendmsg`` for each datagram would be slower than the relays it is meant to keep busy.
"""

import ctypes
import errno
import os
import socket
import struct
from typing import Any, Final

from antquic_server.errors import CannotBootError
from antquic_server.net.batches import Iovec, Mmsghdr
from antquic_server.net.trains import SOL_UDP, UDP_SEGMENT, switch_gro

__all__ = ["BatchReceiver", "BatchSender"]

_RECEIVED_AT_ONCE: Final = 64
_LOOKED_AT_BYTES: Final = 16
_NOT_NOW: Final = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.EINTR))
"""ECONNREFUSED is the echo of an earlier datagram: what was not sent is sent again."""


def _function(name: str) -> Any:
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        raise CannotBootError(f"the relay benchmark needs {name} of the C library, which is Linux's")
    return function


class BatchSender:
    """
    Sends the same datagram again and again from a connected, non-blocking socket.

    ``train`` datagrams make one message (UDP_SEGMENT), up to ``messages`` messages one system call.
    """

    def __init__(self, sock: socket.socket, datagram: bytes, *, train: int, messages: int) -> None:
        self.train = train
        self._sendmmsg = _function("sendmmsg")
        self._descriptor = sock.fileno()
        self._messages = messages
        # Everything that the kernel is shown by address is kept here.
        self._data = ctypes.create_string_buffer(datagram * train, len(datagram) * train)
        self._iovec = Iovec(ctypes.addressof(self._data), len(datagram) * train)
        self._control = ctypes.create_string_buffer(_segment_control(len(datagram)))
        self._headers = (Mmsghdr * messages)()
        for item in self._headers:
            item.header.iov = ctypes.pointer(self._iovec)
            item.header.iov_length = 1
            if train > 1:
                item.header.control = ctypes.addressof(self._control)
                item.header.control_length = len(self._control) - 1

    def send(self, datagrams: int) -> int:
        """
        Send up to that many, rounded up to whole trains, in one call; return how many the kernel took.

        Raises:
            OSError: The kernel refuses these datagrams.
        """
        messages = min(self._messages, -(-datagrams // self.train))
        taken = self._sendmmsg(self._descriptor, self._headers, messages, 0)
        if taken < 0:
            code = ctypes.get_errno()
            if code not in _NOT_NOW:
                raise OSError(code, os.strerror(code))
            return 0
        return int(taken) * self.train


class BatchReceiver:
    """
    Counts the bytes that arrive at a non-blocking socket; trains are taken whole where the kernel has UDP_GRO.

    Only the first bytes of each message are copied: the length is what counts, and the load's cost is nobody's figure.
    """

    def __init__(self, sock: socket.socket) -> None:
        switch_gro(sock, on=True)
        self._recvmmsg = _function("recvmmsg")
        self._descriptor = sock.fileno()
        self._data = ctypes.create_string_buffer(_LOOKED_AT_BYTES)
        self._iovec = Iovec(ctypes.addressof(self._data), _LOOKED_AT_BYTES)
        self._headers = (Mmsghdr * _RECEIVED_AT_ONCE)()
        for item in self._headers:
            item.header.iov = ctypes.pointer(self._iovec)
            item.header.iov_length = 1
        words = memoryview(self._headers).cast("B").cast("I")
        stride = ctypes.sizeof(Mmsghdr) // words.itemsize
        self._lengths = words[Mmsghdr.length.offset // words.itemsize :: stride]

    def receive(self) -> int:
        """Take everything that is waiting and return its length in bytes."""
        total = 0
        while True:
            count = self._recvmmsg(
                self._descriptor, self._headers, _RECEIVED_AT_ONCE, socket.MSG_TRUNC | socket.MSG_DONTWAIT, None
            )
            if count <= 0:
                return total
            total += sum(self._lengths[:count])
            if count < _RECEIVED_AT_ONCE:
                return total


def _segment_control(size: int) -> bytes:
    """Return the control message that cuts a train into datagrams of this size."""
    header = struct.pack("@Nii", socket.CMSG_LEN(2), SOL_UDP, UDP_SEGMENT)
    return (header + struct.pack("@H", size)).ljust(socket.CMSG_SPACE(2), b"\0")
