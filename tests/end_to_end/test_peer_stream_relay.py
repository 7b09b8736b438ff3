"""Stream relays of a real node, and of a real ant-quic node, used by peers of the library and reached by real peers."""

import asyncio
import os
from hashlib import sha256
from pathlib import Path

import pytest

from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from antquic_server.protocol.address import SocketAddress
from support.ant_quic import AntQuicPeer
from support.load import UNLIMITED_RATES
from support.node import StartNode
from support.peers import eventually, loopback, run

pytestmark = pytest.mark.end_to_end

LOOPBACK_ALLOWED = (
    *UNLIMITED_RATES,
    "relay.bandwidth_per_peer_bytes_per_s=100000000",
    'relay.allowed_targets=["127.0.0.0/8"]',
)
STREAM_BYTES = 2_000_000
RUST_TIMEOUT_S = 30.0


async def deliver(sender: PeerConnection, receiver: PeerConnection) -> None:
    """Send a stream and have it arrive."""
    data = os.urandom(STREAM_BYTES)

    async def read() -> bytes:
        stream, digest = await receiver.accept_stream(), sha256()
        while part := await stream.read():
            digest.update(part)
        return digest.digest()

    reading = asyncio.create_task(read())
    stream = await sender.open_stream()
    await stream.write(data)
    await stream.close()
    assert await reading == sha256(data).digest()


def test_a_stranger_reaches_us_at_an_address_of_the_node(start_node: StartNode) -> None:
    """The stranger knows nothing of relays; the node's directory has the address; it is kept when the node changes."""
    node = start_node(workers=2, settings=LOOPBACK_ALLOWED)

    async def story() -> None:
        settings = loopback(known_peers=(node.address,), relay_listen=True, keep_alive_s=0.5)
        async with Endpoint(settings) as endpoint, Endpoint(loopback(relay="never")) as stranger:
            address = await endpoint.listen_relayed()
            assert str(address) in endpoint.stats().relay_addresses
            here = await stranger.connect(address)
            there = await endpoint.accept()
            assert (here.path, there.path) == ("direct", "relayed")
            assert there.relayed_by == bytes.fromhex(node.peer_id)
            await deliver(here, there)
            await deliver(there, here)
            known = [
                SocketAddress.parse(item) for entry in node.peer(endpoint.peer_id.hex()) for item in entry["advertised"]
            ]
            assert known == [address]

    run(story())


def test_a_peer_without_channels_is_reached_from_our_port_at_the_node(start_node: StartNode) -> None:
    """It declares none, so that the node says that it cannot; the stream relay of the same node can."""
    node = start_node(workers=2, settings=LOOPBACK_ALLOWED)

    async def story() -> None:
        only = loopback(known_peers=(node.address,), relay="only")
        never = loopback(known_peers=(node.address,), relay="never")
        async with Endpoint(only) as one, Endpoint(never) as other:
            here = await one.connect_peer(other.peer_id)
            there = await other.accept()
            assert here.path == "relayed"
            assert one.stats().relay_streams == 1
            await deliver(here, there)
            await deliver(there, here)
            await here.close()
            await eventually(
                lambda: node.status()["relay"]["delivered"]["stream"]["bytes"] > STREAM_BYTES, what="bytes"
            )

    run(story())


@pytest.mark.peers
def test_a_real_peer_reaches_us_at_an_address_of_the_node(start_node: StartNode, ant_quic_program: Path) -> None:
    """It only knows that address."""
    node = start_node(workers=2, settings=LOOPBACK_ALLOWED)

    async def story() -> None:
        async with Endpoint(loopback(known_peers=(node.address,))) as endpoint:
            address = await endpoint.listen_relayed()
            counting = ("--counter-test", "--counter-interval", "200")
            arguments = ("--connect", str(address), *counting)
            with AntQuicPeer([], program=ant_quic_program, arguments=arguments, allow_loopback=True) as peer:
                connection = await asyncio.wait_for(endpoint.accept(), RUST_TIMEOUT_S)
                assert connection.path == "relayed"
                assert connection.peer_id.hex() == await asyncio.to_thread(lambda: peer.peer_id)
                assert len(await asyncio.wait_for(connection.recv_message(), RUST_TIMEOUT_S)) == 8

    run(story())


@pytest.mark.peers
def test_we_reach_a_real_peer_through_our_node_only(start_node: StartNode, ant_quic_program: Path) -> None:
    """By its id; it is told of our port at the node, and what we send comes back."""
    node = start_node(workers=2, settings=LOOPBACK_ALLOWED)

    async def story() -> None:
        with AntQuicPeer([node.address], program=ant_quic_program, arguments=["--echo"], allow_loopback=True) as peer:
            await asyncio.to_thread(peer.wait_connected, node.peer_id)
            async with Endpoint(loopback(known_peers=(node.address,), relay="only")) as endpoint:
                connection = await endpoint.connect_peer(bytes.fromhex(peer.peer_id))
                assert connection.path == "relayed"
                await connection.send_message(b"through the node")
                assert await asyncio.wait_for(connection.recv_message(), RUST_TIMEOUT_S) == b"through the node"

    run(story())


@pytest.mark.peers
def test_a_real_node_gives_us_an_address(ant_quic_program: Path) -> None:
    """ant-quic itself as the relay: we are reached there by a peer that knows nothing else."""

    async def story() -> None:
        with AntQuicPeer([], program=ant_quic_program, allow_loopback=True) as node:
            place = f"127.0.0.1:{await asyncio.to_thread(lambda: node.listen_port)}"
            async with Endpoint(loopback(known_peers=(place,))) as endpoint, Endpoint(loopback()) as stranger:
                address = await endpoint.listen_relayed()
                here = await stranger.connect(SocketAddress.from_host("127.0.0.1", address.port))
                there = await asyncio.wait_for(endpoint.accept(), RUST_TIMEOUT_S)
                assert there.path == "relayed"
                await deliver(here, there)

    run(story())
