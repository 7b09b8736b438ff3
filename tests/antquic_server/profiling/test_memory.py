"""Memory profiles, with the payload on a thread of this process instead of in a worker."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from antquic_server.errors import ProfileError, ProfilerUnavailableError
from antquic_server.profiling import memory
from antquic_server.profiling.memory import MemoryProfile, MemoryResult, record_memory

pytest.importorskip("memray")


class Stage:
    """Records a profile of this process; ``inject`` is replaced by a thread that runs the code."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.output = directory / "memory.html"
        self.threads: list[threading.Thread] = []
        self.act: Callable[[str, int], object] = lambda code, _: exec(code, {})
        monkeypatch.setattr(memory, "inject", self.inject)

    def inject(self, pid: int, code: str, listener: socket.socket) -> float:
        """Run the code here."""
        assert pid == os.getpid()
        thread = threading.Thread(target=self.act, args=(code, listener.getsockname()[1]))
        self.threads.append(thread)
        thread.start()
        return 0.125

    def record(self, waiting: Callable[[float], None] = lambda _: None, **facts: bool) -> MemoryResult:
        """Record for a second."""
        profile = MemoryProfile(pid=os.getpid(), seconds=1, output=self.output, **facts)
        return record_memory(profile, waiting, self.directory)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The stage, and its threads ended."""
    stage = Stage(tmp_path, monkeypatch)
    yield stage
    for thread in stage.threads:
        thread.join(30.0)
        assert not thread.is_alive()


def hog() -> bytes:
    """Allocate ten megabytes."""
    return bytes(10_000_000)


@pytest.mark.parametrize("leaks", [False, True])
def test_allocations_are_named(stage: Stage, leaks: bool) -> None:
    """Who allocated what is held, in the page and in the stacks; freed ones only at the peak."""
    kept: list[bytes] = []

    def waiting(passed_s: float) -> None:
        if not kept and passed_s > 0.1:
            kept.append(hog())

    result = stage.record(waiting, leaks=leaks)

    assert result.standstill_s == 0.125
    frames, size = max(result.stacks, key=lambda stack: stack[1])
    assert size >= 10_000_000
    assert frames[-1].startswith("hog (profiling/test_memory.py:")
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
    profile = MemoryProfile(pid=os.getpid(), seconds=60, output=stage.output)
    record_memory(profile, lambda _: None, stage.directory)
    assert stage.output.exists()


def test_missing_memray_says_how_to_get_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is done."""

    def missing(name: str) -> None:
        raise ProfilerUnavailableError(f"no {name}")

    monkeypatch.setattr(memory, "module_or_fail", missing)
    with pytest.raises(ProfilerUnavailableError, match="no memray"):
        stage.record()
    assert stage.threads == []
