"""Tests of the restart policy as a table, and of the judgement of heartbeats."""

import pytest

from antquic_server.supervisor.policy import (
    BACK_OFF_MAX_S,
    GIVE_UP_AFTER,
    YOUNG_S,
    HeartbeatWatch,
    Replace,
    RestartPolicy,
    StopNode,
    WorkerEnd,
)

KILLED = -9
NOW_S = 1000.0


def spare_end(exit_code: int = 1, boot_failure: str | None = None) -> WorkerEnd:
    """A process that ended before it was ready."""
    return WorkerEnd(slot=None, ready_for_s=None, exit_code=exit_code, boot_failure=boot_failure)


def slot_end(ready_for_s: float | None, slot: int = 0, exit_code: int = KILLED) -> WorkerEnd:
    """A slot's worker that ended."""
    return WorkerEnd(slot=slot, ready_for_s=ready_for_s, exit_code=exit_code)


def seasoned_policy() -> RestartPolicy:
    """The policy of a node that has been ready."""
    policy = RestartPolicy()
    policy.worker_ready()
    return policy


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (spare_end(3), "exit code 3"),
        (slot_end(None, exit_code=3), "exit code 3"),
        (spare_end(0, "liboqs is\n missing"), "liboqs is missing"),
        (spare_end(KILLED, "wrong version"), "wrong version"),
    ],
)
def test_node_that_never_was_ready_stops_when_a_worker_cannot_boot(end: WorkerEnd, said: str) -> None:
    """The reason reaches the operator as one line instead of a restart for ever."""
    decision = RestartPolicy().worker_ended(end, now_s=NOW_S, ready_workers=0)

    assert isinstance(decision, StopNode)
    assert said in decision.reason
    assert "\n" not in decision.reason


def test_cannot_boot_does_not_stop_a_node_that_serves() -> None:
    """A failed upgrade on disk must not take down slots that work."""
    policy = seasoned_policy()
    for _ in range(GIVE_UP_AFTER * 3):
        decision = policy.worker_ended(spare_end(3), now_s=NOW_S, ready_workers=1)
        assert isinstance(decision, Replace)


def test_node_gives_up_once_nobody_serves_and_nothing_boots() -> None:
    """With no slot served and several failed boots in a row there is nothing to keep."""
    policy = seasoned_policy()
    decisions = [policy.worker_ended(spare_end(3), now_s=NOW_S, ready_workers=0) for _ in range(GIVE_UP_AFTER)]

    assert all(isinstance(decision, Replace) for decision in decisions[:-1])
    assert isinstance(decisions[-1], StopNode)


def test_a_worker_that_boots_forgives_earlier_failures() -> None:
    """Only failures in a row count."""
    policy = seasoned_policy()
    for _ in range(3 * GIVE_UP_AFTER):
        assert isinstance(policy.worker_ended(spare_end(3), now_s=NOW_S, ready_workers=0), Replace)
        policy.worker_ready()


def test_crashes_at_start_are_tried_again_with_back_off_and_then_stop_the_node() -> None:
    """A crash before the first Ready might be bad luck, five in a row are not."""
    policy = RestartPolicy()
    waits = []
    for _ in range(GIVE_UP_AFTER - 1):
        decision = policy.worker_ended(spare_end(1), now_s=NOW_S, ready_workers=0)
        assert isinstance(decision, Replace)
        assert decision.slot_at_s == NOW_S
        waits.append(round(decision.start_at_s - NOW_S, 3))

    assert waits == [0.1, 0.2, 0.4, 0.8]
    assert isinstance(policy.worker_ended(spare_end(1), now_s=NOW_S, ready_workers=0), StopNode)


def test_first_death_is_replaced_at_once() -> None:
    """Whether old or young: a spare takes the slot over without any wait."""
    for ready_for_s in (0.0, YOUNG_S * 100):
        decision = seasoned_policy().worker_ended(slot_end(ready_for_s), now_s=NOW_S, ready_workers=3)
        assert decision == Replace(slot_at_s=NOW_S, start_at_s=NOW_S)


