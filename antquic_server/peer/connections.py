"""The connections of an endpoint as programs see them: what the core tells, handed to whoever waits for it."""

import asyncio
import time
from collections.abc import Callable, Iterator

from antquic_server.errors import PeerClosedError, PeerError, PeerUnreachableError
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.core import PeerCore
from antquic_server.peer.events import (
    AddressObserved,
    DatagramArrived,
    DialFailed,
    LinkReady,
    LiveLinkChanged,
    MessageArrived,
    PathChanged,
    PeerEvent,
    PeerGone,
    PunchEnded,
    RelayListening,
    StreamActivity,
)
from antquic_server.peer.inbox import Inbox
from antquic_server.peer.keeper import Keeper
from antquic_server.peer.link import Link
from antquic_server.peer.punching import Failure
from antquic_server.peer.searches import Searches, unreachable

__all__ = ["MAX_WAITING_CONNECTIONS", "Connections"]

MAX_WAITING_CONNECTIONS = 256
"""Connections of others that wait for ``accept``; more stay usable by ``connect_peer``, and are counted."""


class Connections:
    """
    Every peer that is connected.

    Args:
        touch: Has a connection flushed in the next turn of the loop.
        close_peer: Closes every connection to a peer.
        pump_soon: Has the core flushed in the next turn of the loop.
    """

    def __init__(
        self,
        core: PeerCore,
        *,
        keeper: Keeper,
        searches: Searches,
        touch: Callable[[Link], None],
        close_peer: Callable[[bytes, int, str], None],
        pump_soon: Callable[[], None],
    ) -> None:
        self.incoming: Inbox[PeerConnection] = Inbox(MAX_WAITING_CONNECTIONS)
        self.address_known = asyncio.Event()
        self.relay_changed = asyncio.Event()
        self.relay_refusal = ""
        """Why no node makes us reachable at an address of its own."""
        self._core = core
        self._keeper = keeper
        self._searches = searches
        self._touch = touch
        self._close_peer = close_peer
        self._pump_soon = pump_soon
        self._by_peer: dict[bytes, PeerConnection] = {}
        self._dials: dict[int, asyncio.Future[PeerConnection]] = {}

    def __iter__(self) -> Iterator[PeerConnection]:
        return iter(list(self._by_peer.values()))

    def find(self, peer_id: bytes) -> PeerConnection | None:
        """Return the connection to a peer."""
        return self._by_peer.get(peer_id)

    async def dialled(self, link: Link) -> PeerConnection:
        """Wait for a dial of ours; PeerUnreachableError if it comes to nothing."""
        future: asyncio.Future[PeerConnection] = asyncio.get_running_loop().create_future()
        self._dials[link.number] = future
        try:
            return await future
        finally:
            self._dials.pop(link.number, None)

    def end(self, code: int, reason: str) -> None:
        """End all of them: the endpoint is closed."""
        for connection in self:
            connection.ended(code, reason)
        self._by_peer.clear()
        self.incoming.end(PeerError(reason))
        for future in self._dials.values():
            if not future.done():
                future.set_exception(unreachable("peer", Failure.ENDPOINT_CLOSED))

    def moved(self, link: Link) -> None:
        """Take in that a connection of QUIC was looked after."""
        connection = self._by_peer.get(link.peer_id) if link.peer_id is not None else None
        if connection is None:
            return
        if link.closed:
            connection.link_closed(link.number, PeerClosedError(0, "another connection has taken its place"))
        connection.wake()

    # What the core tells.

    def handle(self, event: PeerEvent) -> None:
        """Hand one event on."""
        if isinstance(event, LinkReady):
            self._link_ready(event)
        elif isinstance(event, LiveLinkChanged):
            self._by_peer[event.peer_id].use(event.live)
        elif isinstance(event, PeerGone):
            self._by_peer.pop(event.peer_id).ended(event.code, event.reason)
            self._keeper.peer_gone(event.peer_id, time.monotonic())
        elif isinstance(event, DialFailed):
            self._keeper.dial_failed(event.link.dialled, time.monotonic())
            future = self._dials.get(event.link.number)
            if future is not None and not future.done():
                future.set_exception(PeerUnreachableError(str(event.link.dialled), event.failure, event.detail))
        elif isinstance(event, PunchEnded):
            self._searches.ended(event, time.monotonic())
            self._pump_soon()
        elif isinstance(event, PathChanged):
            connection = self._of(event.link)
            if connection is not None:
                connection.path_changed()
        elif isinstance(event, RelayListening):
            self.relay_refusal = event.reason
            self.relay_changed.set()
        elif isinstance(event, AddressObserved):
            self.address_known.set()
        else:
            self._data_arrived(event)

    def _data_arrived(self, event: MessageArrived | DatagramArrived | StreamActivity) -> None:
        connection = self._of(event.link)
        if connection is None:
            return
        if isinstance(event, MessageArrived):
            connection.message_arrived(event.link, event.data)
        elif isinstance(event, DatagramArrived):
            connection.datagram_arrived(event.data)
        else:
            connection.stream_activity(event.link, event.event)

    def _of(self, link: Link) -> PeerConnection | None:
        return None if link.peer_id is None else self._by_peer.get(link.peer_id)

    def _link_ready(self, event: LinkReady) -> None:
        peer_id = event.link.peer_id
        assert peer_id is not None, "a link is ready only with its peer known"
        connection = self._by_peer.get(peer_id)
        if connection is None:
            connection = self._by_peer[peer_id] = PeerConnection(
                event.live,
                settings=self._core.settings,
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
        if not self.incoming.put(connection):
            self._core.tallies.drops["accept_queue_full"] += 1
