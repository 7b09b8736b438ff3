"""The table for people and the document for programs."""

import json
import re

import pytest

from antquic_server.doctor.examination import CHECKS, Result
from antquic_server.doctor.finding import Finding, cannot_tell, fault, note, ok, warning
from antquic_server.doctor.report import MAX_WIDTH, MIN_WIDTH, document, render_text, summary


def _result(name: str, finding: Finding) -> Result:
    return Result(check=CHECKS[name], finding=finding)


RESULTS = [
    _result("receive-buffer", fault("208 KiB obtained", "antquic-server tune apply", "sysctl -w a=1")),
    _result("send-buffer", ok("8 MiB obtained")),
    _result("cpus", warning("3 workers on 2 CPUs", "antquic-server serve --set endpoint.workers=2")),
    _result("mtu", cannot_tell("no default route")),
]


def test_findings_come_as_a_table_with_what_to_do_below() -> None:
    """The worst first, with why it matters, what was measured and the commands."""
    text = render_text(RESULTS, width=120, colour=False)

    assert "  fault    receive-buffer  208 KiB obtained\n" in text
    assert "  ok       send-buffer     8 MiB obtained\n" in text
    table, _, advice = text.partition("what to do\n")
    assert "sockets\n" in table
    assert advice.index("receive-buffer:") < advice.index("cpus:")
    assert "    fix  antquic-server tune apply\n    or   sysctl -w a=1\n" in advice
    assert "measured: of a burst of 20,000 datagrams" in advice
    assert text.endswith("\n1 fault, 1 warning, 1 note, 1 ok (1 cannot be told)")
    assert "\x1b" not in text


def test_colours_change_nothing_but_the_colour() -> None:
    """A pasted report reads the same."""
    coloured = render_text(RESULTS, width=120, colour=True)

    assert "\x1b[1;31m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_text(RESULTS, width=120, colour=False)


@pytest.mark.parametrize("width", [10, MIN_WIDTH, 100, MAX_WIDTH, 1000])
def test_lines_fit_the_terminal_but_for_commands(width: int) -> None:
    """Commands are to be copied whole."""
    long = [_result("cpus", warning("word " * 60, "command " * 60)), _result("mtu", note("x " * 200))]
    lines = render_text(long, width=width, colour=False).splitlines()

    fitting = max(len(line) for line in lines if not line.startswith("    fix"))
    assert fitting <= min(max(width, MIN_WIDTH), MAX_WIDTH)
    assert "    fix  " + "command " * 60 in lines


def test_nobody_commands_the_terminal_through_a_report() -> None:
    """A process may have any name."""
    text = render_text([_result("cpus", warning("by \x1b[2J\n", "kill \x07"))], width=80, colour=False)

    assert "by \\x1b[2J\\n" in text
    assert "    fix  kill \\x07\n" in text
    assert "\x1b" not in text


def test_nothing_to_do_is_nothing_said() -> None:
    """Only the table and the summary."""
    text = render_text([_result("cpus", ok("fine"))], width=80, colour=False)

    assert "what to do" not in text
    assert text.endswith("no faults, 1 ok")


@pytest.mark.parametrize(
    ("makes", "line"),
    [
        ([fault, fault, warning], "2 faults, 1 warning, 0 ok"),
        ([ok, ok, note], "no faults, 1 note, 2 ok"),
        ([warning, warning, fault], "1 fault, 2 warnings, 0 ok"),
        ([], "no faults, 0 ok"),
    ],
)
def test_the_summary_counts(makes: list[object], line: str) -> None:
    """What there is none of is left out, but for faults."""
    assert summary([_result("cpus", make("x")) for make in makes]) == line  # type: ignore[operator]


def test_the_document_is_as_promised() -> None:
    """Keys and types as scripts rely on them; a new schema number is due when this test has to change."""
    plain = json.loads(json.dumps(document(RESULTS, 1)))

    assert plain.keys() == {"schema", "version", "checks", "summary", "exit_code"}
    assert (plain["schema"], plain["exit_code"]) == (1, 1)
    assert plain["summary"] == {"ok": 1, "note": 1, "warning": 1, "fault": 1}
    first = plain["checks"][0]
    expected = ["name", "topic", "verdict", "known", "found", "looks_at", "why", "effect", "fixes"]
    assert list(first) == expected
    assert (first["name"], first["topic"], first["verdict"], first["known"]) == (
        "receive-buffer",
        "sockets",
        "fault",
        True,
    )
    assert first["fixes"] == ["antquic-server tune apply", "sysctl -w a=1"]
    assert plain["checks"][3]["known"] is False
