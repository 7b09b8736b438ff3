"""Tests of ``antquic_server.protocol.seam.sliding_windows``: constant windows, and peers that never read."""

from typing import Any

import pytest
from aioquic.quic.events import StreamDataReceived

from antquic_server.protocol.seam.connection import NodeQuicConnection
from support.pair import PERFECT, TERRIBLE, Link, Pair, client_connection, server_connection

STREAM_WINDOW = 20_000
CONNECTION_WINDOW = 50_000
BACKLOG = 30_000
FLOW_CONTROL_ERROR = 0x03


class EchoServer(NodeQuicConnection):
    """A server that sends everything back and remembers the most it ever held."""

    peak_bytes = 0

    def next_event(self) -> Any:
        """Return the next event; an echo is already on its way."""
        event = super().next_event()
        if isinstance(event, StreamDataReceived):
            self.send_stream_data(event.stream_id, event.data, end_stream=event.end_stream)
            self.peak_bytes = max(self.peak_bytes, self.send_backlog_bytes())
        return event


class DeafClient(NodeQuicConnection):
    """A client that never raises a limit: it reads nothing, as far as its peer can tell."""

    deaf = True

    def _write_connection_limits(self, builder: Any, space: Any) -> None:
        if not self.deaf:
            super()._write_connection_limits(builder, space)

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        if not self.deaf:
            super()._write_stream_limits(builder, space, stream)


def windowed_pair(
    client: NodeQuicConnection | None = None,
    *,
    kind: type[NodeQuicConnection] = NodeQuicConnection,
    link: Link = PERFECT,
) -> Pair:
    """A pair whose server has small windows."""
    options = {
        "stream_window_bytes": STREAM_WINDOW,
        "connection_window_bytes": CONNECTION_WINDOW,
        "max_backlog_bytes": BACKLOG,
    }
    return Pair(client, lambda cid: server_connection(cid, kind=kind, options=options), link=link, seed=1).handshake()


def received_bytes(pair: Pair) -> int:
    """Stream data the server has been given."""
    return sum(len(event.data) for event in pair.events(StreamDataReceived))


def test_client_may_never_be_further_ahead_than_the_windows() -> None:
    """However much is sent, the credit given stays a constant distance ahead of what has arrived."""
    pair = windowed_pair()
    leads: list[tuple[int, int]] = []
    for stream_id in (0, 4, 8):
        pair.client.send_stream_data(stream_id, bytes(150_000), end_stream=True)
    pair.flush()

    def done() -> bool:
        server = pair.server
        connection_lead = server._local_max_data.sent - server._local_max_data.used
        leads.extend(
            (connection_lead, stream.max_stream_data_local_sent - stream.receiver.highest_offset)
            for stream in server._streams.values()
        )
        return received_bytes(pair) == 450_000

    assert pair.run(done, 60.0), f"only {received_bytes(pair)} bytes arrived"
    assert max(lead for lead, _ in leads) <= CONNECTION_WINDOW
    assert max(lead for _, lead in leads) <= STREAM_WINDOW


def test_windows_are_declared_to_the_peer() -> None:
    """The first credit is the windows themselves, on every kind of stream."""
    client = windowed_pair().client
    assert client._remote_max_data == CONNECTION_WINDOW
    assert client._remote_max_stream_data_bidi_remote == STREAM_WINDOW
    assert client._remote_max_stream_data_bidi_local == STREAM_WINDOW
    assert client._remote_max_stream_data_uni == STREAM_WINDOW


@pytest.mark.parametrize("stream_id", [0, 2])
def test_lost_credit_is_given_again(stream_id: int) -> None:
    """Transfers many times the size of the windows get through a terrible link."""
    pair = windowed_pair(link=TERRIBLE)
    pair.client.send_stream_data(stream_id, bytes(200_000), end_stream=True)
    pair.flush()
    assert pair.run(lambda: received_bytes(pair) == 200_000, 120.0), f"only {received_bytes(pair)} bytes arrived"


def test_peer_that_never_reads_costs_a_bounded_amount() -> None:
    """A client that floods an echo and takes nothing back is stopped; what is held stays within the bounds."""
    client = client_connection(kind=DeafClient, max_data=5_000, max_stream_data=5_000)
    pair = windowed_pair(client, kind=EchoServer)
    for stream_id in range(0, 40, 4):
        pair.client.send_stream_data(stream_id, bytes(100_000))
    pair.flush()
    pair.advance(20.0)
    assert pair.established
    assert isinstance(pair.server, EchoServer)
    assert BACKLOG < pair.server.peak_bytes <= BACKLOG + CONNECTION_WINDOW
    assert received_bytes(pair) <= BACKLOG + CONNECTION_WINDOW + 5_000
    assert pair.server.close_code is None


