"""
The channel relay: two peers wrap their datagrams in one header, and the node passes them on as they are.

On the node's own UDP port. The first byte of a datagram keeps it apart from QUIC, whose fixed bit is set (RFC 9000,
section 17.2), and the steering byte stands where the packet filter looks at a short header
(``protocol.steering``), so that the kernel hands every datagram of a channel to the worker that owns it::

    byte 0     kind: 0x10 data, 0x11 bind, 0x12 bound, 0x13 unknown, 0x14 challenge
    byte 1-3   random
    byte 4     steering byte: byte % worker_count == slot
    byte 5-7   random

Bytes 1 to 7 are the channel's id: at least 48 bits that nobody can guess. What follows them::

    data       payload, a datagram of the connection between the two peers; the same eight bytes on both legs
    bind       u64 counter, 8 bytes nonce, 16 bytes MAC   peer → node: "this leg's packets come from here"
    bound      u64 counter, 8 bytes nonce, 16 bytes MAC   node → peer: the same counter, so the bind was taken
    challenge  u64 counter, 8 bytes nonce, 16 bytes MAC   node → peer: not taken; say it again with this nonce
    unknown    16 bytes token                             node → peer: there is no such channel (any more)

A leg is where one of the two peers sends from. A bind makes it, and moves it when the peer's NAT has given it another
port; data counts only when it comes from a bound leg. Each leg has a key of its own, which the peer was told over its
authenticated connection; the MAC is HMAC-SHA256 over the 24 bytes before it, cut to 16. Counters of a leg only rise, so
that a bind which somebody has recorded moves nothing.

The MAC proves the key, not the address, which whoever has the key can forge. So a bind counts only with a nonce that
the node has sent to that very address not long ago (``relay_proof``). ``challenge`` and ``bound`` bring one; the first
bind has eight zeros. What is bound stays as it is while another address is challenged.

``bound`` and ``challenge`` are as long as ``bind``, and ``unknown`` never longer than what it answers: none can be used
to amplify. The token of ``unknown`` is derived from the channel's id and a secret of the node, as a stateless reset
token is (RFC 9000, section 10.3): a successor can say so at once.

How a channel comes about is said in messages on unidirectional streams of the peers' connections to the node
(``relay_control``).
"""

import hmac
from collections.abc import Callable
from struct import Struct
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from antquic_server.errors import RelayDecodeError
from antquic_server.protocol.steering import MAX_WORKER_COUNT, SHORT_HEADER_STEERING_OFFSET

__all__ = [
    "BIND",
    "BIND_BYTES",
    "BOUND",
    "CHALLENGE",
    "CHANNEL_ID_BYTES",
    "DATA",
    "HEADER_BYTES",
    "KEY_BYTES",
    "NONCE_BYTES",
    "NO_NONCE",
    "TOKEN_BYTES",
    "UNKNOWN",
    "UNKNOWN_BYTES",
    "bind_counter_untrusted",
    "bind_nonce_untrusted",
    "channel_secret",
    "channel_token",
    "data_header",
    "encode_bind",
    "encode_bound",
    "encode_challenge",
    "encode_unknown",
    "is_bind_answer_untrusted",
    "is_channel_datagram",
    "is_one_channel",
    "new_channel_id",
    "unknown_token_untrusted",
    "verify_leg_untrusted",
]

DATA: Final = 0x10
BIND: Final = 0x11
BOUND: Final = 0x12
UNKNOWN: Final = 0x13
CHALLENGE: Final = 0x14

HEADER_BYTES: Final = 8
CHANNEL_ID_BYTES: Final = HEADER_BYTES - 1
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 8
MAC_BYTES: Final = 16
TOKEN_BYTES: Final = 16

_COUNTER: Final = Struct(">Q")
_NONCE_AT: Final = HEADER_BYTES + _COUNTER.size
_PROVEN_BYTES: Final = _NONCE_AT + NONCE_BYTES
BIND_BYTES: Final = _PROVEN_BYTES + MAC_BYTES
UNKNOWN_BYTES: Final = HEADER_BYTES + TOKEN_BYTES

NO_NONCE: Final = bytes(NONCE_BYTES)
"""What a bind has for a nonce as long as the node has sent none."""

_STEERING_INDEX: Final = SHORT_HEADER_STEERING_OFFSET - 1
"""Of the steering byte in a channel id, which lacks the first byte of the header."""


def new_channel_id(slot: int, worker_count: int, random_bytes: Callable[[int], bytes]) -> bytes:
    """Make the id of a channel that the packet filter steers to ``slot``: 7 bytes."""
    if not 0 <= slot < worker_count <= MAX_WORKER_COUNT:
        raise ValueError(f"slot is {slot} of {worker_count}")
    randomness = random_bytes(CHANNEL_ID_BYTES + 4)
    choices = (255 - slot) // worker_count + 1
    choice = int.from_bytes(randomness[CHANNEL_ID_BYTES:], "big") % choices
    channel_id = bytearray(randomness[:CHANNEL_ID_BYTES])
    channel_id[_STEERING_INDEX] = slot + choice * worker_count
    return bytes(channel_id)


def data_header(channel_id: bytes) -> bytes:
    """Return the eight bytes before the payload of every datagram of a channel."""
    return bytes((DATA,)) + channel_id


