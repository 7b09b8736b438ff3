"""The table of an attempt: every state with everything that can happen, and random walks."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.peer.nat_behaviour import PortGrowth
from antquic_server.peer.punching import (
    ADVICE,
    DETAILS,
    REJECTIONS,
    TABLE,
    Ask,
    Dial,
    Failure,
    Give,
    Happening,
    Punch,
    State,
    Step,
)
from antquic_server.peer.settings import PeerSettings
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import RejectionReason
from support.node import REPOSITORY

TARGET = bytes(32)
THERE = (SocketAddress.parse("198.18.2.1:20000"),)
FINAL = (State.CONNECTED, State.FAILED)


def punch(*, invited: bool = False, **settings: float) -> Punch:
    """Begin an attempt at second 0."""
    return Punch(target=TARGET, settings=PeerSettings(**settings), now_s=0.0, invited=invited)  # type: ignore[arg-type]


def test_the_table_is_complete() -> None:
    """Each state that goes on has an answer to everything; the final ones have none."""
    going_on = [state for state in State if state not in FINAL]

    assert set(TABLE) == set(itertools.product(going_on, Happening))


def test_every_failure_has_a_sentence_and_every_rejection_a_failure() -> None:
    """Nobody is left with a word alone, nor without knowing what to do."""
    assert set(DETAILS) == set(ADVICE) == set(Failure)
    assert all(text and "\n" not in text for text in (*DETAILS.values(), *ADVICE.values()))
    assert set(REJECTIONS) == set(RejectionReason)


def test_every_failure_stands_in_the_documentation() -> None:
    """With what it means and what to do."""
    table = (REPOSITORY / "docs" / "peer.md").read_text()

    assert [failure.value for failure in Failure if f"| `{failure.value}` | " not in table] == []


def test_an_attempt_asks_dials_and_succeeds() -> None:
    """The straight way."""
    attempt = punch()

    assert attempt.steps == [Ask(round_number=1)]
    assert attempt.accepted(THERE, round_number=1) == [Dial(addresses=THERE)]
    assert attempt.state is State.PUNCHING
    assert attempt.connected() == [Give(failure=None)]
    assert attempt.is_over
    assert attempt.timer_at_s is None
    assert attempt.connected() == []


def test_the_invited_side_dials_without_asking() -> None:
    """It has no rounds of its own, only a deadline, which a new introduction moves."""
    attempt = punch(invited=True)

    assert attempt.steps == []
    assert attempt.timer_at_s == 10.0
    assert attempt.accepted(THERE, round_number=1) == [Dial(addresses=THERE)]
    attempt.extend(2.5)
    assert attempt.handle_timer(10.0) == []
    assert attempt.handle_timer(12.5) == [Give(failure=Failure.NO_PATH)]


@pytest.mark.parametrize("reason", [item for item in RejectionReason if item is not RejectionReason.RATE_LIMITED])
def test_a_rejection_ends_the_attempt_at_once(reason: RejectionReason) -> None:
    """With the reason the node has given."""
    attempt = punch()

    assert attempt.rejected(reason) == [Give(failure=REJECTIONS[reason])]


def test_a_busy_node_is_asked_again_in_the_next_round() -> None:
    """Being refused for now is no reason to give up."""
    attempt = punch()

    assert attempt.rejected(RejectionReason.RATE_LIMITED) == []
    assert attempt.state is State.PAUSED
    assert attempt.handle_timer(2.5) == [Ask(round_number=2)]


def test_a_node_that_stays_busy_is_the_reason() -> None:
    """Not a path that was never tried."""
    attempt = punch(hole_punch_retries=0)
    attempt.rejected(RejectionReason.RATE_LIMITED)

    assert attempt.handle_timer(10.0) == [Give(failure=Failure.RATE_LIMITED)]


def test_silence_of_the_node_and_silence_of_the_peer_are_told_apart() -> None:
    """The operator looks at different things."""
    unanswered, unreached = punch(hole_punch_retries=0), punch(hole_punch_retries=0)
    unreached.accepted(THERE, round_number=1)

    assert unanswered.handle_timer(10.0) == [Give(failure=Failure.COORDINATOR_SILENT)]
    assert unreached.handle_timer(10.0) == [Give(failure=Failure.NO_PATH)]


def test_the_loss_of_the_node_matters_only_while_it_is_needed() -> None:
    """Once both sides dial, it has done its work."""
    waiting, dialling = punch(), punch()
    dialling.accepted(THERE, round_number=1)

    assert waiting.coordinator_lost() == [Give(failure=Failure.COORDINATOR_LOST)]
    assert dialling.coordinator_lost() == []
    assert dialling.connected() == [Give(failure=None)]


@pytest.mark.parametrize(
    ("retries", "asked_at_s"), [(0, []), (1, [5.0]), (3, [2.5, 5.0, 7.5]), (9, [2.2, 4.4, 6.6, 8.8])]
)
def test_hole_punch_retries_are_the_rounds_after_the_first(retries: int, asked_at_s: list[float]) -> None:
    """They share the time there is, but never come faster than nodes allow."""
    attempt = punch(hole_punch_retries=retries)
    asked = []
    while attempt.timer_at_s is not None:
        now_s = attempt.timer_at_s
        if any(isinstance(step, Ask) for step in attempt.handle_timer(now_s)):
            asked.append(pytest.approx(now_s))

    assert asked == asked_at_s
    assert attempt.state is State.FAILED


def test_discovery_timeout_is_when_an_attempt_fails() -> None:
    """Not earlier, not later."""
    attempt = punch(discovery_timeout_s=1.0)

    assert attempt.timer_at_s == 1.0
    assert attempt.handle_timer(0.99) == []
    assert attempt.handle_timer(1.0) == [Give(failure=Failure.COORDINATOR_SILENT)]


def test_max_candidates_and_enable_symmetric_nat_decide_what_is_dialled() -> None:
    """In the second round, where guessing begins."""

    def dialled(**settings: float) -> int:
        (step,) = punch(invited=False, **settings).accepted(THERE, round_number=2)
        assert isinstance(step, Dial)
        return len(step.addresses)

    assert dialled(max_candidates=10) == 10
    assert dialled(max_candidates=3) == 3
    assert dialled(enable_symmetric_nat=False) == 1


def test_guesses_go_on_where_the_last_round_ended() -> None:
    """Even if rounds were missed in between: what counts is how many ports were dialled."""
    attempt = punch(max_candidates=4)
    dialled = []
    for round_number in (1, 2, 5):
        growth = PortGrowth(step=2, ahead=1)
        (step,) = attempt.accepted(THERE, round_number=round_number, growth=growth)
        assert isinstance(step, Dial)
        dialled.append([item.port - THERE[0].port for item in step.addresses])

    assert dialled == [[0], [0, 5, 7, 3], [0, 11, 13, 9]]


@given(st.lists(st.sampled_from(Happening), max_size=40), st.booleans())
def test_any_walk_ends_at_most_once_and_always_in_time(happenings: list[Happening], invited: bool) -> None:
    """Whatever happens in whatever order, there is exactly one end, at the deadline at the latest."""
    attempt = punch(invited=invited)
    taken: list[Step] = list(attempt.steps)
    for happening in happenings:
        if happening is Happening.ACCEPTED:
            taken += attempt.accepted(THERE, round_number=1)
        elif happening is Happening.REJECTED:
            taken += attempt.rejected(RejectionReason.UNKNOWN_TARGET)
        elif happening is Happening.BUSY:
            taken += attempt.rejected(RejectionReason.RATE_LIMITED)
        elif happening is Happening.COORDINATOR_LOST:
            taken += attempt.coordinator_lost()
        elif happening is Happening.CONNECTED:
            taken += attempt.connected()
        elif happening is Happening.NEXT_ROUND and attempt.timer_at_s is not None:
            taken += attempt.handle_timer(attempt.timer_at_s)
        elif happening is Happening.DEADLINE:
            taken += attempt.handle_timer(attempt.deadline_s)
    while attempt.timer_at_s is not None:
        assert attempt.timer_at_s <= attempt.deadline_s
        taken += attempt.handle_timer(attempt.timer_at_s)

    assert [type(step) for step in taken].count(Give) == 1
    assert isinstance(taken[-1], Give)
    assert (attempt.state is State.CONNECTED) == (taken[-1].failure is None)
    assert not invited or Ask not in map(type, taken)
