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
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

from antquic_server.errors import PeerClosedError, PeerUnreachableError
from antquic_server.net.udp import PathAddress
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.core import PeerCore
from antquic_server.peer.events import (
    AddressObserved,
    DatagramArrived,
    DialFailed,
    LinkReady,
    LiveLinkChanged,
    MessageArrived,
    PeerEvent,
    PeerGone,
    PunchEnded,
    StreamActivity,
)
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

MAX_WAITING_CONNECTIONS = 256
"""Connections of others that wait for ``accept``; more stay usable by ``connect_peer``, and are counted."""
NODE_READY_S = 1.0
"""How long to wait at the start for the nodes to tell us our address; some never do."""
CLOSE_LINGER_S = 0.02
"""Long enough for the closes to leave; nobody answers them."""


class LocalFailure(StrEnum):
    """Why a call came to nothing without anybody having been asked; the others are ``punching.Failure``."""

    NO_SOCKET = "no_socket"
    NOT_OBSERVED = "not_observed"


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
        self._connections: dict[bytes, PeerConnection] = {}
        self._incoming: asyncio.Queue[PeerConnection] = asyncio.Queue(MAX_WAITING_CONNECTIONS)
        self._dials: dict[int, asyncio.Future[PeerConnection]] = {}
        self._keeper = Keeper(map(SocketAddress.parse, self.settings.known_peers), jitter=random.random)
        self._searches = Searches(self._core, self._keeper)
        self._address_known = asyncio.Event()
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
        """Connect to every known peer there is; the first error counts if there is none."""
        errors = []
        for text in dict.fromkeys(self.settings.known_peers):
            try:
                await self.connect(text)
            except PeerUnreachableError as error:
                errors.append(error)
        connected = len(set(self.settings.known_peers)) - len(errors)
        if errors and not connected:
            raise errors[0]
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
        self._core.close(ApplicationErrorCode.PEER_SHUTDOWN, "PeerShutdown")
        if self._sockets is not None:
            self._pump()
            await asyncio.sleep(CLOSE_LINGER_S)
            self._sockets.close()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections.values()):
            connection.ended(ApplicationErrorCode.PEER_SHUTDOWN, "the endpoint was closed")
        self._connections.clear()
        for future in self._dials.values():
            if not future.done():
                future.set_exception(unreachable("peer", Failure.ENDPOINT_CLOSED))
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
        return list(self._connections.values())

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
                self._address_known.clear()
                await self._address_known.wait()

    # Connecting.

    async def connect(self, address: str | SocketAddress) -> PeerConnection:
        """
        Connect to a node or a peer whose address is known; nodes connected so are asked for introductions.

        Raises:
            PeerUnreachableError: Nobody answered, or the handshake failed.
            AddressDecodeError: The text is no address.
        """
        target = SocketAddress.parse(address) if isinstance(address, str) else address
        link = None if self._closed else self._core.dial(target, time.monotonic())
        if link is None:
            self._keeper.give_up(address=target)
            detail = "no open socket of ours has that address family"
            raise PeerUnreachableError(str(target), LocalFailure.NO_SOCKET, detail)
        future: asyncio.Future[PeerConnection] = self._loop.create_future()
        self._dials[link.number] = future
        self._pump()
        try:
            return await future
        finally:
            self._dials.pop(link.number, None)

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
            PeerUnreachableError: It could not be reached within ``discovery_timeout_s``; says why.
        """
        existing = self._connections.get(peer_id)
        if existing is not None and not existing.is_closed:
            return existing
        if self._closed:
            raise unreachable(peer_id.hex(), Failure.ENDPOINT_CLOSED)
        wanted = [via] if isinstance(via, PeerConnection) else via
        nodes = None if wanted is None else [connection.peer_id for connection in wanted]
        future = self._searches.future(peer_id, nodes, time.monotonic())
        self._pump()
        return await asyncio.shield(future)

    async def accept(self) -> PeerConnection:
        """Return the next peer that has connected to us without our asking."""
        return await self._incoming.get()

    async def incoming(self) -> AsyncIterator[PeerConnection]:
        """Yield every peer that connects to us without our asking."""
        while True:
            yield await self.accept()

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
            self._handle(event)
        for link in moved:
            self._moved(link)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = (self._core.next_deadline_s(), self._keeper.next_deadline_s())
        deadline_s = min((at_s for at_s in times if at_s is not None), default=None)
        if deadline_s is not None and not self._closed:
            self._timer = self._loop.call_later(max(0.0, deadline_s - time.monotonic()), self._timer_fired)

    def _moved(self, link: Link) -> None:
        connection = self._connections.get(link.peer_id) if link.peer_id is not None else None
        if connection is None:
            return
        if link.closed:
            connection.link_closed(link.number, PeerClosedError(0, "another connection has taken its place"))
        connection.wake()

    # What the core tells.

    def _handle(self, event: PeerEvent) -> None:
        if isinstance(event, LinkReady):
            self._link_ready(event)
        elif isinstance(event, LiveLinkChanged):
            self._connections[event.peer_id].use(event.live)
        elif isinstance(event, PeerGone):
            self._connections.pop(event.peer_id).ended(event.code, event.reason)
            self._keeper.peer_gone(event.peer_id, time.monotonic())
        elif isinstance(event, DialFailed):
            self._keeper.dial_failed(event.link.dialled, time.monotonic())
            future = self._dials.get(event.link.number)
            if future is not None and not future.done():
                future.set_exception(PeerUnreachableError(str(event.link.dialled), event.failure, event.detail))
        elif isinstance(event, PunchEnded):
            self._searches.ended(event, time.monotonic())
            self._pump_soon()
        elif isinstance(event, AddressObserved):
            self._address_known.set()
        else:
            self._data_arrived(event)

    def _data_arrived(self, event: MessageArrived | DatagramArrived | StreamActivity) -> None:
        peer_id = event.link.peer_id
        connection = None if peer_id is None else self._connections.get(peer_id)
        if connection is None:
            return
        if isinstance(event, MessageArrived):
            connection.message_arrived(event.link, event.data)
        elif isinstance(event, DatagramArrived):
            connection.datagram_arrived(event.data)
        else:
            connection.stream_activity(event.link, event.event)

    def _link_ready(self, event: LinkReady) -> None:
        peer_id = event.link.peer_id
        assert peer_id is not None, "a link is ready only with its peer known"
        connection = self._connections.get(peer_id)
        if connection is None:
            connection = self._connections[peer_id] = PeerConnection(
                event.live,
                settings=self.settings,
                touch=self._touch,
                close_peer=self._close_peer,
                drops=self._core.tallies.drops,
            )
            if not (event.link.is_node or peer_id in self._searches):
                self._offer(connection)
        else:
            connection.use(event.live)
        future = self._dials.get(event.link.number)
        if future is not None and not future.done():
            future.set_result(connection)
        self._searches.connected(connection)
        self._node_ready(event.link, peer_id)

    def _node_ready(self, link: Link, peer_id: bytes) -> None:
        """Go on with what has waited for a node, if this is one."""
        now_s = time.monotonic()
        # One that has dialled us is the same node: it is known by its key, whoever dialled.
        link.is_node = link.is_node or self._keeper.knows(peer_id)
        self._keeper.connected(link.dialled if link.is_node else None, peer_id, now_s)
        if link.is_node:
            self._searches.node_ready(peer_id, now_s)
            self._pump_soon()

    def _offer(self, connection: PeerConnection) -> None:
        if self._incoming.full():
            self._core.tallies.drops["accept_queue_full"] += 1
        else:
            self._incoming.put_nowait(connection)
