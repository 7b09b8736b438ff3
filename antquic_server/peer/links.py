"""
All connections of an endpoint: which datagram belongs to which, what they have to send, when they want to be woken.

The same socket dials and accepts, since a hole in a NAT is open for one port of ours only: a datagram with an unknown
connection ID is therefore a new client of ours if it is an Initial, and nothing otherwise. Pure: datagrams and the time
come in as arguments, datagrams go out as return values, everything else through :class:`Observer`.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from aioquic.quic.events import ConnectionIdIssued, ConnectionIdRetired, ConnectionTerminated, HandshakeCompleted

from antquic_server.peer.admission import CONNECTION_ID_BYTES, Admission, Refused
from antquic_server.peer.link import Link, Path, Quic
from antquic_server.peer.recovery import is_silent
from antquic_server.protocol.raw_public_key import peer_id as derive_peer_id
from antquic_server.protocol.routing import destination_connection_id_untrusted

__all__ = ["Links", "Observer"]

MIN_INITIAL_BYTES = 1200
"""RFC 9000, section 14.1."""
MIN_RESET_BYTES = 21
"""RFC 9000, section 10.3."""
STATELESS_RESET_CODE = 0

_FIXED_BIT = 0x40
_LONG_HEADER = 0x80
_INITIAL_TYPE_MASK = 0xB0
"""Header form and packet type of a QUIC version 1 long header (RFC 9000, section 17.2)."""
_RETRY_TYPE = 0xF0
_VERSION_1 = b"\x00\x00\x00\x01"


class Observer(Protocol):
    """Whoever is told what happens; it may write to links and :meth:`Links.touch` them."""

    def link_ready(self, link: Link, now_s: float) -> None:
        """Handle a complete handshake with an authenticated peer."""

    def link_closed(self, link: Link, event: ConnectionTerminated) -> None:
        """Handle the end of a connection, ready or not."""

    def link_event(self, link: Link, event: Any, now_s: float) -> None:
        """Handle any other event of QUIC."""


class Links:
    """The table of connections."""

    def __init__(
        self,
        *,
        observer: Observer,
        make_server: Callable[..., Quic],
        handshake_timeout_s: float,
        keep_alive_s: float,
        max_connections: int,
    ) -> None:
        self.drops: Counter[str] = Counter()
        """Datagrams that came to nothing, by reason."""
        self._observer = observer
        self._make_server = make_server
        """Takes the client's first connection ID and, if it was sent a Retry, ours of that."""
        self._admission = Admission()
        self._answers: list[tuple[Path, bytes]] = []
        """To strangers; sent by the next flush."""
        self._handshake_timeout_s = handshake_timeout_s
        self._keep_alive_s = keep_alive_s
        self._max_connections = max_connections
        self._links: dict[int, Link] = {}
        self._table: dict[bytes, Link] = {}
        self._touched: dict[Link, None] = {}
        self._heap: list[tuple[float, int]] = []
        """Deadlines and numbers of connections."""
        self._next_number = 1

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._links.values()))

    def __len__(self) -> int:
        return len(self._links)

    @property
    def newest_number(self) -> int:
        """Number of the connection that was made last, 0 before the first."""
        return self._next_number - 1

    def find(self, number: int | None) -> Link | None:
        """Return a connection by its number."""
        return None if number is None else self._links.get(number)

    @property
    def has_touched(self) -> bool:
        """Whether the next flush has something to look after."""
        return bool(self._touched)

    def touch(self, link: Link) -> None:
        """Have the next flush look after a connection: something was written to it."""
        self._touched[link] = None

    # In.

    def dial(self, quic: Quic, path: Path, *, now_s: float, deadline_s: float, **facts: Any) -> Link:
        """Start a handshake with ``path``; ``facts`` are more arguments of :class:`Link`."""
        link = self._add(quic, path, deadline_s, **facts)
        quic.connect(path, now_s)
        datagrams = [data for data, _ in quic.datagrams_to_send(now_s)]
        link.keep_first_flight(datagrams, now_s)
        # Sent by the next flush: at once.
        link.bursts_left_s.append(now_s)
        self.touch(link)
        return link

    def receive_datagram(self, data: bytes, path: Path, now_s: float) -> None:
        """Take in a datagram; flush when all that have arrived are taken in."""
        if not data or data[0] < _FIXED_BIT:
            self.drops["not_quic"] += 1
            return
        cid = destination_connection_id_untrusted(data) if data[0] & _LONG_HEADER else data[1 : 1 + CONNECTION_ID_BYTES]
        link = self._table.get(cid) if cid is not None else None
        if link is None:
            link = self._judge_untrusted(data, path, cid, now_s)
            if link is None:
                return
        if link.dialled_by_us and path is not link.path:
            path = link.known_path(path)
        if not link.dialled_by_us or path == link.path or path in link.probing:
            # As a client, QUIC takes nothing from an address it does not know (RFC 9000, section 9).
            link.last_received_s = now_s
        link.quic.receive_datagram(data, path, now_s)
        if link.dialled_by_us and data[0] & _RETRY_TYPE == _RETRY_TYPE:
            # Without the token of the Retry the first flight is good for nothing but another Retry.
            link.forget_first_flight()
        if not link.dialled_by_us and link.quic.is_pristine and not link.quic.is_closing:
            # An Initial that does not decrypt made it.
            self._forget(link)
            self.drops["undecryptable_initial"] += 1
            return
        self.touch(link)

    def _judge_untrusted(self, data: bytes, path: Path, cid: bytes | None, now_s: float) -> Link | None:
        is_initial = data[0] & _INITIAL_TYPE_MASK == _LONG_HEADER and data[1:5] == _VERSION_1
        if cid is None or not is_initial or len(data) < MIN_INITIAL_BYTES or len(cid) < CONNECTION_ID_BYTES:
            if not self._is_stateless_reset_untrusted(data):
                self.drops["unknown_connection_id"] += 1
            return None
        if len(self._links) >= self._max_connections:
            self.drops["too_many_connections"] += 1
            return None
        verdict = self._admission.judge_untrusted(data, path, cid, self._links.values(), now_s)
        if isinstance(verdict, Refused):
            self.drops[verdict.reason] += 1
            if verdict.answer is not None:
                self._answers.append((path, verdict.answer))
            return None
        cids = (verdict.original_cid, verdict.retry_source_cid) if verdict.proven else (verdict.original_cid,)
        quic = self._make_server(*cids)
        link = self._add(quic, path, now_s + self._handshake_timeout_s, address_proven=verdict.proven)
        self._map(cid, link)
        return link

    def _is_stateless_reset_untrusted(self, data: bytes) -> bool:
        if len(data) < MIN_RESET_BYTES or data[0] & _LONG_HEADER:
            return False
        token = data[-16:]
        for link in self._links.values():
            if link.ready and token in link.quic.peer_reset_tokens:
                link.quic.abandon(STATELESS_RESET_CODE, "stateless reset")
                self.touch(link)
                return True
        return False

    def _add(self, quic: Quic, path: Path, deadline_s: float, **facts: Any) -> Link:
        link = Link(number=self._next_number, quic=quic, path=path, handshake_deadline_s=deadline_s, **facts)
        self._next_number += 1
        self._links[link.number] = link
        for cid in quic.issued_connection_ids:
            self._map(cid, link)
        return link

    def _map(self, cid: bytes, link: Link) -> None:
        self._table[cid] = link
        link.connection_ids.add(cid)

    # Time.

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` is due."""
        heap = self._heap
        while heap:
            at_s, number = heap[0]
            link = self._links.get(number)
            if link is not None and link.timer_at_s == at_s:
                return at_s
            heapq.heappop(heap)
        return None

    def handle_timer(self, now_s: float) -> list[Link]:
        """Fire what is due and return the connections concerned; flush afterwards."""
        due = []
        while (at_s := self.next_deadline_s()) is not None and at_s <= now_s:
            link = self._links[heapq.heappop(self._heap)[1]]
            link.timer_at_s = None
            due.append(link)
            self.touch(link)
            self._fire(link, now_s)
        return due

    def _fire(self, link: Link, now_s: float) -> None:
        if link.handshake_deadline_s is not None and now_s >= link.handshake_deadline_s:
            # Silently: most likely nobody is there.
            link.handshake_deadline_s = None
            link.quic.abandon(0, "handshake timeout")
            return
        if link.keep_alive_at_s is not None and now_s >= link.keep_alive_at_s:
            link.keep_alive_at_s = now_s + self._keep_alive_s
            if not link.quic.is_closing:
                link.quic.send_ping(0)
        if is_silent(link, now_s) and not link.quic.is_closing:
            link.quic.send_ping(0)
        timer_s = link.quic.get_timer()
        if timer_s is not None and now_s >= timer_s:
            link.quic.handle_timer(now_s)

    def _plan(self, link: Link) -> None:
        """Note when a connection wants to be woken; an entry it has outgrown is thrown away when it comes up."""
        at_s = link.next_deadline_s()
        if at_s != link.timer_at_s:
            link.timer_at_s = at_s
            if at_s is not None:
                heapq.heappush(self._heap, (at_s, link.number))

    # Out.

    def flush(self, now_s: float) -> tuple[list[tuple[Path, list[bytes]]], list[Link]]:
        """
        Handle events and collect what is to be sent, until nothing is left to do.

        Returns:
            Datagrams by path, in order, and the connections that were looked at.
        """
        out: list[tuple[Path, list[bytes]]] = [(path, [answer]) for path, answer in self._answers]
        self._answers.clear()
        seen: dict[Link, None] = {}
        while self._touched:
            link = next(iter(self._touched))
            del self._touched[link]
            seen[link] = None
            if link.closed or not self._handle_events(link, now_s):
                continue
            burst = link.take_burst(now_s)
            if burst:
                out.append((link.path, burst))
            for data, path in link.quic.datagrams_to_send(now_s):
                if out and out[-1][0] is path:
                    out[-1][1].append(data)
                else:
                    out.append((path, [data]))
            # Connection IDs are announced by the act of writing them.
            if not self._handle_events(link, now_s):
                continue
            if link.quic.is_closing:
                # The close is sent, or has been received: what QUIC still waits for is nothing to us.
                code, reason = link.quic.close_code or 0, link.quic.close_reason
                self._forget(link)
                event = ConnectionTerminated(error_code=code, frame_type=None, reason_phrase=reason)
                self._observer.link_closed(link, event)
                continue
            self._plan(link)
        return out, list(seen)

    def _handle_events(self, link: Link, now_s: float) -> bool:
        """Handle what QUIC has to say; False when the connection has ended."""
        event = link.quic.next_event()
        while event is not None:
            if isinstance(event, ConnectionIdIssued):
                self._map(event.connection_id, link)
            elif isinstance(event, ConnectionIdRetired):
                self._table.pop(event.connection_id, None)
                link.connection_ids.discard(event.connection_id)
            elif isinstance(event, HandshakeCompleted):
                self._handshake_completed(link, now_s)
            elif isinstance(event, ConnectionTerminated):
                self._forget(link)
                self._observer.link_closed(link, event)
                return False
            else:
                self._observer.link_event(link, event, now_s)
            event = link.quic.next_event()
        if link.ready:
            link.path = link.quic.get_peer_address() or link.path
            if self._keep_alive_s:
                link.keep_alive_at_s = now_s + self._keep_alive_s
        return True

    def _handshake_completed(self, link: Link, now_s: float) -> None:
        link.handshake_deadline_s = None
        if link.quic.is_closing:
            return
        public_key = link.quic.peer_public_key
        if public_key is None:
            link.quic.close(error_code=0, reason_phrase="peers authenticate themselves")
            return
        link.peer_id = derive_peer_id(public_key)
        if link.expected_peer_id not in (None, link.peer_id):
            link.quic.close(error_code=0, reason_phrase="another peer was expected")
            return
        link.ready = True
        link.last_data_s = now_s
        self._observer.link_ready(link, now_s)

    def _forget(self, link: Link) -> None:
        link.closed = True
        self._links.pop(link.number, None)
        for cid in link.connection_ids:
            if self._table.get(cid) is link:
                del self._table[cid]
