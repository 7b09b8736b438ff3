"""
One live connection per peer id.

Both ends of a peer may dial at once, and after a hole punch usually both dials succeed. Which one stays is decided
alike at both ends, without a word between them, by ant-quic's rule:

* Of two connections dialled by the same side, the newer stays: whoever dials again has a reason to.
* Of two dialled by opposite sides, the one with the greater *rank* stays: 32 bytes that TLS derives for each
  connection, the same at its two ends (``export_keying_material``).

The other one is *superseded*: it serves what was begun on it and is then closed. Should the live one end before that,
the superseded one lives again.
"""

from dataclasses import dataclass

__all__ = ["RANK_BYTES", "RANK_CONTEXT", "RANK_LABEL", "Candidate", "Decision", "Registry"]

RANK_LABEL = b"ant-quic/lifecycle-connection-id/v1"
RANK_CONTEXT = b"canonical"
RANK_BYTES = 32


MAX_OUTDATED = 256
"""Peers whose closing is remembered, for handshakes that were under way; those take a few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A connection: our number for it, which side dialled, and its rank."""

    number: int
    dialled_by_us: bool
    rank: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Number of the connection that is live now, and of the one that lost to it, if any."""

    live: int
    superseded: int | None = None


class Registry:
    """Who is connected, by which connection."""

    def __init__(self) -> None:
        self._by_peer: dict[bytes, list[Candidate]] = {}
        """Oldest first, but the live one last."""
        self._outdated: dict[bytes, int] = {}
        """Number of the newest connection there was when a peer's were closed; the peer closed last is at the end."""

    def __len__(self) -> int:
        return len(self._by_peer)

    @property
    def peers(self) -> list[bytes]:
        """Ids of the connected peers."""
        return list(self._by_peer)

    def live(self, peer_id: bytes) -> int | None:
        """Return the number of a peer's live connection."""
        candidates = self._by_peer.get(peer_id)
        return candidates[-1].number if candidates else None

    def numbers(self, peer_id: bytes) -> list[int]:
        """Return the numbers of all of a peer's connections, the live one last."""
        return [item.number for item in self._by_peer.get(peer_id, [])]

    def add(self, peer_id: bytes, candidate: Candidate) -> Decision:
        """Take in a new connection and decide which one is live."""
        candidates = self._by_peer.setdefault(peer_id, [])
        if not candidates:
            candidates.append(candidate)
            return Decision(live=candidate.number)
        live = candidates[-1]
        if _wins(candidate, live):
            candidates.append(candidate)
            return Decision(live=candidate.number, superseded=live.number)
        candidates.insert(-1, candidate)
        return Decision(live=live.number, superseded=candidate.number)

    def outdate(self, peer_id: bytes, newest: int) -> None:
        """Take in that nothing up to this number is wanted of a peer any more, complete handshake or not."""
        self._outdated.pop(peer_id, None)
        self._outdated[peer_id] = newest
        if len(self._outdated) > MAX_OUTDATED:
            del self._outdated[next(iter(self._outdated))]

    def is_outdated(self, peer_id: bytes, number: int) -> bool:
        """Whether a connection is older than the last close of those of its peer."""
        return number <= self._outdated.get(peer_id, 0)

    def remove(self, peer_id: bytes, number: int) -> int | None:
        """Forget a connection that has ended; returns the number of the one that is live now, if any is left."""
        left = [item for item in self._by_peer.get(peer_id, []) if item.number != number]
        if not left:
            self._by_peer.pop(peer_id, None)
            return None
        self._by_peer[peer_id] = left
        return left[-1].number


def _wins(candidate: Candidate, live: Candidate) -> bool:
    if candidate.dialled_by_us == live.dialled_by_us:
        return True
    return candidate.rank > live.rank
