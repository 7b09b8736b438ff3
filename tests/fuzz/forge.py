"""
Datagrams an attacker could send: random, truncated and mutated ones, with valid first flights among the seeds.

Initial packets are protected by keys that everybody can derive (RFC 9001, section 5.2), so an attacker need not stop at
the header: half of what is forged here decrypts, and reaches the frame parser and TLS with damage inside.
"""

import random
from collections.abc import Callable

from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from antquic_server.protocol.codepoints import FrameType, NamedGroup
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.profiles import POST_QUANTUM_GROUPS, HandshakeProfile
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.options import ConnectionOptions
from antquic_server.protocol.seam.tls_context import TlsOptions

VERSION_1 = 1
INITIAL_BYTES = 1200
LARGEST_DATAGRAM_BYTES = 1500
SEED_FLIGHTS = 60
TAG_BYTES = 16
LENGTH_FIELD_BYTES = 2
PACKET_NUMBER_BYTES = 2

_EDGE_BYTES = (0x00, 0x01, 0x3F, 0x40, 0x7F, 0x80, 0xBF, 0xC0, 0xFF)
_PROFILES = (HandshakeProfile.ANT_QUIC, HandshakeProfile.RAW_PUBLIC_KEY, HandshakeProfile.X509)
_FRAME_TYPES = (*range(0x40), *(int(item) for item in FrameType))


