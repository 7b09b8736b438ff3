"""Tests of ``workers.echo``: everything comes back, within bounds."""

from typing import Any

import pytest
from aioquic.quic.events import DatagramFrameReceived

from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.stats.counters import CounterSet
from support.pair import client_connection
from support.served import ServedPair
from workers.echo import MAX_QUEUED_DATAGRAM_FRAMES, EchoService

MAX_MESSAGE = 30_000


class Bench:
    """A client at an echo, with its counters."""

    def __init__(self, client: Any = None, **options: Any) -> None:
        self.counters = CounterSet()
        self.service = EchoService(self.counters, max_message_bytes=MAX_MESSAGE)
        self.pair = ServedPair(self.service, client, options=options)

    def counted(self) -> dict[str, float]:
        """What is not zero."""
        return {key: value for key, value in self.counters.values.items() if value}


@pytest.fixture
def bench() -> Bench:
    """One with the ordinary windows."""
    return Bench()


@pytest.mark.parametrize("size", [0, 1, 5000, 200_000])
def test_stream_comes_back(bench: Bench, size: int) -> None:
    """The same bytes on the same stream, and its end."""
    data = bytes(range(256)) * (size // 256 + 1)
    bench.pair.send(0, data[:size], wait_s=5.0)
    assert bench.pair.came_back(0) == (data[:size], True)
    assert bench.counted() == {"streams_echoed": 1}


def test_stream_comes_back_as_it_arrives(bench: Bench) -> None:
    """An echo does not wait for the end of a stream."""
    bench.pair.send(0, b"first", end=False)
    assert bench.pair.came_back(0) == (b"first", False)
    bench.pair.send(0, b" second")
    assert bench.pair.came_back(0) == (b"first second", True)


def test_message_comes_back_whole(bench: Bench) -> None:
    """A unidirectional stream is answered by one of ours, but not before its end."""
    bench.pair.send(2, b"hello ", end=False)
    assert bench.pair.streams_that_came_back() == []
    assert bench.pair.server.held_by_application_bytes == 6
    bench.pair.send(2, b"world")
    assert bench.pair.came_back(3) == (b"hello world", True)
    assert bench.pair.server.held_by_application_bytes == 0
    assert bench.counted() == {"messages_echoed": 1}


def test_interleaved_messages_are_kept_apart(bench: Bench) -> None:
    """Messages are answered in the order in which they end."""
    bench.pair.send(2, b"a1", end=False)
    bench.pair.send(6, b"b1", end=False)
    bench.pair.send(6, b"b2")
    bench.pair.send(2, b"a2")
    assert bench.pair.came_back(3) == (b"b1b2", True)
    assert bench.pair.came_back(7) == (b"a1a2", True)


def test_datagram_comes_back(bench: Bench) -> None:
    """A DATAGRAM frame is answered by one."""
    for data in (b"", b"datagram", bytes(1000)):
        bench.pair.client.send_datagram_frame(data)
    bench.pair.flush()
    bench.pair.advance(0.5)
    assert bench.pair.datagrams_that_came_back() == [b"", b"datagram", bytes(1000)]
    assert bench.counted() == {"datagrams_echoed": 3}


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("at_once", [True, False])
def test_longest_message(bench: Bench, excess: int, at_once: bool) -> None:
    """A message of the greatest length comes back; one byte more and it is dropped, counted and stopped."""
    message = bytes(MAX_MESSAGE + excess)
    if at_once:
        bench.pair.send(2, message, wait_s=5.0)
    else:
        bench.pair.send(2, message, end=False, wait_s=5.0)
        if not excess:
            bench.pair.send(2, b"", wait_s=5.0)
    if excess:
        assert bench.counted() == {"drops|echo_message_too_long": 1}
        assert bench.pair.streams_that_came_back() == []
    else:
        assert bench.pair.came_back(3) == (message, True)
    assert bench.pair.server.held_by_application_bytes == 0
    assert bench.pair.connection.service_state == {}
    bench.pair.send(6, b"next")
    assert b"next" in [bench.pair.came_back(stream_id)[0] for stream_id in (3, 7)]


def test_sender_of_a_message_that_is_too_long_is_stopped(bench: Bench) -> None:
    """STOP_SENDING makes the peer give up the rest instead of sending megabytes for nothing."""
    bench.pair.send(2, bytes(20 * MAX_MESSAGE), end=False, wait_s=5.0)
    stopped = bench.pair.client._streams.get(2)
    assert stopped is None or stopped.sender._reset_error_code == ApplicationErrorCode.LIFECYCLE_CLEANUP
    assert bench.counted() == {"drops|echo_message_too_long": 1}
    # The reset that answers STOP_SENDING ends the affair.
    assert bench.pair.connection.service_state == {}
    assert bench.pair.server.held_by_application_bytes == 0


def test_message_that_is_reset_is_forgotten(bench: Bench) -> None:
    """A message given up in the middle no longer counts against the peer."""
    bench.pair.send(2, bytes(5000), end=False)
    assert bench.pair.server.held_by_application_bytes == 5000
    bench.pair.client.reset_stream(2, 9)
    bench.pair.flush()
    bench.pair.advance(0.5)
    assert bench.pair.server.held_by_application_bytes == 0
    assert bench.pair.connection.service_state == {}


def test_stream_that_is_reset_is_reset_back(bench: Bench) -> None:
    """A bidirectional stream ends in both directions, with the peer's code."""
    bench.pair.send(0, b"some", end=False)
    bench.pair.client.reset_stream(0, 9)
    bench.pair.flush()
    bench.pair.advance(0.5)
    assert bench.pair.resets() == {0: 9}


def test_peer_that_stops_reading_a_stream(bench: Bench) -> None:
    """After STOP_SENDING the rest of the stream is taken in and dropped."""
    bench.pair.send(0, b"some", end=False)
    bench.pair.client.stop_stream(0, 9)
    bench.pair.flush()
    bench.pair.advance(0.5)
    bench.pair.send(0, b"more")
    assert bench.pair.came_back(0)[0] == b"some"
    assert bench.pair.server.close_code is None
    bench.pair.send(4, b"another")
    assert bench.pair.came_back(4) == (b"another", True)


def test_peer_that_never_reads_is_stopped() -> None:
    """Echoes nobody takes stop the flow-control windows: a bounded amount is held, whatever is sent."""
    client = client_connection(max_data=1000, max_stream_data=1000)
    client._write_connection_limits = lambda **_: None  # type: ignore[method-assign]
    client._write_stream_limits = lambda **_: None  # type: ignore[method-assign]
    bench = Bench(client, stream_window_bytes=20_000, connection_window_bytes=40_000, max_backlog_bytes=30_000)
    for stream_id in range(0, 80, 4):
        bench.pair.client.send_stream_data(stream_id, bytes(50_000))
    bench.pair.flush()
    bench.pair.advance(10.0)
    assert 30_000 < bench.pair.server.send_backlog_bytes() <= 70_000
    assert bench.pair.established


def test_unfinished_messages_are_bounded() -> None:
    """Messages that never end are held up to the longest message's size and no further."""
    bench = Bench(stream_window_bytes=20_000, connection_window_bytes=40_000, max_backlog_bytes=30_000)
    for stream_id in range(2, 82, 4):
        bench.pair.client.send_stream_data(stream_id, bytes(25_000))
    bench.pair.flush()
    bench.pair.advance(10.0)
    messages = bench.pair.connection.service_state
    assert isinstance(messages, dict)
    unfinished = [message for message in messages.values() if message is not None]
    assert sum(map(len, unfinished)) == bench.pair.server.held_by_application_bytes
    assert 0 < bench.pair.server.held_by_application_bytes <= MAX_MESSAGE
    assert bench.counted()["drops|echo_message_too_long"] > 0


def test_several_long_messages_at_once_do_not_block_each_other() -> None:
    """Unfinished messages share the bound: some come back, the others are dropped and counted, and nothing waits."""
    bench = Bench(stream_window_bytes=10_000, connection_window_bytes=80_000, max_backlog_bytes=MAX_MESSAGE)
    for stream_id in (2, 6, 10, 14):
        bench.pair.client.send_stream_data(stream_id, bytes(MAX_MESSAGE), end_stream=True)
    bench.pair.flush()
    bench.pair.advance(20.0)
    back = len(bench.pair.streams_that_came_back())
    assert back >= 1
    assert bench.counted() == {"messages_echoed": back, "drops|echo_message_too_long": 4 - back}
    assert bench.pair.server.held_by_application_bytes == 0


def test_datagrams_wait_in_bounded_number(bench: Bench) -> None:
    """DATAGRAM frames that congestion control holds back are counted and dropped beyond the bound."""
    server = bench.pair.server
    for _ in range(MAX_QUEUED_DATAGRAM_FRAMES + 100):
        bench.service.handle_event(bench.pair.connection, DatagramFrameReceived(data=bytes(100)))
    assert server.datagrams_pending == MAX_QUEUED_DATAGRAM_FRAMES
    assert bench.counted() == {"datagrams_echoed": MAX_QUEUED_DATAGRAM_FRAMES, "drops|echo_queue_full": 100}


def test_datagram_that_would_not_fit_is_dropped() -> None:
    """A peer with longer packets than ours cannot block the queue with one that never fits."""
    bench = Bench(client_connection(max_datagram_size=1400))
    bench.pair.client.send_datagram_frame(bytes(1300))
    bench.pair.client.send_datagram_frame(b"small")
    bench.pair.flush()
    bench.pair.advance(0.5)
    assert bench.pair.datagrams_that_came_back() == [b"small"]
    assert bench.counted() == {"datagrams_echoed": 1, "drops|echo_datagram_too_large": 1}


def test_peer_without_datagrams_gets_none() -> None:
    """A peer that accepts no DATAGRAM frames may send them all the same."""
    client = client_connection(max_datagram_frame_size=None)
    bench = Bench(client)
    bench.pair.client.send_datagram_frame(b"x")
    bench.pair.flush()
    bench.pair.advance(0.5)
    assert bench.counted() == {"drops|echo_datagram_too_large": 1}


def test_closed_connection_is_forgotten(bench: Bench) -> None:
    """Unfinished messages go with their connection."""
    bench.pair.send(2, b"x", end=False)
    bench.service.connection_closed(bench.pair.connection)
    assert bench.pair.connection.service_state is None
