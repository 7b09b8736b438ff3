"""
How a message between supervisor and worker is written.

Layout: length of the rest (4 bytes, big-endian), then a msgpack array ``[kind, field, field, …]`` with the
fields in the order of the dataclass. A nested dataclass is an array of its fields. An array may be shorter
than the dataclass if the missing fields have defaults, and longer: what an older reader does not know it
skips.

Both ends are ours, but a worker parses what the whole internet sends. Should one be taken over, the
supervisor must not follow: every field is checked against its declared type before a message exists.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]

from antquic_server.errors import MessageDecodeError
from antquic_server.ipc.messages import KINDS, MAX_MESSAGE_BYTES, Message

_LENGTH: Final = Struct(">I")
_COMPACT_ABOVE_BYTES: Final = 1 << 16

_Check = Callable[[Any], Any]
"""Turns what msgpack gave into the declared type, or raises MessageDecodeError."""


def encode(message: Message) -> bytes:
    """
    Return the message with its length prefix.

    Raises:
        ValueError: The message is larger than ``MAX_MESSAGE_BYTES``; that is a fault of the sender.
    """
    body: bytes = msgpack.packb([_NUMBERS[type(message)], *_fields(message)])
    if len(body) > MAX_MESSAGE_BYTES:
        raise ValueError(f"{type(message).__name__} of {len(body)} bytes exceeds {MAX_MESSAGE_BYTES}")
    return _LENGTH.pack(len(body)) + body


def decode_untrusted(body: bytes | bytearray | memoryview) -> Message:
    """
    Return the message in ``body``, which is without the length prefix.

    Raises:
        MessageDecodeError: Not msgpack, an unknown kind, a missing field, or a value of another type.
    """
    try:
        values = msgpack.unpackb(body, raw=False, strict_map_key=True)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise MessageDecodeError(f"message is not msgpack: {error}") from error
    if not isinstance(values, list) or not values:
        raise MessageDecodeError("message is not an array")
    kind, *fields = values
    reader = _READERS.get(kind) if type(kind) is int else None
    if reader is None:
        raise MessageDecodeError(f"unknown message kind {kind!r:.40}")
    return typing.cast(Message, reader(fields))


class MessageDecoder:
    """
    Cuts a byte stream into messages.

    ``feed`` what arrived, then call ``next`` until it returns None. After a MessageDecodeError the stream has
    lost its framing: every further ``next`` raises again.
    """

    __slots__ = ("_buffer", "_failure", "_offset")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._offset = 0
        self._failure: str | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes in the order in which they arrived."""
        self._buffer += data

    def next(self) -> Message | None:
        """Return the next complete message, None if it needs more bytes (MessageDecodeError if malformed)."""
        if self._failure is not None:
            raise MessageDecodeError(self._failure)
        try:
            return self._next_untrusted()
        except MessageDecodeError as error:
            self._failure = str(error)
            raise

    def _next_untrusted(self) -> Message | None:
        start = self._offset + _LENGTH.size
        if len(self._buffer) < start:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, self._offset)
        # Checked before the body arrives: a length nobody means must not make us buffer that much.
        if not 0 < length <= MAX_MESSAGE_BYTES:
            raise MessageDecodeError(f"message length {length} outside 1..{MAX_MESSAGE_BYTES}")
        if len(self._buffer) < start + length:
            return None
        body = bytes(self._buffer[start : start + length])
        self._offset = start + length
        if self._offset == len(self._buffer) or self._offset > _COMPACT_ABOVE_BYTES:
            del self._buffer[: self._offset]
            self._offset = 0
        return decode_untrusted(body)


def _fields(value: Any) -> list[Any]:
    return [_plain(getattr(value, name)) for name in _FIELD_NAMES[type(value)]]


def _plain(value: Any) -> Any:
    if type(value) in _FIELD_NAMES:
        return _fields(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _exact(expected: type) -> _Check:
    def check(value: Any) -> Any:
        # Exact, since bool is an int to isinstance.
        if type(value) is not expected:
            raise MessageDecodeError(f"expected {expected.__name__}, got {type(value).__name__}")
        return value

    return check


def _number(value: Any) -> float:
    # A NaN would poison every total it is added to, for the life of the supervisor.
    if type(value) not in (int, float) or not math.isfinite(value):
        raise MessageDecodeError(f"expected a finite number, got {value!r:.40}")
    return typing.cast(float, value)


def _tree(value: Any) -> Any:
    """Accept configuration in plain values: what TOML could have held."""
    if isinstance(value, list):
        return [_tree(item) for item in value]
    if isinstance(value, dict):
        return {_TEXT(key): _tree(item) for key, item in value.items()}
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    raise MessageDecodeError(f"expected a plain value, got {type(value).__name__}")


_TEXT: Final = _exact(str)


def _check_for(annotation: Any) -> _Check:
    """Return the check for one field annotation; an annotation without one is an error at import."""
    if annotation in (int, str, bytes, bool):
        return _exact(annotation)
    if annotation is float:
        return _number
    if annotation is object:
        return _tree
    if dataclasses.is_dataclass(annotation):
        return _reader_for(typing.cast(type, annotation))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        return _list_of(_check_for(arguments[0]))
    if origin is dict and arguments[0] is str:
        return _dict_of(_check_for(arguments[1]))
    if origin is types.UnionType and len(arguments) == 2 and arguments[1] is types.NoneType:
        return _optional(_check_for(arguments[0]))
    raise TypeError(f"no check for fields of type {annotation}")


def _list_of(item: _Check) -> _Check:
    is_list = _exact(list)
    return lambda value: [item(each) for each in is_list(value)]


def _dict_of(item: _Check) -> _Check:
    is_dict = _exact(dict)
    return lambda value: {_TEXT(key): item(each) for key, each in is_dict(value).items()}


def _optional(check: _Check) -> _Check:
    return lambda value: None if value is None else check(value)


def _reader_for(kind: type) -> _Check:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    checks = [(field.name, _check_for(hints[field.name])) for field in fields]
    required = sum(
        field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING for field in fields
    )
    _FIELD_NAMES[kind] = tuple(field.name for field in fields)
    is_list = _exact(list)

    def read(values: Any) -> Any:
        if len(is_list(values)) < required:
            raise MessageDecodeError(f"{kind.__name__} needs {required} fields, got {len(values)}")
        # Not strict: missing fields have defaults, and surplus ones come from a newer sender.
        present = zip(checks, values, strict=False)
        try:
            return kind(**{name: check(value) for (name, check), value in present})
        except MessageDecodeError as error:
            raise MessageDecodeError(f"{kind.__name__}: {error}") from error

    return read


_FIELD_NAMES: Final[dict[type, tuple[str, ...]]] = {}
_READERS: Final[dict[int, _Check]] = {number: _reader_for(kind) for number, kind in KINDS.items()}
_NUMBERS: Final[dict[type, int]] = {kind: number for number, kind in KINDS.items()}
