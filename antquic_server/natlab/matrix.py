"""
The matrix: every NAT against every NAT, and whether two peers behind them end up connected, directly or by a relay.

What two peers are is a ``Trial``: it is given a fresh lab with both NATs in place and says what became of the meeting.
Only delivered bytes count as a direct path: a connection over which nothing comes is none.
"""

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from antquic_server.errors import AntQuicError, CannotBootError
from antquic_server.natlab.expectation import Expected, expected_outcome_of_kinds
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import Kind

__all__ = [
    "Cell",
    "CellResult",
    "Outcome",
    "Trial",
    "TrialResult",
    "Verdict",
    "all_cells",
    "matrix_json",
    "render_matrix",
    "run_matrix",
]

INITIATORS = ("a", "b")


class Outcome(StrEnum):
    """How a meeting ended."""

    DIRECT = "direct"
    PUNCHED = "punched"
    RELAYED = "relayed"
    FAILED = "failed"


class Verdict(StrEnum):
    """An outcome held against theory."""

    AS_EXPECTED = "as expected"
    BETTER = "better"
    WORSE = "worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One meeting: the NAT of peer a, the NAT of peer b, and which of them asks for the other."""

    kind_a: Kind
    kind_b: Kind
    initiator: str

    @property
    def target(self) -> str:
        """The peer that is asked for."""
        return "b" if self.initiator == "a" else "a"

    def __str__(self) -> str:
        """Say who looks for whom, like ``symmetric (a) → full-cone (b)``."""
        kinds = {"a": self.kind_a.name, "b": self.kind_b.name}
        return f"{kinds[self.initiator]} ({self.initiator}) → {kinds[self.target]} ({self.target})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """
    What a trial saw.

    ``seconds`` is from the start of the initiator until the connection or its failure; ``delivered_bytes`` is
    what arrived over the connection, both directions together. ``reason`` says why it is no better than it is.
    """

    outcome: Outcome
    reason: str
    seconds: float
    delivered_bytes: int

    @property
    def is_direct_path(self) -> bool:
        """Whether bytes went from one peer to the other without anybody in between."""
        return self.outcome in (Outcome.DIRECT, Outcome.PUNCHED) and self.delivered_bytes > 0

    @property
    def is_relayed_path(self) -> bool:
        """Whether bytes came through a node."""
        return self.outcome is Outcome.RELAYED and self.delivered_bytes > 0


Trial = Callable[[Lab, Cell], TrialResult]
"""Runs one meeting in a lab that has the NATs of the cell; errors of ours that it raises count as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """A cell, what theory expects of it, what came, and of which attempt."""

    cell: Cell
    expected: Expected
    result: TrialResult
    attempts: int = 1

    @property
    def verdict(self) -> Verdict:
        """What came, held against theory."""
        if self.result.is_direct_path:
            return Verdict.AS_EXPECTED if self.expected is Expected.DIRECT else Verdict.BETTER
        if self.expected is Expected.RELAYED and self.result.is_relayed_path:
            return Verdict.AS_EXPECTED
        return Verdict.AS_EXPECTED if self.expected is Expected.NO_DIRECT else Verdict.WORSE


def all_cells(kinds: Sequence[Kind]) -> list[Cell]:
    """Return every pair in both orders, each side initiating."""
    return [Cell(kind_a=a, kind_b=b, initiator=who) for a in kinds for b in kinds for who in INITIATORS]


