"""
Stream relay of a node against the stream echo of stock aioquic: payload carried per second of the server's CPU time.

Both are driven by the same client, in this process. A relay session carries each payload once over QUIC and once over
UDP, in one direction or the other; ``there and back`` has a host echo what it gets, so that every payload crosses the
QUIC connection twice, as with the echo, and UDP twice on top.
"""

import asyncio
import os
import select
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from antquic_server.bench.load_client import ClientConnection, ClientSettings, LoadClient, random_node_key
from antquic_server.bench.node_process import ServerUnderTest
from antquic_server.bench.relay_load import LoadResult
from antquic_server.bench.relay_mmsg import BatchReceiver, BatchSender
from antquic_server.bench.relay_place import RECEIVER, SENDER, Place
from antquic_server.bench.relay_window import Window
from antquic_server.errors import CannotBootError
from antquic_server.pqc.pool import PqcPool
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.relay_stream import (
    BIND_REQUEST,
    MAX_FRAME_BYTES,
    MessageReader,
    decode_frame_untrusted,
    decode_response_untrusted,
    encode_frame,
    frame_header,
)

__all__ = ["Direction", "StreamLoad", "StreamSession", "measure_streams", "open_relay_sessions", "open_stock_streams"]

TIMEOUT_S: Final = 20.0
_HANDSHAKES_AT_ONCE: Final = 8
_WARM_UP_S: Final = 0.1
_WINDOW_DATAGRAMS: Final = 256
_MESSAGES: Final = 64
_LOST_AFTER_S: Final = 0.3
"""Longer than a datagram takes with fifty busy connections in one client: only UDP loses anything for good."""


class Direction(StrEnum):
    """Which way payload goes; a label of the report."""

    UP = "peer to host"
    DOWN = "host to peer"
    BOTH = "there and back"
    ECHO = "stream echo"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLoad:
    """Payload bytes of one datagram, and for how long."""

    payload_bytes: int
    seconds: float


@dataclass(slots=True, kw_only=True)
class StreamSession:
    """A stream of a connection; of a relay also the host's socket, connected to the session's port."""

    client: LoadClient
    connection: ClientConnection
    stream_id: int
    host: socket.socket | None = None
    window: Window = field(default_factory=lambda: Window(1, 0.0))

    def write(self, data: bytes) -> None:
        """Append to the stream."""
        self.connection.quic.send_stream_data(self.stream_id, data)
        self.client.flush([self.connection])

    def take(self) -> int:
        """Return how many bytes of the stream have arrived since the last time."""
        arrived = self.connection.messages.get(self.stream_id)
        if not arrived:
            return 0
        size = len(arrived)
        arrived.clear()
        return size


@asynccontextmanager
async def open_relay_sessions(
    place: Place, server: ServerUnderTest, pool: PqcPool, count: int
) -> AsyncIterator[list[StreamSession]]:
    """
    Open that many relay sessions, each of a peer of its own, and see that they carry datagrams both ways.

    Raises:
        CannotBootError: The node refuses, or does not deliver.
        ConnectionError: The node does not answer.
    """

    def settings() -> ClientSettings:
        return ClientSettings(pqc=pool, node_key=random_node_key(pool))

    async with AsyncExitStack() as stack:
        sessions = await stack.enter_async_context(_open_streams(place, server, settings, count))
        for session in sessions:
            session.host = stack.enter_context(place.udp(RECEIVER))
            await _begin(session, session.host)
        yield sessions


@asynccontextmanager
async def open_stock_streams(
    place: Place, server: ServerUnderTest, pool: PqcPool, count: int
) -> AsyncIterator[list[StreamSession]]:
    """Open that many streams with the stock server, each on a connection of its own."""
    # Stock aioquic knows classical groups and X.509 only; after the handshake the bytes are the same.
    settings = ClientSettings(
        pqc=pool, profile=HandshakeProfile.X509, groups=(NamedGroup.X25519,), server_name="localhost"
    )
    async with _open_streams(place, server, lambda: settings, count) as sessions:
        yield sessions


