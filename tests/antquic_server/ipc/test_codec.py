"""Tests of the message codec."""

import math
import struct
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import MessageDecodeError
from antquic_server.ipc.codec import MessageDecoder, decode_untrusted, encode
from antquic_server.ipc.messages import (
    KINDS,
    MAX_MESSAGE_BYTES,
    Assign,
    BootFailed,
    Drain,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Introduce,
    Message,
    PeerUp,
    SocketDescriptor,
)
from antquic_server.ipc.talker_messages import Talker

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
WHOLE = st.integers(-(2**63), 2**64 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TALKERS = st.builds(
    Talker,
    **{name: {bytes: st.binary(), str: st.text(), int: WHOLE}[hint] for name, hint in Talker.__annotations__.items()},
)
DESCRIPTORS = st.builds(SocketDescriptor, fd=WHOLE, family=WHOLE, host=st.text(), port=WHOLE)
FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    int: WHOLE,
    float: FINITE,
    str: st.text(),
    bytes: st.binary(),
    bool: st.booleans(),
    dict[str, float]: st.dictionaries(st.text(), FINITE, max_size=5),
    dict[str, str]: st.dictionaries(st.text(), st.text(), max_size=5),
    dict[str, object]: st.dictionaries(st.text(), PLAIN, max_size=5),
    list[str]: st.lists(st.text(), max_size=3),
    list[int]: st.lists(WHOLE, max_size=3),
    list[Talker]: st.lists(TALKERS, max_size=3),
    list[SocketDescriptor]: st.lists(DESCRIPTORS, max_size=3),
}
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    [st.builds(kind, **{name: FIELDS[hint] for name, hint in kind.__annotations__.items()}) for kind in KINDS.values()]
)

HELLO = Hello(version=1, pid=77)
HELLO_HEX = "00000004" + "9300014d"
PEER_UP = PeerUp(peer_id=b"\xaa\xbb", connection=300, host="::1", port=443)
PEER_UP_HEX = "00000014" + "9906c402aabbcd012ca33a3a31cd01bbc3c290a0"
INTRODUCE = Introduce(
    request_id=1,
    expires_at_unix_ms=2,
    round=3,
    initiator=b"\xaa",
    target=b"\xbb",
    connection=4,
    address="::1",
    advertised=["a"],
    slot=5,
)
INTRODUCE_HEX = "00000017" + "9d0a010203c401aac401bb04a33a3a3191a16105ff90a0"
INTRODUCED = INTRODUCE.answer(reason="r", initiator_address="i", target_address="t")
INTRODUCED_HEX = "00000013" + "9b0b010203c401aac401bb0504a172a169a174"


def drain(decoder: MessageDecoder) -> list[Message]:
    """Return all messages that are complete."""
    messages = []
    while (message := decoder.next()) is not None:
        messages.append(message)
    return messages


@pytest.mark.parametrize(
    ("message", "expected"),
    [(HELLO, HELLO_HEX), (PEER_UP, PEER_UP_HEX), (INTRODUCE, INTRODUCE_HEX), (INTRODUCED, INTRODUCED_HEX)],
)
def test_snapshots_of_the_wire_form(message: Message, expected: str) -> None:
    """The bytes are what they were: another version of a worker must understand them."""
    assert encode(message).hex() == expected


@given(MESSAGES)
def test_messages_survive_the_round_trip(message: Message) -> None:
    """What is read equals what was written, and the declared length is the real one."""
    data = encode(message)

    assert decode_untrusted(data[4:]) == message
    assert struct.unpack(">I", data[:4]) == (len(data) - 4,)


@given(st.lists(MESSAGES, max_size=4), st.integers(1, 7))
def test_any_cut_of_the_stream_gives_the_same_messages(messages: list[Message], step: int) -> None:
    """Bytes may arrive one by one or all at once; what follows a message is kept."""
    stream = b"".join(map(encode, messages))
    decoder = MessageDecoder()
    found: list[Message] = []
    for start in range(0, len(stream), step):
        decoder.feed(stream[start : start + step])
        found += drain(decoder)

    assert found == messages
    whole = MessageDecoder()
    whole.feed(stream + b"\x00\x00")
    assert drain(whole) == messages
    assert whole.next() is None


def test_long_streams_do_not_grow_the_buffer() -> None:
    """Consumed bytes are given back even if the buffer is never quite empty."""
    decoder = MessageDecoder()
    data = encode(BootFailed(reason="x" * 1000))
    for _ in range(300):
        decoder.feed(data + data[:7])
        assert decoder.next() is not None
        decoder.feed(data[7:])
        assert decoder.next() is not None

    assert len(decoder._buffer) < 200_000


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_the_decode_error(data: bytes) -> None:
    """No byte string makes anything but a message or the one error."""
    try:
        decode_untrusted(data)
    except MessageDecodeError:
        return