def is_channel_datagram(data: bytes | memoryview) -> bool:
    """Tell whether a datagram has the header of a channel; anything else below 0x40 is neither that nor QUIC."""
    return len(data) >= HEADER_BYTES and DATA <= data[0] <= CHALLENGE


def is_one_channel(train: bytes | memoryview, segment_size_bytes: int) -> bool:
    """
    Tell whether every datagram of a train begins with the same eight bytes.

    A train is one flow to the kernel, and a peer with two channels on one socket has both of them in one flow: passing
    on the whole by its first datagram would give one peer's bytes to another. The headers are columns of a table whose
    rows are the datagrams, so a few strided slices look at a train of fifty in two microseconds: one if the size of
    the datagrams allows to read the header as one number, two if it can be read as two, else eight.
    """
    size = len(train)
    if size <= segment_size_bytes:
        return size >= HEADER_BYTES
    last = size % segment_size_bytes
    if segment_size_bytes < HEADER_BYTES or 0 < last < HEADER_BYTES:
        return False
    view = memoryview(train)
    stride, width = segment_size_bytes, 1
    if stride % 8 == 0:
        view, stride, width = view[: size & ~7].cast("Q"), stride >> 3, 8
    elif stride % 4 == 0:
        view, stride, width = view[: size & ~3].cast("I"), stride >> 2, 4
    count = -(-size // segment_size_bytes)
    for at in range(HEADER_BYTES // width):
        column = view[at::stride].tolist()
        if column.count(column[0]) < count:
            return False
    return True


def encode_bind(channel_id: bytes, counter: int, key: bytes, nonce: bytes = NO_NONCE) -> bytes:
    """
    Write a bind of the leg whose key this is.

    ``counter`` must be greater than in any bind of the leg before; ``nonce`` is the one that the node has sent last.
    """
    return _proven(BIND, channel_id, counter, nonce, key)


def encode_bound(channel_id: bytes, counter: int, key: bytes, nonce: bytes) -> bytes:
    """Write the answer to a bind with this counter, which counts; ``nonce`` is for the next one."""
    return _proven(BOUND, channel_id, counter, nonce, key)


def encode_challenge(channel_id: bytes, counter: int, key: bytes, nonce: bytes) -> bytes:
    """Write the answer to a bind with this counter, which counts only when it is repeated with this nonce."""
    return _proven(CHALLENGE, channel_id, counter, nonce, key)


def encode_unknown(channel_id: bytes, token: bytes) -> bytes:
    """Write the answer to a datagram of a channel that does not exist."""
    return bytes((UNKNOWN,)) + channel_id + token


def bind_counter_untrusted(datagram: bytes | memoryview) -> int:
    """Read the counter of a bind, bound or challenge; RelayDecodeError if it is not as long as those are."""
    _check_length(datagram)
    (counter,) = _COUNTER.unpack_from(datagram, HEADER_BYTES)
    return int(counter)


def bind_nonce_untrusted(datagram: bytes | memoryview) -> bytes:
    """Read the nonce of a bind, bound or challenge; RelayDecodeError if it is not as long as those are."""
    _check_length(datagram)
    return bytes(datagram[_NONCE_AT:_PROVEN_BYTES])


def verify_leg_untrusted(datagram: bytes | memoryview, key: bytes) -> bool:
    """Tell whether a bind, bound or challenge, of the right length, was made with this leg's key."""
    proof = _mac(key, bytes(datagram[:_PROVEN_BYTES]))
    return hmac.compare_digest(proof, bytes(datagram[_PROVEN_BYTES:]))


def is_bind_answer_untrusted(datagram: bytes, bind: bytes, key: bytes) -> bool:
    """Tell whether a datagram of any kind is the bound or the challenge that answers this very bind."""
    return (
        len(datagram) == BIND_BYTES
        and datagram[0] in (BOUND, CHALLENGE)
        and datagram[1:_NONCE_AT] == bind[1:_NONCE_AT]
        and verify_leg_untrusted(datagram, key)
    )


def unknown_token_untrusted(datagram: bytes | memoryview) -> bytes:
    """Read the token of an unknown; RelayDecodeError if it is not as long as those are."""
    if len(datagram) != UNKNOWN_BYTES:
        raise RelayDecodeError(f"unknown of {len(datagram)} bytes, expected {UNKNOWN_BYTES}")
    return bytes(datagram[HEADER_BYTES:])


def channel_secret(identity_seed: bytes) -> bytes:
    """Derive the secret of ``channel_token`` from the seed of the node key, for supervisor and workers alike."""
    info = b"antquic-server relay channel"
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(identity_seed)


def channel_token(node_secret: bytes, channel_id: bytes) -> bytes:
    """Derive what proves that an unknown comes from the node: 16 bytes; ``node_secret`` outlives every worker."""
    return hmac.digest(node_secret, channel_id, "sha256")[:TOKEN_BYTES]


def _check_length(datagram: bytes | memoryview) -> None:
    if len(datagram) != BIND_BYTES:
        raise RelayDecodeError(f"bind of {len(datagram)} bytes, expected {BIND_BYTES}")


def _proven(kind: int, channel_id: bytes, counter: int, nonce: bytes, key: bytes) -> bytes:
    head = bytes((kind,)) + channel_id + _COUNTER.pack(counter) + nonce
    return head + _mac(key, head)


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")[:MAC_BYTES]
