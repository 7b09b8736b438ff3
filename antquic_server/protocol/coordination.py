"""
The coordination messages of ant-quic peers: values and their JSON form.

Each message is one unidirectional stream: ``AQCC``, a version byte, then a JSON object, and the end of the stream
(wire notes, section 5.1)::

    {"request_id": u64, "expires_at_unix_ms": u64, "message": {"<Variant>": {fields}}}

Peer ids are arrays of 32 numbers, addresses text (``198.18.0.5:4433``, ``[2001:db8::1]:4433``). Every field is
mandatory, fields we do not know are tolerated, and something that does not begin with the magic and this version is
not a coordination message at all.

The conversation, with the only two answers a coordinator needs (the offer and ready messages of the protocol serve
coordinators that cannot reach the initiator, which ours always can)::

    initiator → node    CoordinationRequest   "help me reach that peer"
    node → initiator    CoordinationAccepted  or CoordinationRejected
    node → target       CoordinationAccepted  the same, at the same time
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from antquic_server.errors import AddressDecodeError, CoordinationDecodeError
from antquic_server.protocol.address import SocketAddress

MAGIC = b"AQCC"
VERSION = 1
PREFIX = MAGIC + bytes([VERSION])
PEER_ID_BYTES = 32
MAX_MESSAGE_BYTES = 16 * 1024
"""A request with the most addresses a peer may list is about 3 kB; anything longer is no request."""

MAX_ADDRESSES = 64
"""Addresses read from one list; ours has one, ant-quic's one for each coordinator it has talked to."""

MAX_U32 = 2**32 - 1
MAX_U64 = 2**64 - 1


