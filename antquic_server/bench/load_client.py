"""
Many client connections on few sockets, for benchmarks and end-to-end tests.

A :class:`LoadClient` owns one UDP socket at a time and any number of connections on it. ``rebind`` moves all of them to
a new socket, as a NAT does when it forgets a mapping. Nothing here retries or hides a failure: what a connection
experienced is in its fields.
"""

import asyncio
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
    StreamDataReceived,
)

from antquic_server.net.sockets import never_fragment
from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.pqc.pool import PqcPool
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.profiles import POST_QUANTUM_GROUPS, HandshakeProfile
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.options import ConnectionOptions
from antquic_server.protocol.seam.tls_context import SigningKey, TlsOptions

CLIENT_CONNECTION_ID_BYTES = 8
EXTENSIONS = ExtensionParameters(nat_traversal=3, rfc_nat_traversal=True, address_discovery=2)
_STATELESS_RESET_CODE = -1
_MIN_RESET_BYTES = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How a client dials; the defaults are those of an ant-quic peer."""

    pqc: PqcPool
    node_key: SigningKey | None = None
    profile: HandshakeProfile = HandshakeProfile.ANT_QUIC
    groups: tuple[int, ...] = POST_QUANTUM_GROUPS
    share_group: int | None = None
    expected_public_key: bytes | None = None
    server_name: str | None = "peer"
    alpn: tuple[str, ...] = ()
    idle_timeout_s: float = 30.0
    mtu_max: int | None = None
    """Upper bound of path MTU discovery, bytes of UDP payload; None sends 1200 at most."""
    relay_channels: bool = False
    """Whether to declare the transport parameter of that name."""


class ClientConnection:
    """One connection of a :class:`LoadClient`."""

    def __init__(self, client: "LoadClient", quic: NodeQuicConnection, server: PathAddress) -> None:
        self.quic = quic
        self.server = server
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        self.termination: ConnectionTerminated | None = None
        self.stateless_reset = False
        self.datagrams: deque[bytes] = deque()
        self.messages: dict[int, bytearray] = {}
        self.finished_streams: set[int] = set()
        self.changed = asyncio.Event()
        """Set whenever something arrived; waiters clear it."""
        self._client = client

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait for the handshake; ConnectionError with the reason if it fails or takes too long."""
        waiters = [asyncio.ensure_future(self.connected.wait()), asyncio.ensure_future(self.closed.wait())]
        _, pending = await asyncio.wait(waiters, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for waiter in pending:
            waiter.cancel()
        if not self.connected.is_set():
            raise ConnectionError(f"no handshake within {timeout_s} s: {self.termination}")

    async def echo(self, data: bytes, timeout_s: float) -> bytes:
        """Send ``data`` on a new bidirectional stream and return what comes back until its end."""
        stream_id = self.quic.get_next_available_stream_id()
        self.quic.send_stream_data(stream_id, data, end_stream=True)
        self._client.flush([self])
        return await self.read_stream(stream_id, timeout_s)

    async def echo_message(self, data: bytes, timeout_s: float) -> bytes:
        """Send ``data`` as a unidirectional message and return the next message of the server."""
        known = set(self.finished_streams)
        stream_id = self.quic.get_next_available_stream_id(is_unidirectional=True)
        self.quic.send_stream_data(stream_id, data, end_stream=True)
        self._client.flush([self])
        deadline_s = time.monotonic() + timeout_s
        while not (new := [item for item in self.finished_streams - known if item & 3 == 3]):
            await self._wait_changed(deadline_s)
        self.finished_streams.discard(new[0])
        return bytes(self.messages.pop(new[0]))

    async def read_message(self, timeout_s: float) -> bytes:
        """Return the next unidirectional message of the server that nobody has read yet."""
        deadline_s = time.monotonic() + timeout_s
        while not (complete := [item for item in self.finished_streams if item & 3 == 3]):
            await self._wait_changed(deadline_s)
        self.finished_streams.discard(min(complete))
        return bytes(self.messages.pop(min(complete)))

    async def read_stream(self, stream_id: int, timeout_s: float) -> bytes:
        """Return a whole stream once the server has ended it."""
        deadline_s = time.monotonic() + timeout_s
        while stream_id not in self.finished_streams:
            await self._wait_changed(deadline_s)
        self.finished_streams.discard(stream_id)
        return bytes(self.messages.pop(stream_id, b""))

    async def echo_datagram(self, data: bytes, timeout_s: float) -> bytes:
        """Send a DATAGRAM frame and return the next one that arrives."""
        self.quic.send_datagram_frame(data)
        self._client.flush([self])
        deadline_s = time.monotonic() + timeout_s
        while not self.datagrams:
            await self._wait_changed(deadline_s)
        return self.datagrams.popleft()

    def close(self, error_code: int = 0, reason: str = "") -> None:
        """Close with an application close; sent at once."""
        self.quic.close(error_code=error_code, reason_phrase=reason)
        self._client.flush([self])

    def handle_event(self, event: QuicEvent) -> None:
        """Record one event; called by the client."""
        if isinstance(event, HandshakeCompleted):
            self.connected.set()
        elif isinstance(event, ConnectionTerminated):
            self.termination = event
            self.stateless_reset = event.error_code == _STATELESS_RESET_CODE
            self.closed.set()
        elif isinstance(event, DatagramFrameReceived):
            self.datagrams.append(event.data)
        elif isinstance(event, StreamDataReceived):
            self.messages.setdefault(event.stream_id, bytearray()).extend(event.data)
            if event.end_stream:
                self.finished_streams.add(event.stream_id)
        self.changed.set()

    async def _wait_changed(self, deadline_s: float) -> None:
        if self.closed.is_set():
            raise ConnectionError(f"connection is closed: {self.termination}")
        self.changed.clear()
        try:
            await asyncio.wait_for(self.changed.wait(), deadline_s - time.monotonic())
        except TimeoutError:
            raise ConnectionError("nothing came back in time") from None


class LoadClient:
    """
    Connections that share a socket; use it from one event loop.

    ``open_socket`` opens a bound, non-blocking socket somewhere else than on ``host``: in another network namespace.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        offloads: bool = True,
        open_socket: Callable[[], socket.socket] | None = None,
    ) -> None:
        self.connections: list[ClientConnection] = []
        self._loop = asyncio.get_running_loop()
        self._open_socket = open_socket or partial(_bound_socket, host)
        self._offloads = offloads
        self._table: dict[bytes, ClientConnection] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._socket = self._open()

    @property
    def port(self) -> int:
        """Local UDP port."""
        port: int = self._socket.sock.getsockname()[1]
        return port

    @property
    def udp(self) -> UdpSocket:
        """The socket in use, for tests that send by hand."""
        return self._socket

    def connect(self, host: str, port: int, settings: ClientSettings) -> ClientConnection:
        """Begin a connection; the first flight is sent at once."""
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=list(settings.alpn) or None,
            connection_id_length=CLIENT_CONNECTION_ID_BYTES,
            idle_timeout=settings.idle_timeout_s,
            max_datagram_frame_size=65535,
            server_name=settings.server_name,
            supported_versions=[1],
            verify_mode=ssl.CERT_NONE,
        )
        quic = NodeQuicConnection(
            configuration=configuration,
            options=ConnectionOptions(
                tls=TlsOptions(
                    pqc=settings.pqc,
                    node_key=settings.node_key,
                    client_profile=settings.profile,
                    client_groups=settings.groups,
                    client_share_group=settings.share_group,
                    client_expected_public_key=settings.expected_public_key,
                ),
                extensions=replace(EXTENSIONS, relay_channels=settings.relay_channels),
                stream_window_bytes=1_250_000,
                connection_window_bytes=10_000_000,
                mtu_max=settings.mtu_max,
            ),
        )
        server = PathAddress(host, port, 0, 0, b"", 0)
        connection = ClientConnection(self, quic, server)
        self.connections.append(connection)
        for cid in quic.issued_connection_ids:
            self._table[cid] = connection
        quic.connect(server, time.monotonic())
        self.flush([connection])
        return connection

    def rebind(self) -> None:
        """Move every connection to a new socket with another port; the old one is closed."""
        old = self._socket
        self._socket = self._open()
        self._loop.remove_reader(old.fileno())
        old.sock.close()

    def flush(self, connections: list[ClientConnection]) -> None:
        """Handle events, send what is due and set the timer."""
        now_s = time.monotonic()
        for connection in connections:
            self._handle_events(connection)
            datagrams = connection.quic.datagrams_to_send(now_s)
            if datagrams:
                self._socket.send(connection.server, [data for data, _ in datagrams])
                self._handle_events(connection)
        self._arm()

    def abandon_all(self) -> None:
        """Forget every connection at once; closes already sent stay sent."""
        self.connections.clear()
        self._table.clear()
        self._arm()

    def close(self) -> None:
        """Drop everything without telling the server."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.sock.close()

    def _open(self) -> UdpSocket:
        sock = self._open_socket()
        never_fragment(sock)
        udp = UdpSocket(sock, wildcard=False, offloads=self._offloads)
        self._loop.add_reader(sock.fileno(), self._readable)
        return udp

    def _readable(self) -> None:
        now_s = time.monotonic()
        touched: dict[ClientConnection, None] = {}
        for data, path in self._socket.receive_datagrams(128):
            connection = self._find(data)
            if connection is None:
                continue
            # Compared by value once: afterwards the state machine sees the one object it knows.
            server = connection.server
            address = server if path[:2] == server[:2] else path
            connection.quic.receive_datagram(data, address, now_s)
            touched[connection] = None
        self.flush(list(touched))

    def _find(self, data: bytes) -> ClientConnection | None:
        if data and data[0] & 0x80:
            cid = data[6 : 6 + data[5]] if len(data) > 6 else b""
        else:
            cid = data[1 : 1 + CLIENT_CONNECTION_ID_BYTES]
        connection = self._table.get(cid)
        if connection is None and len(data) >= _MIN_RESET_BYTES:
            self._check_stateless_reset(data)
        return connection

    def _check_stateless_reset(self, data: bytes) -> None:
        token = data[-16:]
        for connection in self.connections:
            if token in connection.quic.peer_reset_tokens:
                connection.quic.abandon(_STATELESS_RESET_CODE, "stateless reset")
                self._handle_events(connection)

    def _handle_events(self, connection: ClientConnection) -> None:
        event = connection.quic.next_event()
        while event is not None:
            if isinstance(event, ConnectionIdIssued):
                self._table[event.connection_id] = connection
            elif isinstance(event, ConnectionIdRetired):
                self._table.pop(event.connection_id, None)
            connection.handle_event(event)
            if isinstance(event, ConnectionTerminated):
                self._forget(connection)
            event = connection.quic.next_event()

    def _forget(self, connection: ClientConnection) -> None:
        self._table = {cid: item for cid, item in self._table.items() if item is not connection}
        if connection in self.connections:
            self.connections.remove(connection)

    def _arm(self) -> None:
        deadlines = [at for item in self.connections if (at := item.quic.get_timer()) is not None]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadlines:
            delay_s = max(0.0, min(deadlines) - time.monotonic())
            self._timer = self._loop.call_later(delay_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        due = []
        for connection in list(self.connections):
            deadline_s = connection.quic.get_timer()
            if deadline_s is not None and now_s >= deadline_s:
                connection.quic.handle_timer(now_s)
                due.append(connection)
        self.flush(due)


def _bound_socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 1 << 22)
    sock.bind((host, 0))
    return sock


def random_node_key(pqc: PqcPool) -> SigningKey:
    """Return a fresh client key."""
    return pqc.signing_key(os.urandom(32))
