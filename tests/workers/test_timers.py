"""Tests of ``workers.timers``: the heap against a naive model, and the alarm on a loop with a made-up clock."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.timers import Alarm, TimerHeap, TimerOwner


class Owner:
    """Something with a deadline."""

    def __init__(self, name: int = 0) -> None:
        self.name = name
        self.timer_at_s: float | None = None
        self.timer_entries_s: list[float] = []


steps = st.lists(
    st.one_of(
        # Give owner n a deadline so many seconds from now, or none.
        st.tuples(st.integers(0, 4), st.none() | st.integers(-2, 20)),
        # Let time pass.
        st.integers(0, 8),
    ),
    max_size=80,
)


@given(steps=steps)
def test_heap_does_what_a_plain_list_would(steps: list[tuple[int, int | None] | int]) -> None:
    """Whatever is armed, moved earlier, later or off: due are exactly those whose deadline has come, each once."""
    heap = TimerHeap()
    owners = [Owner(name) for name in range(5)]
    armed: dict[int, float] = {}
    now_s = 0.0
    for step in steps:
        if isinstance(step, tuple):
            number, offset_s = step
            owner = owners[number]
            owner.timer_at_s = None if offset_s is None else now_s + offset_s
            heap.update(owner)
            armed.pop(number, None)
            if owner.timer_at_s is not None:
                armed[number] = owner.timer_at_s
        else:
            now_s += step
            due = [owner.name for owner in heap.pop_due(now_s) if isinstance(owner, Owner)]
            expected = [number for number, at_s in armed.items() if at_s <= now_s]
            assert sorted(due) == sorted(expected)
            for number in expected:
                # Disarmed: the owner says when it wants to be woken next, or that it does not.
                del armed[number]
                owners[number].timer_at_s = None
                heap.update(owners[number])
        earliest_s = heap.earliest_s
        if armed:
            assert earliest_s is not None
            assert earliest_s <= min(armed.values())


def test_due_owners_come_in_order_of_their_deadlines() -> None:
    """The earliest first; equal deadlines in the order in which they were armed."""
    heap = TimerHeap()
    owners = [Owner(name) for name in range(4)]
    for owner, at_s in zip(owners, (3.0, 1.0, 2.0, 1.0), strict=True):
        owner.timer_at_s = at_s
        heap.update(owner)
    assert heap.pop_due(0.9) == []
    assert heap.pop_due(3.0) == [owners[1], owners[3], owners[2], owners[0]]
    assert heap.earliest_s is None
    assert len(heap) == 0


def test_moving_later_costs_nothing() -> None:
    """The most frequent change leaves the heap alone, and the owner is not woken early."""
    heap = TimerHeap()
    owner = Owner()
    for at_s in range(1, 1000):
        owner.timer_at_s = float(at_s)
        heap.update(owner)
    assert len(heap) == 1
    assert heap.pop_due(998.0) == []
    assert heap.pop_due(999.0) == [owner]


@pytest.mark.parametrize("final_s", [30.0, 12.0, None])
def test_moving_earlier_wakes_once(final_s: float | None) -> None:
    """The left-over entry of a deadline that was moved earlier wakes nobody a second time."""
    heap = TimerHeap()
    owner = Owner()
    for at_s in (20.0, 10.0):
        owner.timer_at_s = at_s
        heap.update(owner)
    assert heap.pop_due(10.0) == [owner]
    owner.timer_at_s = final_s
    heap.update(owner)
    assert heap.pop_due(11.0) == []
    assert heap.pop_due(25.0) == ([owner] if final_s == 12.0 else [])
    owner.timer_at_s = None
    assert heap.pop_due(100.0) == []
    assert len(heap) == 0


def test_entries_of_one_owner_stay_few() -> None:
    """A connection that alternates between a short and a long deadline, as every active one does, fills no memory."""
    heap = TimerHeap()
    owner = Owner()
    now_s = 0.0
    for _ in range(500):
        owner.timer_at_s = now_s + 30.0  # idle timeout
        heap.update(owner)
        owner.timer_at_s = now_s + 0.025  # acknowledgement
        heap.update(owner)
        now_s += 0.025
        assert heap.pop_due(now_s) == [owner]
    assert len(heap) <= 4


class FakeLoop:
    """As much of an event loop as the alarm needs; time passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.calls: list[tuple[float, Callable[[], None]]] = []
        self.made = 0

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        """Note a call and return something that can cancel it."""
        self.made += 1
        entry = (self.now_s + delay_s, callback)
        self.calls.append(entry)
        return type("Handle", (), {"cancel": lambda _: self.calls.remove(entry)})()

    def advance(self, to_s: float) -> None:
        """Make every call that is due until then."""
        while self.calls and min(at_s for at_s, _ in self.calls) <= to_s:
            entry = min(self.calls, key=lambda call: call[0])
            self.calls.remove(entry)
            self.now_s = max(self.now_s, entry[0])
            entry[1]()
        self.now_s = to_s


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    """A loop whose clock is also that of the module."""
    fake = FakeLoop()
    monkeypatch.setattr(time, "monotonic", lambda: fake.now_s)
    return fake


