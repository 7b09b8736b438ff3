"""Tests of what the statistics line says."""

import json
from pathlib import Path

import pytest

from antquic_server.supervisor.statistics import Statistics

TOTALS = {
    "active_connections": 12.0,
    "relay_sessions|channel": 3.0,
    "bytes_sent": 1000.0,
    "bytes_received": 500.0,
    "handshakes|ant_quic": 40.0,
    "handshakes|x509": 2.0,
    "hole_punches|successful|unknown|unknown": 5.0,
    "hole_punches|successful|dependent|unknown": 1.0,
    "hole_punches|failed|dependent|dependent": 2.0,
    "hole_punches_unknown|none": 100.0,
    "drops|not_quic": 7.0,
    "drops|draining": 1.0,
    "relay_bytes|channel": 30.0,
    "relay_bytes|stream": 3.0,
}


def test_line_has_what_operators_ask_for() -> None:
    """Connections as they are, everything else since the start, series of a metric added up."""
    line = Statistics(100.0).line(TOTALS, 110.0)

    expected = {
        "active_connections": 12,
        "relay_channels": 3,
        "relay_streams": 0,
        "bytes_sent": 1000,
        "bytes_received": 500,
        "handshakes": 42,
        "successful_hole_punches": 6,
        "failed_hole_punches": 2,
        "drops": 8,
        "relayed_bytes": 33,
        "worker_restarts": 0,
        "interval_s": 10,
    }
    assert {field: line[field] for field in expected} == expected


def test_rates_are_over_the_interval_since_the_line_before() -> None:
    """Not since the start; the second line shows what was new in it."""
    statistics = Statistics(100.0)
    first = statistics.line(TOTALS, 110.0)
    assert (first["bytes_sent_per_s"], first["bytes_received_per_s"], first["handshakes_per_s"]) == (100, 50, 4.2)
    later = TOTALS | {"bytes_sent": 1600.0, "handshakes|x509": 5.0}
    second = statistics.line(later, 112.0)
    assert second["interval_s"] == 2
    assert second["bytes_sent_per_s"] == 300
    assert second["bytes_received_per_s"] == 0
    assert second["handshakes_per_s"] == 1.5
    assert second["bytes_sent"] == 1600


@pytest.mark.parametrize("totals", [{}, TOTALS])
def test_a_line_without_time_or_figures_has_no_rates(totals: dict[str, float]) -> None:
    """The node may end in the moment in which it began; every field is there all the same."""
    line = Statistics(100.0).line(totals, 100.0)
    assert all(value == 0 for field, value in line.items() if field.endswith("_per_s"))
    assert line.keys() == Statistics(0.0).line(TOTALS, 1.0).keys()


def test_example_of_the_guide_is_a_line() -> None:
    """With the fields that there are, in their order, and figures that can be."""
    guide = (Path(__file__).resolve().parents[3] / "docs" / "monitoring.md").read_text()
    shown = json.loads(guide.partition("## The statistics line")[2].partition("```json\n")[2].partition("\n```")[0])
    of_the_log = ("timestamp", "level", "logger", "event", "final")

    assert [field for field in shown if field not in of_the_log] == list(Statistics(0.0).line(TOTALS, 1.0))
    assert shown["event"] == "statistics"
    assert shown["bytes_sent_per_s"] * shown["interval_s"] < shown["bytes_sent"]
