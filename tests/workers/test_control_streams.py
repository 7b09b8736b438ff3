"""Tests of ``workers.control_streams``: coordination messages are picked out, everything else passes untouched."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StreamDataReceived, StreamReset
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.net.udp import PathAddress
from antquic_server.protocol import relay_control
from antquic_server.protocol.coordination import MAX_MESSAGE_BYTES, PREFIX
from antquic_server.stats.counters import CounterSet
from support.coordination import ALICE, BOB, request
from support.served import ServedPair
from workers.connection import Connection
from workers.control_streams import MAX_HELD_BYTES, ControlStreams, MessageKind

PATH = PathAddress("192.0.2.7", 50007, 0, 0, b"", 0)
MESSAGE = request(ALICE, BOB)
OTHER_PREFIX = relay_control.PREFIX
MAX_OTHER_BYTES = relay_control.MAX_MESSAGE_BYTES


class Spy:
    """Stands for coordination and for the application; notes what each of them gets."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.other_messages: list[bytes] = []
        self.events: list[QuicEvent] = []
        self.closed = 0

    def handle_message_untrusted(self, connection: Connection, data: bytes) -> None:
        """A coordination message."""
        self.messages.append(data)

    def handle_other_untrusted(self, connection: Connection, data: bytes) -> None:
        """A message of another kind."""
        self.other_messages.append(data)

    def handle_event(self, connection: Connection, event: QuicEvent) -> None:
        """An event for the application."""
        self.events.append(event)

    def connection_closed(self, connection: Connection) -> None:
        """The connection's end, for the application."""
        self.closed += 1


def kinds(spy: Spy, counters: CounterSet) -> list[MessageKind]:
    """Two kinds of messages, as a node has them; the second is short."""
    return [
        MessageKind(
            prefix=PREFIX,
            max_message_bytes=MAX_MESSAGE_BYTES,
            handle=spy.handle_message_untrusted,
            count_malformed=lambda: counters.add("coordinations", 1, "malformed"),
        ),
        MessageKind(
            prefix=OTHER_PREFIX,
            max_message_bytes=MAX_OTHER_BYTES,
            handle=spy.handle_other_untrusted,
            count_malformed=lambda: counters.add("channel_messages", 1, "malformed"),
        ),
    ]


class FakeQuic:
    """Notes which streams are stopped."""

    def __init__(self) -> None:
        self.stopped: list[int] = []

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """The peer is asked to send no more."""
        self.stopped.append(stream_id)


class Bench:
    """One connection in front of spies."""

    def __init__(self) -> None:
        self.spy = Spy()
        self.counters = CounterSet()
        self.streams = ControlStreams(kinds(self.spy, self.counters), self.spy)
        quic: Any = FakeQuic()
        self.quic: FakeQuic = quic
        self.connection = Connection(number=1, quic=quic, path=PATH, handshake_deadline_s=0.0)

    def give(self, stream_id: int, chunks: Sequence[bytes], *, end: bool = True) -> None:
        """Let a stream arrive in pieces; the last one carries its end."""
        for number, chunk in enumerate(chunks):
            last = end and number == len(chunks) - 1
            self.event(StreamDataReceived(data=chunk, end_stream=last, stream_id=stream_id))

    def event(self, event: QuicEvent) -> None:
        """Let something happen."""
        self.streams.handle_event(self.connection, event)

    def application_got(self, stream_id: int) -> tuple[bytes, bool]:
        """What the application has received on a stream, and whether it has ended."""
        events = [
            item for item in self.spy.events if isinstance(item, StreamDataReceived) and item.stream_id == stream_id
        ]
        assert not any(item.end_stream for item in events[:-1])
        return b"".join(item.data for item in events), any(item.end_stream for item in events)

    def malformed(self) -> float:
        """Messages counted as malformed."""
        return self.counters.values.get("coordinations|malformed", 0)


