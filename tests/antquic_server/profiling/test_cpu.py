"""
CPU profiles: what py-spy is asked for, and what its complaints mean.

Real workers are profiled in tests/end_to_end/test_profile.py.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from antquic_server.errors import AntQuicError, ProfileError, ProfilerUnavailableError
from antquic_server.profiling import cpu
from antquic_server.profiling.cpu import CpuProfile, ProfileFormat, record_cpu

SVG = (
    '<text id="title" x="5">py-spy record</text>'
    '<title>all (2 samples, 100%)</title><rect y="52" fg:x="0" fg:w="2"/>'
    '<title>main (a.py:1) (2 samples, 100%)</title><rect y="68" fg:x="0" fg:w="2"/>'
)


class PretendedPySpy:
    """A program in place of py-spy, which writes ``text``, says ``words`` and ends with ``code``."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.output = directory / "profile.svg"
        self.program = directory / "py-spy"
        monkeypatch.setattr(cpu, "program_or_fail", lambda *_: str(self.program))

    def behave(self, *, text: str = SVG, words: str = "", code: int = 0, wait: bool = False) -> None:
        """Set what it does."""
        self.program.write_text(
            f"#!{sys.executable}\nimport sys, time\nfrom pathlib import Path\n"
            f"Path({str(self.directory / 'arguments')!r}).write_text(chr(10).join(sys.argv[1:]))\n"
            f"Path(sys.argv[sys.argv.index('--output') + 1]).write_text({text!r})\n"
            f"print({words!r}, file=sys.stderr)\n"
            f"time.sleep({60 if wait else 0})\nsys.exit({code})\n"
        )
        self.program.chmod(0o755)

    def record(self, **facts: object) -> object:
        """Record a profile of this process."""
        values: dict[str, object] = {"pid": os.getpid(), "seconds": 3, "rate": 50, "output": self.output, **facts}
        return record_cpu(CpuProfile(**values), lambda _: None)  # type: ignore[arg-type]

    @property
    def arguments(self) -> list[str]:
        """What it was called with."""
        return (self.directory / "arguments").read_text().splitlines()


@pytest.fixture
def py_spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedPySpy]:
    """The program, and afterwards nothing of a profile that was not finished."""
    pretended = PretendedPySpy(tmp_path, monkeypatch)
    yield pretended
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))


def test_profile_is_written_and_read(py_spy: PretendedPySpy) -> None:
    """The worker is not held; the picture says what it is of."""
    py_spy.behave()
    assert py_spy.record() == [(["main (a.py:1)"], 2.0)]
    assert f">antquic-server worker {os.getpid()}: 3 s at 50 Hz</text>" in py_spy.output.read_text()
    assert "--nonblocking" in py_spy.arguments
    assert py_spy.arguments[:8] == ["record", "--pid", str(os.getpid()), "--duration", "3", "--rate", "50", "--format"]


def test_exact_and_native_samples_hold_the_worker(py_spy: PretendedPySpy) -> None:
    """As asked for."""
    py_spy.behave(text="main (a.py:1);f (a.py:2) 7\n")
    stacks = py_spy.record(exact=True, native=True, format=ProfileFormat.RAW)
    assert stacks == [(["main (a.py:1)", "f (a.py:2)"], 7.0)]
    assert "--nonblocking" not in py_spy.arguments
    assert "--native" in py_spy.arguments


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        ("Error: Permission Denied: Try running again with sudo", ProfilerUnavailableError, "with CAP_SYS_PTRACE"),
        ("Error: No such file or directory (os error 2)", ProfileError, "no such process any more"),
        ("Error: No stack counts found", ProfileError, "did nothing all the time"),
        ("something else\n\n", ProfileError, "py-spy failed: something else"),
        ("", ProfileError, "py-spy failed: it said nothing"),
    ],
)
def test_complaints_are_explained(py_spy: PretendedPySpy, words: str, kind: type[AntQuicError], told: str) -> None:
    """In one line, and a file that was there stays what it was."""
    py_spy.output.write_text("before")
    py_spy.behave(words=words, code=1)
    with pytest.raises(kind, match=told) as caught:
        py_spy.record()
    assert "\n" not in str(caught.value)
    assert py_spy.output.read_text() == "before"


def test_program_that_hangs_is_ended(py_spy: PretendedPySpy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the signal at which py-spy lets go."""
    monkeypatch.setattr(cpu, "GRACE_S", 0.5)
    py_spy.behave(wait=True)
    with pytest.raises(ProfileError, match="did not come to an end"):
        py_spy.record(seconds=1)


def test_interruption_ends_the_program(py_spy: PretendedPySpy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the waiting."""
    started: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
        started.append(real(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    def waiting(passed_s: float) -> None:
        if passed_s > 0.3:
            raise KeyboardInterrupt

    py_spy.behave(wait=True)
    monkeypatch.setattr(subprocess, "Popen", start)
    profile = CpuProfile(pid=os.getpid(), seconds=60, rate=5, output=py_spy.output)
    with pytest.raises(KeyboardInterrupt):
        record_cpu(profile, waiting)
    assert started[0].returncode in (-signal.SIGINT, -signal.SIGKILL, 1, 130)
    assert not py_spy.output.exists()
