"""
What a socket holds is read here, and what belongs to relay channels is taken out of it.

A train of one channel is passed on as soon as it is read, before the buffer is used again; that is the whole way of
nearly all that a relay carries. Everything else comes out datagram by datagram: a train may hold two channels, or
QUIC and a channel, since whoever has several of them on one socket sends one flow.
"""

from itertools import repeat

from antquic_server.net.trains import split_train
from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.protocol.relay_channel import is_channel_datagram
from antquic_server.stats.counters import CounterSet
from workers.channel_table import ChannelTable
from workers.strangers import Strangers

FIXED_BIT = 0x40
"""Every QUIC packet has it (RFC 9000, section 17.2), or a bit above it; no datagram of a channel has."""

RECEIVE_BURST_DATAGRAMS = 128
"""Enough to find both datagrams of many ClientHellos together; about 3 ms of work at 25 µs each."""


class Incoming:
    """Reads the sockets of one slot."""

    def __init__(self, channels: ChannelTable, strangers: Strangers, counters: CounterSet) -> None:
        self._channels = channels
        self._strangers = strangers
        self._counters = counters

    def read(self, sock: UdpSocket, now_s: float) -> list[tuple[bytes, PathAddress]]:
        """Read a burst and return the datagrams that were not passed on."""
        forward_train = self._channels.forward_train
        received: list[tuple[bytes, PathAddress]] = []
        passed_on = passed_on_bytes = 0
        at_once = sock.trains_at_once
        looked_at = 0
        # A train that is passed on whole costs no more than one datagram of QUIC.
        while looked_at < RECEIVE_BURST_DATAGRAMS and len(received) < RECEIVE_BURST_DATAGRAMS:
            trains = sock.receive_trains()
            for view, segment_size, path in trains:
                if view and view[0] < FIXED_BIT:
                    count = forward_train(view, segment_size, path, now_s)
                    if count:
                        passed_on += count
                        passed_on_bytes += len(view)
                        continue
                if segment_size >= len(view):
                    received.append((bytes(view), path))
                else:
                    received += zip(split_train(bytes(view), segment_size), repeat(path))
            if len(trains) < at_once:
                break
            looked_at += len(trains)
        self._counters.values["datagrams_received"] += passed_on + len(received)
        self._counters.values["bytes_received"] += passed_on_bytes
        return received

    def receive_untrusted(self, data: bytes, path: PathAddress, now_s: float, *, forward_strays: bool) -> None:
        """Deal with a single datagram that is not QUIC."""
        if not is_channel_datagram(data):
            self._counters.add("drops", 1, "not_quic")
        elif not (forward_strays and self._strangers.pass_on(data, path)):
            self._channels.receive_untrusted(data, path, now_s)
