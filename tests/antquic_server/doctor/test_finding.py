"""Verdicts have an order; a finding that could not look says so."""

from antquic_server.doctor.finding import Verdict, cannot_tell, fault, note, ok, warning


def test_verdicts_are_ordered() -> None:
    """From good to bad."""
    assert sorted(Verdict, key=lambda verdict: verdict.rank) == ["ok", "note", "warning", "fault"]


def test_makers_set_the_verdict() -> None:
    """And keep the fixes in their order."""
    assert [make("x").verdict for make in (ok, note, warning, fault)] == list(Verdict)
    assert fault("x", "first", "second").fixes == ("first", "second")


def test_what_cannot_be_told_is_a_note() -> None:
    """With the reason; never fine, never a fault."""
    finding = cannot_tell("no right")

    assert (finding.verdict, finding.known, finding.found) == (Verdict.NOTE, False, "cannot tell: no right")