@pytest.fixture
def bench() -> Bench:
    """A fresh one."""
    return Bench()


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut data at the given offsets."""
    return [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)])]


@pytest.mark.parametrize("boundary", range(len(MESSAGE) + 1))
def test_message_in_two_pieces(bench: Bench, boundary: int) -> None:
    """Wherever it is cut, it is one message, and the application hears nothing."""
    bench.give(2, cut(MESSAGE, [boundary]))

    assert bench.spy.messages == [MESSAGE]
    assert bench.spy.events == []
    assert bench.connection.control_streams == {}


def test_message_byte_by_byte(bench: Bench) -> None:
    """And its end in a frame of its own."""
    bench.give(2, [*cut(MESSAGE, range(1, len(MESSAGE))), b""])

    assert bench.spy.messages == [MESSAGE]
    assert bench.spy.events == []


def test_messages_on_many_streams_are_kept_apart(bench: Bench) -> None:
    """Pieces of ten messages and of an application's stream, interleaved."""
    messages = {4 * number + 2: PREFIX + b"%d" % number * 50 for number in range(10)}
    pieces = {stream_id: cut(data, range(7, len(data), 7)) for stream_id, data in messages.items()}
    for turn in range(max(map(len, pieces.values()))):
        for stream_id, parts in pieces.items():
            if turn < len(parts):
                bench.give(stream_id, [parts[turn]], end=turn == len(parts) - 1)
        bench.give(402, [b"application"], end=False)

    assert sorted(bench.spy.messages) == sorted(messages.values())
    assert bench.application_got(402)[0].startswith(b"applicationapplication")


@given(
    st.one_of(
        st.binary(max_size=40),
        st.integers(0, 4).map(lambda length: PREFIX[:length]),
        st.tuples(st.integers(0, 4), st.binary(max_size=20)).map(lambda item: PREFIX[: item[0]] + item[1]),
        st.binary(max_size=20).map(lambda rest: b"AQCC\x02" + rest),
    ).filter(lambda data: not data.startswith((PREFIX, OTHER_PREFIX))),
    st.data(),
    st.booleans(),
)
def test_application_streams_pass_untouched(data: bytes, draw: st.DataObject, end_alone: bool) -> None:
    """Byte for byte, with their end, however they are cut and however much they look like ours at first."""
    bench = Bench()
    pieces = cut(data, draw.draw(st.lists(st.integers(0, len(data)), max_size=len(data))))
    bench.give(2, [*pieces, b""] if end_alone else pieces)

    assert bench.application_got(2) == (data, True)
    assert bench.spy.messages == bench.spy.other_messages == []
    assert bench.connection.control_streams == {}


@given(st.binary(max_size=200), st.data())
def test_whatever_begins_like_a_message_is_kept_from_the_application(rest: bytes, draw: st.DataObject) -> None:
    """Sense or nonsense, cut anywhere: it is for coordination to judge."""
    bench = Bench()
    data = PREFIX + rest
    bench.give(2, cut(data, draw.draw(st.lists(st.integers(0, len(data)), max_size=20))))

    assert bench.spy.messages == [data]
    assert bench.spy.events == []


def test_kinds_are_told_apart_by_their_last_different_byte(bench: Bench) -> None:
    """Whatever they have in common is held until it is known whose it is."""
    for stream_id, prefix in ((2, PREFIX), (6, OTHER_PREFIX)):
        bench.give(stream_id, [prefix[:2]], end=False)
        bench.give(stream_id, [prefix[2:4]], end=False)
        bench.give(stream_id, [prefix[4:] + b"rest"])

    assert bench.spy.messages == [PREFIX + b"rest"]
    assert bench.spy.other_messages == [OTHER_PREFIX + b"rest"]
    assert bench.spy.events == []


@pytest.mark.parametrize("excess", [0, 1])
def test_each_kind_has_its_own_longest_message(bench: Bench, excess: int) -> None:
    """And its own counter."""
    bench.give(2, [OTHER_PREFIX, bytes(MAX_OTHER_BYTES + excess - len(OTHER_PREFIX))], end=False)
    assert bench.quic.stopped == [2] * excess
    assert bench.counters.values.get("channel_messages|malformed", 0) == excess
    assert bench.malformed() == 0


def test_application_stream_is_not_held_back(bench: Bench) -> None:
    """As soon as it cannot be one of ours any more, everything so far goes on, and later data at once."""
    bench.give(2, [b"AQC"], end=False)
    assert bench.spy.events == []
    bench.give(2, [b"X"], end=False)
    assert bench.application_got(2) == (b"AQCX", False)
    bench.give(2, [PREFIX], end=False)
    assert bench.application_got(2) == (b"AQCX" + PREFIX, False)
    bench.give(2, [b"end"])
    assert bench.application_got(2) == (b"AQCX" + PREFIX + b"end", True)
    assert bench.connection.control_streams == {}


@pytest.mark.parametrize("stream_id", [0, 1, 4])
def test_bidirectional_streams_are_the_applications(bench: Bench, stream_id: int) -> None:
    """Even with our prefix: the very same event."""
    event = StreamDataReceived(data=MESSAGE, end_stream=True, stream_id=stream_id)
    bench.event(event)

    assert bench.spy.events == [event]
    assert bench.spy.events[0] is event


