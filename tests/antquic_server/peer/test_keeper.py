"""Which nodes are dialled when, and who waits for them: on a clock of the test's own."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.peer.keeper import FIRST_WAIT_S, LONGEST_WAIT_S, STABLE_S, Keeper, Waiting
from antquic_server.protocol.address import SocketAddress

HERE = SocketAddress.parse("198.18.0.1:10000")
THERE = SocketAddress.parse("198.18.0.2:10000")
STRANGER = SocketAddress.parse("198.18.0.3:10000")
SIX = SocketAddress.parse("[2001:470::1]:10000")
NODE, OTHER, TARGET = b"n" * 32, b"o" * 32, b"t" * 32


def keeper(*nodes: SocketAddress, jitter: float = 0.5) -> Keeper:
    """A keeper whose randomness is known."""
    return Keeper(nodes or (HERE,), jitter=lambda: jitter)


def waits(kept: Keeper, count: int, *, up_for_s: float | None = None) -> list[float]:
    """
    How long each of ``count`` waits is, in a row.

    The node cannot be reached in between, or can be for ``up_for_s`` each time.
    """
    found, now_s = [], 1000.0
    kept.connected(HERE, NODE, now_s - 10 * STABLE_S)
    kept.peer_gone(NODE, now_s)
    for _ in range(count):
        at_s = kept.next_deadline_s()
        assert at_s is not None
        found.append(at_s - now_s)
        assert kept.due(at_s - 0.001) == []
        assert kept.due(at_s) == [HERE]
        now_s = at_s
        if up_for_s is None:
            kept.dial_failed(HERE, now_s)
        else:
            kept.connected(HERE, NODE, now_s)
            now_s += up_for_s
            kept.peer_gone(NODE, now_s)
    return found


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_waits_double_up_to_the_longest(jitter: float) -> None:
    """From a tenth of a second, or two, up to half a minute or half of that."""
    longest = [min(2 * FIRST_WAIT_S * 2**count, LONGEST_WAIT_S) for count in range(12)]
    assert waits(keeper(jitter=jitter), 12) == pytest.approx([wait_s * (1 + jitter) / 2 for wait_s in longest])
    assert longest[-1] == LONGEST_WAIT_S


def test_waits_of_different_peers_are_not_in_step() -> None:
    """A thousand peers of one dead worker come back over time."""
    found = set()
    for seed in range(1000):
        kept = Keeper((HERE,), jitter=random.Random(seed).random)
        found.add(round(waits(kept, 1)[0], 4))
    assert len(found) > 500
    assert min(found) >= FIRST_WAIT_S
    assert max(found) <= 2 * FIRST_WAIT_S


def test_node_that_comes_and_goes_is_dialled_ever_more_rarely() -> None:
    """One that stays for a while is a node like any other."""
    flapping = waits(keeper(), 6, up_for_s=STABLE_S / 2)
    assert flapping == sorted(set(flapping))
    steady = waits(keeper(), 6, up_for_s=STABLE_S + 1)
    assert len({round(wait_s, 9) for wait_s in steady}) == 1


def test_nothing_is_due_as_long_as_nodes_are_connected_or_untried() -> None:
    """The first dial is the endpoint's own."""
    kept = keeper(HERE, THERE)
    assert kept.next_deadline_s() is None
    kept.connected(HERE, NODE, 0.0)
    kept.peer_gone(OTHER, 1.0)
    kept.dial_failed(STRANGER, 1.0)
    kept.dial_failed(None, 1.0)
    # A dial of the caller's own, while the node is connected.
    kept.dial_failed(HERE, 1.0)
    assert kept.due(1e9) == []


def test_node_that_was_not_there_at_the_start_is_tried_again() -> None:
    """Its first dial failed."""
    kept = keeper(HERE, THERE)
    kept.connected(HERE, NODE, 0.0)
    kept.dial_failed(THERE, 5.0)
    assert kept.due(5.0 + 2 * FIRST_WAIT_S) == [THERE]
    assert kept.due(1e9) == []


def test_one_connection_is_enough_for_a_node_with_two_addresses() -> None:
    """Both are dialled when it is lost; when one has succeeded, or it has dialled us, the other is left alone."""
    kept = keeper(HERE, THERE)
    for address in (HERE, THERE):
        kept.connected(address, NODE, 0.0)
    kept.peer_gone(NODE, 100.0)
    kept.connected(HERE, NODE, 100.05)
    assert kept.due(1e9) == []

    kept.peer_gone(NODE, 200.0)
    kept.connected(None, NODE, 200.05)
    assert kept.due(1e9) == []
    assert kept.knows(NODE)
    assert not kept.knows(OTHER)


def test_node_with_an_address_of_each_family_is_dialled_at_both() -> None:
    """As at the start: the node is to see us in both."""
    kept = keeper(HERE, SIX)
    for address in (HERE, SIX):
        kept.connected(address, NODE, 0.0)
    kept.peer_gone(NODE, 100.0)
    kept.connected(HERE, NODE, 100.05)
    assert kept.due(1e9) == [SIX]


