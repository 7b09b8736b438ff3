"""``bench logging``: every level in one run, and single calls."""

import pytest

from antquic_server.bench import log_cost

pytestmark = pytest.mark.end_to_end


def test_every_level_echoes_shakes_hands_and_has_its_ratio() -> None:
    """The first is the unit; only debug writes lines for connections, and without a limit many."""
    options = {**log_cost.OPTIONS, **log_cost.QUICK}

    levels, calls = (table.as_plain() for table in log_cost.run(options).tables)

    assert [row["level"] for row in levels][:4] == ["nothing (critical)", "warning", "info", "debug"]
    assert levels[0]["echo ratio"] == levels[0]["handshake ratio"] == 1.0
    lines = {str(row["level"]): row["lines"] for row in levels}
    for row in levels:
        for column in ("echoes per CPU second", "handshakes per CPU second"):
            rate = row[column]
            assert isinstance(rate, float)
            assert rate > 0
    every, some = lines["debug, every line"], lines["debug"]
    assert isinstance(every, int | float)
    assert isinstance(some, int | float)
    # A line or two of the turn before may come late on a busy machine.
    for quiet in ("nothing (critical)", "warning", "info"):
        late = lines[quiet]
        assert isinstance(late, int | float)
        assert late < every, quiet
    assert some > 0
    assert lines["debug, every line, to /dev/null"] is None
    assert all(isinstance(row["ns"], float) and row["ns"] > 0 for row in calls)
    written, off = calls[-1]["ns"], calls[0]["ns"]
    assert isinstance(written, float)
    assert isinstance(off, float)
    assert off < written
