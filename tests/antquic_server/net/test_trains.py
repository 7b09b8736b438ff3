"""How datagrams become trains and back."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.net import trains
from antquic_server.net.trains import (
    MAX_TRAIN_BYTES,
    MAX_TRAIN_DATAGRAMS,
    end_of_train,
    has_gso,
    split_train,
    switch_gro,
)


def sizes_of_trains(sizes: list[int]) -> list[list[int]]:
    """Cut a list of datagram sizes into the trains that would be sent."""
    datagrams = [bytes(size) for size in sizes]
    found = []
    start = 0
    while start < len(datagrams):
        end = end_of_train(datagrams, start)
        found.append(sizes[start:end])
        start = end
    return found


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1200], [[1200]]),
        ([1200, 1200, 800], [[1200, 1200, 800]]),
        ([1200, 1200, 800, 1200], [[1200, 1200, 800], [1200]]),
        ([1200, 1300, 1300, 50, 50], [[1200], [1300, 1300, 50], [50]]),
        ([1200, 0], [[1200], [0]]),
        ([0, 0, 1], [[0], [0], [1]]),
        ([1200] * 55, [[1200] * 54, [1200]]),
        ([100] * 65, [[100] * 64, [100]]),
        ([65_100, 65_100], [[65_100], [65_100]]),
    ],
)
def test_train_ends_after_a_shorter_and_before_a_longer_datagram(sizes: list[int], expected: list[list[int]]) -> None:
    """Equal sizes travel together, the last may be shorter, and the kernel's bounds hold."""
    assert sizes_of_trains(sizes) == expected


@given(st.lists(st.integers(0, 2000), max_size=200))
def test_train_splits_into_what_it_was_made_of(sizes: list[int]) -> None:
    """Cutting the concatenation of any train at the size of its first datagram restores the datagrams."""
    for train in sizes_of_trains(sizes):
        datagrams = [bytes([index % 251]) * size for index, size in enumerate(train)]

        assert split_train(b"".join(datagrams), train[0]) == datagrams
        assert len(train) <= MAX_TRAIN_DATAGRAMS
        assert len(train) == 1 or sum(train) <= MAX_TRAIN_BYTES


@pytest.mark.parametrize("segment_size_bytes", [-1, 0, 5, 6])
def test_single_datagram_is_not_split(segment_size_bytes: int) -> None:
    """A size that is absent, equal or larger means one datagram."""
    assert split_train(b"hello", segment_size_bytes) == [b"hello"]


def test_socket_that_is_not_udp_has_no_offloads() -> None:
    """A refusal by the kernel is an answer, not an error."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        assert not switch_gro(sock, on=True)
        assert not has_gso(sock)


def test_offloads_are_off_where_the_system_is_not_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Option numbers of Linux are not tried on another system, where they may mean something else."""
    monkeypatch.setattr(trains, "_LINUX", False)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert not switch_gro(sock, on=True)
        assert not has_gso(sock)
