"""
Two connections of ours in memory: a client, a server, a link between them and a clock that jumps.

Nothing here waits. :class:`Pair` moves datagrams in the order in which the :class:`Link` delivers them, gives each end
everything that arrives at one moment before it is asked what it sends (as the endpoint does), fires timers when they
are due, and advances the clock to whatever happens next. A link that loses, repeats, delays and reorders does so by a
seed, so every run can be repeated.

Every datagram the server sends before a Handshake packet has reached it is held against the amplification limit
(RFC 9000, section 8.1), counted on the wire and not in the connection under test.
"""

import heapq
import random
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Any

import pytest
from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.events import QuicEvent
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import load_pem_private_key, load_pem_x509_certificates

from antquic_server.certificates import self_signed_certificate
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.provider import SigningKey
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.routing import ConnectionIdLayout
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.options import ConnectionOptions
from antquic_server.protocol.seam.tls_context import TlsOptions
from antquic_server.protocol.stateless_reset import reset_token

CLIENT_ADDRESS = ("192.0.2.7", 50007)
SERVER_ADDRESS = ("198.51.100.1", 4433)
SERVER_EXTENSIONS = ExtensionParameters(nat_traversal=10, rfc_nat_traversal=True, address_discovery=2)
CLIENT_EXTENSIONS = ExtensionParameters(nat_traversal=3, rfc_nat_traversal=True, address_discovery=2)
RESET_KEY = b"reset key of the tests".ljust(32, b".")
LAYOUT = ConnectionIdLayout(node_id=b"\xa5\x5a", worker_count=4)
SLOT = 2
START_S = 1000.0

_AMPLIFICATION = 3
_MAX_STEPS = 20_000
_TIMER_SLACK_S = 1e-6


@cache
def pool() -> PqcPool:
    """The post-quantum operations both ends share; the provider that is always installed."""
    return PqcPool(CryptographyProvider(), 4)


@cache
def node_key(name: str) -> SigningKey:
    """The ML-DSA-65 key of a made-up node."""
    return pool().signing_key(name.encode().ljust(32, b"."))


@cache
def certificate() -> tuple[bytes, bytes]:
    """Certificate and key of the server, PEM."""
    return self_signed_certificate("peer")


def client_connection(
    *,
    kind: type[NodeQuicConnection] = NodeQuicConnection,
    profile: HandshakeProfile = HandshakeProfile.ANT_QUIC,
    groups: tuple[int, ...] = (NamedGroup.ML_KEM_768,),
    share_group: int | None = None,
    key: SigningKey | None = None,
    without_key: bool = False,
    expected_public_key: bytes | None = None,
    extensions: ExtensionParameters | None = CLIENT_EXTENSIONS,
    connection_id_bytes: int = 8,
    pqc: Any = None,
    options: dict[str, Any] | None = None,
    **configuration: Any,
) -> NodeQuicConnection:
    """Return a client that has not connected yet; ``configuration`` goes to aioquic's, ``options`` to ours."""
    settings: dict[str, Any] = {
        "connection_id_length": connection_id_bytes,
        "max_datagram_frame_size": 65535,
        "server_name": "peer",
        "supported_versions": [1],
        "verify_mode": ssl.CERT_NONE,
    }
    tls_options = TlsOptions(
        pqc=pqc or pool(),
        node_key=None if without_key else key or node_key("client"),
        client_profile=profile,
        client_groups=groups,
        client_share_group=share_group,
        client_expected_public_key=expected_public_key,
    )
    return kind(
        configuration=QuicConfiguration(is_client=True, **(settings | configuration)),
        options=ConnectionOptions(tls=tls_options, extensions=extensions, **(options or {})),
    )


