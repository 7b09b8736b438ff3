"""Programs that report by JSON lines, run on this machine instead of in a lab."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from antquic_server.natlab.json_process import JsonProcess
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.namespaces import LabError


class HostLab:
    """Starts programs where it stands."""

    def popen(self, _role: str, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program."""
        return subprocess.Popen(command, **options)


class Started:
    """Starts Python programs and stops them at the end of the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[JsonProcess] = []

    def __call__(self, script: str) -> JsonProcess:
        """Run a script."""
        process = JsonProcess(
            cast("Lab", HostLab()),
            "a",
            [sys.executable, "-uc", script],
            environment={},
            directory=self.directory,
            log=self.directory / "log",
        )
        self.running.append(process)
        return process


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    """Return something that runs scripts."""
    started = Started(tmp_path)
    yield started
    for process in started.running:
        process.stop(signal.SIGTERM)


def test_json_lines_are_told_from_other_lines(start: Started) -> None:
    """Only whole JSON objects are messages; the log has everything, standard error included."""
    process = start(
        "import sys; print('INFO starting'); print('{broken'); print('{\"event\": \"x\", \"n\": 1}');"
        'sys.stderr.write(\'complaint: why\\n\'); sys.stderr.flush(); print(\'{"event": "x", "n": 2}\')'
    )

    last = process.wait_for(lambda message: message.get("n") == 2, what="second", timeout_s=10.0)

    assert last == {"event": "x", "n": 2}
    assert [message["n"] for message in process.find(lambda message: message["event"] == "x")] == [1, 2]
    assert process.last_line("complaint") == "complaint: why"
    assert process.last_line("nothing like it") == ""
    process.stop(signal.SIGTERM)
    assert (start.directory / "log").read_text().splitlines()[0] == "INFO starting"
    assert len((start.directory / "log").read_text().splitlines()) == 5


def test_what_does_not_come_is_named(start: Started) -> None:
    """The error says what was missing and where."""
    process = start("import time; time.sleep(600)")

    with pytest.raises(LabError, match=r"no second from python\S* on a within 0.05 s"):
        process.wait_for(lambda _: True, what="second", timeout_s=0.05)


def test_a_program_that_ends_is_not_waited_for(start: Started) -> None:
    """Its last words are the reason."""
    process = start("print('cannot bind'); raise SystemExit(1)")

    with pytest.raises(LabError, match="ended: cannot bind"):
        process.wait_for(lambda _: True, what="first", timeout_s=60.0)


def test_a_program_that_does_not_listen_is_killed(start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping always comes to an end."""
    monkeypatch.setattr("antquic_server.natlab.json_process._STOP_TIMEOUT_S", 0.2)
    process = start("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}'); time.sleep(600)")
    process.wait_for(lambda _: True, what="first", timeout_s=10.0)

    process.stop(signal.SIGTERM)

    assert process._process.returncode == -signal.SIGKILL
