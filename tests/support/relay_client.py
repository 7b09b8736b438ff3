"""A scripted client of the stream relay on a connection of the load client, and third parties for it to talk to."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from antquic_server.bench.load_client import ClientConnection
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_stream import (
    BIND_REQUEST,
    ConnectUdpResponse,
    FrameReader,
    MessageReader,
    decode_frame_untrusted,
    decode_response_untrusted,
    encode_frame,
    frame_header,
)

__all__ = ["RelayClient", "RelayRefusedError", "ThirdParty", "third_party"]

TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.005
RESPONSE_LIMIT_BYTES = 1024


class RelayRefusedError(Exception):
    """The relay has answered with a status that is no success."""

    def __init__(self, response: ConnectUdpResponse) -> None:
        super().__init__(f"{response.status} {response.reason}")
        self.response = response


@dataclass(kw_only=True)
class RelayClient:
    """One session; ``address`` is what the relay says that third parties reach it by."""

    connection: ClientConnection
    stream_id: int
    address: SocketAddress
    received: list[tuple[SocketAddress, bytes]] = field(default_factory=list)
    _reader: FrameReader = field(default_factory=FrameReader)

    @classmethod
    async def open(cls, connection: ClientConnection, *, request: bytes = BIND_REQUEST) -> "RelayClient":
        """
        Ask for a session.

        Raises:
            RelayRefusedError: There is none.
        """
        stream_id = connection.quic.get_next_available_stream_id()
        write(connection, stream_id, request)
        response = await read_response(connection, stream_id)
        if response.address is None:
            raise RelayRefusedError(response)
        return cls(connection=connection, stream_id=stream_id, address=response.address)

    @property
    def ended(self) -> bool:
        """Whether the relay has ended its side in order."""
        return self.stream_id in self.connection.finished_streams

    def send(self, target: SocketAddress | str, *payloads: bytes) -> None:
        """Have the relay send datagrams."""
        address = SocketAddress.parse(target) if isinstance(target, str) else target
        header = frame_header(address)
        self.write(b"".join(encode_frame(header, payload) for payload in payloads))

    def write(self, data: bytes, *, end: bool = False) -> None:
        """Write any bytes to the stream, or its end."""
        write(self.connection, self.stream_id, data, end=end)

    def collect(self) -> list[tuple[SocketAddress, bytes]]:
        """Return everything that the relay has passed on so far."""
        arrived = self.connection.messages.get(self.stream_id)
        if arrived:
            self._reader.feed(bytes(arrived))
            arrived.clear()
            for header, payload in self._reader.take_untrusted():
                self.received.append((decode_frame_untrusted(header)[0], payload))
        return self.received

    async def receive(self, count: int = 1, *, timeout_s: float = TIMEOUT_S) -> list[tuple[SocketAddress, bytes]]:
        """Wait for ``count`` datagrams in all, and return and forget them."""
        await _until(lambda: len(self.collect()) >= count, timeout_s, f"{count} datagrams")
        taken, self.received = self.received[:count], self.received[count:]
        return taken


class ThirdParty:
    """A UDP socket that keeps what it receives; with ``echo`` it answers."""

    def __init__(self, sock: socket.socket, *, echo: bool) -> None:
        self.received: list[tuple[bytes, tuple[str, int]]] = []
        self.address = SocketAddress.from_host(*sock.getsockname()[:2])
        self._sock = sock
        self._echo = echo
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def send(self, target: tuple[str, int] | SocketAddress, data: bytes) -> None:
        """Send a datagram."""
        if isinstance(target, SocketAddress):
            target = (str(target.host), target.port)
        self._sock.sendto(data, target)

    def close(self) -> None:
        """Close the socket."""
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()

    async def receive(self, count: int = 1, *, timeout_s: float = TIMEOUT_S) -> list[tuple[bytes, tuple[str, int]]]:
        """Wait for ``count`` datagrams in all, and return and forget them."""
        await _until(lambda: len(self.received) >= count, timeout_s, f"{count} datagrams")
        taken, self.received = self.received[:count], self.received[count:]
        return taken

    def _readable(self) -> None:
        try:
            data, address = self._sock.recvfrom(1 << 16)
        except OSError:
            return  # nothing there, or an ICMP error of an earlier datagram
        self.received.append((data, address[:2]))
        if self._echo:
            self.send(address[:2], data)


@asynccontextmanager
async def third_party(
    host: str = "127.0.0.1", *, echo: bool = False, sock: socket.socket | None = None
) -> AsyncIterator[ThirdParty]:
    """Open a third party on ``host``, or on a bound socket."""
    if sock is None:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, 0))
    party = ThirdParty(sock, echo=echo)
    try:
        yield party
    finally:
        party.close()


def write(connection: ClientConnection, stream_id: int, data: bytes, *, end: bool = False) -> None:
    """Write to a stream and send it."""
    connection.quic.send_stream_data(stream_id, data, end_stream=end)
    connection._client.flush([connection])


async def read_response(connection: ClientConnection, stream_id: int) -> ConnectUdpResponse:
    """Wait for a response; what has come behind it stays."""
    found: list[bytes] = []

    def look() -> bool:
        arrived = connection.messages.get(stream_id, bytearray())
        reader = MessageReader(RESPONSE_LIMIT_BYTES)
        reader.feed(bytes(arrived))
        body = reader.next_untrusted()
        if body is None:
            return False
        found.append(body)
        del arrived[: 4 + len(body)]
        return True

    await _until(look, TIMEOUT_S, "response")
    return decode_response_untrusted(found[0])


async def _until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"no {what} within {timeout_s} s"
        await asyncio.sleep(POLL_INTERVAL_S)
