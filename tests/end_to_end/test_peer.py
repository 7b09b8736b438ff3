"""The peer library with a real node of two workers: reaching each other, moving data, failing with a reason."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest

from antquic_server.errors import PeerUnreachableError
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from support.node import StartNode
from support.peers import eventually, loopback, run

pytestmark = pytest.mark.end_to_end

FILE_BYTES = 5_000_000


@asynccontextmanager
async def two_peers(address: str) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
    """Run two endpoints that know one node."""
    settings = loopback(known_peers=(address,))
    async with Endpoint(settings) as one, Endpoint(settings) as other:
        yield one, other


async def digest_of_a_stream(connection: PeerConnection) -> bytes:
    """Read the next stream to its end and answer with its SHA-256."""
    stream = await connection.accept_stream()
    digest = sha256()
    while part := await stream.read():
        digest.update(part)
    await stream.write(digest.digest())
    await stream.close()
    return digest.digest()


def test_two_peers_meet_and_move_data(start_node: StartNode) -> None:
    """Streams, five megabytes with a checksum, messages and datagrams over one connection, both told how."""
    node = start_node(workers=2)
    data = os.urandom(FILE_BYTES)

    async def story() -> None:
        async with two_peers(node.address) as (one, other):
            here = await one.connect_peer(other.peer_id)
            there = await other.accept()
            assert (here.path, there.path) == ("punched", "punched")
            reader = asyncio.create_task(digest_of_a_stream(there))
            stream = await here.open_stream()
            await stream.write(data)
            await stream.close()
            assert await stream.read_exactly(32) == await reader == sha256(data).digest()
            await there.send_message(b"thanks")
            assert await here.recv_message() == b"thanks"
            assert here.send_datagram(b"quick")
            assert await there.recv_datagram() == b"quick"
            assert one.stats().successful_hole_punches == other.stats().successful_hole_punches == 1
            assert one.stats().bytes_sent > FILE_BYTES

    run(story())


def test_every_pair_of_workers_introduces(start_node: StartNode) -> None:
    """Eight peers on two workers, each reaches each: on one worker or across."""
    node = start_node(workers=2, settings=["nat.coordination_burst=100"])

    async def story() -> None:
        settings = loopback(known_peers=(node.address,))
        endpoints = [Endpoint(settings) for _ in range(8)]
        try:
            for endpoint in endpoints:
                await endpoint.__aenter__()
            for one in endpoints:
                await asyncio.gather(*(one.connect_peer(other.peer_id) for other in endpoints if other is not one))
            assert all(endpoint.stats().active_connections == len(endpoints) for endpoint in endpoints)
        finally:
            for endpoint in endpoints:
                await endpoint.close()

    run(story())
    assert all(worker["connections"] >= 0 for worker in node.status()["workers"])


def test_callers_share_one_connection(start_node: StartNode) -> None:
    """Ten at once, and another later, get the same object; the node is asked once."""
    node = start_node(workers=2)

    async def story() -> None:
        async with two_peers(node.address) as (one, other):
            connections = await asyncio.gather(*(one.connect_peer(other.peer_id) for _ in range(10)))
            assert len({id(item) for item in connections}) == 1
            assert await one.connect_peer(other.peer_id) is connections[0]
            assert one.stats().coordination_requests == 1

    run(story())


def test_both_sides_ask_at_once(start_node: StartNode) -> None:
    """One live connection is left, and both use it."""
    node = start_node(workers=2)

    async def story() -> None:
        async with two_peers(node.address) as (one, other):
            here, there = await asyncio.gather(one.connect_peer(other.peer_id), other.connect_peer(one.peer_id))
            # One connection to the node, one to the peer.
            await eventually(lambda: len(one._core.links) == len(other._core.links) == 2, timeout_s=15, what="drain")
            assert here.dialled_by_us != there.dialled_by_us
            await here.send_message(b"hello")
            assert await there.recv_message() == b"hello"
            assert one.stats().active_connections == other.stats().active_connections == 2

    run(story())


def test_an_unknown_target_is_reported_within_a_second(start_node: StartNode) -> None:
    """With the node's reason as a word and as a sentence."""
    node = start_node(workers=2)

    async def story() -> None:
        async with Endpoint(loopback(known_peers=(node.address,))) as endpoint:
            began_s = time.monotonic()
            with pytest.raises(PeerUnreachableError) as caught:
                await endpoint.connect_peer(bytes(range(32)))
            assert time.monotonic() - began_s < 1
            assert caught.value.reason == "unknown_target"
            assert caught.value.target == bytes(range(32)).hex()
            assert endpoint.stats().coordination_rejections == {"UnknownTarget": 1}
            assert endpoint.stats().failed_hole_punches == 1

    run(story())


def test_a_closed_peer_is_reached_again(start_node: StartNode) -> None:
    """By a new connection, through the node as before."""
    node = start_node(workers=2)

    async def story() -> None:
        async with two_peers(node.address) as (one, other):
            first = await one.connect_peer(other.peer_id)
            there = await other.accept()
            await there.close()
            await asyncio.wait_for(first.closed.wait(), 5)
            second = await one.connect_peer(other.peer_id)
            assert second is not first
            await second.send_message(b"again")
            assert await (await other.accept()).recv_message() == b"again"

    run(story())


def test_the_nodes_connections_of_choice_can_be_named(start_node: StartNode) -> None:
    """``via`` picks the node; one that the target does not know cannot help."""
    known, lonely = start_node(), start_node()

    async def story() -> None:
        async with two_peers(known.address) as (one, other):
            elsewhere = await one.connect(lonely.address)
            with pytest.raises(PeerUnreachableError) as caught:
                await one.connect_peer(other.peer_id, via=elsewhere)
            assert caught.value.reason == "unknown_target"
            # Asked without a preference, the newest node is first and the other one helps.
            assert (await one.connect_peer(other.peer_id)).path == "punched"
            assert one.stats().nat_mapping == "endpoint_independent"

    run(story())
