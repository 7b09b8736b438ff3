"""Channels of a real node, opened for the benchmark."""

import asyncio

import pytest

from antquic_server.bench import relay_channel
from antquic_server.bench.cpu_time import process_cpu_s
from antquic_server.bench.node_process import running_node
from antquic_server.bench.relay_channel import connect_peers, open_channels
from antquic_server.bench.relay_contender import Load, running_load
from antquic_server.bench.relay_place import RECEIVER, SENDER, Place, open_place
from antquic_server.errors import CannotBootError
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.pool import PqcPool
from antquic_server.protocol.relay_control import ChannelAnswer, ChannelRefused, ChannelRequest

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def pool() -> PqcPool:
    """Contexts for the peers."""
    return PqcPool(CryptographyProvider(), 10)


def _relay(place: Place, pool: PqcPool) -> None:
    async def scenario() -> None:
        async with (
            open_channels(place, node, pool, 2) as contender,
            running_load([contender], []) as process,
        ):
            assert len({session.header(0) for session in contender.sessions}) == 2
            for train in (1, 8):
                load = Load(sessions=2, train=train, payload_bytes=1200, seconds=0.05)
                result = await process.measure(contender, load)
                assert result.delivered > 0
                assert result.silent_sessions == 0
                assert 0 < result.cpu_s < process_cpu_s(node.pid)

    with running_node(where=place.server) as node:
        asyncio.run(scenario())


def test_two_channels_relay(pool: PqcPool) -> None:
    """Requested, offered, accepted, bound, and bound again before each load."""
    with open_place("loopback") as place:
        _relay(place, pool)


def test_two_channels_relay_across_namespaces(pool: PqcPool, root: None) -> None:
    """The node is reached at another address from each side."""
    with open_place("namespaces") as place:
        _relay(place, pool)


def test_refusal_of_the_node_ends_the_benchmark(pool: PqcPool) -> None:
    """With the word the node has for it."""

    async def scenario() -> None:
        async with open_channels(place, node, pool, 1):
            pass

    with (
        open_place("loopback") as place,
        running_node("--set", "relay.enabled=false") as node,
        pytest.raises((CannotBootError, ConnectionError)),
    ):
        asyncio.run(scenario())


def test_refusal_of_the_target_ends_the_benchmark(pool: PqcPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that declines, as none of the benchmark's does."""

    def declining(*, channel_id: bytes, accepted: bool) -> ChannelAnswer:
        return ChannelAnswer(channel_id=channel_id, accepted=not accepted)

    monkeypatch.setattr(relay_channel, "ChannelAnswer", declining)

    async def scenario() -> None:
        async with open_channels(place, node, pool, 1):
            pass

    with (
        open_place("loopback") as place,
        running_node() as node,
        pytest.raises(CannotBootError, match="target_declined"),
    ):
        asyncio.run(scenario())


def test_peers_talk_with_the_node_about_channels(pool: PqcPool) -> None:
    """Messages go both ways; a peer that nobody knows is refused."""

    async def scenario() -> None:
        address = ("127.0.0.1", node.port)
        async with (
            connect_peers(place, SENDER, address, pool, 1) as (initiator,),
            connect_peers(place, RECEIVER, address, pool, 1) as (target,),
        ):
            initiator.send(ChannelRequest(request_id=7, target=bytes(32)))
            refused = await initiator.receive()
            assert isinstance(refused, ChannelRefused)
            assert (refused.request_id, refused.reason) == (7, "target_unknown")

            opened, offer = await relay_channel._open(initiator, target)
            assert offer.initiator == initiator.peer_id
            assert opened.target == target.peer_id
            assert opened.channel_id == offer.channel_id
            assert opened.key != offer.key

    with open_place("loopback") as place, running_node() as node:
        asyncio.run(scenario())


def test_binds_that_nobody_answers_end_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither silence nor noise is a bound leg."""
    monkeypatch.setattr(relay_channel, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(relay_channel, "_BIND_REPEAT_S", 0.05)
    with open_place("loopback") as place, place.udp(SENDER) as sock, place.udp(RECEIVER) as node:
        leg = relay_channel._Leg(sock=sock, node=node.getsockname(), channel_id=bytes(7), key=bytes(32))
        node.sendto(b"noise", sock.getsockname())

        with pytest.raises(CannotBootError, match="does not answer the bind"):
            leg.bind()
