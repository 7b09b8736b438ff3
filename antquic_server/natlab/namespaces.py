"""
Network namespaces by name: made, entered, listed and removed, and never anybody else's.

A name tells which run owns the namespace, so that a later run can tell leftovers from neighbours::

    antlab-<pid>-<start of the process in clock ticks>-<number>-<role>

The start time is there because process ids are used again. Whatever does not have this form, or belongs to
another run that is alive, is refused before any program is started.
"""

import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from antquic_server.errors import AntQuicError, CannotBootError

__all__ = [
    "LabError",
    "LabUnavailableError",
    "NamespaceName",
    "Tools",
    "find_tools",
    "in_namespace",
    "leftovers",
    "new_run_number",
    "own_run",
    "remove",
    "remove_leftovers",
    "run_tool",
    "write_sysctls",
]

NAMESPACES = Path("/run/netns")
PREFIX = "antlab"
_NAME = re.compile(rf"{PREFIX}-([1-9][0-9]{{0,9}})-([0-9]{{1,20}})-([0-9]{{1,9}})-([A-Za-z][A-Za-z0-9]{{0,15}})")

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_CLONE_NEWNET = 0x40000000
_TOOL_TIMEOUT_S = 30.0
_START_TIME_FIELD = 19  # of /proc/PID/stat, counted after the name in parentheses, which may hold anything

_T = TypeVar("_T")
_run_numbers = itertools.count(1)


class LabError(AntQuicError):
    """The NAT lab cannot do what it was asked."""


class LabUnavailableError(CannotBootError):
    """The NAT lab lacks a right, a program or a kernel feature; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Paths of the programs a lab calls."""

    ip: str
    nft: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class NamespaceName:
    """A name in parts; ``str()`` is what ``ip netns`` calls it."""

    pid: int
    started_ticks: int
    number: int
    role: str
    text: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Compose the name."""
        text = f"{PREFIX}-{self.pid}-{self.started_ticks}-{self.number}-{self.role}"
        object.__setattr__(self, "text", text)

    def __str__(self) -> str:
        """Return the name as one word."""
        return self.text

    @classmethod
    def parse(cls, text: str) -> "NamespaceName | None":
        """Split a name into its parts; None if it was not made by a lab."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        return cls(pid=int(match[1]), started_ticks=int(match[2]), number=int(match[3]), role=match[4])

    @property
    def is_own(self) -> bool:
        """Whether this process made it."""
        return (self.pid, self.started_ticks) == own_run()

    @property
    def is_orphan(self) -> bool:
        """Whether the process that made it is gone."""
        return _started_ticks(self.pid) != self.started_ticks


def find_tools() -> Tools:
    """
    Check rights and programs.

    Raises:
        LabUnavailableError: Something is missing.
    """
    missing = [name for name in ("ip", "nft") if _find_program(name) is None]
    if missing:
        packages = {"ip": "iproute2", "nft": "nftables"}
        names = " and ".join(f"{name} (package {packages[name]})" for name in missing)
        raise LabUnavailableError(f"the NAT lab needs the program {names}")
    if not _may_make_namespaces():
        raise LabUnavailableError(
            "the NAT lab needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN, to make network namespaces"
        )
    return Tools(ip=_find_program("ip") or "", nft=_find_program("nft") or "")


def own_run() -> tuple[int, int]:
    """Process id and start time that mark the namespaces of this process."""
    pid = os.getpid()
    return pid, _started_ticks(pid) or 0


def new_run_number() -> int:
    """Return a number no other lab of this process has."""
    return next(_run_numbers)


def run_tool(command: Sequence[str], *, stdin: str = "") -> str:
    """
    Run one of the programs and return what it printed.

    Raises:
        LabError: It failed; the text has its first complaint.
    """
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=_TOOL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{command[0]} failed: {error}") from error
    if done.returncode != 0:
        complaint = next((line.strip() for line in done.stderr.splitlines() if line.strip()), "no message")
        raise LabError(f"{' '.join(command)} failed: {complaint}")
    return done.stdout


def in_namespace(name: NamespaceName, action: Callable[[], _T]) -> _T:
    """
    Call ``action`` inside a namespace and return its result; sockets it makes stay in that namespace.

    A namespace belongs to a thread: the call happens in a thread of its own, and nothing has to be undone.

    Raises:
        LabError: There is no such namespace, or it is not this process's.
    """
    _refuse_foreign(name)
    results: list[_T] = []
    failures: list[BaseException] = []

    def enter_and_act() -> None:
        try:
            _enter(name)
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            failures.append(error)

    thread = threading.Thread(target=enter_and_act, name=f"in {name}", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def write_sysctls(name: NamespaceName, settings: Mapping[str, int]) -> None:
    """Write settings below ``/proc/sys/net`` inside a namespace; one that this kernel does not have is left out."""

    def write() -> None:
        # The kernel resolves this directory in the namespace of the thread that opens it.
        for key, value in settings.items():
            path = Path("/proc/sys/net") / key
            if path.exists():
                path.write_text(str(value))

    in_namespace(name, write)


def remove(names: Sequence[NamespaceName], tools: Tools) -> None:
    """
    Remove namespaces of this process, or of processes that are gone; those already removed are passed over.

    Raises:
        LabError: One belongs to a run that is alive; nothing is removed then.
    """
    for name in names:
        if not name.is_own and not name.is_orphan:
            raise LabError(f"{name} belongs to process {name.pid}, which is alive")
    present = [name for name in names if (NAMESPACES / str(name)).exists()]
    if present:
        run_tool([tools.ip, "-force", "-batch", "-"], stdin="".join(f"netns del {name}\n" for name in present))


def leftovers() -> list[NamespaceName]:
    """Namespaces of labs whose process is gone."""
    try:
        entries = sorted(path.name for path in NAMESPACES.iterdir())
    except FileNotFoundError:
        return []
    parsed = [NamespaceName.parse(entry) for entry in entries]
    return [name for name in parsed if name is not None and name.is_orphan]


def remove_leftovers(tools: Tools) -> list[NamespaceName]:
    """Kill what still runs in the namespaces of dead labs, remove them, and return their names."""
    names = leftovers()
    for name in names:
        for pid in run_tool([tools.ip, "netns", "pids", str(name)]).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    remove(names, tools)
    return names


def _refuse_foreign(name: NamespaceName) -> None:
    if not name.is_own:
        raise LabError(f"{name} is not a namespace of this process")


def _enter(name: NamespaceName) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = os.open(NAMESPACES / str(name), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LabError(f"no namespace {name}: {error.strerror}") from error
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise LabError(f"cannot enter {name}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def _find_program(name: str) -> str | None:
    # Administrators' programs are often missing from a user's PATH.
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def _may_make_namespaces() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "CapEff":
            effective = int(value, 16)
            return all(effective >> capability & 1 for capability in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN))
    return False


def _started_ticks(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot, None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[_START_TIME_FIELD])
