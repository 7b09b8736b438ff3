"""
How many bytes the relay has carried in this quota period, for each peer and altogether.

Periods follow each other without a gap from the start of the node, and each begins at nothing. What a peer has used is
remembered when its sessions are over, or it would only have to open another one; a table of fixed size holds it.
"""

from typing import Final

__all__ = ["MAX_KNOWN_PEERS", "ByteQuotas"]

MAX_KNOWN_PEERS: Final = 1 << 16
"""Peers counted by themselves in one period, about 10 MB; more than a node relays for in a day."""

SHARED_ENTRIES: Final = 1 << 12
"""Peers beyond that share these: nobody gains by being one of many, as forgetting the oldest would let them."""


class ByteQuotas:
    """Counts bytes; a limit of 0 is none. Time is monotonic seconds."""

    def __init__(self, period_s: float, now_s: float) -> None:
        self.node_bytes = 0
        self._period_s = period_s
        self._begun_s = now_s
        self._by_peer: dict[bytes | int, int] = {}

    @property
    def peers(self) -> int:
        """Peers that have used something in this period, those that share an entry as one."""
        return len(self._by_peer)

    def ends_in_s(self, now_s: float) -> float:
        """Time until the counts begin anew."""
        self._turn(now_s)
        return self._begun_s + self._period_s - now_s

    def change_period(self, period_s: float, now_s: float) -> None:
        """Make this and later periods as long as that; what has been used in this one stays used."""
        self._turn(now_s)
        self._period_s = period_s

    def use(self, peer_id: bytes, amount_bytes: int, now_s: float) -> None:
        """Charge a peer and the node."""
        self._turn(now_s)
        key = self._key(peer_id)
        self._by_peer[key] = self._by_peer.get(key, 0) + amount_bytes
        self.node_bytes += amount_bytes

    def is_node_out(self, limit_bytes: int, now_s: float) -> bool:
        """Tell whether the node has used up what it may."""
        self._turn(now_s)
        return 0 < limit_bytes <= self.node_bytes

    def is_peer_out(self, peer_id: bytes, limit_bytes: int, now_s: float) -> bool:
        """Tell whether a peer has."""
        self._turn(now_s)
        return 0 < limit_bytes <= self._by_peer.get(self._key(peer_id), 0)

    def _key(self, peer_id: bytes) -> bytes | int:
        if peer_id in self._by_peer or len(self._by_peer) < MAX_KNOWN_PEERS:
            return peer_id
        # Python's hash of bytes is keyed with a secret of the process, so that nobody can aim at a victim's entry.
        return hash(peer_id) % SHARED_ENTRIES

    def _turn(self, now_s: float) -> None:
        if now_s >= self._begun_s + self._period_s:
            self._begun_s += (now_s - self._begun_s) // self._period_s * self._period_s
            self._by_peer.clear()
            self.node_bytes = 0
