"""What state a connection is in, for those who may not read aioquic's private names."""

from typing import Any

from aioquic.quic import connection as stock

from antquic_server.protocol.seam.qlog import TracedConnection


class ReadableConnection(TracedConnection):
    """A connection that can be asked; nothing here changes it."""

    @property
    def handshake_complete(self) -> bool:
        """Whether the TLS handshake is complete (RFC 9001, section 4.1.1)."""
        return self._handshake_complete

    @property
    def is_pristine(self) -> bool:
        """Whether no packet of the peer could be decrypted yet."""
        return self._state is stock.QuicConnectionState.FIRSTFLIGHT

    @property
    def handshake_confirmed(self) -> bool:
        """Whether the handshake is confirmed (RFC 9001, section 4.1.2)."""
        return self._handshake_confirmed

    @property
    def is_closing(self) -> bool:
        """Whether the connection is closing, draining or gone (RFC 9000, section 10)."""
        return self._close_pending or self._state in stock.END_STATES

    @property
    def is_terminated(self) -> bool:
        """Whether the connection has ended and can be forgotten."""
        return self._state is stock.QuicConnectionState.TERMINATED

    @property
    def close_code(self) -> int | None:
        """Error code of the close in progress, None while open."""
        return None if self._close_event is None else self._close_event.error_code

    @property
    def close_reason(self) -> str:
        """Reason phrase of the close in progress."""
        return "" if self._close_event is None else self._close_event.reason_phrase

    @property
    def issued_connection_ids(self) -> list[bytes]:
        """Connection IDs by which the peer may address us now."""
        return [connection_id.cid for connection_id in self._host_cids]

    @property
    def peer_reset_tokens(self) -> list[bytes]:
        """Stateless reset tokens the peer gave us (RFC 9000, section 10.3.1)."""
        identifiers = [self._peer_cid, *self._peer_cid_available]
        return [item.stateless_reset_token for item in identifiers if item.stateless_reset_token]

    @property
    def is_path_validated(self) -> bool:
        """Whether the address we send to now has proven that it receives."""
        return bool(self._network_paths) and self._network_paths[0].is_validated

    @property
    def validated_address(self) -> Any:
        """The one used last of the addresses that have proven that they receive; None before any has."""
        return next((path.addr for path in self._network_paths if path.is_validated), None)

    @property
    def unanswered_probes(self) -> int:
        """Probe timeouts in a row without any acknowledgement (RFC 9002, section 6.2)."""
        return self._loss._pto_count

    @property
    def datagrams_pending(self) -> int:
        """DATAGRAM frames waiting for congestion control."""
        return len(self._datagrams_pending)

    def stream_is_known(self, stream_id: int) -> bool:
        """Whether a stream has begun, and not ended in both directions with the end of ours acknowledged."""
        return stream_id in self._streams

    def stream_is_writable(self, stream_id: int) -> bool:
        """Whether data may still be sent on a stream: it is known, not ended and not reset by either side."""
        stream = self._streams.get(stream_id)
        return (
            stream is not None
            and stream.sender._buffer_fin is None
            and stream.sender._reset_error_code is None
            and not stream.sender.is_finished
        )
