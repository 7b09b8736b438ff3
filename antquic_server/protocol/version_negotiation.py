"""
Asking a server which versions of QUIC it speaks, without a connection (RFC 8999, section 6).

A long-header packet of a version that nobody speaks, padded to 1200 bytes so that a server may answer it, is answered
by a Version Negotiation packet with the connection IDs the other way round::

    probe    0xC0 | version 0x1A2A3A4A | 8 | destination ID | 8 | source ID | zeros to 1200 bytes
    answer   0x80 and others | version 0 | 8 | our source ID | 8 | our destination ID | versions of 4 bytes
"""

from antquic_server.errors import ConnectionIdDecodeError

__all__ = ["ID_BYTES", "PROBE_BYTES", "encode_probe", "offered_versions_untrusted"]

ID_BYTES = 8
PROBE_BYTES = 1200

RESERVED_VERSION = 0x1A2A3A4A
"""Of the form 0x?a?a?a?a, which no version will ever have (RFC 9000, section 15)."""

_HEADER_BYTES = 1 + 4 + 1 + ID_BYTES + 1 + ID_BYTES


def encode_probe(destination_id: bytes, source_id: bytes) -> bytes:
    """Return the probe; both IDs have ID_BYTES bytes, chosen at random by the caller."""
    assert len(destination_id) == len(source_id) == ID_BYTES
    length = bytes((ID_BYTES,))
    header = b"\xc0" + RESERVED_VERSION.to_bytes(4, "big") + length + destination_id + length + source_id
    return header + bytes(PROBE_BYTES - len(header))


def offered_versions_untrusted(data: bytes, destination_id: bytes, source_id: bytes) -> list[int]:
    """
    Return the versions in the answer to a probe with these IDs.

    Raises:
        ConnectionIdDecodeError: It is no Version Negotiation packet, or answers another probe.
    """
    length = bytes((ID_BYTES,))
    expected = bytes(4) + length + source_id + length + destination_id
    if len(data) < _HEADER_BYTES + 4 or not data[0] & 0x80 or data[1:_HEADER_BYTES] != expected:
        raise ConnectionIdDecodeError("not the answer to this probe")
    versions = data[_HEADER_BYTES:]
    return [int.from_bytes(versions[at : at + 4], "big") for at in range(0, len(versions) - 3, 4)]
