"""
Traces the connections of a peer while somebody asks for it (``antquic-server qlog``).

A trace begins with the connections that the peer has. Whether a new connection is the peer's shows at the end of its
handshake only; so while there is a request every new connection is traced into memory, a bounded number of them and of
bytes, and thrown away unless it turns out to be the peer's.

Files are written as events come. A worker without a request does nothing of this; the endpoint does not know it.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TextIO

from antquic_server.ipc.log_messages import QlogEnded, QlogStart, QlogStop, QlogWritten, qlog_file_name
from antquic_server.ipc.messages import Message
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.qlog import TAIL, ConnectionTrace, head
from workers.connection import Connection
from workers.surroundings import Hooks

MAX_NEWCOMERS: Final = 64
"""Handshakes traced at a time in case they are the peer's."""

NEWCOMER_BYTES: Final = 1 << 18
"""For one of them. A handshake makes some 20 kB."""

NEWCOMER_S: Final = 20.0
"""How long one may take: longer than the endpoint waits for any handshake."""

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Newcomer:
    """A new connection whose peer is not known yet."""

    quic: NodeQuicConnection
    since_s: float
    texts: list[str] = field(default_factory=list)
    size_bytes: int = 0

    def write(self, text: str) -> None:
        self.size_bytes += len(text)
        if self.size_bytes <= NEWCOMER_BYTES:
            self.texts.append(text)


class _TraceFile:
    """One file; takes texts up to a size. A full disk ends the file, not the connection."""

    def __init__(self, file: TextIO, max_bytes: int) -> None:
        self.events = 0
        self.truncated = False
        self._file = file
        self._left_bytes = max_bytes

    def begin(self, text: str) -> None:
        self._put(text)

    def write(self, text: str) -> None:
        if not self.truncated and self._put(f",\n{text}" if self.events else text):
            self.events += 1

    def finish(self) -> None:
        self._left_bytes += len(TAIL)
        try:
            self._file.write(TAIL)
            self._file.close()
        except OSError:
            self.truncated = True

    def _put(self, text: str) -> bool:
        self._left_bytes -= len(text)
        try:
            if self._left_bytes >= 0:
                self._file.write(text)
                return True
        except OSError:
            pass
        self.truncated = True
        return False


@dataclass(slots=True)
class _Trace:
    connection: Connection
    trace: ConnectionTrace
    file: _TraceFile
    from_start: bool


@dataclass(slots=True)
class _Capture:
    request: QlogStart
    ends_at_s: float
    traces: dict[int, _Trace] = field(default_factory=dict)
    begun: int = 0
    refused: int = 0
    error: str = ""


