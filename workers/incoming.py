"""
What a socket holds is read here, and what belongs to relay channels is taken out of it.

Datagrams of one channel that follow each other are passed on in as few system calls as the kernel allows: a train that
was read whole is sent whole, and trains or single datagrams that came right after one another, with the same header
from the same address, are put together to a longer one. They lie side by side in the receive buffer, so that nothing is
copied for it, and none waits for another: only what the socket holds already is put together.

All the rest comes out datagram by datagram: a train may hold two channels, or QUIC and a channel, since whoever has
several of them on one socket sends one flow.
"""

from itertools import repeat

from antquic_server.net.trains import MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS, split_train
from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.protocol.relay_channel import HEADER_BYTES, is_channel_datagram, is_one_channel
from antquic_server.stats.counters import CounterSet
from workers.channel_table import ChannelTable, Route
from workers.strangers import Strangers

FIXED_BIT = 0x40
"""Every QUIC packet has it (RFC 9000, section 17.2), or a bit above it; no datagram of a channel has."""

RECEIVE_BURST_DATAGRAMS = 128
"""Enough to find both datagrams of many ClientHellos together; about 3 ms of work at 25 µs each."""

BUFFER_BYTES = MAX_TRAIN_BYTES + (1 << 16)
"""What a socket has to read into: a train that is being put together, and room for the longest that may come next."""


class Run:
    """
    A train of one channel that is being put together, at the beginning of a receive buffer.

    ``route`` is None while there is none. It grows until something else comes, or a datagram shorter than the others,
    with which every train ends, or as long as the kernel takes it.
    """

    __slots__ = ("_channels", "_now_s", "buffer", "limit", "route", "segment_size", "size")

    def __init__(self, channels: ChannelTable, buffer: memoryview, now_s: float) -> None:
        self.buffer = buffer
        self.route: Route | None = None
        self.size = 0
        self._channels = channels
        self._now_s = now_s
        self.segment_size = 0
        self.limit = 0
        """How long it may become; less than its size once nothing can follow."""

    def add(self, route: Route, size: int, segment_size: int) -> None:
        """Take in what was read behind it, all of which goes this way."""
        single = size <= segment_size
        before = self.size
        if (
            route is self.route
            and before + size <= self.limit
            and (size <= self.segment_size if single else segment_size == self.segment_size)
        ):
            self.size += size
        else:
            self.flush()
            if before and size <= MAX_TRAIN_BYTES // 2:
                self.buffer[:size] = self.buffer[before : before + size]
            elif before:
                # Too long for another one of its kind to follow: not worth moving.
                self._channels.follow(route, self.buffer[before : before + size], segment_size, self._now_s)
                return
            self.route = route
            self.size = size
            self.segment_size = segment_size
            self.limit = min(MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS * segment_size)
        if self.size % self.segment_size:
            self.limit = 0

    def flush(self) -> None:
        """Pass it on, if there is one."""
        if self.route is not None:
            self._channels.follow(self.route, self.buffer[: self.size], self.segment_size, self._now_s)
            self.route = None
            self.size = 0


class Incoming:
    """Reads the sockets of one slot, which have buffers of BUFFER_BYTES."""

    def __init__(self, channels: ChannelTable, strangers: Strangers, counters: CounterSet) -> None:
        self._channels = channels
        self._strangers = strangers
        self._counters = counters

    def read(self, sock: UdpSocket, now_s: float) -> list[tuple[bytes, PathAddress]]:
        """Read a burst and return the datagrams that were not passed on."""
        find_route, refuse = self._channels.routes.get, self._channels.refuse
        receive, buffer = sock.receive, sock.buffer
        run = Run(self._channels, buffer, now_s)
        received: list[tuple[bytes, PathAddress]] = []
        dealt_with = dealt_with_bytes = 0
        # What is passed on costs no more than one datagram of QUIC, train or not.
        for _ in range(RECEIVE_BURST_DATAGRAMS):
            at = run.size
            train = receive(at)
            if train is None:
                break
            size, segment_size, address, packet_info = train
            # What is shorter than a header has the rest of an earlier one behind it.
            if buffer[at] < FIXED_BIT and size >= HEADER_BYTES:
                header = buffer[at : at + HEADER_BYTES].tobytes()
                route = find_route((header, address))
                count = 1
                if size > segment_size:
                    one_channel = is_one_channel(buffer[at : at + size], segment_size)
                    count = -(-size // segment_size) if one_channel else 0
                if count and route is not None:
                    if size == run.segment_size and route is run.route and at + size <= run.limit:
                        run.size = at + size
                    else:
                        run.add(route, size, segment_size)
                if count and (route is not None or refuse(header, address, count, now_s)):
                    dealt_with += count
                    dealt_with_bytes += size
                    continue
            path = sock.path_of(address, packet_info)
            data = buffer[at : at + size].tobytes()
            if segment_size >= size:
                if is_channel_datagram(data):
                    # At once: a bind comes before the data that waits behind it.
                    self.receive_untrusted(data, path, now_s, forward_strays=True)
                    dealt_with += 1
                    dealt_with_bytes += size
                    continue
                received.append((data, path))
            else:
                received += zip(split_train(data, segment_size), repeat(path))
            if len(received) >= RECEIVE_BURST_DATAGRAMS:
                break
        run.flush()
        self._counters.values["datagrams_received"] += dealt_with + len(received)
        self._counters.values["bytes_received"] += dealt_with_bytes
        return received

    def receive_untrusted(self, data: bytes, path: PathAddress, now_s: float, *, forward_strays: bool) -> None:
        """Deal with a single datagram that is not QUIC."""
        if not is_channel_datagram(data):
            self._counters.add("drops", 1, "not_quic")
        elif not (forward_strays and self._strangers.pass_on(data, path)):
            self._channels.receive_untrusted(data, path, now_s)