def test_other_events_pass(bench: Bench) -> None:
    """Datagrams and the like are no business of this service."""
    event = DatagramFrameReceived(data=MESSAGE)
    bench.event(event)
    assert bench.spy.events == [event]


def test_message_reset_midway_is_forgotten(bench: Bench) -> None:
    """Nobody hears of it, and nothing of it is kept."""
    bench.give(2, [MESSAGE[:50]], end=False)
    bench.event(StreamReset(error_code=0, stream_id=2))

    assert bench.spy.messages == []
    assert bench.spy.events == []
    assert bench.connection.control_streams == {}


def test_application_stream_reset_midway_is_passed_on(bench: Bench) -> None:
    """The application must clean up too."""
    reset = StreamReset(error_code=7, stream_id=2)
    bench.give(2, [b"application"], end=False)
    bench.event(reset)
    bidirectional = StreamReset(error_code=7, stream_id=0)
    bench.event(bidirectional)

    assert bench.spy.events[1:] == [reset, bidirectional]
    assert bench.connection.control_streams == {}


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("pieces", [1, 2, 20])
def test_longest_message(bench: Bench, excess: int, pieces: int) -> None:
    """One byte more than the bound and a stream that goes on is stopped; one that ends is for the decoder to refuse."""
    data = PREFIX + bytes(MAX_MESSAGE_BYTES + excess - len(PREFIX))
    chunks = cut(data, range(len(data) // pieces, len(data), len(data) // pieces)) if pieces > 1 else [data]
    bench.give(2, chunks, end=False)
    assert bench.quic.stopped == [2] * excess
    assert bench.malformed() == excess
    bench.give(2, [b""])

    assert bench.spy.messages == ([] if excess else [data])
    assert bench.malformed() == excess
    assert bench.connection.control_streams == {}


def test_rest_of_a_message_that_is_too_long_reaches_nobody(bench: Bench) -> None:
    """What is still on its way when the stream is stopped is not the application's, nor is the reset that follows."""
    bench.give(2, [PREFIX + bytes(MAX_MESSAGE_BYTES)], end=False)
    bench.give(2, [b"more", PREFIX, b"more"], end=False)
    bench.event(StreamReset(error_code=0, stream_id=2))
    bench.give(6, [PREFIX + bytes(MAX_MESSAGE_BYTES)], end=False)
    bench.give(6, [b"more", b"end"])

    assert bench.spy.events == []
    assert bench.spy.messages == []
    assert bench.malformed() == 2
    assert bench.connection.control_streams == {}


def test_unfinished_messages_of_a_connection_are_bounded_together(bench: Bench) -> None:
    """A hundred streams that never end hold no more than a few long messages may."""
    for number in range(100):
        bench.give(4 * number + 2, [PREFIX + bytes(1000)], end=False)
    held = sum(len(item) for item in bench.connection.control_streams.values() if isinstance(item, bytes))

    assert MAX_HELD_BYTES - 2000 < held <= MAX_HELD_BYTES
    assert len(bench.quic.stopped) == bench.malformed() == 100 - held // (1000 + len(PREFIX))
    # Whoever gives one up has room again.
    bench.event(StreamReset(error_code=0, stream_id=2))
    bench.give(402, [MESSAGE[:100], MESSAGE[100:]])
    assert bench.spy.messages == [MESSAGE]


def test_end_of_the_connection_forgets_everything(bench: Bench) -> None:
    """And the application is told."""
    bench.give(2, [MESSAGE[:10]], end=False)
    bench.give(6, [b"application"], end=False)
    bench.streams.connection_closed(bench.connection)

    assert bench.connection.control_streams == {}
    assert bench.spy.closed == 1


def test_stop_reaches_the_peer() -> None:
    """Over real connections: the sender of an endless message is told to stop, and the next one is read."""
    spy, counters = Spy(), CounterSet()
    pair = ServedPair(ControlStreams(kinds(spy, counters), spy))
    pair.send(2, PREFIX + bytes(20 * MAX_MESSAGE_BYTES), end=False, wait_s=5.0)
    pair.send(6, MESSAGE)

    stopped = pair.client._streams.get(2)
    assert stopped is None or stopped.sender._reset_error_code is not None
    assert spy.messages == [MESSAGE]
    assert [item for item in spy.events if isinstance(item, StreamDataReceived | StreamReset)] == []
    assert pair.connection.control_streams == {}
    assert counters.values["coordinations|malformed"] == 1
