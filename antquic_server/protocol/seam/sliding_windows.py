"""
Flow-control windows that slide with what was received, and stop when too much waits.

aioquic doubles a window whenever half of it is used, and never looks back: after a gigabyte a peer may have a gigabyte
in flight, and one that sends to an echo without reading makes us hold all of it. Here a window is a constant distance
ahead of what has arrived (RFC 9000, section 4.2), and it stands still while more than a bound waits to be sent or is
held by the application.
"""

from typing import Any

from aioquic.quic import connection as stock
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from antquic_server.protocol.seam.options import ConnectionOptions


class SlidingWindowConnection(stock.QuicConnection):
    """aioquic's connection with sliding windows, if the options give their sizes."""

    def __init__(self, *, configuration: QuicConfiguration, options: ConnectionOptions, **stock_arguments: Any) -> None:
        self._options = options
        super().__init__(configuration=configuration, **stock_arguments)
        self.held_by_application_bytes = 0
        """Received data the application still holds; counted against ``max_backlog_bytes``."""
        if self._options.connection_window_bytes is not None:
            self._local_max_data.value = self._local_max_data.sent = self._options.connection_window_bytes
        if self._options.stream_window_bytes is not None:
            window = self._options.stream_window_bytes
            self._local_max_stream_data_bidi_local = window
            self._local_max_stream_data_bidi_remote = window
            self._local_max_stream_data_uni = window

    def send_backlog_bytes(self) -> int:
        """Stream data not yet acknowledged plus what the application holds."""
        return self.held_by_application_bytes + sum(len(stream.sender._buffer) for stream in self._streams.values())

    def stream_backlog_bytes(self, stream_id: int) -> int:
        """Data of one stream not yet acknowledged; 0 for a stream that is over."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    @property
    def open_streams(self) -> int:
        """Streams that have not ended in both directions, those with data on its way included."""
        return sum(not stream.is_finished for stream in self._streams.values())

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        window = self._options.connection_window_bytes
        if window is None:
            super()._write_connection_limits(builder, space)
            return
        limit = self._local_max_data
        if limit.value - limit.used < window // 2 and not self._is_backlogged():
            limit.value = limit.used + window
        self._write_max_data_and_streams(builder)

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        window = self._options.stream_window_bytes
        if window is None:
            super()._write_stream_limits(builder, space, stream)
            return
        if not stream.max_stream_data_local or stream.receiver.is_finished:
            return
        used = stream.receiver.highest_offset
        if stream.max_stream_data_local - used < window // 2 and not self._is_backlogged():
            stream.max_stream_data_local = used + window
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            buf = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=stock.MAX_STREAM_DATA_FRAME_CAPACITY,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buf.push_uint_var(stream.stream_id or 0)
            buf.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    def _write_max_data_and_streams(self, builder: QuicPacketBuilder) -> None:
        limits = (self._local_max_data, self._local_max_streams_bidi, self._local_max_streams_uni)
        for limit in limits:
            granted = limit.value - limit.sent
            # As aioquic: MAX_STREAMS is worth a frame once it grants more than the peer has left.
            batched = limit is not self._local_max_data and limit.sent - limit.used >= granted
            if granted == 0 or batched:
                continue
            buf = builder.start_frame(
                limit.frame_type,
                capacity=stock.CONNECTION_LIMIT_FRAME_CAPACITY,
                handler=self._on_connection_limit_delivery,
                handler_args=(limit,),
            )
            buf.push_uint_var(limit.value)
            limit.sent = limit.value

    def _is_backlogged(self) -> bool:
        return self.send_backlog_bytes() > self._options.max_backlog_bytes
