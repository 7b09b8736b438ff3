"""The load, with nothing but the kernel between its sockets."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace

import pytest

from antquic_server.bench.relay_load import LoadOrder, LoadResult, SessionOrder, generate

Sockets = list[tuple[socket.socket, socket.socket]]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Three ways, each from a connected socket to another."""
    with ExitStack() as stack:
        made = []
        for _ in range(3):
            out, arrival = (stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
            arrival.bind(("127.0.0.1", 0))
            out.connect(arrival.getsockname())
            out.setblocking(False)
            arrival.setblocking(False)
            made.append((out, arrival))
        yield made


def _order(sockets: Sockets, *, train: int = 1) -> LoadOrder:
    return LoadOrder(
        sessions=[
            SessionOrder(out_fd=out.fileno(), arrival_fd=arrival.fileno(), header="0102") for out, arrival in sockets
        ],
        payload_bytes=100,
        arrival_overhead_bytes=2,
        train=train,
        seconds=0.05,
        pid=os.getpid(),
    )


@pytest.mark.parametrize("train", [1, 8])
def test_every_session_gets_its_share(sockets: Sockets, train: int) -> None:
    """Datagrams arrive on all ways, and none is counted that was not sent."""
    sockets[0][1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    result = generate(_order(sockets, train=train))

    assert 0 < result.delivered <= result.sent
    assert result.silent_sessions == 0
    assert result.wall_s >= 0.05
    assert result.cpu_s > 0


def test_what_never_arrives_is_lost_and_does_not_stop_the_load(sockets: Sockets) -> None:
    """A way that leads nowhere is noticed; the others go on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nowhere:
        nowhere.bind(("127.0.0.1", 0))
        sockets[2][0].connect(nowhere.getsockname())

        result = generate(_order(sockets))

    assert result.silent_sessions == 1
    assert 0 < result.delivered < result.sent
    assert 0 < result.lost_share < 1


def test_what_an_earlier_load_has_left_behind_does_not_count(sockets: Sockets) -> None:
    """Stale datagrams are taken away first."""
    out, arrival = sockets[0]
    for _ in range(50):
        out.send(bytes(102))

    result = generate(replace(_order([(out, arrival)]), seconds=0.01))

    assert result.delivered <= result.sent


def test_a_process_carries_out_orders_with_inherited_sockets(sockets: Sockets) -> None:
    """As the benchmark runs it: orders in, results out, JSON lines."""
    order = replace(_order(sockets), cpus=sorted(os.sched_getaffinity(0))[:1])
    descriptors = [fd for item in order.sessions for fd in (item.out_fd, item.arrival_fd)]

    done = subprocess.run(
        [sys.executable, "-m", "antquic_server.bench.relay_load"],
        input=2 * (json.dumps(asdict(order)).encode() + b"\n"),
        stdout=subprocess.PIPE,
        pass_fds=descriptors,
        check=True,
        timeout=30,
    )

    results = [LoadResult(**json.loads(line)) for line in done.stdout.splitlines()]
    assert len(results) == 2
    assert all(result.delivered > 0 for result in results)


def test_figures_follow_from_counts() -> None:
    """Rate by CPU time, shares by what they are shares of; nothing sent is nothing lost."""
    result = LoadResult(sent=400, delivered=300, silent_sessions=0, wall_s=2.0, cpu_s=0.5)

    assert result.per_cpu_s == 600
    assert result.lost_share == 0.25
    assert result.busy_share == 0.25
    assert replace(result, sent=0, delivered=0).lost_share == 0
