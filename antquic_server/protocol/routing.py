"""
Which worker owns a datagram, told from its destination connection ID alone.

A connection ID of ours has the shape of draft-ietf-quic-load-balancers, so that a load balancer in front of
several nodes can route on the node id later, without a change here::

    byte 0     3 bits configuration rotation (0), 5 bits length of the rest (9)
    byte 1-2   node id, big-endian
    byte 3     steering byte: byte % worker_count == slot
    byte 4-9   nonce, random

The steering byte sits where a long header (first connection ID byte at offset 6) and a short header (offset
1) both give it to the packet filter of ``steering`` with one fixed load each. A connection ID chosen by a
client is random there, which spreads new connections evenly. It is used until the client has seen one of
ours, which names the same slot.

Everything here runs once per datagram or per connection ID: it allocates little and calls nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from antquic_server.errors import ConnectionIdDecodeError
from antquic_server.protocol.steering import (
    LONG_HEADER_CONNECTION_ID_OFFSET,
    LONG_HEADER_FORM_BIT,
    LONG_HEADER_STEERING_OFFSET,
    MAX_WORKER_COUNT,
    SHORT_HEADER_CONNECTION_ID_OFFSET,
    SHORT_HEADER_STEERING_OFFSET,
    STEERING_BYTE_INDEX,
)

__all__ = [
    "CONNECTION_ID_LENGTH_BYTES",
    "LONG_HEADER_CONNECTION_ID_OFFSET",
    "LONG_HEADER_FORM_BIT",
    "MAX_CONNECTION_ID_LENGTH_BYTES",
    "MAX_WORKER_COUNT",
    "NODE_ID_LENGTH_BYTES",
    "SHORT_HEADER_CONNECTION_ID_OFFSET",
    "STEERING_BYTE_INDEX",
    "ConnectionIdLayout",
    "destination_connection_id_untrusted",
    "owner_slot",
]

CONNECTION_ID_LENGTH_BYTES = 10
"""Length of every connection ID we issue; a short header does not tell it (RFC 9000, section 17.3.1)."""

NODE_ID_LENGTH_BYTES = 2

MAX_CONNECTION_ID_LENGTH_BYTES = 20
"""Limit of QUIC version 1 (RFC 9000, section 17.2); those of other versions may have up to 255 bytes."""

_FIRST_BYTE = CONNECTION_ID_LENGTH_BYTES - 1
_NONCE_LENGTH_BYTES = CONNECTION_ID_LENGTH_BYTES - STEERING_BYTE_INDEX - 1
# 32 bits to choose among at most 256 values: the bias is below one in sixteen million.
_CHOICE_LENGTH_BYTES = 4

_LENGTH_OFFSET = LONG_HEADER_CONNECTION_ID_OFFSET - 1
_VERSION_1 = b"\x00\x00\x00\x01"
_SHORT_END = SHORT_HEADER_CONNECTION_ID_OFFSET + CONNECTION_ID_LENGTH_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionIdLayout:
    """How this node writes and reads its own connection IDs; ``node_id`` is 2 bytes, slots count from 0."""

    node_id: bytes
    worker_count: int

    def __post_init__(self) -> None:
        if len(self.node_id) != NODE_ID_LENGTH_BYTES:
            raise ValueError(f"node_id has {len(self.node_id)} bytes, expected {NODE_ID_LENGTH_BYTES}")
        if not 1 <= self.worker_count <= MAX_WORKER_COUNT:
            raise ValueError(f"worker_count is {self.worker_count}, expected 1 to {MAX_WORKER_COUNT}")

    def new_connection_id(self, slot: int, random_bytes: Callable[[int], bytes]) -> bytes:
        """
        Make a connection ID that the packet filter steers to ``slot``.

        The steering byte is drawn evenly from all values that belong to the slot, so it tells an observer no
        more than it must.
        """
        worker_count = self.worker_count
        if not 0 <= slot < worker_count:
            raise ValueError(f"slot is {slot}, expected 0 to {worker_count - 1}")
        randomness = random_bytes(_NONCE_LENGTH_BYTES + _CHOICE_LENGTH_BYTES)
        choices = (255 - slot) // worker_count + 1
        choice = int.from_bytes(randomness[_NONCE_LENGTH_BYTES:], "big") % choices
        steering_byte = slot + choice * worker_count
        return bytes((_FIRST_BYTE, *self.node_id, steering_byte)) + randomness[:_NONCE_LENGTH_BYTES]

    def slot_of(self, connection_id: bytes) -> int:
        """
        Tell the slot a connection ID belongs to, ours or one a client chose.

        Raises ``ConnectionIdDecodeError`` when it ends before the steering byte; the filter then looks at
        whatever follows in the datagram, so that only ``owner_slot`` knows the answer.
        """
        if len(connection_id) <= STEERING_BYTE_INDEX:
            raise ConnectionIdDecodeError(f"connection ID of {len(connection_id)} bytes has no steering byte")
        return connection_id[STEERING_BYTE_INDEX] % self.worker_count

    def is_ours(self, connection_id: bytes) -> bool:
        """Tell whether a connection ID has the shape this node issues; a client's random one has not."""
        return (
            len(connection_id) == CONNECTION_ID_LENGTH_BYTES
            and connection_id[0] == _FIRST_BYTE
            and connection_id[1:STEERING_BYTE_INDEX] == self.node_id
        )


def destination_connection_id_untrusted(datagram: bytes | memoryview) -> bytes | None:
    """
    Read the destination connection ID of the first packet in a datagram; ``None`` when it has none.

    A long header carries its length at offset 5 (RFC 8999, section 5.1). A short header does not, and is
    taken to carry one of ours (RFC 8999, section 5.2). ``None`` means cut short, or of version 1 and longer
    than its 20 bytes; of another version it is returned whole, so that Version Negotiation can mirror it
    (RFC 9000, section 17.2). Never raises: this runs before anything is known about the sender.
    """
    size = len(datagram)
    if not size:
        return None
    if datagram[0] & LONG_HEADER_FORM_BIT:
        if size <= _LENGTH_OFFSET:
            return None
        length = datagram[_LENGTH_OFFSET]
        end = LONG_HEADER_CONNECTION_ID_OFFSET + length
        if size < end:
            return None
        if length > MAX_CONNECTION_ID_LENGTH_BYTES and datagram[1:_LENGTH_OFFSET] == _VERSION_1:
            return None
        return bytes(datagram[LONG_HEADER_CONNECTION_ID_OFFSET:end])
    if size < _SHORT_END:
        return None
    return bytes(datagram[SHORT_HEADER_CONNECTION_ID_OFFSET:_SHORT_END])


def owner_slot(datagram: bytes | memoryview, worker_count: int) -> int:
    """
    Compute the slot to which the packet filter steers a datagram, bit for bit as the filter does.

    A load behind the end of the datagram ends a filter program with 0, so slot 0 gets the too short ones.
    """
    size = len(datagram)
    if not size:
        return 0
    long_header = datagram[0] & LONG_HEADER_FORM_BIT
    offset = LONG_HEADER_STEERING_OFFSET if long_header else SHORT_HEADER_STEERING_OFFSET
    return datagram[offset] % worker_count if offset < size else 0
