"""``natlab``: its arguments, what it prints and its exit codes, without a lab."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antquic_server import cli
from antquic_server.commands import natlab
from antquic_server.natlab import certify, matrix, namespaces, programs
from antquic_server.natlab.certify import Certificate
from antquic_server.natlab.expectation import Expected
from antquic_server.natlab.matrix import Cell, CellResult, Outcome, TrialResult
from antquic_server.natlab.meeting import MeetingTrial
from antquic_server.natlab.model import Nat
from antquic_server.natlab.namespaces import LabUnavailableError, NamespaceName, Tools
from antquic_server.natlab.programs import AntQuic


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Outcome]:
    """Replace lab and trial; the outcome of each initiator can be set, and is punched at first."""
    wanted = {"a": Outcome.PUNCHED, "b": Outcome.PUNCHED}

    def run_matrix(
        cells: list[Cell],
        trial: object,
        *,
        prediction: bool,
        relaying: bool,
        progress: Any,
        attempts: int,
        at_once: int,
    ) -> Iterator[CellResult]:
        assert isinstance(trial, MeetingTrial)
        assert prediction is trial.prediction
        assert relaying is trial.relaying
        assert (attempts, at_once) == (1, natlab.AT_ONCE)
        for cell in cells:
            progress(str(cell))
            result = TrialResult(outcome=wanted[cell.initiator], reason="", seconds=1.0, delivered_bytes=8)
            yield CellResult(cell=cell, expected=Expected.DIRECT, result=result)

    monkeypatch.setattr(matrix, "run_matrix", run_matrix)
    monkeypatch.setattr(namespaces, "find_tools", lambda: Tools(ip="ip", nft="nft"))
    return wanted


def test_the_table_goes_to_standard_output_and_progress_beside_it(
    outcomes: dict[str, Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who redirects the table still sees that something happens."""
    assert cli.main(["natlab", "--cell", "easy,hard"]) == 0

    printed = capsys.readouterr()
    assert "port-restricted  a: punched 1.0 s" in printed.out
    assert printed.err.splitlines() == [
        "port-restricted (a) → symmetric (b)",
        "symmetric (b) → port-restricted (a)",
    ]


def test_worse_than_theory_is_a_failure(outcomes: dict[str, Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1 and JSON says which."""
    outcomes["b"] = Outcome.RELAYED

    assert cli.main(["natlab", "run", "--cell", "full-cone,symmetric", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdicts"] == {"as expected": 1, "better": 0, "worse": 1}


def test_without_cells_the_whole_matrix_is_run() -> None:
    """Four kinds against four, each side initiating; for peers that predict ports a fifth whose ports they can."""
    assert len(natlab.cells_of([], prediction=False)) == 4 * 4 * 2
    assert len(natlab.cells_of([], prediction=True)) == 5 * 5 * 2
    assert len(natlab.cells_of(["easy,easy", "cgnat,hard"], prediction=True)) == 4


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ("library peer", "library peer")),
        (["--peers", "rust"], ("ant-quic", "ant-quic")),
        (["--peers", "mixed"], ("ant-quic", "library peer")),
        (["--coordinator", "ant-quic"], ("library peer", "library peer")),
    ],
)
def test_who_meets(words: list[str], names: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ant-quic is looked for only where it takes part."""
    asked = []

    def default_program() -> Path:
        asked.append(True)
        return tmp_path

    monkeypatch.setattr(programs, "default_program", default_program)
    parser = argparse.ArgumentParser()
    natlab.add_arguments(parser)

    trial = natlab.trial_of(parser.parse_args(words))

    assert (trial.a.name, trial.b.name) == names
    assert len(asked) == int(bool(words))
    assert (trial.ant_quic is not None) == bool(words)


def test_a_program_can_be_named(tmp_path: Path) -> None:
    """Instead of the one that is looked for."""
    program = tmp_path / "ant-quic"
    program.touch()
    parser = argparse.ArgumentParser()
    natlab.add_arguments(parser)

    trial = natlab.trial_of(parser.parse_args(["--peers", "rust", "--program", str(program), "--log-dir", "logs"]))

    assert trial.ant_quic == trial.a == trial.b == AntQuic(program=program)
    assert trial.log_directory == Path("logs")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fly"], "natlab = 'fly': expected one of run, classify, clean"),
        (["--peers", "go"], "--peers = 'go': expected one of library, rust, mixed"),
        (["--relay", "x"], "--relay = 'x': expected one of auto, never"),
        (["--attempts", "0"], "--attempts = 0: expected a number from 1 to 64"),
        (["--at-once", "65"], "--at-once = 65: expected a number from 1 to 64"),
        (["--cell", "easy"], "--cell = 'easy': expected two NATs like easy,symmetric"),
        (["--cell", "easy,hrad"], "(did you mean hard?)"),
        (["--coordinator", "x"], "--coordinator = 'x': expected one of antquic-server, ant-quic"),
        (["--program", "/nonexistent/ant-quic"], "--program = '/nonexistent/ant-quic': expected a program"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong argument ends with exit code 2 before anything is made."""
    monkeypatch.setattr(namespaces, "find_tools", lambda: Tools(ip="ip", nft="nft"))
    monkeypatch.setattr(programs, "default_program", lambda: Path("ant-quic"))

    assert cli.main(["natlab", *arguments]) == 2
    printed = capsys.readouterr()
    assert line in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_a_machine_without_rights_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, exit code 3."""

    def refuse() -> Tools:
        raise LabUnavailableError("the NAT lab needs root")

    monkeypatch.setattr(namespaces, "find_tools", refuse)

    for action in ("run", "clean"):
        assert cli.main(["natlab", action]) == 3
        assert capsys.readouterr().err == "antquic-server: error: the NAT lab needs root\n"


def test_classify_fails_when_a_nat_is_false(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is that of the worst NAT."""
    monkeypatch.setattr(certify, "certify", lambda: iter([Certificate(built=Nat(), seen=None)]))

    assert cli.main(["natlab", "classify"]) == 1
    assert "WRONG" in capsys.readouterr().out
    assert cli.main(["natlab", "classify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["nats"][0]["ok"] is False


def test_clean_says_what_it_removed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each namespace and a count."""
    name = NamespaceName(pid=1, started_ticks=2, number=3, role="a")
    monkeypatch.setattr(namespaces, "find_tools", lambda: Tools(ip="ip", nft="nft"))
    monkeypatch.setattr(namespaces, "remove_leftovers", lambda tools: [name])

    assert cli.main(["natlab", "clean"]) == 0
    assert capsys.readouterr().out == "removed antlab-1-2-3-a\n1 leftover namespaces removed\n"
    assert cli.main(["natlab", "clean", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": ["antlab-1-2-3-a"]}