def test_peer_that_reads_again_gets_everything() -> None:
    """Once the backlog is taken, the windows slide again to the end."""
    client = client_connection(kind=DeafClient, max_data=5_000, max_stream_data=5_000)
    pair = windowed_pair(client, kind=EchoServer)
    pair.client.send_stream_data(0, bytes(150_000), end_stream=True)
    pair.flush()
    pair.advance(5.0)
    assert received_bytes(pair) < 150_000
    assert isinstance(pair.client, DeafClient)
    pair.client.deaf = False
    pair.client.send_ping(0)
    pair.flush()

    def echoed() -> int:
        return sum(len(event.data) for event in pair.events(StreamDataReceived, of_server=False))

    assert pair.run(lambda: echoed() == 150_000, 30.0), f"only {echoed()} bytes came back"


def test_what_the_application_holds_stops_the_windows() -> None:
    """Data the application keeps counts as well, and no longer once it is given up."""
    pair = windowed_pair()
    pair.server.held_by_application_bytes = BACKLOG + 1
    assert pair.server.send_backlog_bytes() == BACKLOG + 1
    pair.client.send_stream_data(0, bytes(100_000), end_stream=True)
    pair.flush()
    pair.advance(5.0)
    assert received_bytes(pair) == STREAM_WINDOW
    pair.server.held_by_application_bytes = 0
    pair.server.send_ping(0)
    pair.flush()
    assert pair.run(lambda: received_bytes(pair) == 100_000, 10.0)


def test_peer_that_ignores_the_windows_is_refused() -> None:
    """Sending beyond the credit is a FLOW_CONTROL_ERROR."""
    pair = windowed_pair()
    # So that the window does not slide while the data comes in.
    pair.server.held_by_application_bytes = BACKLOG + 1
    pair.client._remote_max_data = 1 << 30
    pair.client._remote_max_stream_data_bidi_remote = 1 << 30
    pair.client.send_stream_data(0, bytes(STREAM_WINDOW + 1))
    pair.flush()
    assert pair.run(lambda: pair.server.is_closing, 5.0)
    assert pair.server.close_code == FLOW_CONTROL_ERROR


@pytest.mark.parametrize("windows", [True, False])
def test_streams_are_granted_as_they_end(windows: bool) -> None:
    """More streams than the initial 128 can be opened one after the other, with and without our windows."""
    pair = (
        windowed_pair(kind=EchoServer)
        if windows
        else Pair(
            make_server=lambda cid: server_connection(
                cid, kind=EchoServer, options={"stream_window_bytes": None, "connection_window_bytes": None}
            )
        ).handshake()
    )
    for index in range(300):
        pair.client.send_stream_data(4 * index, b"x", end_stream=True)
    pair.flush()

    def ended() -> int:
        return sum(event.end_stream for event in pair.events(StreamDataReceived, of_server=False))

    assert pair.run(lambda: ended() == 300, 30.0), f"only {ended()} streams came back"


def test_without_windows_aioquic_decides() -> None:
    """Options without windows leave aioquic's doubling in place."""
    options = {"stream_window_bytes": None, "connection_window_bytes": None}
    pair = Pair(
        make_server=lambda cid: server_connection(cid, max_data=10_000, max_stream_data=10_000, options=options)
    ).handshake()
    pair.client.send_stream_data(0, bytes(100_000), end_stream=True)
    pair.flush()
    assert pair.run(lambda: received_bytes(pair) == 100_000, 10.0)
    assert pair.server._local_max_data.value >= 160_000


def test_the_backlog_of_one_stream_is_what_is_not_acknowledged() -> None:
    """It falls to nothing when everything has arrived; an unknown stream has none."""
    pair = Pair().handshake()
    pair.client.send_stream_data(0, bytes(5000))
    assert pair.client.stream_backlog_bytes(0) == 5000
    assert pair.client.stream_backlog_bytes(4) == 0
    pair.flush()
    pair.run(lambda: pair.client.stream_backlog_bytes(0) == 0)
    assert pair.client.stream_backlog_bytes(0) == 0
