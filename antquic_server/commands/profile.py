"""
``antquic-server profile``: what a running worker spends its time on, or what it allocates.

The worker is found by its slot, through the admin endpoint, or named by its process id. It goes on serving meanwhile.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from antquic_server.commands.status import chosen_admin, fetch_status
from antquic_server.commands.status_values import number, size, tables
from antquic_server.errors import ConfigurationError, ProfileError
from antquic_server.profiling.frames import Stack, heaviest

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run", "worker_pid"]

SUMMARY = "see what a running worker spends its time or memory on"

EXAMPLES = """\
examples:
  antquic-server profile cpu
  antquic-server profile cpu --slot 1 --seconds 30 --rate 200 --output worker.svg
  antquic-server profile cpu --format speedscope --exact
  antquic-server profile memory --seconds 20 --leaks

cpu writes a flame graph as SVG (py-spy), memory one as HTML (memray, which gdb gets into the worker). Needs root, or
the node's own user where kernel.yama.ptrace_scope is 0, and: pip install 'antquic-server[profile]'
Without --admin: the admin address of the configuration ($ANTQUIC_CONFIG).
"""

MAX_SECONDS = {"cpu": 600, "memory": 120}
"""A capture of memory grows with time, and the worker is slower all the while."""

MAX_RATE = 1000
TOP_FRAMES = 10
NAME_WIDTH = 76


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``profile``."""
    parser.add_argument("kind", metavar="cpu|memory", help="what to look at")
    parser.add_argument("--slot", metavar="N", help="the worker's slot (default: 0)")
    parser.add_argument("--pid", metavar="PID", help="the worker's process id, instead of --slot")
    parser.add_argument("--seconds", metavar="S", default="10", help="for how long, at most 600 or 120 (default: 10)")
    parser.add_argument("--output", metavar="FILE", help="where to (default: a new file in this directory)")
    parser.add_argument("--admin", metavar="URL", help="admin endpoint, like http://127.0.0.1:10001")
    cpu = parser.add_argument_group("cpu")
    cpu.add_argument("--rate", metavar="HZ", help="samples per second (default: 100)")
    cpu.add_argument("--format", metavar="FORM", help="flamegraph, speedscope or raw (default: flamegraph)")
    cpu.add_argument("--exact", action="store_true", help="hold the worker for each sample: none is torn, it is slower")
    cpu.add_argument("--native", action="store_true", help="C functions as well; implies --exact")
    memory = parser.add_argument_group("memory")
    memory.add_argument("--leaks", action="store_true", help="only what was not freed in this time")
    memory.add_argument("--small-objects", action="store_true", help="those of Python's own allocator as well")


def run(arguments: argparse.Namespace) -> int:
    """Profile a worker, write the file and name the heaviest functions; returns the exit code."""
    kind = arguments.kind
    if kind not in MAX_SECONDS:
        raise ConfigurationError("command line", "profile", kind, "cpu or memory")
    _refuse_foreign_options(kind, arguments)
    seconds = _whole(arguments.seconds, "--seconds", 1, MAX_SECONDS[kind])
    pid = _pid(arguments)
    return _cpu(arguments, pid, seconds) if kind == "cpu" else _memory(arguments, pid, seconds)


def _cpu(arguments: argparse.Namespace, pid: int, seconds: int) -> int:
    from antquic_server.profiling.cpu import SUFFIXES, CpuProfile, ProfileFormat, record_cpu

    try:
        form = ProfileFormat(arguments.format or ProfileFormat.FLAMEGRAPH)
    except ValueError:
        raise ConfigurationError(
            "command line", "--format", arguments.format, "flamegraph, speedscope or raw"
        ) from None
    profile = CpuProfile(
        pid=pid,
        seconds=seconds,
        rate=_whole(arguments.rate or "100", "--rate", 1, MAX_RATE),
        output=_output(arguments.output, "cpu", pid, SUFFIXES[form]),
        format=form,
        exact=arguments.exact or arguments.native,
        native=arguments.native,
    )
    with _Waiting(f"profiling worker {pid}", seconds) as waiting:
        stacks = record_cpu(profile, waiting)
    samples = sum(weight for _, weight in stacks)
    print(f"{samples:,.0f} samples of {seconds} s in which the worker was busy; heaviest functions:\n")
    _print_heaviest(stacks)
    print(f"\nwritten to {profile.output}")
    return 0


