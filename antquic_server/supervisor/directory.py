"""
Which worker holds which authenticated peer.

Workers report peers that come and go. An entry lives no longer than the worker that reported it. Readers must
take an answer as a hint: the peer may have left while they asked, and a report may have been dropped on a
full channel.
"""

from dataclasses import dataclass

PEER_ID_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnection:
    """
    One connection of a peer: ``connection`` is unique within the worker of ``slot``.

    ``readable`` says whether the peer reads what we send on it.
    """

    slot: int
    connection: int
    host: str
    port: int
    readable: bool = True


class Directory:
    """
    Peer id → connections, over all slots.

    At most ``capacity`` connections are listed; the rest are counted in ``dropped``. The node admits no more
    connections than that, so only a worker that forgets to report departures gets here.
    """

    def __init__(self, capacity: int) -> None:
        self.dropped = 0
        self._capacity = capacity
        self._peers: dict[bytes, dict[tuple[int, int], PeerConnection]] = {}
        self._by_slot: dict[int, dict[int, bytes]] = {}
        self._count = 0

    @property
    def peer_count(self) -> int:
        """Peers with at least one connection."""
        return len(self._peers)

    @property
    def connection_count(self) -> int:
        """Connections of all peers."""
        return self._count

    def peer_up(self, peer_id: bytes, connection: PeerConnection) -> bool:
        """List a connection; False if the directory is full or the peer id does not have 32 bytes."""
        held = self._by_slot.setdefault(connection.slot, {})
        before = held.get(connection.connection)
        if before is not None:
            # The same connection again: its address changed, or its PeerDown was lost with a full channel.
            self._remove(connection.slot, connection.connection, before)
        if len(peer_id) != PEER_ID_BYTES or self._count >= self._capacity:
            self.dropped += 1
            return False
        held[connection.connection] = peer_id
        self._peers.setdefault(peer_id, {})[connection.slot, connection.connection] = connection
        self._count += 1
        return True

    def peer_down(self, slot: int, connection: int) -> None:
        """Forget a connection; one that is not listed was dropped before, or is reported twice."""
        peer_id = self._by_slot.get(slot, {}).get(connection)
        if peer_id is not None:
            self._remove(slot, connection, peer_id)

    def slot_down(self, slot: int) -> int:
        """Forget everything the dead worker of ``slot`` reported; returns how many connections."""
        held = self._by_slot.pop(slot, {})
        for connection, peer_id in list(held.items()):
            self._forget(slot, connection, peer_id)
        return len(held)

    def newest(self, peer_id: bytes) -> PeerConnection | None:
        """Return the connection on which to tell a peer something: the last one listed that it reads."""
        connections = self._peers.get(peer_id, {}).values()
        return next((each for each in reversed(connections) if each.readable), None)

    def find(self, peer_id: bytes) -> list[PeerConnection]:
        """Return the peer's connections, by slot; an empty list if it has none."""
        connections = self._peers.get(peer_id, {}).values()
        return sorted(connections, key=lambda each: (each.slot, each.connection))

    def _remove(self, slot: int, connection: int, peer_id: bytes) -> None:
        del self._by_slot[slot][connection]
        self._forget(slot, connection, peer_id)

    def _forget(self, slot: int, connection: int, peer_id: bytes) -> None:
        connections = self._peers[peer_id]
        del connections[slot, connection]
        if not connections:
            del self._peers[peer_id]
        self._count -= 1
