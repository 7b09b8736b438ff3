"""What the core tells, handed to whoever waits; the rest is tested with whole endpoints."""

import asyncio

import pytest

from antquic_server.errors import PeerUnreachableError
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.events import PathChanged, RelayListening
from antquic_server.peer.link import Link
from support.peers import Couple, eventually, loopback, run, with_couple
from support.stand_in import StandIn, public_key_of


def test_a_waiter_for_a_path_is_told() -> None:
    """Of the path there is, of one that comes, and of the end."""

    async def story(couple: Couple) -> None:
        assert await couple.here.wait_for_path("direct", "punched") == "direct"
        waiting = asyncio.create_task(couple.here.wait_for_path("punched"))
        await asyncio.sleep(0)
        couple.here._link.punched = True
        couple.one._connections.handle(PathChanged(link=couple.here._link))
        assert await waiting == "punched"
        assert (couple.here.relayed_by, couple.here.why_not_direct) == (None, None)

    with_couple(story)


def test_a_change_of_nobody_we_know_is_passed_over() -> None:
    """The connection may be gone meanwhile."""

    async def story() -> None:
        async with Endpoint(loopback()) as endpoint:
            quic = StandIn(public_key=public_key_of("x"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
            link = Link(number=1, quic=quic, path=("198.18.0.1", 1), handshake_deadline_s=None)
            endpoint._connections.handle(PathChanged(link=link))
            link.peer_id = b"X" * 32
            endpoint._connections.handle(PathChanged(link=link))
            endpoint._connections.moved(link)
            assert endpoint.connections == []

    run(story())


def test_without_a_relay_there_is_nothing_to_listen_at() -> None:
    """No node, then a node that is none: the reason is named, in time."""

    async def story() -> None:
        async with Endpoint(loopback()) as node, Endpoint(loopback()) as endpoint:
            with pytest.raises(PeerUnreachableError, match="no node has answered"):
                await endpoint.listen_relayed(timeout_s=0.1)
            assert endpoint.relay_address is None
            endpoint._connections.handle(RelayListening(address=None, reason="node_sessions"))
            with pytest.raises(PeerUnreachableError, match="node_sessions"):
                await endpoint.listen_relayed(timeout_s=0.1)
            await endpoint.connect(node.addresses[0])
            stream = await (await node.accept()).accept_stream()
            assert await stream.read_exactly(10)
            await eventually(lambda: endpoint.stats().relay_streams == 1, what="request")

    run(story())