def _memory(arguments: argparse.Namespace, pid: int, seconds: int) -> int:
    from antquic_server.profiling.memory import MemoryProfile, record_memory

    profile = MemoryProfile(
        pid=pid,
        seconds=seconds,
        output=_output(arguments.output, "memory", pid, "html"),
        leaks=arguments.leaks,
        small_objects=arguments.small_objects,
    )
    waiting_for = _Waiting(f"tracking worker {pid}", seconds)
    with tempfile.TemporaryDirectory(prefix="antquic-profile-") as directory, waiting_for as waiting:
        result = record_memory(profile, waiting, Path(directory))
    what = "allocated and not freed" if profile.leaks else "allocated at the peak"
    held = sum(weight for _, weight in result.stacks)
    print(f"{size(held)} {what} within {seconds} s; heaviest functions:\n")
    _print_heaviest(result.stacks)
    print(f"\nthe worker stood still for {result.standstill_s * 1000:.0f} ms when it began")
    print(f"written to {profile.output}")
    return 0


# Arguments.


def _refuse_foreign_options(kind: str, arguments: argparse.Namespace) -> None:
    own = {"cpu": ("rate", "format", "exact", "native"), "memory": ("leaks", "small_objects")}
    for other, names in own.items():
        for name in names:
            if other != kind and getattr(arguments, name) not in (None, False):
                option = f"--{name.replace('_', '-')}"
                raise ConfigurationError("command line", option, kind, f"this option with profile {other} only")


def _whole(text: str, option: str, least: int, most: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not least <= value <= most:
        raise ConfigurationError("command line", option, text, f"a whole number from {least} to {most}")
    return value


def _pid(arguments: argparse.Namespace) -> int:
    from antquic_server.profiling.target import check_target

    if arguments.pid is not None:
        if arguments.slot is not None:
            raise ConfigurationError("command line", "--slot", arguments.slot, "either --slot or --pid")
        pid = _whole(arguments.pid, "--pid", 2, (1 << 31) - 1)
    else:
        slot = _whole(arguments.slot or "0", "--slot", 0, 255)
        pid = worker_pid(fetch_status(*chosen_admin(arguments.admin)), slot)
    check_target(pid)
    return pid


def worker_pid(status: dict[str, object], slot: int) -> int:
    """
    Return the process id of the ready worker of a slot, as ``/status`` says it.

    Raises:
        ConfigurationError: There is no such slot.
        ProfileError: Nobody serves the slot at present.
    """
    workers = {worker.get("slot"): worker for worker in tables(status.get("workers"))}
    if slot not in workers:
        slots = ", ".join(str(known) for known in workers) or "none"
        raise ConfigurationError("command line", "--slot", slot, f"a slot of this node: {slots}")
    pid = number(workers[slot].get("pid"))
    if pid is None:
        raise ProfileError(None, f"slot {slot} has no worker at present")
    return int(pid)


def _output(option: str | None, kind: str, pid: int, suffix: str) -> Path:
    path = (
        Path(option) if option is not None else Path(f"antquic-{kind}-{pid}-{time.strftime('%Y%m%d-%H%M%S')}.{suffix}")
    )
    directory = path.parent
    if path.is_dir() or not directory.is_dir():
        raise ConfigurationError("command line", "--output", str(path), "a file in a directory that exists")
    return path.resolve()


# What is shown.


def _print_heaviest(stacks: list[Stack]) -> None:
    print(f"{'SELF':>6}  {'TOTAL':>6}  FUNCTION")
    for frame in heaviest(stacks, TOP_FRAMES):
        name = frame.name if len(frame.name) <= NAME_WIDTH else f"{frame.name[: NAME_WIDTH - 1]}…"
        print(f"{frame.self_share:>6.1%}  {frame.total_share:>6.1%}  {name}")


class _Waiting:
    """Says on standard error, where somebody is looking, how long it is going to take."""

    def __init__(self, what: str, seconds: int) -> None:
        self._what = what
        self._seconds = seconds
        self._visible = sys.stderr.isatty()

    def __enter__(self) -> Callable[[float], None]:
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._visible:
            print(f"\r{' ' * 70}\r", end="", file=sys.stderr, flush=True)

    def _show(self, passed_s: float) -> None:
        if self._visible:
            line = f"{self._what}: {min(passed_s, self._seconds):.0f} of {self._seconds} s (Ctrl-C ends it)"
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
