"""Tests of ``workers.outgoing`` with a socket that takes as much as the test allows."""

import errno
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from antquic_server.net.udp import PathAddress, SendResult
from antquic_server.stats.counters import CounterSet
from workers.outgoing import MAX_QUEUED_DATAGRAMS, Outgoing

A = PathAddress("192.0.2.1", 1000, 0, 0, b"", 0)
B = PathAddress("192.0.2.2", 2000, 0, 0, b"", 0)
FD = 77


class FakeSocket:
    """Takes ``room`` datagrams, loses those that say so, then blocks."""

    def __init__(self) -> None:
        self.room = 0
        self.taken: list[tuple[PathAddress, bytes]] = []

    def fileno(self) -> int:
        """A descriptor nobody uses."""
        return FD

    def send(self, path: PathAddress, datagrams: Sequence[bytes]) -> SendResult:
        """Send as the real one does: what does not fit is the caller's."""
        sent = dropped = code = 0
        for datagram in datagrams:
            if not self.room:
                break
            self.room -= 1
            if datagram in (b"unreachable", b"too large"):
                dropped += 1
                code = errno.EMSGSIZE if datagram == b"too large" else errno.ENETUNREACH
            else:
                sent += 1
                self.taken.append((path, datagram))
        return SendResult(sent, dropped, code)


class FakeLoop:
    """Remembers who waits for a writable descriptor."""

    def __init__(self) -> None:
        self.writers: dict[int, Callable[[], None]] = {}

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        """As asyncio's."""
        self.writers[fd] = callback

    def remove_writer(self, fd: int) -> bool:
        """As asyncio's."""
        return self.writers.pop(fd, None) is not None


class Bench:
    """An Outgoing with everything around it."""

    def __init__(self) -> None:
        self.socket = FakeSocket()
        self.loop = FakeLoop()
        self.counters = CounterSet()
        socket: Any = self.socket
        loop: Any = self.loop
        self.outgoing = Outgoing(socket, self.counters, loop)

    def writable(self, room: int) -> None:
        """The socket has room again."""
        self.socket.room = room
        self.loop.writers[FD]()

    def drops(self, reason: str) -> float:
        """Datagrams dropped for this reason."""
        return self.counters.values.get(f"drops|{reason}", 0)


@pytest.fixture
def bench() -> Bench:
    """A fresh one; its socket blocks."""
    return Bench()


def numbered(count: int, start: int = 0) -> list[bytes]:
    """Datagrams that can be told apart."""
    return [b"%d" % number for number in range(start, start + count)]


def test_datagrams_go_out_at_once_while_there_is_room(bench: Bench) -> None:
    """Nothing is queued and nobody waits; datagrams and bytes are counted."""
    bench.socket.room = 10
    bench.outgoing.send(A, [b"one", b"three"])
    assert bench.socket.taken == [(A, b"one"), (A, b"three")]
    assert bench.outgoing.queued_datagrams == 0
    assert bench.loop.writers == {}
    assert bench.counters.values["datagrams_sent"] == 2
    assert bench.counters.values["bytes_sent"] == 8


def test_rest_waits_in_order(bench: Bench) -> None:
    """What the socket does not take goes out later, before anything that was sent afterwards."""
    bench.socket.room = 2
    bench.outgoing.send(A, numbered(5))
    bench.socket.room = 1  # but nobody may overtake those who wait
    bench.outgoing.send(B, numbered(2, 5))
    assert bench.outgoing.queued_datagrams == 5
    bench.writable(1)
    bench.writable(3)
    assert bench.outgoing.queued_datagrams == 1
    bench.writable(100)
    assert [data for _, data in bench.socket.taken] == numbered(7)
    assert [path for path, _ in bench.socket.taken] == [A] * 5 + [B] * 2
    assert bench.outgoing.queued_datagrams == 0
    assert bench.loop.writers == {}
    assert bench.counters.values["datagrams_sent"] == 7
    assert bench.counters.values["bytes_sent"] == 7


def test_sending_again_after_the_queue_is_empty(bench: Bench) -> None:
    """After a pause everything is as before."""
    bench.outgoing.send(A, numbered(1))
    bench.writable(10)
    bench.outgoing.send(A, numbered(1, 1))
    assert [data for _, data in bench.socket.taken] == numbered(2)
    assert bench.outgoing.queued_datagrams == 0


def test_datagrams_the_network_refuses_are_dropped_and_counted(bench: Bench) -> None:
    """An unreachable peer costs its own datagrams only."""
    bench.socket.room = 10
    bench.outgoing.send(A, [b"unreachable", b"fine", b"unreachable"])
    assert bench.drops("send_error") == 2
    assert bench.counters.values["datagrams_sent"] == 1
    assert bench.outgoing.queued_datagrams == 0


def test_what_the_link_refuses_is_counted_apart(bench: Bench) -> None:
    """EMSGSIZE is the answer a path MTU probe may get, not an error."""
    bench.socket.room = 5
    bench.outgoing.send(A, [b"too large"])

    assert bench.drops("above_link_mtu") == 1
    assert bench.drops("send_error") == 0


def test_queue_is_bounded(bench: Bench) -> None:
    """A socket that blocks for ever holds a fixed number of datagrams; the rest is dropped and counted."""
    for _ in range(MAX_QUEUED_DATAGRAMS // 8 + 10):
        bench.outgoing.send(A, numbered(8))
    assert bench.outgoing.queued_datagrams == MAX_QUEUED_DATAGRAMS
    assert bench.drops("send_queue_full") == 80
    bench.writable(MAX_QUEUED_DATAGRAMS + 1)
    assert len(bench.socket.taken) == MAX_QUEUED_DATAGRAMS
    assert bench.outgoing.queued_datagrams == 0


def test_closing_forgets_the_queue(bench: Bench) -> None:
    """After ``close`` nobody waits for the socket."""
    bench.outgoing.send(A, numbered(3))
    bench.outgoing.close()
    bench.outgoing.close()
    assert bench.outgoing.queued_datagrams == 0
    assert bench.loop.writers == {}
    assert bench.socket.taken == []
