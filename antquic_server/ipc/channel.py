"""
The message channel between supervisor and one worker, on an event loop.

Either end of a connected ``SOCK_STREAM`` socket pair. A slow reader costs its writer at most
``max_queued_bytes``: beyond that, messages that only inform are dropped and counted. Messages that steer the
life of a worker are few and are always queued.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from antquic_server.errors import MessageDecodeError
from antquic_server.ipc.codec import MessageDecoder, encode
from antquic_server.ipc.log_messages import LogLevels, QlogEnded, QlogStart, QlogStop
from antquic_server.ipc.messages import (
    Assign,
    BootFailed,
    CertificateChanged,
    Drain,
    Drained,
    Hello,
    LimitsChanged,
    Message,
    Ready,
)

CONTROL_MESSAGES: Final = (
    *(Hello, Assign, Ready, BootFailed, Drain, Drained, LimitsChanged),
    *(CertificateChanged, LogLevels, QlogStart, QlogStop, QlogEnded),
)
"""Never dropped: each is sent about once in the life of a worker or by hand, so they cannot fill a queue."""

DEFAULT_MAX_QUEUED_BYTES: Final = 1 << 20
"""Some ten thousand directory changes, or a hundred statistics snapshots."""

END_OF_STREAM: Final = "end of stream"
"""The reason given when the other end has closed, as a process that ends does."""

_READ_BYTES: Final = 1 << 16
_READS_PER_WAKEUP: Final = 8
"""So that a worker which never stops talking leaves time for the others: 512 kB, then the loop goes round."""


class Channel:
    """
    Sends and receives messages without blocking; every call happens on the loop's thread.

    Args:
        sock: One end of a socket pair; from now on it belongs to the channel, which closes it.
        on_message: Called with each message, in order.
        on_closed: Called once with a one-line reason when the other end is gone or talks nonsense; not called
            after ``close``.
        loop: The event loop, asyncio's or uvloop's.
        max_queued_bytes: Bound of what waits to be sent, control messages apart.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_closed: Callable[[str], None],
        loop: asyncio.AbstractEventLoop,
        max_queued_bytes: int = DEFAULT_MAX_QUEUED_BYTES,
    ) -> None:
        sock.setblocking(False)
        self.dropped = 0
        self.closed = False
        self._sock = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = loop
        self._max_queued_bytes = max_queued_bytes
        self._decoder = MessageDecoder()
        self._queue = bytearray()
        self._writing = False
        self._broken = False
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the other end to read."""
        return len(self._queue)

    def send(self, message: Message) -> bool:
        """Send or queue a message; False if it was dropped: the queue is full or the other end is gone."""
        if self.closed or self._broken:
            self.dropped += 1
            return False
        data = encode(message)
        full = len(self._queue) + len(data) > self._max_queued_bytes
        if full and not isinstance(message, CONTROL_MESSAGES):
            self.dropped += 1
            return False
        self._queue += data
        if not self._writing:
            self._flush()
        return True

    def receive_pending(self) -> None:
        """Take in everything that has arrived by now: the last words of a process that is already dead."""
        while not self.closed and self._receive_once():
            pass

    def close(self) -> None:
        """Close the socket, what is queued is lost; may be called twice."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._stop_writing()
        self._sock.close()

    def _readable(self) -> None:
        for _ in range(_READS_PER_WAKEUP):
            if self.closed or not self._receive_once():
                return

    def _receive_once(self) -> bool:
        """Read once and deliver what is complete; False when nothing more can be read now."""
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._fail(f"channel broken: {error.strerror}")
            return False
        if not data:
            self._fail(END_OF_STREAM)
            return False
        self._decoder.feed(data)
        try:
            while not self.closed and (message := self._decoder.next()) is not None:
                self._on_message(message)
        except MessageDecodeError as error:
            self._fail(f"malformed message: {error}")
            return False
        return len(data) == _READ_BYTES

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._queue, socket.MSG_NOSIGNAL) if self._queue else 0
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            # The reader may still find last words in the socket, so closing is left to it: it sees the end
            # next.
            self._broken = True
            self._queue.clear()
            self._stop_writing()
            return
        del self._queue[:sent]
        if not self._queue:
            self._stop_writing()
        elif not self._writing:
            self._writing = True
            self._loop.add_writer(self._sock.fileno(), self._flush)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock.fileno())

    def _fail(self, reason: str) -> None:
        if not self.closed:
            self.close()
            self._on_closed(reason)
