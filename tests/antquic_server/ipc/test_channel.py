"""Tests of the message channel on real socket pairs and both event loops."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from antquic_server.ipc.channel import Channel
from antquic_server.ipc.codec import encode
from antquic_server.ipc.messages import (
    BootFailed,
    Drain,
    HeartbeatAck,
    Hello,
    Message,
    PeerDown,
)

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
HELLO = Hello(version=1, pid=1)
Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine function on the loop, within five seconds."""

    def run_within(story: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(5):
                await story()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())

    return run_within


class End:
    """One end of a channel that remembers what it heard."""

    def __init__(self, sock: socket.socket, max_queued_bytes: int = 1 << 20) -> None:
        self.heard: list[Message] = []
        self.closed: list[str] = []
        self.news = asyncio.Event()
        self.channel = Channel(sock, self.on_message, self.on_closed, asyncio.get_running_loop(), max_queued_bytes)

    def on_message(self, message: Message) -> None:
        """Remember a message."""
        self.heard.append(message)
        self.news.set()

    def on_closed(self, reason: str) -> None:
        """Remember the end."""
        self.closed.append(reason)
        self.news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, looking at each piece of news."""
        while not condition():
            self.news.clear()
            await self.news.wait()


def test_messages_arrive_in_order_both_ways(run: Run) -> None:
    """Each end hears what the other said."""

    async def story() -> None:
        left, right = map(End, socket.socketpair())
        for number in range(50):
            assert left.channel.send(HeartbeatAck(sequence=number, connections_elsewhere=0))
        right.channel.send(HELLO)
        await right.until(lambda: len(right.heard) == 50)
        await left.until(lambda: left.heard)
        left.channel.close()
        right.channel.close()

        assert [message.sequence for message in right.heard if isinstance(message, HeartbeatAck)] == list(range(50))
        assert left.heard == [HELLO]

    run(story)


def test_slow_reader_costs_a_bounded_queue_and_counted_drops(run: Run) -> None:
    """Messages that only inform are dropped once the queue is full; what steers the worker is not."""

    async def story() -> None:
        ours, theirs = socket.socketpair()
        left = End(ours, max_queued_bytes=10_000)
        news = PeerDown(peer_id=bytes(32), connection=1)
        sent = 0
        while left.channel.send(news):
            sent += 1
            assert sent < 1_000_000
        assert left.channel.dropped == 1
        assert not left.channel.send(news)
        assert left.channel.dropped == 2
        assert left.channel.queued_bytes <= 10_000
        assert left.channel.send(Drain(deadline_s=1))

        right = End(theirs)
        await right.until(lambda: right.heard and isinstance(right.heard[-1], Drain))
        assert len(right.heard) == sent + 1
        assert left.channel.queued_bytes == 0
        assert left.channel.send(news)
        left.channel.close()
        right.channel.close()

    run(story)


def test_large_message_is_sent_in_parts(run: Run) -> None:
    """A message larger than the socket's buffer arrives whole."""

    async def story() -> None:
        left, right = map(End, socket.socketpair())
        message = BootFailed(reason="x" * 3_000_000)
        left.channel.send(message)
        left.channel.send(HELLO)
        await right.until(lambda: len(right.heard) == 2)
        assert right.heard == [message, HELLO]
        left.channel.close()
        right.channel.close()

    run(story)


def test_end_of_the_other_process_is_reported_once_after_its_last_words(run: Run) -> None:
    """Everything written before the end is heard before the end."""

    async def story() -> None:
        ours, theirs = socket.socketpair()
        end = End(ours)
        theirs.sendall(encode(HELLO))
        theirs.close()
        await end.until(lambda: end.closed)
        assert end.heard == [HELLO]
        assert end.closed == ["end of stream"]
        assert not end.channel.send(HELLO)
        end.channel.close()

    run(story)


def test_nonsense_closes_the_channel(run: Run) -> None:
    """A peer that cannot be understood is not listened to any longer."""

    async def story() -> None:
        ours, theirs = socket.socketpair()
        end = End(ours)
        theirs.sendall(encode(HELLO) + b"\xff" * 10)
        await end.until(lambda: end.closed)
        assert end.heard == [HELLO]
        assert end.closed[0].startswith("malformed message")
        assert end.channel.closed
        theirs.close()

    run(story)


def test_closing_in_the_middle_of_a_burst_stops_the_delivery(run: Run) -> None:
    """A handler may close the channel; nothing more is delivered and nothing is reported."""

    async def story() -> None:
        ours, theirs = socket.socketpair()
        end = End(ours)
        deliver = end.on_message

        def close_at_first(message: Message) -> None:
            deliver(message)
            end.channel.close()

        end.channel._on_message = close_at_first
        theirs.sendall(encode(HELLO) * 3)
        await end.until(lambda: end.heard)
        await asyncio.sleep(0)
        assert end.heard == [HELLO]
        assert end.closed == []
        theirs.close()

    run(story)


def test_pending_words_can_be_read_at_once(run: Run) -> None:
    """The supervisor reads what a dead worker left behind without waiting for the loop."""

    async def story() -> None:
        ours, theirs = socket.socketpair()
        end = End(ours)
        theirs.sendall(encode(HELLO) * 2)
        end.channel.receive_pending()
        assert end.heard == [HELLO, HELLO]
        assert end.closed == []
        theirs.close()
        end.channel.receive_pending()
        assert end.closed == ["end of stream"]

    run(story)


def test_writing_to_a_dead_peer_keeps_its_last_words(run: Run) -> None:
    """A broken pipe while sending does not throw away what the peer said before it died."""

    async def story() -> None:
        ours, theirs = socket.socketpair()
        end = End(ours)
        theirs.sendall(encode(HELLO))
        theirs.close()
        end.channel.send(HELLO)
        assert not end.channel.send(HELLO)
        assert end.channel.dropped == 1
        await end.until(lambda: end.closed)
        assert end.heard == [HELLO]

    run(story)
