"""``log``: what is asked of the node, and the table that comes of it. With a real node: test_log_levels.py."""

import json
from typing import Any

import pytest

from antquic_server import cli
from antquic_server.commands import log

ANSWER: dict[str, Any] = {
    "level": "info",
    "modules": {"net": "debug", "quic": "warning"},
    "changed": {"level": None, "modules": {"net": "debug"}},
    "configured": {"level": "info", "modules": {"net": "error", "quic": "warning"}},
    "repeat_burst": 100,
    "repeat_window_s": 10.0,
}


class Client:
    """A node that is always content."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def ask(self, *question: Any) -> dict[str, Any]:
        """Note the question."""
        self.asked.append(question)
        return ANSWER


@pytest.mark.parametrize(
    ("argv", "question"),
    [
        (["show"], ("GET", "/log")),
        (["set", "debug", "net=info"], ("POST", "/log", {"set": ["debug", "net=info"]})),
        (["reset"], ("POST", "/log/reset")),
    ],
)
def test_action_is_one_question(
    argv: list[str], question: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the answer is a table of what holds."""
    client = Client()
    monkeypatch.setattr(log, "control_client", lambda _: client)
    assert cli.main(["log", *argv]) == 0
    assert client.asked == [question]
    assert capsys.readouterr().out.splitlines() == [
        "module        level     from",
        "(everything)  info      configuration",
        "net           debug     antquic-server log set, configured: error",
        "quic          warning   configuration",
        "",
        "of one event 100 lines in 10.0 s are written, the rest is summed up",
    ]


def test_json_is_the_answer_as_it_came(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs."""
    monkeypatch.setattr(log, "control_client", lambda _: Client())
    assert cli.main(["log", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ANSWER


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["set"], "log set: no level given, expected [MODULE=]LEVEL, like workers.relay=debug"),
        (["show", "debug"], "log show: takes no levels, got 'debug'"),
        (["reset", "net=info"], "log reset: takes no levels, got 'net=info'"),
    ],
)
def test_wrong_usage_is_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without asking anybody."""
    assert cli.main(["log", *argv]) == 2
    assert capsys.readouterr().err == f"antquic-server: error: command line: {line}\n"


def test_table_of_a_node_that_writes_everything_and_of_one_that_says_nothing() -> None:
    """An answer of another version is shown as far as it goes."""
    assert "every line is written" in log.render_levels(ANSWER | {"repeat_burst": 0})
    assert log.render_levels({}).splitlines()[1].split() == ["(everything)", "-", "configuration"]
