"""One bidirectional stream of a connection between peers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from antquic_server.errors import PeerClosedError, PeerError
from antquic_server.peer.link import Link

if TYPE_CHECKING:
    from antquic_server.protocol.seam.connection import NodeQuicConnection

__all__ = ["PeerStream", "Standing"]

WRITE_CHUNK_BYTES = 64 * 1024
WRITE_HIGH_BYTES = 512 * 1024
"""Unacknowledged data of one stream beyond which ``write`` waits: a few round trips on a fast path."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Which streams of a connection something is to be done about; each enters and leaves by itself."""

    blocked: "set[PeerStream]" = field(default_factory=set)
    """Somebody waits until more is acknowledged."""
    ending: "set[PeerStream]" = field(default_factory=set)
    """Both directions have ended for whoever uses them; QUIC may still have to tell the other side."""


class PeerStream:
    """
    Bytes in both directions, with back-pressure in both.

    Closing the stream ends what we send; reading goes on until the other side has ended, too. Not for two tasks that
    read, or two that write, at once.
    """

    def __init__(self, link: Link, stream_id: int, touch: Callable[[Link], None], standing: Standing) -> None:
        self.stream_id = stream_id
        self.bytes_sent = 0
        self.bytes_received = 0
        self._link = link
        self._quic: NodeQuicConnection = link.quic  # type: ignore[assignment]  # the shell makes no others
        self._touch = touch
        self._standing = standing
        self._buffer = bytearray()
        self._ended = False
        self._finished = False
        self._left = False
        self._error: PeerError | None = None
        self._changed = asyncio.Event()

    @property
    def key(self) -> tuple[int, int]:
        """Numbers of the QUIC connection and of the stream."""
        return self._link.number, self.stream_id

    @property
    def is_known(self) -> bool:
        """Whether QUIC has not forgotten it yet: something may still arrive, or has to be sent."""
        return not self._link.closed and self._quic.stream_is_known(self.stream_id)

    async def read(self, limit: int = WRITE_CHUNK_BYTES) -> bytes:
        """
        Return what has arrived, at least one byte and at most ``limit``; ``b""`` when the other side has ended.

        Raises:
            PeerError: The stream was reset, or the connection has ended before it was complete.
        """
        while not self._buffer:
            if self._ended:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        data = bytes(self._buffer[:limit])
        del self._buffer[:limit]
        if not self._link.closed:
            self._quic.held_by_application_bytes -= len(data)
            # The peer may be waiting for the credit.
            self._touch(self._link)
        return data

    async def read_exactly(self, count: int) -> bytes:
        """Return exactly ``count`` bytes; PeerError if the stream ends before."""
        data = bytearray()
        while len(data) < count:
            part = await self.read(count - len(data))
            if not part:
                raise PeerError(f"stream ended after {len(data)} of {count} bytes")
            data += part
        return bytes(data)

    async def write(self, data: bytes) -> None:
        """
        Send bytes; returns once most of what was written has been acknowledged.

        Raises:
            PeerError: The stream was closed or reset, or the connection has ended.
        """
        for start in range(0, len(data), WRITE_CHUNK_BYTES):
            await self._wait_writable()
            chunk = data[start : start + WRITE_CHUNK_BYTES]
            self._quic.send_stream_data(self.stream_id, chunk)
            self.bytes_sent += len(chunk)
            self._touch(self._link)

    async def close(self) -> None:
        """Say that nothing more will be written, and wait until everything has arrived; safe to call twice."""
        if self._is_over():
            return
        if not self._finished:
            self._finished = True
            self._note_end()
            if self._quic.stream_is_writable(self.stream_id):
                self._quic.send_stream_data(self.stream_id, b"", end_stream=True)
                self._touch(self._link)
        while self._error is None and not self._is_over() and self._quic.stream_backlog_bytes(self.stream_id):
            await self._wait_for_progress()

    def reset(self, error_code: int = 0) -> None:
        """Give the stream up in both directions."""
        self._finished = True
        if not self._link.closed:
            self._give_up(error_code)
            self._quic.held_by_application_bytes -= len(self._buffer)
        self._buffer.clear()
        self.fail(PeerError("the stream was given up"))

    # What the connection reports.

    def data_arrived(self, data: bytes, *, end: bool) -> None:
        """Take in data of the peer."""
        if self._error is not None:
            return
        self._buffer += data
        self.bytes_received += len(data)
        self._quic.held_by_application_bytes += len(data)
        self._ended = self._ended or end
        self._note_end()
        self._changed.set()

    def given_up(self, error_code: int, *, sends: bool) -> None:
        """The peer does not read any more, or does not send: the other direction is of no use then, and ended, too."""
        self._give_up(error_code, stop=sends)
        self.fail(PeerError(f"the peer has given the stream up (code {error_code:#x})"))

    def fail(self, error: PeerError) -> None:
        """The stream is over before its time: readers get what has arrived, then the error."""
        if self._error is None:
            self._error = error
        self._note_end()
        self._changed.set()

    def wake(self) -> None:
        """Let a waiting writer look again."""
        self._changed.set()

    def leave(self) -> None:
        """Nothing is to be done about it any more."""
        self._left = True
        self._standing.ending.discard(self)

    def _is_over(self) -> bool:
        return self._link.closed or self._quic.is_closing

    def _give_up(self, error_code: int, *, stop: bool = True) -> None:
        # Once: two sides that answer each other's STOP_SENDING would go on for ever.
        if self._error is None and self.is_known:
            if self._quic.stream_is_writable(self.stream_id):
                self._quic.reset_stream(self.stream_id, error_code)
            if stop and not self._ended:
                self._quic.stop_stream(self.stream_id, error_code)
            self._touch(self._link)

    def _note_end(self) -> None:
        if not self._left and (self._error is not None or (self._ended and self._finished)):
            self._standing.ending.add(self)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _wait_for_progress(self) -> None:
        self._standing.blocked.add(self)
        try:
            await self._wait()
        finally:
            self._standing.blocked.discard(self)

    async def _wait_writable(self) -> None:
        while True:
            if self._error is not None:
                raise self._error
            if self._is_over():
                raise PeerClosedError(0, "the connection has ended")
            if self._finished:
                raise PeerError("the stream is closed for writing")
            if self.is_known and not self._quic.stream_is_writable(self.stream_id):
                # Its STOP_SENDING came before the stream's first data, when there was nothing yet to be told.
                raise PeerError("the peer does not read this stream any more")
            if self._quic.stream_backlog_bytes(self.stream_id) < WRITE_HIGH_BYTES:
                return
            await self._wait_for_progress()
