"""The channel for datagrams that surfaced in the wrong slot."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import MessageDecodeError
from antquic_server.net.stray import (
    StrayPair,
    StrayReceiver,
    decode_stray_untrusted,
    encode_stray,
    make_stray_pairs,
    send_stray,
)
from antquic_server.net.udp import PathAddress

PATH_IPV4 = PathAddress("192.0.2.7", 4433, 0, 0, b"", 0)
PATH_IPV6 = PathAddress("2001:db8::7", 65535, 9, 3, bytes(range(20)), 65535)

U32 = st.integers(0, 2**32 - 1)
PATHS = st.builds(
    PathAddress,
    host=st.ip_addresses().map(str),
    port=st.integers(0, 65535),
    flowinfo=U32,
    scope_id=U32,
    local=st.sampled_from([0, 12, 20]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    socket_index=st.integers(0, 65535),
)


@pytest.fixture
def pair() -> Iterator[StrayPair]:
    """One channel, closed after the test."""
    pair = make_stray_pairs(1)[0]
    yield pair
    pair.receiver.close()
    pair.sender.close()


@given(PATHS, st.binary(max_size=2000))
def test_stray_datagram_survives_with_its_path(path: PathAddress, data: bytes) -> None:
    """What is encoded is decoded, whatever the addresses."""
    decoded, decoded_path = decode_stray_untrusted(encode_stray(path, data))

    assert decoded == data
    # The kernel writes some addresses in another of their spellings.
    assert decoded_path._replace(host="") == path._replace(host="")
    assert encode_stray(decoded_path, data) == encode_stray(path, data)


def test_encoding_is_the_documented_layout() -> None:
    """Two fixed samples, byte by byte."""
    ipv4 = "04 00 0000 1151 00000000 00000000 c0000207 64617461"
    ipv6 = "10 14 ffff ffff 00000009 00000003 20010db8000000000000000000000007 000102030405060708090a0b0c0d0e0f10111213"

    assert encode_stray(PATH_IPV4, b"data") == bytes.fromhex(ipv4)
    assert encode_stray(PATH_IPV6, b"") == bytes.fromhex(ipv6)


@pytest.mark.parametrize("path", [PATH_IPV4, PATH_IPV6])
def test_every_truncation_in_the_path_is_refused(path: PathAddress) -> None:
    """A message that ends before the data begins is malformed."""
    message = encode_stray(path, b"")

    for length in range(len(message)):
        with pytest.raises(MessageDecodeError):
            decode_stray_untrusted(message[:length])


@given(st.binary(max_size=100))
def test_random_bytes_give_a_datagram_or_the_decode_error(message: bytes) -> None:
    """No other exception escapes."""
    try:
        data, path = decode_stray_untrusted(message)
    except MessageDecodeError:
        return
    assert encode_stray(path, data) == message


def test_many_strays_fit_beyond_the_short_queue_limit_of_unix_datagrams(pair: StrayPair) -> None:
    """A long train of other slots' datagrams is passed on whole; the limit of often ten is not met."""
    for index in range(64):
        assert send_stray(pair.sender, PATH_IPV4, bytes([index]) * 1200)

    received = StrayReceiver(pair.receiver).receive_datagrams()

    assert received == [(bytes([index]) * 1200, PATH_IPV4) for index in range(64)]


def test_full_queue_is_reported_and_emptied_by_reading(pair: StrayPair) -> None:
    """A slot that does not read costs the others a counted drop, never a wait."""
    queued = 0
    while queued < 100_000 and send_stray(pair.sender, PATH_IPV4, bytes(1200)):
        queued += 1
    receiver = StrayReceiver(pair.receiver)
    assert 64 < queued < 100_000

    received = 0
    while batch := receiver.receive_datagrams():
        received += len(batch)

    assert received == queued
    assert send_stray(pair.sender, PATH_IPV4, b"again")


def test_longest_datagram_passes(pair: StrayPair) -> None:
    """The largest UDP payload fits with the longest path."""
    assert send_stray(pair.sender, PATH_IPV6, bytes(65_527))
    assert StrayReceiver(pair.receiver).receive_datagrams() == [(bytes(65_527), PATH_IPV6)]


def test_malformed_message_is_counted_and_the_next_one_read(pair: StrayPair) -> None:
    """One bad message does not stop the channel."""
    receiver = StrayReceiver(pair.receiver)
    pair.sender.send(b"garbage")
    send_stray(pair.sender, PATH_IPV4, b"good")

    assert receiver.receive_datagrams() == [(b"good", PATH_IPV4)]
    assert receiver.malformed == 1
    assert receiver.fileno() == pair.receiver.fileno()


def test_reading_stops_at_the_limit(pair: StrayPair) -> None:
    """A flood of strays does not keep the event loop."""
    receiver = StrayReceiver(pair.receiver)
    for _ in range(5):
        send_stray(pair.sender, PATH_IPV4, b"x")

    assert [len(receiver.receive_datagrams(limit=3)) for _ in range(3)] == [3, 2, 0]


def test_closed_end_is_a_drop_not_an_error(pair: StrayPair) -> None:
    """While the node comes down, a slot may be gone before its neighbours stop sending."""
    pair.receiver.close()

    assert not send_stray(pair.sender, PATH_IPV4, b"late")


def test_each_slot_has_a_channel_of_its_own() -> None:
    """What is sent to slot 2 arrives at slot 2 only."""
    pairs = make_stray_pairs(3)
    try:
        send_stray(pairs[2].sender, PATH_IPV4, b"for two")

        assert [len(StrayReceiver(pair.receiver).receive_datagrams()) for pair in pairs] == [0, 0, 1]
    finally:
        for pair in pairs:
            pair.receiver.close()
            pair.sender.close()