def server_connection(
    destination_cid: bytes,
    *,
    kind: type[NodeQuicConnection] = NodeQuicConnection,
    allow_classical: bool = False,
    extensions: ExtensionParameters | None = SERVER_EXTENSIONS,
    options: dict[str, Any] | None = None,
    original_destination_cid: bytes | None = None,
    retry_source_cid: bytes | None = None,
    **configuration: Any,
) -> NodeQuicConnection:
    """Return the server's end for a client whose first Initial goes to ``destination_cid``."""
    certificate_pem, key_pem = certificate()
    settings: dict[str, Any] = {
        "connection_id_length": 10,
        "max_datagram_frame_size": 65535,
        "supported_versions": [1],
        "certificate": load_pem_x509_certificates(certificate_pem)[0],
        "private_key": load_pem_private_key(key_pem),
    }
    randomness = random.Random(destination_cid)
    ours: dict[str, Any] = {
        "new_connection_id": lambda: LAYOUT.new_connection_id(SLOT, randomness.randbytes),
        "stateless_reset_token": lambda cid: reset_token(RESET_KEY, cid),
        "stream_window_bytes": 1_250_000,
        "connection_window_bytes": 10_000_000,
    }
    tls_options = TlsOptions(pqc=pool(), node_key=node_key("server"), allow_classical=allow_classical)
    return kind(
        configuration=QuicConfiguration(is_client=False, **(settings | configuration)),
        options=ConnectionOptions(tls=tls_options, extensions=extensions, **(ours | (options or {}))),
        original_destination_connection_id=original_destination_cid or destination_cid,
        retry_source_connection_id=retry_source_cid,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What happens to a datagram on its way; probabilities, and the delay in seconds drawn evenly from a range."""

    loss: float = 0.0
    repeat: float = 0.0
    delay_s: tuple[float, float] = (0.02, 0.02)

    def arrivals(self, randomness: random.Random) -> list[float]:
        """Return after how many seconds one datagram arrives: once, several times or never."""
        if randomness.random() < self.loss:
            return []
        copies = 2 if randomness.random() < self.repeat else 1
        return [randomness.uniform(*self.delay_s) for _ in range(copies)]


PERFECT = Link()
TERRIBLE = Link(loss=0.15, repeat=0.1, delay_s=(0.01, 0.08))
"""Far worse than any network anybody would complain about to us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """One datagram that was sent; ``number`` counts per direction from 0."""

    from_client: bool
    number: int
    sent_s: float
    data: bytes
    client_address: tuple[str, int]


Tamper = Callable[[Datagram], Sequence[bytes]]
"""Looks at every datagram and returns what is to be sent in its place: itself, nothing, or something else."""


class Pair:
    """A client and a server on one link; the server comes into being with the first Initial, as in a worker."""

    def __init__(
        self,
        client: NodeQuicConnection | None = None,
        make_server: Callable[[bytes], NodeQuicConnection] = server_connection,
        *,
        link: Link = PERFECT,
        seed: int = 0,
        tamper: Tamper | None = None,
    ) -> None:
        self.client = client or client_connection()
        self.client_address = CLIENT_ADDRESS
        self.server_address = SERVER_ADDRESS
        self.client_events: list[QuicEvent] = []
        self.server_events: list[QuicEvent] = []
        self.sent: list[Datagram] = []
        self.now_s = START_S
        self.link = link
        self.tamper = tamper
        self.on_server_event: Callable[[QuicEvent], None] | None = None
        """Stands for the application of the server."""
        self._make_server = make_server
        self._server: NodeQuicConnection | None = None
        self._randomness = random.Random(seed)
        self._in_flight: list[tuple[float, int, bool, bytes, tuple[str, int]]] = []
        self._order = count()
        self._numbers = {True: count(), False: count()}
        self._bytes_in = 0
        self._bytes_out = 0
        self._address_validated = False

    @property
    def server(self) -> NodeQuicConnection:
        """The server's connection; fails if nothing has reached it yet."""
        assert self._server is not None, "no Initial has reached the server"
        return self._server

    @property
    def has_server(self) -> bool:
        """Whether an Initial has reached the server."""
        return self._server is not None

    @property
    def established(self) -> bool:
        """Whether both ends have completed the handshake."""
        return self.client.handshake_complete and self._server is not None and self._server.handshake_complete

    @property
    def closing(self) -> tuple[bool, bool]:
        """Whether the client, and whether the server, has begun to close."""
        return self.client.is_closing, self._server is not None and self._server.is_closing

    @property
    def both_closed(self) -> bool:
        """Whether both ends have ended."""
        return self.client.is_terminated and self._server is not None and self._server.is_terminated

    def connect(self) -> "Pair":
        """Send the client's first flight."""
        self.client.connect(SERVER_ADDRESS, self.now_s)
        self.flush()
        return self

    def handshake(self, limit_s: float = 60.0) -> "Pair":
        """Connect and go on until both ends are established and have nothing urgent left to say."""
        self.connect()
        assert self.run(lambda: self.established, limit_s), f"no handshake within {limit_s} s: {self.describe()}"
        self.advance(0.5)
        return self

    def describe(self) -> str:
        """Return how both ends stand, for messages of failing tests."""
        ends = [("client", self.client)] + ([("server", self._server)] if self._server is not None else [])
        return "; ".join(
            f"{name}: complete={end.handshake_complete} close={end.close_code} {end.close_reason!r}"
            for name, end in ends
        )

    def advance(self, duration_s: float) -> None:
        """Let time pass, with everything that happens in it."""
        self.run(lambda: False, duration_s)

    def run(self, until: Callable[[], bool], limit_s: float = 60.0) -> bool:
        """Go on until ``until()`` or for ``limit_s`` seconds of virtual time; returns whether it became true."""
        deadline_s = self.now_s + limit_s
        for _ in range(_MAX_STEPS):
            if until():
                return True
            next_s = self._next_moment_s()
            if next_s is None or next_s > deadline_s:
                self.now_s = deadline_s
                return until()
            # A little late, as every real timer is: exactly on time, rounding may make a deadline seem not yet reached.
            self.now_s = max(self.now_s, next_s) + _TIMER_SLACK_S
            self._step()
        raise AssertionError(f"the clock stands still at {self.now_s - START_S:.3f} s: {self.describe()}")

    def flush(self) -> None:
        """Send what both ends have to send and collect their events."""
        self._flush_end(self.client, from_client=True)
        if self._server is not None:
            self._flush_end(self._server, from_client=False)

    def deliver(self, data: bytes, *, to_server: bool = True) -> None:
        """Hand one datagram over at once, and let the receiver answer."""
        self._receive(data, to_server=to_server, address=self.client_address)
        self.flush()

    def events(self, kind: type[QuicEvent], *, of_server: bool = True) -> list[Any]:
        """Return the events of one kind so far."""
        return [event for event in (self.server_events if of_server else self.client_events) if type(event) is kind]

    def _next_moment_s(self) -> float | None:
        moments = [self._in_flight[0][0]] if self._in_flight else []
        ends = [self.client] if self._server is None else [self.client, self._server]
        moments += [at_s for end in ends if (at_s := end.get_timer()) is not None]
        return min(moments, default=None)

    def _step(self) -> None:
        while self._in_flight and self._in_flight[0][0] <= self.now_s:
            _, _, to_server, data, address = heapq.heappop(self._in_flight)
            self._receive(data, to_server=to_server, address=address)
        for end in [self.client] if self._server is None else [self.client, self._server]:
            timer_s = end.get_timer()
            if timer_s is not None and timer_s <= self.now_s:
                end.handle_timer(self.now_s)
        self.flush()

    def _receive(self, data: bytes, *, to_server: bool, address: tuple[str, int]) -> None:
        if not to_server:
            # The address the client has left is a NAT mapping that is gone.
            if address == self.client_address:
                self.client.receive_datagram(data, self.server_address, self.now_s)
            return
        headers = list(packet_headers(data))
        if self._server is None:
            if not headers or headers[0].packet_type is not QuicPacketType.INITIAL:
                return
            self._server = self._make_server(headers[0].destination_cid)
        self._bytes_in += len(data)
        if any(header.packet_type is QuicPacketType.HANDSHAKE for header in headers):
            self._address_validated = True
        self._server.receive_datagram(data, address, self.now_s)

    def _flush_end(self, end: NodeQuicConnection, *, from_client: bool) -> None:
        self._collect_events(end, from_client=from_client)
        for data, address in end.datagrams_to_send(self.now_s):
            if from_client and address != self.server_address:
                continue  # Nobody is there any more.
            self._send(data, from_client=from_client, address=self.client_address if from_client else address)
        self._collect_events(end, from_client=from_client)

    def _collect_events(self, end: NodeQuicConnection, *, from_client: bool) -> None:
        while (event := end.next_event()) is not None:
            (self.client_events if from_client else self.server_events).append(event)
            if not from_client and self.on_server_event is not None:
                self.on_server_event(event)

    def _send(self, data: bytes, *, from_client: bool, address: tuple[str, int]) -> None:
        datagram = Datagram(
            from_client=from_client,
            number=next(self._numbers[from_client]),
            sent_s=self.now_s,
            data=data,
            client_address=address,
        )
        self.sent.append(datagram)
        if not from_client and not self._address_validated:
            self._bytes_out += len(data)
            assert self._bytes_out <= _AMPLIFICATION * self._bytes_in, (
                f"server has sent {self._bytes_out} bytes for {self._bytes_in} to an address nobody has proven"
            )
        for replacement in [data] if self.tamper is None else self.tamper(datagram):
            for delay_s in self.link.arrivals(self._randomness):
                item = (self.now_s + delay_s, next(self._order), from_client, replacement, address)
                heapq.heappush(self._in_flight, item)


def packet_headers(data: bytes, host_cid_length: int = 10) -> Iterator[Any]:
    """Yield the headers of the packets in one datagram; stops at whatever is none (padding)."""
    offset = 0
    while offset < len(data):
        buf = Buffer(data=data[offset:])
        try:
            header = pull_quic_header(buf, host_cid_length=host_cid_length)
        except ValueError:
            return
        yield header
        offset += header.packet_length


def forge_packet(sender: NodeQuicConnection, epoch: tls.Epoch, frames: bytes) -> bytes:
    """Return a datagram with one packet that holds ``frames`` as they are, protected with the sender's own keys."""
    packet_type = {
        tls.Epoch.INITIAL: QuicPacketType.INITIAL,
        tls.Epoch.HANDSHAKE: QuicPacketType.HANDSHAKE,
        tls.Epoch.ONE_RTT: QuicPacketType.ONE_RTT,
    }[epoch]
    builder = QuicPacketBuilder(
        host_cid=sender.host_cid,
        is_client=sender._is_client,
        max_datagram_size=sender._max_datagram_size,
        packet_number=sender._packet_number,
        peer_cid=sender._peer_cid.cid,
        version=sender._version or 1,
    )
    builder.start_packet(packet_type, sender._cryptos[epoch])
    # A frame of type PADDING, because the builder wants one; whatever follows is the caller's.
    builder.start_frame(0x00, capacity=1 + len(frames)).push_bytes(frames)
    datagrams, _ = builder.flush()
    sender._packet_number = builder.packet_number
    return datagrams[0]


def open_initial(data: bytes) -> tuple[Any, bytes, int]:
    """Return header, payload and packet number of a client's Initial packet, as any observer can read it."""
    buf = Buffer(data=data)
    header = pull_quic_header(buf, host_cid_length=10)
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination_cid, is_client=False, version=1)
    _, payload, packet_number = crypto.decrypt_packet(data[: header.packet_length], buf.tell(), 0)
    return header, payload, packet_number


