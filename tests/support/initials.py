"""First flights of clients, and a table of admission with everything around it, for tests of the workers."""

import random
from typing import Any

from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicHeader, pull_quic_header

from antquic_server.net.udp import PathAddress
from antquic_server.protocol.limits import KeyedBuckets
from antquic_server.protocol.retry_policy import RetryPolicy
from antquic_server.protocol.retry_token import RetryTokenSealer
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.stats.counters import CounterSet
from support.pair import LAYOUT, SERVER_ADDRESS, SLOT, START_S, client_connection
from workers.admission import Admission, Load

PATH = PathAddress("192.0.2.7", 50007, 0, 0, b"", 0)
OTHER_PORT = PATH._replace(port=50008)
OTHER_HOST = PATH._replace(host="192.0.2.8")
IDLE = Load(connections_on_node=0, half_open=0, loop_lag_s=0.0)
ROOT_SECRET = b"root secret of the tests".ljust(32, b".")
UNIX_S = 1_700_000_000.0


def first_flight(client: NodeQuicConnection | None = None) -> list[bytes]:
    """The datagrams of a ClientHello; real ones, of a client that connects now."""
    client = client or client_connection()
    client.connect(SERVER_ADDRESS, START_S)
    return [data for data, _ in client.datagrams_to_send(START_S)]


def header_of(data: bytes) -> QuicHeader:
    """The header of the first packet of a datagram."""
    return pull_quic_header(Buffer(data=data), host_cid_length=10)


def long_header(first_byte: int, version: int, destination_cid: bytes, rest: bytes = b"", *, size: int = 1200) -> bytes:
    """A datagram with a long header somebody made by hand."""
    head = bytes([first_byte]) + version.to_bytes(4, "big")
    head += bytes([len(destination_cid)]) + destination_cid + b"\x04\xc1\xc2\xc3\xc4" + rest
    return head.ljust(size, b"\x00")


def make_admission(
    *,
    counters: CounterSet | None = None,
    retry: str = "off",
    half_open_threshold: int = 10,
    address_rates: KeyedBuckets | None = None,
    prefix_rates: KeyedBuckets | None = None,
    max_connections: int = 100,
    root_secret: bytes = ROOT_SECRET,
    slot: int = SLOT,
    seed: int = 0,
) -> Admission:
    """An admission that lets everybody in unless told otherwise."""
    randomness: Any = random.Random(seed)
    return Admission(
        counters=counters or CounterSet(),
        sealer=RetryTokenSealer(root_secret),
        retry_policy=RetryPolicy(mode=retry, half_open_threshold=half_open_threshold),
        address_rates=address_rates or KeyedBuckets(1e6, 1e6, 16),
        prefix_rates=prefix_rates or KeyedBuckets(1e6, 1e6, 16),
        max_connections=max_connections,
        new_connection_id=lambda: LAYOUT.new_connection_id(slot, randomness.randbytes),
        random_bytes=randomness.randbytes,
    )
