"""The matrix: cells, verdicts, table and JSON; a fake lab stands in for the real one."""

import json
import threading
from typing import Self

import pytest

from antquic_server.natlab import matrix
from antquic_server.natlab.expectation import Expected
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.matrix import (
    Cell,
    CellResult,
    Outcome,
    TrialResult,
    Verdict,
    all_cells,
    matrix_json,
    render_matrix,
    run_matrix,
)
from antquic_server.natlab.model import KINDS, Kind
from antquic_server.natlab.namespaces import LabError, LabUnavailableError

CONE, SYMMETRIC = KINDS["full-cone"], KINDS["symmetric"]


class FakeLab:
    """Remembers what it was made into; one for each cell."""

    made: list["FakeLab"]

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.closed = False
        self.ended = threading.Event()
        """Ends the programs of a lab: what waits for one goes on with an error."""
        type(self).made.append(self)

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Be gone."""
        self.closed = True
        self.ended.set()

    def kind(self, router: str, kind: Kind) -> None:
        """Remember the kind of a router."""
        self.kinds[router] = kind.name


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch) -> list[FakeLab]:
    """Put fake labs in place of real ones and return those that were made."""
    FakeLab.made = []
    monkeypatch.setattr(matrix, "Lab", FakeLab)
    return FakeLab.made


def result(outcome: Outcome, *, reason: str = "", delivered_bytes: int = 8) -> TrialResult:
    """Return a result of one and a half seconds."""
    return TrialResult(outcome=outcome, reason=reason, seconds=1.5, delivered_bytes=delivered_bytes)


def cell_result(outcome: Outcome, expected: Expected, *, delivered_bytes: int = 8) -> CellResult:
    """Return an outcome held against an expectation."""
    cell = Cell(kind_a=CONE, kind_b=SYMMETRIC, initiator="a")
    return CellResult(cell=cell, expected=expected, result=result(outcome, delivered_bytes=delivered_bytes))


def test_all_cells_are_every_pair_twice() -> None:
    """Each pair comes in both orders, each with both initiators; the target is the other one."""
    cells = all_cells([CONE, SYMMETRIC])

    assert len(set(map(str, cells))) == len(cells) == 2 * 2 * 2
    assert all({cell.initiator, cell.target} == {"a", "b"} for cell in cells)
    assert str(Cell(kind_a=CONE, kind_b=SYMMETRIC, initiator="b")) == "symmetric (b) → full-cone (a)"


@pytest.mark.parametrize(
    ("outcome", "delivered_bytes", "expected", "verdict"),
    [
        (Outcome.PUNCHED, 8, Expected.DIRECT, Verdict.AS_EXPECTED),
        (Outcome.DIRECT, 8, Expected.DIRECT, Verdict.AS_EXPECTED),
        (Outcome.PUNCHED, 0, Expected.DIRECT, Verdict.WORSE),
        (Outcome.RELAYED, 8, Expected.DIRECT, Verdict.WORSE),
        (Outcome.FAILED, 0, Expected.DIRECT, Verdict.WORSE),
        (Outcome.FAILED, 0, Expected.NO_DIRECT, Verdict.AS_EXPECTED),
        (Outcome.RELAYED, 8, Expected.NO_DIRECT, Verdict.AS_EXPECTED),
        (Outcome.PUNCHED, 8, Expected.NO_DIRECT, Verdict.BETTER),
        (Outcome.RELAYED, 8, Expected.RELAYED, Verdict.AS_EXPECTED),
        (Outcome.RELAYED, 0, Expected.RELAYED, Verdict.WORSE),
        (Outcome.FAILED, 0, Expected.RELAYED, Verdict.WORSE),
        (Outcome.DIRECT, 8, Expected.RELAYED, Verdict.BETTER),
    ],
)
def test_verdicts(outcome: Outcome, delivered_bytes: int, expected: Expected, verdict: Verdict) -> None:
    """Only delivered bytes make a direct path; more than theory grants is no fault."""
    assert cell_result(outcome, expected, delivered_bytes=delivered_bytes).verdict is verdict


def test_each_cell_runs_in_a_lab_of_its_own(labs: list[FakeLab]) -> None:
    """The lab has both NATs when the trial begins and is gone before the next cell."""
    seen = []

    def trial(lab: Lab, cell: Cell) -> TrialResult:
        assert isinstance(lab, FakeLab)
        assert [other.closed for other in labs[:-1]] == [True] * (len(labs) - 1)
        seen.append((dict(lab.kinds), cell.initiator))
        return result(Outcome.PUNCHED)

    cells = all_cells([CONE, SYMMETRIC])[2:4]
    results = list(run_matrix(cells, trial, prediction=False))

    assert seen == [({"A": "full-cone", "B": "symmetric"}, "a"), ({"A": "full-cone", "B": "symmetric"}, "b")]
    assert [found.verdict for found in results] == [Verdict.AS_EXPECTED] * 2
    assert all(lab.closed for lab in labs)


def test_progress_is_told_before_and_after_each_cell(labs: list[FakeLab]) -> None:
    """Somebody who waits minutes sees what is being waited for and what has come."""
    lines: list[str] = []
    failed = result(Outcome.FAILED, reason="nobody there", delivered_bytes=0)

    list(run_matrix(all_cells([CONE])[:1], lambda *_: failed, prediction=False, progress=lines.append))

    assert lines == [
        "[1/1] full-cone (a) → full-cone (b) ...",
        "[1/1] full-cone (a) → full-cone (b): failed after 1.5 s (worse), nobody there",
    ]


def test_an_error_of_a_trial_is_a_failed_cell(labs: list[FakeLab]) -> None:
    """One broken cell does not end the matrix, and its reason is kept."""

    def trial(lab: Lab, cell: Cell) -> TrialResult:
        raise LabError("the node went away")

    (found,) = run_matrix(all_cells([CONE])[:1], trial, prediction=False)

    assert found.result.outcome is Outcome.FAILED
    assert found.result.reason == "the node went away"
    assert labs[0].closed


def test_no_lab_at_all_ends_the_matrix(labs: list[FakeLab]) -> None:
    """Missing rights are not a result of a cell."""

    def trial(lab: Lab, cell: Cell) -> TrialResult:
        raise LabUnavailableError("no rights")

    with pytest.raises(LabUnavailableError):
        list(run_matrix(all_cells([CONE]), trial, prediction=False))
    assert len(labs) == 1


def test_meetings_go_on_side_by_side_and_are_told_in_order(labs: list[FakeLab]) -> None:
    """As many as asked for, each in a lab of its own; who ends first does not matter."""
    together = threading.Barrier(3)
    second_is_over = threading.Event()

    def trial(lab: Lab, cell: Cell) -> TrialResult:
        together.wait(30.0)
        if cell.initiator == "a":
            assert second_is_over.wait(30.0)
        else:
            second_is_over.set()
        return result(Outcome.PUNCHED, reason=str(cell))

    cells = [*all_cells([CONE]), *all_cells([SYMMETRIC])[:1]]

    assert [found.cell for found in run_matrix(cells, trial, prediction=False, at_once=3)] == cells
    assert len(labs) == 3
    assert all(lab.closed for lab in labs)


def test_no_more_meetings_at_once_than_asked_for(labs: list[FakeLab]) -> None:
    """A lab that is over is closed before another one is opened."""
    most = []

    def trial(lab: Lab, cell: Cell) -> TrialResult:
        most.append(sum(not other.closed for other in list(labs)))
        return result(Outcome.PUNCHED)

    list(run_matrix(all_cells([CONE, SYMMETRIC]), trial, prediction=False, at_once=2))

    assert len(labs) == 8
    assert max(most) <= 2


def test_a_meeting_worse_than_theory_is_held_again(labs: list[FakeLab]) -> None:
    """As often as asked for, each time in a fresh lab; the last counts, and how many there were is told."""
    outcomes = iter([Outcome.FAILED, Outcome.PUNCHED, Outcome.FAILED, Outcome.FAILED])
    lines: list[str] = []
    cells = all_cells([CONE])

    found = list(
        run_matrix(cells, lambda *_: result(next(outcomes)), prediction=False, attempts=2, progress=lines.append)
    )

    assert [(item.verdict, item.attempts) for item in found] == [(Verdict.AS_EXPECTED, 2), (Verdict.WORSE, 2)]
    assert len(labs) == 4
    assert "[1/2] full-cone (a) → full-cone (b), attempt 2 ..." in lines
    assert "full-cone (a) → full-cone (b): attempt 2" in render_matrix(found)
    assert [cell["attempts"] for cell in json.loads(matrix_json(found))["cells"]] == [2, 2]


def test_an_interrupt_closes_every_lab_and_waits_for_no_meeting(labs: list[FakeLab]) -> None:
    """Closing a lab ends its programs, and so whoever waits for them."""
    begun = threading.Semaphore(0)

    def trial(lab: Lab, cell: Cell) -> TrialResult:
        begun.release()
        if cell.initiator == "b":
            return result(Outcome.PUNCHED)
        assert isinstance(lab, FakeLab)
        assert lab.ended.wait(30.0)
        raise LabError("its programs have ended")

    def interrupt(line: str) -> None:
        if line.endswith("(as expected)"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_matrix(all_cells([CONE]), trial, prediction=False, at_once=2, progress=interrupt))
    assert begun.acquire(timeout=0)
    assert len(labs) == 2
    assert all(lab.closed for lab in labs)


def test_a_lab_that_cannot_be_built_is_a_failed_cell(labs: list[FakeLab], monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are tried all the same."""

    def refuse(self: FakeLab) -> None:
        raise LabError("the kernel says no")

    monkeypatch.setattr(FakeLab, "__enter__", refuse)
    found = list(run_matrix(all_cells([CONE]), lambda *_: result(Outcome.PUNCHED), prediction=False))

    assert [item.result.reason for item in found] == ["the kernel says no"] * 2


