"""Top talkers of a real node: what its workers report, and what it relays, add up to who is busy now."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.channel_peer import channel_peer, open_channel
from support.load import UNLIMITED_RATES, ask, connect_peers, run_clients
from support.node import Node, StartNode

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

PATIENCE_S = 30.0
TRAIN = [bytes([number]) * 1000 for number in range(16)]


async def talkers(node: Node) -> dict[str, dict[str, Any]]:
    """The talkers of a node by peer id."""
    return {row["peer_id"]: row for row in (await ask(node.status))["talkers"]}


def test_busy_peer_is_listed_until_its_worker_dies(start_node: StartNode) -> None:
    """With its address and bytes; a report of a dead worker is gone with it, those of the others stay."""
    node = start_node(workers=2, echo=True, settings=UNLIMITED_RATES)

    async def story() -> None:
        peers = await connect_peers(node, 16)
        by_slot = {peer.slot: peer for peer in peers}
        assert sorted(by_slot) == [0, 1]
        payload = os.urandom(20_000)

        async def both_listed() -> bool:
            for peer in by_slot.values():
                assert await peer.connection.echo(payload, 10.0) == payload
            found = await talkers(node)
            return all(found.get(peer.peer_id, {}).get("sent_bytes_per_s", 0) > 0 for peer in by_slot.values())

        await _repeat_until(both_listed)
        found = await talkers(node)
        for slot, peer in by_slot.items():
            row = found[peer.peer_id]
            own = peer.own_address
            assert (row["slot"], row["host"], row["port"]) == (slot, "127.0.0.1", own.port)
            assert 20_000 < row["bytes_received"] <= peer.client.traffic["bytes_sent"]
        os.kill(node.status()["workers"][0]["pid"], signal.SIGKILL)

        async def dead_one_is_gone() -> bool:
            assert await by_slot[1].connection.echo(payload, 10.0) == payload
            found = await talkers(node)
            return by_slot[0].peer_id not in found and by_slot[1].peer_id in found

        await _repeat_until(dead_one_is_gone)
        for peer in peers:
            peer.leave()

    run_clients(story(), timeout_s=90)


def test_relayed_bytes_are_those_of_who_asked_for_the_channel(start_node: StartNode) -> None:
    """Though they flow between two other addresses, and through whichever worker owns the channel."""
    node = start_node(workers=2)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            a = await stack.enter_async_context(channel_peer(node, slot=0))
            b = await stack.enter_async_context(channel_peer(node, slot=0))
            channel = await open_channel(a, b)
            sent = 0

            async def listed() -> bool:
                nonlocal sent
                a.leg.send_data(channel.channel_id, *TRAIN)
                sent += sum(len(payload) + 8 for payload in TRAIN)
                b.leg.poll()
                row = (await talkers(node)).get(a.peer_id.hex(), {})
                return bool(row.get("relayed_bytes_per_s", 0) > 0 and row["relayed_bytes"] > 3 * len(TRAIN) * 1000)

            await _repeat_until(listed)
            found = await talkers(node)
            row = found[a.peer_id.hex()]
            assert row["relayed_bytes"] <= sent
            assert row["sent_bytes_per_s"] >= row["relayed_bytes_per_s"]
            assert found.get(b.peer_id.hex(), {}).get("relayed_bytes", 0) == 0

    run_clients(story(), timeout_s=90)


async def _repeat_until(step: Callable[[], Awaitable[bool]]) -> None:
    """Repeat a step until it says that it is enough."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not await step():
        assert time.monotonic() < deadline_s, f"not within {PATIENCE_S} s"
        await asyncio.sleep(0.1)
