"""Servers under measurement: a node of ours, or aioquic's own, each in a process of its own."""

import http.client
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from antquic_server.bench.cpu_time import process_cpu_s
from antquic_server.bench.profiler import profiled
from antquic_server.errors import CannotBootError

_BOOT_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0

_RELAY_WITHOUT_LIMITS = (
    *("--set", "relay.bandwidth_bytes_per_s=1000000000000"),
    *("--set", "relay.bandwidth_per_peer_bytes_per_s=1000000000000"),
    *("--set", "relay.max_sessions=1000000", "--set", "relay.max_sessions_per_peer=1000000"),
    *("--set", "relay.max_sessions_per_prefix=1000000"),
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUnderTest:
    """A running server: where it listens, and the process whose CPU time counts."""

    port: int
    pid: int

    def cpu_s(self) -> float:
        """User and system CPU time of the measured process so far."""
        return process_cpu_s(self.pid)


class Surroundings(Protocol):
    """Where a server runs: on this machine as it is, or in a network namespace."""

    @property
    def listen(self) -> str:
        """Address for the server's socket."""

    def command(self, command: Sequence[str]) -> Sequence[str]:
        """Return the command that runs ``command`` there, in the same process."""

    def call(self, action: Callable[[], _T]) -> _T:
        """Call ``action`` there."""


class Here:
    """This machine as it is, loopback."""

    listen = "127.0.0.1"

    def command(self, command: Sequence[str]) -> Sequence[str]:
        """Return the command as it is."""
        return command

    def call(self, action: Callable[[], _T]) -> _T:
        """Just call."""
        return action()


_HERE: Final = Here()


@contextmanager
def running_node(*arguments: str, where: Surroundings = _HERE) -> Iterator[ServerUnderTest]:
    """Run a node with one worker, on loopback unless said otherwise, with limits wide enough for a benchmark."""
    with tempfile.TemporaryDirectory(prefix="antquic-bench-") as directory:
        command = [
            *(sys.executable, "-m", "antquic_server", "serve", "--listen", f"{where.listen}:0"),
            *("--admin", "127.0.0.1:0"),
            *("--workers", "1", "--identity", str(Path(directory) / "node.pem"), "--echo"),
            *("--set", "limits.handshakes_per_address_per_s=1000000.0"),
            *("--set", "limits.handshakes_per_prefix_per_s=1000000.0"),
            *("--set", 'limits.retry="off"', "--log-level", "error"),
            *_RELAY_WITHOUT_LIMITS,
            *arguments,
        ]
        with _running(where.command(command)) as ready:
            listen = str(ready["listen"][0])
            status = where.call(lambda: _status(str(ready["admin"])))
            pid = int(status["workers"][0]["pid"])
            with profiled(pid, "node"):
                yield ServerUnderTest(port=int(listen.rpartition(":")[2]), pid=pid)


@contextmanager
def running_stock_server(loop: str, where: Surroundings = _HERE) -> Iterator[ServerUnderTest]:
    """Run ``aioquic.asyncio.serve`` as an echo; ``loop`` is ``asyncio`` or ``uvloop``."""
    command = [sys.executable, "-m", "antquic_server.bench.stock_server", loop, where.listen]
    with _running(where.command(command)) as ready, profiled(int(ready["pid"]), f"stock {loop}"):
        yield ServerUnderTest(port=int(ready["port"]), pid=int(ready["pid"]))


@contextmanager
def _running(command: Sequence[str]) -> Iterator[dict[str, Any]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=package_environment())
    try:
        yield json.loads(_first_line(process))
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _status(admin: str) -> Any:
    connection = http.client.HTTPConnection(admin.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/status")
        return json.load(connection.getresponse())
    finally:
        connection.close()


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    if process.stdout is None:
        raise CannotBootError("benchmark server has no standard output")
    deadline_s = time.monotonic() + _BOOT_TIMEOUT_S
    readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
    line = process.stdout.readline() if readable else b""
    if not line:
        raise CannotBootError(f"benchmark server did not start (exit code {process.poll()})")
    return line


def package_environment() -> dict[str, str]:
    """Return an environment in which a child finds this package, which may run from a tree that is not installed."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
