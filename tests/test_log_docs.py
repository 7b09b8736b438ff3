"""docs/logging.md lists every event that is logged at info and above, and no others; hot paths format nothing."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from antquic_server.supervisor import qlog_desk
from workers import qlog

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs" / "logging.md").read_text()
LEVELS = ("info", "warning", "error", "critical", "exception")
SOURCES = sorted(path for package in ("antquic_server", "workers") for path in (REPOSITORY / package).rglob("*.py"))


def log_calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield method and call of everything that a module logs with its ``log``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "log" and node.func.attr in (*LEVELS, "debug"):
                yield node.func.attr, node


def logged() -> set[tuple[str, str, str]]:
    """Return event, level and module of every line at info and above."""
    found = set()
    for path in SOURCES:
        module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removeprefix("antquic_server.")
        for method, call in log_calls(path):
            if method != "debug":
                event = call.args[0]
                assert isinstance(event, ast.Constant), f"{path}:{call.lineno}: the event is no plain text"
                found.add((str(event.value), "error" if method == "exception" else method, module))
    return found


def listed() -> list[list[str]]:
    """Return the rows of the table of events."""
    table = PAGE.partition("| event | level | module | meaning | what to do |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_every_event_is_explained_once_and_none_that_is_gone() -> None:
    """With its level and the module that logs it, as a level of it is set."""
    rows = [(row[0].strip("`"), row[1], row[2].strip("`")) for row in listed()]
    assert set(rows) == logged()
    assert len(rows) == len(set(rows))


def test_every_event_has_a_meaning_and_a_warning_something_to_do() -> None:
    """An error that nobody can do anything about would be none."""
    for event, level, _, meaning, action in listed():
        assert meaning, event
        assert action or level != "error", event


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.parent.name == "workers"], ids=lambda path: path.name
)
def test_debug_lines_of_workers_format_nothing(path: Path) -> None:
    """A line that is off costs a call: no text is made for it and nothing is computed, the renderer does that."""
    for method, call in log_calls(path):
        if method == "debug":
            costly = [
                node
                for fact in call.keywords
                for node in ast.walk(fact.value)
                if isinstance(node, ast.Call | ast.JoinedStr | ast.ListComp | ast.GeneratorExp | ast.BinOp)
            ]
            assert costly == [], f"{path.name}:{call.lineno}"


def test_bounds_of_traces_are_those_of_the_code() -> None:
    """Time, number and size, as the page has them."""
    table = PAGE.partition("| bound | |")[2].partition("\n\n")[0]
    numbers = [int(each) for each in re.findall(r"\d+", table)]
    assert numbers == [
        *(int(qlog_desk.MAX_SECONDS), qlog_desk.MAX_CAPTURES, qlog_desk.MAX_CONNECTIONS, qlog_desk.MAX_FILES),
        *(qlog_desk.MAX_FILE_BYTES >> 20, int(qlog_desk.KEEP_S)),
    ]
    assert f"first {qlog.MAX_NEWCOMERS} handshakes" in PAGE
