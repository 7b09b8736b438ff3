"""
Memory profiles of a small program instead of a worker, or of a pretended one that says what the test wants.

memray never tracks in the process of the tests: ``test_memory_payload`` says why.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from antquic_server.errors import ProfileError, ProfilerUnavailableError
from antquic_server.profiling import memory
from antquic_server.profiling.memory import MemoryProfile, MemoryResult, record_memory
from support import tracked

pytest.importorskip("memray")


class Stage:
    """Records a profile; ``inject`` is replaced by a thread that does what the test wants."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.output = directory / "memory.html"
        self.pid = os.getpid()
        self.threads: list[threading.Thread] = []
        self.program: subprocess.Popen[str] | None = None
        self.act: Callable[[str, int], object] = lambda *_: None
        monkeypatch.setattr(memory, "inject", self.inject)

    def start_program(self) -> None:
        """Profile a program that executes the code, as a worker does."""
        command = [sys.executable, tracked.__file__]
        self.program = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        self.pid = self.program.pid
        self.act = lambda code, _: self.tell(json.dumps(code))

    def tell(self, line: str) -> None:
        """Send the program a line."""
        assert self.program is not None
        assert self.program.stdin is not None
        print(line, file=self.program.stdin, flush=True)

    def inject(self, pid: int, code: str, listener: socket.socket) -> float:
        """Have the code executed, or not."""
        assert pid == self.pid
        thread = threading.Thread(target=self.act, args=(code, listener.getsockname()[1]))
        self.threads.append(thread)
        thread.start()
        return 0.125

    def record(
        self, waiting: Callable[[float], None] = lambda _: None, *, seconds: int = 1, **facts: bool
    ) -> MemoryResult:
        """Record for a second."""
        profile = MemoryProfile(pid=self.pid, seconds=seconds, output=self.output, **facts)
        return record_memory(profile, waiting, self.directory)

    def close(self) -> None:
        """See that everything ends."""
        for thread in self.threads:
            thread.join(30.0)
            assert not thread.is_alive()
        if self.program is not None:
            self.program.communicate(timeout=30.0)
            assert self.program.returncode == 0


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The stage, and what it has started ended."""
    stage = Stage(tmp_path, monkeypatch)
    yield stage
    stage.close()


@pytest.mark.parametrize("leaks", [False, True])
def test_allocations_are_named(stage: Stage, leaks: bool) -> None:
    """Who allocated what is held, in the page and in the stacks; freed ones only at the peak."""
    stage.start_program()
    told = False

    def waiting(passed_s: float) -> None:
        nonlocal told
        if not told and passed_s > 0.1:
            stage.tell("hold")
            told = True

    result = stage.record(waiting, leaks=leaks)

    assert result.standstill_s == 0.125
    frames, size = max(result.stacks, key=lambda stack: stack[1])
    assert size >= 10_000_000
    assert frames[-1].startswith("hog (support/tracked.py:")
    assert "hog" in stage.output.read_text(encoding="utf-8")


def test_worker_without_memray_is_explained(stage: Stage) -> None:
    """It runs from another environment."""

    def fail(code: str, port: int) -> None:
        token = code.partition("'arguments': (")[2].split("'")[1]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"{token} failed ModuleNotFoundError there is none\n".encode())

    stage.act = fail
    with pytest.raises(ProfileError, match="its installation has no memray"):
        stage.record()


def test_worker_that_ends_meanwhile_is_an_error(stage: Stage) -> None:
    """There is nothing to be drawn."""
    stage.act = lambda _, port: socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ProfileError, match="the process has ended"):
        stage.record()
    assert not stage.output.exists()


def test_somebody_else_is_not_believed(stage: Stage) -> None:
    """Another program of this machine may connect as well."""

    def lie(_: str, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"wrong tracking /etc/passwd\n")

    stage.act = lie
    with pytest.raises(ProfileError, match="somebody else"):
        stage.record()


def test_worker_that_never_begins_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while."""
    monkeypatch.setattr(memory, "BEGIN_TIMEOUT_S", 0.2)
    stage.act = lambda *_: None
    with pytest.raises(ProfileError, match="memray did not begin within"):
        stage.record()


def test_capture_that_grows_too_large_is_ended_early(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """And drawn all the same."""
    monkeypatch.setattr(memory, "MAX_CAPTURE_BYTES", 10)
    stage.start_program()
    stage.record(seconds=60)
    assert stage.output.exists()


def test_missing_memray_says_how_to_get_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is done."""

    def missing(name: str) -> None:
        raise ProfilerUnavailableError(f"no {name}")

    monkeypatch.setattr(memory, "module_or_fail", missing)
    with pytest.raises(ProfilerUnavailableError, match="no memray"):
        stage.record()
    assert stage.threads == []