class RejectionReason(StrEnum):
    """Why a request is refused; the values are ant-quic's."""

    SELF_TARGET = "SelfTarget"
    UNKNOWN_TARGET = "UnknownTarget"
    EXPIRED = "Expired"
    RATE_LIMITED = "RateLimited"
    UNAUTHENTICATED = "Unauthenticated"
    INTERNAL_ERROR = "InternalError"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinationRequest:
    """A peer asks to be introduced to another; ``initiator_addrs`` is what it believes its addresses to be."""

    initiator: bytes
    target: bytes
    round: int
    initiator_addrs: tuple[SocketAddress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinationAccepted:
    """Both sides dial each other's addresses at once."""

    initiator: bytes
    target: bytes
    round: int
    initiator_addrs: tuple[SocketAddress, ...]
    target_addrs: tuple[SocketAddress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinationRejected:
    """The coordinator does not help, and says why."""

    initiator: bytes
    target: bytes
    round: int
    reason: RejectionReason


CoordinationMessage = CoordinationRequest | CoordinationAccepted | CoordinationRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """
    A message with what ties an answer to its request.

    ``request_id`` is unique only within the initiator. ``expires_at_unix_ms`` is by the initiator's clock.
    """

    request_id: int
    expires_at_unix_ms: int
    message: CoordinationMessage


def is_coordination_message(data: bytes) -> bool:
    """Tell whether a unidirectional message is one of ours to read."""
    return data.startswith(PREFIX)


def decode_envelope_untrusted(data: bytes) -> Envelope | None:
    """
    Read one whole message.

    Returns:
        The envelope, or None for a variant a coordinator has no use for.

    Raises:
        CoordinationDecodeError: It is too long, not JSON, or lacks a field.
    """
    if not is_coordination_message(data) or len(data) > MAX_MESSAGE_BYTES:
        raise CoordinationDecodeError(f"coordination message of {len(data)} bytes is too long or of another version")
    try:
        fields = json.loads(data[len(PREFIX) :])
    except (ValueError, RecursionError) as exc:
        raise CoordinationDecodeError("coordination message is not JSON") from exc
    message = _member(fields, "message")
    if not isinstance(message, dict) or len(message) != 1:
        raise CoordinationDecodeError("coordination message does not name exactly one variant")
    variant, body = next(iter(message.items()))
    decode = _DECODERS.get(variant)
    if decode is None:
        return None
    return Envelope(
        request_id=_integer(fields, "request_id", MAX_U64),
        expires_at_unix_ms=_integer(fields, "expires_at_unix_ms", MAX_U64),
        message=decode(body),
    )


def encode_envelope(envelope: Envelope) -> bytes:
    """Write one whole message, ready for a stream of its own."""
    message = envelope.message
    body: dict[str, object] = {
        "initiator": list(message.initiator),
        "target": list(message.target),
        "round": message.round,
    }
    if isinstance(message, CoordinationRequest | CoordinationAccepted):
        body["initiator_addrs"] = [str(address) for address in message.initiator_addrs]
    if isinstance(message, CoordinationAccepted):
        body["target_addrs"] = [str(address) for address in message.target_addrs]
    if isinstance(message, CoordinationRejected):
        body["reason"] = message.reason.value
    fields = {
        "request_id": envelope.request_id,
        "expires_at_unix_ms": envelope.expires_at_unix_ms,
        "message": {type(message).__name__: body},
    }
    return PREFIX + json.dumps(fields, separators=(",", ":")).encode()


def _decode_request(body: object) -> CoordinationRequest:
    return CoordinationRequest(
        initiator=_peer_id(body, "initiator"),
        target=_peer_id(body, "target"),
        round=_integer(body, "round", MAX_U32),
        initiator_addrs=_addresses(body, "initiator_addrs"),
    )


def _decode_accepted(body: object) -> CoordinationAccepted:
    return CoordinationAccepted(
        initiator=_peer_id(body, "initiator"),
        target=_peer_id(body, "target"),
        round=_integer(body, "round", MAX_U32),
        initiator_addrs=_addresses(body, "initiator_addrs"),
        target_addrs=_addresses(body, "target_addrs"),
    )


def _decode_rejected(body: object) -> CoordinationRejected:
    reason = _member(body, "reason")
    if reason not in tuple(RejectionReason):
        raise CoordinationDecodeError("coordination message has an unknown reason")
    return CoordinationRejected(
        initiator=_peer_id(body, "initiator"),
        target=_peer_id(body, "target"),
        round=_integer(body, "round", MAX_U32),
        reason=RejectionReason(reason),
    )


_DECODERS: Final[Mapping[str, Callable[[object], CoordinationMessage]]] = {
    "CoordinationRequest": _decode_request,
    "CoordinationAccepted": _decode_accepted,
    "CoordinationRejected": _decode_rejected,
}


def _member(fields: object, name: str) -> Any:
    if not isinstance(fields, Mapping) or name not in fields:
        raise CoordinationDecodeError(f"coordination message lacks {name}")
    return fields[name]


def _integer(fields: object, name: str, maximum: int) -> int:
    value = _member(fields, name)
    # bool is an int to Python, not to JSON.
    if type(value) is not int or not 0 <= value <= maximum:
        raise CoordinationDecodeError(f"{name} is not a number from 0 to {maximum}")
    return value


def _peer_id(fields: object, name: str) -> bytes:
    value = _member(fields, name)
    if not isinstance(value, list) or len(value) != PEER_ID_BYTES:
        raise CoordinationDecodeError(f"{name} is not a list of {PEER_ID_BYTES} numbers")
    if not all(type(item) is int and 0 <= item <= 255 for item in value):
        raise CoordinationDecodeError(f"{name} has an item that is not a byte")
    return bytes(value)


def _addresses(fields: object, name: str) -> tuple[SocketAddress, ...]:
    value = _member(fields, name)
    if not isinstance(value, list) or len(value) > MAX_ADDRESSES:
        raise CoordinationDecodeError(f"{name} is not a list of at most {MAX_ADDRESSES} addresses")
    addresses = []
    for item in value:
        if not isinstance(item, str):
            raise CoordinationDecodeError(f"{name} has an item that is not text")
        try:
            addresses.append(SocketAddress.parse(item).normalised())
        except AddressDecodeError:
            # An interface's own address with a zone, for one: of no use to anybody else, and no fault.
            continue
    return tuple(addresses)
