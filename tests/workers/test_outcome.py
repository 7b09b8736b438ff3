"""Tests of ``workers.outcome``."""

import pytest
from aioquic.quic.events import ConnectionTerminated

from antquic_server.stats.counters import SEPARATOR
from workers.outcome import fault_location, outcome_label


def ended(code: int, frame_type: int | None, reason: str = "") -> ConnectionTerminated:
    """The end of a connection."""
    return ConnectionTerminated(error_code=code, frame_type=frame_type, reason_phrase=reason)


@pytest.mark.parametrize(
    ("event", "label"),
    [
        (ended(1, 0, "Idle timeout"), "idle_timeout"),
        (ended(0, None, "handshake timeout"), "handshake_timeout"),
        (ended(1, None, "internal error"), "internal_error"),
        (ended(0x10, 0, "No validated network path"), "no_viable_path"),
        (ended(0x4E5B02, None, "PeerShutdown"), "peer_shutdown"),
        (ended(0, None), "none"),
        (ended(12345, None), "application"),
        (ended(0x128, 6), "alert_handshake_failure"),
        (ended(0x174, 6), "alert_certificate_required"),
        (ended(0x1FF, 6), "alert_other"),
        (ended(0x08, 6), "transport_parameter_error"),
        (ended(0x0A, 0), "protocol_violation"),
        (ended(0xFFFF, 0), "other"),
    ],
)
def test_every_end_has_a_word(event: ConnectionTerminated, label: str) -> None:
    """Timeouts by their reason, application closes by our codes, alerts and transport errors by their names."""
    assert outcome_label(event) == label


def test_words_are_a_bounded_set() -> None:
    """A peer chooses code and reason, and must not be able to make up labels."""
    labels = set()
    for frame_type in (None, 0, 6):
        for code in [*range(0x300), *range(0x4E5AF0, 0x4E5B20), 1 << 40]:
            labels.add(outcome_label(ended(code, frame_type, f"{code}|made up")))
    assert len(labels) < 80
    assert not any(SEPARATOR in label for label in labels)


def _fail() -> None:
    raise ValueError("here")


def test_fault_is_located_where_it_was_raised() -> None:
    """The innermost function and its line are named, not the one that caught."""
    with pytest.raises(ValueError, match="here") as caught:
        _fail()
    assert fault_location(caught.value).startswith("_fail:")


def test_fault_without_a_traceback_has_no_location() -> None:
    """An exception that was never raised is still described."""
    assert fault_location(ValueError("never raised")) == "?"
