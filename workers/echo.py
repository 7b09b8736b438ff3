"""
The ``--echo`` service: everything comes back, for tests and throughput measurement.

=======================  ===========================================================================================
sent by the peer         comes back
=======================  ===========================================================================================
bidirectional stream     the same bytes on the same stream, as they arrive, and its end
unidirectional stream    one message on a stream of ours, once the peer has ended its own
DATAGRAM frame           a DATAGRAM frame
=======================  ===========================================================================================

Bounds: unfinished messages of one connection hold at most ``max_message_bytes`` together, and the one that would
exceed that is dropped and counted; unread echoes stop the peer's flow control window from sliding
(``ConnectionOptions.max_backlog_bytes``); DATAGRAM frames beyond ``MAX_QUEUED_DATAGRAM_FRAMES`` waiting for congestion
control are dropped and counted.
"""

from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StreamDataReceived, StreamReset

from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.stats.counters import CounterSet
from workers.connection import Connection

MAX_QUEUED_DATAGRAM_FRAMES = 512
"""Half a megabyte per connection; more than a congestion window holds at any rate worth measuring."""


class EchoService:
    """Sends everything back."""

    def __init__(self, counters: CounterSet, *, max_message_bytes: int) -> None:
        self._counters = counters
        self._max_message_bytes = max_message_bytes

    def handle_event(self, connection: Connection, event: QuicEvent) -> None:
        """React to one event."""
        if isinstance(event, DatagramFrameReceived):
            self._echo_datagram(connection, event.data)
        elif isinstance(event, StreamDataReceived):
            if event.stream_id & 2:
                self._collect_message(connection, event)
            else:
                self._echo_stream(connection, event)
        elif isinstance(event, StreamReset):
            message = _messages(connection).pop(event.stream_id, None)
            if message is not None:
                connection.quic.held_by_application_bytes -= len(message)
            elif not event.stream_id & 2:
                connection.quic.reset_stream(event.stream_id, event.error_code)

    def connection_closed(self, connection: Connection) -> None:
        """Forget unfinished messages."""
        connection.service_state = None

    def _echo_datagram(self, connection: Connection, data: bytes) -> None:
        quic = connection.quic
        if len(data) > quic.max_datagram_frame_bytes:
            self._counters.add("drops", 1, "echo_datagram_too_large")
        elif quic.datagrams_pending >= MAX_QUEUED_DATAGRAM_FRAMES:
            self._counters.add("drops", 1, "echo_queue_full")
        else:
            quic.send_datagram_frame(data)
            self._counters.values["datagrams_echoed"] += 1

    def _echo_stream(self, connection: Connection, event: StreamDataReceived) -> None:
        if connection.quic.stream_is_writable(event.stream_id):
            connection.quic.send_stream_data(event.stream_id, event.data, end_stream=event.end_stream)
            if event.end_stream:
                self._counters.add("streams_echoed")

    def _collect_message(self, connection: Connection, event: StreamDataReceived) -> None:
        messages = _messages(connection)
        quic = connection.quic
        message = messages.setdefault(event.stream_id, bytearray())
        if message is None:
            # The rest of one that was too long, still on its way.
            if event.end_stream:
                del messages[event.stream_id]
            return
        message += event.data
        quic.held_by_application_bytes += len(event.data)
        # Together, not each: else several long ones could stop the window for each other, and none would ever end.
        if quic.held_by_application_bytes > self._max_message_bytes:
            quic.held_by_application_bytes -= len(message)
            self._counters.add("drops", 1, "echo_message_too_long")
            messages[event.stream_id] = None
            if event.end_stream:
                del messages[event.stream_id]
            else:
                quic.stop_stream(event.stream_id, ApplicationErrorCode.LIFECYCLE_CLEANUP)
        elif event.end_stream:
            del messages[event.stream_id]
            quic.held_by_application_bytes -= len(message)
            if quic.send_message(bytes(message)):
                self._counters.add("messages_echoed")
            else:
                self._counters.add("drops", 1, "answer_blocked")


def _messages(connection: Connection) -> dict[int, bytearray | None]:
    if not isinstance(connection.service_state, dict):
        connection.service_state = {}
    return connection.service_state
