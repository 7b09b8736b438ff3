"""
A UDP socket that is read in bursts and written in trains.

Where the kernel can (``trains``), one read returns and one write sends several datagrams; where it cannot,
every train has length one and nothing else changes.

A train is one *flow*, not one QUIC connection: a client may hold two connections on one socket. Whoever reads
trains has to look at every datagram in them, so ``receive_datagrams`` hands them out one by one;
``receive_train`` is for callers that forward whole trains, with ``send_train``, and check them otherwise.

Errors: a shared socket hears about the misfortunes of every peer (ICMP port unreachable, a firewall, a
missing route). None of them says anything about the socket itself, so each costs at most the datagram it
belongs to and is reported as a number, never raised. An exception per packet would also be the most expensive
thing on this path.
"""

import errno
import socket
import sys
from collections.abc import Sequence
from itertools import repeat
from typing import Final

from antquic_server.net.batches import BATCH_TRAINS, BatchReader, Sender
from antquic_server.net.packet_info import reply_control, reply_control_message, request_packet_info
from antquic_server.net.paths import Address, Ancillary, Destination, PathAddress, SendResult
from antquic_server.net.trains import (
    SOL_UDP,
    UDP_GRO,
    end_of_train,
    has_gso,
    segment_control,
    split_train,
    switch_gro,
)

__all__ = ["RECEIVE_BUFFER_BYTES", "Destination", "PathAddress", "SendResult", "UdpSocket"]

RECEIVE_BUFFER_BYTES: Final = 1 << 16
"""No UDP datagram and no GRO train is longer: both are one IP packet to the kernel."""

PATH_CACHE_ENTRIES: Final = 16_384
"""About 6 MB when full. Emptied when full: a flood of spoofed sources then costs a rebuild, not memory."""

_ERRORS_PER_READ: Final = 64
"""Pending socket errors skipped in one read; more than that and the next wake-up goes on."""

# An ICMP error that arrived earlier is reported by whatever system call comes next, possibly the sending of a
# datagram to somebody else. Reporting it clears it, so one more try tells whether the error was about this
# datagram.
_POSSIBLY_PENDING: Final = frozenset(
    (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENOPROTOOPT)
)

_PERHAPS_ONLY_AS_TRAIN: Final = frozenset((errno.EINVAL, errno.EIO, errno.EMSGSIZE))
"""Refusals of a train after which its datagrams may pass singly; any other meets each of them alike."""

_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(20) + socket.CMSG_SPACE(4) if hasattr(socket, "CMSG_SPACE") else 0
_BAD_FLAGS: Final = getattr(socket, "MSG_TRUNC", 0) | getattr(socket, "MSG_CTRUNC", 0)

_Buffer = bytes | memoryview


_SENT_ONE: Final = SendResult(1, 0, 0)
_BLOCKED: Final = SendResult(0, 0, 0)


