"""CPU time of processes, one's own and others'."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from antquic_server.bench.cpu_time import process_cpu_s


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is busy until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


def test_own_time_is_what_the_process_clock_says() -> None:
    """User and system time of all threads, to the nanosecond."""
    before_s = time.process_time()
    found_s = process_cpu_s(os.getpid())

    assert before_s <= found_s <= time.process_time()


def test_time_of_another_process_grows_while_it_works(child: subprocess.Popen[bytes]) -> None:
    """No right is needed, and there is no waiting for a tick of /proc."""
    before_s = process_cpu_s(child.pid)
    deadline_s = time.monotonic() + 20

    while (after_s := process_cpu_s(child.pid)) <= before_s + 0.005:
        assert time.monotonic() < deadline_s
    assert after_s > before_s


def test_kernel_without_such_clocks_is_asked_by_other_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """What psutil knows is coarser, but it is there."""

    def refuse(_clock: int) -> float:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("time.clock_gettime", refuse)

    assert process_cpu_s(os.getpid()) > 0


def test_process_that_is_gone_is_an_error() -> None:
    """A relay that has died in the middle must not look cheap."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    with pytest.raises(psutil.NoSuchProcess):
        process_cpu_s(process.pid)
