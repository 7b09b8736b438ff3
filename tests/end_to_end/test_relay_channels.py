"""Relay channels through a real node: agreed upon over the hub, carried by whichever worker owns them."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import pytest

from antquic_server.protocol.relay_channel import data_header, encode_unknown
from antquic_server.protocol.relay_control import ChannelAnswer, ChannelClosed, ChannelOffer, ChannelRefused
from antquic_server.protocol.relay_limits import Refusal, RelayEnd
from support.channel_peer import ChannelPeer, OpenChannel, channel_peer, open_channel
from support.load import run_clients, until
from support.node import Node, StartNode
from support.waiting import wait_for_value

pytestmark = pytest.mark.end_to_end

QUICK_CANARY = "relay.canary_interval_s=0.2"
REOPENED_S = 2.0


def payloads(mark: bytes, count: int = 20, size: int = 1100) -> list[bytes]:
    """Distinct payloads of one size."""
    return [(mark + b"%06d" % number).ljust(size, mark[:1]) for number in range(count)]


async def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait for something that takes milliseconds where nothing is wrong."""
    await until(condition, timeout_s=10.0, what=what)


async def exchange(channel: OpenChannel, initiator: ChannelPeer, target: ChannelPeer, mark: bytes = b"x") -> None:
    """Send trains both ways and see that they arrive as they were."""
    await pass_on(channel, initiator, target, payloads(mark + b"there"))
    await pass_on(channel, target, initiator, payloads(mark + b"back"))


async def pass_on(channel: OpenChannel, sender: ChannelPeer, receiver: ChannelPeer, sent: list[bytes]) -> None:
    """Send a train one way."""
    before = len(receiver.leg.payloads(channel.channel_id))
    sender.leg.send_data(channel.channel_id, *sent)
    await wait_for(lambda: len(receiver.leg.payloads(channel.channel_id)) == before + len(sent), "payloads")
    assert receiver.leg.payloads(channel.channel_id)[before:] == sent


async def told_unknown(channel: OpenChannel, side: ChannelPeer) -> None:
    """See that the node says, in its own name, that there is no such channel."""
    side.leg.received.clear()
    expected = encode_unknown(channel.channel_id, channel.token)

    def answered() -> bool:
        side.leg.send_data(channel.channel_id, bytes(100))
        return expected in side.leg.poll()

    await wait_for(answered, "unknown")


def pid_of(node: Node, slot: int) -> int:
    """Process that serves a slot."""
    return next(int(row["pid"]) for row in node.status()["workers"] if row["slot"] == slot)


def test_owner_is_another_worker_than_those_of_the_connections(start_node: StartNode) -> None:
    """Both peers talk to one worker and the channel is carried by the other; then the other way round."""
    node = start_node(workers=2, settings=[QUICK_CANARY])

    async def story() -> None:
        async with AsyncExitStack() as stack:
            a = await stack.enter_async_context(channel_peer(node, slot=0))
            b = await stack.enter_async_context(channel_peer(node, slot=0))
            channels = [await open_channel(a, b), await open_channel(b, a)]
            assert sorted(channel.owner for channel in channels) == [0, 1]
            await exchange(channels[0], a, b, b"x")
            await exchange(channels[1], b, a, b"y")
            for channel in channels:
                a.say(ChannelClosed(channel_id=channel.channel_id, reason="closed"))
                closed = await b.heard(ChannelClosed)
                assert (closed.channel_id, closed.reason) == (channel.channel_id, RelayEnd.CLOSED)
                await told_unknown(channel, b)

    run_clients(story(), timeout_s=60)
    closed = 'antquic_relay_sessions_closed_total{mode="channel",reason="closed"}'
    for name, expected in (("antquic_relay_datagrams_total", 80), ("antquic_relay_sessions", 0), (closed, 2)):
        wait_for_value(partial(_sum_of, node, name), expected, timeout_s=10.0, what=name)


def test_workers_prove_that_they_forward(start_node: StartNode) -> None:
    """Each of them, through the node's own port and the kernel's steering; and nobody is counted for it."""
    node = start_node(workers=2, settings=[QUICK_CANARY])

    async def story() -> None:
        for worker in ("0", "1"):
            key = f'antquic_relay_canaries_total{{mode="channel",result="ok",worker="{worker}"}}'
            await wait_for(partial(_is_on_page, node, key), key)

    run_clients(story(), timeout_s=30)
    assert not [key for key, count in node.metrics().items() if 'result="failed"' in key and count]
    assert node.total("antquic_relay_bytes_total") == 0
    assert node.total("antquic_relay_sessions") == 0
    assert "relay does not forward" not in node.log()


def _sum_of(node: Node, name: str) -> float:
    return node.metrics()[name] if "{" in name else node.total(name)


def _page(node: Node) -> bytes:
    return node.get("/metrics")[1]


def _is_on_page(node: Node, text: str) -> bool:
    return text.encode() in _page(node)


