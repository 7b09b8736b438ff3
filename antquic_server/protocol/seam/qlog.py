"""
Traces of single connections in qlog (draft-ietf-quic-qlog-main-schema-02, as aioquic and qvis have it).

aioquic can trace a connection from its beginning only, keeps all of it in memory, and writes the file at the end. A
node traces a connection that is there already, while it serves others; so a trace here is switched on and off at any
time, and leaves as lines of text while it grows. Nothing is different for a connection without one.

The file is one JSON object with one event on each line. ``head`` begins it, ``TAIL`` ends it, and between the lines
there are commas: a file that was cut off can be mended by hand.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

from aioquic.quic.logger import QLOG_VERSION, QuicLoggerTrace

from antquic_server.protocol.frames import ExtensionFrame
from antquic_server.protocol.seam.key_update import KeyUpdatingConnection

__all__ = ["TAIL", "ConnectionTrace", "TracedConnection", "head"]

TAIL: Final = "\n]}]}\n"
"""Ends the events, the trace, the list of traces and the file."""

_COMPLETE_AT: Final = frozenset(
    ("transport:datagrams_received", "transport:packet_received", "transport:packet_sent", "transport:datagrams_sent")
)
"""An event of these says that the packets before it have all their frames."""


def head(*, title: str, original_destination_cid: bytes, description: Mapping[str, object]) -> str:
    """
    Return the beginning of a file, up to where the events follow.

    Args:
        title: Shown by viewers.
        original_destination_cid: Of the client's first flight; names the trace.
        description: Facts about the trace, plain values.
    """
    trace = {
        "title": title,
        "vantage_point": {"name": "antquic-server", "type": "server"},
        "common_fields": {
            "ODCID": original_destination_cid.hex(),
            "group_id": original_destination_cid.hex(),
            "protocol_type": ["QUIC"],
            "time_format": "absolute",
        },
        "configuration": {"time_units": "ms"},
        "description": json.dumps(description),
    }
    start = json.dumps({"qlog_format": "JSON", "qlog_version": QLOG_VERSION, "title": title})
    return f'{start[:-1]}, "traces": [{json.dumps(trace)[:-1]}, "events": [\n'


class ConnectionTrace(QuicLoggerTrace):
    """
    Takes what aioquic logs about one connection, and passes it on as JSON texts in the order of time.

    Args:
        write: Given each event.
        clock: Seconds since 1970.
        original_destination_cid: Of the client's first flight.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float], original_destination_cid: bytes
    ) -> None:
        super().__init__(is_client=False, odcid=original_destination_cid)
        self.write = write
        """May be exchanged: a trace whose peer is not known yet is kept in memory first."""
        self._clock = clock
        self._waiting: list[dict[str, Any]] = []

    def log_event(self, *, category: str, event: str, data: dict[str, Any]) -> None:
        """Take one event. That of a packet received comes before its frames, which are added to ``data`` later."""
        name = f"{category}:{event}"
        if name in _COMPLETE_AT:
            self.flush()
        self._waiting.append({"time": self._clock() * 1000, "name": name, "data": data})

    def flush(self) -> None:
        """Pass on what waits; between two datagrams, not while one is handled."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            self.write(json.dumps(each))


class TracedConnection(KeyUpdatingConnection):
    """A connection on which a trace may be switched on and off, between two datagrams."""

    @property
    def original_destination_cid(self) -> bytes:
        """The Destination Connection ID of the client's first Initial."""
        return self._original_destination_connection_id or b""

    @property
    def trace(self) -> ConnectionTrace | None:
        """The trace that is on."""
        return self._quic_logger if isinstance(self._quic_logger, ConnectionTrace) else None

    def set_trace(self, trace: ConnectionTrace | None) -> None:
        """Switch a trace on, or off with None; nothing happens on a connection that is disposed of."""
        if self.__dict__:
            self._quic_logger = trace
            self._loss._quic_logger = trace

    def _close_end(self) -> None:
        if self.trace is not None:
            # aioquic would give it back to the logger of its configuration, from which it did not come.
            self.set_trace(None)
        super()._close_end()

    def _trace_extension_frame(self, frames: list[Any] | None, frame_type: int, frame: ExtensionFrame) -> None:
        """Add a frame that aioquic does not know to those of its packet, if the connection is traced."""
        if self._quic_logger is None or frames is None:
            return
        facts = {item.name: getattr(frame, item.name) for item in fields(frame)}
        plain = {name: value if isinstance(value, bool | int) else str(value) for name, value in facts.items()}
        # What the schema calls a frame of a type that it does not know; viewers show the rest as it is.
        frames.append({"frame_type": "unknown", "raw_frame_type": frame_type, "name": type(frame).__name__, **plain})