async def measure_streams(
    sessions: Sequence[StreamSession], direction: Direction, load: StreamLoad, server: ServerUnderTest
) -> LoadResult:
    """
    Carry payload one way for a while.

    Raises:
        CannotBootError: Nothing arrived.
    """
    drivers = [_driver(session, direction, load.payload_bytes) for session in sessions]
    limit = max(2, _WINDOW_DATAGRAMS // len(sessions))
    await _drive(sessions, drivers, limit, min(_WARM_UP_S, load.seconds))
    started_s, before_s = time.monotonic(), server.cpu_s()
    await _drive(sessions, drivers, limit, load.seconds)
    result = LoadResult(
        sent=sum(session.window.sent for session in sessions),
        delivered=sum(session.window.delivered for session in sessions),
        silent_sessions=sum(not session.window.delivered for session in sessions),
        wall_s=time.monotonic() - started_s,
        cpu_s=server.cpu_s() - before_s,
    )
    if not result.delivered:
        raise CannotBootError(f"{direction} delivered nothing of {result.sent} datagrams")
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Driver:
    """How to send some datagrams of a session, and how to count those that have arrived; both return how many."""

    send: Callable[[int], int]
    arrived: Callable[[], int]


async def _drive(sessions: Sequence[StreamSession], drivers: Sequence[_Driver], limit: int, seconds: float) -> None:
    now_s = time.monotonic()
    deadline_s, patience_s = now_s + seconds, now_s + seconds + 3 * _LOST_AFTER_S
    for session in sessions:
        session.window = Window(limit, now_s, lost_after_s=_LOST_AFTER_S)
    while now_s < patience_s:
        waiting = False
        for session, driver in zip(sessions, drivers, strict=True):
            window = session.window
            window.delivered += driver.arrived()
            window.tick(now_s)
            # Half a window at a time: a datagram for each that arrives would cost a packet each.
            if now_s < deadline_s and window.room * 2 >= limit:
                window.sent += driver.send(window.room)
            waiting = waiting or window.on_the_way > 0
        if now_s >= deadline_s and not waiting:
            return
        await asyncio.sleep(0)
        now_s = time.monotonic()


def _driver(session: StreamSession, direction: Direction, payload_bytes: int) -> _Driver:
    payload = os.urandom(payload_bytes)
    host = session.host
    if host is None:
        return _stream_driver(session, payload, payload_bytes)
    frame = encode_frame(frame_header(_address(host.getsockname())), payload)
    receiver = BatchReceiver(host)
    sender = BatchSender(host, payload, train=1, messages=_MESSAGES)
    if direction is Direction.UP:
        return _Driver(send=_stream_driver(session, frame, 1).send, arrived=lambda: receiver.receive() // payload_bytes)
    counted = _stream_driver(session, frame, len(frame))
    if direction is Direction.DOWN:
        return _Driver(send=sender.send, arrived=counted.arrived)

    def echo_and_count() -> int:
        waiting = receiver.receive() // payload_bytes
        while waiting > 0 and (sent := sender.send(waiting)):
            waiting -= sent
        return counted.arrived()

    return _Driver(send=counted.send, arrived=echo_and_count)


def _stream_driver(session: StreamSession, unit: bytes, unit_bytes: int) -> _Driver:
    """Send and count units on the stream itself; what is left of a unit counts the next time."""
    rest = 0

    def send(count: int) -> int:
        session.write(unit * count)
        return count

    def arrived() -> int:
        nonlocal rest
        count, rest = divmod(rest + session.take(), unit_bytes)
        return count

    return _Driver(send=send, arrived=arrived)


@asynccontextmanager
async def _open_streams(
    place: Place, server: ServerUnderTest, settings: Callable[[], ClientSettings], count: int
) -> AsyncIterator[list[StreamSession]]:
    """Connect one after another group, a socket each: a train of datagrams then belongs to one connection."""
    sessions: list[StreamSession] = []
    try:
        for start in range(0, count, _HANDSHAKES_AT_ONCE):
            group = []
            for _ in range(min(_HANDSHAKES_AT_ONCE, count - start)):
                client = LoadClient(open_socket=lambda: place.udp(SENDER))
                connection = client.connect(place.front, server.port, settings())
                stream_id = connection.quic.get_next_available_stream_id()
                group.append(StreamSession(client=client, connection=connection, stream_id=stream_id))
            sessions += group
            await asyncio.gather(*(session.connection.wait_connected(TIMEOUT_S) for session in group))
        yield sessions
    finally:
        for session in sessions:
            session.connection.close()
            session.client.close()


async def _begin(session: StreamSession, host: socket.socket) -> None:
    """Ask for a port, and send one datagram each way."""
    reader = MessageReader(MAX_FRAME_BYTES)
    session.write(BIND_REQUEST)
    response = decode_response_untrusted(await _next_message(session, reader))
    if response.address is None or not response.is_success:
        raise CannotBootError(f"node opens no relay session: {response.status} {response.reason}")
    relayed = response.address
    host.connect((str(relayed.host), relayed.port))
    payload = os.urandom(100)
    session.write(encode_frame(frame_header(_address(host.getsockname())), payload))
    deadline_s = time.monotonic() + TIMEOUT_S
    while not select.select([host], [], [], 0)[0]:
        if time.monotonic() > deadline_s:
            raise CannotBootError("stream relay does not deliver to a host")
        await asyncio.sleep(0.005)
    if host.recv(2048) != payload:
        raise CannotBootError("stream relay delivers something else than was sent")
    host.send(payload)
    if decode_frame_untrusted(await _next_message(session, reader)) != (_address(host.getsockname()), payload):
        raise CannotBootError("stream relay does not deliver to its peer what was sent")


async def _next_message(session: StreamSession, reader: MessageReader) -> bytes:
    deadline_s = time.monotonic() + TIMEOUT_S
    messages = session.connection.messages
    while (body := reader.next_untrusted()) is None:
        if session.connection.closed.is_set() or time.monotonic() > deadline_s:
            raise ConnectionError(f"no answer on a relay stream: {session.connection.termination}")
        if arrived := messages.get(session.stream_id):
            reader.feed(bytes(arrived))
            arrived.clear()
        else:
            await asyncio.sleep(0.001)
    return body


def _address(name: tuple[str, int]) -> SocketAddress:
    return SocketAddress.parse(f"{name[0]}:{name[1]}")
