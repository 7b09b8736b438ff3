"""
Keeps a peer's nodes: which of them to dial when, and who waits for one to come back.

A node is lost when its worker dies, when it is restarted, or when the peer was offline for a while. Whoever knows it
dials again, at once but not in step with all the others, and ever more rarely while that fails::

    lost ──► waits 0.1 … 0.2 s ──► dials ──► connected        and lost soon again: the wait goes on growing
               ▲ twice as long, up to 15 … 30 s │
               └──────────────── failed ◄───────┘

A connection that we close ourselves is not made again. Pure: time is an argument, randomness a callable.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from antquic_server.protocol.address import SocketAddress

__all__ = ["FIRST_WAIT_S", "LONGEST_WAIT_S", "STABLE_S", "Keeper", "Waiting"]

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 30.0
"""Every wait lies between half of its bound and the bound itself; this is the last one's."""
STABLE_S = 10.0
"""A node that is lost earlier than this was not really back, and the waits go on where they were."""


class _State(Enum):
    UNTRIED = auto()
    DIALLING = auto()
    CONNECTED = auto()
    BACKING_OFF = auto()
    GIVEN_UP = auto()


@dataclass(slots=True, kw_only=True)
class _Node:
    address: SocketAddress
    state: _State = _State.UNTRIED
    peer_id: bytes | None = None
    """Who authenticated there last."""
    failures: int = 0
    dial_at_s: float = 0.0
    connected_at_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Somebody who wants ``target`` and has no node to ask: until when, and which nodes will do (None: any)."""

    target: bytes
    deadline_s: float
    nodes: Collection[bytes] | None = None


class Keeper:
    """The known nodes of one endpoint; ``jitter`` returns a number from 0 to 1, and another each time."""

    def __init__(self, nodes: Iterable[SocketAddress], *, jitter: Callable[[], float]) -> None:
        self._nodes = {address: _Node(address=address) for address in nodes}
        self._jitter = jitter
        self._waiting: dict[bytes, Waiting] = {}

    def knows(self, peer_id: bytes) -> bool:
        """Whether a peer is one of the nodes."""
        return any(node.peer_id == peer_id and node.state is not _State.GIVEN_UP for node in self._nodes.values())

    # What happens.

    def connected(self, address: SocketAddress | None, peer_id: bytes, now_s: float) -> None:
        """Take in a connection with a peer, at the address that we dialled or None."""
        for node in self._nodes.values():
            # One connection to a peer is enough, whichever of its addresses we know as well. But a node introduces
            # us in the families that it has seen us in.
            same_family = address is None or node.address.is_ipv4 == address.is_ipv4
            same_peer = node.peer_id == peer_id and node.state is _State.BACKING_OFF
            if node.address == address or (same_peer and same_family):
                if node.state is not _State.CONNECTED:
                    node.connected_at_s = now_s
                node.state = _State.CONNECTED
                node.peer_id = peer_id

    def dial_failed(self, address: SocketAddress | None, now_s: float) -> None:
        """Take in that a dial came to nothing."""
        node = None if address is None else self._nodes.get(address)
        if node is not None and node.state in (_State.UNTRIED, _State.DIALLING):
            self._back_off(node, now_s)

    def peer_gone(self, peer_id: bytes, now_s: float) -> None:
        """Take in that the last connection with a peer has ended."""
        for node in self._nodes.values():
            if node.state is _State.CONNECTED and node.peer_id == peer_id:
                if now_s - node.connected_at_s >= STABLE_S:
                    node.failures = 0
                self._back_off(node, now_s)

    def give_up(self, *, address: SocketAddress | None = None, peer_id: bytes | None = None) -> None:
        """Leave a node alone from now on: it cannot be dialled, or its connection was closed by ourselves."""
        for node in self._nodes.values():
            if node.address == address or (peer_id is not None and node.peer_id == peer_id):
                node.state = _State.GIVEN_UP

    def _back_off(self, node: _Node, now_s: float) -> None:
        longest_s = min(2 * FIRST_WAIT_S * 2**node.failures, LONGEST_WAIT_S)
        node.failures = min(node.failures + 1, 30)
        node.dial_at_s = now_s + longest_s * (1 + self._jitter()) / 2
        node.state = _State.BACKING_OFF

    # What to do.

    def due(self, now_s: float) -> list[SocketAddress]:
        """Return the addresses to dial now, and consider it done."""
        found = [node for node in self._nodes.values() if node.state is _State.BACKING_OFF and node.dial_at_s <= now_s]
        for node in found:
            node.state = _State.DIALLING
        return [node.address for node in found]

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`due` or :meth:`overdue` has something to say."""
        times = [node.dial_at_s for node in self._nodes.values() if node.state is _State.BACKING_OFF]
        times += [each.deadline_s for each in self._waiting.values()]
        return min(times, default=None)

    # Who waits.

    def wait(self, waiting: Waiting, now_s: float) -> bool:
        """Have somebody wait for a node to come back; False if none of those that will do is to be expected."""
        expected = [node for node in self._nodes.values() if _is_expected(node, waiting.nodes)]
        if not expected or now_s >= waiting.deadline_s:
            return False
        for node in expected:
            if node.state is _State.BACKING_OFF and node.dial_at_s >= waiting.deadline_s:
                # It has been away for long; whoever needs it now is reason enough to look.
                node.dial_at_s = now_s
        self._waiting[waiting.target] = waiting
        return True

    def take_waiting(self, node: bytes) -> list[Waiting]:
        """Return those who can go on now that a node is back."""
        found = [each for each in self._waiting.values() if each.nodes is None or node in each.nodes]
        for each in found:
            del self._waiting[each.target]
        return found

    def take_overdue(self, now_s: float) -> list[Waiting]:
        """Return those who have waited in vain."""
        found = [each for each in self._waiting.values() if each.deadline_s <= now_s]
        for each in found:
            del self._waiting[each.target]
        return found


def _is_expected(node: _Node, nodes: Collection[bytes] | None) -> bool:
    if nodes is not None and node.peer_id not in nodes:
        return False
    return node.state in (_State.UNTRIED, _State.DIALLING, _State.BACKING_OFF)