def make_alarm(loop: Any, heap: TimerHeap, on_due: Callable[[list[TimerOwner], float], None]) -> Alarm:
    """An alarm on a fake loop."""
    return Alarm(heap, on_due, loop)


def test_alarm_wakes_for_each_deadline(loop: FakeLoop) -> None:
    """Owners are woken at their time, rearm themselves, and are woken again."""
    heap = TimerHeap()
    woken: list[tuple[float, int]] = []

    def on_due(due: list[TimerOwner], now_s: float) -> None:
        for owner in due:
            assert isinstance(owner, Owner)
            woken.append((now_s, owner.name))
            owner.timer_at_s = now_s + 10.0 if owner.name == 1 else None
            heap.update(owner)

    alarm = make_alarm(loop, heap, on_due)
    alarm.arm()
    assert loop.calls == []
    for name, at_s in ((1, 105.0), (2, 103.0)):
        owner = Owner(name)
        owner.timer_at_s = at_s
        heap.update(owner)
        alarm.arm()
    loop.advance(126.0)
    assert woken == [(103.0, 2), (105.0, 1), (115.0, 1), (125.0, 1)]


def test_alarm_sets_one_timer_only(loop: FakeLoop) -> None:
    """Deadlines later than the one that is set cost no timer; an earlier one replaces it."""
    heap = TimerHeap()
    alarm = make_alarm(loop, heap, lambda _due, _now_s: None)
    for at_s in (110.0, 120.0, 130.0, 105.0, 106.0):
        owner = Owner()
        owner.timer_at_s = at_s
        heap.update(owner)
        alarm.arm()
        assert len(loop.calls) == 1
    assert loop.calls[0][0] == 105.0
    assert loop.made == 2
    alarm.cancel()
    alarm.cancel()
    assert loop.calls == []


def test_alarm_for_the_past_fires_at_once(loop: FakeLoop) -> None:
    """A deadline that is over already is not a negative delay."""
    heap = TimerHeap()
    owner = Owner()
    owner.timer_at_s = 1.0
    heap.update(owner)
    seen: list[TimerOwner] = []
    make_alarm(loop, heap, lambda due, _now_s: seen.extend(due)).arm()
    assert loop.calls[0][0] == loop.now_s
    loop.advance(loop.now_s)
    assert seen == [owner]


async def wait_for_alarm() -> list[TimerOwner]:
    """Arm an alarm on the running loop and wait until it rings."""
    heap = TimerHeap()
    owner = Owner()
    owner.timer_at_s = time.monotonic() + 0.01
    heap.update(owner)
    rung: asyncio.Future[list[TimerOwner]] = asyncio.get_running_loop().create_future()
    Alarm(heap, lambda due, _now_s: rung.set_result(due) if due else None, asyncio.get_running_loop()).arm()
    return await asyncio.wait_for(rung, 5.0)


def test_alarm_on_a_real_loop() -> None:
    """The same with asyncio's own timers."""
    assert len(asyncio.run(wait_for_alarm())) == 1
