"""
What a worker spends its CPU time on: py-spy reads its stack from outside, some hundred times a second.

The worker is not stopped for that, by default: a stack that changes while it is being read comes out torn and is left
out by py-spy, which costs a part of the samples and nothing else. With ``exact`` the worker is held for each sample,
about a millisecond. Whatever becomes of this process, or of py-spy, the kernel lets the worker go on.
"""

import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from antquic_server.errors import ProfileError, ProfilerUnavailableError
from antquic_server.profiling.frames import Stack, stacks_of_flamegraph, stacks_of_raw, stacks_of_speedscope
from antquic_server.profiling.target import INSTALL_HINT, check_rights, program_or_fail

__all__ = ["CpuProfile", "ProfileFormat", "read_stacks", "record_cpu"]

GRACE_S: Final = 20.0
"""After the last sample, for py-spy to write its file; on a busy machine it reads the symbols for seconds before."""

STOP_S: Final = 5.0

_TITLE: Final = re.compile(r"(<text id=\"title\"[^>]*>)[^<]*(</text>)")


class ProfileFormat(StrEnum):
    """Forms in which py-spy writes."""

    FLAMEGRAPH = "flamegraph"
    SPEEDSCOPE = "speedscope"
    RAW = "raw"


SUFFIXES: Final = {ProfileFormat.FLAMEGRAPH: "svg", ProfileFormat.SPEEDSCOPE: "json", ProfileFormat.RAW: "txt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuProfile:
    """What to record: of which process, for how many seconds, samples per second, and where to."""

    pid: int
    seconds: int
    rate: int
    output: Path
    format: ProfileFormat = ProfileFormat.FLAMEGRAPH
    exact: bool = False
    native: bool = False


def record_cpu(profile: CpuProfile, waiting: Callable[[float], None]) -> list[Stack]:
    """
    Record a profile and return its stacks; ``waiting`` is called several times a second with the seconds gone by.

    Raises:
        ProfilerUnavailableError: py-spy is missing, or may not look into the process.
        ProfileError: The process has ended, or did nothing all the time.
    """
    program = program_or_fail("py-spy", INSTALL_HINT)
    check_rights(profile.pid)
    options = [*([] if profile.exact else ["--nonblocking"]), *(["--native"] if profile.native else [])]
    # Only a whole profile gets the name that was asked for.
    part = profile.output.with_name(f".{profile.output.name}.part")
    command = [
        *(program, "record", "--pid", str(profile.pid), "--duration", str(profile.seconds)),
        *("--rate", str(profile.rate), "--format", str(profile.format), "--output", str(part), *options),
    ]
    # A process group of its own: Ctrl-C is for us, who then end it in order.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    try:
        said = _wait(process, profile.seconds, waiting)
        if process.returncode != 0 or not part.exists():
            raise _explain(profile.pid, said)
        _entitle(profile, part)
        part.replace(profile.output)
    finally:
        _end(process)
        part.unlink(missing_ok=True)
    return read_stacks(profile.output, profile.format)


def _entitle(profile: CpuProfile, path: Path) -> None:
    """Write above a flame graph what it is of; py-spy writes its own command line there."""
    if profile.format is ProfileFormat.FLAMEGRAPH:
        title = f"antquic-server worker {profile.pid}: {profile.seconds} s at {profile.rate} Hz"
        svg = path.read_text(encoding="utf-8", errors="replace")
        path.write_text(_TITLE.sub(rf"\g<1>{title}\g<2>", svg, count=1), encoding="utf-8")


def _wait(process: subprocess.Popen[str], seconds: int, waiting: Callable[[float], None]) -> str:
    passed_s = 0.0
    while passed_s < seconds + GRACE_S:
        waiting(passed_s)
        try:
            return process.communicate(timeout=0.2)[0]
        except subprocess.TimeoutExpired:
            passed_s += 0.2
    return "py-spy did not come to an end"


def _end(process: subprocess.Popen[str]) -> None:
    """End py-spy if it is still there; it lets the worker go when it is interrupted, and the kernel does otherwise."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _explain(pid: int, said: str) -> Exception:
    """Return the error that what py-spy has said stands for."""
    lowered = said.lower()
    if "permission denied" in lowered or "operation not permitted" in lowered:
        return ProfilerUnavailableError(
            f"this process may not look into process {pid}: run it as root; in a container, with CAP_SYS_PTRACE"
        )
    if "no such file" in lowered or "no such process" in lowered or "failed to open process" in lowered:
        return ProfileError(pid, "there is no such process any more")
    if "no stack counts" in lowered:
        return ProfileError(pid, "the process did nothing all the time: profile one that is busy")
    last = [line.strip() for line in said.splitlines() if line.strip()]
    return ProfileError(pid, f"py-spy failed: {last[-1] if last else 'it said nothing'}")


def read_stacks(path: Path, format: ProfileFormat) -> list[Stack]:  # noqa: A002 - the word of the command line
    """Read the stacks of a profile that was written."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if format is ProfileFormat.RAW:
        return stacks_of_raw(text)
    return stacks_of_speedscope(text) if format is ProfileFormat.SPEEDSCOPE else stacks_of_flamegraph(text)
