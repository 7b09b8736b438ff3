"""Waiting for a condition with a deadline, which end-to-end tests do instead of sleeping for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["hold_for", "wait_for_value", "wait_until"]

Value = TypeVar("Value")

# Short enough not to lengthen a test noticeably, long enough to leave the processor to what is tested.
POLL_INTERVAL_S = 0.05


def wait_until(condition: Callable[[], Value], *, timeout_s: float, what: str) -> Value:
    """
    Return the first true value of ``condition()``.

    Raises:
        AssertionError: It was never true; names ``what`` and the last value seen.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline_s:
            raise AssertionError(f"no {what} within {timeout_s} s; last seen: {value!r}")
        time.sleep(POLL_INTERVAL_S)


def wait_for_value(read: Callable[[], object], expected: object, *, timeout_s: float, what: str) -> None:
    """
    Return as soon as ``read()`` gives ``expected``.

    Raises:
        AssertionError: It never did; names ``what`` and the last value read.
    """
    last: list[object] = [read()]

    def reached() -> bool:
        last[0] = read()
        return last[0] == expected

    try:
        wait_until(reached, timeout_s=timeout_s, what=what)
    except AssertionError:
        raise AssertionError(f"{what}: expected {expected!r}, after {timeout_s} s {last[0]!r}") from None


def hold_for(condition: Callable[[], object], *, duration_s: float, what: str) -> None:
    """
    Return after ``duration_s`` seconds during which ``condition()`` was true at every look.

    Raises:
        AssertionError: It was false once; names ``what`` and when.
    """
    started_s = time.monotonic()
    while (elapsed_s := time.monotonic() - started_s) < duration_s:
        if not condition():
            raise AssertionError(f"{what} ended after {elapsed_s:.1f} s of {duration_s} s")
        time.sleep(min(POLL_INTERVAL_S * 5, max(0.0, duration_s - elapsed_s)))
