"""Getting Python into a process: into one of the test's own, and what gdb's complaints mean."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from antquic_server.errors import AntQuicError, ProfileError, ProfilerUnavailableError
from antquic_server.profiling import attach
from antquic_server.profiling.attach import inject
from antquic_server.profiling.target import is_stopped
from support.require import require

pytest.importorskip("memray")


@pytest.fixture
def gdb(root: None) -> None:
    """The debugger, and the right to use it."""
    require(any((Path(place) / "gdb").exists() for place in os.get_exec_path()), "gdb is missing: apt-get install gdb")


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    """A Python program that says a line for each line it is told."""
    code = "import sys\nfor line in sys.stdin: print('heard', line, end='', flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdin is not None
        assert it.stdout is not None
        it.stdin.write("it is up\n")
        it.stdin.flush()
        assert it.stdout.readline() == "heard it is up\n"
        yield it
        it.kill()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Where the code is fetched."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_code_runs_in_the_process_which_goes_on(
    gdb: None, program: subprocess.Popen[str], listener: socket.socket, tmp_path: Path
) -> None:
    """Twice, as for two profiles one after the other."""
    assert program.stdin is not None
    assert program.stdout is not None
    for name in ("first", "second"):
        path = tmp_path / name
        # The process is met by the breakpoints only when it does something.
        feeder = subprocess.Popen(
            [sys.executable, "-c", "import time\nwhile True: print('tick', flush=True); time.sleep(0.02)"],
            stdout=program.stdin,
        )
        try:
            code = f"import os; open({str(path)!r}, 'w').write(str(os.getpid()))"
            standstill_s = inject(program.pid, code, listener)
            assert 0 < standstill_s < 30
            assert not is_stopped(program.pid)
            # Nor does it come to the code before it does something again.
            while not path.exists() or not path.read_text():
                assert program.stdout.readline() == "heard tick\n"
        finally:
            feeder.kill()
            feeder.wait()
        assert path.read_text() == str(program.pid)


def test_process_that_has_ended_is_told(gdb: None, listener: socket.socket) -> None:
    """In one line."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProfileError, match=r"there is no such process any more|gdb could not attach") as caught:
        inject(process.pid, "", listener)
    assert "\n" not in str(caught.value)


def test_busy_machine_leaves_the_worker_alone(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rehearsal takes too long for is not done to the worker."""
    touched: list[int] = []
    monkeypatch.setattr(attach, "program_or_fail", lambda *_: "gdb")

    def pretend(_gdb: str, pid: int, _code: str, _listener: socket.socket) -> float:
        touched.append(pid)
        return attach.REHEARSAL_LIMIT_S + 0.1

    monkeypatch.setattr(attach, "_attach", pretend)
    with pytest.raises(ProfileError, match=r"too busy: it would stand still for 0\.7 s"):
        inject(os.getpid(), "", listener)
    assert len(touched) == 1
    assert os.getpid() not in touched


def test_missing_gdb_says_how_to_get_it(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Debian and on Fedora."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ProfilerUnavailableError, match="gdb is missing: apt-get install gdb, or dnf install gdb"):
        inject(os.getpid(), "", listener)


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ("ptrace: Operation not permitted.", ProfilerUnavailableError, "CAP_SYS_PTRACE"),
        ("ptrace: No such process.", ProfileError, "no such process any more"),
        ('$1 = "cannot open shared object file"', ProfileError, "cannot read the memray"),
        ("nonsense\n\n", ProfileError, "gdb could not attach: nonsense"),
        ("", ProfileError, "gdb could not attach: it said nothing"),
    ],
)
def test_complaints_are_explained(
    said: str, kind: type[AntQuicError], told: str, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with what it means."""
    monkeypatch.setattr(attach, "_rehearse", lambda _: 0.0)
    monkeypatch.setattr(attach, "_command", lambda *_: [sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"])
    monkeypatch.setattr(attach, "program_or_fail", lambda *_: "gdb")
    with pytest.raises(kind, match=told):
        inject(os.getpid(), "", listener)


def test_debugger_that_hangs_is_ended(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it has had its time."""
    monkeypatch.setattr(attach, "_rehearse", lambda _: 0.0)
    monkeypatch.setattr(attach, "_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(attach, "program_or_fail", lambda *_: "gdb")
    monkeypatch.setattr(attach, "ATTACH_TIMEOUT_S", 0.5)
    monkeypatch.setattr(attach, "LET_GO_S", 0.5)
    with pytest.raises(ProfileError, match="gdb did not get hold of it"):
        inject(os.getpid(), "", listener)
