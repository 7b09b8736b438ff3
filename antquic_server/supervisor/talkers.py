"""
Who moves the most bytes on this node: the part ``talkers`` of ``/status``, a list, the busiest first.

What each entry says, seen from the node and in UDP payload::

    peer_id                                      64 hex digits, empty for a client without identity
    slot, host, port                             of the busiest of its connections
    bytes_sent, bytes_received                   since those connections began
    sent_bytes_per_s, received_bytes_per_s       in the last report of its workers, which come every two seconds
    relayed_bytes, relayed_bytes_per_s           payload delivered by the relay sessions it pays for

A byte that a channel passes on comes in and goes out, so it stands in both directions of the peer that asked for the
channel. What a stream session moves travels on the peer's own connection and is counted there already.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Final

from antquic_server.errors import AddressDecodeError
from antquic_server.ipc.talker_messages import MAX_TALKERS, TALKERS_INTERVAL_S, TopTalkers
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.supervisor.directory import PEER_ID_BYTES, Directory
from antquic_server.supervisor.relay_quotas import RelaySession

__all__ = ["STALE_S", "TalkerBoard"]

STALE_S: Final = 3 * TALKERS_INTERVAL_S
"""A report that is older says nothing about now: its worker is stuck, or its words were lost in a full queue."""

USAGE_REPORTS: Final = 8
"""Of relay sessions, one a second and worker: what the rate of a peer is taken from."""

USAGE_INTERVAL_S: Final = 1.0
"""What a peer's only report so far is taken to stand for."""


@dataclass(slots=True, kw_only=True)
class _Row:
    """One line of the list while it is being put together."""

    peer_id: bytes
    slot: int
    host: str
    port: int
    bytes_sent: int = 0
    bytes_received: int = 0
    sent_per_s: float = 0.0
    received_per_s: float = 0.0
    busiest_per_s: float = 0.0
    relayed_bytes: int = 0
    relayed_per_s: float = 0.0

    @property
    def bytes_per_s(self) -> float:
        return self.sent_per_s + self.received_per_s

    def document(self) -> dict[str, object]:
        return {
            "peer_id": self.peer_id.hex(),
            "slot": self.slot,
            "host": self.host,
            "port": self.port,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "sent_bytes_per_s": round(self.sent_per_s),
            "received_bytes_per_s": round(self.received_per_s),
            "relayed_bytes": self.relayed_bytes,
            "relayed_bytes_per_s": round(self.relayed_per_s),
        }


@dataclass(slots=True)
class _Usage:
    """What the relay sessions of one peer have moved; ``recent`` are the last reports: when, and how many bytes."""

    slot: int
    moved_bytes: int = 0
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=USAGE_REPORTS))

    def add(self, moved_bytes: int, now_s: float) -> None:
        self.moved_bytes += moved_bytes
        if self.recent and self.recent[-1][0] == now_s:
            # Another session of the same report.
            self.recent[-1] = (now_s, self.recent[-1][1] + moved_bytes)
        else:
            self.recent.append((now_s, moved_bytes))

    def bytes_per_s(self) -> float:
        first_s, last_s = self.recent[0][0], self.recent[-1][0]
        if last_s == first_s:
            return self.recent[-1][1] / USAGE_INTERVAL_S
        # The first report stands for the time before it.
        return sum(moved for at_s, moved in self.recent if at_s > first_s) / (last_s - first_s)


class TalkerBoard:
    """
    Puts the reports of all workers together.

    It holds one report per slot, and the relay usage of peers that have relayed within STALE_S, of which there are no
    more than sessions.
    """

    def __init__(self, directory: Directory, *, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._clock = clock
        self._reports: dict[int, tuple[float, TopTalkers]] = {}
        self._usage: dict[RelayMode, dict[bytes, _Usage]] = {mode: {} for mode in RelayMode}
        self._tidy_at_s = clock() + STALE_S

    def heard(self, slot: int, report: TopTalkers) -> None:
        """Take the report of a worker in place of its last."""
        self._reports[slot] = (self._clock(), report)

    def relayed(self, session: RelaySession, moved_bytes: int) -> None:
        """Take note of what a relay session has moved since it was last heard of."""
        now_s = self._clock()
        if now_s >= self._tidy_at_s:
            self._tidy(now_s)
        if moved_bytes:
            held = self._usage[session.mode].setdefault(session.peer_id, _Usage(session.slot))
            held.slot = session.slot
            held.add(moved_bytes, now_s)

    def slot_down(self, slot: int) -> None:
        """Forget what a dead worker has said."""
        self._reports.pop(slot, None)

    def document(self) -> list[dict[str, object]]:
        """Return at most MAX_TALKERS entries of ``/status``, the busiest first."""
        now_s = self._clock()
        self._tidy(now_s)
        rows: dict[object, _Row] = {}
        for slot, (heard_s, report) in self._reports.items():
            if now_s - heard_s <= STALE_S:
                _add_report(rows, slot, report)
        for mode, usage in self._usage.items():
            for peer_id, used in usage.items():
                self._add_usage(rows, mode, peer_id, used)
        return [row.document() for row in nlargest(MAX_TALKERS, rows.values(), key=lambda row: row.bytes_per_s)]

    def _add_usage(self, rows: dict[object, _Row], mode: RelayMode, peer_id: bytes, used: _Usage) -> None:
        row = rows.get(peer_id)
        if row is None:
            seen = self._directory.newest(peer_id)
            at = (used.slot, "", 0) if seen is None else (seen.slot, str(seen.address.host), seen.port)
            row = rows[peer_id] = _Row(peer_id=peer_id, slot=at[0], host=at[1], port=at[2])
        bytes_per_s = used.bytes_per_s()
        row.relayed_bytes += used.moved_bytes
        row.relayed_per_s += bytes_per_s
        if mode is RelayMode.CHANNEL:
            row.bytes_sent += used.moved_bytes
            row.bytes_received += used.moved_bytes
            row.sent_per_s += bytes_per_s
            row.received_per_s += bytes_per_s

    def _tidy(self, now_s: float) -> None:
        self._tidy_at_s = now_s + STALE_S
        for usage in self._usage.values():
            for peer_id in [key for key, used in usage.items() if now_s - used.recent[-1][0] > STALE_S]:
                del usage[peer_id]


def _add_report(rows: dict[object, _Row], slot: int, report: TopTalkers) -> None:
    """Add what a worker reports; whatever of it is not sound is left out, since a worker reads what strangers send."""
    interval_s = max(report.interval_s, 0.1)
    for each in report.talkers[:MAX_TALKERS]:
        numbers = (each.bytes_sent, each.bytes_received, each.interval_bytes_sent, each.interval_bytes_received)
        if len(each.peer_id) not in (0, PEER_ID_BYTES) or min(numbers) < 0:
            continue
        try:
            address = SocketAddress.from_host(each.host, each.port).normalised()
        except AddressDecodeError:
            continue
        host = str(address.host)
        key = each.peer_id or (slot, host, each.port)
        row = rows.setdefault(key, _Row(peer_id=each.peer_id, slot=slot, host=host, port=each.port))
        sent_per_s, received_per_s = each.interval_bytes_sent / interval_s, each.interval_bytes_received / interval_s
        if sent_per_s + received_per_s > row.busiest_per_s:
            row.busiest_per_s = sent_per_s + received_per_s
            row.slot, row.host, row.port = slot, host, each.port
        row.bytes_sent += each.bytes_sent
        row.bytes_received += each.bytes_received
        row.sent_per_s += sent_per_s
        row.received_per_s += received_per_s
