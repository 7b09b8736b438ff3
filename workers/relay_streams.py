"""
Finds the stream relay's requests among a peer's bidirectional streams.

This service stands before the application. A stream that begins like a request (``protocol.relay_stream``) is kept
here, every other one is passed on untouched. What becomes of a request is decided in ``workers.relay_desk``.
"""

from dataclasses import replace

from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset

from antquic_server.errors import RelayDecodeError
from antquic_server.ipc.messages import Message
from antquic_server.protocol.relay_limits import Refusal
from antquic_server.protocol.relay_stream import (
    BIND_REQUEST,
    MAX_REQUEST_BYTES,
    MessageReader,
    decode_request_untrusted,
)
from workers.connection import Connection
from workers.relay_desk import RelayDesk
from workers.relay_stream import RelayStream, Stage
from workers.service import Service

_KIND_MASK = 3
_CLIENT_BIDIRECTIONAL = 0
_LENGTH_BYTES = 4


class RelayStreams:
    """
    The stream relay of one worker, in front of ``application``.

    ``only_exact``: the application takes any stream, so only one that begins as ant-quic's requests do is kept.
    """

    def __init__(self, application: Service, desk: RelayDesk, *, only_exact: bool = False) -> None:
        self._application = application
        self._desk = desk
        self._only_exact = only_exact
        self._streams: dict[Connection, dict[int, RelayStream | None]] = {}
        """None: the stream is the application's. A connection has at most 128 at a time."""

    def handle_event(self, connection: Connection, event: QuicEvent) -> None:
        """React to one event."""
        if isinstance(event, StreamDataReceived):
            if event.stream_id & _KIND_MASK == _CLIENT_BIDIRECTIONAL:
                self._take_data(connection, event)
                return
        elif isinstance(event, StreamReset | StopSendingReceived):
            streams = self._streams.get(connection, {})
            stream = streams.get(event.stream_id)
            if stream is not None:
                self._desk.given_up(stream, by_sender=isinstance(event, StreamReset))
                return
            if isinstance(event, StreamReset):
                streams.pop(event.stream_id, None)
        self._application.handle_event(connection, event)

    def connection_closed(self, connection: Connection) -> None:
        """End the sessions of a connection that has ended."""
        for stream in self._streams.pop(connection, {}).values():
            if stream is not None:
                self._desk.connection_lost(stream)
        self._application.connection_closed(connection)

    def handle_message(self, message: Message) -> None:
        """React to what the hub says."""
        self._desk.handle_message(message)

    def drain(self) -> None:
        """End every session and accept none any more."""
        self._desk.drain()

    def _take_data(self, connection: Connection, event: StreamDataReceived) -> None:
        streams = self._streams.setdefault(connection, {})
        stream_id = event.stream_id
        if stream_id not in streams:
            streams[stream_id] = RelayStream(connection, stream_id, streams)
        stream = streams[stream_id]
        if stream is None:
            if event.end_stream:
                del streams[stream_id]
            self._application.handle_event(connection, event)
            return
        stream.ended = event.end_stream
        if stream.stage is Stage.OPEN:
            self._desk.feed(stream, event.data)
            return
        if stream.stage is Stage.REQUEST:
            self._collect_untrusted(stream, event)
        elif stream.stage is Stage.WAITING:
            # Who does not wait for the answer has not understood the question; nothing of it is kept.
            stream.is_hasty = True
        stream.forget_if_over()

    def _collect_untrusted(self, stream: RelayStream, event: StreamDataReceived) -> None:
        data = stream.begun + event.data
        if not self._may_be_request(data, stream.ended):
            stream.pass_on()
            self._application.handle_event(stream.connection, replace(event, data=data))
            return
        reader = MessageReader(MAX_REQUEST_BYTES)
        reader.feed(data)
        try:
            body = reader.next_untrusted()
            if body is None and not stream.ended:
                stream.begun = data
                return
            request = decode_request_untrusted(body or b"")
        except RelayDecodeError:
            self._desk.refuse(stream, Refusal.BAD_REQUEST)
            return
        stream.begun = b""
        if stream.ended or reader.pending_bytes:
            self._desk.refuse(stream, Refusal.BAD_REQUEST)
        elif not request.bind:
            self._desk.refuse(stream, Refusal.UNSUPPORTED)
        else:
            self._desk.reserve(stream)

    def _may_be_request(self, data: bytes, ended: bool) -> bool:
        """Tell whether a stream is the relay's, as far as its first bytes say."""
        if self._only_exact:
            whole = len(data) >= len(BIND_REQUEST)
            return BIND_REQUEST.startswith(data[: len(BIND_REQUEST)]) and (whole or not ended)
        # What has a length that no request has is the magic of something else.
        length = int.from_bytes(data[:_LENGTH_BYTES].ljust(_LENGTH_BYTES, b"\0"), "big")
        return length <= MAX_REQUEST_BYTES and (len(data) >= _LENGTH_BYTES or not ended)
