"""Asking a server which versions it speaks (RFC 8999, section 6)."""

import pytest

from antquic_server.errors import ConnectionIdDecodeError
from antquic_server.protocol.version_negotiation import (
    PROBE_BYTES,
    RESERVED_VERSION,
    encode_probe,
    offered_versions_untrusted,
)

OURS, THEIRS = b"destined", b"from-us!"


def _answer(versions: bytes, *, first: int = 0xC0, destination: bytes = THEIRS, source: bytes = OURS) -> bytes:
    ids = bytes((len(destination),)) + destination + bytes((len(source),)) + source
    return bytes((first, 0, 0, 0, 0)) + ids + versions


def test_the_probe_is_a_full_long_header_packet_of_no_version() -> None:
    """Of a size that a server may answer, and a version reserved for this."""
    probe = encode_probe(OURS, THEIRS)

    assert len(probe) == PROBE_BYTES == 1200
    assert probe[0] & 0x80
    assert int.from_bytes(probe[1:5], "big") == RESERVED_VERSION
    assert RESERVED_VERSION & 0x0F0F0F0F == 0x0A0A0A0A
    assert probe[5:23] == b"\x08destined\x08from-us!"


def test_the_versions_are_read() -> None:
    """In the order in which they are offered; a rest of less than four bytes is none."""
    assert offered_versions_untrusted(_answer(b"\0\0\0\1\x6b\x33\x43\xcf"), OURS, THEIRS) == [1, 0x6B3343CF]
    assert offered_versions_untrusted(_answer(b"\0\0\0\1\0\0", first=0x80), OURS, THEIRS) == [1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        _answer(b""),
        _answer(b"\0\0\0\1", first=0x40),
        _answer(b"\0\0\0\1", destination=OURS, source=THEIRS),
        _answer(b"\0\0\0\1", destination=b"short"),
        encode_probe(OURS, THEIRS),
    ],
)
def test_another_datagram_is_refused(data: bytes) -> None:
    """Too short, a short header, the answer to another probe, or no version negotiation."""
    with pytest.raises(ConnectionIdDecodeError):
        offered_versions_untrusted(data, OURS, THEIRS)
