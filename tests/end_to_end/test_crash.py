"""Workers that die or freeze: their siblings notice nothing, their clients hear of it and are served again at once."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from antquic_server.stats.counters import METRICS
from support.load import (
    HANDSHAKE_TIMEOUT_S,
    UNLIMITED_RATES,
    LoadPeer,
    ask,
    connect_peers,
    is_alive,
    peers_of,
    ready_spares,
    run_clients,
    start_peer,
    udp_inodes,
    until,
    wait_healthy,
)
from support.node import Node, StartNode
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

WORKERS = 4
CONNECTIONS = 200
VICTIM = 2

# 200 connections with 5 echoes a second each keep the node busy, and leave the two cores of a small machine something
# for starting a process.
ECHO_INTERVAL_S = 0.2
ECHO_TIMEOUT_S = 10.0

SERVED_AGAIN_S = 2.0
ATTEMPTS = 3
"""How often the time is taken at the most: what else the machine does for a moment is not the node's. All else has to
be right every time."""
"""From the death of a worker to the last of its clients being served again."""


@dataclass(slots=True)
class EchoLoop:
    """
    One client that sends numbered DATAGRAM frames, and dials again when it is reset.

    DATAGRAM frames are not repeated when they are lost, so a number that does not come back in order was lost.
    """

    node: Node
    peer: LoadPeer
    first_slot: int = -1
    answered: int = 0
    problems: list[str] = field(default_factory=list)
    resets: int = 0
    reset_at_s: float = 0.0
    served_again_at_s: float | None = None
    _number: int = 0

    def __post_init__(self) -> None:
        self.first_slot = self.peer.slot

    async def run(self, stop: asyncio.Event) -> None:
        """Echo until told to stop, then wait for the last answer."""
        while not stop.is_set():
            started_s = time.monotonic()
            if not await self._echo_one():
                await self._dial_again()
                continue
            if self.resets and self.served_again_at_s is None:
                self.served_again_at_s = time.monotonic()
            self.answered += 1
            await asyncio.sleep(max(0.0, started_s + ECHO_INTERVAL_S - time.monotonic()))

    async def _echo_one(self) -> bool:
        """Whether the next number came back; False when the connection has ended by a stateless reset."""
        self._number += 1
        sent = b"%s %d" % (self.peer.peer_id.encode(), self._number)
        try:
            received = await self.peer.connection.echo_datagram(sent, ECHO_TIMEOUT_S)
        except ConnectionError as error:
            if self.peer.connection.stateless_reset:
                self.resets += 1
                self.reset_at_s = time.monotonic()
                return False
            self.problems.append(f"{sent!r}: {error}")
            return True
        if received != sent:
            self.problems.append(f"{sent!r} came back as {received!r}")
        return True

    async def _dial_again(self) -> None:
        self.peer = start_peer(self.node, client=self.peer.client)
        await self.peer.connection.wait_connected(HANDSHAKE_TIMEOUT_S)


class CounterWatch:
    """Reads the node's totals again and again and notes every counter that goes back."""

    def __init__(self, node: Node) -> None:
        self.backwards: list[str] = []
        self._node = node
        self._last: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until told to stop."""
        while not stop.is_set():
            self.look((await ask(self._node.status))["totals"])
            await asyncio.sleep(ECHO_INTERVAL_S)

    def look(self, totals: dict[str, float]) -> None:
        """Compare with the totals before."""
        for key, before in self._last.items():
            if METRICS[key.partition("|")[0]].kind == "counter" and totals.get(key, 0) < before:
                self.backwards.append(f"{key}: {before} -> {totals.get(key)}")
        self._last = totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the clients experienced; times in seconds from the blow."""

    siblings: list[EchoLoop]
    bereaved: list[EchoLoop]
    ended_after_s: float
    reset_after_s: float
    served_again_after_s: float
    slowest_return_s: float

    def describe(self) -> str:
        """Return the times in one line."""
        return (
            f"worker ended after {self.ended_after_s:.2f} s, last of its {len(self.bereaved)} clients reset after "
            f"{self.reset_after_s:.2f} s, served again after {self.served_again_after_s:.2f} s; "
            f"slowest from reset to service {self.slowest_return_s:.2f} s"
        )


