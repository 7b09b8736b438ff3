"""
What a node does with the streams and datagrams of its peers.

:class:`Service` is the seam between the endpoint, which moves packets, and the things peers ask for.
:class:`BasicService` is the least a node owes any peer: it answers liveness probes, drains messages nobody asked for
and refuses streams it does not serve.
"""

from typing import Protocol

from aioquic.quic.events import QuicEvent, StreamDataReceived, StreamReset

from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.protocol.liveness import PROBE_BYTES, answer_probe_untrusted
from antquic_server.stats.counters import CounterSet
from workers.connection import Connection


class Service(Protocol):
    """Called by the endpoint, always with the connection the event belongs to."""

    def handle_event(self, connection: Connection, event: QuicEvent) -> None:
        """React to one event; whatever is written to the connection goes out at the end of the burst."""

    def connection_closed(self, connection: Connection) -> None:
        """Forget what was kept for a connection that has ended."""


class BasicService:
    """Answers probes, drains the rest."""

    def __init__(self, counters: CounterSet) -> None:
        self._counters = counters

    def handle_event(self, connection: Connection, event: QuicEvent) -> None:
        """React to one event."""
        if isinstance(event, StreamReset):
            self._probes(connection).pop(event.stream_id, None)
        elif isinstance(event, StreamDataReceived):
            if event.stream_id & 2:
                self._handle_message_part(connection, event)
            else:
                self._refuse_stream(connection, event)

    def connection_closed(self, connection: Connection) -> None:
        """Forget the beginnings of messages."""
        connection.service_state = None

    def _handle_message_part(self, connection: Connection, event: StreamDataReceived) -> None:
        # A probe is 24 bytes; of anything longer no more than that is ever kept.
        beginnings = self._probes(connection)
        message = beginnings.pop(event.stream_id, b"") + event.data[: PROBE_BYTES + 1]
        if not event.end_stream:
            beginnings[event.stream_id] = message[: PROBE_BYTES + 1]
            return
        answer = answer_probe_untrusted(message)
        if answer is not None and not connection.quic.send_message(answer):
            self._counters.add("drops", 1, "answer_blocked")

    def _refuse_stream(self, connection: Connection, event: StreamDataReceived) -> None:
        if event.data or event.end_stream:
            connection.quic.reset_stream(event.stream_id, ApplicationErrorCode.LIFECYCLE_CLEANUP)
            if not event.end_stream:
                connection.quic.stop_stream(event.stream_id, ApplicationErrorCode.LIFECYCLE_CLEANUP)

    def _probes(self, connection: Connection) -> dict[int, bytes]:
        if not isinstance(connection.service_state, dict):
            connection.service_state = {}
        return connection.service_state
