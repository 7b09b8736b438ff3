"""The end of a node: clients are told, nobody is left behind, and the port is free for the next one."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from antquic_server.protocol.codepoints import ApplicationErrorCode
from support.load import (
    UNLIMITED_RATES,
    LoadPeer,
    connect_peers,
    descendants,
    is_alive,
    run_clients,
    start_peer,
    until,
)
from support.node import Node, StartNode
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

WORKERS = 4
CONNECTIONS = 50
SHUTDOWN_DEADLINE_S = 5.0
"""Default of ``endpoint.shutdown_deadline_s``."""

ORPHANS_LEAVE_S = 5.0


async def stop_and_watch(node: Node, number: signal.Signals) -> tuple[list[LoadPeer], float]:
    """Connect 50 clients, send the supervisor a signal; return the clients and how long the node took to end."""
    peers = await connect_peers(node, CONNECTIONS)
    started_s = time.monotonic()
    os.kill(node.pid, number)
    await until(lambda: not is_alive(node.pid), timeout_s=2 * SHUTDOWN_DEADLINE_S, what="end of the node")
    return peers, time.monotonic() - started_s


async def until_closed(peers: list[LoadPeer]) -> None:
    """Wait until every connection has ended."""
    await asyncio.gather(
        *(until(peer.connection.closed.is_set, timeout_s=15.0, what=f"close of {peer.peer_id}") for peer in peers)
    )


def check_told(peers: list[LoadPeer]) -> None:
    """Everybody got the application close of an orderly shutdown."""
    ends = [peer.connection.termination for peer in peers]
    assert {end.error_code for end in ends if end is not None} == {ApplicationErrorCode.PEER_SHUTDOWN}
    assert all(end is not None and end.frame_type is None for end in ends), "an application close"
    assert not any(peer.connection.stateless_reset for peer in peers)


def processes(node: Node) -> list[int]:
    """Return the supervisor and everybody below it."""
    family = [node.pid, *descendants(node.pid)]
    assert len(family) > WORKERS
    return family


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_closes_every_connection_and_ends_the_node(start_node: StartNode, number: signal.Signals) -> None:
    """50 clients are told by an application close, the exit status is 0, within the deadline, and nobody stays."""
    node = start_node(workers=WORKERS, echo=True, settings=UNLIMITED_RATES)
    family = processes(node)

    async def story() -> float:
        peers, took_s = await stop_and_watch(node, number)
        await until_closed(peers)
        check_told(peers)
        return took_s

    took_s = run_clients(story(), timeout_s=40)

    print(f"{number.name}: ended after {took_s:.2f} s")
    assert took_s < SHUTDOWN_DEADLINE_S
    assert node.stop() == 0
    assert not [pid for pid in family if is_alive(pid)]


def test_frozen_worker_does_not_hold_up_the_end(start_node: StartNode) -> None:
    """The clients of the others are told, the frozen one is killed, and the node ends within its deadline."""
    # It is killed after three quarters of the deadline: a long one leaves a busy machine seconds for the rest.
    deadline_s = 2 * SHUTDOWN_DEADLINE_S
    settings = [*UNLIMITED_RATES, f"endpoint.shutdown_deadline_s={deadline_s}"]
    node = start_node(workers=WORKERS, echo=True, settings=settings)
    family = processes(node)

    async def story() -> float:
        frozen = 1
        peers = await connect_peers(node, CONNECTIONS)
        workers = node.worker_pids
        os.kill(workers[frozen], signal.SIGSTOP)
        started_s = time.monotonic()
        os.kill(node.pid, signal.SIGTERM)
        left = [worker for worker in workers if worker != workers[frozen]]
        await until(lambda: not any(map(is_alive, left)), timeout_s=deadline_s, what="end of the others")
        late = [start_peer(node) for _ in range(8)]
        await until(lambda: not is_alive(node.pid), timeout_s=2 * deadline_s, what="end of the node")
        took_s = time.monotonic() - started_s
        assert not any(peer.connection.connected.is_set() for peer in late), "nobody is let in any more"
        told = [peer for peer in peers if peer.slot != frozen]
        await until_closed(told)
        check_told(told)
        return took_s

    took_s = run_clients(story(), timeout_s=60)

    print(f"with a frozen worker: ended after {took_s:.2f} s")
    assert took_s < deadline_s
    assert node.stop() == 0
    assert not [pid for pid in family if is_alive(pid)]


@pytest.fixture
def start_doomed_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Return a function that starts a node which need not end well; it is killed after the test if it still runs."""
    started: list[Node] = []

    def start(*arguments: str) -> Node:
        started.append(Node(tmp_path, arguments))
        return started[-1]

    yield start
    for node in started:
        node.kill()


def test_second_signal_ends_the_node_at_once(start_doomed_node: Callable[..., Node]) -> None:
    """Whoever asks twice does not wait for the deadline; the exit status says that it was not orderly."""
    node = start_doomed_node("--workers", "2", "--set", "endpoint.shutdown_deadline_s=60.0")
    family = [node.pid, *descendants(node.pid)]
    os.kill(node.worker_pids[1], signal.SIGSTOP)

    os.kill(node.pid, signal.SIGTERM)
    wait_until(lambda: not node.healthy(), timeout_s=15.0, what="drain")
    started_s = time.monotonic()
    os.kill(node.pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(node.pid), timeout_s=20.0, what="end of the node")

    assert time.monotonic() - started_s < SHUTDOWN_DEADLINE_S
    assert node.stop() == 1
    assert not [pid for pid in family if is_alive(pid)]


def test_workers_leave_when_their_supervisor_is_killed(
    start_doomed_node: Callable[..., Node], start_node: StartNode
) -> None:
    """Nobody keeps the port of a supervisor that was killed: the next one starts on it and serves."""
    node = start_doomed_node("--workers", str(WORKERS), "--echo")
    workers = descendants(node.pid)
    assert len(workers) >= WORKERS

    node.kill()
    killed_at_s = time.monotonic()
    wait_until(lambda: not [pid for pid in workers if is_alive(pid)], timeout_s=15.0, what="end of the orphans")
    left_after_s = time.monotonic() - killed_at_s
    print(f"orphans left after {left_after_s:.2f} s")
    assert left_after_s < ORPHANS_LEAVE_S

    successor = start_node(workers=2, echo=True, arguments=["--listen", node.address])
    assert node.address in successor.ready["listen"]
