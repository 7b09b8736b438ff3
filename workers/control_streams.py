"""
Finds the node's own messages among a peer's unidirectional streams.

Coordination messages and everything else share one kind of stream and are told apart by their first bytes. This service
stands before the application: what begins like a coordination message is collected and handled here, the rest is passed
on untouched.
"""

from dataclasses import replace

from aioquic.quic.events import QuicEvent, StreamDataReceived, StreamReset

from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.protocol.coordination import MAX_MESSAGE_BYTES, PREFIX
from antquic_server.stats.counters import CounterSet
from workers.connection import Connection, StreamOwner
from workers.coordination import Coordination
from workers.service import Service

_UNIDIRECTIONAL = 2

MAX_HELD_BYTES = 4 * MAX_MESSAGE_BYTES
"""Unfinished messages of one connection together; a peer with one request at a time holds less than 4 kB."""


class ControlStreams:
    """A service in front of ``application``, which sees no coordination message."""

    def __init__(self, coordination: Coordination, application: Service, counters: CounterSet) -> None:
        self._coordination = coordination
        self._application = application
        self._counters = counters

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
        if not data.startswith(PREFIX) and (event.end_stream or not PREFIX.startswith(data)):
            if not event.end_stream:
                streams[event.stream_id] = StreamOwner.APPLICATION
            return replace(event, data=data)
        if event.end_stream:
            self._coordination.handle_message_untrusted(connection, data)
        elif len(data) > MAX_MESSAGE_BYTES or len(data) + _held_bytes(connection) > MAX_HELD_BYTES:
            self._counters.add("coordinations", 1, "malformed")
            connection.quic.stop_stream(event.stream_id, ApplicationErrorCode.LIFECYCLE_CLEANUP)
            streams[event.stream_id] = StreamOwner.NOBODY
        else:
            streams[event.stream_id] = data
        return None


def _held_bytes(connection: Connection) -> int:
    return sum(len(item) for item in connection.control_streams.values() if isinstance(item, bytes))
