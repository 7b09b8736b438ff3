"""Tests of ``antquic_server.protocol.address_discovery``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.address_discovery import (
    ObservedAddressReceiver,
    ObservedAddressReporter,
    RemoteCandidates,
)
from antquic_server.protocol.frames import AddAddress, ObservedAddress

A = SocketAddress.parse("192.0.2.1:1000")
B = SocketAddress.parse("192.0.2.1:2000")
MAPPED_A = SocketAddress.parse("[::ffff:192.0.2.1]:1000")
V6 = SocketAddress.parse("[2001:db8::1]:1000")


def observed(sequence_number: int, address: SocketAddress) -> ObservedAddress:
    """Shorthand."""
    return ObservedAddress(sequence_number=sequence_number, address=address)


def added(sequence_number: int, address: SocketAddress) -> AddAddress:
    """Shorthand."""
    return AddAddress(sequence_number=sequence_number, address=address)


def test_first_address_is_due_once() -> None:
    """The first observation is reported as number 0; seeing the same address again reports nothing."""
    reporter = ObservedAddressReporter()
    assert reporter.due is None
    assert reporter.observe(A)
    assert reporter.take_due() == observed(0, A)
    assert reporter.due is None
    assert not reporter.observe(A)
    assert reporter.take_due() is None


def test_mapped_address_is_the_same_address() -> None:
    """An IPv4-mapped address is reported as IPv4, and is no change of address."""
    reporter = ObservedAddressReporter()
    assert reporter.observe(MAPPED_A)
    assert reporter.due == observed(0, A)
    assert not reporter.observe(A)


def test_every_change_has_a_higher_number() -> None:
    """Numbers rise with each change, also back to an address reported before."""
    reporter = ObservedAddressReporter()
    frames = []
    for address in (A, B, A, V6):
        assert reporter.observe(address)
        frames.append(reporter.take_due())
    assert frames == [observed(0, A), observed(1, B), observed(2, A), observed(3, V6)]


def test_unsent_report_is_replaced() -> None:
    """Two changes before anything is sent leave only the newer one to send."""
    reporter = ObservedAddressReporter()
    reporter.observe(A)
    reporter.observe(B)
    assert reporter.take_due() == observed(1, B)
    assert reporter.take_due() is None


def test_lost_report_is_sent_again_unless_outdated() -> None:
    """Only the newest report is repeated when it is lost."""
    reporter = ObservedAddressReporter()
    reporter.observe(A)
    first = reporter.take_due()
    assert first is not None
    reporter.on_lost(first)
    assert reporter.take_due() == first
    reporter.observe(B)
    second = reporter.take_due()
    assert second is not None
    reporter.on_lost(first)
    assert reporter.take_due() is None
    reporter.on_lost(second)
    assert reporter.take_due() == second == observed(1, B)


def test_receiver_keeps_the_newest() -> None:
    """Reports that come late or twice change nothing."""
    assert ObservedAddressReceiver().address is None
    receiver = ObservedAddressReceiver()
    assert receiver.receive(observed(0, A))
    assert receiver.receive(observed(5, MAPPED_A))
    assert receiver.address == A
    assert not receiver.receive(observed(5, B))
    assert not receiver.receive(observed(4, B))
    assert receiver.address == A
    assert receiver.receive(observed(6, V6))
    assert receiver.address == V6


@given(numbers=st.lists(st.integers(0, 30), min_size=1))
def test_receiver_ends_with_the_highest_number(numbers: list[int]) -> None:
    """In whatever order reports arrive, the one with the highest number remains (the first of equals)."""
    receiver = ObservedAddressReceiver()
    for number in numbers:
        receiver.receive(observed(number, SocketAddress(host=A.host, port=number)))
    assert receiver.address == SocketAddress(host=A.host, port=max(numbers))


def test_candidates_are_bounded_and_not_pushed_out() -> None:
    """When the table is full a new candidate is refused; old ones stay and may still be changed."""
    candidates = RemoteCandidates(2)
    assert candidates.add(added(1, A))
    assert candidates.add(added(2, B))
    assert not candidates.add(added(3, V6))
    assert list(candidates) == [A, B]
    assert candidates.add(added(2, V6))
    assert list(candidates) == [A, V6]
    assert len(candidates) == 2


def test_removing_a_candidate_makes_room() -> None:
    """REMOVE_ADDRESS is idempotent and frees the place."""
    candidates = RemoteCandidates(1)
    candidates.remove(7)
    candidates.add(added(7, MAPPED_A))
    assert list(candidates) == [A]
    candidates.remove(7)
    candidates.remove(7)
    assert len(candidates) == 0
    assert candidates.add(added(8, B))


@pytest.mark.parametrize("maximum", [1, 10, 256])
def test_candidates_never_exceed_the_bound(maximum: int) -> None:
    """A peer that advertises thousands of addresses leaves exactly the bound behind."""
    candidates = RemoteCandidates(maximum)
    taken = [candidates.add(added(number, SocketAddress(host=A.host, port=number))) for number in range(2000)]
    assert taken.count(True) == len(candidates) == maximum
