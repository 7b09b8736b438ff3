"""
What a socket holds is read here, and what belongs to relay channels is taken out of it.

Up to sixteen trains are read with one system call, and what of them belongs to one channel and comes from one address
is passed on in as few as the kernel allows: a train that was read whole is sent whole, trains or single datagrams of
one size are sent as a longer one. They stay where they lie, so that nothing is copied for it, and none waits for
another: only what the socket holds already is put together.

All the rest comes out datagram by datagram: a train may hold two channels, or QUIC and a channel, since whoever has
several of them on one socket sends one flow.
"""

from itertools import repeat

from antquic_server.net.trains import MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS, split_train
from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.protocol.relay_channel import HEADER_BYTES, is_channel_datagram, is_one_channel
from antquic_server.stats.counters import CounterSet
from workers.channel_table import ChannelTable, Route, header_number, source_of
from workers.strangers import Strangers

FIXED_BIT = 0x40
"""Every QUIC packet has it (RFC 9000, section 17.2), or a bit above it; no datagram of a channel has."""

RECEIVE_BURST_DATAGRAMS = 128
"""Enough to find both datagrams of many ClientHellos together; about 3 ms of work at 25 µs each."""


class Run:
    """
    A train of one channel that is being put together.

    It grows until something of another size comes, or a datagram shorter than the others, with which every train ends,
    or as long as the kernel takes it.
    """

    __slots__ = ("pieces", "route", "segment_size", "size")

    def __init__(self, route: Route, piece: memoryview, size: int, segment_size: int) -> None:
        self.route = route
        self.pieces = [piece]
        self.size = size
        self.segment_size = segment_size

    def takes(self, size: int, segment_size: int) -> bool:
        """Whether a train, or a single datagram, can be its next piece."""
        own = self.segment_size
        return (
            (size <= own if size <= segment_size else segment_size == own)
            and self.size % own == 0
            and self.size + size <= min(MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS * own)
        )


class Incoming:
    """Reads the sockets of one slot."""

    def __init__(self, channels: ChannelTable, strangers: Strangers, counters: CounterSet) -> None:
        self._channels = channels
        self._strangers = strangers
        self._counters = counters

    def read(self, sock: UdpSocket, now_s: float) -> list[tuple[bytes, PathAddress]]:
        """Read a burst and return the datagrams that were not passed on."""
        received: list[tuple[bytes, PathAddress]] = []
        at_once = sock.trains_at_once
        looked_at = 0
        # What is passed on costs no more than one datagram of QUIC, train or not.
        while looked_at < RECEIVE_BURST_DATAGRAMS and len(received) < RECEIVE_BURST_DATAGRAMS:
            trains = sock.receive_trains()
            self._sort(trains, received, now_s)
            if len(trains) < at_once:
                break
            looked_at += len(trains)
        self._counters.values["datagrams_received"] += len(received)
        return received

    def _sort(
        self,
        trains: list[tuple[memoryview, int, PathAddress]],
        received: list[tuple[bytes, PathAddress]],
        now_s: float,
    ) -> None:
        """Deal with what belongs to channels, each in its order, and append the rest to ``received``."""
        find_route, follow_run = self._channels.routes.get, self._channels.follow_run
        runs: dict[tuple[int, int], Run] = {}
        dealt_with = total_bytes = 0
        received_before = len(received)
        for view, segment_size, path in trains:
            size = len(view)
            total_bytes += size
            if size < HEADER_BYTES or view[0] >= FIXED_BIT:
                received += zip(split_train(view.tobytes(), segment_size), repeat(path))
                continue
            count = 1
            if size > segment_size:
                if not is_one_channel(view, segment_size):
                    received += zip(split_train(view.tobytes(), segment_size), repeat(path))
                    continue
                count = -(-size // segment_size)
            # A path is one object for all that come by it at this time, and a number is read faster than eight bytes.
            key = (header_number(view)[0], id(path))
            run = runs.get(key)
            if run is not None:
                if run.takes(size, segment_size):
                    run.pieces.append(view)
                    run.size += size
                    dealt_with += count
                    continue
                follow_run(run.route, run.pieces, run.size, run.segment_size, now_s)
                del runs[key]
            route = find_route((key[0], source_of(path)))
            if route is None:
                dealt_with += self._take_without_route(view, segment_size, count, path, received, now_s)
                continue
            runs[key] = Run(route, view, size, segment_size)
            dealt_with += count
        for run in runs.values():
            follow_run(run.route, run.pieces, run.size, run.segment_size, now_s)
        values = self._counters.values
        values["datagrams_received"] += dealt_with
        values["bytes_received"] += total_bytes - sum(len(data) for data, _ in received[received_before:])

    def _take_without_route(  # noqa: PLR0917 - what is known of one train
        self,
        train: memoryview,
        segment_size: int,
        count: int,
        path: PathAddress,
        received: list[tuple[bytes, PathAddress]],
        now_s: float,
    ) -> int:
        """Deal with a train of one header that leads nowhere; returns how many datagrams that were, all or none."""
        if self._channels.refuse(train[:HEADER_BYTES].tobytes(), source_of(path), count, now_s):
            return count
        data = train.tobytes()
        if count == 1 and is_channel_datagram(data):
            # At once: a bind comes before the data that waits behind it.
            self.receive_untrusted(data, path, now_s, forward_strays=True)
            return 1
        received += zip(split_train(data, segment_size), repeat(path))
        return 0

    def receive_untrusted(self, data: bytes, path: PathAddress, now_s: float, *, forward_strays: bool) -> None:
        """Deal with a single datagram that is not QUIC."""
        if not is_channel_datagram(data):
            self._counters.add("drops", 1, "not_quic")
        elif not (forward_strays and self._strangers.pass_on(data, path)):
            self._channels.receive_untrusted(data, path, now_s)