@given(MESSAGES, st.data())
def test_mutated_messages_raise_only_the_decode_error(message: Message, data: st.DataObject) -> None:
    """Flipped, cut or doubled bytes are refused, or make another valid message."""
    body = bytearray(encode(message)[4:])
    position = data.draw(st.integers(0, len(body) - 1))
    body[position] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(position, len(body))) :]
    try:
        decode_untrusted(bytes(body))
    except MessageDecodeError:
        return


BAD_VALUES = [
    [],
    {},
    7,
    [99, 1],
    ["0", 1, 2],
    [True, 1, 2],
    [0],
    [0, 1],
    [0, "1", 2],
    [0, True, 2],
    [0, 1.0, 2],
    [3, b"bytes"],
    [4, 1, 2, 3, 0.1, {"a": "b"}],
    [4, 1, 2, 3, 0.1, {"a": math.nan}],
    [4, 1, 2, 3, math.inf, {}],
    [4, 1, 2, 3, 0.1, {b"a": 1}],
    [4, 1, 2, 3, 0.1, []],
    [6, "text", 1, "::1", 1],
]


@pytest.mark.parametrize("value", BAD_VALUES, ids=repr)
def test_wrong_types_are_refused(value: object) -> None:
    """Every field is checked against its declared type."""
    with pytest.raises(MessageDecodeError):
        decode_untrusted(msgpack.packb(value))


def test_settings_may_hold_plain_values_only() -> None:
    """A timestamp, which msgpack would happily make, is no setting."""
    assign = Assign(
        slot=0,
        worker_count=1,
        generation=1,
        cpu=-1,
        settings={"endpoint": {"alpn": ["a"], "user": None, "rate": 0.5, "on": True}},
        identity_seed=b"",
        root_secret=b"",
        certificate_pem=b"",
        certificate_key_pem=b"",
        sockets=[SocketDescriptor(fd=3, family=2, host="0.0.0.0", port=1)],
        steering_fd=4,
        steering_fds=[5],
        echo=False,
    )
    values = msgpack.unpackb(encode(assign)[4:])
    assert decode_untrusted(msgpack.packb(values)) == assign

    values[5] = {"when": msgpack.Timestamp(1, 2)}
    with pytest.raises(MessageDecodeError, match="plain value"):
        decode_untrusted(msgpack.packb(values))


def test_surplus_fields_of_a_newer_sender_are_skipped() -> None:
    """Fields are only appended, so an older reader takes those it knows."""
    assert decode_untrusted(msgpack.packb([8, 1.5, "a later field"])) == Drain(deadline_s=1.5)


def test_fields_an_older_sender_leaves_out_have_their_default() -> None:
    """Peers were reported before anybody asked whether they read what we send."""
    values = msgpack.unpackb(encode(PEER_UP)[4:])
    assert decode_untrusted(msgpack.packb(values[:-1])) == PEER_UP


def test_whole_numbers_are_accepted_where_floats_are_declared() -> None:
    """Counters are usually whole, and msgpack keeps them so."""
    message = decode_untrusted(msgpack.packb([4, 1, 2, 3, 0, {"retries": 3}]))

    assert message == Heartbeat(
        sequence=1, connections=2, handshakes_in_flight=3, loop_lag_s=0, counters={"retries": 3}
    )


@pytest.mark.parametrize("length", [0, MAX_MESSAGE_BYTES + 1, 2**32 - 1])
def test_impossible_lengths_are_refused_before_the_body_arrives(length: int) -> None:
    """Nobody can make the reader wait for, and buffer, four gigabytes."""
    decoder = MessageDecoder()
    decoder.feed(struct.pack(">I", length))

    with pytest.raises(MessageDecodeError):
        decoder.next()


def test_a_broken_stream_stays_broken() -> None:
    """After a malformed message the framing cannot be trusted again."""
    decoder = MessageDecoder()
    decoder.feed(struct.pack(">I", 1) + b"\x07" + encode(HELLO))

    for _ in range(2):
        with pytest.raises(MessageDecodeError):
            decoder.next()


def test_too_large_a_message_is_the_senders_fault() -> None:
    """The sender learns of it, not the receiver."""
    with pytest.raises(ValueError, match="exceeds"):
        encode(BootFailed(reason="x" * MAX_MESSAGE_BYTES))


def test_acknowledgements_are_small() -> None:
    """The most frequent message to a worker costs a few bytes."""
    assert len(encode(HeartbeatAck(sequence=1000, connections_elsewhere=4096))) <= 12
