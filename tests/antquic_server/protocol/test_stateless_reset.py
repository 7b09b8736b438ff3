"""Stateless resets: derivable by every successor, shorter than what they answer, shaped like a packet."""

import hashlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.stateless_reset import (
    MAX_STATELESS_RESET_BYTES,
    MIN_STATELESS_RESET_BYTES,
    STATELESS_RESET_TOKEN_BYTES,
    build_stateless_reset,
    reset_token,
)
from support.strategies import connection_ids, random_source, random_sources

TOKEN = bytes(range(16))


@given(key=st.binary(min_size=32, max_size=32), connection_id=connection_ids(min_size=1))
def test_token_follows_from_key_and_connection_id(key: bytes, connection_id: bytes) -> None:
    """A successor with the same key derives the same token, by the textbook construction."""
    token = reset_token(key, connection_id)
    assert token == hmac.new(key, connection_id, hashlib.sha256).digest()[:16]
    assert len(token) == STATELESS_RESET_TOKEN_BYTES


def test_token_has_the_fixed_bytes() -> None:
    """RFC 4231, test case 2: HMAC-SHA256 under key "Jefe"."""
    expected = "5bdcc146bf60754e6a042426089575c7"
    assert reset_token(b"Jefe", b"what do ya want for nothing?").hex() == expected


def test_tokens_of_other_keys_and_connection_ids_differ() -> None:
    """Knowing one token says nothing about another."""
    tokens = {reset_token(key, cid) for key in (b"k" * 32, b"l" * 32) for cid in (b"a" * 10, b"b" * 10)}
    assert len(tokens) == 4


@given(incoming_length_bytes=st.integers(0, 70) | st.integers(0, 65535), random_bytes=random_sources())
def test_reset_is_shorter_than_what_it_answers(
    incoming_length_bytes: int, random_bytes: Callable[[int], bytes]
) -> None:
    """Two nodes can never answer each other for ever (RFC 9000, section 10.3.3)."""
    reset = build_stateless_reset(TOKEN, incoming_length_bytes, random_bytes)
    if reset is None:
        assert incoming_length_bytes <= MIN_STATELESS_RESET_BYTES
        return
    assert MIN_STATELESS_RESET_BYTES <= len(reset) < incoming_length_bytes
    assert len(reset) <= MAX_STATELESS_RESET_BYTES
    assert reset.endswith(TOKEN)
    assert reset[0] >> 6 == 0b01


@pytest.mark.parametrize(
    ("incoming_length_bytes", "length"),
    [(0, None), (20, None), (21, None), (22, 21), (43, 42), (44, 43), (1200, 43)],
)
def test_reset_length_at_the_borders(incoming_length_bytes: int, length: int | None) -> None:
    """One byte shorter up to 43 bytes, then constant."""
    reset = build_stateless_reset(TOKEN, incoming_length_bytes, random_source(b"borders"))
    assert (None if reset is None else len(reset)) == length


def test_reset_is_unpredictable_apart_from_token_and_first_bits() -> None:
    """Two resets for one connection look unrelated to an observer until the token."""
    random_bytes = random_source(b"unpredictable")
    resets = {build_stateless_reset(TOKEN, 1200, random_bytes) for _ in range(100)}
    assert len(resets) == 100
    assert {reset[0] for reset in resets if reset is not None} <= set(range(0x40, 0x80))


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_token_of_another_length_is_refused(length: int) -> None:
    """A peer would not find it at the end of the datagram."""
    with pytest.raises(ValueError, match="expected 16"):
        build_stateless_reset(bytes(length), 1200, random_source(b""))
