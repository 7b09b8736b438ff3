"""
Finds the node's own messages among a peer's unidirectional streams.

Coordination, relay channels and everything else share one kind of stream and are told apart by their first bytes. This
service stands before the application: what begins like one of the node's messages is collected and handed to whom it is
for, the rest is passed on untouched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aioquic.quic.events import QuicEvent, StreamDataReceived, StreamReset

from antquic_server.protocol.codepoints import ApplicationErrorCode
from workers.connection import Connection, StreamOwner
from workers.service import Service

_UNIDIRECTIONAL = 2

MAX_HELD_BYTES = 4 * 16_384
"""Unfinished messages of one connection together: four of the longest kind, coordination's. A peer with one request at
a time holds less than 4 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageKind:
    """
    Messages of the node's own that begin with ``prefix``.

    ``handle`` gets each whole message with the connection it came on; ``count_malformed`` is called for one
    that went on beyond ``max_message_bytes`` or exceeded what the connection may leave unfinished.
    """

    prefix: bytes
    max_message_bytes: int
    handle: Callable[[Connection, bytes], None]
    count_malformed: Callable[[], None]


class ControlStreams:
    """A service in front of ``application``, which sees no message of these kinds."""

    def __init__(self, kinds: Sequence[MessageKind], application: Service) -> None:
        self._kinds = tuple(kinds)
        self._application = application

    def handle_event(self, connection: Connection, event: QuicEvent) -> None:
        """React to one event."""
        if isinstance(event, StreamDataReceived) and event.stream_id & _UNIDIRECTIONAL:
            passed_on = self._sort_untrusted(connection, event)
            if passed_on is not None:
                self._application.handle_event(connection, passed_on)
            return
        if isinstance(event, StreamReset):
            owner = connection.control_streams.pop(event.stream_id, StreamOwner.APPLICATION)
            if owner is not StreamOwner.APPLICATION:
                return  # the application has seen nothing of this stream
        self._application.handle_event(connection, event)

    def connection_closed(self, connection: Connection) -> None:
        """Forget unfinished messages."""
        connection.control_streams.clear()
        self._application.connection_closed(connection)

    def _sort_untrusted(self, connection: Connection, event: StreamDataReceived) -> StreamDataReceived | None:
        """Keep what is, or may yet become, one of our messages; return what is the application's."""
        streams = connection.control_streams
        begun = streams.pop(event.stream_id, b"")
        if isinstance(begun, StreamOwner):
            # Once it is known whose a stream is, that holds to its end.
            if not event.end_stream:
                streams[event.stream_id] = begun
            return event if begun is StreamOwner.APPLICATION else None
        data = begun + event.data
        kind = next((kind for kind in self._kinds if data.startswith(kind.prefix)), None)
        if kind is None:
            if event.end_stream or not any(item.prefix.startswith(data) for item in self._kinds):
                if not event.end_stream:
                    streams[event.stream_id] = StreamOwner.APPLICATION
                return replace(event, data=data)
            streams[event.stream_id] = data
        elif event.end_stream:
            kind.handle(connection, data)
        elif len(data) > kind.max_message_bytes or len(data) + _held_bytes(connection) > MAX_HELD_BYTES:
            kind.count_malformed()
            connection.quic.stop_stream(event.stream_id, ApplicationErrorCode.LIFECYCLE_CLEANUP)
            streams[event.stream_id] = StreamOwner.NOBODY
        else:
            streams[event.stream_id] = data
        return None


def _held_bytes(connection: Connection) -> int:
    return sum(len(item) for item in connection.control_streams.values() if isinstance(item, bytes))
