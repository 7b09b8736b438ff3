"""
Stateless resets: telling a peer that its connection is gone (RFC 9000, section 10.3).

The token of a connection ID is computed from a key of the node, so whoever takes over a slot can end the
connections of its predecessor without having known them (RFC 9000, section 10.3.2).
"""

import hmac
from collections.abc import Callable

__all__ = [
    "MAX_STATELESS_RESET_BYTES",
    "MIN_STATELESS_RESET_BYTES",
    "STATELESS_RESET_TOKEN_BYTES",
    "build_stateless_reset",
    "reset_token",
]

STATELESS_RESET_TOKEN_BYTES = 16

MIN_STATELESS_RESET_BYTES = 21
"""5 unpredictable bytes and the token: anything shorter cannot be a packet (RFC 9000, section 10.3)."""

MAX_STATELESS_RESET_BYTES = 43
"""
Long enough to pass for a short packet with a connection ID of 20 bytes (RFC 9000, section 10.3).

A fixed size is what the RFC asks for when the incoming packet is larger; more would only cost bandwidth.
"""

_FORM_AND_FIXED_BITS = 0x40
_UNPREDICTABLE_BITS = 0x3F


def reset_token(key: bytes, connection_id: bytes) -> bytes:
    """Derive the 16-byte stateless reset token of a connection ID: HMAC-SHA256, cut to its first half."""
    return hmac.digest(key, connection_id, "sha256")[:STATELESS_RESET_TOKEN_BYTES]


def build_stateless_reset(
    token: bytes, incoming_length_bytes: int, random_bytes: Callable[[int], bytes]
) -> bytes | None:
    """
    Build the datagram that answers one of ``incoming_length_bytes``; ``None`` when that one is too short.

    It is always shorter than what it answers, so that two nodes can never keep each other busy
    (RFC 9000, section 10.3.3), and looks like a packet with a short header.
    """
    if len(token) != STATELESS_RESET_TOKEN_BYTES:
        raise ValueError(f"token has {len(token)} bytes, expected {STATELESS_RESET_TOKEN_BYTES}")
    length = min(incoming_length_bytes - 1, MAX_STATELESS_RESET_BYTES)
    if length < MIN_STATELESS_RESET_BYTES:
        return None
    head = random_bytes(length - STATELESS_RESET_TOKEN_BYTES)
    first_byte = head[0] & _UNPREDICTABLE_BITS | _FORM_AND_FIXED_BITS
    return bytes((first_byte,)) + head[1:] + token
