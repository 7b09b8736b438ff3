"""Tests of ``workers.bootstrap``: real worker processes, driven through their channel."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from antquic_server.bench.load_client import ClientSettings, LoadClient
from antquic_server.errors import ExitCode
from antquic_server.ipc.codec import MessageDecoder, encode
from antquic_server.ipc.messages import (
    Assign,
    BootFailed,
    Drain,
    Drained,
    Heartbeat,
    Hello,
    Message,
    PeerDown,
    PeerUp,
    Ready,
)
from antquic_server.net.stray import make_stray_pairs
from antquic_server.protocol.raw_public_key import peer_id
from support.in_process import make_assign, run, settings_with
from support.pair import node_key, pool
from workers import bootstrap

ROOT = Path(__file__).resolve().parents[2]
BOOT_TIMEOUT_S = 20.0
Kind = TypeVar("Kind", bound=Message)


class WorkerProcess:
    """A child and the supervisor's end of its channel, blocking with a deadline."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(BOOT_TIMEOUT_S)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.udp.setblocking(False)
        self.stray = make_stray_pairs(1)
        inherited = [theirs, self.udp, self.stray[0].receiver, self.stray[0].sender]
        environment = dict(os.environ, ANTQUIC_CHANNEL_FD=str(theirs.fileno()))
        self.child = subprocess.Popen(
            [sys.executable, "-m", "workers"],
            cwd=ROOT,
            env=environment,
            pass_fds=[sock.fileno() for sock in inherited],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.received: list[Message] = []
        self._decoder = MessageDecoder()

    def assign(self) -> Assign:
        """The slot there is."""
        return make_assign(self.udp, self.stray, settings_with(log={"level": "error"}))

    def send(self, message: Message) -> None:
        """Say something to the worker."""
        self.channel.sendall(encode(message))

    def wait_for(self, kind: type[Kind]) -> Kind:
        """Read until such a message comes; others are kept in ``received``."""
        while True:
            while (message := self._decoder.next()) is not None:
                self.received.append(message)
                if isinstance(message, kind):
                    return message
            data = self.channel.recv(1 << 16)
            assert data, f"the worker left without {kind.__name__}: {self.received[-3:]}"
            self._decoder.feed(data)

    def wait_exit(self) -> int:
        """Return the exit code."""
        return self.child.wait(BOOT_TIMEOUT_S)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        assert self.child.stderr is not None
        self.child.stderr.close()
        for sock in (self.channel, self.udp, *self.stray[0]):
            sock.close()


@contextmanager
def worker_process() -> Iterator[WorkerProcess]:
    """A worker that has just been started."""
    process = WorkerProcess()
    try:
        yield process
    finally:
        process.close()


async def visit(port: int) -> None:
    """Connect to the worker, have something echoed, and close."""
    client = LoadClient(offloads=False)
    try:
        settings = ClientSettings(pqc=pool(), node_key=node_key("client"))
        connection = client.connect("127.0.0.1", port, settings)
        await connection.wait_connected(10.0)
        assert await connection.echo(b"echo", 10.0) == b"echo"
        connection.close()
    finally:
        client.close()
        await asyncio.sleep(0)


def test_life_of_a_worker() -> None:
    """Hello, a slot, Ready, a peer that comes and goes, Drain, Drained, exit 0; an interrupt is not its business."""
    with worker_process() as process:
        hello = process.wait_for(Hello)
        assert hello.pid == process.child.pid
        process.child.send_signal(signal.SIGINT)
        assert process.wait_for(Heartbeat).connections == 0
        process.send(process.assign())
        ready = process.wait_for(Ready)
        assert (ready.slot, ready.generation, ready.pqc_provider) == (0, 1, "cryptography")
        run(visit(process.udp.getsockname()[1]))
        up = process.wait_for(PeerUp)
        assert up.peer_id == peer_id(node_key("client").public_key)
        assert process.wait_for(PeerDown) == PeerDown(peer_id=up.peer_id, connection=up.connection)
        process.send(Drain(deadline_s=5.0))
        assert process.wait_for(Drained) == Drained(connections=0)
        last = [message for message in process.received if isinstance(message, Heartbeat)][-1]
        assert last.counters["handshakes|ant_quic"] == 1
        assert process.wait_exit() == ExitCode.OK


def test_worker_leaves_with_its_supervisor() -> None:
    """When the channel ends, so does the worker, with or without a slot."""
    with worker_process() as process:
        process.wait_for(Hello)
        process.send(process.assign())
        process.wait_for(Ready)
        process.channel.shutdown(socket.SHUT_RDWR)
        assert process.wait_exit() == ExitCode.FAILURE


def test_worker_that_cannot_serve_says_why() -> None:
    """A descriptor that is none is reported, and the exit code tells the supervisor not to try again."""
    with worker_process() as process:
        process.wait_for(Hello)
        assign = process.assign()
        assign.sockets[0] = type(assign.sockets[0])(fd=999, family=2, host="127.0.0.1", port=1)
        process.send(assign)
        assert "descriptor" in process.wait_for(BootFailed).reason
        assert process.wait_exit() == ExitCode.CANNOT_BOOT


@pytest.mark.parametrize("error", [None, ValueError, OSError])
def test_descriptors_are_as_many_as_allowed(monkeypatch: pytest.MonkeyPatch, error: type[Exception] | None) -> None:
    """The soft limit is raised to the hard one, and stays where that is refused."""
    asked: list[tuple[int, int]] = []

    def change(_: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        if error is not None:
            raise error

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 5000))
    monkeypatch.setattr(resource, "setrlimit", change)
    bootstrap._take_descriptors()
    assert asked == [(5000, 5000)]


@pytest.mark.parametrize("value", [None, "", "x", "-1"])
def test_worker_is_not_started_by_hand(value: str | None) -> None:
    """Without a channel there is one line about it and exit code 2."""
    environment = {key: text for key, text in os.environ.items() if key != "ANTQUIC_CHANNEL_FD"}
    if value is not None:
        environment["ANTQUIC_CHANNEL_FD"] = value
    ended = subprocess.run(
        [sys.executable, "-m", "workers"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BOOT_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == ExitCode.USAGE
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "antquic-server: error: workers are started by the supervisor (antquic-server serve)"
    ]
