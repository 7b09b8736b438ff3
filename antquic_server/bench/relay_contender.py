"""A relay under measurement with its sessions, whatever relay it is, and one measurement of it."""

import asyncio
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from antquic_server.bench.node_process import package_environment
from antquic_server.bench.relay_load import LoadOrder, LoadResult, SessionOrder
from antquic_server.errors import CannotBootError

__all__ = ["Contender", "Load", "RelaySession", "measure", "nothing", "prove"]

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


async def measure(contender: Contender, load: Load, cpus: Sequence[int]) -> LoadResult:
    """
    Send through a relay for a while, from a process of its own on ``cpus``.

    Raises:
        CannotBootError: The load failed, or nothing arrived.
    """
    contender.keep()
    used = contender.sessions[: load.sessions]
    header = used[0].header(load.payload_bytes)
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
        arrival_overhead_bytes=len(header) if contender.header_arrives else 0,
        train=load.train,
        seconds=load.seconds,
        pid=contender.pid,
        cpus=cpus,
    )
    descriptors = [fd for item in order.sessions for fd in (item.out_fd, item.arrival_fd)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antquic_server.bench.relay_load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=descriptors,
        env=package_environment(),
    )
    try:
        async with asyncio.timeout(load.seconds + _LATE_S):
            printed, complaint = await process.communicate(json.dumps(asdict(order)).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = (complaint.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise CannotBootError(f"load through {contender.name} failed: {last}")
    result = LoadResult(**json.loads(printed))
    if not result.delivered:
        raise CannotBootError(f"{contender.name} delivered nothing of {result.sent} datagrams")
    return result


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
