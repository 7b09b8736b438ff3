"""Messages about relay channels: round trips, lengths, and what is no message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import RelayDecodeError
from antquic_server.protocol.relay_channel import CHANNEL_ID_BYTES, KEY_BYTES, TOKEN_BYTES
from antquic_server.protocol.relay_control import (
    MAX_MESSAGE_BYTES,
    MAX_REASON_BYTES,
    PEER_ID_BYTES,
    PREFIX,
    ChannelAnswer,
    ChannelClosed,
    ChannelMessage,
    ChannelOffer,
    ChannelOpened,
    ChannelRefused,
    ChannelRequest,
    decode_channel_message_untrusted,
    encode_channel_message,
    is_channel_message,
)
from antquic_server.protocol.relay_limits import Refusal, RelayEnd


def _bytes(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


request_ids = st.integers(0, 2**32 - 1)
peer_ids = _bytes(PEER_ID_BYTES)
channel_ids = _bytes(CHANNEL_ID_BYTES)
reasons = st.sampled_from([*Refusal, *RelayEnd, "", "a word of a later version"])
messages: st.SearchStrategy[ChannelMessage] = st.one_of(
    st.builds(ChannelRequest, request_id=request_ids, target=peer_ids),
    st.builds(
        ChannelOffer, channel_id=channel_ids, initiator=peer_ids, key=_bytes(KEY_BYTES), token=_bytes(TOKEN_BYTES)
    ),
    st.builds(ChannelAnswer, channel_id=channel_ids, accepted=st.booleans()),
    st.builds(
        ChannelOpened,
        request_id=request_ids,
        target=peer_ids,
        channel_id=channel_ids,
        key=_bytes(KEY_BYTES),
        token=_bytes(TOKEN_BYTES),
    ),
    st.builds(ChannelRefused, request_id=request_ids, target=peer_ids, reason=reasons),
    st.builds(ChannelClosed, channel_id=channel_ids, reason=reasons),
)


@given(messages)
def test_message_survives_the_wire(message: ChannelMessage) -> None:
    """And is short enough to be one."""
    data = encode_channel_message(message)
    assert is_channel_message(data)
    assert len(data) <= MAX_MESSAGE_BYTES
    assert decode_channel_message_untrusted(data) == message


@given(messages, st.data())
def test_message_of_another_length_is_refused(message: ChannelMessage, draw: st.DataObject) -> None:
    """Cut short, or with a byte too many; only a reason may end anywhere."""
    data = encode_channel_message(message)
    fixed = not isinstance(message, ChannelRefused | ChannelClosed)
    minimum = len(PREFIX) + 1 + {ChannelRefused: 36, ChannelClosed: 7}.get(type(message), len(data))
    cut = data[: draw.draw(st.integers(0, (len(data) if fixed else minimum) - 1))]
    with pytest.raises(RelayDecodeError):
        decode_channel_message_untrusted(cut)
    if fixed:
        with pytest.raises(RelayDecodeError):
            decode_channel_message_untrusted(data + b"x")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (ChannelRequest(request_id=7, target=b"t" * 32), b"\x01\0\0\0\x07" + b"t" * 32),
        (
            ChannelOffer(channel_id=b"1234567", initiator=b"i" * 32, key=b"k" * 32, token=b"n" * 16),
            b"\x021234567" + b"i" * 32 + b"k" * 32 + b"n" * 16,
        ),
        (ChannelAnswer(channel_id=b"1234567", accepted=True), b"\x031234567\x01"),
        (
            ChannelOpened(request_id=7, target=b"t" * 32, channel_id=b"1234567", key=b"k" * 32, token=b"n" * 16),
            b"\x04\0\0\0\x07" + b"t" * 32 + b"1234567" + b"k" * 32 + b"n" * 16,
        ),
        (
            ChannelRefused(request_id=7, target=b"t" * 32, reason=Refusal.OPEN_RATE),
            b"\x05\0\0\0\x07" + b"t" * 32 + b"open_rate",
        ),
        (ChannelClosed(channel_id=b"1234567", reason=RelayEnd.IDLE), b"\x061234567idle"),
    ],
)
def test_messages_have_the_fixed_bytes(message: ChannelMessage, expected: bytes) -> None:
    """Peers of other versions read them too."""
    assert encode_channel_message(message) == b"AQRC\x01" + expected


@given(st.integers(7, 255), st.binary(max_size=100))
def test_kind_of_a_later_version_is_passed_over(kind: int, body: bytes) -> None:
    """It is nothing that this version has to react to."""
    assert decode_channel_message_untrusted(PREFIX + bytes([kind]) + body) is None


@pytest.mark.parametrize("data", [b"", PREFIX, b"AQRC\x02\x01", b"AQCC\x01\x01", PREFIX + bytes(MAX_MESSAGE_BYTES)])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """Too short, too long, of another version or of somebody else."""
    with pytest.raises(RelayDecodeError):
        decode_channel_message_untrusted(data)


@pytest.mark.parametrize("reason", [b"\n", b"\x1b[31m", b"\xff", "größe".encode(), b"a" * (MAX_REASON_BYTES + 1)])
def test_reason_that_is_no_word_is_refused(reason: bytes) -> None:
    """It is shown to people and written into logs."""
    with pytest.raises(RelayDecodeError):
        decode_channel_message_untrusted(PREFIX + b"\x061234567" + reason)
