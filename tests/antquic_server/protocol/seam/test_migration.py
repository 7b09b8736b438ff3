"""Tests of ``antquic_server.protocol.seam.migration``: two ends, two paths between them, and data under way."""

import heapq
import random
from typing import Any, NamedTuple

import pytest
from aioquic.quic.events import StreamDataReceived

from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.options import Tally
from support.pair import CLIENT_ADDRESS, SERVER_ADDRESS, Link, Pair, client_connection, server_connection

DATA = random.Random(3).randbytes(300_000)
REPEAT_S = 0.2


class Relay(NamedTuple):
    """An address behind a relay, which puts a header around every datagram."""

    host: str
    port: int

    @property
    def overhead_bytes(self) -> int:
        """Of the header."""
        return 8


OTHER_SERVER = ("203.0.113.9", 4433)
OTHER_CLIENT = ("203.0.113.7", 50007)
RELAYED_SERVER, RELAYED_CLIENT = Relay("198.18.0.1", 10_000), Relay("198.18.0.1", 10_001)


class TwoPaths(Pair):
    """The link of :class:`Pair`, and a second one; each path is known by the addresses of its two ends."""

    def __init__(self, *, second: Link | None = None, other: Any = OTHER_SERVER, seed: int = 0, **pair: Any) -> None:
        options = {"mtu_max": 1452, "connection_window_bytes": 10_000_000, "stream_window_bytes": 1_250_000}
        super().__init__(
            client_connection(options=options | {"tally": Tally()}),
            lambda cid: server_connection(cid, options={"mtu_max": 1452, "tally": Tally()}),
            seed=seed,
            **pair,
        )
        self.other = other
        self.other_client = RELAYED_CLIENT if other is RELAYED_SERVER else OTHER_CLIENT
        self.links = {True: self.link, False: second or self.link}
        """The link of the first path, and of the other."""
        self.carried = {True: 0, False: 0}
        self.largest = {True: 0, False: 0}

    def _flush_end(self, end: NodeQuicConnection, *, from_client: bool) -> None:
        self._collect_events(end, from_client=from_client)
        for data, address in end.datagrams_to_send(self.now_s):
            first = address in (SERVER_ADDRESS, CLIENT_ADDRESS)
            self.carried[first] += 1
            self.largest[first] = max(self.largest[first], len(data))
            for delay_s in self.links[first].arrivals(self._randomness):
                source = CLIENT_ADDRESS if first else self.other_client
                item: Any = (self.now_s + delay_s, next(self._order), from_client, data, source)
                heapq.heappush(self._in_flight, item)
        self._collect_events(end, from_client=from_client)

    def _receive(self, data: bytes, *, to_server: bool, address: Any) -> None:
        if to_server:
            super()._receive(data, to_server=True, address=address)
        else:
            source = SERVER_ADDRESS if address == CLIENT_ADDRESS else self.other
            self.client.receive_datagram(data, source, self.now_s)

    def migrate(self, limit_s: float = 10.0) -> bool:
        """Probe the other path until the client is on it."""
        end_s = self.now_s + limit_s
        while self.now_s < end_s and not self.client.is_on_path(self.other):
            self.client.probe_path(self.other)
            self.flush()
            self.run(lambda: self.client.is_on_path(self.other), REPEAT_S)
        self.flush()
        return self.client.is_on_path(self.other)

    def got(self, *, of_server: bool) -> bytes:
        """The stream data that one end has."""
        return b"".join(event.data for event in self.events(StreamDataReceived, of_server=of_server))


