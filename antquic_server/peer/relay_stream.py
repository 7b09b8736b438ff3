"""
Stream relays as their client: one bidirectional stream to a node, one UDP port of the node's for us.

This is what ant-quic nodes offer, and ours as well (``protocol.relay_stream``): a datagram that arrives at the port
comes as a frame with its source address, a frame that we write leaves the port. It serves both to reach somebody and to
be reached, since the port is as good as one of our own that no NAT stands in front of. Pure: stream data and the time
come in, datagrams go out as return values, the rest through :class:`Observer`.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from aioquic.quic.events import StopSendingReceived, StreamDataReceived, StreamReset

from antquic_server.errors import RelayDecodeError
from antquic_server.peer.link import Link, Path
from antquic_server.peer.relay_paths import StreamRelayPath
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_limits import RelayEnd
from antquic_server.protocol.relay_stream import (
    BIND_REQUEST,
    MAX_FRAME_BYTES,
    MAX_REQUEST_BYTES,
    MessageReader,
    decode_frame_untrusted,
    decode_response_untrusted,
    encode_frame,
    frame_header,
)

__all__ = ["MAX_BACKLOG_BYTES", "RESPONSE_TIMEOUT_S", "Observer", "StreamRelay", "StreamRelays"]

RESPONSE_TIMEOUT_S = 5.0
MAX_BACKLOG_BYTES = 256 * 1024
"""Frames written and not acknowledged; beyond that datagrams are dropped, as a full queue of a router does."""
MAX_HEADERS = 256
"""Remote addresses whose frame header is kept; more are worked out each time."""
NO_ANSWER = "relay_silent"
NO_ADDRESS = "relay_without_address"
MALFORMED = "relay_malformed"


class StreamRelay:
    """One relay; ``address`` is its public address, None before the node has answered."""

    def __init__(self, number: int, link: Link, stream_id: int, now_s: float) -> None:
        assert link.peer_id is not None, "a node is ready only with its key known"
        self.number = number
        self.link = link
        self.node: bytes = link.peer_id
        self.stream_id = stream_id
        self.address: SocketAddress | None = None
        self.answer_by_s = now_s + RESPONSE_TIMEOUT_S
        self.bytes_sent = 0
        self.bytes_received = 0
        self.reader = MessageReader(MAX_REQUEST_BYTES)
        self._headers: dict[tuple[str, int], bytes] = {}

    def path_to(self, address: SocketAddress) -> StreamRelayPath | None:
        """Return how to send to an address; None if a port of this relay's family cannot."""
        if self.address is None or (self.address.is_ipv4 and not address.is_ipv4):
            return None
        return StreamRelayPath(str(address.host), address.port, self.number)

    def path_from(self, source: SocketAddress) -> StreamRelayPath:
        """Return the path by which a datagram from there has come; IPv4 has one form only."""
        host = source.host
        mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
        return StreamRelayPath(str(mapped or host), source.port, self.number)

    def header(self, path: StreamRelayPath) -> bytes:
        """Return what goes before a datagram for this path."""
        key = (path.host, path.port)
        header = self._headers.get(key)
        if header is None:
            target = SocketAddress.from_host(*key)
            assert self.address is not None, "there are no paths before the answer"
            if isinstance(target.host, IPv4Address) and not self.address.is_ipv4:
                target = SocketAddress(host=IPv6Address(f"::ffff:{target.host}"), port=target.port)
            header = frame_header(target)
            if len(self._headers) < MAX_HEADERS:
                self._headers[key] = header
        return header


class Observer(Protocol):
    """Whoever is told what becomes of a relay."""

    def relay_opened(self, relay: StreamRelay, now_s: float) -> None:
        """Handle the answer: the relay has an address."""

    def relay_ended(self, relay: StreamRelay, reason: str, now_s: float) -> None:
        """Handle a refusal, or the end of a relay that was there; ``reason`` is a word."""


