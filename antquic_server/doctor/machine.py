"""
The machine as the checks see it: the only way by which they reach files, programs, the kernel and the interpreter.

What cannot be read is a ``CannotTellError`` with the reason, never another exception, whatever the machine is like.
Tests derive from it and plant faults.
"""

import asyncio
import importlib
import os
import resource
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import psutil

from antquic_server.doctor import socket_probes
from antquic_server.doctor.kernel_clock import KernelClock, read_kernel_clock
from antquic_server.doctor.pqc_probe import PqcFacts, probe_pqc
from antquic_server.errors import CannotTellError

__all__ = ["MAX_FILE_BYTES", "FileFacts", "Interpreter", "Machine"]

MAX_FILE_BYTES: Final = 16 << 20
"""``/proc/net/udp`` has 128 bytes a socket: this is 131,072 of them."""

READ_BYTES: Final = 1 << 16

_COMMAND_TIMEOUT_S: Final = 10.0
_COMMAND_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where nft, sysctl and the like are, which an unprivileged user's PATH often leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Permission bits, owner, and last change in Unix seconds."""

    mode: int
    uid: int
    changed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """How this interpreter was built and started."""

    version: str
    debug_build: bool
    dev_mode: bool
    optimize: int
    """Number of ``-O``; assertions are off from 1 on."""
    asyncio_debug: bool
    tracing_memory: bool
    uvloop: str | None
    """Version of uvloop, None where it cannot be imported."""


