"""Peers of the library on the workers of a real node: the same one, different ones, and ones that are killed."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from support.load import UNLIMITED_RATES, a_few_at_once, ask, wait_healthy
from support.node import Node, StartNode
from support.peers import eventually, loopback, run
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

SETTINGS = (*UNLIMITED_RATES, "nat.coordination_rate_per_s=100.0", "nat.coordination_burst=100")
KEEP_ALIVE_S = 0.5
"""So that a peer notices soon that its worker has been killed: it is told so when it next sends something."""
PEERS = 30
PAIRS = 40


@asynccontextmanager
async def peer_of(node: Node) -> AsyncIterator[Endpoint]:
    """Run an endpoint that knows the node and is listed there."""
    async with Endpoint(loopback(known_peers=(node.address,), keep_alive_s=KEEP_ALIVE_S)) as endpoint:
        await slot_of(node, endpoint)
        yield endpoint


async def slot_of(node: Node, endpoint: Endpoint, *, other_than: int | None = None) -> int:
    """Return the slot whose worker has the peer, by the word of the node, once it is another than ``other_than``."""

    def slots() -> list[int]:
        return [item["slot"] for item in node.peer(endpoint.peer_id.hex()) if item["slot"] != other_than]

    return int((await ask(wait_until, slots, timeout_s=10.0, what="directory entry"))[0])


async def peers_on(stack: AsyncExitStack, node: Node, slots: Sequence[int]) -> list[Endpoint]:
    """Run a peer on each of the slots; those that land elsewhere leave again."""
    found: dict[int, Endpoint] = {}
    for _ in range(100):
        async with AsyncExitStack() as trial:
            endpoint = await trial.enter_async_context(peer_of(node))
            slot = await slot_of(node, endpoint)
            place = next((at for at, wanted in enumerate(slots) if wanted == slot and at not in found), None)
            if place is not None:
                found[place] = endpoint
                stack.push_async_exit(trial.pop_all())
        if len(found) == len(slots):
            return [found[at] for at in range(len(slots))]
    raise AssertionError(f"no peers on the slots {slots}: {found}")


async def meet(one: Endpoint, other: Endpoint) -> None:
    """Connect one to the other through the node, and deliver bytes both ways on a stream and as messages."""
    here = await one.connect_peer(other.peer_id)
    there = await other.accept()
    assert there.peer_id == one.peer_id
    assert (here.path, there.path) == ("punched", "punched")
    await delivers(here, there)
    await delivers(there, here)


async def delivers(sender: PeerConnection, receiver: PeerConnection) -> None:
    """Send a stream and a message, and have them arrive."""
    data = os.urandom(20_000)
    stream = await sender.open_stream()
    await stream.write(data)
    await stream.close()
    assert await (await receiver.accept_stream()).read_exactly(len(data)) == data
    await sender.send_message(data[:100])
    assert await receiver.recv_message() == data[:100]


async def part(one: Endpoint, other: Endpoint) -> None:
    """Close the connection between two peers, so that they have to meet anew."""
    here = await one.connect_peer(other.peer_id)
    there = await other.connect_peer(one.peer_id)
    await here.close()
    await asyncio.wait_for(there.closed.wait(), 5)


@pytest.mark.parametrize("slots", [(0, 1), (1, 0), (1, 1)], ids=["other worker", "and back", "same worker"])
def test_peers_meet_whichever_workers_they_are_on(start_node: StartNode, slots: tuple[int, int]) -> None:
    """Chosen by where the node says they are; bytes arrive both ways, and again after they have parted."""
    node = start_node(workers=2, settings=SETTINGS)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            one, other = await peers_on(stack, node, slots)
            await meet(one, other)
            await part(one, other)
            await meet(other, one)

    run(story())


def test_peers_meet_again_after_a_worker_was_killed(start_node: StartNode) -> None:
    """Both reconnect by themselves, the one whose worker lives has nothing to do, and they meet as before."""
    node = start_node(workers=2, settings=SETTINGS)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            one, other, third, fourth = await peers_on(stack, node, (0, 1, 0, 0))
            await meet(one, other)
            await part(one, other)
            before = {endpoint: endpoint.connections for endpoint in (one, other, third, fourth)}
            killed = await ask(lambda: node.worker_pids)
            os.kill(killed[1], signal.SIGKILL)

            # The pairs of the other worker do not notice, and one who asks for the lost peer is told at once.
            await meet(third, fourth)
            await ask(wait_healthy, node, besides=killed[1:])
            await eventually(lambda: other.connections not in ([], before[other]), what="return of the peer")
            await slot_of(node, other)
            await meet(one, other)
            await part(one, other)
            await meet(other, one)
            assert one.connections[0] is before[one][0]
            assert other.stats().connected_nodes == 1

    run(story())


def test_peer_that_asks_a_killed_worker_is_served_by_its_successor(start_node: StartNode) -> None:
    """It learns of its loss from the answer to its request, reconnects and asks again: its caller notices nothing."""
    node = start_node(workers=2, settings=SETTINGS)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            one, other = await peers_on(stack, node, (0, 1))
            killed = await ask(lambda: node.worker_pids)
            os.kill(killed[0], signal.SIGKILL)
            await meet(one, other)
            assert one.stats().successful_hole_punches == 1

    run(story())


def test_peers_outlast_a_restart_of_the_whole_node(start_node: StartNode) -> None:
    """The node closes every connection and comes back at the same address with the same key: so do its peers."""
    before = start_node(workers=2, settings=SETTINGS)
    port = before.port
    again = [f"--listen=127.0.0.1:{port}", f"--identity={before.identity_path}"]

    async def story() -> None:
        async with peer_of(before) as one, peer_of(before) as other:
            await ask(before.stop)
            await eventually(lambda: not (one.connections or other.connections), what="end of the connections")
            search = asyncio.create_task(one.connect_peer(before_id))
            node = await ask(start_node, workers=2, settings=SETTINGS, arguments=again)
            assert (await search).peer_id.hex() == node.peer_id
            await slot_of(node, one)
            await slot_of(node, other)
            await meet(one, other)

    before_id = bytes.fromhex(before.peer_id)
    run(story())


def test_thirty_peers_on_four_workers_meet_in_random_pairs(start_node: StartNode) -> None:
    """Every pair delivers both ways, also while a worker is down; those who were on it are back afterwards."""
    # Without a spare it takes the node a second or so to replace a worker.
    node = start_node(workers=4, settings=(*SETTINGS, "endpoint.standby_workers=0"))
    randomness = random.Random(20251125)

    async def story() -> None:
        async with AsyncExitStack() as stack:

            async def start(_: int) -> Endpoint:
                return await stack.enter_async_context(peer_of(node))

            endpoints = await a_few_at_once(start, range(PEERS))
            slots = {endpoint: await slot_of(node, endpoint) for endpoint in endpoints}
            spread = Counter(slots.values())
            print(f"peers by worker: {dict(spread)}")
            assert len(spread) > 1

            used: set[frozenset[Endpoint]] = set()

            async def meet_pairs(among: Sequence[Endpoint], count: int) -> None:
                """Each peer in one pair at a time, and no pair twice."""
                while count > 0:
                    shuffled = randomness.sample(among, len(among))
                    fresh = [
                        (one, other)
                        for one, other in zip(shuffled[::2], shuffled[1::2], strict=False)
                        if frozenset((one, other)) not in used
                    ][:count]
                    used.update(map(frozenset, fresh))
                    await a_few_at_once(lambda pair: meet(*pair), fresh)
                    count -= len(fresh)

            await meet_pairs(endpoints, PAIRS)
            lost = spread.most_common(1)[0][0]
            killed = await ask(lambda: node.worker_pids)
            os.kill(killed[lost], signal.SIGKILL)
            await ask(wait_until, lambda: not node.healthy(), timeout_s=5.0, what="loss of a worker")
            await meet_pairs([endpoint for endpoint in endpoints if slots[endpoint] != lost], PAIRS // 4)
            await ask(wait_healthy, node, besides=[killed[lost]])
            await eventually(
                lambda: all(endpoint.stats().connected_nodes == 1 for endpoint in endpoints), what="return of all"
            )
            for endpoint in endpoints:
                await slot_of(node, endpoint)
            await meet_pairs(endpoints, PAIRS // 2)

    run(story())
