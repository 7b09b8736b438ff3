"""The ready line: one line of JSON, and a reader who does not come is no reason to wait for long, or to fail."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from antquic_server.supervisor import ready_line
from antquic_server.supervisor.ready_line import print_ready_line

FACTS = {"event": "ready", "workers": 2}


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A pipe whose writing end stands for standard output."""
    reading, writing = os.pipe()
    monkeypatch.setattr(ready_line, "_STANDARD_OUTPUT_FD", writing)
    monkeypatch.setattr(ready_line, "_READER_PATIENCE_S", 0.01)
    # Not sys.stdout itself: pytest puts its own there between a fixture and its test.
    stdout = open(writing, "w", closefd=False)  # noqa: SIM115 - until the test is over
    monkeypatch.setattr(ready_line, "sys", SimpleNamespace(stdout=stdout))
    yield reading, writing
    with suppress(OSError):
        stdout.close()
    for descriptor in (reading, writing):
        with suppress(OSError):
            os.close(descriptor)


def test_line_is_json(pipe: tuple[int, int]) -> None:
    """One line, with everything that was said."""
    print_ready_line(FACTS)
    line = os.read(pipe[0], 4096)
    assert line.count(b"\n") == 1
    assert json.loads(line) == FACTS


def test_reader_who_does_not_read_is_not_waited_for(pipe: tuple[int, int]) -> None:
    """The log says so, and nothing was written."""
    os.set_blocking(pipe[1], False)
    with suppress(BlockingIOError):
        while os.write(pipe[1], bytes(4096)):
            pass
    with capture_logs() as lines:
        print_ready_line(FACTS)
    assert [(line["event"], line["error"]) for line in lines] == [("cannot write the ready line", "nobody reads it")]


def test_reader_who_has_gone_is_no_failure(pipe: tuple[int, int]) -> None:
    """Whoever started the node may have ended."""
    os.close(pipe[0])
    with capture_logs() as lines:
        print_ready_line(FACTS)
    assert [(line["event"], line["error"]) for line in lines] == [
        ("cannot write the ready line", "[Errno 32] Broken pipe")
    ]
