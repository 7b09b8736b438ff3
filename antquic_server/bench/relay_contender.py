"""A relay under measurement with its sessions, whatever relay it is, and the process that puts load on it."""

import asyncio
import contextlib
import json
import os
import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from antquic_server.bench.node_process import package_environment
from antquic_server.bench.relay_load import LoadOrder, LoadResult, SessionOrder
from antquic_server.errors import CannotBootError

__all__ = ["Contender", "Load", "LoadProcess", "RelaySession", "nothing", "prove", "running_load"]

_PROOF_S = 5.0
_REPEAT_S = 0.1
_LATE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySession:
    """
    One way through a relay: what is sent on ``out``, which is connected to the relay, arrives at ``arrival``.

    ``header`` makes what stands before a payload of so many bytes.
    """

    out: socket.socket
    arrival: socket.socket
    header: Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """
    A running relay: ``pid`` is the process whose CPU time counts, ``keep`` keeps its sessions alive.

    ``header_arrives`` tells whether the header is delivered, too.
    """

    name: str
    pid: int
    sessions: Sequence[RelaySession]
    header_arrives: bool
    keep: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent: so many sessions in turn, trains of so many datagrams, bytes of payload in each, how long."""

    sessions: int
    train: int
    payload_bytes: int
    seconds: float


class LoadProcess:
    """The process that the load comes from; made by :func:`running_load`."""

    def __init__(self, process: asyncio.subprocess.Process, cpus: Sequence[int]) -> None:
        self._process = process
        self._cpus = cpus

    async def measure(self, contender: Contender, load: Load) -> LoadResult:
        """
        Send through a relay for a while.

        Raises:
            CannotBootError: The load failed, or nothing arrived.
        """
        contender.keep()
        used = contender.sessions[: load.sessions]
        order = LoadOrder(
            sessions=[
                SessionOrder(
                    out_fd=session.out.fileno(),
                    arrival_fd=session.arrival.fileno(),
                    header=session.header(load.payload_bytes).hex(),
                )
                for session in used
            ],
            payload_bytes=load.payload_bytes,
            arrival_overhead_bytes=len(used[0].header(load.payload_bytes)) if contender.header_arrives else 0,
            train=load.train,
            seconds=load.seconds,
            pid=contender.pid,
            cpus=self._cpus,
        )
        line = await self._carry_out(order)
        if not line:
            raise CannotBootError(f"load through {contender.name} failed: {await self._last_words()}")
        result = LoadResult(**json.loads(line))
        if not result.delivered:
            raise CannotBootError(f"{contender.name} delivered nothing of {result.sent} datagrams")
        return result

    async def _carry_out(self, order: LoadOrder) -> bytes:
        if self._process.stdin is None or self._process.stdout is None:
            return b""
        self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        async with asyncio.timeout(order.seconds + _LATE_S):
            return await self._process.stdout.readline()

    async def _last_words(self) -> str:
        complaint = b"" if self._process.stderr is None else await self._process.stderr.read()
        return (complaint.decode(errors="replace").strip().splitlines() or ["no message"])[-1]


@asynccontextmanager
async def running_load(contenders: Sequence[Contender], cpus: Sequence[int]) -> AsyncIterator[LoadProcess]:
    """Start the load for these relays, whose sockets it inherits, on ``cpus``, or anywhere if there are none."""
    sockets = [sock for item in contenders for session in item.sessions for sock in (session.out, session.arrival)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antquic_server.bench.relay_load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=[sock.fileno() for sock in sockets],
        env=package_environment(),
    )
    try:
        yield LoadProcess(process, cpus)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.communicate()


def prove(contender: Contender) -> None:
    """
    Send something random through every session and see it arrive as it was.

    Raises:
        CannotBootError: It did not.
    """
    for number, session in enumerate(contender.sessions):
        payload = os.urandom(100)
        datagram = session.header(len(payload)) + payload
        expected = datagram if contender.header_arrives else payload
        deadline_s = time.monotonic() + _PROOF_S
        while time.monotonic() < deadline_s:
            session.out.send(datagram)
            if select.select([session.arrival], [], [], _REPEAT_S)[0] and session.arrival.recv(2048) == expected:
                break
        else:
            raise CannotBootError(f"session {number} of {contender.name} does not deliver what is sent")


def nothing() -> None:
    """Keep alive what lives by itself."""
