"""
Gets a piece of Python executed in a running process, with gdb and the library that memray brings for that.

The process stands still while gdb looks for its symbols: about a quarter of a second here. A supervisor takes a worker
that is silent for ``endpoint.heartbeat_timeout_s`` for dead. So

- gdb reads no debug information, which takes two thirds of the time;
- it goes before everything else on the machine, where that may be arranged, as it may for root;
- it rehearses on a process of ours, which also brings what it reads into memory: if that stands still for longer than
  REHEARSAL_LIMIT_S, the worker is left alone.

Once gdb has hold of a process it is not ended before it lets go: it is in the middle of a call in that process.
"""

import importlib.resources
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from antquic_server.errors import ProfileError, ProfilerUnavailableError
from antquic_server.profiling.target import is_stopped, program_or_fail

__all__ = ["GDB_HINT", "inject"]

REHEARSAL_LIMIT_S: Final = 0.6
"""Less than half of the time after which a silent worker is replaced, by default."""

ATTACH_TIMEOUT_S: Final = 60.0
"""A busy process is met by the breakpoints at once, an idle one at its next heartbeat. Longer than this gdb hangs."""

LET_GO_S: Final = 5.0
POLL_S: Final = 0.002
REAL_TIME_PRIORITY: Final = 1
NICENESS: Final = -10

_STAND_IN: Final = "import time\nprint(flush=True)\nwhile True: time.sleep(0.01)"
"""Says when it is up: a process that is only being loaded cannot be attached to."""

GDB_HINT: Final = "apt-get install gdb, or dnf install gdb"

_RTLD_NOW: Final = 2


def inject(pid: int, code: str, listener: socket.socket) -> float:
    """
    Have ``code`` executed in process ``pid``; returns for how many seconds the process stood still.

    ``listener`` listens on 127.0.0.1; the process fetches the code there. It runs on a thread of its own.

    Raises:
        ProfilerUnavailableError: gdb is missing, or may not look into the process.
        ProfileError: The process cannot be attached to, or would have stood still for too long.
    """
    gdb = program_or_fail("gdb", GDB_HINT)
    rehearsed_s = _rehearse(gdb)
    if rehearsed_s > REHEARSAL_LIMIT_S:
        detail = f"this machine is too busy: it would stand still for {rehearsed_s:.1f} s; try later"
        raise ProfileError(pid, detail)
    return _attach(gdb, pid, code, listener)


def _rehearse(gdb: str) -> float:
    """Do it to a process of ours that does nothing; returns for how long that stood still."""
    command = [sys.executable, "-c", _STAND_IN]
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as stand_in,
    ):
        try:
            if stand_in.stdout is not None:
                stand_in.stdout.readline()
            return _attach(gdb, stand_in.pid, "", listener)
        finally:
            stand_in.kill()


def _attach(gdb: str, pid: int, code: str, listener: socket.socket) -> float:
    process = subprocess.Popen(
        _command(gdb, pid, listener.getsockname()[1]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C is for us, who end it in order.
        process_group=0,
    )
    _hurry(process.pid)
    try:
        standstill_s = _watch(process, pid)
        said = process.communicate()[0]
    finally:
        _let_go(process)
    if process.returncode != 0 or ' "SUCCESS"' not in said:
        raise _explain(pid, said)
    _hand_over(listener, code)
    return standstill_s


def _hurry(pid: int) -> None:
    """Have a process go before all others, as far as we may."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
    with suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(REAL_TIME_PRIORITY))


def _command(gdb: str, pid: int, port: int) -> Sequence[str]:
    script = importlib.resources.files("memray") / "commands" / "_attach.gdb"
    library = next((Path(str(importlib.resources.files("memray")))).glob("_inject.*.so"), None)
    if library is None:
        raise ProfilerUnavailableError("this memray has no library to attach with: pip install 'memray<1.21'")
    early = [
        "set debug-file-directory /nonexistent",
        "set auto-solib-add off",
        "set auto-load off",
        f"file /proc/{pid}/exe",
    ]
    late = [f"set $rtld_now={_RTLD_NOW}", f'set $libpath="{library}"', f"set $port={port}"]
    return [
        *(gdb, "-batch", "-nx", "-nw", "-readnever"),
        *(item for command in early for item in ("-iex", command)),
        *("-p", str(pid)),
        *(item for command in late for item in ("-ex", command)),
        *("-x", str(script)),
    ]


def _watch(process: subprocess.Popen[str], pid: int) -> float:
    """Wait for gdb; returns how long the process stood still at a stretch, at most."""
    longest_s = 0.0
    since_s: float | None = None
    deadline_s = time.monotonic() + ATTACH_TIMEOUT_S
    while process.poll() is None and (now_s := time.monotonic()) < deadline_s:
        if not is_stopped(pid):
            since_s = None
        elif since_s is None:
            since_s = now_s
        else:
            longest_s = max(longest_s, now_s - since_s)
        time.sleep(POLL_S)
    if process.poll() is None:
        raise ProfileError(pid, f"gdb did not get hold of it within {ATTACH_TIMEOUT_S:.0f} s")
    return longest_s


def _let_go(process: subprocess.Popen[str]) -> None:
    """End gdb if it is still there, after it has had time to come to an end by itself."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(LET_GO_S)
    if process.poll() is None:
        # It removes its breakpoints and detaches.
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(LET_GO_S)
        process.kill()
        process.wait()
    if process.stdout is not None and not process.stdout.closed:
        process.stdout.close()


def _explain(pid: int, said: str) -> Exception:
    if "No such process" in said:
        return ProfileError(pid, "there is no such process any more")
    if "ptrace: " in said or "Operation not permitted" in said:
        return ProfilerUnavailableError(
            f"this process may not look into process {pid}: run it as root; in a container, with CAP_SYS_PTRACE"
        )
    if "cannot open shared object" in said:
        detail = "it cannot read the memray of this installation: is it in a container, or another user's?"
        return ProfileError(pid, detail)
    lines = [line for line in said.splitlines() if line.strip()]
    return ProfileError(pid, f"gdb could not attach: {lines[-1] if lines else 'it said nothing'}")


def _hand_over(listener: socket.socket, code: str) -> None:
    """Give the code to the process, which has connected while gdb held it."""
    listener.settimeout(10.0)
    with listener.accept()[0] as connection:
        connection.sendall(code.encode())
        connection.shutdown(socket.SHUT_WR)
