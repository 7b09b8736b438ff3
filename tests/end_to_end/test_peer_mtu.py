"""Path MTU discovery between two peers with real sockets: over loopback, a black hole, and a narrow link."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from antquic_server.net.sockets import ListenGroup, bind_slots
from antquic_server.net.udp import PathAddress, SendResult, UdpSocket
from antquic_server.peer import sockets
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.settings import PeerSettings
from support.ant_quic import AntQuicPeer
from support.node import StartNode
from support.peers import eventually, loopback, run
from support.veth import in_namespace, veth_pair

pytestmark = pytest.mark.end_to_end

TIMEOUT_S = 20.0
LINK_MTU = 1300
LARGEST_HANDSHAKE_BYTES = 1200


class WatchedSocket(UdpSocket):
    """A socket that notes the size of what it sends, and can swallow what is larger than the path carries."""

    def __init__(self, udp: UdpSocket) -> None:
        super().__init__(udp.sock, wildcard=False)
        self.sizes: list[int] = []
        self.path_carries_bytes = 65535

    def send(self, path: PathAddress, datagrams: Sequence[bytes]) -> SendResult:
        """Send, and note."""
        self.sizes += map(len, datagrams)
        result = SendResult(0, 0, 0)
        for data in datagrams:
            one = super().send(path, [data]) if len(data) <= self.path_carries_bytes else SendResult(1, 0, 0)
            result = SendResult(result.sent + one.sent, result.dropped + one.dropped, one.errno or result.errno)
        return result


def watch(endpoint: Endpoint) -> WatchedSocket:
    """Watch the one socket of an endpoint."""
    opened = endpoint._open_sockets._sockets
    watched = opened[0] = WatchedSocket(opened[0])
    return watched


async def exchange(here: PeerConnection, there: PeerConnection, size: int = 1_000_000) -> None:
    """Move data both ways at once."""
    data = os.urandom(size)

    async def one_way(source: PeerConnection, sink: PeerConnection) -> None:
        stream = await source.open_stream()
        await stream.write(data)
        await stream.close()
        arriving = await sink.accept_stream()
        assert await arriving.read_exactly(size) == data

    await asyncio.wait_for(asyncio.gather(one_way(here, there), one_way(there, here)), TIMEOUT_S)


async def settled(*connections: PeerConnection, size: int) -> None:
    """Wait until all connections use datagrams of this size."""

    def reached() -> bool:
        return all(connection.path_mtu_bytes == size for connection in connections)

    await eventually(reached, timeout_s=TIMEOUT_S, what=f"path MTU of {size} bytes")


@asynccontextmanager
async def watched_pair(
    settings: PeerSettings, other_settings: PeerSettings | None = None
) -> AsyncIterator[tuple[Endpoint, Endpoint, WatchedSocket, WatchedSocket]]:
    """Run two endpoints with watched sockets."""
    async with Endpoint(settings) as one, Endpoint(other_settings or settings) as other:
        yield one, other, watch(one), watch(other)


def test_both_roles_find_the_maximum_after_a_handshake_of_the_initial_size() -> None:
    """1452 bytes each way from one probe each; until then, with keys and signatures of 5 kB each, 1200 at most."""

    async def story() -> None:
        async with watched_pair(loopback()) as (one, other, mine, theirs):
            here = await one.connect(other.addresses[0])
            there = await other.accept()
            await settled(here, there, size=1452)
            for watched in (mine, theirs):
                first_large = next(index for index, size in enumerate(watched.sizes) if size > LARGEST_HANDSHAKE_BYTES)
                assert sum(watched.sizes[:first_large]) > 5000
                assert max(watched.sizes) == 1452
            await exchange(here, there)
            for endpoint, peer, watched in ((one, other, mine), (other, one, theirs)):
                statistics = endpoint.stats()
                assert statistics.path_mtu_bytes == {peer.peer_id.hex(): 1452}
                assert (statistics.mtu_probes_sent, statistics.mtu_probes_lost) == (1, 0)
                assert statistics.mtu_black_holes == 0
                assert max(watched.sizes) == 1452
                assert watched.sizes.count(1452) > 300

    run(story())


def test_a_punched_connection_probes_as_well(start_node: StartNode) -> None:
    """The peers' own, and theirs to the node."""
    node = start_node()

    async def story() -> None:
        settings = loopback(known_peers=(node.address,))
        async with watched_pair(settings) as (one, other, _, _):
            here = await one.connect_peer(other.peer_id)
            there = await other.accept()
            assert here.path == there.path == "punched"
            (to_node,) = [item for item in one.connections if item is not here]
            await settled(here, there, to_node, size=1452)
            await exchange(here, there, 100_000)

    run(story())


