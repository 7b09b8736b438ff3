"""Tests of the words for why a session is refused or ends."""

import re

import pytest

from antquic_server.protocol.relay_control import MAX_REASON_BYTES
from antquic_server.protocol.relay_limits import STATUS, Refusal, RelayEnd, RelayMode
from antquic_server.protocol.relay_stream import RelayStatus

WORDS = [*Refusal, *RelayEnd, *RelayMode]


def test_every_refusal_has_a_status_for_ant_quic_peers() -> None:
    """And none of them is success."""
    assert set(STATUS) == set(Refusal)
    assert RelayStatus.OK not in STATUS.values()


@pytest.mark.parametrize("word", WORDS)
def test_words_fit_metrics_and_messages(word: str) -> None:
    """They are labels, and travel in messages whose reasons are printable and short."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", word)
    assert len(word) <= MAX_REASON_BYTES


def test_no_word_has_two_meanings() -> None:
    """A channel that has ended says one or the other."""
    assert len(set(WORDS)) == len(WORDS)


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Refusal.PEER_SESSIONS, 409),
        (Refusal.NODE_SESSIONS, 503),
        (Refusal.PEER_DENIED, 403),
        (Refusal.UNAUTHENTICATED, 403),
        (Refusal.BAD_REQUEST, 400),
        (Refusal.OPEN_RATE, 503),
        (Refusal.TARGET_RATE, 503),
    ],
)
def test_status_is_what_ant_quic_relays_use_for_it(refusal: Refusal, status: int) -> None:
    """A peer that may try again later hears 503; one that may not, something else."""
    assert STATUS[refusal] == status
