"""
What is running, how far it is and how long it will take: a live line on a terminal, lines now and then elsewhere.

A benchmark knows its own steps, the campaign that runs it knows the benchmarks before and after. So that neither must
be handed through the other, the campaign in force is a context variable.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TextIO

from antquic_server.bench.report import terminal_columns

__all__ = ["Campaign", "Progress", "Task", "running_campaign"]

LINE_INTERVAL_S: Final = 10.0
"""Where nobody watches, a step is a line only if the last line is this old: a log keeps readable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run of one benchmark: its name, and the seconds it is expected to take, 0 if nobody knows."""

    name: str
    expected_s: float


class Campaign:
    """
    All runs of a command, one after another.

    What a finished run took replaces what the others of its name were expected to take.
    """

    def __init__(self, tasks: Sequence[Task], stream: TextIO | None = None) -> None:
        self._tasks = tasks
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._at = -1
        self._started_s = 0.0
        self._said_s = 0.0
        self._measured_s: dict[str, float] = {}

    @contextmanager
    def task(self) -> Iterator[None]:
        """Surround the next run."""
        self._at += 1
        self._started_s = time.monotonic()
        self._say(self._line("", 0, 0), always=True)
        yield
        self._measured_s[self._tasks[self._at].name] = time.monotonic() - self._started_s
        self.clear()

    def step(self, what: str, done: int, total: int) -> None:
        """Say that step ``done`` + 1 of ``total`` begins."""
        self._say(self._line(what, done, total))

    def clear(self) -> None:
        """Remove the live line."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def left_s(self, done: int, total: int) -> float | None:
        """Return the seconds left, or None as long as nobody can know: ``done`` of ``total`` steps are over."""
        elapsed_s = time.monotonic() - self._started_s
        expected_s = self._expected_s(self._tasks[self._at])
        if done and total:
            # What the steps so far took weighs the more, the more of them there are.
            share = done / total
            by_steps_s = elapsed_s / share
            expected_s = by_steps_s if expected_s is None else share * by_steps_s + (1 - share) * expected_s
        others = [self._expected_s(task) for task in self._tasks[self._at + 1 :]]
        if expected_s is None or None in others:
            return None
        return max(0.0, expected_s - elapsed_s) + sum(item for item in others if item is not None)

    def _expected_s(self, task: Task) -> float | None:
        return self._measured_s.get(task.name, task.expected_s) or None

    def _line(self, what: str, done: int, total: int) -> str:
        task = self._tasks[self._at]
        runs = f"[{self._at + 1}/{len(self._tasks)}] " if len(self._tasks) > 1 else ""
        steps = f" {done + 1}/{total}" if total else ""
        left_s = self.left_s(done, total)
        left = "" if left_s is None else f", about {duration(left_s)} left"
        return f"{runs}{task.name}{steps}{': ' + what if what else ''}{left}"

    def _say(self, line: str, *, always: bool = False) -> None:
        now_s = time.monotonic()
        if self._live:
            # Cut: what goes on into a second line cannot be removed again.
            self._stream.write(f"\r\x1b[K{line[: terminal_columns() - 1]}")
        elif always or now_s - self._said_s >= LINE_INTERVAL_S:
            self._said_s = now_s
            self._stream.write(f"bench: {line}\n")
        self._stream.flush()


_CAMPAIGN: ContextVar[Campaign | None] = ContextVar("bench_campaign", default=None)


@contextmanager
def running_campaign(campaign: Campaign) -> Iterator[Campaign]:
    """Have every :class:`Progress` made inside report to ``campaign``."""
    token = _CAMPAIGN.set(campaign)
    try:
        yield campaign
    finally:
        campaign.clear()
        _CAMPAIGN.reset(token)


class Progress:
    """The steps of one benchmark; says nothing where no campaign is running, as in a test."""

    def __init__(self, total: int) -> None:
        self._campaign = _CAMPAIGN.get()
        self._total = total
        self._done = 0

    def step(self, what: str) -> None:
        """Say what begins now."""
        if self._campaign is not None:
            self._campaign.step(what, self._done, self._total)
        self._done += 1


def duration(seconds: float) -> str:
    """Return a duration as people say it roughly: ``45 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
