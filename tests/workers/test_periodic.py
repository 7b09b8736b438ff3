"""Tests of ``workers.periodic``."""

import asyncio

from support.in_process import run, until
from workers.periodic import Periodic


def test_calls_until_it_is_stopped() -> None:
    """Again and again, and not once more after ``stop``, even from within the action."""

    async def story() -> None:
        calls: list[float] = []
        loop = asyncio.get_running_loop()

        def action() -> None:
            calls.append(loop.time())
            if len(calls) == 3:
                periodic.stop()

        periodic = Periodic(0.01, action, loop)
        periodic.start()
        periodic.start()
        await until(lambda: len(calls) == 3, "third call")
        await asyncio.sleep(0.03)
        assert len(calls) == 3
        periodic.stop()

    run(story())


def test_interval_of_zero_means_never() -> None:
    """That is how something is switched off."""

    async def story() -> None:
        calls: list[int] = []
        periodic = Periodic(0.0, lambda: calls.append(1), asyncio.get_running_loop())
        periodic.start()
        await asyncio.sleep(0.01)
        assert calls == []

    run(story())
