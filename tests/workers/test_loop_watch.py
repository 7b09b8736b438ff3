"""Tests of ``workers.loop_watch``."""

import asyncio
from typing import Any

import pytest

from support.in_process import run, until
from workers.loop_watch import INTERVAL_S, LoopWatch


class Loop:
    """A loop whose timers are fired by hand, and the clock beside it."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[Any] = []
        self.cancelled = 0

    def call_later(self, delay_s: float, callback: Any) -> "Loop":
        """Note the timer; this is its handle as well."""
        assert delay_s == INTERVAL_S
        self.timers.append(callback)
        return self

    def cancel(self) -> None:
        """Note it."""
        self.cancelled += 1

    def fire(self, after_s: float) -> None:
        """Let the time pass and the timer fire."""
        self.now_s += after_s
        self.timers.pop()()


def test_delay_is_what_the_clock_says() -> None:
    """Late by so much; a loop that is early by a tick of its own clock is not late."""
    loop: Any = Loop()
    seen: list[float] = []
    watch = LoopWatch(seen.append, clock=lambda: float(loop.now_s), loop=loop)
    watch.start()
    watch.start()
    for after_s in (INTERVAL_S, INTERVAL_S + 0.25, INTERVAL_S - 0.001, INTERVAL_S + 0.5):
        loop.fire(after_s)

    assert seen == pytest.approx([0.0, 0.25, 0.0, 0.5])
    assert len(loop.timers) == 1


def test_nothing_is_looked_at_after_the_end() -> None:
    """The timer goes; a second stop does no harm."""
    loop: Any = Loop()
    watch = LoopWatch(lambda _: None, clock=lambda: 0.0, loop=loop)
    watch.start()
    watch.stop()
    watch.stop()
    assert loop.cancelled == 1


def test_a_real_loop_is_seen_to_lag() -> None:
    """Something that takes half a second delays the timer by nearly all of it."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        watch = LoopWatch(seen.append, clock=loop.time, loop=loop)
        watch.start()
        loop.call_soon(_block, loop.time() + 0.5, loop)
        await until(lambda: any(delay_s > 0.3 for delay_s in seen), "delay")
        watch.stop()

    run(story())


def _block(until_s: float, loop: asyncio.AbstractEventLoop) -> None:
    while loop.time() < until_s:
        pass
