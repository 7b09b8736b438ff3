"""Tests of ``workers.orphan``: processes whose supervisor dies before they know anything of it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from antquic_server.errors import ExitCode
from support.load import is_alive
from support.waiting import wait_until
from workers.orphan import CHANNEL_VARIABLE, die_with_supervisor

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 20.0

SUPERVISOR = """\
import os, socket, subprocess, sys
ours, theirs = socket.socketpair()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
environment = {**os.environ, "ANTQUIC_CHANNEL_FD": str(theirs.fileno())}
worker = subprocess.Popen(
    [sys.executable, "-P", "-m", "workers"], env=environment, pass_fds=[theirs.fileno(), udp.fileno()]
)
print(worker.pid, udp.getsockname()[1], flush=True)
sys.stdin.read()
"""

SLOW_MODULE = """\
import pathlib, signal
pathlib.Path(__file__).with_name("loading").touch()
while True:
    signal.pause()
"""


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the tests asks the kernel for nothing."""
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(prctl=lambda *arguments: 0))


def environment_with(*directories: Path) -> dict[str, str]:
    """Return this environment with directories of modules in front of all others."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*directories, ROOT)))}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_worker_that_is_still_loading_dies_with_its_supervisor(tmp_path: Path) -> None:
    """It never comes to look at its channel, and yet the port of the supervisor is free."""
    (tmp_path / "uvloop.py").write_text(SLOW_MODULE)
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR],
        env=environment_with(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    worker_pid, port = map(int, supervisor.stdout.readline().split())
    try:
        wait_until((tmp_path / "loading").exists, timeout_s=TIMEOUT_S, what="worker that loads its modules")

        supervisor.kill()
        supervisor.wait(TIMEOUT_S)

        wait_until(lambda: not is_alive(worker_pid), timeout_s=TIMEOUT_S, what="end of the worker")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as successor:
            successor.bind(("127.0.0.1", port))
    finally:
        supervisor.kill()
        supervisor.wait(TIMEOUT_S)
        supervisor.stdin.close()
        supervisor.stdout.close()
        if is_alive(worker_pid):
            os.kill(worker_pid, signal.SIGKILL)


def test_worker_whose_supervisor_is_gone_loads_nothing(tmp_path: Path) -> None:
    """The kernel cannot tell it any more, the end of its channel does; it leaves before the expensive part."""
    (tmp_path / "uvloop.py").write_text(SLOW_MODULE)
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "workers"],
            env={**environment_with(tmp_path), CHANNEL_VARIABLE: str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    assert ended.returncode == ExitCode.FAILURE
    assert ended.stderr == b""
    assert not (tmp_path / "loading").exists()


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize("value", [None, "", "x", "-1", "999999"])
def test_descriptor_that_is_no_channel_is_not_the_end(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """Who was started by hand is told so elsewhere."""
    monkeypatch.delenv(CHANNEL_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(CHANNEL_VARIABLE, value)

    assert die_with_supervisor()


@pytest.mark.usefixtures("no_kernel")
def test_channel_is_looked_at_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alive while it is open, with or without something to read; nothing is taken from it, and it stays open."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setenv(CHANNEL_VARIABLE, str(theirs.fileno()))
        assert die_with_supervisor()
        ours.send(b"Assign")
        assert die_with_supervisor()
        assert theirs.recv(100) == b"Assign"
        ours.close()
        assert not die_with_supervisor()
        assert theirs.recv(100) == b""
