"""``qlog``: waiting, fetching, and what a node may not make us do. With a real node: end_to_end/test_qlog.py."""

from pathlib import Path
from typing import Any

import pytest

from antquic_server import cli
from antquic_server.commands import qlog

PEER = "AB" * 32
NAME = "slot0-generation1-connection7.qlog"


class Node:
    """A node with one capture, whose state is that of the n-th look."""

    def __init__(self, *states: dict[str, Any] | BaseException, file: bytes = b"x" * 10) -> None:
        self.states = list(states)
        self.asked: list[tuple[str, str]] = []
        self.request: object = None
        self.file = file

    def ask(self, method: str, target: str, document: object = None) -> dict[str, Any]:
        """Answer."""
        self.asked.append((method, target))
        if method == "POST":
            self.request = document or self.request
            return {"capture": 5}
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, BaseException):
            raise state
        return state

    def ask_bytes(self, method: str, target: str) -> bytes:
        """Return four bytes of the file at a time."""
        self.asked.append((method, target))
        offset = int(target.partition("offset=")[2] or 0)
        return self.file[offset : offset + 4]


def files(name: str = NAME, **facts: object) -> dict[str, Any]:
    """Return the state of a capture that is done, with one file."""
    entry = {"name": name, "events": 1234, "from_start": True, "truncated": False, **facts}
    return {"done": True, "files": [entry], "refused": 0, "errors": []}


def run(node: Node, monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    """Run the command against it, without waiting."""
    monkeypatch.setattr(qlog, "control_client", lambda _: node)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return cli.main(["qlog", PEER, *argv])


def test_file_is_fetched_piece_by_piece_and_the_capture_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After waiting for the end."""
    node = Node({"done": False, "remaining_s": 1.0}, files(), files())
    assert run(node, monkeypatch, "--output", str(tmp_path), "--seconds", "2.5") == 0

    assert node.request == {"peer_id": PEER.lower(), "seconds": 2.5}
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("abababababababab-")
    assert path.name.endswith(NAME)
    assert path.read_bytes() == node.file
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["events", "bytes", "handshake", "file"]
    assert printed[1].split() == ["1,234", "10", "yes", str(path)]
    assert node.asked[-1] == ("DELETE", "/qlog/5")


def test_interrupt_ends_the_trace_and_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it would a recording."""
    node = Node(KeyboardInterrupt(), files(), files())
    assert run(node, monkeypatch, "--output", str(tmp_path)) == 0
    assert ("POST", "/qlog/5/stop") in node.asked
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["../evil.qlog", "/etc/cron.d/evil", "a b.qlog", "x" * 100 + ".qlog", ""])
def test_name_that_is_no_name_of_a_trace_is_not_written(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root may be asking a node that is not."""
    (tmp_path / "inner").mkdir()
    assert run(Node(files(name)), monkeypatch, "--output", str(tmp_path / "inner")) == 1
    assert "which is no name of a trace" in capsys.readouterr().err
    assert [each.name for each in tmp_path.rglob("*")] == ["inner"]


def test_what_went_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors of workers, connections that were too many, files that were cut."""
    state = files(truncated=True, from_start=False) | {"refused": 3, "errors": ["cannot write x: no"]}
    assert run(Node(state), monkeypatch, "--output", str(tmp_path)) == 0
    printed = capsys.readouterr()
    assert "a worker reports: cannot write x: no" in printed.err
    assert "3 more connections were not traced" in printed.err
    assert "cut off" in printed.out


def test_peer_without_connections_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There was nothing to trace; scripts notice."""
    node = Node({"done": True, "files": [], "errors": []})
    assert run(node, monkeypatch, "--output", str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith("antquic-server: error: the peer had no connection to trace")
    assert node.asked[-1] == ("DELETE", "/qlog/5")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["abc"], "command line: PEER_ID = 'abc': expected 64 hexadecimal digits"),
        ([PEER, "--seconds", "0"], "command line: --seconds = '0': expected a number above 0, at most 600"),
        ([PEER, "--seconds", "601"], "command line: --seconds = '601': expected a number above 0, at most 600"),
        ([PEER, "--seconds", "nan"], "command line: --seconds = 'nan': expected a number above 0, at most 600"),
        ([PEER, "--output", "/no/where"], "command line: --output = '/no/where': expected a directory that can be "),
    ],
)
def test_wrong_usage_is_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the node is asked: a trace is not to be made for a directory that is not there."""
    assert cli.main(["qlog", *argv]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"antquic-server: error: {line}")
    assert printed.count("\n") == 1
