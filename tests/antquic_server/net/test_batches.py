"""Reading many messages at once; ``test_udp`` compares it with reading one by one."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from antquic_server.net import batches
from antquic_server.net.batches import BATCH_TRAINS, BatchReader, Sender
from support.require import require

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A socket that is connected to another."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as arrival,
    ):
        arrival.bind(("127.0.0.1", 0))
        arrival.setblocking(False)
        out.connect(arrival.getsockname())
        yield out, arrival


def reader_of(sock: socket.socket) -> BatchReader:
    """Return a reader; skips where there is none."""
    reader = BatchReader.of(sock)
    require(reader, "this system has no recvmmsg")
    assert reader is not None
    return reader


def address(sender: Sender) -> Any:
    """Remember the bare address."""
    return sender[0]


def test_no_more_than_a_batch_is_read_at_once(pair: Pair) -> None:
    """A shorter one says that nothing is left."""
    out, arrival = pair
    reader = reader_of(arrival)
    for number in range(BATCH_TRAINS + 3):
        out.send(bytes([number]))

    first = [bytes(view) for view, _, _ in reader.read(address)]
    second = [(bytes(view), size, sender) for view, size, sender in reader.read(address)]

    assert first == [bytes([number]) for number in range(BATCH_TRAINS)]
    assert second == [(bytes([BATCH_TRAINS + number]), 1, out.getsockname()) for number in range(3)]
    assert reader.read(address) == []
    assert (reader.errors, reader.truncated) == (0, 0)


def test_senders_are_looked_at_once_until_too_many_are_known(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of senders is bounded: it is emptied when it is full."""
    out, arrival = pair
    monkeypatch.setattr(batches, "_KNOWN_ENTRIES", 2)
    reader = reader_of(arrival)
    asked: list[Sender] = []

    def remember(sender: Sender) -> int:
        asked.append(sender)
        return len(asked)

    def read_one(sock: socket.socket) -> int:
        sock.sendto(b"x", arrival.getsockname())
        ((_, _, remembered),) = reader.read(remember)
        assert isinstance(remembered, int)
        return remembered

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third,
    ):
        assert [read_one(sock) for sock in (out, second, out, second, third, out)] == [1, 2, 1, 2, 3, 4]
    assert [port for (_, port), _ in asked].count(out.getsockname()[1]) == 2


def test_what_does_not_fit_is_left_out_and_counted(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its boundaries would be guesswork."""
    out, arrival = pair
    monkeypatch.setattr(batches, "_TRAIN_BYTES", 10)
    reader = reader_of(arrival)
    for size in (10, 11, 9):
        out.send(bytes(size))

    assert [len(view) for view, _, _ in reader.read(address)] == [10, 9]
    assert reader.truncated == 1


def test_scope_of_a_link_local_sender_is_kept() -> None:
    """An address of IPv6 has four parts, as Python's own calls return it."""
    name = socket.AF_INET6.to_bytes(2, "little") + (443).to_bytes(2, "big") + bytes(4)
    name += socket.inet_pton(socket.AF_INET6, "fe80::1") + (7).to_bytes(4, "little")

    assert batches._address(name + bytes(4)) == ("fe80::1", 443, 0, 7)


def test_system_without_the_call_has_no_reader(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads one by one."""
    monkeypatch.setattr("sys.platform", "darwin")
    assert BatchReader.of(pair[1]) is None

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.PyDLL", lambda *_, **__: object())
    assert BatchReader.of(pair[1]) is None