class StreamRelays:
    """Every stream relay of one peer; ``touch`` what it has written to is the caller's."""

    def __init__(self, observer: Observer, tallies: Tallies) -> None:
        self._observer = observer
        self._tallies = tallies
        self._relays: dict[int, StreamRelay] = {}
        self._by_stream: dict[tuple[int, int], StreamRelay] = {}
        self._next_number = 1

    def __iter__(self) -> Iterator[StreamRelay]:
        return iter(list(self._relays.values()))

    def __len__(self) -> int:
        return len(self._relays)

    def find(self, path: Path) -> StreamRelay | None:
        """Return the relay behind a path."""
        return self._relays.get(path.session) if isinstance(path, StreamRelayPath) else None

    def at_node(self, node: bytes) -> StreamRelay | None:
        """Return the relay that a node carries for us, be it answered yet or not."""
        return next((relay for relay in self._relays.values() if relay.node == node), None)

    def open(self, node: Link, now_s: float) -> StreamRelay:
        """Ask a node for a relay; there is one for each node."""
        relay = None if node.peer_id is None else self.at_node(node.peer_id)
        if relay is None:
            stream_id = node.quic.get_next_available_stream_id()
            relay = StreamRelay(self._next_number, node, stream_id, now_s)
            self._next_number += 1
            self._relays[relay.number] = relay
            self._by_stream[node.number, stream_id] = relay
            node.quic.send_stream_data(stream_id, BIND_REQUEST)
        return relay

    def close(self, relay: StreamRelay) -> None:
        """End a relay from our side: what is written still leaves."""
        if self._forget(relay) and not relay.link.closed and relay.link.quic.stream_is_writable(relay.stream_id):
            relay.link.quic.send_stream_data(relay.stream_id, b"", end_stream=True)

    def link_closed(self, link: Link, now_s: float) -> None:
        """Take in that a connection has ended, and what it has carried with it."""
        for relay in self:
            if relay.link is link:
                self._end(relay, RelayEnd.CONNECTION_LOST.value, now_s)

    def owns(self, link: Link, stream_id: int) -> bool:
        """Whether a stream is a relay's."""
        return (link.number, stream_id) in self._by_stream

    def stream_event(self, link: Link, event: object, now_s: float) -> list[tuple[bytes, StreamRelayPath]]:
        """Take in what happens on the stream of a relay; returns datagrams and the paths they have come by."""
        assert isinstance(event, StreamDataReceived | StreamReset | StopSendingReceived), "events of streams only"
        relay = self._by_stream[link.number, event.stream_id]
        if not isinstance(event, StreamDataReceived):
            self._end(relay, RelayEnd.STREAM_ENDED.value, now_s)
            return []
        relay.reader.feed(event.data)
        try:
            datagrams = self._read_untrusted(relay, now_s)
        except RelayDecodeError:
            # What follows cannot be made out any more.
            self._tallies.drops[MALFORMED] += 1
            link.quic.reset_stream(event.stream_id, 0)
            self._end(relay, MALFORMED, now_s)
            return []
        if event.end_stream:
            self._end(relay, RelayEnd.STREAM_ENDED.value, now_s)
        return datagrams

    def _read_untrusted(self, relay: StreamRelay, now_s: float) -> list[tuple[bytes, StreamRelayPath]]:
        datagrams = []
        while relay.number in self._relays and (body := relay.reader.next_untrusted()) is not None:
            if relay.address is None:
                self._answered_untrusted(relay, body, now_s)
                continue
            try:
                source, payload = decode_frame_untrusted(body)
            except RelayDecodeError:
                # As ant-quic has it: the frame is passed over, its end is known.
                self._tallies.drops["relay_frame"] += 1
                continue
            relay.bytes_received += len(payload)
            datagrams.append((payload, relay.path_from(source)))
        return datagrams

    def _answered_untrusted(self, relay: StreamRelay, body: bytes, now_s: float) -> None:
        response = decode_response_untrusted(body)
        if response.is_success:
            relay.address = response.address
            relay.reader.limit_bytes = MAX_FRAME_BYTES
            self._tallies.relay_streams_opened += 1
            self._observer.relay_opened(relay, now_s)
            return
        if relay.link.quic.stream_is_writable(relay.stream_id):
            relay.link.quic.send_stream_data(relay.stream_id, b"", end_stream=True)
        succeeded = 200 <= response.status < 300
        self._end(relay, NO_ADDRESS if succeeded else _word(response.reason, response.status), now_s)

    def send(self, path: StreamRelayPath, datagrams: list[bytes]) -> Link | None:
        """Write datagrams as frames; returns the connection to flush, None if they are dropped."""
        relay = self._relays.get(path.session)
        if relay is None or relay.address is None:
            self._tallies.drops["relay_path_gone"] += len(datagrams)
            return None
        quic, header = relay.link.quic, relay.header(path)
        for data in datagrams:
            if quic.stream_backlog_bytes(relay.stream_id) > MAX_BACKLOG_BYTES:
                self._tallies.drops["relay_stream_full"] += 1
                continue
            relay.bytes_sent += len(data)
            quic.send_stream_data(relay.stream_id, encode_frame(header, data))
        return relay.link

    # Time.

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` is due."""
        return min((relay.answer_by_s for relay in self._relays.values() if relay.address is None), default=None)

    def handle_timer(self, now_s: float) -> None:
        """Give up nodes that do not answer."""
        for relay in self:
            if relay.address is None and now_s >= relay.answer_by_s:
                if not relay.link.closed:
                    relay.link.quic.reset_stream(relay.stream_id, 0)
                self._end(relay, NO_ANSWER, now_s)

    def _end(self, relay: StreamRelay, reason: str, now_s: float) -> None:
        if self._forget(relay):
            self._observer.relay_ended(relay, reason, now_s)

    def _forget(self, relay: StreamRelay) -> bool:
        self._by_stream.pop((relay.link.number, relay.stream_id), None)
        return self._relays.pop(relay.number, None) is not None


def _word(reason: str, status: int) -> str:
    """Return a refusal as a word; ant-quic's nodes say a sentence, ours the word itself."""
    known = reason.isascii() and reason.replace("_", "").isalpha() and len(reason) <= 64
    return reason if known else f"status_{status}"