def test_prediction_is_part_of_the_expectation(labs: list[FakeLab]) -> None:
    """Sequential ports are expected to work only for peers that predict them."""
    cells = all_cells([KINDS["symmetric-sequential"]])[:1]
    punched = result(Outcome.PUNCHED)

    verdicts = [
        next(run_matrix(cells, lambda *_: punched, prediction=prediction)).verdict for prediction in (True, False)
    ]

    assert verdicts == [Verdict.AS_EXPECTED, Verdict.BETTER]


def test_table_has_rows_for_a_and_columns_for_b() -> None:
    """Each field has a line per initiator; marks, reasons and a count tell what to look at."""
    results = [
        CellResult(cell=cell, expected=expected, result=outcome)
        for cell, expected, outcome in zip(
            all_cells([CONE, SYMMETRIC]),
            [Expected.DIRECT] * 6 + [Expected.NO_DIRECT] * 2,
            [
                *[result(Outcome.PUNCHED)] * 4,
                result(Outcome.RELAYED, reason="UDP filtered"),
                result(Outcome.DIRECT),
                result(Outcome.FAILED, reason="symmetric", delivered_bytes=0),
                result(Outcome.PUNCHED),
            ],
            strict=True,
        )
    ]

    assert render_matrix(results).splitlines() == [
        "a \\ b      full-cone           symmetric",
        "full-cone  a: punched 1.5 s    a: punched 1.5 s",
        "           b: punched 1.5 s    b: punched 1.5 s",
        "symmetric  a: relayed 1.5 s !  a: failed 1.5 s",
        "           b: direct 1.5 s     b: punched 1.5 s +",
        "",
        "symmetric (a) → full-cone (b): UDP filtered",
        "symmetric (a) → symmetric (b): symmetric",
        "",
        "8 meetings, 1 worse than theory allows",
    ]


def test_table_of_some_cells_leaves_the_others_blank() -> None:
    """A pair that was not run has an empty field."""
    results = [
        CellResult(cell=cell, expected=Expected.DIRECT, result=result(Outcome.PUNCHED))
        for cell in [*all_cells([CONE])[:1], *all_cells([SYMMETRIC])[:1]]
    ]

    assert render_matrix(results).splitlines() == [
        "a \\ b      full-cone         symmetric",
        "full-cone  a: punched 1.5 s",
        "symmetric                    a: punched 1.5 s",
        "",
        "2 meetings, all as theory allows",
    ]


def test_json_has_every_fact() -> None:
    """Cells with all they are and came to, and a count of verdicts."""
    found = json.loads(matrix_json([cell_result(Outcome.PUNCHED, Expected.NO_DIRECT)]))

    assert found == {
        "cells": [
            {
                "nat_a": "full-cone",
                "nat_b": "symmetric",
                "initiator": "a",
                "expected": "no direct",
                "outcome": "punched",
                "verdict": "better",
                "seconds": 1.5,
                "delivered_bytes": 8,
                "attempts": 1,
                "reason": "",
            }
        ],
        "verdicts": {"as expected": 0, "better": 1, "worse": 0},
    }