def test_death_of_the_owner(start_node: StartNode) -> None:
    """Both sides learn of it at once, a channel of the other worker is untouched, and another one opens in moments."""
    node = start_node(workers=2)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            a = await stack.enter_async_context(channel_peer(node, slot=0))
            b = await stack.enter_async_context(channel_peer(node, slot=0))
            channels = [await open_channel(a, b), await open_channel(a, b)]
            (lost,) = (channel for channel in channels if channel.owner == 1)
            (kept,) = (channel for channel in channels if channel.owner == 0)
            await exchange(lost, a, b, b"1")
            died_s = time.monotonic()
            os.kill(pid_of(node, 1), signal.SIGKILL)
            for side in (a, b):
                closed = await side.heard(ChannelClosed)
                assert (closed.channel_id, closed.reason) == (lost.channel_id, RelayEnd.WORKER_LOST)
            reopened = await open_channel(a, b)
            await exchange(reopened, a, b, b"2")
            took_s = time.monotonic() - died_s
            await exchange(kept, a, b, b"3")
            await told_unknown(lost, a)
            assert took_s < REOPENED_S

    run_clients(story(), timeout_s=60)


def test_death_of_the_worker_of_both_connections(start_node: StartNode) -> None:
    """A channel that another worker owns goes on without them: its legs are proven by keys."""
    node = start_node(workers=2)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            a = await stack.enter_async_context(channel_peer(node, slot=0))
            b = await stack.enter_async_context(channel_peer(node, slot=0))
            channels = [await open_channel(a, b), await open_channel(a, b)]
            (channel,) = (each for each in channels if each.owner == 1)
            os.kill(pid_of(node, 0), signal.SIGKILL)
            await exchange(channel, a, b)

    run_clients(story(), timeout_s=60)


def test_ipv4_and_ipv6_peers_meet(start_node: StartNode) -> None:
    """What two peers without a common address family cannot do by themselves."""
    node = start_node(workers=2, arguments=["--listen", "[::1]:0"])

    async def story() -> None:
        async with channel_peer(node) as a, channel_peer(node, host="::1") as b:
            channel = await open_channel(a, b)
            await exchange(channel, a, b)
            await exchange(await open_channel(b, a), b, a, b"y")

    run_clients(story(), timeout_s=60)


def test_leg_behind_a_nat_that_forgets(start_node: StartNode) -> None:
    """From another port the peer binds again, and is served there; a recorded bind takes nothing back."""
    node = start_node(workers=2)

    async def story() -> None:
        async with channel_peer(node) as a, channel_peer(node) as b, channel_peer(node) as thief:
            channel = await open_channel(a, b)
            await a.bind(channel.channel_id, channel.initiator_key)
            recorded = a.leg.last_bind(channel.channel_id, channel.initiator_key)
            a.leg.rebind()
            await a.bind(channel.channel_id, channel.initiator_key)
            thief.leg.send(recorded)
            thief.leg.send_data(channel.channel_id, b"from a spoofed source")
            await exchange(channel, a, b)
            assert thief.leg.poll() == []
            assert not [data for data in b.leg.received if data.startswith(data_header(channel.channel_id) + b"from")]

    run_clients(story(), timeout_s=60)
    reasons = ("replayed_bind", "unbound_source")
    drops = [f'antquic_relay_drops_total{{mode="channel",reason="{reason}"}}' for reason in reasons]
    for key in drops:
        wait_for_value(lambda key=key: node.metrics().get(key), 1, timeout_s=10.0, what=key)  # type: ignore[misc]


def test_victim_of_a_forged_bind_is_not_flooded(start_node: StartNode) -> None:
    """Both legs may be one peer's, which binds one of them in the name of somebody who never answers."""
    node = start_node(workers=2)

    async def story() -> None:
        async with channel_peer(node) as a, channel_peer(node) as b, channel_peer(node) as bystander:
            channel = await open_channel(a, b)
            victim = bystander.leg
            binds = [victim.bind(channel.channel_id, channel.target_key) for _ in range(5)]
            await wait_for(lambda: len(victim.poll()) == len(binds), "challenges")
            for mark in b"0123456789":
                await exchange(channel, a, b, bytes([mark]))
            assert len(victim.poll()) == len(binds)
            assert sum(map(len, victim.received)) <= sum(map(len, binds))
            assert not victim.payloads(channel.channel_id)

    run_clients(story(), timeout_s=60)


@pytest.mark.parametrize(
    ("settings", "target", "reason"),
    [
        ([], lambda a, b: a.peer_id, Refusal.SELF_TARGET),
        ([], lambda a, b: b"nobody".ljust(32), Refusal.TARGET_UNKNOWN),
        (["relay.enabled=false"], lambda a, b: b.peer_id, Refusal.DISABLED),
        ([], lambda a, b: b.peer_id, Refusal.TARGET_DECLINED),
    ],
)
def test_refusals_name_their_reason(
    start_node: StartNode, settings: list[str], target: Callable[[ChannelPeer, ChannelPeer], bytes], reason: Refusal
) -> None:
    """To the peer that has asked, and on the metrics page."""
    node = start_node(workers=2, settings=settings)

    async def story() -> None:
        async with channel_peer(node) as a, channel_peer(node) as b:
            request_id = a.ask(target(a, b))
            if reason is Refusal.TARGET_DECLINED:
                offer = await b.heard(ChannelOffer)
                b.say(ChannelAnswer(channel_id=offer.channel_id, accepted=False))
            refused = await a.heard(ChannelRefused)
            assert (refused.request_id, refused.reason) == (request_id, reason)
            key = f'antquic_relay_refusals_total{{mode="channel",reason="{reason}"}}'
            await wait_for(lambda: node.metrics().get(key) == 1, key)

    run_clients(story(), timeout_s=60)