async def strike_under_load(node: Node, number: signal.Signals) -> Outcome:
    """Let 200 clients echo, send a signal to one worker, and go on until all its clients are served again."""
    peers = await connect_peers(node, CONNECTIONS)
    loops = [EchoLoop(node, peer) for peer in peers]
    bereaved = [loop for loop in loops if loop.first_slot == VICTIM]
    siblings = [loop for loop in loops if loop.first_slot != VICTIM]
    sockets = udp_inodes(node.pid)
    assert len(sockets) == WORKERS
    await until_known(node, peers)

    stop = asyncio.Event()
    watch = CounterWatch(node)
    tasks = [asyncio.create_task(loop.run(stop)) for loop in loops] + [asyncio.create_task(watch.run(stop))]
    await until(lambda: all(loop.answered >= 3 for loop in loops), timeout_s=20.0, what="three echoes of everybody")
    await ask(wait_until, lambda: ready_spares(node), timeout_s=20.0, what="spare")

    victim = (await ask(lambda: node.worker_pids))[VICTIM]
    struck_at_s = time.monotonic()
    os.kill(victim, number)
    await until(lambda: not is_alive(victim), timeout_s=10.0, what="end of the worker")
    ended_at_s = time.monotonic()
    await until(lambda: all(loop.served_again_at_s for loop in bereaved), timeout_s=20.0, what="everybody served again")
    seen = [loop.answered for loop in loops]
    await until(
        lambda: all(loop.answered >= before + 3 for loop, before in zip(loops, seen, strict=True)),
        timeout_s=20.0,
        what="three more echoes of everybody",
    )
    stop.set()
    await asyncio.gather(*tasks)

    assert udp_inodes(node.pid) == sockets, "the supervisor's sockets never close"
    assert watch.backwards == []
    await until_known(node, [loop.peer for loop in loops])
    for loop in loops:
        loop.peer.leave()
    returns = [(loop.reset_at_s, loop.served_again_at_s or 0.0) for loop in bereaved]
    return Outcome(
        siblings=siblings,
        bereaved=bereaved,
        ended_after_s=ended_at_s - struck_at_s,
        reset_after_s=max(reset_at_s for reset_at_s, _ in returns) - struck_at_s,
        served_again_after_s=max(served_at_s for _, served_at_s in returns) - struck_at_s,
        slowest_return_s=max(served_at_s - reset_at_s for reset_at_s, served_at_s in returns),
    )


async def until_known(node: Node, peers: list[LoadPeer]) -> None:
    """Wait until the directory has each peer exactly where it is."""
    expected = {peer.peer_id: [peer.slot] for peer in peers}

    def places() -> dict[str, list[int]]:
        return {peer_id: [item["slot"] for item in node.peer(peer_id)] for peer_id in expected}

    def directory_is_right() -> bool:
        return places() == expected and node.status()["directory"]["peers"] == len(expected)

    await ask(wait_until, directory_is_right, timeout_s=10.0, what="right directory")


def check_outcome(outcome: Outcome) -> None:
    """Siblings lost nothing; the bereaved were reset once, by the replacement, and lost nothing since."""
    assert len(outcome.bereaved) > 0
    assert [loop.problems for loop in outcome.siblings if loop.problems] == []
    assert [loop.resets for loop in outcome.siblings if loop.resets] == []
    assert all(not loop.peer.connection.stateless_reset for loop in outcome.siblings)
    assert [loop.problems for loop in outcome.bereaved if loop.problems] == []
    assert {loop.resets for loop in outcome.bereaved} == {1}


def test_killed_worker_leaves_its_siblings_alone_and_its_clients_are_served_again(start_node: StartNode) -> None:
    """Of 200 connections under load, those of three workers lose nothing; the others are back within 2 s."""
    taken_s: list[float] = []
    while not taken_s or (taken_s[-1] >= SERVED_AGAIN_S and len(taken_s) < ATTEMPTS):
        node = start_node(workers=WORKERS, echo=True, settings=UNLIMITED_RATES, traced=False)

        outcome = run_clients(strike_under_load(node, signal.SIGKILL), timeout_s=90)

        check_outcome(outcome)
        print(f"killed: {outcome.describe()}")
        taken_s.append(outcome.served_again_after_s)
        totals = node.status()["totals"]
        assert totals["stateless_resets"] >= len(outcome.bereaved)
        assert totals["worker_restarts|crashed"] == 1
    assert taken_s[-1] < SERVED_AGAIN_S, taken_s


def test_frozen_worker_is_replaced_and_its_clients_are_served_again(start_node: StartNode) -> None:
    """A stopped worker is killed once its heartbeats are overdue; then everything is as with a dead one."""
    taken_s: list[float] = []
    while not taken_s or (taken_s[-1] >= SERVED_AGAIN_S and len(taken_s) < ATTEMPTS):
        node = start_node(workers=WORKERS, echo=True, settings=UNLIMITED_RATES, traced=False)

        outcome = run_clients(strike_under_load(node, signal.SIGSTOP), timeout_s=90)

        check_outcome(outcome)
        print(f"frozen: {outcome.describe()}")
        # Its clients have been silent for a while, so they come back all at once: the two steps are measured apart.
        taken_s.append(max(outcome.reset_after_s - outcome.ended_after_s, outcome.slowest_return_s))
        assert node.status()["totals"]["worker_restarts|frozen"] == 1
    assert taken_s[-1] < SERVED_AGAIN_S, taken_s


