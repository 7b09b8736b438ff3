"""The process to be profiled: that it is there, that it may be looked at, and whether it stands still meanwhile."""

import importlib.util
import os
import pwd
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from antquic_server.errors import ConfigurationError, ProfileError, ProfilerUnavailableError

__all__ = ["PTRACE_SCOPE", "check_rights", "check_target", "is_stopped", "module_or_fail", "program_or_fail"]

PTRACE_SCOPE: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
"""1 and more: a process may be looked at by its parents and by root only."""

INSTALL_HINT: Final = "pip install 'antquic-server[profile]'"


def check_target(pid: int) -> None:
    """
    Make sure that a process exists and is one of Python.

    Raises:
        ProfileError: There is no such process.
        ConfigurationError: It is another program.
    """
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        maps = Path(f"/proc/{pid}/maps")
        loaded = maps.read_text(errors="replace") if os.access(maps, os.R_OK) else ""
    except FileNotFoundError:
        raise ProfileError(pid, "there is no such process") from None
    except (PermissionError, ProcessLookupError):
        loaded = ""
        command = [b"python"]
    if b"python" not in Path(os.fsdecode(command[0])).name.encode() and "python" not in loaded:
        raise ConfigurationError("command line", "--pid", pid, "the process id of a worker")


def check_rights(pid: int) -> None:
    """
    Make sure that this process may look into another, as far as can be told beforehand.

    Raises:
        ProfilerUnavailableError: It may not; says what to do.
    """
    if os.geteuid() == 0:
        return
    try:
        owner = Path(f"/proc/{pid}").stat().st_uid
    except FileNotFoundError:
        raise ProfileError(pid, "there is no such process") from None
    if owner != os.geteuid():
        raise ProfilerUnavailableError(f"process {pid} belongs to {_user(owner)}: run this as root")
    scope = "0"
    with suppress(FileNotFoundError):
        scope = PTRACE_SCOPE.read_text().strip()
    if scope != "0":
        detail = f"the kernel lets only root look into other processes (kernel.yama.ptrace_scope is {scope})"
        raise ProfilerUnavailableError(f"{detail}: run this as root")


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def program_or_fail(name: str, how: str) -> str:
    """
    Return the path of a program, first of this interpreter's own environment.

    Raises:
        ProfilerUnavailableError: There is none; ``how`` says how to get it.
    """
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    found = shutil.which(name, path=places)
    if found is None:
        raise ProfilerUnavailableError(f"the program {name} is missing: {how}")
    return found


def module_or_fail(name: str) -> None:
    """
    Make sure that a Python package is installed.

    Raises:
        ProfilerUnavailableError: It is not; says how to get it.
    """
    if importlib.util.find_spec(name) is None:
        raise ProfilerUnavailableError(f"the package {name} is missing: {INSTALL_HINT}")


def is_stopped(pid: int) -> bool:
    """Whether a process stands still because somebody traces it, or has stopped it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state in ("t", "T")
