"""Tests of the messages about logs and traces."""

import dataclasses
import re

import pytest

from antquic_server.errors import MessageDecodeError
from antquic_server.ipc import log_messages
from antquic_server.ipc.channel import CONTROL_MESSAGES
from antquic_server.ipc.codec import decode_untrusted, encode
from antquic_server.ipc.log_messages import LogLevels, QlogStart, QlogWritten, qlog_file_name
from antquic_server.ipc.messages import KINDS, CertificateChanged, Message

LEVELS = LogLevels(level="info", modules={"net": "debug"}, repeat_burst=3, repeat_window_s=1.5)
START = QlogStart(capture=1, peer_id=b"p" * 32, seconds=2.5, directory="/tmp/x", max_connections=3, max_bytes=4)


def test_every_message_of_the_module_has_its_number() -> None:
    """60 to 64, and nothing else has one of those."""
    declared = {value for value in vars(log_messages).values() if dataclasses.is_dataclass(value)}
    assert {kind for number, kind in KINDS.items() if 60 <= number <= 64} == declared
    assert len(declared) == 5


@pytest.mark.parametrize("message", [LEVELS, START], ids=lambda message: type(message).__name__)
def test_message_survives_the_wire(message: Message) -> None:
    """Nested levels included."""
    assert decode_untrusted(encode(message)[4:]) == message


def test_levels_are_texts() -> None:
    """What a worker that was taken over might make of them."""
    body = encode(LEVELS)[4:].replace(b"\xa5debug", b"\xc4\x05debug")
    with pytest.raises(MessageDecodeError):
        decode_untrusted(body)


def test_what_is_asked_by_hand_is_never_dropped() -> None:
    """Else it would differ from what the operator was told; a file more or less is only informing."""
    kept: tuple[type, ...] = CONTROL_MESSAGES
    assert LogLevels in kept
    assert QlogStart in kept
    assert CertificateChanged in kept
    assert QlogWritten not in kept


def test_file_names_hold_numbers_only() -> None:
    """And are different for each connection of each worker that a slot has had."""
    names = {qlog_file_name(slot, generation, number) for slot in (0, 1) for generation in (1, 2) for number in (7, 12)}
    assert len(names) == 8
    assert all(re.fullmatch(r"[a-z0-9-]+\.qlog", name) for name in names)
