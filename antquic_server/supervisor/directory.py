"""
Which worker holds which authenticated peer.

Workers report peers that come and go. An entry lives no longer than the worker that reported it. Readers must
take an answer as a hint: the peer may have left while they asked, and a report may have been dropped on a
full channel.
"""

from dataclasses import dataclass, replace

from antquic_server.errors import AddressDecodeError
from antquic_server.ipc.messages import PeerUp
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.address_discovery import Mapping

PEER_ID_BYTES = 32

MAX_ADVERTISED = 256
"""The most ``nat.max_candidates`` can be: a worker that has lost its mind cannot make an entry longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnection:
    """
    One connection of a peer: ``connection`` is unique within the worker of ``slot``.

    ``readable`` says whether the peer reads what we send on it, ``advertised`` are the addresses it has advertised
    there, ``reached_at`` is the address of ours that it sends to, empty if unknown. ``channels`` says that it knows
    relay channels.
    """

    slot: int
    connection: int
    host: str
    port: int
    readable: bool = True
    advertised: tuple[str, ...] = ()
    reached_at: str = ""
    channels: bool = False

    @classmethod
    def reported(cls, slot: int, message: PeerUp) -> "PeerConnection":
        """Return the connection that the worker of ``slot`` reports."""
        return cls(
            slot=slot,
            connection=message.connection,
            host=message.host,
            port=message.port,
            readable=message.readable,
            advertised=tuple(message.advertised),
            reached_at=message.reached_at,
            channels=message.channels,
        )

    @property
    def address(self) -> SocketAddress:
        """Where we see the peer's packets come from; AddressDecodeError for nonsense, which is never listed."""
        return SocketAddress.from_host(self.host, self.port).normalised()


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
        self._last_seen: dict[bytes, dict[bool, SocketAddress]] = {}
        """By peer and whether it is IPv4: one address of each family, for as long as the peer has any connection."""
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
        """List a connection; False if the directory is full, or peer id or address are none."""
        held = self._by_slot.setdefault(connection.slot, {})
        before = held.get(connection.connection)
        if before is not None:
            # The same connection again: its address changed, or its PeerDown was lost with a full channel.
            self._remove(connection.slot, connection.connection, before)
        if len(peer_id) != PEER_ID_BYTES or self._count >= self._capacity or not _is_sound(connection):
            self.dropped += 1
            return False
        if len(connection.advertised) > MAX_ADVERTISED:
            connection = replace(connection, advertised=connection.advertised[:MAX_ADVERTISED])
        held[connection.connection] = peer_id
        self._peers.setdefault(peer_id, {})[connection.slot, connection.connection] = connection
        self._last_seen.setdefault(peer_id, {})[connection.address.is_ipv4] = connection.address
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

    def newest(self, peer_id: bytes, *, channels: bool = False) -> PeerConnection | None:
        """
        Return the connection on which to tell a peer something: the last one listed that it reads.

        ``channels`` wants one on which it reads messages about relay channels.
        """
        connections = self._peers.get(peer_id, {}).values()
        return next((each for each in reversed(connections) if each.readable and each.channels >= channels), None)

    def get(self, peer_id: bytes, slot: int, connection: int) -> PeerConnection | None:
        """Return one connection of a peer, None if it is not, or no longer, that peer's."""
        return self._peers.get(peer_id, {}).get((slot, connection))

    def is_listed(self, peer_id: bytes) -> bool:
        """Tell whether a peer has any connection."""
        return peer_id in self._peers

    def find(self, peer_id: bytes) -> list[PeerConnection]:
        """Return the peer's connections, by slot; an empty list if it has none."""
        connections = self._peers.get(peer_id, {}).values()
        return sorted(connections, key=lambda each: (each.slot, each.connection))

    def addresses(self, peer_id: bytes) -> tuple[SocketAddress, ...]:
        """
        Return where we have seen a peer come from: the newest connection first, each address once.

        At the end is the last address of a family that it now has no connection of: most peers keep one connection to
        a node, and close the one of the other family as soon as that is there.
        """
        connections = self._peers.get(peer_id, {}).values()
        seen = [each.address for each in reversed(connections)]
        return tuple(dict.fromkeys([*seen, *self._last_seen.get(peer_id, {}).values()]))

    def mapping(self, peer_id: bytes) -> Mapping:
        """
        Return how the peer's NAT maps, as far as it can be told from its present connections.

        That takes two to different addresses of ours, of one family. A NAT that shows both the same address keeps one
        mapping for everybody; two addresses are two mappings, or a peer with several sockets or uplinks.
        """
        seen: dict[bool, dict[str, str]] = {}
        for each in self._peers.get(peer_id, {}).values():
            if each.reached_at:
                by_ours = seen.setdefault(each.address.is_ipv4, {})
                by_ours[each.reached_at] = str(each.address)
        comparable = [set(by_ours.values()) for by_ours in seen.values() if len(by_ours) > 1]
        if not comparable:
            return Mapping.UNKNOWN
        return Mapping.ENDPOINT_INDEPENDENT if all(len(found) == 1 for found in comparable) else Mapping.DEPENDENT

    def _remove(self, slot: int, connection: int, peer_id: bytes) -> None:
        del self._by_slot[slot][connection]
        self._forget(slot, connection, peer_id)

    def _forget(self, slot: int, connection: int, peer_id: bytes) -> None:
        connections = self._peers[peer_id]
        del connections[slot, connection]
        if not connections:
            del self._peers[peer_id]
            del self._last_seen[peer_id]
        self._count -= 1


def _is_sound(connection: PeerConnection) -> bool:
    try:
        return connection.address.port >= 0
    except AddressDecodeError:
        return False
