"""
What a peer's new relay sessions may send before they have been silent for any time.

A session's bucket lives as long as the session, so one that began full would be a present to whoever closes and opens
another: as many bursts as sessions. Here each peer has one burst that outlives its sessions. A new session begins with
half of what is left of it, so that several that are opened together, as after the death of a worker, all begin with
something. It grows again with a tenth of the peer's bandwidth, whether there are sessions or not: enough for the
handshakes of an honest peer, and the most that it can gain by opening sessions.

A channel's last train may be longer than what it might still send, and what it owes is remembered here: a new session
begins by waiting for as much.
"""

from typing import Final

from antquic_server.protocol.limits import KeyedBuckets

__all__ = ["MAX_TRAIN_BYTES", "START_PART", "RelayStarts"]

START_PART: Final = 0.1
"""Of a peer's bandwidth: how fast what its new sessions begin with comes back."""

MAX_TRAIN_BYTES: Final = 1 << 16
"""No train is longer, so no session can come to owe more by itself."""


class RelayStarts:
    """One burst for each peer, in a table of fixed size; time is monotonic seconds."""

    def __init__(self, rate_bytes_per_s: float, burst_bytes: float, table_entries: int) -> None:
        self._left = KeyedBuckets(rate_bytes_per_s * START_PART, burst_bytes, table_entries)

    def take(self, peer_id: bytes, most_bytes: float, now_s: float) -> float:
        """Return what a new session of a peer begins with; less than nothing is a debt, which stays noted here too."""
        left_bytes = self._left.tokens(peer_id, now_s)
        if left_bytes <= 0:
            # Were it handed over, a session that is closed at once would be the end of it.
            return left_bytes
        start_bytes = min(most_bytes, left_bytes / 2)
        self._left.spend(peer_id, start_bytes)
        return start_bytes

    def owe(self, peer_id: bytes, owed_bytes: float, start_bytes: float) -> None:
        """Note what a session that has begun with ``start_bytes`` owes at its end, beyond what it owed then."""
        new_bytes = owed_bytes - max(0.0, -start_bytes)
        self._left.spend(peer_id, min(max(0.0, new_bytes), MAX_TRAIN_BYTES))