def test_node_may_come_back_with_another_key() -> None:
    """Whoever authenticates at the address is the node."""
    kept = keeper()
    kept.connected(HERE, NODE, 0.0)
    kept.peer_gone(NODE, 100.0)
    kept.due(200.0)
    kept.connected(HERE, OTHER, 200.0)
    kept.peer_gone(NODE, 300.0)
    assert kept.due(1e9) == []
    kept.peer_gone(OTHER, 300.0)
    assert kept.due(1e9) == [HERE]


def test_node_that_we_have_closed_ourselves_is_left_alone() -> None:
    """Until the caller dials it again."""
    kept = keeper(HERE, THERE)
    kept.connected(HERE, NODE, 0.0)
    kept.give_up(peer_id=NODE)
    kept.give_up(address=THERE)
    kept.peer_gone(NODE, 1.0)
    assert not kept.knows(NODE)
    assert kept.due(1e9) == []
    assert not kept.wait(Waiting(target=TARGET, deadline_s=10.0), 1.0)

    kept.connected(HERE, NODE, 100.0)
    kept.peer_gone(NODE, 200.0)
    assert kept.due(1e9) == [HERE]


def test_whoever_waits_goes_on_when_the_node_is_back() -> None:
    """Only if it is one of those that will do."""
    kept = keeper(HERE, THERE)
    kept.connected(HERE, NODE, 0.0)
    kept.connected(THERE, OTHER, 0.0)
    for node in (NODE, OTHER):
        kept.peer_gone(node, 100.0)
    choosy = Waiting(target=TARGET, deadline_s=110.0, nodes=[NODE])
    anyone = Waiting(target=b"x" * 32, deadline_s=110.0)
    assert kept.wait(choosy, 100.0)
    assert kept.wait(anyone, 100.0)
    assert not kept.wait(Waiting(target=b"y" * 32, deadline_s=110.0, nodes=[TARGET]), 100.0)

    assert kept.take_waiting(OTHER) == [anyone]
    assert kept.take_waiting(NODE) == [choosy]
    assert kept.take_waiting(NODE) == []


def test_nobody_waits_for_nodes_that_are_connected() -> None:
    """Nor without any node to be expected, nor with no time left."""
    kept = keeper()
    kept.connected(HERE, NODE, 0.0)
    assert not kept.wait(Waiting(target=TARGET, deadline_s=10.0), 1.0)
    kept.peer_gone(NODE, 5.0)
    assert not kept.wait(Waiting(target=TARGET, deadline_s=10.0), 10.0)
    assert not Keeper((), jitter=lambda: 0.0).wait(Waiting(target=TARGET, deadline_s=10.0), 1.0)


def test_waiting_ends_in_time() -> None:
    """The timer is set for it."""
    kept = keeper()
    kept.dial_failed(HERE, 0.0)
    assert kept.due(1.0) == [HERE]
    waiting = Waiting(target=TARGET, deadline_s=10.0)
    assert kept.wait(waiting, 1.0)
    assert kept.next_deadline_s() == 10.0
    assert kept.take_overdue(9.9) == []
    assert kept.take_overdue(10.0) == [waiting]
    assert kept.next_deadline_s() is None


def test_node_away_for_long_is_dialled_for_whoever_needs_it_now() -> None:
    """Once for each request, and not again before the wait is over."""
    kept = keeper()
    now_s = 0.0
    kept.dial_failed(HERE, now_s)
    for _ in range(12):
        now_s = kept.next_deadline_s() or 0.0
        kept.due(now_s)
        kept.dial_failed(HERE, now_s)
    assert kept.wait(Waiting(target=TARGET, deadline_s=now_s + 10.0), now_s)
    assert kept.due(now_s) == [HERE]
    kept.dial_failed(HERE, now_s + 5.0)
    assert kept.due(now_s + 10.0) == []


HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["up", "gone", "failed", "due", "give up", "wait"]),
        st.sampled_from([HERE, THERE, STRANGER]),
        st.sampled_from([NODE, OTHER]),
        st.floats(0.0, 40.0),
    ),
    max_size=60,
)


@given(HAPPENINGS)
def test_no_node_is_ever_dialled_twice_at_once_or_forgotten(
    happenings: list[tuple[str, SocketAddress, bytes, float]],
) -> None:
    """Whatever happens: a node is dialled again only after it failed or went; one that failed has a time."""
    kept = Keeper((HERE, THERE), jitter=random.Random(1).random)
    now_s = 0.0
    dialling: set[SocketAddress] = set()
    for what, address, peer_id, later_s in happenings:
        now_s += later_s
        if what == "up":
            kept.connected(address, peer_id, now_s)
            dialling.discard(address)
        elif what == "gone":
            kept.peer_gone(peer_id, now_s)
        elif what == "failed":
            kept.dial_failed(address, now_s)
            dialling.discard(address)
        elif what == "give up":
            kept.give_up(address=address)
            dialling.discard(address)
        elif what == "wait":
            kept.wait(Waiting(target=TARGET, deadline_s=now_s + 5.0), now_s)
        for found in kept.due(now_s):
            assert found not in dialling
            dialling.add(found)
        at_s = kept.next_deadline_s()
        assert at_s is None or at_s <= now_s + LONGEST_WAIT_S
        assert STRANGER not in dialling
