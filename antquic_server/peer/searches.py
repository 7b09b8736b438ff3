"""
What callers of ``connect_peer`` wait for: one future per peer, from the first request to a connection or a reason.

A search asks the nodes there are, first to introduce us, then to carry the connection. While all of them that would do
are away, and are being dialled again, it waits for one; the time it has is the same either way.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from antquic_server.errors import PeerUnreachableError
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.core import PeerCore
from antquic_server.peer.events import PunchEnded
from antquic_server.peer.keeper import Keeper, Waiting
from antquic_server.peer.link import Link
from antquic_server.peer.punching import DETAILS, Failure

__all__ = ["Searches", "unreachable"]

NODE_LOST: Final = frozenset((Failure.COORDINATOR_LOST, Failure.NO_COORDINATOR))
"""Failures that a node which comes back can mend."""


@dataclass(slots=True, kw_only=True)
class _Search:
    future: asyncio.Future[PeerConnection]
    waiting: Waiting


class Searches:
    """Every search of one endpoint; what it has written to the core is the endpoint's to flush."""

    def __init__(self, core: PeerCore, keeper: Keeper) -> None:
        self._core = core
        self._keeper = keeper
        self._searches: dict[bytes, _Search] = {}

    def __contains__(self, target: bytes) -> bool:
        return target in self._searches

    def future(self, target: bytes, nodes: Collection[bytes] | None, now_s: float) -> asyncio.Future[PeerConnection]:
        """
        Return what all callers wait for; the first one's ``nodes`` (peer ids, best first) are asked.

        Nobody may be waiting any more when it fails.
        """
        search = self._searches.get(target)
        if search is None:
            waiting = Waiting(target=target, deadline_s=now_s + self._core.settings.discovery_timeout_s, nodes=nodes)
            search = _Search(future=asyncio.get_running_loop().create_future(), waiting=waiting)
            search.future.add_done_callback(lambda done: None if done.cancelled() else done.exception())
            self._searches[target] = search
            if target == self._core.own_peer_id or not self._ask(waiting, now_s):
                # Fails, for the right reason.
                self._core.connect_peer(target, [], now_s)
        return search.future

    def connected(self, connection: PeerConnection) -> None:
        """Take in a connection, however it came about."""
        search = self._searches.pop(connection.peer_id, None)
        if search is not None and not search.future.done():
            search.future.set_result(connection)

    def ended(self, event: PunchEnded, now_s: float) -> None:
        """Take in the end of an attempt: another one follows if it was only the node that was lost."""
        search = self._searches.get(event.target)
        if search is None or event.failure is None or event.invited:
            return
        if event.failure in NODE_LOST and now_s < search.waiting.deadline_s and self._ask(search.waiting, now_s):
            return
        self._fail(event.target, event.failure, event.relay_refusal)

    def node_ready(self, node: bytes, now_s: float) -> None:
        """Take in that a node is connected: those who have waited for it go on."""
        for waiting in self._keeper.take_waiting(node):
            if waiting.target in self._searches and not self._ask(waiting, now_s):
                self._fail(waiting.target, Failure.NO_COORDINATOR)

    def handle_timer(self, now_s: float) -> None:
        """End the searches for which no node has come back in time."""
        for waiting in self._keeper.take_overdue(now_s):
            self._fail(waiting.target, Failure.NO_COORDINATOR)

    def close(self) -> None:
        """End all of them."""
        for target in list(self._searches):
            self._fail(target, Failure.ENDPOINT_CLOSED)

    def _ask(self, waiting: Waiting, now_s: float) -> bool:
        """Have a node introduce us, or wait for one that will; False if none is to be expected."""
        coordinators = self._coordinators(waiting.nodes)
        if not coordinators:
            return self._keeper.wait(waiting, now_s)
        self._core.connect_peer(waiting.target, coordinators, now_s, waiting.deadline_s)
        return True

    def _coordinators(self, nodes: Collection[bytes] | None) -> list[Link]:
        links = self._core.node_links
        if nodes is None:
            return links
        by_peer = {link.peer_id: link for link in reversed(links)}
        return [by_peer[peer_id] for peer_id in nodes if peer_id in by_peer]

    def _fail(self, target: bytes, failure: Failure, relay_refusal: str | None = None) -> None:
        search = self._searches.pop(target, None)
        if search is not None and not search.future.done():
            search.future.set_exception(unreachable(target.hex(), failure, relay_refusal))


def unreachable(target: str, failure: Failure, relay_refusal: str | None = None) -> PeerUnreachableError:
    """Return the error for one of the failures that have a word; ``relay_refusal`` says why no node relays either."""
    detail = DETAILS[failure]
    if relay_refusal is not None:
        detail = f"{detail}; and no node carries it ({relay_refusal})"
    return PeerUnreachableError(target, failure.value, detail)
