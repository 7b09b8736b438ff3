"""Tests of ``antquic_server.protocol.liveness``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.liveness import PROBE_BYTES, answer_probe_untrusted, answered_tag_untrusted

TAG = bytes(range(16))


def test_probe_is_answered_with_its_tag() -> None:
    """The answer is 26 bytes: another magic, the same tag, kind 0 and value 0."""
    assert answer_probe_untrusted(b"ANQProR1" + TAG) == b"ANQAckC1" + TAG + bytes(2)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"ANQProR1",
        b"ANQProR1" + TAG[:-1],
        b"ANQProR1" + TAG + b"\x00",
        b"ANQAckC1" + TAG,
        b"ANQProR2" + TAG,
        b"\x00ANQProR1" + TAG[:-1],
    ],
)
def test_anything_else_is_no_probe(message: bytes) -> None:
    """Another length or another magic gets no answer, our own answer included."""
    assert answer_probe_untrusted(message) is None


@given(message=st.binary(max_size=PROBE_BYTES + 2))
def test_random_bytes_are_no_probe(message: bytes) -> None:
    """Whatever a peer sends: never an exception, and never an answer unless the magic is there."""
    answer = answer_probe_untrusted(message)
    assert (answer is not None) == (len(message) == PROBE_BYTES and message[:8] == b"ANQProR1")


def test_an_answer_names_its_probe() -> None:
    """By the tag, whatever follows it; nothing else is an answer."""
    answer = answer_probe_untrusted(b"ANQProR1" + TAG)
    assert answer is not None
    assert answered_tag_untrusted(answer) == TAG
    assert answered_tag_untrusted(b"ANQAckC1" + TAG + b"\x01\xff more") == TAG
    for message in (b"", b"ANQAckC1", b"ANQAckC1" + TAG[:-1], b"ANQProR1" + TAG + bytes(2), b"ANQAckC2" + TAG):
        assert answered_tag_untrusted(message) is None
