"""
Several datagrams, or trains, in one system call: the structures of recvmmsg and sendmmsg, and a reader.

Python has neither call. Without them each datagram that comes alone costs a system call, a tuple for its address, which
the kernel's bytes are printed into, and a list of its control messages; with them it costs a look into a table.
"""

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from antquic_server.net.trains import SOL_UDP, UDP_GRO

__all__ = ["BATCH_TRAINS", "BatchReader", "Iovec", "Mmsghdr", "Sender", "library_function"]

Sender = tuple[tuple[object, ...], bytes]
"""A socket address as Python has it, and the packet info that came along, empty without."""

BATCH_TRAINS: Final = 16
"""Trains, or datagrams that come alone, in one call; each has room for the longest train, so this is a megabyte."""

_TRAIN_BYTES: Final = 1 << 16
_NAME_BYTES: Final = 32
"""Room for a ``sockaddr_in6``, which has 28, and a multiple of 8 for the control data behind it."""
_CONTROL_BYTES: Final = 96
"""Room for packet info of IPv6 and the size of a train, which have 64 together."""
_META_BYTES: Final = _NAME_BYTES + _CONTROL_BYTES
_KNOWN_ENTRIES: Final = 16_384
"""Emptied when full, as the cache of paths is."""

_CONTROL: Final = struct.Struct("@Nii")
_CONTROL_ALIGNMENT: Final = struct.calcsize("@N")
_BAD_FLAGS: Final = getattr(socket, "MSG_TRUNC", 0) | getattr(socket, "MSG_CTRUNC", 0)


class Iovec(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    """``struct msghdr``."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    """``struct mmsghdr``."""

    _fields_ = (("header", Msghdr), ("length", ctypes.c_uint32))


def library_function(name: str) -> Any:
    """Return a function of the C library that keeps the lock of the interpreter, since it never waits; None without."""
    return getattr(ctypes.PyDLL(None, use_errno=True), name, None)


class BatchReader:
    """
    Reads up to sixteen trains of a socket at once.

    ``errors`` counts calls that reported an error, ``truncated`` trains that did not fit (they always should).
    """

    __slots__ = (
        "_columns",
        "_data",
        "_descriptor",
        "_headers",
        "_iovecs",
        "_known",
        "_meta",
        "_recvmmsg",
        "_table",
        "_template",
        "errors",
        "truncated",
    )

    def __init__(self, sock: socket.socket, recvmmsg: Any) -> None:
        self.errors = self.truncated = 0
        self._recvmmsg = recvmmsg
        self._descriptor = sock.fileno()
        data, meta = bytearray(BATCH_TRAINS * _TRAIN_BYTES), bytearray(BATCH_TRAINS * _META_BYTES)
        data_at = ctypes.addressof(ctypes.c_char.from_buffer(data))
        meta_at = ctypes.addressof(ctypes.c_char.from_buffer(meta))
        # The kernel is shown them by address, so they are kept.
        self._iovecs = (Iovec * BATCH_TRAINS)()
        self._headers = (Mmsghdr * BATCH_TRAINS)()
        for number in range(BATCH_TRAINS):
            self._iovecs[number] = Iovec(data_at + number * _TRAIN_BYTES, _TRAIN_BYTES)
            header = self._headers[number].header
            header.iov = ctypes.pointer(self._iovecs[number])
            header.iov_length = 1
            header.name = meta_at + number * _META_BYTES
            header.name_length = _NAME_BYTES
            header.control = header.name + _NAME_BYTES
            header.control_length = _CONTROL_BYTES
        self._data, self._meta = memoryview(data), meta
        self._table = memoryview(self._headers).cast("B")
        self._template = bytes(self._table)
        self._columns = tuple(
            _column(self._table, offset, kind)
            for offset, kind in (
                (Mmsghdr.length.offset, "I"),
                (Msghdr.control_length.offset, "N"),
                (Msghdr.flags.offset, "I"),
            )
        )
        self._known: dict[bytes, tuple[Any, int]] = {}

    @classmethod
    def of(cls, sock: socket.socket) -> "BatchReader | None":
        """Return a reader for a non-blocking socket, None where the system has no such call."""
        recvmmsg = library_function("recvmmsg") if sys.platform == "linux" else None
        return None if recvmmsg is None else cls(sock, recvmmsg)

    def read(self, remember: Callable[[Sender], Any]) -> list[tuple[memoryview, int, Any]]:
        """
        Return what is waiting: data, size of its datagrams in bytes, sender. Fewer than sixteen: nothing else was.

        Data are views of memory that the next call overwrites. ``remember`` makes of a sender what is returned in its
        place; it is called for one that is new, or was forgotten.
        """
        # The kernel has written lengths and flags over those that say how much room there is.
        self._table[:] = self._template
        count = self._recvmmsg(self._descriptor, self._headers, BATCH_TRAINS, socket.MSG_DONTWAIT, None)
        if count <= 0:
            if ctypes.get_errno() != errno.EAGAIN:
                self.errors += 1
            return []
        known, data, meta = self._known, self._data, bytes(self._meta)
        received = []
        at = meta_at = 0
        lengths, control_lengths, flags = (column[:count].tolist() for column in self._columns)
        # Short of calls and objects: a relay reads each datagram that comes alone by this way.
        for number in range(count):
            if flags[number] & _BAD_FLAGS:
                self.truncated += 1
            else:
                key = meta[meta_at : meta_at + _NAME_BYTES + control_lengths[number]]
                sender, segment_size = known.get(key) or self._look_closely(key, remember)
                length = lengths[number]
                received.append((data[at : at + length], segment_size or length, sender))
            at += _TRAIN_BYTES
            meta_at += _META_BYTES
        return received

    def _look_closely(self, key: bytes, remember: Callable[[Sender], Any]) -> tuple[Any, int]:
        segment_size, packet_info = 0, b""
        at = _NAME_BYTES
        while at + _CONTROL.size <= len(key):
            length, level, kind = _CONTROL.unpack_from(key, at)
            value = key[at + _CONTROL.size : at + length]
            if level != SOL_UDP:
                packet_info = value  # the one other message asked for
            elif kind == UDP_GRO:
                segment_size = int.from_bytes(value, sys.byteorder)
            at += max(_CONTROL.size, -(-length // _CONTROL_ALIGNMENT) * _CONTROL_ALIGNMENT)
        if len(self._known) >= _KNOWN_ENTRIES:
            self._known.clear()
        known = self._known[key] = (remember((_address(key), packet_info)), segment_size)
        return known


def _address(name: bytes) -> tuple[object, ...]:
    """Read a ``sockaddr_in`` or ``sockaddr_in6`` into what Python's own calls return."""
    family = int.from_bytes(name[:2], sys.byteorder)
    if family == socket.AF_INET6:
        port, flowinfo = struct.unpack_from(">HI", name, 2)
        (scope_id,) = struct.unpack_from("=I", name, 24)
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, flowinfo, scope_id
    return socket.inet_ntop(socket.AF_INET, name[4:8]), int.from_bytes(name[2:4], "big")


def _column(table: memoryview, offset: int, kind: str) -> memoryview:
    """Return one field of every structure in an array, to read by index."""
    items: memoryview = table.cast(kind)  # type: ignore[call-overload]
    return items[offset // items.itemsize :: ctypes.sizeof(Mmsghdr) // items.itemsize]
