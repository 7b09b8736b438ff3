"""Tests of ``workers.service``: liveness probes, drained messages, refused streams."""

import pytest

from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.stats.counters import CounterSet
from support.pair import client_connection
from support.served import ServedPair
from workers.service import BasicService

TAG = bytes(range(16))
PROBE = b"ANQProR1" + TAG
ANSWER = b"ANQAckC1" + TAG + b"\x00\x00"


@pytest.fixture
def pair() -> ServedPair:
    """A client at a node without further services."""
    return ServedPair(BasicService(CounterSet()))


def test_probe_is_answered_on_a_stream_of_ours(pair: ServedPair) -> None:
    """Each probe gets its answer on the next unidirectional stream, which ends."""
    pair.send(2, PROBE)
    pair.send(6, PROBE)
    assert pair.came_back(3) == pair.came_back(7) == (ANSWER, True)
    assert pair.streams_that_came_back() == [3, 7]


def test_probe_in_pieces_is_answered(pair: ServedPair) -> None:
    """How a message is cut into packets does not matter."""
    for byte in PROBE:
        pair.send(2, bytes([byte]), end=False, wait_s=0.1)
    assert pair.streams_that_came_back() == []
    pair.send(2, b"")
    assert pair.came_back(3) == (ANSWER, True)
    assert pair.connection.service_state == {}


@pytest.mark.parametrize("message", [b"", b"hello", PROBE + b"\x00", PROBE[:-1], bytes(100_000)])
def test_other_messages_are_drained(pair: ServedPair, message: bytes) -> None:
    """A message nobody asked for is taken in and forgotten; the connection goes on."""
    pair.send(2, message, wait_s=2.0)
    assert pair.streams_that_came_back() == []
    assert pair.connection.service_state in (None, {})
    assert pair.server.close_code is None
    pair.send(6, PROBE)
    assert pair.came_back(3) == (ANSWER, True)


def test_of_a_long_message_little_is_kept(pair: ServedPair) -> None:
    """However much arrives before the end, 25 bytes are kept for each stream."""
    for stream_id in range(2, 42, 4):
        pair.send(stream_id, bytes(5000), end=False, wait_s=0.1)
    state = pair.connection.service_state
    assert isinstance(state, dict)
    assert len(state) == 10
    assert all(len(kept) <= 25 for kept in state.values())


def test_reset_message_is_forgotten(pair: ServedPair) -> None:
    """A peer that gives a message up leaves nothing behind."""
    pair.send(2, PROBE[:10], end=False)
    pair.client.reset_stream(2, 7)
    pair.flush()
    pair.advance(0.5)
    assert pair.connection.service_state == {}


@pytest.mark.parametrize("end", [True, False])
def test_bidirectional_stream_is_refused(pair: ServedPair, end: bool) -> None:
    """A stream nobody serves is reset at once; the connection goes on."""
    pair.send(0, b"GET /", end=end)
    assert pair.resets() == {0: ApplicationErrorCode.LIFECYCLE_CLEANUP}
    pair.send(2, PROBE)
    assert pair.came_back(3) == (ANSWER, True)


def test_many_refused_streams_leave_nothing_behind(pair: ServedPair) -> None:
    """A peer may try as often as it likes: refused streams are forgotten, on both sides."""
    for index in range(200):
        pair.client.send_stream_data(4 * index, b"x", end_stream=True)
    pair.flush()
    pair.advance(5.0)
    assert len(pair.resets()) == 200
    assert len(pair.server._streams) == 0


def test_closed_connection_is_forgotten(pair: ServedPair) -> None:
    """Beginnings of messages go with their connection."""
    pair.send(2, PROBE[:10], end=False)
    BasicService(CounterSet()).connection_closed(pair.connection)
    assert pair.connection.service_state is None


class TestPeerThatGrantsNoStreams:
    """A client that sends probes and lets us open no stream to answer on."""

    def test_answers_do_not_pile_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A few answers may wait; the rest is dropped, since a probe costs its sender 30 bytes and us a stream."""
        client = client_connection()
        # What the transport parameter initial_max_streams_uni says.
        client._local_max_streams_uni.value = client._local_max_streams_uni.sent = 0
        pair = ServedPair(BasicService(CounterSet()), client)
        for index in range(1000):
            pair.client.send_stream_data(2 + 4 * index, PROBE, end_stream=True)
        pair.flush()
        pair.advance(10.0)
        assert pair.streams_that_came_back() == []
        assert len(pair.server._streams) < 200
