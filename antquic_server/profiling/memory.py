"""
What a worker allocates, seen by memray for some seconds, and made into a flame graph.

memray is started inside the worker (``attach`` gets it there, ``memory_payload`` is what runs there). Nothing of it
outlives this process: the tracking ends with a connection that the kernel closes whatever becomes of us.
"""

import importlib.resources
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from antquic_server.errors import ProfileError
from antquic_server.profiling.attach import inject
from antquic_server.profiling.frames import Stack
from antquic_server.profiling.target import check_rights, module_or_fail

__all__ = ["MemoryProfile", "MemoryResult", "record_memory"]

BEGIN_TIMEOUT_S: Final = 30.0
"""For memray to be imported in a busy worker."""

END_TIMEOUT_S: Final = 30.0
MAX_CAPTURE_BYTES: Final = 1 << 30
"""Then the tracking ends early: whoever allocates that much is seen long before."""

MAX_STACK: Final = 100
MAX_LINE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryProfile:
    """
    What to record: of which process, for how many seconds, and where to.

    ``leaks`` shows what was allocated and not freed in this time, instead of everything at its peak; ``small_objects``
    sees those of Python's own allocator as well, which slows the worker down further.
    """

    pid: int
    seconds: int
    output: Path
    leaks: bool = False
    small_objects: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryResult:
    """Stacks by bytes, and for how many seconds the worker stood still while memray was started."""

    stacks: list[Stack]
    standstill_s: float


def record_memory(profile: MemoryProfile, waiting: Callable[[float], None], directory: Path) -> MemoryResult:
    """
    Track allocations and write the flame graph; ``waiting`` is called several times a second with the seconds gone by.

    ``directory`` is for what is needed in between.

    Raises:
        ProfilerUnavailableError: A program, a package or a right is missing.
        ProfileError: The process cannot be attached to, or has ended meanwhile.
    """
    module_or_fail("memray")
    check_rights(profile.pid)
    capture = directory / "capture.bin"
    token = secrets.token_hex(16)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = _payload(listener.getsockname()[1], token, profile)
        standstill_s = inject(profile.pid, code, listener)
        with _Talk(listener, token, profile.pid) as talk:
            _follow(talk, profile, waiting, capture)
    _write_flamegraph(profile, capture)
    return MemoryResult(stacks=_stacks(capture, leaks=profile.leaks), standstill_s=standstill_s)


def _payload(port: int, token: str, profile: MemoryProfile) -> str:
    source = (importlib.resources.files("antquic_server.profiling") / "memory_payload.py").read_text(encoding="utf-8")
    arguments = port, token, float(profile.seconds), profile.small_objects
    # In a namespace of its own, so that nothing is left behind in the worker's main module.
    run = "names = {'__name__': 'memory_payload'}; exec(source, names); names['track'](*arguments)"
    return f"exec({run!r}, {{'source': {source!r}, 'arguments': {arguments!r}}})\n"


class _Talk:
    """The connection that the tracking depends on; leaving the block ends it."""

    def __init__(self, listener: socket.socket, token: str, pid: int) -> None:
        self._listener = listener
        self._token = token
        self._pid = pid
        self._connection: socket.socket | None = None
        self._data = b""

    def __enter__(self) -> "_Talk":
        self._listener.settimeout(BEGIN_TIMEOUT_S)
        try:
            self._connection = self._listener.accept()[0]
        except TimeoutError:
            raise ProfileError(self._pid, f"memray did not begin within {BEGIN_TIMEOUT_S:.0f} s") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def read(self, timeout_s: float) -> str | None:
        """Return what the worker says next, without the token; None if it says nothing in time."""
        assert self._connection is not None, "inside its block"
        self._connection.settimeout(timeout_s)
        while b"\n" not in self._data:
            try:
                data = self._connection.recv(MAX_LINE_BYTES)
            except TimeoutError:
                return None
            if not data or len(self._data) > MAX_LINE_BYTES:
                raise ProfileError(self._pid, "the process has ended")
            self._data += data
        line, _, self._data = self._data.partition(b"\n")
        token, _, words = line.decode(errors="replace").partition(" ")
        if token != self._token:
            raise ProfileError(self._pid, "somebody else has answered in its place")
        if words.startswith("failed "):
            detail = words.removeprefix("failed ")
            hint = ": its installation has no memray" if detail.startswith("ModuleNotFoundError") else ""
            raise ProfileError(self._pid, f"memray could not be started there{hint} ({detail})")
        return words

    def stop(self) -> None:
        """Have the tracking end now."""
        assert self._connection is not None, "inside its block"
        self._connection.sendall(b"\n")


def _follow(talk: _Talk, profile: MemoryProfile, waiting: Callable[[float], None], capture: Path) -> None:
    """Wait for the end of the tracking and copy what was captured."""
    words = talk.read(BEGIN_TIMEOUT_S)
    if words is None:
        raise ProfileError(profile.pid, f"memray did not begin within {BEGIN_TIMEOUT_S:.0f} s")
    # Seen from here: a worker may have a /tmp of its own.
    there = Path(f"/proc/{profile.pid}/root") / words.partition(" ")[2].lstrip("/")
    began_s = time.monotonic()
    while (passed_s := time.monotonic() - began_s) < profile.seconds + END_TIMEOUT_S:
        waiting(passed_s)
        if talk.read(0.2) is not None:
            shutil.copyfile(there, capture)
            return
        if there.exists() and there.stat().st_size > MAX_CAPTURE_BYTES:
            talk.stop()
    raise ProfileError(profile.pid, "memray did not come to an end")


def _write_flamegraph(profile: MemoryProfile, capture: Path) -> None:
    options = ["--leaks"] if profile.leaks else []
    # Without files from elsewhere, so that the page can be read on a machine that sees no network.
    command = [
        *(sys.executable, "-m", "memray", "flamegraph", "--no-web", "--force", *options),
        *("--output", str(profile.output), str(capture)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0 or not profile.output.exists():
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise ProfileError(
            profile.pid, f"memray could not draw the flame graph: {lines[-1] if lines else 'no reason given'}"
        )


def _stacks(capture: Path, *, leaks: bool) -> list[Stack]:
    # Imported only now: it is there only where somebody wants to profile memory.
    import memray  # noqa: PLC0415

    stacks: list[Stack] = []
    with memray.FileReader(str(capture)) as reader:
        chosen = reader.get_leaked_allocation_records if leaks else reader.get_high_watermark_allocation_records
        for record in chosen(merge_threads=True):
            frames = [f"{name} ({_short(file)}:{line})" for name, file, line in record.stack_trace(MAX_STACK)]
            stacks.append((frames[::-1] or ["outside Python"], float(record.size)))
    return stacks


def _short(file: str) -> str:
    """The part of a path that tells files apart: package and module, as py-spy writes it."""
    _, found, inside = file.rpartition("/site-packages/")
    return inside if found else "/".join(Path(file).parts[-2:])
