"""Batches of datagrams: sent in one call, counted in another."""

import ctypes
import errno
import socket
from collections.abc import Iterator

import pytest

from antquic_server.bench.relay_mmsg import BatchReceiver, BatchSender
from antquic_server.errors import CannotBootError

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A socket that is connected to another."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as arrival,
    ):
        arrival.bind(("127.0.0.1", 0))
        out.connect(arrival.getsockname())
        for sock in (out, arrival):
            sock.setblocking(False)
        yield out, arrival


def test_singles_arrive_one_by_one_and_unchanged(pair: Pair) -> None:
    """As many as asked for, in one call."""
    out, arrival = pair

    assert BatchSender(out, b"datagram", train=1, messages=8).send(3) == 3
    assert [arrival.recv(100) for _ in range(3)] == [b"datagram"] * 3
    with pytest.raises(BlockingIOError):
        arrival.recv(100)


def test_trains_are_datagrams_to_whoever_takes_no_trains(pair: Pair) -> None:
    """A count that is no multiple is rounded up to whole trains."""
    out, arrival = pair

    assert BatchSender(out, b"datagram", train=4, messages=8).send(5) == 8
    assert [arrival.recv(100) for _ in range(8)] == [b"datagram"] * 8


@pytest.mark.parametrize("train", [1, 7])
def test_bytes_are_counted_singly_or_in_trains(pair: Pair, train: int) -> None:
    """More than one batch is waiting, and all of it is taken."""
    out, arrival = pair
    receiver = BatchReceiver(arrival)
    sender = BatchSender(out, bytes(50), train=train, messages=10)

    sent = sum(sender.send(10 * train) for _ in range(7))

    assert receiver.receive() == 50 * sent
    assert receiver.receive() == 0


def test_no_more_than_a_batch_is_sent(pair: Pair) -> None:
    """The caller learns how many it were."""
    assert BatchSender(pair[0], bytes(50), train=1, messages=4).send(100) == 4


def test_a_full_socket_takes_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does not take now is no error; it is sent again by whoever counts."""
    sender = BatchSender(pair[0], bytes(50), train=1, messages=4)

    def refuse(*_: object) -> int:
        ctypes.set_errno(errno.EAGAIN)
        return -1

    monkeypatch.setattr(sender, "_sendmmsg", refuse)

    assert sender.send(4) == 0


def test_datagrams_the_kernel_never_takes_are_an_error(pair: Pair) -> None:
    """A load that cannot be sent ends the measurement, with the kernel's reason."""
    with pytest.raises(OSError, match="too long"):
        BatchSender(pair[0], bytes(65_530), train=1, messages=1).send(1)


def test_system_without_these_calls_is_named(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    """The message says what is missing."""
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())

    with pytest.raises(CannotBootError, match="needs recvmmsg"):
        BatchReceiver(pair[1])
