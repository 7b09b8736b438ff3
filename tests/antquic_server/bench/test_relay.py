"""``bench relay`` from its options to its report, with very little load."""

import pytest

from antquic_server.bench import relay, relay_coturn, relay_forwarder
from antquic_server.bench.relay_plan import OPTIONS, QUICK
from antquic_server.bench.report import Report

pytestmark = pytest.mark.end_to_end

TINY = {**OPTIONS, **QUICK, "ms": "30", "sessions": "1,2"}


def _rows(report: Report, title: str) -> list[dict[str, str | float | int | None]]:
    (table,) = (table for table in report.tables if table.title.startswith(title))
    return table.as_plain()


def test_whole_run_over_loopback() -> None:
    """Every cell has a row for every relay, and each has delivered something."""
    report = relay.run({**TINY, "place": "loopback"})

    channels = _rows(report, "relay of datagrams")
    relays = {row["relay"] for row in channels}
    assert "channel relay" in relays
    assert len(channels) == 4 * len(relays)
    streams = _rows(report, "stream relay against")
    assert len(streams) == 2 * 5
    for row in channels + streams:
        assert isinstance(row["per CPU second"], float)
        assert row["per CPU second"] > 0
    assert len(_rows(report, "targets")) >= 3
    assert any("loopback" in note for note in report.notes)


def test_whole_run_across_namespaces(root: None) -> None:
    """There trains are cut, too."""
    report = relay.run({**TINY, "place": "namespaces", "modes": "channel", "sessions": "2"})

    assert {row["datagrams"] for row in _rows(report, "relay of datagrams")} == {
        "single",
        "single, cut",
        "train of 16",
        "train of 16, cut",
    }
    assert any("namespaces" in note for note in report.notes)


def test_without_yardsticks_the_node_is_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes say what is missing, and there are no ratios."""
    monkeypatch.setattr(relay_coturn, "find_coturn", lambda: None)
    monkeypatch.setattr(relay, "find_coturn", lambda: None)
    monkeypatch.setattr(relay_forwarder, "find_compiler", lambda: None)

    report = relay.run({**TINY, "place": "loopback", "modes": "channel", "trains": "1", "sessions": "1"})

    (row,) = _rows(report, "relay of datagrams")
    assert row["x coturn"] is None
    assert report.tables[0].rows == []
    assert any(note.startswith("Without coturn: ") for note in report.notes)
    assert any(note.startswith("Without C forwarder: ") for note in report.notes)
