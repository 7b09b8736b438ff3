"""
Flame graphs of the servers that a benchmark starts: py-spy samples each as long as it runs (``bench --profile DIR``).

Whatever starts a server asks :func:`profiled` whether somebody wants that; a context variable says so.
"""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import Final

from antquic_server.errors import BenchmarkError

__all__ = ["Profiler", "find_py_spy", "profiled", "profiling"]

RATE_HZ: Final = 100
"""Samples per second; costs the server a few per cent."""

_STOP_TIMEOUT_S: Final = 30.0


def find_py_spy() -> str | None:
    """Return the path of py-spy: on PATH or beside this interpreter, None if there is none."""
    return shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))


class Profiler:
    """Writes ``BENCHMARK-NUMBER-SERVER.svg`` into a directory, which is made if it is missing."""

    def __init__(self, directory: Path) -> None:
        program = find_py_spy()
        if program is None:
            raise BenchmarkError("bench --profile needs py-spy: pip install py-spy")
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchmarkError(f"bench --profile {directory}: {error.strerror}") from error
        self.benchmark = "bench"
        """Name of what is running, the first word of file names."""
        self.written: list[Path] = []
        self.failures: list[str] = []
        """Why there is no flame graph of a server, one line each."""
        self._program = program
        self._directory = directory
        self._numbers = count(1)

    @contextmanager
    def attached(self, pid: int, server: str) -> Iterator[None]:
        """Sample a process until the block ends."""
        path = self._directory / f"{self.benchmark}-{next(self._numbers)}-{re.sub(r'[^a-z0-9]+', '-', server)}.svg"
        command = [self._program, "record", "--pid", str(pid), "--output", str(path), "--rate", str(RATE_HZ)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            yield
        finally:
            # As Ctrl-C does: it stops sampling and writes.
            process.send_signal(signal.SIGINT)
            try:
                _, said = process.communicate(timeout=_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                _, said = process.communicate()
            if path.is_file() and path.stat().st_size:
                self.written.append(path)
            else:
                self.failures.append(
                    f"no flame graph of {server} (pid {pid}): {_reason(said.decode(errors='replace'))}"
                )


_PROFILER: ContextVar[Profiler | None] = ContextVar("bench_profiler", default=None)


@contextmanager
def profiling(profiler: Profiler | None) -> Iterator[None]:
    """Have every server that is started inside profiled, if there is a profiler."""
    token = _PROFILER.set(profiler)
    try:
        yield
    finally:
        _PROFILER.reset(token)


@contextmanager
def profiled(pid: int, server: str) -> Iterator[None]:
    """Surround the life of a server: profile it if somebody wants that."""
    profiler = _PROFILER.get()
    if profiler is None:
        yield
    else:
        with profiler.attached(pid, server):
            yield


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if "rror" in line or "ermission" in line]
    return lines[0] if lines else "py-spy wrote nothing"
