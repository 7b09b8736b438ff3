"""Tests of the message declarations."""

import dataclasses
import typing

from antquic_server.ipc import messages
from antquic_server.protocol.coordination import RejectionReason


def test_every_message_has_a_number_and_is_frozen() -> None:
    """The table of numbers and the union name the same classes, each a frozen value with slots."""
    kinds = set(messages.KINDS.values())

    assert kinds == set(typing.get_args(messages.Message))
    assert len(kinds) == len(messages.KINDS)
    for kind in kinds:
        parameters = kind.__dataclass_params__  # type: ignore[union-attr]
        assert parameters.frozen, kind
        assert "__slots__" in vars(kind), kind


def test_fields_with_defaults_come_last() -> None:
    """A field that was appended later has a default, so that older senders can leave it out."""
    for kind in messages.KINDS.values():
        optional = [
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            for field in dataclasses.fields(kind)
        ]
        assert optional == sorted(optional), kind


QUESTION = messages.Introduce(
    request_id=2**64 - 1,
    expires_at_unix_ms=2**64 - 1,
    round=2**32 - 1,
    initiator=b"i" * 32,
    target=b"t" * 32,
    connection=3,
    address="192.0.2.1:1",
    advertised=["[2001:db8::1]:2"],
    slot=5,
    target_connection=9,
)


def test_answer_repeats_what_the_asking_worker_needs() -> None:
    """It holds nothing back, so every field it must know again comes back, and the outcome with it."""
    refused = QUESTION.answer(reason=RejectionReason.EXPIRED.value)
    assert refused.reason == "Expired"
    assert (refused.initiator_address, refused.target_address) == ("", "")
    for name in ("request_id", "expires_at_unix_ms", "round", "initiator", "target", "slot", "connection"):
        assert getattr(refused, name) == getattr(QUESTION, name), name

    served = QUESTION.answer(initiator_address="192.0.2.1:1", target_address="192.0.2.2:2")
    assert (served.reason, served.initiator_address, served.target_address) == ("", "192.0.2.1:1", "192.0.2.2:2")