def test_slot_whose_workers_die_young_waits_longer_each_time() -> None:
    """0, 0.1, 0.2 … 10 s; other slots are not held up."""
    policy = seasoned_policy()
    waits = []
    for _ in range(12):
        decision = policy.worker_ended(slot_end(1.0, slot=2), now_s=NOW_S, ready_workers=3)
        assert isinstance(decision, Replace)
        waits.append(round(decision.slot_at_s - NOW_S, 3))

    assert waits == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10, 10]
    other = policy.worker_ended(slot_end(1.0, slot=1), now_s=NOW_S, ready_workers=3)
    assert other == Replace(slot_at_s=NOW_S, start_at_s=NOW_S)


def test_a_long_life_ends_the_back_off() -> None:
    """A slot that has served well for a while starts from the beginning."""
    policy = seasoned_policy()
    for _ in range(5):
        policy.worker_ended(slot_end(1.0), now_s=NOW_S, ready_workers=3)
    policy.worker_ended(slot_end(YOUNG_S), now_s=NOW_S, ready_workers=3)

    decision = policy.worker_ended(slot_end(1.0), now_s=NOW_S, ready_workers=3)
    assert decision == Replace(slot_at_s=NOW_S, start_at_s=NOW_S)


def test_weeks_of_failures_do_not_overflow() -> None:
    """The wait stays at its maximum however long the trouble lasts."""
    policy = seasoned_policy()
    for _ in range(5000):
        policy.worker_ended(spare_end(1), now_s=NOW_S, ready_workers=1)

    decision = policy.worker_ended(spare_end(1), now_s=NOW_S, ready_workers=1)
    assert isinstance(decision, Replace)
    assert decision.start_at_s == NOW_S + BACK_OFF_MAX_S


def test_exit_code_3_of_a_worker_that_served_is_a_crash() -> None:
    """The code means "could not boot" only for a worker that never was ready."""
    assert not slot_end(5.0, exit_code=3).could_not_boot
    assert slot_end(None, exit_code=3).could_not_boot


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (slot_end(2.0), "worker ended after 2.0 s (killed by signal 9)"),
        (spare_end(1), "worker ended before it was ready (exit code 1)"),
        (spare_end(3, "no\tsuch\nprovider"), "no such provider"),
    ],
)
def test_ends_are_described_in_one_line(end: WorkerEnd, text: str) -> None:
    """The operator reads what happened, not a dump."""
    assert end.describe() == text


def watch() -> HeartbeatWatch:
    """A watch with a tick every 0.25 s and 2 s of patience, started at 0."""
    return HeartbeatWatch(interval_s=0.25, timeout_s=2.0, now_s=0.0)


def test_worker_is_overdue_after_the_timeout_and_not_before() -> None:
    """Exactly the timeout is still in time."""
    judge = watch()
    judge.tick(0.25)

    assert not judge.overdue(0.0, 2.0)
    assert judge.overdue(0.0, 2.01)
    assert not judge.overdue(0.0, 2.01, 3.0)
    assert judge.overdue(0.0, 3.01, 3.0)
    assert judge.overdue(0.0, 2.01, 1.0)


def test_stalled_supervisor_gives_workers_one_more_interval() -> None:
    """Heartbeats that wait unread in the sockets must not cost their senders' lives."""
    judge = watch()
    judge.tick(0.25)
    judge.tick(10.0)

    assert judge.lag_s == pytest.approx(9.5)
    assert not judge.overdue(0.0, 10.0)
    assert not judge.overdue(0.0, 10.24)
    judge.tick(10.25)
    assert judge.overdue(0.0, 10.25)
    assert not judge.overdue(10.1, 10.25)


def test_small_lag_of_the_supervisor_changes_nothing() -> None:
    """A tick that is a little late is no excuse."""
    judge = watch()
    for tick_s in (0.3, 1.2, 2.3):
        judge.tick(tick_s)

    assert judge.overdue(0.0, 2.3)