class Machine:
    """This machine; ``root`` is where its file tree begins, ``environment`` its variables."""

    def __init__(self, *, root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.environment: Mapping[str, str] = os.environ if environment is None else environment
        self.platform: str = sys.platform
        self.uid: int = os.geteuid()

    @property
    def is_root(self) -> bool:
        """Whether this process may do everything."""
        return self.uid == 0

    # Files.

    def read(self, path: str) -> str:
        """Return a file's text; CannotTellError if it cannot be read."""
        try:
            with self._at(path).open("rb", buffering=0) as file:
                # Bit by bit: some files of /proc make a buffer of the size asked for.
                pieces = iter(lambda: file.read(READ_BYTES), b"")
                data = b"".join(islice(pieces, MAX_FILE_BYTES // READ_BYTES))
        except OSError as error:
            raise CannotTellError(path, _reason(error)) from None
        return data.decode("utf-8", "replace")

    def number(self, path: str) -> int:
        """Return the integer a file holds; CannotTellError if it holds none."""
        text = self.read(path).strip()
        try:
            return int(text)
        except ValueError:
            raise CannotTellError(path, f"expected a number, found {text[:40]!r}") from None

    def sysctl(self, name: str) -> int:
        """Return a kernel setting that is one number, by its name with dots."""
        return self.number(f"/proc/sys/{name.replace('.', '/')}")

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""
        try:
            return sorted(entry.name for entry in self._at(path).iterdir())
        except OSError as error:
            raise CannotTellError(path, _reason(error)) from None

    def facts_of(self, path: str) -> FileFacts | None:
        """Return what is known of a file, None if there is none."""
        try:
            facts = self._at(path).stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CannotTellError(path, _reason(error)) from None
        return FileFacts(mode=facts.st_mode & 0o7777, uid=facts.st_uid, changed_s=facts.st_mtime)

    def exists(self, path: str) -> bool:
        """Whether a file is there; also True where that is not to be seen."""
        try:
            return self._at(path).exists()
        except OSError:
            return True

    def _at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    # Programs.

    def run(self, *command: str) -> str:
        """Run a program and return what it prints; CannotTellError if it is missing, fails or takes ten seconds."""
        path = os.pathsep.join(filter(None, [self.environment.get("PATH", os.defpath), _COMMAND_PATH]))
        program = shutil.which(command[0], path=path)
        if program is None:
            raise CannotTellError(command[0], "not installed")
        environment = {**self.environment, "PATH": path, "LC_ALL": "C"}
        try:
            done = subprocess.run(
                [program, *command[1:]],
                capture_output=True,
                timeout=_COMMAND_TIMEOUT_S,
                env=environment,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise CannotTellError(command[0], f"no answer within {_COMMAND_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise CannotTellError(command[0], _reason(error)) from None
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise CannotTellError(command[0], lines[0][:200] if lines else f"exit status {done.returncode}")
        return done.stdout.decode("utf-8", "replace")

    # Processors, memory, limits.

    def affinity(self, pid: int | None = None) -> tuple[int, ...]:
        """Return the numbers of the CPUs a process may use, this one if None; CannotTellError if it does not say."""
        if not hasattr(os, "sched_getaffinity"):
            return tuple(range(self.cpu_count()))
        try:
            return tuple(sorted(os.sched_getaffinity(pid or 0)))
        except OSError as error:
            raise CannotTellError(f"the CPUs of process {pid}", _reason(error)) from None

    def cpu_count(self) -> int:
        """Return how many CPUs the machine has."""
        return os.cpu_count() or 1

    def memory_bytes(self) -> int:
        """Return the machine's memory."""
        return int(psutil.virtual_memory().total)

    def descriptor_limits(self) -> tuple[int, int]:
        """Return how many descriptors a process may have: now, and after raising that by itself."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    # The interpreter and its libraries.

    def interpreter(self) -> Interpreter:
        """Return how this interpreter was started."""
        loop = asyncio.new_event_loop()
        try:
            asyncio_debug = loop.get_debug()
        finally:
            loop.close()
        return Interpreter(
            version=sys.version.split()[0],
            debug_build=hasattr(sys, "gettotalrefcount"),
            dev_mode=sys.flags.dev_mode,
            optimize=sys.flags.optimize,
            asyncio_debug=asyncio_debug,
            tracing_memory=tracemalloc.is_tracing(),
            uvloop=_uvloop_version(),
        )

    def pqc(self) -> PqcFacts:
        """Load the post-quantum providers and compare their speed."""
        return probe_pqc()

    # Time.

    def now_s(self) -> float:
        """Return the wall clock, Unix seconds."""
        return time.time()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def kernel_clock(self) -> KernelClock:
        """Return what the kernel thinks of its clock."""
        return read_kernel_clock()

    # Sockets.

    def granted_buffer(self, *, receive: bool, wanted_bytes: int, forced: bool) -> int:
        """See ``socket_probes.granted_buffer``."""
        return socket_probes.granted_buffer(receive=receive, wanted_bytes=wanted_bytes, forced=forced)

    def passes_trains(self) -> tuple[bool, bool]:
        """See ``socket_probes.passes_trains``."""
        return socket_probes.passes_trains()

    def steering(self) -> tuple[bool, int]:
        """See ``socket_probes.steering``."""
        return socket_probes.steering()

    def bind_error(self, address: str) -> int:
        """See ``socket_probes.bind_error``."""
        return socket_probes.bind_error(address)

    def tcp_bind_error(self, host: str, port: int) -> int:
        """See ``socket_probes.tcp_bind_error``."""
        return socket_probes.tcp_bind_error(host, port)

    def udp_ports(self) -> dict[int, int | None]:
        """
        Return every UDP port in use, with the process that has it where that can be seen (others' need root).

        Raises:
            CannotTellError: The system does not say.
        """
        try:
            found = psutil.net_connections(kind="udp")
        except (psutil.Error, OSError, RuntimeError) as error:
            raise CannotTellError("UDP sockets", str(error) or type(error).__name__) from None
        ports: dict[int, int | None] = {}
        for each in found:
            if each.laddr:
                ports[each.laddr.port] = each.pid or ports.get(each.laddr.port)
        return ports

    def process_name(self, pid: int) -> str:
        """Return the name of a process, for people."""
        try:
            return f"{psutil.Process(pid).name()} (process {pid})"
        except psutil.Error:
            return f"process {pid}"


def _uvloop_version() -> str | None:
    try:
        return str(importlib.import_module("uvloop").__version__)
    except (ImportError, AttributeError):
        return None


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