def run_matrix(
    cells: Sequence[Cell],
    trial: Trial,
    *,
    prediction: bool,
    relaying: bool = False,
    attempts: int = 1,
    at_once: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Iterator[CellResult]:
    """
    Run the cells, each in a fresh lab, and yield what came of each, in the order of the cells.

    Labs are opened and closed by the calling thread, which so can clean up after an interrupt; the trials run in
    threads of their own.

    Args:
        cells: The meetings.
        trial: Runs one of them.
        prediction: Whether theory may count on peers that predict ports.
        relaying: Whether it may count on the node to carry what cannot go directly.
        attempts: How often a meeting that is worse than theory is held; the last one counts.
        at_once: How many meetings go on at a time.
        progress: Told one line before each meeting and one after it.

    Raises:
        CannotBootError: There can be no lab here, or no trial; that is no result of a cell.
    """
    tell = progress or (lambda _: None)
    meetings = [_Meeting(number=number, cell=cell, attempt=1) for number, cell in enumerate(cells)]
    expected = [
        expected_outcome_of_kinds(cell.kind_a, cell.kind_b, prediction=prediction, relaying=relaying) for cell in cells
    ]
    # Those that cannot work take longest, until somebody's time is over: they begin first.
    waiting = deque(sorted(meetings, key=lambda meeting: expected[meeting.number] is Expected.DIRECT))
    results: dict[int, CellResult] = {}
    told = 0
    with ThreadPoolExecutor(at_once) as pool, _RunningMeetings(pool, trial) as running:
        while told < len(cells):
            while waiting and len(running) < at_once:
                tell(f"[{waiting[0].number + 1}/{len(cells)}] {waiting[0]} ...")
                running.start(waiting.popleft())
            meeting, result = running.next_end()
            found = CellResult(
                cell=meeting.cell, expected=expected[meeting.number], result=result, attempts=meeting.attempt
            )
            tell(f"[{meeting.number + 1}/{len(cells)}] {meeting}: {_summary(found)}")
            if found.verdict is Verdict.WORSE and meeting.attempt < attempts:
                waiting.appendleft(replace(meeting, attempt=meeting.attempt + 1))
                continue
            results[meeting.number] = found
            while told in results:
                yield results[told]
                told += 1


def render_matrix(results: Sequence[CellResult]) -> str:
    """
    Return the table, rows for the NAT of a and columns for that of b, and below it what was worse than theory.

    Each field has a line for each initiator; ``!`` marks what is worse than theory, ``+`` what is better.
    """
    fields: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result in results:
        fields[result.cell.kind_a.name, result.cell.kind_b.name].append(_field(result))
    rows = list(dict.fromkeys(row for row, _ in fields))
    columns = list(dict.fromkeys(column for _, column in fields))
    lines = [["a \\ b", *columns]]
    for row in rows:
        height = max(len(fields[row, column]) for column in columns)
        for line in range(height):
            texts = ((fields[row, column] + [""] * height)[line] for column in columns)
            lines.append([row if line == 0 else "", *texts])
    notes = [f"{result.cell}: {note}" for result in results if (note := _note(result))]
    return "\n".join([*_aligned(lines), "", *notes, *([""] if notes else []), _count(results)])


def matrix_json(results: Sequence[CellResult]) -> str:
    """Return the results as one JSON object with ``cells`` and ``verdicts``."""
    verdicts = {verdict.value: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    return json.dumps({"cells": [_plain(result) for result in results], "verdicts": verdicts}, indent=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meeting:
    number: int
    cell: Cell
    attempt: int

    def __str__(self) -> str:
        return str(self.cell) if self.attempt == 1 else f"{self.cell}, attempt {self.attempt}"


class _RunningMeetings:
    """The meetings that go on now, each with its lab."""

    def __init__(self, pool: ThreadPoolExecutor, trial: Trial) -> None:
        self._pool = pool
        self._trial = trial
        self._running: dict[Future[TrialResult], tuple[_Meeting, Lab]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the labs of meetings cut short: their programs end, and so do the threads that wait for these."""
        for _meeting, lab in self._running.values():
            lab.close()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, meeting: _Meeting) -> None:
        """Open a lab and begin; what fails here is a result like any other."""
        lab = Lab()
        try:
            lab.__enter__()
        except CannotBootError:
            raise
        except AntQuicError as error:
            future: Future[TrialResult] = Future()
            future.set_exception(error)
        else:
            future = self._pool.submit(self._hold, lab, meeting.cell)
        self._running[future] = meeting, lab

    def next_end(self) -> tuple[_Meeting, TrialResult]:
        """Wait until one is over, close its lab and say what came of it."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        future = next(iter(done))
        meeting, lab = self._running[future]
        lab.close()
        del self._running[future]
        try:
            return meeting, future.result()
        except CannotBootError:
            raise
        except AntQuicError as error:
            return meeting, TrialResult(outcome=Outcome.FAILED, reason=str(error), seconds=0.0, delivered_bytes=0)

    def _hold(self, lab: Lab, cell: Cell) -> TrialResult:
        lab.kind("A", cell.kind_a)
        lab.kind("B", cell.kind_b)
        return self._trial(lab, cell)


def _plain(result: CellResult) -> dict[str, Any]:
    return {
        "nat_a": result.cell.kind_a.name,
        "nat_b": result.cell.kind_b.name,
        "initiator": result.cell.initiator,
        "expected": result.expected.value,
        "outcome": result.result.outcome.value,
        "verdict": result.verdict.value,
        "seconds": round(result.result.seconds, 3),
        "delivered_bytes": result.result.delivered_bytes,
        "attempts": result.attempts,
        "reason": result.result.reason,
    }


def _field(result: CellResult) -> str:
    mark = {Verdict.AS_EXPECTED: "", Verdict.BETTER: " +", Verdict.WORSE: " !"}[result.verdict]
    return f"{result.cell.initiator}: {result.result.outcome.value} {result.result.seconds:.1f} s{mark}"


def _note(result: CellResult) -> str:
    attempts = f"attempt {result.attempts}" if result.attempts > 1 else ""
    return ", ".join(filter(None, [attempts, result.result.reason]))


def _summary(result: CellResult) -> str:
    reason = f", {result.result.reason}" if result.result.reason else ""
    return f"{result.result.outcome.value} after {result.result.seconds:.1f} s ({result.verdict.value}){reason}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _count(results: Sequence[CellResult]) -> str:
    worse = sum(result.verdict is Verdict.WORSE for result in results)
    better = sum(result.verdict is Verdict.BETTER for result in results)
    if not worse:
        return f"{len(results)} meetings, all as theory allows" + (f" ({better} better)" if better else "")
    return f"{len(results)} meetings, {worse} worse than theory allows"