def loaded(pair: TwoPaths, data: bytes = DATA) -> TwoPaths:
    """Put data under way in both directions on one stream."""
    pair.handshake()
    pair.advance(2.0)
    pair.client.send_stream_data(0, data, end_stream=True)
    pair.server.send_stream_data(1, data, end_stream=True)
    pair.flush()
    pair.run(lambda: len(pair.got(of_server=True)) > len(data) // 10, 30)
    return pair


def complete(pair: TwoPaths, data: bytes = DATA) -> bool:
    """Whether both ends have everything."""
    return len(pair.got(of_server=True)) == len(data) == len(pair.got(of_server=False))


def test_both_ends_are_on_the_new_path_and_nothing_is_lost() -> None:
    """Data under way in both directions arrives, every byte of it once, and afterwards only the new path is used."""
    pair = loaded(TwoPaths(other=OTHER_SERVER))
    assert not complete(pair)

    assert pair.migrate()
    assert pair.run(lambda: complete(pair), 30)
    assert pair.got(of_server=True) == DATA == pair.got(of_server=False)
    assert pair.server.is_on_path(OTHER_CLIENT)
    assert pair.server.is_path_validated
    before = pair.carried[True]
    pair.client.send_ping(1)
    pair.server.send_ping(2)
    pair.flush()
    pair.advance(2.0)
    assert pair.carried[True] == before


def test_a_probe_alone_moves_nothing() -> None:
    """Until the response has come, traffic stays where it is; a dead path is given up and costs nothing."""
    pair = loaded(TwoPaths(second=Link(loss=1.0)))

    assert not pair.migrate(1.0)
    assert pair.client.is_on_path(SERVER_ADDRESS)
    pair.client.abandon_path(OTHER_SERVER)
    pair.client.abandon_path(SERVER_ADDRESS)
    pair.client.abandon_path(("192.0.2.99", 1))
    assert pair.client.is_on_path(SERVER_ADDRESS)
    assert pair.run(lambda: complete(pair), 30)
    assert pair.got(of_server=True) == DATA == pair.got(of_server=False)


def test_connection_ids_come_back_after_failed_moves() -> None:
    """Twenty moves that fail leave as many spare connection IDs as before."""
    pair = TwoPaths(second=Link(loss=1.0)).handshake()
    assert isinstance(pair, TwoPaths)
    spare = len(pair.client._peer_cid_available)
    for _ in range(20):
        assert pair.client.probe_path(OTHER_SERVER)
        pair.flush()
        pair.client.abandon_path(OTHER_SERVER)
        pair.flush()
        pair.advance(0.5)

    assert len(pair.client._peer_cid_available) == spare


def test_only_an_established_client_moves() -> None:
    """Neither a server, nor a client before the handshake is confirmed or after the close, nor to where it is."""
    pair = TwoPaths()
    assert not pair.client.probe_path(OTHER_SERVER)
    pair.handshake()
    assert not pair.server.can_migrate
    assert not pair.server.probe_path(OTHER_CLIENT)
    assert not pair.client.probe_path(SERVER_ADDRESS)
    pair.client.close()
    assert not pair.client.probe_path(OTHER_SERVER)


def test_there_and_back_again() -> None:
    """A path that was left can be taken again, as an unknown one."""
    pair = TwoPaths().handshake()
    assert isinstance(pair, TwoPaths)
    assert pair.migrate()
    pair.advance(2.0)
    assert pair.client.probe_path(SERVER_ADDRESS)
    pair.flush()
    assert pair.run(lambda: pair.client.is_on_path(SERVER_ADDRESS), 5)
    pair.flush()
    assert pair.run(lambda: pair.server.is_on_path(CLIENT_ADDRESS), 5)


def test_from_a_dead_path_within_two_seconds() -> None:
    """The old path is silent for a second with data in flight: the transfer goes on at once on the new one."""
    pair = loaded(TwoPaths())
    pair.links[True] = Link(loss=1.0)
    pair.advance(1.0)
    moved_s = pair.now_s

    assert pair.migrate()
    assert pair.run(lambda: complete(pair), 30)
    assert pair.now_s - moved_s < 2.0
    assert pair.got(of_server=True) == DATA == pair.got(of_server=False)


@pytest.mark.parametrize("seed", range(40))
def test_with_loss_on_both_paths(seed: int) -> None:
    """Paths of different delay that lose a tenth: every byte arrives, whatever was under way."""
    randomness = random.Random(seed)
    first = Link(loss=0.1, delay_s=(0.03, randomness.choice((0.03, 0.09))))
    second = Link(loss=0.1, delay_s=(0.01, randomness.choice((0.01, 0.05))))
    pair = loaded(TwoPaths(link=first, second=second, seed=seed), DATA[:100_000])

    assert pair.migrate()
    assert pair.run(lambda: complete(pair, DATA[:100_000]), 120)
    assert pair.got(of_server=True) == DATA[:100_000] == pair.got(of_server=False)


def test_congestion_and_round_trip_time_begin_anew() -> None:
    """The new path is ten times as fast: nothing measured on the old one is left, at either end."""
    pair = loaded(TwoPaths(link=Link(delay_s=(0.1, 0.1)), second=Link(delay_s=(0.01, 0.01))))
    assert pair.client._loss._rtt_smoothed > 0.15

    assert pair.migrate()
    assert pair.client._loss._rtt_smoothed < 0.15
    assert pair.client._loss.bytes_in_flight <= pair.client._loss.congestion_window
    pair.run(lambda: complete(pair), 30)
    pair.client.send_ping(1)
    pair.server.send_ping(1)
    pair.flush()
    pair.advance(1.0)
    for end in (pair.client, pair.server):
        assert end._loss._rtt_min < 0.1
        assert end._loss.bytes_in_flight == 0


def test_a_relays_header_is_left_room_for() -> None:
    """A path with a header of 8 bytes carries 1444 at most; the next without one is searched up to 1452 again."""
    pair = TwoPaths(other=RELAYED_SERVER).handshake()
    assert isinstance(pair, TwoPaths)
    pair.advance(3.0)
    assert pair.client.path_mtu_bytes == 1452
    assert pair.migrate()
    pair.advance(3.0)

    assert pair.client.path_mtu_bytes == pair.server.path_mtu_bytes == 1444
    assert pair.largest[False] == 1444
    pair.client.probe_path(SERVER_ADDRESS)
    pair.flush()
    pair.advance(3.0)
    assert pair.client.path_mtu_bytes == pair.server.path_mtu_bytes == 1452