class Forge:
    """Makes datagrams; the same seed and node make the same choices (keys and shares are drawn afresh)."""

    def __init__(self, seed: int, *, flights: int = SEED_FLIGHTS) -> None:
        self._random = random.Random(seed)
        self._pqc = PqcPool(load_provider("cryptography"), 4)
        self._flights: list[list[bytes]] = []
        self._hellos: list[tuple[bytes, bytes]] = []
        for index in range(flights):
            flight, hello, source_cid = self._first_flight(_PROFILES[index % len(_PROFILES)])
            self._flights.append(flight)
            self._hellos.append((hello, source_cid))
        self.node_connection_ids: list[bytes] = [bytes(10)]
        """Connection IDs of the node under attack: what an observer on the path knows."""
        self._kinds: list[tuple[int, Callable[[], list[bytes]]]] = [
            (8, self._noise),
            (14, self._mutated_flight),
            (5, self._replayed_flight),
            (3, self._fresh_flight),
            (26, self._mutated_hello),
            (18, self._random_frames),
            (12, self._short_header),
            (8, self._other_long_header),
            (6, self._spliced),
        ]

    def next_datagrams(self) -> list[bytes]:
        """Return one to three datagrams that belong together."""
        weights, makers = zip(*self._kinds, strict=True)
        datagrams: list[bytes] = self._random.choices(makers, weights)[0]()
        return [datagram[:LARGEST_DATAGRAM_BYTES] for datagram in datagrams if datagram]

    def mutate(self, data: bytes) -> bytes:
        """Return ``data`` with a few bytes flipped, cut, repeated, inserted or set to values at a boundary."""
        damaged = bytearray(data)
        # Damage that moves nothing leaves the lengths around it right, and so gets further.
        kinds = self._random.choice((2, 6))
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 8))):
            at = self._random.randrange(len(damaged) + 1)
            match self._random.randrange(kinds):
                case 0 if at < len(damaged):
                    damaged[at] ^= 1 << self._random.randrange(8)
                case 1 if at < len(damaged):
                    damaged[at] = self._random.choice(_EDGE_BYTES)
                case 2:
                    del damaged[at:]
                case 3:
                    del damaged[at : at + self._random.randrange(1, 20)]
                case 4:
                    damaged[at:at] = self._random.randbytes(self._random.randrange(1, 20))
                case _:
                    damaged[at:at] = damaged[at : at + self._random.randrange(1, 60)]
        return bytes(damaged)

    # Kinds of datagram.

    def _noise(self) -> list[bytes]:
        return [self._random.randbytes(self._random.choice((1, 5, 6, 20, 40, 1199, 1200, 1400)))]

    def _mutated_flight(self) -> list[bytes]:
        flight = [*self._random.choice(self._flights)]
        at = self._random.randrange(len(flight))
        flight[at] = self.mutate(flight[at])
        if self._random.random() < 0.7:
            # Below 1200 bytes it would not be looked at.
            flight[at] = flight[at].ljust(INITIAL_BYTES, b"\0")
        return flight

    def _replayed_flight(self) -> list[bytes]:
        flight = [*self._random.choice(self._flights)]
        self._random.shuffle(flight)
        return flight[: self._random.randrange(1, 3)]

    def _fresh_flight(self) -> list[bytes]:
        flight, _, _ = self._first_flight(self._random.choice(_PROFILES))
        return flight

    def _mutated_hello(self) -> list[bytes]:
        """A well-protected first flight whose TLS message is damaged."""
        hello, source_cid = self._random.choice(self._hellos)
        hello = self.mutate(hello)
        destination_cid = self._random.randbytes(self._random.choice((8, 8, 10, 18, 20)))
        if self._random.random() < 0.2:
            # Differs from the one in the transport parameters, which ends the handshake before its cryptography.
            source_cid = self._random.randbytes(self._random.choice((0, 3, 8, 20)))
        datagrams = []
        for number, start in enumerate(range(0, max(1, len(hello)), 1000)):
            frames = Buffer(capacity=1100)
            frames.push_uint_var(0x06)
            frames.push_uint_var(start)
            frames.push_uint_var(len(hello[start : start + 1000]))
            frames.push_bytes(hello[start : start + 1000])
            datagrams.append(self._protect(frames.data, destination_cid, source_cid, number))
        return datagrams

    def _random_frames(self) -> list[bytes]:
        """A well-protected Initial full of frames that make no sense."""
        payload = b"".join(self.random_frame() for _ in range(self._random.randrange(1, 12)))
        destination_cid = self._random.randbytes(self._random.choice((8, 8, 20)))
        return [self._protect(payload[:1000], destination_cid, self._random.randbytes(8), 0)]

    def _short_header(self) -> list[bytes]:
        cid = self._random.choice(self.node_connection_ids)
        if self._random.random() < 0.5:
            cid = cid[:3] + self._random.randbytes(len(cid) - 3)
        first = 0x40 | self._random.randrange(0x40)
        return [bytes([first]) + cid + self._random.randbytes(self._random.choice((0, 5, 20, 30, 1180)))]

    def _other_long_header(self) -> list[bytes]:
        destination_cid = self._random.choice([*self.node_connection_ids, self._random.randbytes(8)])
        source_cid = self._random.randbytes(8)
        match self._random.randrange(3):
            case 0:
                packet = encode_quic_version_negotiation(
                    source_cid=source_cid, destination_cid=destination_cid, supported_versions=[1, 0x6B3343CF]
                )
            case 1:
                packet = encode_quic_retry(
                    version=VERSION_1,
                    source_cid=source_cid,
                    destination_cid=destination_cid,
                    original_destination_cid=self._random.randbytes(8),
                    retry_token=self._random.randbytes(60),
                )
            case _:
                # 0-RTT, Handshake and Initial of any version; the rest of the header is noise.
                version = self._random.choice((0, 1, 1, 2, 0x6B3343CF, 0x1A2A3A4A, 0xFF00001D))
                packet = bytes([self._random.choice((0xC0, 0xD0, 0xE0, 0xF0)) | self._random.randrange(16)])
                packet += version.to_bytes(4, "big") + bytes([len(destination_cid)]) + destination_cid
                packet += self._random.randbytes(self._random.choice((0, 10, 100, 1200)))
        return [self.mutate(packet) if self._random.random() < 0.3 else packet]

    def _spliced(self) -> list[bytes]:
        """Two packets in one datagram, or the head of one with the tail of another."""
        first = self._random.choice(self._random.choice(self._flights))
        second = self._random.choice(self._random.choice(self._flights))
        at = self._random.randrange(len(first))
        return [(first[:at] + second[self._random.randrange(len(second)) :]).ljust(INITIAL_BYTES, b"\0")]

    # Parts.

    def random_frame(self) -> bytes:
        """A frame type with a body of plausible shape and implausible content."""
        frame = Buffer(capacity=400)
        frame.push_uint_var(self._random.choice(_FRAME_TYPES))
        for _ in range(self._random.randrange(6)):
            match self._random.randrange(4):
                case 0:
                    frame.push_uint_var(self._random.choice((0, 1, 63, 64, 16383, 1 << 30, (1 << 62) - 1)))
                case 1:
                    frame.push_uint_var(self._random.randrange(1 << 14))
                case 2:
                    frame.push_bytes(self._random.randbytes(self._random.randrange(20)))
                case _:
                    frame.push_uint8(self._random.choice(_EDGE_BYTES))
        return frame.data

    def _protect(self, payload: bytes, destination_cid: bytes, source_cid: bytes, number: int) -> bytes:
        token = self._random.randbytes(self._random.choice((0, 0, 0, 60, 100)))
        head = Buffer(capacity=300)
        head.push_uint8(0xC0 | (PACKET_NUMBER_BYTES - 1))
        head.push_uint32(VERSION_1)
        for cid in (destination_cid, source_cid):
            head.push_uint8(len(cid))
            head.push_bytes(cid)
        head.push_uint_var(len(token))
        head.push_bytes(token)
        room = INITIAL_BYTES - head.tell() - LENGTH_FIELD_BYTES - PACKET_NUMBER_BYTES - TAG_BYTES
        payload = payload.ljust(room, b"\0")
        head.push_uint_var(len(payload) + PACKET_NUMBER_BYTES + TAG_BYTES)
        head.push_uint16(number)
        crypto = CryptoPair()
        crypto.setup_initial(cid=destination_cid, is_client=True, version=VERSION_1)
        return bytes(crypto.encrypt_packet(head.data, payload, number))

    def _first_flight(self, profile: HandshakeProfile) -> tuple[list[bytes], bytes, bytes]:
        """Return the datagrams of a client that does everything right, its ClientHello and its connection ID."""
        hybrid_only = profile is HandshakeProfile.X509
        groups: tuple[int, ...] = (NamedGroup.X25519_ML_KEM_768,) if hybrid_only else POST_QUANTUM_GROUPS
        client = NodeQuicConnection(
            configuration=QuicConfiguration(is_client=True, server_name=self._random.choice((None, "peer"))),
            options=ConnectionOptions(
                tls=TlsOptions(pqc=self._pqc, client_profile=profile, client_groups=groups),
                extensions=ExtensionParameters(nat_traversal=3, rfc_nat_traversal=True, address_discovery=2),
            ),
        )
        client.connect(("127.0.0.1", 1), now=0.0)
        flight = [data for data, _ in client.datagrams_to_send(now=0.0)]
        hello = bytes(client._crypto_streams[tls.Epoch.INITIAL].sender._buffer)
        return flight, hello, client.host_cid
