"""Datagrams of the channel relay: steering, proofs, and trains that hold more than one channel."""

import hashlib
import hmac
import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import RelayDecodeError
from antquic_server.protocol.relay_channel import (
    BIND,
    BIND_BYTES,
    BOUND,
    CHALLENGE,
    CHANNEL_ID_BYTES,
    DATA,
    HEADER_BYTES,
    KEY_BYTES,
    NO_NONCE,
    NONCE_BYTES,
    UNKNOWN,
    UNKNOWN_BYTES,
    bind_counter_untrusted,
    bind_nonce_untrusted,
    channel_secret,
    channel_token,
    data_header,
    encode_bind,
    encode_bound,
    encode_challenge,
    encode_unknown,
    is_bind_answer_untrusted,
    is_channel_datagram,
    is_one_channel,
    new_channel_id,
    unknown_token_untrusted,
    verify_leg_untrusted,
)
from antquic_server.protocol.routing import owner_slot
from antquic_server.protocol.steering import run_program, steering_program
from support.strategies import random_sources, worker_counts

ID = bytes(range(1, 8))
KEY = b"k" * KEY_BYTES
OTHER_KEY = b"o" * KEY_BYTES
NONCE = b"n" * NONCE_BYTES

channel_ids = st.binary(min_size=CHANNEL_ID_BYTES, max_size=CHANNEL_ID_BYTES)
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)
counters = st.integers(0, 2**64 - 1)


@given(worker_counts(), st.data(), random_sources())
def test_kernel_steers_a_channel_to_its_owner(
    worker_count: int, data: st.DataObject, random_bytes: Callable[[int], bytes]
) -> None:
    """Every datagram of the channel, whatever its kind, as the packet filter computes it."""
    slot = data.draw(st.integers(0, worker_count - 1))
    channel_id = new_channel_id(slot, worker_count, random_bytes)
    program = steering_program(worker_count)

    assert len(channel_id) == CHANNEL_ID_BYTES
    for datagram in (
        data_header(channel_id) + b"payload",
        encode_bind(channel_id, 1, KEY),
        encode_bound(channel_id, 1, KEY, NONCE),
        encode_challenge(channel_id, 1, KEY, NONCE),
        encode_unknown(channel_id, bytes(16)),
    ):
        assert run_program(program, datagram) == owner_slot(datagram, worker_count) == slot


@pytest.mark.parametrize(("slot", "worker_count"), [(-1, 1), (1, 1), (0, 0), (0, 65)])
def test_id_for_an_impossible_slot_is_refused(slot: int, worker_count: int) -> None:
    """That is a fault of the caller."""
    with pytest.raises(ValueError, match="slot"):
        new_channel_id(slot, worker_count, os.urandom)


def test_ids_can_hardly_be_guessed() -> None:
    """Of 64 slots each still has 48 random bits and a choice of four steering bytes."""
    ids = {new_channel_id(3, 64, os.urandom) for _ in range(2000)}
    assert len(ids) == 2000
    assert len({item[3] for item in ids}) == 4
    for at in (0, 1, 2, 4, 5, 6):
        assert len({item[at] for item in ids}) > 200


def test_datagrams_have_the_fixed_bytes() -> None:
    """Byte for byte what the module says, by the textbook construction."""
    for kind, encode in ((b"\x11", encode_bind), (b"\x12", encode_bound), (b"\x14", encode_challenge)):
        head = kind + ID + (7).to_bytes(8, "big") + NONCE
        assert encode(ID, 7, KEY, NONCE) == head + hmac.new(KEY, head, hashlib.sha256).digest()[:16]
    assert encode_bind(ID, 7, KEY) == encode_bind(ID, 7, KEY, bytes(8))
    assert data_header(ID) == b"\x10" + ID
    assert encode_unknown(ID, b"t" * 16) == b"\x13" + ID + b"t" * 16
    assert (DATA, BIND, BOUND, UNKNOWN, CHALLENGE) == (0x10, 0x11, 0x12, 0x13, 0x14)


@given(channel_ids, counters, keys, keys, nonces)
def test_bind_is_proven_by_its_key_alone(
    channel_id: bytes, counter: int, key: bytes, other: bytes, nonce: bytes
) -> None:
    """Not by another key, and not once a single bit has changed; what was written is read."""
    bind = encode_bind(channel_id, counter, key, nonce)
    assert (bind_counter_untrusted(bind), bind_nonce_untrusted(bind)) == (counter, nonce)
    assert bind_nonce_untrusted(memoryview(bind)) == nonce
    assert verify_leg_untrusted(bind, key)
    assert verify_leg_untrusted(memoryview(bind), key)
    assert verify_leg_untrusted(bind, other) == (key == other)
    for bit in range(0, 8 * BIND_BYTES, 13):
        changed = bytearray(bind)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify_leg_untrusted(bytes(changed), key)


def test_no_kind_is_another() -> None:
    """Nobody can send a node's answer back to it, pass off a bind as an answer, or a challenge as a bound."""
    macs = {encode(ID, 7, KEY, NONCE)[-16:] for encode in (encode_bind, encode_bound, encode_challenge)}
    assert len(macs) == 3