def test_the_maximum_for_tunnels_is_never_exceeded() -> None:
    """``mtu_max = 1280`` at one end: neither data nor a probe of it is larger; the other end decides for itself."""

    async def story() -> None:
        async with watched_pair(loopback(mtu_max=1280), loopback()) as (one, other, mine, theirs):
            here = await one.connect(other.addresses[0])
            there = await other.accept()
            await settled(here, size=1280)
            await settled(there, size=1452)
            await exchange(here, there)
            assert max(mine.sizes) == 1280
            assert mine.sizes.count(1280) > 300
            assert max(theirs.sizes) == 1452

    run(story())


def test_discovery_can_be_switched_off() -> None:
    """``mtu_max`` = ``mtu_initial``: nothing is probed."""

    async def story() -> None:
        settings = loopback(mtu_initial=1300, mtu_max=1300)
        async with watched_pair(settings) as (one, other, mine, theirs):
            here = await one.connect(other.addresses[0])
            await exchange(here, await other.accept())
            assert max(mine.sizes) == max(theirs.sizes) == 1300
            assert one.stats().mtu_probes_sent == other.stats().mtu_probes_sent == 0

    run(story())


def test_a_black_hole_is_noticed_in_mid_transfer() -> None:
    """The path stops carrying what it did: every byte arrives all the same, in smaller datagrams."""

    async def story() -> None:
        async with watched_pair(loopback()) as (one, other, mine, theirs):
            here = await one.connect(other.addresses[0])
            there = await other.accept()
            await settled(here, there, size=1452)
            for watched in (mine, theirs):
                watched.path_carries_bytes = 1300
            await exchange(here, there)
            assert here.path_mtu_bytes <= 1300
            assert one.stats().mtu_black_holes >= 1

    run(story())


@pytest.mark.peers
def test_a_real_peer_is_sent_what_the_path_carries(ant_quic_program: Path) -> None:
    """It acknowledges our probe, answers our ping, and echoes what comes in large datagrams."""

    async def story() -> None:
        with AntQuicPeer([], program=ant_quic_program, arguments=["--echo"], allow_loopback=True) as peer:
            port = await asyncio.to_thread(lambda: peer.listen_port)
            async with Endpoint(loopback()) as endpoint:
                connection = await endpoint.connect(f"127.0.0.1:{port}")
                assert await connection.ping() > 0
                await settled(connection, size=1452)
                data = os.urandom(100_000)
                await connection.send_message(data)
                assert await asyncio.wait_for(connection.recv_message(), TIMEOUT_S) == data
                assert endpoint.stats().mtu_probes_lost == 0

    run(story())


@pytest.mark.parametrize("version", [4, 6])
def test_a_narrow_link_is_found_to_the_byte(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Both ends settle at 1300 less the headers; what the link refuses is a lost probe, and no error."""
    index, headers = (0, 28) if version == 4 else (1, 48)
    expected = LINK_MTU - headers
    with veth_pair(LINK_MTU) as link:
        places = {link.near_hosts[index]: link.near, link.far_hosts[index]: link.far}

        def bind_inside(listen: Sequence[str], count: int) -> list[ListenGroup]:
            (namespace,) = [name for host, name in places.items() if host in listen[0]]
            return in_namespace(namespace, lambda: bind_slots(listen, count))

        monkeypatch.setattr(sockets, "bind_slots", bind_inside)
        near, far = [PeerSettings(listen=(f"{host}:0" if version == 4 else f"[{host}]:0",)) for host in places]

        async def story() -> None:
            async with watched_pair(near, far) as (one, other, _, _):
                here = await one.connect(other.addresses[0])
                there = await other.accept()
                await settled(here, there, size=expected)
                await exchange(here, there)
                for endpoint in (one, other):
                    statistics = endpoint.stats()
                    assert statistics.mtu_probes_lost >= 3
                    assert statistics.mtu_black_holes == 0
                    assert statistics.drops["above_link_mtu"] >= 3
                    assert "send_error" not in statistics.drops

        run(story())
