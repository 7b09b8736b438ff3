"""
What a socket would not take yet.

A UDP socket blocks when its send buffer is full. What is left of a batch waits here, per socket, up to a bound, and
goes out when the socket is writable again; beyond the bound datagrams are dropped and counted, which QUIC takes as
loss on the path and slows down.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Sequence

from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.stats.counters import CounterSet

MAX_QUEUED_DATAGRAMS = 4096
"""About 5 MB of full-size datagrams per socket, a few milliseconds of a gigabit link."""


class Outgoing:
    """Sends through one socket, queueing while it blocks."""

    def __init__(self, socket: UdpSocket, counters: CounterSet, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = socket
        self._counters = counters
        self._loop = loop
        self._queue: deque[tuple[PathAddress, Sequence[bytes]]] = deque()
        self._queued_datagrams = 0

    @property
    def queued_datagrams(self) -> int:
        """Datagrams that wait for the socket."""
        return self._queued_datagrams

    def send(self, path: PathAddress, datagrams: Sequence[bytes]) -> None:
        """Send or queue datagrams for one path, in order."""
        if self._queue:
            self._enqueue(path, datagrams)
            return
        rest = self._send_now(path, datagrams)
        if rest:
            self._enqueue(path, rest)
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def close(self) -> None:
        """Stop waiting; what is queued is lost."""
        if self._queue:
            self._loop.remove_writer(self._socket.fileno())
            self._queue.clear()
            self._queued_datagrams = 0

    def _send_now(self, path: PathAddress, datagrams: Sequence[bytes]) -> Sequence[bytes]:
        result = self._socket.send(path, datagrams)
        values = self._counters.values
        if result.sent == len(datagrams):
            values["datagrams_sent"] += result.sent
            values["bytes_sent"] += sum(map(len, datagrams))
            return ()
        values["datagrams_sent"] += result.sent
        values["bytes_sent"] += sum(map(len, datagrams[: result.sent]))
        if result.dropped:
            # What the link does not take is what a path MTU probe asks for, and no fault.
            reason = "above_link_mtu" if result.errno == errno.EMSGSIZE else "send_error"
            self._counters.add("drops", result.dropped, reason)
        return datagrams[result.handled :]

    def _enqueue(self, path: PathAddress, datagrams: Sequence[bytes]) -> None:
        if self._queued_datagrams + len(datagrams) > MAX_QUEUED_DATAGRAMS:
            self._counters.add("drops", len(datagrams), "send_queue_full")
            return
        self._queue.append((path, datagrams))
        self._queued_datagrams += len(datagrams)

    def _writable(self) -> None:
        while self._queue:
            path, datagrams = self._queue[0]
            rest = self._send_now(path, datagrams)
            self._queued_datagrams -= len(datagrams) - len(rest)
            if rest:
                self._queue[0] = (path, rest)
                return
            self._queue.popleft()
        self._loop.remove_writer(self._socket.fileno())