class QlogDesk:
    """
    The traces of one worker.

    Args:
        slot: Of the worker.
        generation: The how many-th worker of the slot it is; with ``slot`` it makes names of files unique.
        tell_hub: Sends a message to the supervisor.
        monotonic_s: Monotonic seconds.
        unix_s: Seconds since 1970; looked at once for each trace, so that a clock that is set moves no event.
    """

    def __init__(
        self,
        *,
        slot: int,
        generation: int,
        tell_hub: Callable[[Message], bool],
        monotonic_s: Callable[[], float],
        unix_s: Callable[[], float],
    ) -> None:
        self._slot = slot
        self._generation = generation
        self._tell_hub = tell_hub
        self._monotonic_s = monotonic_s
        self._unix_s = unix_s
        self._captures: dict[bytes, _Capture] = {}
        self._newcomers: dict[ConnectionTrace, _Newcomer] = {}

    def listen_to(self, hooks: Hooks) -> Hooks:
        """Return hooks that also tell the desk when peers come and go."""

        def peer_up(connection: Connection) -> None:
            if self._captures:
                self._peer_up(connection)
            hooks.peer_up(connection)

        def peer_down(connection: Connection) -> None:
            if self._captures:
                self._peer_down(connection)
            hooks.peer_down(connection)

        return replace(hooks, peer_up=peer_up, peer_down=peer_down)

    def begin(self, request: QlogStart, connections: Iterable[Connection]) -> None:
        """Trace the connections of a peer from now on, those there are and those to come."""
        if request.peer_id in self._captures:
            self._tell_hub(QlogEnded(capture=request.capture, refused=0, error="this peer is traced already"))
            return
        capture = _Capture(request, self._monotonic_s() + request.seconds)
        self._captures[request.peer_id] = capture
        for connection in connections:
            if connection.peer_id == request.peer_id:
                self._trace(capture, connection)

    def end(self, request: QlogStop) -> None:
        """End a trace before its time."""
        for capture in list(self._captures.values()):
            if capture.request.capture == request.capture:
                self._end(capture)

    def stop(self) -> None:
        """End all traces."""
        for capture in list(self._captures.values()):
            self._end(capture)

    def tick(self) -> None:
        """End what has lasted long enough."""
        if not self._captures:
            return
        now_s = self._monotonic_s()
        for capture in list(self._captures.values()):
            if now_s >= capture.ends_at_s:
                self._end(capture)
                continue
            for item in capture.traces.values():
                if item.file.truncated:
                    item.connection.quic.set_trace(None)
        for trace, newcomer in list(self._newcomers.items()):
            if now_s - newcomer.since_s > NEWCOMER_S:
                self._forget(trace)

    def watch(self, quic: NodeQuicConnection) -> NodeQuicConnection:
        """Trace a new connection in case it is the peer's; returns it."""
        if self._captures and len(self._newcomers) < MAX_NEWCOMERS:
            newcomer = _Newcomer(quic, self._monotonic_s())
            trace = ConnectionTrace(newcomer.write, self._steady_clock(), quic.original_destination_cid)
            quic.set_trace(trace)
            self._newcomers[trace] = newcomer
        return quic

    def _peer_up(self, connection: Connection) -> None:
        trace = connection.quic.trace
        capture = self._captures.get(connection.peer_id or b"")
        if capture is None:
            if trace is not None:
                self._forget(trace)
        elif connection.number not in capture.traces:
            self._trace(capture, connection)

    def _peer_down(self, connection: Connection) -> None:
        capture = self._captures.get(connection.peer_id or b"")
        if capture is not None and connection.number in capture.traces:
            self._finish(capture, connection.number)

    def _trace(self, capture: _Capture, connection: Connection) -> None:
        quic, request = connection.quic, capture.request
        trace = quic.trace
        newcomer = None if trace is None else self._newcomers.pop(trace, None)
        if capture.begun >= request.max_connections:
            capture.refused += 1
            quic.set_trace(None)
            return
        path = Path(request.directory) / qlog_file_name(self._slot, self._generation, connection.number)
        try:
            file = _TraceFile(os.fdopen(os.open(path, _FLAGS, 0o600), "w", encoding="ascii"), request.max_bytes)
        except OSError as error:
            capture.error = f"cannot write {path.name}: {error.strerror}"
            quic.set_trace(None)
            return
        from_start = newcomer is not None and newcomer.size_bytes <= NEWCOMER_BYTES
        file.begin(self._head(connection, from_start=from_start))
        if trace is None or newcomer is None or not from_start:
            trace = ConnectionTrace(file.write, self._steady_clock(), quic.original_destination_cid)
            quic.set_trace(trace)
        else:
            for text in newcomer.texts:
                file.write(text)
            trace.write = file.write
        capture.begun += 1
        capture.traces[connection.number] = _Trace(connection, trace, file, from_start)

    def _head(self, connection: Connection, *, from_start: bool) -> str:
        peer_id = (connection.peer_id or b"").hex()
        facts = {
            "peer_id": peer_id,
            "peer": f"{connection.path.host} port {connection.path.port}",
            "slot": self._slot,
            "connection": connection.number,
            "from_start": from_start,
        }
        title = f"peer {peer_id[:16]}, slot {self._slot}, connection {connection.number}"
        return head(title=title, original_destination_cid=connection.quic.original_destination_cid, description=facts)

    def _end(self, capture: _Capture) -> None:
        for number in list(capture.traces):
            self._finish(capture, number)
        self._captures.pop(capture.request.peer_id, None)
        if not self._captures:
            for trace in list(self._newcomers):
                self._forget(trace)
        request = capture.request
        self._tell_hub(QlogEnded(capture=request.capture, refused=capture.refused, error=capture.error))

    def _finish(self, capture: _Capture, number: int) -> None:
        item = capture.traces.pop(number)
        item.trace.flush()
        item.file.finish()
        item.connection.quic.set_trace(None)
        self._tell_hub(
            QlogWritten(
                capture=capture.request.capture,
                connection=number,
                events=item.file.events,
                from_start=item.from_start,
                truncated=item.file.truncated,
            )
        )

    def _forget(self, trace: ConnectionTrace) -> None:
        newcomer = self._newcomers.pop(trace, None)
        if newcomer is not None:
            newcomer.quic.set_trace(None)

    def _steady_clock(self) -> Callable[[], float]:
        offset_s = self._unix_s() - self._monotonic_s()
        return lambda: offset_s + self._monotonic_s()
