"""Measuring a relay, whatever it is."""

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from antquic_server.bench import relay_contender
from antquic_server.bench.relay_contender import Contender, Load, RelaySession, nothing, prove, running_load
from antquic_server.bench.relay_load import LoadResult
from antquic_server.errors import CannotBootError

LOAD = Load(sessions=1, train=1, payload_bytes=100, seconds=0.05)


def measure(contender: Contender, *, times: int = 1, cpus: Sequence[int] = ()) -> LoadResult:
    """Measure one relay alone, so many times by one process; return the last result."""

    async def scenario() -> list[LoadResult]:
        async with running_load([contender], cpus) as process:
            return [await process.measure(contender, LOAD) for _ in range(times)]

    return asyncio.run(scenario())[-1]


@pytest.fixture
def contender() -> Iterator[Contender]:
    """Nothing but the kernel: what is sent arrives."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as arrival,
    ):
        arrival.bind(("127.0.0.1", 0))
        out.connect(arrival.getsockname())
        for sock in (out, arrival):
            sock.setblocking(False)
        session = RelaySession(out=out, arrival=arrival, header=lambda _: b"head")
        yield Contender(name="kernel", pid=os.getpid(), sessions=[session], header_arrives=True, keep=nothing)


def test_load_runs_in_a_process_of_its_own(contender: Contender) -> None:
    """Sessions are kept alive first; what comes back is counted."""
    kept = []

    result = measure(replace(contender, keep=lambda: kept.append(1)), times=2)

    assert result.delivered > 0
    assert kept == [1, 1]


def test_a_relay_that_delivers_nothing_is_no_result(contender: Contender) -> None:
    """It would be a division by nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nowhere:
        nowhere.bind(("127.0.0.1", 0))
        contender.sessions[0].out.connect(nowhere.getsockname())

        with pytest.raises(CannotBootError, match="kernel delivered nothing"):
            measure(contender)


def test_a_load_that_fails_says_why(contender: Contender) -> None:
    """A CPU that does not exist."""
    with pytest.raises(CannotBootError, match=r"load through kernel failed: .*Invalid argument"):
        measure(contender, cpus=[100_000])


def test_a_load_that_hangs_is_ended(contender: Contender, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement does not wait forever."""
    monkeypatch.setattr(relay_contender, "_LATE_S", -0.04)

    with pytest.raises(TimeoutError):
        measure(contender)


def test_proof_is_that_bytes_arrive_as_they_were(contender: Contender, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that should have been taken away, and was not, is noticed."""
    prove(contender)

    monkeypatch.setattr(relay_contender, "_PROOF_S", 0.05)
    with pytest.raises(CannotBootError, match="session 0 of kernel does not deliver what is sent"):
        prove(replace(contender, header_arrives=False))
