"""A node whose log nobody reads any more: it serves, obeys its signals, and ends in time."""

import fcntl
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.node import READY_TIMEOUT_S, node_environment
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

SHUTDOWN_DEADLINE_S = 10.0
SMALL_PIPE_BYTES = 4096


@contextmanager
def stopped_reader(kind: str) -> Iterator[tuple[int, int]]:
    """Yield a descriptor to write to, which takes nothing more, and the one to read from."""
    if kind == "socket":
        sockets = socket.socketpair()
        reading, writing = (each.detach() for each in sockets)
    else:
        reading, writing = os.openpty() if kind == "terminal" else os.pipe()
    try:
        if kind == "terminal":
            termios.tcflow(writing, termios.TCOOFF)
        else:
            if kind == "pipe":
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALL_PIPE_BYTES)
            os.set_blocking(writing, False)
            with suppress(BlockingIOError):
                while os.write(writing, b"\n" * 1024):
                    pass
            # The node must cope with a descriptor that waits, and leave it as it is.
            os.set_blocking(writing, True)
        yield writing, reading
        assert os.get_blocking(writing)
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def unread_node(directory: Path, errors: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a node that writes its log to ``errors``; yields it and the address of its admin endpoint."""
    command = [sys.executable, "-m", "antquic_server", "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    command += ["--identity", str(directory / "node.pem"), "--workers", "2", "--log-level", "debug"]
    command += ["--set", f"endpoint.shutdown_deadline_s={SHUTDOWN_DEADLINE_S}"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=node_environment()
    )
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], READY_TIMEOUT_S)[0], "no ready line: it waits for its log"
        yield process, urlsplit(json.loads(process.stdout.readline())["admin"]).netloc
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def status_code(address: str) -> int:
    """Ask ``/healthz``."""
    connection = http.client.HTTPConnection(address, timeout=10.0)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_node_serves_and_ends_though_nobody_reads_its_log(tmp_path: Path, kind: str) -> None:
    """From its first line on, through a SIGHUP, to SIGTERM: exit status 0, within the deadline."""
    with stopped_reader(kind) as (errors, _), unread_node(tmp_path, errors) as (process, admin):
        assert status_code(admin) == 200
        process.send_signal(signal.SIGHUP)
        for _ in range(3):
            assert status_code(admin) == 200
        process.send_signal(signal.SIGTERM)
        started_s = time.monotonic()
        assert process.wait(timeout=2 * SHUTDOWN_DEADLINE_S) == 0
        assert time.monotonic() - started_s < SHUTDOWN_DEADLINE_S


def test_reader_that_is_back_gets_what_was_kept(tmp_path: Path) -> None:
    """Of the supervisor and of the workers, without another line being logged."""
    with stopped_reader("pipe") as (errors, reading), unread_node(tmp_path, errors) as (process, _):
        log = b""

        def complete() -> bool:
            nonlocal log
            while select.select([reading], [], [], 0)[0]:
                log += os.read(reading, 65536)
            return b'"serving"' in log and b'"process": "worker"' in log

        wait_until(complete, timeout_s=20.0, what="line of everybody")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=2 * SHUTDOWN_DEADLINE_S) == 0
        complete()
        events = [json.loads(line)["event"] for line in log.splitlines() if line]
        assert "draining" in events
