"""
The stream relay of ant-quic peers: one bidirectional stream, one UDP port of the node's.

What the peer writes first is the request, what the relay writes first is the response; after that each side writes
frames, one for each UDP datagram. Every message begins with its length (u32), which does not count itself::

    request    u8 flags (1: bind)   varint host length   host   u16 port
    response   u16 status   u8 flags (1: address, 2: reason)   [u8 family, address, u16 port]   [varint length, reason]
    frame      varint context id   u8 family (4 or 6)   address   u16 port   payload

The address of a frame is where its payload goes to or came from. ant-quic calls this MASQUE; it has the header fields
of an uncompressed datagram of CONNECT-UDP-bind (draft-ietf-masque-connect-udp-listen), and none of its HTTP.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final

from aioquic.buffer import Buffer, BufferReadError

from antquic_server.errors import AddressDecodeError, RelayDecodeError
from antquic_server.protocol.address import SocketAddress, pull_address_untrusted

__all__ = [
    "BIND_REQUEST",
    "MAX_FRAME_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_REQUEST_BYTES",
    "ConnectUdpRequest",
    "ConnectUdpResponse",
    "FrameReader",
    "MessageReader",
    "RelayStatus",
    "decode_frame_untrusted",
    "decode_request_untrusted",
    "decode_response_untrusted",
    "encode_frame",
    "encode_request",
    "encode_response",
    "frame_header",
]

MAX_REQUEST_BYTES: Final = 1024
"""As ant-quic's relays have it; the request that its peers send has 6."""

MAX_FRAME_BYTES: Final = 65_536
"""As in ant-quic, whose reader gives the stream up at a longer one."""

MAX_PAYLOAD_BYTES: Final = 65_507
"""What fits a UDP datagram over IPv4."""

CONTEXT_ID: Final = 0
_BIND: Final = 0x01
_HAS_ADDRESS: Final = 0x01
_HAS_REASON: Final = 0x02
_FAMILY_IPV4: Final = 4
_FAMILY_IPV6: Final = 6
_LENGTH: Final = Struct(">I")
_LENGTH_BYTES: Final = _LENGTH.size
_IPV4_START: Final = bytes((CONTEXT_ID, _FAMILY_IPV4))
_IPV6_START: Final = bytes((CONTEXT_ID, _FAMILY_IPV6))
_IPV4_HEADER_BYTES: Final = 8
_IPV6_HEADER_BYTES: Final = 20
_MAX_CHUNKS: Final = 256
_MAX_HEADER_BYTES: Final = 27  # with a context id of eight bytes
_MAX_HOST_BYTES: Final = 255