@given(channel_ids, counters, keys, nonces, nonces, st.sampled_from([encode_bound, encode_challenge]))
def test_answer_is_that_to_the_bind_that_was_sent(  # noqa: PLR0917
    channel_id: bytes, counter: int, key: bytes, nonce: bytes, next_nonce: bytes, encode: Callable[..., bytes]
) -> None:
    """Whatever nonces are in them; not to another bind, channel or key, and no other kind."""
    bind = encode_bind(channel_id, counter, key, nonce)
    answer = encode(channel_id, counter, key, next_nonce)
    assert is_bind_answer_untrusted(answer, bind, key)
    assert bind_nonce_untrusted(answer) == next_nonce
    assert not is_bind_answer_untrusted(bind, bind, key)
    assert not is_bind_answer_untrusted(answer[:-1], bind, key)
    assert not is_bind_answer_untrusted(answer, bind, key + b"x")
    assert not is_bind_answer_untrusted(encode(channel_id, counter ^ 1, key, next_nonce), bind, key)
    another = bytes([channel_id[0] ^ 1]) + channel_id[1:]
    assert not is_bind_answer_untrusted(encode(another, counter, key, next_nonce), bind, key)


@given(st.binary(max_size=64))
def test_noise_answers_no_bind(data: bytes) -> None:
    """Of any length."""
    assert not is_bind_answer_untrusted(data, encode_bind(ID, 1, KEY), KEY)


@given(st.binary(max_size=64))
def test_only_binds_of_the_right_length_have_fields(data: bytes) -> None:
    """Anything else is a decode error."""
    if len(data) == BIND_BYTES:
        assert bind_counter_untrusted(data) >= 0
        assert len(bind_nonce_untrusted(data)) == NONCE_BYTES
    else:
        for read in (bind_counter_untrusted, bind_nonce_untrusted):
            with pytest.raises(RelayDecodeError):
                read(data)


@given(st.binary(max_size=64))
def test_only_unknowns_of_the_right_length_have_a_token(data: bytes) -> None:
    """Anything else is a decode error."""
    if len(data) == UNKNOWN_BYTES:
        assert unknown_token_untrusted(data) == data[HEADER_BYTES:]
    else:
        with pytest.raises(RelayDecodeError):
            unknown_token_untrusted(data)


def test_answers_do_not_amplify() -> None:
    """Each is as long as the shortest that it answers, or shorter."""
    assert len(encode_bind(ID, 1, KEY, NO_NONCE)) == BIND_BYTES
    assert len(encode_bound(ID, 1, KEY, NONCE)) == len(encode_challenge(ID, 1, KEY, NONCE)) == BIND_BYTES
    assert len(encode_unknown(ID, bytes(16))) == UNKNOWN_BYTES < BIND_BYTES


def test_successor_derives_the_same_tokens() -> None:
    """From the seed of the node key; another node, and another channel, have others."""
    secrets = [channel_secret(seed) for seed in (b"s" * 32, b"s" * 32, b"t" * 32)]
    assert secrets[0] == secrets[1] != secrets[2]
    tokens = {channel_token(secret, channel_id) for secret in secrets for channel_id in (ID, bytes(7))}
    assert len(tokens) == 4
    assert {len(token) for token in tokens} == {16}


@pytest.mark.parametrize("first", range(256))
def test_channel_datagrams_are_told_from_quic_and_from_the_rest(first: int) -> None:
    """Five kinds, none of them QUIC's."""
    expected = 0x10 <= first <= 0x14
    assert is_channel_datagram(bytes([first]) + ID) is expected
    assert not is_channel_datagram(bytes([first]) + ID[:-1])
    assert not (expected and first & 0x40)


headers = st.sampled_from([data_header(ID), data_header(ID[:-1] + b"\xff"), data_header(b"\xff" + ID[1:])])
segment_sizes = st.integers(HEADER_BYTES, 40) | st.sampled_from([1200, 1208, 1452, 1451, 200])


@given(st.lists(headers, min_size=1, max_size=64), segment_sizes, st.data())
def test_one_channel_means_that_every_datagram_has_the_same_header(
    of_datagrams: list[bytes], segment_size: int, data: st.DataObject
) -> None:
    """Whatever the size of the datagrams, a last short one included, as bytes and as a view of a greater buffer."""
    last_size = data.draw(st.integers(HEADER_BYTES, segment_size))
    filler = data.draw(st.binary(min_size=segment_size, max_size=segment_size))
    datagrams = [header + filler[HEADER_BYTES:] for header in of_datagrams]
    datagrams[-1] = datagrams[-1][:last_size]
    train = b"".join(datagrams)
    buffer = bytearray(train + b"what an earlier train has left")

    expected = len(set(of_datagrams)) == 1
    assert is_one_channel(train, segment_size) is expected
    assert is_one_channel(memoryview(buffer)[: len(train)], segment_size) is expected


@pytest.mark.parametrize("at", range(HEADER_BYTES))
@pytest.mark.parametrize("segment_size", [1200, 1204, 1201, 8])
@pytest.mark.parametrize("which", [0, 1, 9])
def test_a_single_different_byte_is_seen(at: int, segment_size: int, which: int) -> None:
    """In any place, in any datagram of the train."""
    train = bytearray((data_header(ID) + bytes(segment_size - HEADER_BYTES)) * 10)
    assert is_one_channel(bytes(train), segment_size)
    train[which * segment_size + at] ^= 0x80
    assert not is_one_channel(bytes(train), segment_size)


@pytest.mark.parametrize(
    ("size", "segment_size", "expected"),
    [(0, 0, False), (7, 7, False), (8, 8, True), (20, 7, False), (1207, 1200, False), (1208, 1200, False)],
)
def test_datagrams_too_short_for_a_header_are_no_channel(size: int, segment_size: int, expected: bool) -> None:
    """A train with such a datagram in it has to be looked at one by one."""
    train = (data_header(ID) + bytes(2000))[:size]
    assert is_one_channel(train, segment_size) is expected