class UdpSocket:
    """
    One bound, non-blocking UDP socket with receive and send offloads where the kernel has them.

    ``sock`` stays the caller's and is not closed here. ``wildcard`` says that it is bound to 0.0.0.0 or ::.
    The local address of each datagram is then learnt by IP_PKTINFO or IPV6_PKTINFO and replies leave from it:
    a machine with several addresses would else answer from whichever one routing prefers, and the peer would
    not know the sender. ``socket_index`` is written into each ``PathAddress``, so that the owner of several
    sockets finds this one. ``offloads=False`` leaves GRO and GSO off. ``buffer`` is memory of
    RECEIVE_BUFFER_BYTES or more to receive into, which many sockets that are read one after another may share;
    ``max_paths`` bounds the cache of senders. ``batches``, for sockets that are read by ``receive_trains``, reads
    several trains in one system call where the system can; that takes a megabyte.

    The fields count since construction: ``receive_calls`` and ``send_calls`` are system calls that moved
    data, ``truncated`` datagrams or trains dropped because they did not fit (they always should),
    ``receive_errors`` pending errors reported by a read, ``gso_refused`` trains the kernel would not cut,
    each then sent singly.
    """

    __slots__ = (
        "_batches",
        "_buffers",
        "_gro",
        "_gso",
        "_ipv6",
        "_max_paths",
        "_paths",
        "_recvmsg_into",
        "_sendmsg",
        "buffer",
        "gso_refused",
        "receive_calls",
        "receive_errors",
        "send_calls",
        "sock",
        "socket_index",
        "truncated",
        "wildcard",
    )

    def __init__(
        self,
        sock: socket.socket,
        *,
        wildcard: bool,
        socket_index: int = 0,
        offloads: bool = True,
        buffer: bytearray | None = None,
        max_paths: int | None = None,
        batches: bool = False,
    ) -> None:
        self.sock = sock
        self.wildcard = wildcard
        self.socket_index = socket_index
        self.receive_calls = 0
        self.receive_errors = 0
        self.send_calls = 0
        self.truncated = 0
        self.gso_refused = 0
        self._ipv6 = sock.family == socket.AF_INET6
        self.buffer = memoryview(bytearray(RECEIVE_BUFFER_BYTES) if buffer is None else buffer)
        self._buffers = [self.buffer]
        self._paths: dict[object, PathAddress] = {}
        self._max_paths = max_paths or PATH_CACHE_ENTRIES
        self._recvmsg_into = sock.recvmsg_into
        self._sendmsg = sock.sendmsg
        self._gro = switch_gro(sock, on=offloads)
        self._gso = offloads and has_gso(sock)
        self._batches = BatchReader.of(sock) if batches else None
        if wildcard:
            request_packet_info(sock)

    @property
    def offloads(self) -> list[str]:
        """Names of the offloads in use: ``gro``, ``gso``. A refused GSO leaves the list."""
        return [name for name, on in (("gro", self._gro), ("gso", self._gso)) if on]

    def fileno(self) -> int:
        """File descriptor, for ``loop.add_reader``."""
        return self.sock.fileno()

    def receive_datagrams(self, limit: int = 64) -> list[tuple[bytes, PathAddress]]:
        """
        Read until the socket is empty or ``limit`` datagrams are there.

        A train is never cut, so the last one may exceed the limit. An empty list means that nothing is
        waiting. At the limit there may be more: a level-triggered event loop calls again after everything
        else had its turn.
        """
        received: list[tuple[bytes, PathAddress]] = []
        receive_train = self.receive_train
        while len(received) < limit:
            train = receive_train()
            if train is None:
                break
            view, segment_size, path = train
            if segment_size >= len(view):
                received.append((bytes(view), path))
            else:
                received += zip(split_train(bytes(view), segment_size), repeat(path))
        return received

    @property
    def trains_at_once(self) -> int:
        """How many trains ``receive_trains`` returns at most; if it returns fewer, nothing else was waiting."""
        return BATCH_TRAINS if self._batches is not None else 1

    def receive_trains(self) -> list[tuple[memoryview, int, PathAddress]]:
        """Read what one system call gives: trains as ``receive_train`` describes them. Views last until the next."""
        batches = self._batches
        if batches is None:
            train = self.receive_train()
            return [] if train is None else [train]
        received = batches.read(self._path_of_sender)
        if received:
            self.receive_calls += 1
        self.receive_errors += batches.errors
        self.truncated += batches.truncated
        batches.errors = batches.truncated = 0
        return received

    def receive_train(self) -> tuple[memoryview, int, PathAddress] | None:
        """
        Read one train: its bytes, the size of its datagrams in bytes, its path; None when nothing is waiting.

        The bytes are a view of ``buffer`` and are overwritten by the next read. The size equals the length of the
        view for a single datagram; in a train only the last datagram may be shorter.
        """
        received = self.receive()
        if received is None:
            return None
        size, segment_size, address, packet_info = received
        return self.buffer[:size], segment_size, self.path_of(address, packet_info)

    def receive(self) -> tuple[int, int, Address, bytes] | None:
        """
        Read one train into ``buffer``: its length and that of its datagrams, where it came from, its packet info.

        The last two are what the kernel says, for ``path_of``.
        """
        # Into a buffer of our own: fresh memory for the longest possible train at each read is a little
        # faster for single datagrams and twice as slow for long trains, where the allocator keeps returning
        # it to the kernel.
        for _ in range(_ERRORS_PER_READ):
            try:
                size, ancillary, flags, address = self._recvmsg_into(self._buffers, _ANCILLARY_BYTES)
            except BlockingIOError:
                return None
            except OSError:
                self.receive_errors += 1
                continue
            self.receive_calls += 1
            if flags & _BAD_FLAGS:
                # Without all data and the control message with the size, boundaries would be guesswork.
                self.truncated += 1
                continue
            segment_size = size
            packet_info = b""
            for level, kind, value in ancillary:
                if level != SOL_UDP:
                    packet_info = value  # the one other message asked for
                elif kind == UDP_GRO:
                    segment_size = int.from_bytes(value, sys.byteorder) or size
            return size, segment_size, address, packet_info
        return None

    def path_of(self, address: Address, packet_info: bytes) -> PathAddress:
        """Return the path of what ``receive`` has read; nearly always the same object for the same path."""
        key = (address, packet_info)
        return self._paths.get(key) or self._remember_path(key, address, packet_info)

    def _path_of_sender(self, sender: Sender) -> PathAddress:
        return self.path_of(*sender)

    def send(self, path: PathAddress, datagrams: Sequence[bytes]) -> SendResult:
        """
        Send datagrams to the remote end of ``path``, in order, in as few system calls as the offloads allow.

        Runs of equal size, of which the last may be shorter, go out as one train. Never raises for what the
        network or the kernel says about a datagram: see ``SendResult`` and the module text.
        """
        address = path[:4] if self._ipv6 else path[:2]
        control = [reply_control_message(path.local)] if path.local else []
        count = len(datagrams)
        if count == 1:
            return self._send_one(address, control, datagrams[0])
        sent = dropped = last_errno = start = 0
        while start < count:
            end = end_of_train(datagrams, start) if self._gso else start + 1
            if end - start == 1:
                result = self._send_one(address, control, datagrams[start])
            else:
                result = self._send_several(address, control, datagrams[start:end])
            sent += result.sent
            dropped += result.dropped
            last_errno = result.errno or last_errno
            if result.handled < end - start:
                break
            start = end
        return SendResult(sent, dropped, last_errno)

    def destination(self, path: PathAddress) -> Destination:
        """Prepare for ``send_train`` to the remote end of ``path``."""
        return Destination(path[:4] if self._ipv6 else path[:2], path.local)

    def send_train(self, destination: Destination, train: memoryview, segment_size: int) -> SendResult | None:
        """
        Send a train as ``receive_train`` gives it: datagrams of this size, the last one possibly shorter.

        Returns None if all of it was sent, as it nearly always is. Errors are those of ``send``; what is not handled
        is the caller's to drop, since a train that lies in a receive buffer cannot wait.
        """
        return self.send_run(destination, (train,), len(train), segment_size)

    def send_run(
        self, destination: Destination, pieces: Sequence[memoryview], size: int, segment_size: int
    ) -> SendResult | None:
        """Send a train of ``size`` bytes that lies in pieces of whole datagrams; returns what ``send_train`` does."""
        # Short of calls and objects: a relay sends everything by this way.
        if size <= segment_size:
            control = destination.control
        elif not self._gso:
            return self._send_singly(destination.address, destination.control, _cut(pieces, segment_size))
        else:
            control = destination.control_for(segment_size)
        try:
            self._sendmsg(pieces, control, 0, destination.address)
        except OSError as error:
            return self._send_run_again(destination, _cut(pieces, segment_size), error.errno or errno.EIO)
        self.send_calls += 1
        return None

    def _send_run_again(self, destination: Destination, datagrams: Sequence[_Buffer], code: int) -> SendResult | None:
        """Find out whether a refusal was about this train, and what of it can be sent all the same."""
        count = len(datagrams)
        if code in _POSSIBLY_PENDING:
            control = destination.control if count == 1 else destination.train_control
            code = self._transmit(datagrams, control, destination.address)
            if not code:
                return None
        if count > 1 and code in _PERHAPS_ONLY_AS_TRAIN:
            return self._send_refused(destination.address, destination.control, datagrams, code)
        return _BLOCKED if code == errno.EAGAIN else SendResult(0, count, code)

    def _send_one(self, address: Address, control: Ancillary, datagram: _Buffer) -> SendResult:
        code = self._transmit((datagram,), control, address)
        if not code:
            return _SENT_ONE
        return _BLOCKED if code == errno.EAGAIN else SendResult(0, 1, code)

    def _send_several(self, address: Address, control: Ancillary, datagrams: Sequence[_Buffer]) -> SendResult:
        code = self._transmit(datagrams, [segment_control(len(datagrams[0])), *control], address)
        if not code:
            return SendResult(len(datagrams), 0, 0)
        if code in _PERHAPS_ONLY_AS_TRAIN:
            return self._send_refused(address, control, datagrams, code)
        return _BLOCKED if code == errno.EAGAIN else SendResult(0, len(datagrams), code)

    def _transmit(self, buffers: Sequence[_Buffer], ancillary: Ancillary, address: Address) -> int:
        """``sendmsg``, once more if the first only reported an older error; returns errno, 0 for success."""
        try:
            self._sendmsg(buffers, ancillary, 0, address)
        except OSError as error:
            if error.errno not in _POSSIBLY_PENDING:
                return error.errno or errno.EIO
            try:
                self._sendmsg(buffers, ancillary, 0, address)
            except OSError as second_error:
                return second_error.errno or errno.EIO
        self.send_calls += 1
        return 0

    def _send_refused(
        self, address: Address, control: Ancillary, datagrams: Sequence[_Buffer], refusal: int
    ) -> SendResult:
        """
        Send one by one what was refused as a train, and find out whether segmentation is at fault.

        EIO is the kernel's word for a device or route that cannot segment. EINVAL may mean the same, but also
        a destination it would refuse in any form, such as port 0, which a peer can forge: only when the same
        datagrams pass singly is segmentation given up, else one forged datagram would slow down everybody.
        """
        self.gso_refused += 1
        result = self._send_singly(address, control, datagrams)
        if refusal == errno.EIO or (refusal == errno.EINVAL and result.sent and not result.dropped):
            self._gso = False
        return result

    def _send_singly(self, address: Address, control: Ancillary, datagrams: Sequence[_Buffer]) -> SendResult:
        sent = dropped = last_errno = 0
        for datagram in datagrams:
            result = self._send_one(address, control, datagram)
            if not result.handled:
                break
            sent += result.sent
            dropped += result.dropped
            last_errno = result.errno or last_errno
        return SendResult(sent, dropped, last_errno)

    def _remember_path(self, key: object, address: Address, packet_info: bytes) -> PathAddress:
        """Make the one ``PathAddress`` of a sender; equal ones may exist after the cache was emptied."""
        flowinfo, scope_id = address[2:4] if self._ipv6 else (0, 0)
        path = PathAddress(
            str(address[0]),
            int(str(address[1])),
            int(str(flowinfo)),
            int(str(scope_id)),
            reply_control(packet_info),
            self.socket_index,
        )
        if len(self._paths) >= self._max_paths:
            self._paths.clear()
        self._paths[key] = path
        return path


def _cut(pieces: Sequence[memoryview], segment_size: int) -> list[memoryview]:
    return [datagram for piece in pieces for datagram in split_train(piece, segment_size)]
