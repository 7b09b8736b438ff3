"""
The peer library's front door: an :class:`Endpoint` with sockets, a clock and coroutines around the core.

::

    async with Endpoint(PeerSettings(known_peers=("198.18.0.1:10000",))) as endpoint:
        print(endpoint.peer_id.hex(), await endpoint.external_address(timeout_s=5))
        connection = await endpoint.connect_peer(bytes.fromhex(other_peer_id))
        await connection.send_message(b"hello")
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

from antquic_server.errors import PeerError, PeerUnreachableError
from antquic_server.net.udp import PathAddress
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.connections import Connections
from antquic_server.peer.core import PeerCore
from antquic_server.peer.dials import give_up
from antquic_server.peer.factory import QuicFactory
from antquic_server.peer.keeper import Keeper
from antquic_server.peer.link import Link
from antquic_server.peer.punching import Failure
from antquic_server.peer.searches import Searches, unreachable
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.sockets import PeerSockets
from antquic_server.peer.statistics import PeerStatistics
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import ApplicationErrorCode

__all__ = ["Endpoint", "LocalFailure"]

NODE_READY_S = 1.0
"""How long to wait at the start for the nodes to tell us our address; some never do."""
KNOWN_PEERS_GRACE_S = 1.0
"""How long to wait at the start for more of the known peers, once one is connected; the others may follow later."""
CLOSE_LINGER_S = 0.02
"""Long enough for the closes to leave; nobody answers them."""


class LocalFailure(StrEnum):
    """Why a call came to nothing without anybody having been asked; the others are ``punching.Failure``."""

    NO_SOCKET = "no_socket"
    NOT_OBSERVED = "not_observed"
    NO_RELAY = "no_relay"


class Endpoint:
    """A peer; use it as an asynchronous context manager, from one event loop."""

    def __init__(self, settings: PeerSettings | None = None) -> None:
        self.settings = settings or PeerSettings()
        self._factory = QuicFactory(self.settings)
        self._core = PeerCore(
            settings=self.settings,
            own_peer_id=self._factory.identity.peer_id,
            make_client=self._factory.client,
            make_server=self._factory.server,
            path_to=self._path_to,
            local_addresses=self._local_addresses,
            unix_s=time.time,
        )
        self._sockets: PeerSockets | None = None
        self._keeper = Keeper(map(SocketAddress.parse, self.settings.known_peers), jitter=random.random)
        self._searches = Searches(self._core, self._keeper)
        self._connections = Connections(
            self._core,
            keeper=self._keeper,
            searches=self._searches,
            touch=self._touch,
            close_peer=self._close_peer,
            pump_soon=self._pump_soon,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._pump_planned = False
        self._closed = False

    # Life.

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._sockets = PeerSockets(self.settings.listen, self._burst_arrived, self._loop)
        try:
            await self._connect_known_peers()
        except BaseException:
            await self.close()
            raise
        return self

    async def _connect_known_peers(self) -> None:
        """Dial all known peers at once and go on with those that answer; the first error counts if none does."""

        async def dial(address: str) -> PeerConnection:
            # Goes on when nobody waits any more.
            return await self._connections.dialled(self._dial(address))

        dials = [asyncio.create_task(dial(text)) for text in dict.fromkeys(self.settings.known_peers)]
        try:
            connected = await _some(dials, KNOWN_PEERS_GRACE_S)
        finally:
            for waiting in dials:
                waiting.cancel()
            await asyncio.gather(*dials, return_exceptions=True)
        # A node says so once it has us in its books: before, it could not introduce anybody to us. And what several
        # say, or one at two of its ports, tells us how our NAT maps.
        with suppress(TimeoutError):
            await self._addresses_told(connected, NODE_READY_S)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection and every socket."""
        if self._closed:
            return
        self._closed = True
        if self._sockets is not None:
            # What nodes carry first: while there are connections to them, they can be told that it is over.
            self._core.close(ApplicationErrorCode.PEER_SHUTDOWN, "PeerShutdown", relayed_only=True)
            self._pump()
            self._core.relaying.hang_up()
            self._pump()
        self._core.close(ApplicationErrorCode.PEER_SHUTDOWN, "PeerShutdown")
        if self._sockets is not None:
            self._pump()
            await asyncio.sleep(CLOSE_LINGER_S)
            self._sockets.close()
        if self._timer is not None:
            self._timer.cancel()
        self._connections.end(ApplicationErrorCode.PEER_SHUTDOWN, "the endpoint was closed")
        self._searches.close()
        self._factory.close()

    # Facts.

    @property
    def peer_id(self) -> bytes:
        """Our own peer id, 32 bytes."""
        return self._core.own_peer_id

    @property
    def addresses(self) -> list[SocketAddress]:
        """Addresses of our sockets."""
        return self._open_sockets.addresses

    @property
    def connections(self) -> list[PeerConnection]:
        """Every peer that is connected now, nodes included."""
        return list(self._connections)

    def stats(self) -> PeerStatistics:
        """Return a snapshot of all figures."""
        tallies, quic = self._core.tallies, self._factory.tally
        # The greater of both: these are totals.
        tallies.drops |= self._open_sockets.drops
        tallies.drops["datagram_frame_above_mtu"] = quic.mtu_datagram_frames_dropped
        tallies.mtu_probes_sent, tallies.mtu_probes_lost = quic.mtu_probes_sent, quic.mtu_probes_lost
        tallies.mtu_black_holes = quic.mtu_black_holes
        return self._core.statistics()

    async def external_address(self, timeout_s: float = 5.0) -> SocketAddress:
        """
        Return our address as a node sees it, waiting for the first node to say so.

        Raises:
            PeerUnreachableError: Nobody did within ``timeout_s`` seconds.
        """
        try:
            await self._addresses_told(1, timeout_s)
        except TimeoutError:
            detail = f"no node has told us our address within {timeout_s} s"
            raise PeerUnreachableError("our own address", LocalFailure.NOT_OBSERVED, detail) from None
        return self._core.nat.addresses[0]

    async def _addresses_told(self, count: int, timeout_s: float) -> None:
        """Wait until as many nodes have told us our address; TimeoutError if they do not."""
        async with asyncio.timeout(timeout_s):
            while len(self._core.nat) < count:
                self._connections.address_known.clear()
                await self._connections.address_known.wait()

    # Connecting.

    async def connect(self, address: str | SocketAddress) -> PeerConnection:
        """
        Connect to a node or a peer whose address is known; nodes connected so are asked for introductions.

        Raises:
            PeerUnreachableError: Nobody answered, or the handshake failed.
            AddressDecodeError: The text is no address.

        Whoever does not wait for the end, by a timeout of its own for instance, ends the dial.
        """
        link = self._dial(address)
        try:
            return await self._connections.dialled(link)
        except asyncio.CancelledError:
            if not (link.ready or link.closed):
                give_up(link)
                self._touch(link)
            raise

    def _dial(self, address: str | SocketAddress) -> Link:
        target = SocketAddress.parse(address) if isinstance(address, str) else address
        link = None if self._closed else self._core.dial(target, time.monotonic())
        if link is None:
            self._keeper.give_up(address=target)
            detail = "no open socket of ours has that address family"
            raise PeerUnreachableError(str(target), LocalFailure.NO_SOCKET, detail)
        self._pump_soon()
        return link

    async def connect_peer(
        self, peer_id: bytes, *, via: PeerConnection | Sequence[PeerConnection] | None = None
    ) -> PeerConnection:
        """
        Return the connection to a peer, making one through a node if there is none.

        All callers share one attempt and get the same connection. While every node is away, and is being dialled again,
        the attempt waits for one.

        Args:
            peer_id: Whom to reach, 32 bytes.
            via: Nodes to ask, best first; every connected node, the newest first, if None.

        Raises:
            PeerUnreachableError: It could be reached neither directly within ``discovery_timeout_s`` nor through a node
                within another ``relay_timeout_s``; says why.
        """
        existing = self._connections.find(peer_id)
        if existing is not None and not existing.is_closed:
            return existing
        if self._closed:
            raise unreachable(peer_id.hex(), Failure.ENDPOINT_CLOSED)
        wanted = [via] if isinstance(via, PeerConnection) else via
        nodes = None if wanted is None else [connection.peer_id for connection in wanted]
        future = self._searches.future(peer_id, nodes, time.monotonic())
        self._pump()
        return await asyncio.shield(future)

    async def listen_relayed(self, timeout_s: float = 10.0) -> SocketAddress:
        """
        Be reachable at an address of a node, for peers to which no NAT of ours lets anything else through.

        The node carries what arrives there over our connection to it, and is told to say that we can be reached so;
        connections come out of :meth:`accept`. When that connection ends, another relay is asked for, with another
        address: ``relay_address`` is the present one.

        Raises:
            PeerUnreachableError: No node has given us one within ``timeout_s`` seconds; says why.
        """
        self._core.relaying.listener.want(time.monotonic())
        self._pump_soon()
        try:
            async with asyncio.timeout(timeout_s):
                while self.relay_address is None:
                    self._connections.relay_changed.clear()
                    await self._connections.relay_changed.wait()
        except TimeoutError:
            refusal = self._connections.relay_refusal or "no node has answered"
            raise PeerUnreachableError("a relay", LocalFailure.NO_RELAY, refusal) from None
        address = self.relay_address
        assert address is not None, "waited for above"
        return address

    @property
    def relay_address(self) -> SocketAddress | None:
        """The address of a node at which we can be reached, see :meth:`listen_relayed`."""
        return self._core.relaying.listener.address

    async def accept(self) -> PeerConnection:
        """Return the next peer that has connected to us without our asking; PeerError once the endpoint is closed."""
        return await self._connections.incoming.get()

    async def incoming(self) -> AsyncIterator[PeerConnection]:
        """Yield every peer that connects to us without our asking, until the endpoint is closed."""
        while True:
            try:
                connection = await self.accept()
            except PeerError:
                return
            yield connection

    # Driving the core.

    @property
    def _open_sockets(self) -> PeerSockets:
        assert self._sockets is not None, "use the endpoint inside `async with`"
        return self._sockets

    def _path_to(self, address: SocketAddress) -> PathAddress | None:
        return self._open_sockets.path_to(address)

    def _local_addresses(self) -> list[SocketAddress]:
        return self._open_sockets.reachable_addresses()

    def _burst_arrived(self, received: list[tuple[bytes, PathAddress]]) -> None:
        now_s = time.monotonic()
        for data, path in received:
            self._core.receive_datagram(data, path, now_s)
        self._pump()

    def _timer_fired(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        self._core.handle_timer(now_s)
        for address in self._keeper.due(now_s):
            if self._core.dial(address, now_s) is None:
                self._keeper.give_up(address=address)
        self._searches.handle_timer(now_s)
        self._pump()

    def _touch(self, link: Link) -> None:
        """Flush a connection in the next turn of the loop: whoever writes twice is sent once."""
        self._core.links.touch(link)
        self._pump_soon()

    def _pump_soon(self) -> None:
        if not self._pump_planned and not self._closed:
            self._pump_planned = True
            self._loop.call_soon(self._pump)

    def _close_peer(self, peer_id: bytes, code: int, reason: str) -> None:
        self._keeper.give_up(peer_id=peer_id)
        self._core.close_peer(peer_id, code, reason)
        self._pump()

    def _pump(self) -> None:
        self._pump_planned = False
        sockets = self._open_sockets
        out, moved = self._core.flush(time.monotonic())
        for path, datagrams in out:
            sockets.send(path, datagrams)
        for event in self._core.take_events():
            self._connections.handle(event)
        for link in moved:
            self._connections.moved(link)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = (self._core.next_deadline_s(), self._keeper.next_deadline_s())
        deadline_s = min((at_s for at_s in times if at_s is not None), default=None)
        if deadline_s is not None and not self._closed:
            self._timer = self._loop.call_later(max(0.0, deadline_s - time.monotonic()), self._timer_fired)


async def _some(dials: Collection[asyncio.Task[PeerConnection]], grace_s: float) -> int:
    """Wait until one has succeeded and ``grace_s`` more for the others; return how many have, or raise why none has."""
    pending = set(dials)
    connected = 0
    while pending and not connected:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        connected = _succeeded(dials)
    if pending:
        await asyncio.wait(pending, timeout=grace_s)
        connected = _succeeded(dials)
    if dials and not connected:
        await next(iter(dials))
    return connected


def _succeeded(dials: Collection[asyncio.Task[PeerConnection]]) -> int:
    return sum(dial.done() and dial.exception() is None for dial in dials)
