"""Tests of the messages about relaying: numbers, bytes, and who says what."""

import dataclasses

import pytest

from antquic_server.errors import MessageDecodeError
from antquic_server.ipc import relay_messages
from antquic_server.ipc.codec import decode_untrusted, encode
from antquic_server.ipc.messages import KINDS, Message
from antquic_server.ipc.relay_messages import (
    ChannelCreate,
    ChannelOfferOut,
    RelayAddress,
    RelayReleased,
    RelayReserve,
    RelayReserved,
    RelayUsage,
)

RESERVED_NUMBERS = range(20, 50)
"""Of the table of messages: those about relaying, and changed limits between them."""


def kinds() -> list[type]:
    """All messages about relaying."""
    return [each for each in vars(relay_messages).values() if isinstance(each, type) and dataclasses.is_dataclass(each)]


def test_every_message_has_a_number_of_its_own_range() -> None:
    """Numbers below belong to the life of a worker and to introductions."""
    here = set(kinds())
    numbered = {kind: number for number, kind in KINDS.items() if kind in here}

    assert set(numbered) == here
    assert all(number in RESERVED_NUMBERS for number in numbered.values())


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (RelayReserve(session=1, peer_id=b"\xaa", host="::1"), "941401c401aaa33a3a31"),
        (RelayReserved(session=1, refusal="r"), "961501a172cb0000000000000000cb0000000000000000cb0000000000000000"),
        (RelayReleased(session=1, moved_bytes=300), "931601cd012c"),
        (RelayUsage(sessions=[1, 1 << 56], moved_bytes=[2, 3]), "93179201cf0100000000000000920203"),
        (RelayAddress(session=1, address="a"), "932d01a161"),
        (
            ChannelCreate(
                channel_id=b"c",
                initiator_key=b"i",
                target_key=b"t",
                rate_bytes_per_s=1.0,
                burst_bytes=0.5,
                start_bytes=-1.0,
            ),
            "971fc40163c40169c40174cb3ff0000000000000cb3fe0000000000000cbbff0000000000000",
        ),
        (
            ChannelOfferOut(connection=1, target=b"t", initiator=b"i", channel_id=b"c", key=b"k", token=b"o"),
            "972101c40174c40169c40163c4016bc4016f",
        ),
    ],
)
def test_snapshots_of_the_wire_form(message: Message, expected: str) -> None:
    """The bytes are what they were: another version of a worker must understand them."""
    assert encode(message)[4:].hex() == expected
    assert decode_untrusted(bytes.fromhex(expected)) == message


@pytest.mark.parametrize("values", ["931401c401aa", "931791a1319102", "93170102", "932d01c40161"])
def test_what_is_no_message_is_refused(values: str) -> None:
    """Too short, or of other types: a worker reads what strangers send."""
    with pytest.raises(MessageDecodeError):
        decode_untrusted(bytes.fromhex(values))


def test_values_are_frozen() -> None:
    """Nobody changes what was said."""
    for kind in kinds():
        assert kind.__dataclass_params__.frozen, kind  # type: ignore[attr-defined]
        assert "__slots__" in vars(kind), kind
