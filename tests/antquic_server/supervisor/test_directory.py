"""Tests of the directory of peers."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from antquic_server.supervisor.directory import Directory, PeerConnection

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
