"""The ceiling: a forwarder in C (``forwarder.c``), compiled for the run where there is a compiler."""

import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from antquic_server.bench.relay_contender import Contender, RelaySession, nothing, prove
from antquic_server.bench.relay_place import RECEIVER, RELAY, SENDER, Place, pin_relay
from antquic_server.errors import CannotBootError

__all__ = ["FORWARDER", "SOURCE", "find_compiler", "running_forwarder"]

FORWARDER: Final = "C forwarder"
SOURCE: Final = Path(__file__).with_name("forwarder.c")

_HEADER_BYTES: Final = 8
_TIMEOUT_S: Final = 10.0
_COMPILE_TIMEOUT_S: Final = 60.0


def find_compiler() -> str | None:
    """Return the C compiler, None if there is none."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@contextmanager
def running_forwarder(place: Place, sessions: int) -> Iterator[Contender]:
    """
    Run the forwarder with that many sessions.

    Raises:
        CannotBootError: It could not be compiled, or did not start.
    """
    compiler = find_compiler()
    if compiler is None:
        raise CannotBootError("there is no C compiler (cc)")
    with tempfile.TemporaryDirectory(prefix="antquic-bench-") as directory, ExitStack() as stack:
        program = Path(directory) / "forwarder"
        _compile(compiler, program)
        process = stack.enter_context(_running(place.command(RELAY, [str(program), place.relay_listen])))
        port = int(_line(process))
        made, routes = [], ""
        for _ in range(sessions):
            out = stack.enter_context(place.udp(SENDER))
            arrival = stack.enter_context(place.udp(RECEIVER))
            out.connect((place.front, port))
            header = os.urandom(_HEADER_BYTES)
            made.append(RelaySession(out=out, arrival=arrival, header=partial(_same, header)))
            routes += "{} {} {} {} {}\n".format(header.hex(), *out.getsockname(), *arrival.getsockname())
        if process.stdin is not None:
            process.stdin.write(routes.encode() + b"\n")
            process.stdin.flush()
        if _line(process) != "ready":
            raise CannotBootError("the C forwarder did not take its table")
        pin_relay(process.pid)
        contender = Contender(name=FORWARDER, pid=process.pid, sessions=made, header_arrives=True, keep=nothing)
        prove(contender)
        yield contender


def _same(header: bytes, _payload_bytes: int) -> bytes:
    return header


def _compile(compiler: str, program: Path) -> None:
    command = [compiler, "-O2", "-o", str(program), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMPILE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBootError(f"{compiler} failed: {error}") from None
    if done.returncode != 0:
        complaint = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise CannotBootError(f"{compiler} failed: {complaint}")


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()  # it has nothing to put in order
        process.communicate()


def _line(process: subprocess.Popen[bytes]) -> str:
    stream = process.stdout
    line = ""
    if stream is not None and select.select([stream], [], [], _TIMEOUT_S)[0]:
        line = stream.readline().decode().strip()
    if not line:
        raise CannotBootError("the C forwarder did not start")
    return line
