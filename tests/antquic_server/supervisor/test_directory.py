"""Tests of the directory of peers."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.address_discovery import Mapping
from antquic_server.supervisor.directory import MAX_ADVERTISED, Directory, PeerConnection

ALICE = b"a" * 32
BOB = b"b" * 32


def at(slot: int, connection: int, port: int = 1000) -> PeerConnection:
    """One connection."""
    return PeerConnection(slot=slot, connection=connection, host="192.0.2.1", port=port)


def test_peer_is_found_on_every_slot_that_holds_it() -> None:
    """A peer may have several connections, on several slots."""
    directory = Directory(10)
    directory.peer_up(ALICE, at(1, 7))
    directory.peer_up(ALICE, at(0, 7))
    directory.peer_up(BOB, at(1, 8))

    assert directory.find(ALICE) == [at(0, 7), at(1, 7)]
    assert directory.find(BOB) == [at(1, 8)]
    assert directory.find(b"c" * 32) == []
    assert (directory.peer_count, directory.connection_count) == (2, 3)


def test_peer_that_leaves_is_forgotten() -> None:
    """The last connection takes the peer with it; a second report changes nothing."""
    directory = Directory(10)
    directory.peer_up(ALICE, at(0, 1))
    directory.peer_up(ALICE, at(0, 2))
    directory.peer_down(0, 1)
    assert directory.find(ALICE) == [at(0, 2)]

    directory.peer_down(0, 2)
    directory.peer_down(0, 2)
    directory.peer_down(5, 2)
    assert (directory.peer_count, directory.connection_count) == (0, 0)


def test_dead_worker_takes_its_entries_with_it() -> None:
    """Entries of other slots stay, and the slot starts anew."""
    directory = Directory(10)
    directory.peer_up(ALICE, at(0, 1))
    directory.peer_up(BOB, at(0, 2))
    directory.peer_up(ALICE, at(1, 1))

    assert directory.slot_down(0) == 2
    assert directory.slot_down(0) == 0
    assert directory.find(ALICE) == [at(1, 1)]
    assert directory.find(BOB) == []
    assert directory.peer_up(BOB, at(0, 1))
    assert directory.find(BOB) == [at(0, 1)]


def test_changed_address_replaces_the_old_one() -> None:
    """A connection reported again is updated, not doubled."""
    directory = Directory(10)
    directory.peer_up(ALICE, at(0, 1, port=1))
    directory.peer_up(ALICE, at(0, 1, port=2))
    assert directory.find(ALICE) == [at(0, 1, port=2)]

    directory.peer_up(BOB, at(0, 1))
    assert directory.find(ALICE) == []
    assert directory.connection_count == 1


def test_full_directory_refuses_and_counts() -> None:
    """One past the bound is dropped; an update of a listed connection still works."""
    directory = Directory(2)
    assert directory.peer_up(ALICE, at(0, 1))
    assert directory.peer_up(ALICE, at(0, 2))
    assert not directory.peer_up(BOB, at(0, 3))
    assert directory.dropped == 1
    assert directory.find(BOB) == []
    directory.peer_down(0, 3)

    assert directory.peer_up(ALICE, at(0, 2, port=9))
    directory.peer_down(0, 1)
    assert directory.peer_up(BOB, at(0, 3))


def test_peer_ids_of_another_length_are_refused() -> None:
    """A worker cannot make the keys larger than they are."""
    directory = Directory(2)

    assert not directory.peer_up(b"short", at(0, 1))
    assert (directory.dropped, directory.connection_count) == (1, 0)


def test_newest_connection_is_the_one_reported_last() -> None:
    """Slots and numbers say nothing about age, and a peer that has moved is where it was seen last."""
    directory = Directory(10)
    assert directory.newest(ALICE) is None
    directory.peer_up(ALICE, at(1, 9))
    directory.peer_up(ALICE, at(0, 3))
    assert directory.newest(ALICE) == at(0, 3)
    assert directory.newest(BOB) is None

    directory.peer_up(ALICE, at(1, 9, port=2))
    assert directory.newest(ALICE) == at(1, 9, port=2)
    directory.peer_down(1, 9)
    assert directory.newest(ALICE) == at(0, 3)
    directory.slot_down(0)
    assert directory.newest(ALICE) is None


def test_connections_nobody_reads_are_never_the_newest() -> None:
    """They are listed all the same."""
    directory = Directory(10)
    directory.peer_up(ALICE, replace(at(0, 2), readable=False))
    assert directory.newest(ALICE) is None

    directory.peer_up(ALICE, at(0, 1))
    directory.peer_up(ALICE, replace(at(0, 3), readable=False))
    assert directory.newest(ALICE) == at(0, 1)
    assert len(directory.find(ALICE)) == 3


def seen(slot: int, connection: int, host: str, port: int, reached_at: str = "192.0.2.9:10000") -> PeerConnection:
    """A connection that the peer made to one of our addresses."""
    return PeerConnection(slot=slot, connection=connection, host=host, port=port, reached_at=reached_at)


def test_addresses_of_a_peer_are_those_of_all_its_connections() -> None:
    """The newest first, each once, IPv4 in IPv6 clothes as IPv4."""
    directory = Directory(10)
    directory.peer_up(ALICE, seen(0, 1, "203.0.113.1", 5))
    directory.peer_up(ALICE, seen(1, 1, "2001:470::1", 6))
    directory.peer_up(ALICE, seen(2, 1, "::ffff:203.0.113.1", 5))

    assert list(map(str, directory.addresses(ALICE))) == ["203.0.113.1:5", "[2001:470::1]:6"]
    assert directory.addresses(BOB) == ()


def test_address_of_a_family_is_remembered_as_long_as_the_peer_is_here() -> None:
    """Only the last one of each family, after those in use."""
    directory = Directory(10)
    directory.peer_up(ALICE, seen(0, 1, "203.0.113.1", 5))
    directory.peer_up(ALICE, seen(0, 1, "203.0.113.1", 7))
    directory.peer_up(ALICE, seen(1, 1, "2001:470::1", 6))
    directory.peer_down(0, 1)
    assert list(map(str, directory.addresses(ALICE))) == ["[2001:470::1]:6", "203.0.113.1:7"]

    directory.slot_down(1)
    assert directory.addresses(ALICE) == ()
    directory.peer_up(ALICE, seen(1, 1, "2001:470::1", 6))
    assert list(map(str, directory.addresses(ALICE))) == ["[2001:470::1]:6"]


@pytest.mark.parametrize(
    ("connections", "mapping"),
    [
        pytest.param([], Mapping.UNKNOWN, id="nobody"),
        pytest.param([seen(0, 1, "203.0.113.1", 5)], Mapping.UNKNOWN, id="one observation"),
        pytest.param(
            [seen(0, 1, "203.0.113.1", 5), seen(1, 1, "203.0.113.1", 9)], Mapping.UNKNOWN, id="one address of ours"
        ),
        pytest.param(
            [seen(0, 1, "203.0.113.1", 5), seen(1, 1, "203.0.113.1", 5, "192.0.2.9:10001")],
            Mapping.ENDPOINT_INDEPENDENT,
            id="equal",
        ),
        pytest.param(
            [seen(0, 1, "203.0.113.1", 5), seen(1, 1, "203.0.113.1", 6, "192.0.2.9:10001")],
            Mapping.DEPENDENT,
            id="another port",
        ),
        pytest.param(
            [seen(0, 1, "203.0.113.1", 5), seen(1, 1, "2001:470::1", 5, "[2001:470::9]:10000")],
            Mapping.UNKNOWN,
            id="one of each family",
        ),
        pytest.param(
            [seen(0, 1, "203.0.113.1", 5, ""), seen(1, 1, "203.0.113.1", 6, "")], Mapping.UNKNOWN, id="not told where"
        ),
    ],
)
def test_mapping_is_told_from_what_different_addresses_of_ours_see(
    connections: list[PeerConnection], mapping: Mapping
) -> None:
    """Only observations that can be compared count."""
    directory = Directory(10)
    for connection in connections:
        directory.peer_up(ALICE, connection)

    assert directory.mapping(ALICE) is mapping


def test_entries_cannot_be_made_longer_than_they_may_be() -> None:
    """A worker that lists too many advertised addresses is cut short."""
    directory = Directory(10)
    directory.peer_up(ALICE, replace(at(0, 1), advertised=("203.0.113.1:1",) * 1000))

    assert len(directory.find(ALICE)[0].advertised) == MAX_ADVERTISED


@pytest.mark.parametrize("damage", [{"host": "nowhere"}, {"port": 65536}, {"port": -1}])
def test_addresses_that_are_none_are_refused(damage: dict[str, Any]) -> None:
    """What is listed can be read."""
    directory = Directory(10)

    assert not directory.peer_up(ALICE, replace(at(0, 1), **damage))
    assert directory.dropped == 1


STEPS = st.one_of(
    st.tuples(st.just("up"), st.sampled_from([ALICE, BOB]), st.integers(0, 2), st.integers(0, 4)),
    st.tuples(st.just("down"), st.just(b""), st.integers(0, 2), st.integers(0, 4)),
    st.tuples(st.just("dead"), st.just(b""), st.integers(0, 2), st.just(0)),
)


@given(st.lists(STEPS, max_size=40))
def test_directory_agrees_with_a_plain_dictionary(steps: list[tuple[str, bytes, int, int]]) -> None:
    """Whatever the order of reports, the same connections are listed as in the simplest model."""
    directory = Directory(6)
    # In the order of the last report, as a dictionary keeps it.
    model: dict[tuple[int, int], bytes] = {}
    for step, peer_id, slot, connection in steps:
        if step == "up":
            model.pop((slot, connection), None)
            if directory.peer_up(peer_id, at(slot, connection)):
                model[slot, connection] = peer_id
        elif step == "down":
            directory.peer_down(slot, connection)
            model.pop((slot, connection), None)
        else:
            directory.slot_down(slot)
            model = {key: peer for key, peer in model.items() if key[0] != slot}
        for peer in (ALICE, BOB):
            listed = {(each.slot, each.connection) for each in directory.find(peer)}
            keys = [key for key, holder in model.items() if holder == peer]
            assert listed == set(keys)
            assert directory.newest(peer) == (at(*keys[-1]) if keys else None)
        assert directory.connection_count == len(model) <= 6
        assert directory.peer_count == len(set(model.values()))


def test_newest_connection_that_reads_of_channels_is_another_question() -> None:
    """A peer may have a connection that knows channels and a newer one that does not."""
    directory = Directory(10)
    directory.peer_up(ALICE, replace(at(0, 1), channels=True))
    directory.peer_up(ALICE, at(1, 2))
    directory.peer_up(ALICE, replace(at(1, 3), channels=True, readable=False))
    assert directory.newest(ALICE) == at(1, 2)
    assert directory.newest(ALICE, channels=True) == replace(at(0, 1), channels=True)
    directory.peer_down(0, 1)
    assert directory.newest(ALICE, channels=True) is None


def test_connection_is_found_only_with_its_peer() -> None:
    """The successor of a dead worker gives its numbers to others."""
    directory = Directory(10)
    directory.peer_up(ALICE, at(0, 1))
    assert directory.get(ALICE, 0, 1) == at(0, 1)
    assert directory.get(BOB, 0, 1) is None
    assert directory.get(ALICE, 1, 1) is None
    assert (directory.is_listed(ALICE), directory.is_listed(BOB)) == (True, False)
    directory.slot_down(0)
    assert not directory.is_listed(ALICE)
