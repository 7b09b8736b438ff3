"""A bit of everything for a node to do, from a thread: echoes, handshakes, introductions, relaying, refusals."""

import asyncio
import math
import os
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from antquic_server.bench.load_client import ClientSettings
from antquic_server.errors import AntQuicError
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from antquic_server.protocol.profiles import CLASSICAL_GROUPS, HandshakeProfile
from support.coordination import request
from support.forwarder import UdpForwarder
from support.load import UNLIMITED_RATES, LoadPeer, WatchedClient, client_pool, connect_peers, node_port, start_peer
from support.node import Node
from support.peers import loopback
from support.relay_client import RelayClient, third_party

__all__ = ["BUSY_ARGUMENTS", "BUSY_SETTINGS", "busy"]

BUSY_ARGUMENTS = ("--listen", "127.0.0.2:0")
"""A second address, by which peers can tell how their NAT maps."""

BUSY_SETTINGS = (
    *UNLIMITED_RATES,
    "nat.coordination_rate_per_s=100.0",
    "relay.canary_interval_s=0.5",
    "relay.allowed_targets=['127.0.0.0/8']",
)
"""What a node needs to be busied from one address."""

PEERS = 20
TIDE_S = 24.0
"""The traffic rises and falls, so that a chart of it has a shape."""
STOP_TIMEOUT_S = 20.0
NOBODY = b"nobody's key hashes to this id.."


@dataclass(slots=True)
class _Load:
    node: Node
    stop: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            self.error = error

    async def _main(self) -> None:
        async with AsyncExitStack() as stack:
            peers = await connect_peers(self.node, PEERS)
            for peer in peers:
                stack.callback(peer.leave)
            stories: list[Coroutine[Any, Any, None]] = [self._echo(peer, number) for number, peer in enumerate(peers)]
            stories += [self._come_and_go(), self._misbehave(), self._meet(stack)]
            stories += [self._relay_channel(stack), self._relay_stream()]
            await asyncio.gather(*stories)

    def _tide(self) -> float:
        """Between a third and one."""
        return 2 / 3 + math.sin(asyncio.get_running_loop().time() * 2 * math.pi / TIDE_S) / 3

    async def _echo(self, peer: LoadPeer, number: int) -> None:
        while not self.stop.is_set():
            try:
                await peer.connection.echo_datagram(bytes(300 + 40 * number), 5.0)
            except ConnectionError:
                peer = await self._dial_again(peer)
            await asyncio.sleep(0.06 / self._tide())
        peer.leave()

    async def _dial_again(self, peer: LoadPeer) -> LoadPeer:
        """Its worker has died, which is what some tests are about."""
        peer.leave()
        peer = start_peer(self.node)
        with suppress(ConnectionError):
            await peer.connection.wait_connected(5.0)
        return peer

    async def _come_and_go(self) -> None:
        """Peers that only want to know their address."""
        while not self.stop.is_set():
            peer = start_peer(self.node)
            with suppress(ConnectionError):
                await peer.connection.wait_connected(5.0)
            peer.leave()
            await asyncio.sleep(0.25 / self._tide())

    async def _misbehave(self) -> None:
        """What nodes hear all day: noise, clients of yesterday, questions for peers that are not there."""
        peer = start_peer(self.node)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            noise.connect(("127.0.0.1", node_port(self.node)))
            number = 0
            while not self.stop.is_set():
                number += 1
                noise.send(os.urandom(40))
                if peer.connection.closed.is_set():
                    peer = await self._dial_again(peer)
                elif peer.connection.connected.is_set():
                    ask = request(bytes.fromhex(peer.peer_id), NOBODY, request_id=number)
                    peer.connection.quic.send_message(ask)
                    peer.client.flush([peer.connection])
                if number % 5 == 0:
                    await self._dial_classically()
                await asyncio.sleep(0.4)
        peer.leave()

    async def _dial_classically(self) -> None:
        client = WatchedClient(workers=int(self.node.ready["workers"]))
        settings = ClientSettings(pqc=client_pool(), profile=HandshakeProfile.CLASSICAL, groups=CLASSICAL_GROUPS)
        connection = client.connect("127.0.0.1", node_port(self.node), settings)
        with suppress(ConnectionError):
            await connection.wait_connected(2.0)
        client.close()

    async def _relay_stream(self) -> None:
        """A peer as ant-quic has them, with a port of the node's, and somebody who answers there."""
        peer = start_peer(self.node)
        session: RelayClient | None = None
        async with third_party(echo=True) as party:
            while not self.stop.is_set():
                if peer.connection.closed.is_set():
                    session, peer = None, await self._dial_again(peer)
                elif session is None and peer.connection.connected.is_set():
                    session = await RelayClient.open(peer.connection)
                elif session is not None:
                    session.send(party.address, *(bytes(1000) for _ in range(round(4 * self._tide()))))
                    session.collect().clear()
                    party.received.clear()
                await asyncio.sleep(0.1)
        peer.leave()

    async def _relay_channel(self, stack: AsyncExitStack) -> None:
        """Two peers of our library that only talk through the node."""
        settings = loopback(known_peers=(self.node.address,), relay="only")
        one = await stack.enter_async_context(Endpoint(settings))
        other = await stack.enter_async_context(Endpoint(settings))
        connection: PeerConnection | None = None
        while not self.stop.is_set():
            try:
                if connection is None:
                    connection = await one.connect_peer(other.peer_id)
                for _ in range(round(8 * self._tide())):
                    connection.send_datagram(bytes(1000))
                await asyncio.sleep(0.05)
            except (AntQuicError, ConnectionError):
                connection = None
                await asyncio.sleep(0.2)

    async def _meet(self, stack: AsyncExitStack) -> None:
        """
        Peers of our library that are introduced to each other, every pair of them, and try to do without the node.

        Two of them seem to be behind a NAT that maps by destination: what they say to the node's second address takes
        the way over a forwarder.
        """
        first, second = (f"127.0.0.{last}" for last in (1, 2))
        address = f"{second}:{node_port(self.node, second)}"
        nat = stack.enter_context(UdpForwarder((second, node_port(self.node, second))))
        mapped = f"{first}:{nat.port}"
        endpoints = []
        for other in (address, address, address, mapped, mapped):
            known = (f"{first}:{node_port(self.node, first)}", other)
            settings = loopback(known_peers=known, relay="never", discovery_timeout_s=3.0)
            endpoints.append(await stack.enter_async_context(Endpoint(settings)))
        for number, pair in enumerate(combinations(endpoints, 2)):
            if not self.stop.is_set():
                initiator, target = reversed(pair) if number % 3 == 0 else pair
                with suppress(AntQuicError):
                    await initiator.connect_peer(target.peer_id)


@contextmanager
def busy(node: Node) -> Iterator[None]:
    """
    Busy the node during the ``with`` block; it must echo and have ``BUSY_SETTINGS`` and ``BUSY_ARGUMENTS``.

    Raises:
        AssertionError: The clients ended by themselves, or did not end in time.
    """
    load = _Load(node)
    thread = threading.Thread(target=load.run, name="busy")
    thread.start()
    try:
        yield
    finally:
        load.stop.set()
        thread.join(STOP_TIMEOUT_S)
    assert not thread.is_alive(), "the clients did not end"
    assert load.error is None, repr(load.error)
