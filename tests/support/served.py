"""A pair whose server runs one of the workers' services."""

from typing import Any

from aioquic.quic.events import DatagramFrameReceived, StreamDataReceived, StreamReset

from antquic_server.net.udp import PathAddress
from antquic_server.protocol.seam.connection import NodeQuicConnection
from support.pair import Pair, client_connection, server_connection
from workers.connection import Connection
from workers.service import Service

PATH = PathAddress("192.0.2.7", 50007, 0, 0, b"", 0)


class ServedPair(Pair):
    """An established pair; every event of the server goes to the service."""

    def __init__(
        self,
        service: Service,
        client: NodeQuicConnection | None = None,
        *,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(client or client_connection(), lambda cid: server_connection(cid, options=options))
        self.handshake()
        self.connection = Connection(number=1, quic=self.server, path=PATH, handshake_deadline_s=0.0)
        self.on_server_event = lambda event: service.handle_event(self.connection, event)

    def send(self, stream_id: int, data: bytes, *, end: bool = True, wait_s: float = 0.5) -> None:
        """Send on a stream of the client and let things happen."""
        self.client.send_stream_data(stream_id, data, end_stream=end)
        self.flush()
        self.advance(wait_s)

    def came_back(self, stream_id: int) -> tuple[bytes, bool]:
        """What the client has received on a stream, and whether it has ended."""
        events = [event for event in self.events(StreamDataReceived, of_server=False) if event.stream_id == stream_id]
        return b"".join(event.data for event in events), any(event.end_stream for event in events)

    def streams_that_came_back(self) -> list[int]:
        """Streams on which the client has received anything, in order."""
        return sorted({event.stream_id for event in self.events(StreamDataReceived, of_server=False)})

    def resets(self) -> dict[int, int]:
        """Streams the server has reset, and the codes."""
        return {event.stream_id: event.error_code for event in self.events(StreamReset, of_server=False)}

    def datagrams_that_came_back(self) -> list[bytes]:
        """DATAGRAM frames the client has received."""
        return [event.data for event in self.events(DatagramFrameReceived, of_server=False)]
