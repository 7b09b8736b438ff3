"""docs/doctor.md explains every check in the words of the code, and knows no other."""

import re
import shlex
from pathlib import Path

import pytest

from antquic_server import cli
from antquic_server.doctor.case import Check
from antquic_server.doctor.examination import CHECKS
from antquic_server.doctor.reach import REACH_CHECKS
from antquic_server.errors import ExitCode

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "doctor.md").read_text()
ALL = {**CHECKS, **{check.name: check for check in REACH_CHECKS}}


def rows(first_column: str) -> list[list[str]]:
    """Return the cells of every table whose first column has this heading."""
    tables = (table.partition("\n\n")[0] for table in PAGE.split(f"| {first_column} |")[1:])
    lines = [line for table in tables for line in table.splitlines()[2:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_check_is_explained_once() -> None:
    """In the order of the command's own table, those of --reach before."""
    assert [row[0].strip("`") for row in rows("check")] == [*(check.name for check in REACH_CHECKS), *CHECKS]


@pytest.mark.parametrize("check", ALL.values(), ids=list(ALL))
def test_a_check_is_explained_in_its_own_words(check: Check) -> None:
    """What it looks at, why, what was measured; and how it is mended."""
    (row,) = [row for row in rows("check") if row[0] == f"`{check.name}`"]

    assert row[1:4] == [check.looks_at, check.why, check.effect or "-"]
    assert row[4]


def test_every_check_watches_a_best_practice() -> None:
    """And each practice is watched by checks that exist."""
    named = [name for row in rows("practice") for name in re.findall(r"`([a-z0-9-]+)`", row[1]) if name != "--reach"]

    assert sorted(named) == sorted(CHECKS)


def test_the_exit_codes_are_those_of_the_command() -> None:
    """The three that it returns."""
    assert [int(row[0]) for row in rows("exit code")] == [ExitCode.OK, ExitCode.FAILURE, ExitCode.USAGE]


@pytest.mark.parametrize("line", re.findall(r"^antquic-server doctor.*$", PAGE, re.MULTILINE))
def test_every_command_of_the_page_is_one(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With options that the parser knows and checks that exist."""
    arguments = shlex.split(line.partition("|")[0])[1:]
    names = [word for word in arguments[1:] if not word.startswith("-")]

    assert set(names) <= set(CHECKS)
    assert cli._parse(arguments).command == "doctor"
