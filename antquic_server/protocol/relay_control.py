"""
How a relay channel comes about: messages between our peers and the node.

Each message is one unidirectional stream: ``AQRC``, a version byte, a kind, fields of fixed length, and the end of the
stream. They are sent only to those that have declared the transport parameter ``relay_channels``, which ant-quic does
not know. The conversation::

    initiator → node    ChannelRequest    "let me reach that peer"
    node → target       ChannelOffer      who asks, the channel's id, the key of the target's leg
    target → node       ChannelAnswer     it will, or it will not
    node → initiator    ChannelOpened     the channel's id, the key of the initiator's leg; or
    node → initiator    ChannelRefused    the limit or rule that forbids it
    both → node         bind datagrams    (``relay_channel``), and data from then on
    either ↔ node       ChannelClosed     and why
"""

import struct
from dataclasses import dataclass
from struct import Struct
from typing import Final

from antquic_server.errors import RelayDecodeError
from antquic_server.protocol.relay_channel import CHANNEL_ID_BYTES, KEY_BYTES, TOKEN_BYTES

__all__ = [
    "MAX_MESSAGE_BYTES",
    "PREFIX",
    "ChannelAnswer",
    "ChannelClosed",
    "ChannelMessage",
    "ChannelOffer",
    "ChannelOpened",
    "ChannelRefused",
    "ChannelRequest",
    "decode_channel_message_untrusted",
    "encode_channel_message",
    "is_channel_message",
]

PREFIX: Final = b"AQRC\x01"
PEER_ID_BYTES: Final = 32
MAX_REASON_BYTES: Final = 64
MAX_MESSAGE_BYTES: Final = 256
"""The longest is about 110 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRequest:
    """A peer asks for a channel to ``target``; ``request_id`` (u32) is unique within the asking connection."""

    request_id: int
    target: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOffer:
    """The node asks a peer whether ``initiator`` may reach it; ``key`` proves the peer's leg."""

    channel_id: bytes
    initiator: bytes
    key: bytes
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelAnswer:
    """The target's word on an offer."""

    channel_id: bytes
    accepted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOpened:
    """The channel is there; ``key`` proves the initiator's leg."""

    request_id: int
    target: bytes
    channel_id: bytes
    key: bytes
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRefused:
    """There is no channel; ``reason`` is a ``relay_limits.Refusal``, or a word of a later version."""

    request_id: int
    target: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelClosed:
    """A channel has ended, or the sender wants it to; ``reason`` is a ``relay_limits.RelayEnd`` or ``Refusal``."""

    channel_id: bytes
    reason: str


ChannelMessage = ChannelRequest | ChannelOffer | ChannelAnswer | ChannelOpened | ChannelRefused | ChannelClosed

_REQUEST: Final = Struct(f">I{PEER_ID_BYTES}s")
_OFFER: Final = Struct(f">{CHANNEL_ID_BYTES}s{PEER_ID_BYTES}s{KEY_BYTES}s{TOKEN_BYTES}s")
_ANSWER: Final = Struct(f">{CHANNEL_ID_BYTES}s?")
_OPENED: Final = Struct(f">I{PEER_ID_BYTES}s{CHANNEL_ID_BYTES}s{KEY_BYTES}s{TOKEN_BYTES}s")
_REFUSED: Final = Struct(f">I{PEER_ID_BYTES}s")
_CLOSED: Final = Struct(f">{CHANNEL_ID_BYTES}s")


def is_channel_message(data: bytes) -> bool:
    """Tell whether a unidirectional message is about channels."""
    return data.startswith(PREFIX)


def decode_channel_message_untrusted(data: bytes) -> ChannelMessage | None:
    """
    Read one whole message, or None for a kind of a later version.

    Raises:
        RelayDecodeError: It is too long or does not have the fields of its kind.
    """
    if not is_channel_message(data) or not len(PREFIX) < len(data) <= MAX_MESSAGE_BYTES:
        raise RelayDecodeError(f"channel message of {len(data)} bytes is too long, too short or of another version")
    kind, body = data[len(PREFIX)], data[len(PREFIX) + 1 :]
    try:
        return _decode(kind, body)
    except struct.error:
        raise RelayDecodeError(f"channel message of kind {kind} has {len(body)} bytes") from None


def encode_channel_message(message: ChannelMessage) -> bytes:
    """Write one whole message, ready for a stream of its own."""
    if isinstance(message, ChannelRequest):
        return _message(1, _REQUEST.pack(message.request_id, message.target))
    if isinstance(message, ChannelOffer):
        return _message(2, _OFFER.pack(message.channel_id, message.initiator, message.key, message.token))
    if isinstance(message, ChannelAnswer):
        return _message(3, _ANSWER.pack(message.channel_id, message.accepted))
    if isinstance(message, ChannelOpened):
        fields = (message.request_id, message.target, message.channel_id, message.key, message.token)
        return _message(4, _OPENED.pack(*fields))
    if isinstance(message, ChannelRefused):
        return _message(5, _REFUSED.pack(message.request_id, message.target) + _text(message.reason))
    return _message(6, _CLOSED.pack(message.channel_id) + _text(message.reason))


def _message(kind: int, body: bytes) -> bytes:
    return PREFIX + bytes((kind,)) + body


def _decode(kind: int, body: bytes) -> ChannelMessage | None:
    match kind:
        case 1:
            request_id, target = _REQUEST.unpack(body)
            return ChannelRequest(request_id=request_id, target=target)
        case 2:
            channel_id, initiator, key, token = _OFFER.unpack(body)
            return ChannelOffer(channel_id=channel_id, initiator=initiator, key=key, token=token)
        case 3:
            channel_id, accepted = _ANSWER.unpack(body)
            return ChannelAnswer(channel_id=channel_id, accepted=accepted)
        case 4:
            request_id, target, channel_id, key, token = _OPENED.unpack(body)
            return ChannelOpened(request_id=request_id, target=target, channel_id=channel_id, key=key, token=token)
        case 5:
            request_id, target = _REFUSED.unpack(body[: _REFUSED.size])
            return ChannelRefused(request_id=request_id, target=target, reason=_reason(body[_REFUSED.size :]))
        case 6:
            (channel_id,) = _CLOSED.unpack(body[: _CLOSED.size])
            return ChannelClosed(channel_id=channel_id, reason=_reason(body[_CLOSED.size :]))
    return None


def _text(reason: str) -> bytes:
    return reason.encode()[:MAX_REASON_BYTES]


def _reason(data: bytes) -> str:
    # It is shown to people: nothing but what our own words are made of.
    if len(data) > MAX_REASON_BYTES or not data.isascii() or not data.decode("ascii").isprintable():
        raise RelayDecodeError("channel message with a reason that is no word")
    return data.decode("ascii")
