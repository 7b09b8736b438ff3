"""Tests of the message about hole punches between worker and supervisor."""

import pytest

from antquic_server.errors import MessageDecodeError
from antquic_server.ipc.codec import decode_untrusted, encode
from antquic_server.ipc.messages import KINDS
from antquic_server.ipc.punch_messages import PunchReported

REPORT = PunchReported(peer_id=b"p" * 32, other=b"o" * 32, succeeded=True, nat_mapping="unknown")
LENGTH_BYTES = 4


def test_number_is_of_its_own_range() -> None:
    """50 to 54; numbers are never reused."""
    assert [number for number, kind in KINDS.items() if kind is PunchReported] == [50]


def test_report_arrives_as_it_was_sent() -> None:
    """Through the codec and back."""
    assert decode_untrusted(encode(REPORT)[LENGTH_BYTES:]) == REPORT


def test_fields_of_another_type_are_refused() -> None:
    """A worker that was taken over must not take the supervisor along."""
    broken = PunchReported(peer_id=b"p", other=b"o", succeeded=1, nat_mapping="unknown")  # type: ignore[arg-type]
    with pytest.raises(MessageDecodeError, match="PunchReported"):
        decode_untrusted(encode(broken)[LENGTH_BYTES:])
