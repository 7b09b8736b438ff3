"""
What a socket holds is read here, and what belongs to relay channels is taken out of it.

A train of one channel is passed on as soon as it is read, before the buffer is used again; that is the whole way of
nearly all that a relay carries. Datagrams of a leg that came each by itself go on together, as a train: that saves the
look into the table and the system call for all but the first of what one read has given. Everything else comes out
datagram by datagram: a train may hold two channels, or QUIC and a channel, since whoever has several of them on one
socket sends one flow.
"""

from itertools import repeat

from antquic_server.net.trains import MAX_TRAIN_BYTES, split_train
from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.protocol.relay_channel import HEADER_BYTES, is_channel_datagram
from antquic_server.stats.counters import CounterSet
from workers.channel_table import ChannelTable, header_number, source_of
from workers.strangers import Strangers

FIXED_BIT = 0x40
"""Every QUIC packet has it (RFC 9000, section 17.2), or a bit above it; no datagram of a channel has."""

RECEIVE_BURST_DATAGRAMS = 128
"""Enough to find both datagrams of many ClientHellos together; about 3 ms of work at 25 µs each."""


_Run = tuple[list[memoryview], PathAddress, int]
"""Datagrams of one header that came one by one, the path they came by, and the header as a number."""


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
        # A train that is passed on whole costs no more than one datagram of QUIC.
        while looked_at < RECEIVE_BURST_DATAGRAMS and len(received) < RECEIVE_BURST_DATAGRAMS:
            trains = sock.receive_trains()
            self._pass_on(trains, received, now_s)
            if len(trains) < at_once:
                break
            looked_at += len(trains)
        self._counters.values["datagrams_received"] += len(received)
        return received

    def _pass_on(
        self,
        trains: list[tuple[memoryview, int, PathAddress]],
        received: list[tuple[bytes, PathAddress]],
        now_s: float,
    ) -> None:
        """Pass on what belongs to channels, each in its order, and append the rest to ``received``."""
        runs: dict[tuple[int, int], _Run] = {}
        passed_on = total_bytes = 0
        already_received = len(received)
        for view, segment_size, path in trains:
            size = len(view)
            total_bytes += size
            if size < HEADER_BYTES or view[0] >= FIXED_BIT:
                received += zip(split_train(view.tobytes(), segment_size), repeat(path))
                continue
            number = header_number(view)[0]
            # A path is one object for all that come by it at this time.
            key = (number, id(path))
            run = runs.get(key)
            if run is not None and not _takes(run[0], size, segment_size):
                passed_on += self._pass_on_run(run, received, now_s)
                del runs[key]
                run = None
            if size > segment_size:
                passed_on += self._pass_on_train(([view], path, number), segment_size, received, now_s)
            elif run is not None:
                run[0].append(view)
            else:
                runs[key] = ([view], path, number)
        for run in runs.values():
            passed_on += self._pass_on_run(run, received, now_s)
        values = self._counters.values
        values["datagrams_received"] += passed_on
        values["bytes_received"] += total_bytes - sum(len(data) for data, _ in received[already_received:])

    def _pass_on_run(self, run: _Run, received: list[tuple[bytes, PathAddress]], now_s: float) -> int:
        """Return how many datagrams were passed on, all or none."""
        datagrams, path, number = run
        route = self._channels.routes.get((number, source_of(path)))
        if route is None:
            received += [(datagram.tobytes(), path) for datagram in datagrams]
            return 0
        count = len(datagrams)
        if count == 1:
            return self._channels.follow(route, datagrams[0], len(datagrams[0]), now_s)
        self._channels.follow_run(route, datagrams, now_s)
        return count

    def _pass_on_train(
        self, run: _Run, segment_size: int, received: list[tuple[bytes, PathAddress]], now_s: float
    ) -> int:
        """Return how many datagrams were passed on, all or none."""
        (train,), path, number = run
        route = self._channels.routes.get((number, source_of(path)))
        count = 0 if route is None else self._channels.follow(route, train, segment_size, now_s)
        if not count:
            received += zip(split_train(train.tobytes(), segment_size), repeat(path))
        return count

    def receive_untrusted(self, data: bytes, path: PathAddress, now_s: float, *, forward_strays: bool) -> None:
        """Deal with a single datagram that is not QUIC."""
        if not is_channel_datagram(data):
            self._counters.add("drops", 1, "not_quic")
        elif not (forward_strays and self._strangers.pass_on(data, path)):
            self._channels.receive_untrusted(data, path, now_s)


def _takes(run: list[memoryview], size: int, segment_size: int) -> bool:
    """Whether a datagram, or a whole train, of this size can follow in the same train."""
    first = len(run[0])
    return size <= segment_size and len(run[-1]) == first >= size and (len(run) + 1) * first <= MAX_TRAIN_BYTES