class RelayStatus(IntEnum):
    """Status of a response; the numbers are HTTP's, and those that ant-quic's relays use."""

    OK = 200
    BAD_REQUEST = 400
    FORBIDDEN = 403
    NOT_FOUND = 404
    CONFLICT = 409
    INTERNAL_ERROR = 500
    NOT_IMPLEMENTED = 501
    UNAVAILABLE = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectUdpRequest:
    """A peer asks for a port of its own (``bind``), or for one target; ``host`` is text, ``::`` for a bind."""

    bind: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectUdpResponse:
    """What the relay answers: ``address`` is the public address of the port, None for a refusal."""

    status: int
    address: SocketAddress | None = None
    reason: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the session is there: any 2xx with an address."""
        return 200 <= self.status < 300 and self.address is not None


class MessageReader:
    """
    Cuts a stream into messages; ``limit_bytes`` is the longest body, and may be changed between messages.

    ``feed`` what has arrived, then call ``next_untrusted`` until it returns None.
    """

    __slots__ = ("_buffer", "_offset", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._offset = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._buffer) - self._offset

    def feed(self, data: bytes) -> None:
        """Append what has arrived."""
        if self._offset:
            del self._buffer[: self._offset]
            self._offset = 0
        self._buffer += data

    def next_untrusted(self) -> bytes | None:
        """Return the next whole body, None if it needs more bytes; RelayDecodeError if it is too long."""
        start = self._offset + _LENGTH.size
        if len(self._buffer) < start:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, self._offset)
        # Before the body has arrived: a length nobody means must not make us wait for that much.
        if length > self.limit_bytes:
            raise RelayDecodeError(f"relay message of {length} bytes, at most {self.limit_bytes}")
        if len(self._buffer) < start + length:
            return None
        self._offset = start + length
        return bytes(self._buffer[start : self._offset])


class FrameReader:
    """
    Cuts a stream into frames, many at a time: what a relay does for every datagram of every peer.

    ``feed`` what has arrived, as often as it does, and take all frames at once. A frame is given as its header (what
    ``frame_header`` writes) and its payload, so that a reader that knows the header needs not read it again; of a body
    that is no frame both are empty.
    """

    __slots__ = ("_chunks", "_held_bytes", "_needed_bytes")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._needed_bytes = _LENGTH_BYTES

    @property
    def held_bytes(self) -> int:
        """Bytes that have arrived and were not taken."""
        return self._held_bytes

    def feed(self, data: bytes) -> None:
        """Append what has arrived."""
        self._chunks.append(data)
        self._held_bytes += len(data)
        if len(self._chunks) > _MAX_CHUNKS:
            # Bytes that come one by one would take forty times their size.
            self._chunks = [b"".join(self._chunks)]

    def take_untrusted(self) -> list[tuple[bytes, bytes]]:
        """Return the frames that are complete; RelayDecodeError once one is too long, the stream is of no use then."""
        frames: list[tuple[bytes, bytes]] = []
        if self._held_bytes < self._needed_bytes:
            return frames
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        size = self._held_bytes
        offset = 0
        length = 0
        while offset + _LENGTH_BYTES <= size:
            (length,) = _LENGTH.unpack_from(data, offset)
            if length > MAX_FRAME_BYTES:
                raise RelayDecodeError(f"relay frame of {length} bytes, at most {MAX_FRAME_BYTES}")
            start = offset + _LENGTH_BYTES
            end = start + length
            if end > size:
                break
            # What nearly all frames begin with is recognised without being read.
            beginning = data[start : start + 2]
            if beginning == _IPV4_START:
                payload = start + _IPV4_HEADER_BYTES
            elif beginning == _IPV6_START:
                payload = start + _IPV6_HEADER_BYTES
            else:
                payload = start + _header_length_untrusted(data[start : min(end, start + _MAX_HEADER_BYTES)])
            frames.append((data[start:payload], data[payload:end]) if start < payload <= end else (b"", b""))
            offset = end
        self._held_bytes = size - offset
        # A frame that trickles in is not joined again with each byte of it.
        self._needed_bytes = _LENGTH_BYTES + (length if self._held_bytes >= _LENGTH_BYTES else 0)
        self._chunks = [data[offset:]] if offset < size else []
        return frames


def decode_request_untrusted(body: bytes) -> ConnectUdpRequest:
    """Read a request, without its length; RelayDecodeError if it is none."""
    buf = Buffer(data=body)
    try:
        flags = buf.pull_uint8()
        length = buf.pull_uint_var()
        if length > _MAX_HOST_BYTES:
            raise RelayDecodeError(f"host of {length} bytes, at most {_MAX_HOST_BYTES}")
        host = buf.pull_bytes(length).decode()
        port = buf.pull_uint16()
    except (BufferReadError, UnicodeDecodeError):
        raise RelayDecodeError("relay request is malformed") from None
    if not buf.eof():
        raise RelayDecodeError("relay request has bytes after its port")
    return ConnectUdpRequest(bind=bool(flags & _BIND), host=host, port=port)


def encode_request(request: ConnectUdpRequest) -> bytes:
    """Write a request, with its length."""
    host = request.host.encode()
    buf = Buffer(capacity=len(host) + 8)
    buf.push_uint8(_BIND if request.bind else 0)
    buf.push_uint_var(len(host))
    buf.push_bytes(host)
    buf.push_uint16(request.port)
    return _LENGTH.pack(len(buf.data)) + buf.data


BIND_REQUEST: Final = encode_request(ConnectUdpRequest(bind=True, host="::", port=0))
"""What ant-quic peers ask, byte for byte."""


def decode_response_untrusted(body: bytes) -> ConnectUdpResponse:
    """Read a response, without its length; RelayDecodeError if it is none."""
    buf = Buffer(data=body)
    try:
        status = buf.pull_uint16()
        flags = buf.pull_uint8()
        address = _pull_family_and_address_untrusted(buf) if flags & _HAS_ADDRESS else None
        reason = buf.pull_bytes(buf.pull_uint_var()).decode(errors="replace") if flags & _HAS_REASON else ""
    except (BufferReadError, AddressDecodeError):
        raise RelayDecodeError("relay response is malformed") from None
    return ConnectUdpResponse(status=status, address=address, reason=reason)


def encode_response(response: ConnectUdpResponse) -> bytes:
    """Write a response, with its length."""
    reason = response.reason.encode()
    address = response.address
    buf = Buffer(capacity=len(reason) + 40)
    buf.push_uint16(response.status)
    buf.push_uint8((_HAS_ADDRESS if address is not None else 0) | (_HAS_REASON if reason else 0))
    if address is not None:
        buf.push_bytes(_family_and_address(address))
    if reason:
        buf.push_uint_var(len(reason))
        buf.push_bytes(reason)
    return _LENGTH.pack(len(buf.data)) + buf.data


def frame_header(address: SocketAddress) -> bytes:
    """Return what stands between a frame's length and its payload; worth keeping for each remote address."""
    return bytes((CONTEXT_ID,)) + _family_and_address(address)


def encode_frame(header: bytes, payload: bytes) -> bytes:
    """Write a frame, with its length; ``header`` is ``frame_header`` of the address."""
    return _LENGTH.pack(len(header) + len(payload)) + header + payload


def decode_frame_untrusted(body: bytes) -> tuple[SocketAddress, bytes]:
    """
    Read a frame, without its length: the address exactly as it stands, and the payload.

    The context id is not looked at, as in ant-quic. RelayDecodeError if it is no frame.
    """
    buf = Buffer(data=body)
    try:
        buf.pull_uint_var()
        address = _pull_family_and_address_untrusted(buf)
    except (BufferReadError, AddressDecodeError):
        raise RelayDecodeError("relay frame is malformed") from None
    return address, body[buf.tell() :]


def _header_length_untrusted(body: bytes) -> int:
    """Length of a header with a context id of any length; 0 if it is none."""
    buf = Buffer(data=body)
    try:
        buf.pull_uint_var()
        _pull_family_and_address_untrusted(buf)
    except (BufferReadError, AddressDecodeError, RelayDecodeError):
        return 0
    return buf.tell()


def _pull_family_and_address_untrusted(buf: Buffer) -> SocketAddress:
    family = buf.pull_uint8()
    if family not in (_FAMILY_IPV4, _FAMILY_IPV6):
        raise RelayDecodeError(f"address family {family}, expected 4 or 6")
    return pull_address_untrusted(buf, ipv6=family == _FAMILY_IPV6)


def _family_and_address(address: SocketAddress) -> bytes:
    host: IPv4Address | IPv6Address = address.host
    return bytes((host.version,)) + host.packed + address.port.to_bytes(2, "big")
