"""The peer library with real ant-quic peers: each dials the other, directly and introduced, and one introduces ours."""

import asyncio
from pathlib import Path

import pytest

from antquic_server.peer.endpoint import Endpoint
from support.ant_quic import AntQuicPeer
from support.node import StartNode
from support.peers import loopback, run
from support.waiting import wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.peers]

COUNTING = ["--counter-test", "--counter-interval", "200"]
RUST_TIMEOUT_S = 25.0


def rust(program: Path, known_peers: list[str], *arguments: str) -> AntQuicPeer:
    """Start a real peer that uses loopback addresses."""
    return AntQuicPeer(known_peers, program=program, arguments=arguments, allow_loopback=True)


def test_a_real_peer_dials_us(ant_quic_program: Path) -> None:
    """Without any node; its messages arrive, it prints our id."""

    async def story() -> None:
        async with Endpoint(loopback()) as endpoint:
            peer = rust(ant_quic_program, [], "--connect", str(endpoint.addresses[0]), *COUNTING)
            with peer:
                connection = await asyncio.wait_for(endpoint.accept(), RUST_TIMEOUT_S)
                assert connection.path == "direct"
                assert connection.peer_id.hex() == await asyncio.to_thread(lambda: peer.peer_id)
                assert len(await asyncio.wait_for(connection.recv_message(), RUST_TIMEOUT_S)) == 8
                await asyncio.to_thread(peer.wait_connected, endpoint.peer_id.hex())

    run(story())


def test_we_dial_a_real_peer(ant_quic_program: Path) -> None:
    """What we send comes back."""

    async def story() -> None:
        with rust(ant_quic_program, [], "--echo") as peer:
            port = await asyncio.to_thread(lambda: peer.listen_port)
            async with Endpoint(loopback()) as endpoint:
                connection = await endpoint.connect(f"127.0.0.1:{port}")
                await connection.send_message(b"echo me")
                assert await asyncio.wait_for(connection.recv_message(), RUST_TIMEOUT_S) == b"echo me"
                assert str((await endpoint.external_address()).host) == "127.0.0.1"

    run(story())


def test_a_real_peer_reaches_us_through_our_node(start_node: StartNode, ant_quic_program: Path) -> None:
    """By our peer id alone; both dial, and the one connection that is left stays."""
    node = start_node(workers=2)

    async def story() -> None:
        async with Endpoint(loopback(known_peers=(node.address,))) as endpoint:
            peer = rust(ant_quic_program, [node.address], "--connect-peer-id", endpoint.peer_id.hex(), *COUNTING)
            with peer:
                connection = await asyncio.wait_for(endpoint.accept(), RUST_TIMEOUT_S)
                assert connection.path == "punched"
                assert await asyncio.wait_for(connection.recv_message(), RUST_TIMEOUT_S)
                # Longer than the drain of a superseded connection on either side.
                await asyncio.sleep(6)
                assert not connection.is_closed, peer.describe()
                assert not peer.events("peer_disconnected"), peer.describe()
                assert endpoint.stats().introductions_received >= 1
                # The other side does not report how it went: one word is enough.
                await asyncio.to_thread(
                    wait_until,
                    lambda: node.status()["punches"]["successful"],
                    timeout_s=RUST_TIMEOUT_S,
                    what="successful hole punch",
                )
                link = connection.link_number
                assert await asyncio.wait_for(connection.recv_message(), RUST_TIMEOUT_S)
                assert connection.link_number == link

    run(story())


def test_we_reach_a_real_peer_through_our_node(start_node: StartNode, ant_quic_program: Path) -> None:
    """By its peer id alone."""
    node = start_node(workers=2)

    async def story() -> None:
        with rust(ant_quic_program, [node.address], "--echo") as peer:
            await asyncio.to_thread(peer.wait_connected, node.peer_id)
            peer_id = bytes.fromhex(peer.peer_id)
            async with Endpoint(loopback(known_peers=(node.address,))) as endpoint:
                connection = await endpoint.connect_peer(peer_id)
                assert connection.path == "punched"
                await connection.send_message(b"through the node")
                assert await asyncio.wait_for(connection.recv_message(), RUST_TIMEOUT_S) == b"through the node"

    run(story())


def test_a_real_node_introduces_our_peers(ant_quic_program: Path) -> None:
    """ant-quic itself as the coordinator of two of ours."""

    async def story() -> None:
        with rust(ant_quic_program, []) as node:
            address = f"127.0.0.1:{await asyncio.to_thread(lambda: node.listen_port)}"
            settings = loopback(known_peers=(address,))
            async with Endpoint(settings) as one, Endpoint(settings) as other:
                # It knows a peer a moment after it has told that peer its address.
                short_id = other.peer_id.hex()[:16]
                await asyncio.to_thread(node.wait_for, "peer_connected", lambda message: message["peer_id"] == short_id)
                here = await one.connect_peer(other.peer_id)
                await here.send_message(b"met at a real node")
                there = await asyncio.wait_for(other.accept(), RUST_TIMEOUT_S)
                assert await there.recv_message() == b"met at a real node"
                assert (here.path, there.path) == ("punched", "punched")

    run(story())
