"""Tests of ``workers.lifecycle``."""

from workers.lifecycle import Stage


def test_stages_in_order() -> None:
    """A worker goes through four stages, and they are declared in that order."""
    assert [str(stage) for stage in Stage] == ["spare", "serving", "draining", "stopped"]