def crypto_frames(payload: bytes) -> list[tuple[int, bytes]]:
    """Return offset and data of the CRYPTO frames of a client's first Initials, which hold nothing else but padding."""
    buf = Buffer(data=payload)
    found = []
    while not buf.eof():
        kind = buf.pull_uint_var()
        if kind == 0x00:
            continue
        assert kind == 0x06, f"unexpected frame {kind:#x}"
        offset = buf.pull_uint_var()
        found.append((offset, buf.pull_bytes(buf.pull_uint_var())))
    return found


@contextmanager
def edited_hello(edit: Callable[[tls.ClientHello, int], tls.ClientHello | None]) -> Iterator[None]:
    """
    Let ``edit`` change every ClientHello on its way to the wire; it gets a copy and the number of the hello from 0.

    The client does not notice: its transcript holds what was sent. ``edit`` changes the copy or returns another.
    """
    numbers = count()
    push = tls.push_client_hello

    def push_edited(buf: Buffer, hello: tls.ClientHello) -> None:
        copy = replace(
            hello,
            key_share=list(hello.key_share or []),
            supported_groups=list(hello.supported_groups or []),
            other_extensions=list(hello.other_extensions),
        )
        push(buf, edit(copy, next(numbers)) or copy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tls, "push_client_hello", push_edited)
        yield