async def echo_once(peers: Sequence[LoadPeer]) -> None:
    """Let everybody echo once."""
    for peer in peers:
        assert await peer.connection.echo(peer.peer_id.encode(), ECHO_TIMEOUT_S) == peer.peer_id.encode()


async def kill_the_same_slot(node: Node, times: int) -> None:
    """Kill one slot's worker again and again, each time with clients on it; the siblings' clients stay all along."""
    watch = CounterWatch(node)
    sockets = udp_inodes(node.pid)
    async with peers_of(node, 12) as peers:
        siblings = [peer for peer in peers if peer.slot != 0]
        bereaved = [peer for peer in peers if peer.slot == 0]
        killed: list[int] = []
        for _ in range(times):
            await until_known(node, [*siblings, *bereaved])
            await ask(wait_until, lambda: ready_spares(node), timeout_s=20.0, what="spare")
            pids = await ask(wait_healthy, node, besides=killed)
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)
            await ask(wait_healthy, node, besides=killed)
            await until_known(node, siblings)
            await echo_once(siblings)
            watch.look((await ask(node.status))["totals"])
            for peer in bereaved:
                with pytest.raises(ConnectionError):
                    await peer.connection.echo(b"anybody there?", ECHO_TIMEOUT_S)
                assert peer.connection.stateless_reset
                peer.leave()
            bereaved = await connect_to_slot(node, 0, 3)
            await echo_once(bereaved)
            watch.look((await ask(node.status))["totals"])
        for peer in bereaved:
            peer.leave()
    assert watch.backwards == []
    assert udp_inodes(node.pid) == sockets


async def connect_to_slot(node: Node, slot: int, count: int) -> list[LoadPeer]:
    """Return ``count`` connections that happen to belong to ``slot``; the others are closed."""
    found: list[LoadPeer] = []
    while len(found) < count:
        for peer in await connect_peers(node, 1):
            if peer.slot == slot:
                found.append(peer)
            else:
                peer.leave()
    return found


def test_worker_killed_five_times_is_replaced_five_times(start_node: StartNode) -> None:
    """Each replacement resets its predecessor's clients and serves new ones; counters and directory stay right."""
    node = start_node(workers=2, echo=True, settings=UNLIMITED_RATES)

    run_clients(kill_the_same_slot(node, 5), timeout_s=90)

    status = node.status()
    assert status["workers"][0]["generation"] == 6
    assert status["workers"][1]["generation"] == 1
    assert status["totals"]["worker_restarts|crashed"] == 5


def test_killed_spare_is_replaced_and_nobody_notices(start_node: StartNode) -> None:
    """The death of the standby process touches no connection; another one is ready soon."""
    node = start_node(workers=2, echo=True, settings=UNLIMITED_RATES)

    async def story() -> None:
        async with peers_of(node, 8) as peers:
            (spare,) = await ask(wait_until, lambda: ready_spares(node), timeout_s=20.0, what="spare")
            os.kill(spare, signal.SIGKILL)
            await echo_once(peers)
            await ask(
                wait_until,
                lambda: [pid for pid in ready_spares(node) if pid != spare],
                timeout_s=20.0,
                what="another spare",
            )
            await echo_once(peers)

    run_clients(story(), timeout_s=60)

    status = node.status()
    assert [worker["generation"] for worker in status["workers"]] == [1, 1]
    assert status["totals"]["stateless_resets"] == 0


def test_all_workers_killed_at_once_come_back(start_node: StartNode) -> None:
    """With one spare for four slots the node serves again within seconds, on the same sockets."""
    node = start_node(workers=WORKERS, echo=True, settings=UNLIMITED_RATES)
    sockets = udp_inodes(node.pid)

    async def story() -> None:
        peers = await connect_peers(node, 12)
        killed = node.worker_pids
        totals = CounterWatch(node)
        totals.look(node.status()["totals"])
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await ask(wait_healthy, node, besides=killed)
        totals.look((await ask(node.status))["totals"])
        assert totals.backwards == []
        for peer in peers:
            peer.connection.quic.send_ping(1)
            peer.client.flush([peer.connection])
            await until(lambda peer=peer: peer.connection.closed.is_set(), timeout_s=10.0, what="reset")  # type: ignore[misc]
            assert peer.connection.stateless_reset
            peer.leave()
        async with peers_of(node, 12) as peers:
            await echo_once(peers)
            await until_known(node, peers)

    run_clients(story(), timeout_s=60)

    assert udp_inodes(node.pid) == sockets
