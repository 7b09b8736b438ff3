"""Tests of the hub: questions find the target's worker, answers find their way back, nothing is remembered."""

from dataclasses import replace

import pytest

from antquic_server.ipc.messages import Introduce, Introduced, Message
from antquic_server.supervisor.directory import Directory, PeerConnection
from antquic_server.supervisor.hub import Hub
from support.coordination import ALICE, BOB

QUESTION = Introduce(
    request_id=7,
    expires_at_unix_ms=1_764_000_000_000,
    round=1,
    initiator=ALICE,
    target=BOB,
    connection=3,
    address="198.18.0.5:4433",
    advertised=["[2001:db8::1]:4433"],
)


class Stage:
    """A hub before workers that take every message, except those of ``deaf`` slots."""

    def __init__(self) -> None:
        self.directory = Directory(100)
        self.hub = Hub(self.directory, self.tell_slot)
        self.told: list[tuple[int, Message]] = []
        self.deaf: set[int] = set()

    def tell_slot(self, slot: int, message: Message) -> bool:
        """Note the message."""
        if slot in self.deaf:
            return False
        self.told.append((slot, message))
        return True

    def up(self, peer_id: bytes, slot: int, connection: int, *, readable: bool = True) -> None:
        """List a connection."""
        listed = PeerConnection(slot=slot, connection=connection, host="192.0.2.1", port=1, readable=readable)
        assert self.directory.peer_up(peer_id, listed)


@pytest.mark.parametrize("asking_slot", [0, 1])
def test_question_goes_to_the_worker_that_has_the_target(asking_slot: int) -> None:
    """With the asking slot and the target's connection filled in; another worker and the same one are alike."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.hub.introduce(asking_slot, QUESTION)

    assert stage.told == [(1, replace(QUESTION, slot=asking_slot, target_connection=5))]


def test_newest_connection_that_the_target_reads_is_taken() -> None:
    """A connection made only to ask is passed over, however new."""
    stage = Stage()
    stage.up(BOB, 0, 9)
    stage.up(BOB, 1, 5)
    stage.up(BOB, 0, 10, readable=False)
    stage.hub.introduce(0, QUESTION)

    assert stage.told == [(1, replace(QUESTION, slot=0, target_connection=5))]


@pytest.mark.parametrize("readable", [None, False])
def test_unknown_target_is_answered_at_once(readable: bool | None) -> None:
    """Nobody, or nobody who listens: the asking worker hears of it on its own message's terms."""
    stage = Stage()
    if readable is not None:
        stage.up(BOB, 1, 5, readable=readable)
    stage.hub.introduce(0, QUESTION)

    assert stage.told == [(0, replace(QUESTION, slot=0).answer(reason="UnknownTarget"))]


def test_target_whose_worker_cannot_be_told_is_an_error_of_ours() -> None:
    """The worker is being replaced, or its queue is full."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.deaf.add(1)
    stage.hub.introduce(0, QUESTION)

    ((slot, answer),) = stage.told
    assert slot == 0
    assert isinstance(answer, Introduced)
    assert (answer.reason, answer.slot, answer.connection) == ("InternalError", 0, 3)


def test_target_that_left_with_its_worker_is_unknown() -> None:
    """The directory is asked each time."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.directory.slot_down(1)
    stage.hub.introduce(0, QUESTION)

    assert [message.reason for _, message in stage.told if isinstance(message, Introduced)] == ["UnknownTarget"]


def test_slot_that_a_worker_claims_is_not_believed() -> None:
    """The hub knows who speaks to it."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.hub.introduce(2, replace(QUESTION, slot=0, target_connection=77))

    assert stage.told == [(1, replace(QUESTION, slot=2, target_connection=5))]


def test_answer_goes_back_to_the_worker_that_asked() -> None:
    """Unchanged; one for a worker that is gone is lost with the initiator's connection."""
    stage = Stage()
    answer = replace(QUESTION, slot=2).answer(initiator_address="198.18.0.5:1", target_address="198.18.0.6:2")
    stage.hub.introduced(answer)
    assert stage.told == [(2, answer)]

    stage.deaf.add(2)
    stage.hub.introduced(answer)
    assert len(stage.told) == 1


def test_initiator_that_does_not_read_where_it_asked_is_answered_where_it_does() -> None:
    """An ant-quic peer may dial a connection only to ask; the answer goes to the one it listens on, on any worker."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.up(ALICE, 2, 8)
    stage.up(ALICE, 0, 3, readable=False)
    stage.hub.introduce(0, QUESTION)

    assert stage.told == [(1, replace(QUESTION, slot=2, connection=8, target_connection=5))]


def test_initiator_that_reads_nowhere_is_answered_where_it_asked() -> None:
    """There is no better place."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.up(ALICE, 0, 3, readable=False)
    stage.hub.introduce(0, QUESTION)

    assert stage.told == [(1, replace(QUESTION, slot=0, target_connection=5))]


def test_initiator_is_answered_where_it_asked_even_if_it_has_a_newer_connection() -> None:
    """The request itself proves that this path works."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.up(ALICE, 0, 3)
    stage.up(ALICE, 2, 8)
    stage.hub.introduce(0, QUESTION)

    assert stage.told == [(1, replace(QUESTION, slot=0, target_connection=5))]
