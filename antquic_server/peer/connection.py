"""The connection with one peer, as a program uses it."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from aioquic.quic.events import StopSendingReceived, StreamDataReceived, StreamReset

from antquic_server.errors import PeerClosedError, PeerError, UsageError
from antquic_server.peer.inbox import Inbox
from antquic_server.peer.link import Link
from antquic_server.peer.punching import Failure
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.stream import PeerStream
from antquic_server.peer.streams import Streams
from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.protocol.liveness import PROBE_MAGIC, TAG_BYTES, answered_tag_untrusted
from antquic_server.protocol.seam.connection import NodeQuicConnection

__all__ = ["PeerConnection"]

SEND_HIGH_BYTES = 1 << 20
"""Unacknowledged data of a connection beyond which ``send_message`` waits."""
CLOSE_GRACE_S = 1.0
"""How long ``close`` waits for a handshake that is not confirmed yet (RFC 9001, section 4.1.2)."""
PROBE_TIMEOUT_S = 5.0
MAX_PENDING_DATAGRAMS = 256
"""DATAGRAM frames that wait for congestion control; more are dropped and counted."""
_SERVER_INITIATED = 1


class PeerConnection:
    """
    One peer, however many QUIC connections there are to it for a while.

    New streams, messages and datagrams use the live one; a stream stays on the one it was opened on. ``closed`` is set
    when the last has ended, and ``close_code`` and ``close_reason`` then say why.
    """

    def __init__(
        self,
        link: Link,
        *,
        settings: PeerSettings,
        touch: Callable[[Link], None],
        close_peer: Callable[[bytes, int, str], None],
        drops: Counter[str],
    ) -> None:
        assert link.peer_id is not None, "a link is ready only with its peer known"
        self.peer_id: bytes = link.peer_id
        self.closed = asyncio.Event()
        self.close_code = 0
        self.close_reason = ""
        self._link = link
        self._settings = settings
        self._touch = touch
        self._close_peer = close_peer
        self._closing = False
        self._drops = drops
        self._streams = Streams(touch)
        self._messages: Inbox[tuple[Link, bytes]] = Inbox(settings.max_queued_messages)
        self._datagrams: Inbox[bytes] = Inbox(settings.max_queued_datagrams)
        self._incoming: Inbox[PeerStream] = Inbox(settings.max_queued_streams)
        self._progress = asyncio.Event()
        self._path_changed = asyncio.Event()
        self._probes: dict[bytes, asyncio.Future[float]] = {}
        """Liveness probes that wait for an answer, by tag."""

    @property
    def path(self) -> str:
        """How it goes: ``direct`` or ``punched``, or ``relayed`` by a node; that may change while it lives."""
        if self._link.relayed:
            return "relayed"
        return "punched" if self._link.punched else "direct"

    @property
    def relayed_by(self) -> bytes | None:
        """Peer id of the node that carries it, None for one that is not relayed."""
        return self._link.relayed_by if self._link.relayed else None

    @property
    def why_not_direct(self) -> Failure | None:
        """Why it is relayed, if it is and if we know: the other side may have been the one that tried."""
        why = self._link.why_not_direct if self._link.relayed else None
        return None if why is None else Failure(why)

    async def wait_for_path(self, *paths: str) -> str:
        """Wait until it goes one of these ways and return which; PeerClosedError if it ends before."""
        while self.path not in paths:
            if self.is_closed:
                raise PeerClosedError(self.close_code, self.close_reason or "the connection is closing")
            self._path_changed.clear()
            await self._path_changed.wait()
        return self.path

    @property
    def remote_address(self) -> tuple[str, int]:
        """Host and port of the peer as we see them now."""
        return str(self._link.path[0]), int(self._link.path[1])

    @property
    def path_mtu_bytes(self) -> int:
        """The largest datagram that goes to the peer now, in bytes of UDP payload."""
        return self._link.quic.path_mtu_bytes

    @property
    def dialled_by_us(self) -> bool:
        """Whether the live connection is one that we dialled."""
        return self._link.dialled_by_us

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._closing or self.closed.is_set() or self._link.quic.is_closing

    @property
    def link_number(self) -> int:
        """Number of the live QUIC connection; changes when another takes its place."""
        return self._link.number

    # Streams.

    async def open_stream(self) -> PeerStream:
        """Open a bidirectional stream; PeerClosedError if the connection has ended."""
        quic = self._quic
        stream_id = quic.get_next_available_stream_id()
        stream = self._streams.begin(self._link, stream_id)
        # The ID is taken by the first use.
        quic.send_stream_data(stream_id, b"")
        return stream

    async def accept_stream(self) -> PeerStream:
        """Return the next stream that the peer has opened; PeerClosedError when the connection has ended."""
        return await self._incoming.get()

    # Messages and datagrams.

    async def send_message(self, data: bytes) -> None:
        """
        Send one message of at most ``max_message_bytes``; returns once it is on its way.

        Raises:
            UsageError: It is empty or too long.
            PeerClosedError: The connection has ended.
        """
        if not 0 < len(data) <= self._settings.max_message_bytes:
            raise UsageError(f"message of {len(data)} bytes: expected 1 to {self._settings.max_message_bytes}")
        while self._quic.send_backlog_bytes() > SEND_HIGH_BYTES or not self._quic.send_message(data):
            self._progress.clear()
            await self._progress.wait()
        self._touch(self._link)

    async def recv_message(self) -> bytes:
        """Return the next message of the peer; PeerClosedError when the connection has ended and none is left."""
        link, data = await self._messages.get()
        if not link.closed:
            link.quic.held_by_application_bytes -= len(data)
            self._touch(link)
        return data

    async def ping(self, timeout_s: float = PROBE_TIMEOUT_S) -> float:
        """
        Return the seconds that a message to the peer and its answer take: proof that bytes pass both ways.

        Raises:
            PeerError: No answer came within ``timeout_s`` seconds.
            PeerClosedError: The connection has ended.
        """
        tag, loop = os.urandom(TAG_BYTES), asyncio.get_running_loop()
        answered: asyncio.Future[float] = loop.create_future()
        self._probes[tag] = answered
        started_s = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                await self.send_message(PROBE_MAGIC + tag)
                return await answered - started_s
        except TimeoutError:
            raise PeerError(f"connected, but no bytes pass: no answer to a probe within {timeout_s:g} s") from None
        finally:
            del self._probes[tag]

    def send_datagram(self, data: bytes) -> bool:
        """
        Send an unreliable datagram; False if it was dropped because too many wait already.

        Raises:
            UsageError: It does not fit one packet to this peer.
            PeerClosedError: The connection has ended.
        """
        quic = self._quic
        if len(data) > quic.max_datagram_frame_bytes:
            raise UsageError(f"datagram of {len(data)} bytes: this peer takes at most {quic.max_datagram_frame_bytes}")
        if quic.datagrams_pending >= MAX_PENDING_DATAGRAMS:
            self._drops["datagram_not_sent"] += 1
            return False
        quic.send_datagram_frame(data)
        self._touch(self._link)
        return True

    async def recv_datagram(self) -> bytes:
        """Return the next datagram of the peer; PeerClosedError when the connection has ended and none is left."""
        return await self._datagrams.get()

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield messages until the connection ends."""
        while True:
            try:
                yield await self.recv_message()
            except PeerClosedError:
                return

    async def close(self, code: int = ApplicationErrorCode.PEER_SHUTDOWN, reason: str = "PeerShutdown") -> None:
        """Close every QUIC connection to this peer and wait until they have ended."""
        if not self.closed.is_set():
            with suppress(TimeoutError, PeerClosedError):
                await asyncio.wait_for(self._confirmed(), CLOSE_GRACE_S)
            self._closing = True
            self._close_peer(self.peer_id, int(code), reason)
            await self.closed.wait()

    async def _confirmed(self) -> None:
        """Wait until the peer is known to have completed the handshake: before, it cannot read why we close."""
        while not (self._link.closed or self._quic.handshake_confirmed):
            self._progress.clear()
            await self._progress.wait()

    # What the endpoint reports.

    def use(self, link: Link) -> None:
        """Make another QUIC connection the live one."""
        self._link = link
        self.path_changed()
        self.wake()

    def path_changed(self) -> None:
        """The connection goes another way now."""
        self._path_changed.set()

    def message_arrived(self, link: Link, data: bytes) -> None:
        """Queue a message, or drop it; the answer to a probe of ours ends the wait for it."""
        tag = answered_tag_untrusted(data)
        if tag is not None:
            waiting = self._probes.get(tag)
            if waiting is not None and not waiting.done():
                waiting.set_result(waiting.get_loop().time())
        elif self._messages.put((link, data)):
            link.quic.held_by_application_bytes += len(data)
        else:
            self._drops["message_queue_full"] += 1

    def datagram_arrived(self, data: bytes) -> None:
        """Queue a datagram, or drop it."""
        if not self._datagrams.put(data):
            self._drops["datagram_queue_full"] += 1

    def stream_activity(self, link: Link, event: Any) -> None:
        """Handle data or the end of a bidirectional stream."""
        if not isinstance(event, StreamDataReceived | StreamReset | StopSendingReceived):
            return
        stream = self._streams.find(link, event.stream_id)
        if stream is None:
            peers_own = bool(event.stream_id & _SERVER_INITIATED) == link.dialled_by_us
            if not isinstance(event, StreamDataReceived) or not peers_own:
                return
            stream = self._streams.begin(link, event.stream_id)
            if not self._incoming.put(stream):
                self._drops["stream_queue_full"] += 1
                # Kept until it is over, so that what still arrives of it is not taken for another one.
                stream.reset()
        if isinstance(event, StreamDataReceived):
            stream.data_arrived(event.data, end=event.end_stream)
        else:
            stream.given_up(event.error_code, sends=isinstance(event, StopSendingReceived))

    def link_closed(self, number: int, error: PeerError) -> None:
        """End the streams of a QUIC connection that has ended."""
        self._streams.link_closed(number, error)

    def ended(self, code: int, reason: str) -> None:
        """The last QUIC connection has ended: wake everybody."""
        self.close_code, self.close_reason = code, reason
        error = PeerClosedError(code, reason)
        self._streams.end(error)
        for inbox in (self._messages, self._datagrams, self._incoming):
            inbox.end(error)
        for waiting in self._probes.values():
            if not waiting.done():
                waiting.set_exception(error)
        self.closed.set()
        self._progress.set()
        self._path_changed.set()

    def wake(self) -> None:
        """Something was sent or acknowledged: let waiting writers look again."""
        self._progress.set()
        self._streams.wake()

    @property
    def _quic(self) -> NodeQuicConnection:
        if self.is_closed:
            raise PeerClosedError(self.close_code, self.close_reason or "the connection is closing")
        quic: NodeQuicConnection = self._link.quic  # type: ignore[assignment]  # the shell makes no others
        return quic
