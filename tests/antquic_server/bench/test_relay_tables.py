"""Tables from measurements: ratios within a round, and whether the targets are met."""

import pytest

from antquic_server.bench.relay_load import LoadResult
from antquic_server.bench.relay_plan import Cell
from antquic_server.bench.relay_tables import channel_table, ratios, stream_table, target_table


def _results(*delivered: int) -> list[LoadResult]:
    return [LoadResult(sent=n, delivered=n, silent_sessions=0, wall_s=2.0, cpu_s=1.0) for n in delivered]


def _cell(train: int, *, cut: bool = False) -> Cell:
    return Cell(train=train, cut=cut, payload_bytes=1000, sessions=1)


def test_ratios_are_those_of_each_round() -> None:
    """A machine that is busy during one round makes both slow in it."""
    assert ratios(_results(100, 50), _results(200, 100)) == [0.5, 0.5]


def test_channel_rows_have_figure_and_ratio() -> None:
    """Median, half the range in per cent, bits per second of one core."""
    results = {_cell(1): {"ours": _results(90, 100, 110), "theirs": _results(180, 200, 220)}}

    first, second = channel_table(results, "theirs").as_plain()

    assert first == {
        "datagrams": "single",
        "payload bytes": 1000,
        "sessions": 1,
        "relay": "ours",
        "per CPU second": 100,
        "+- %": pytest.approx(10),
        "Gb/s per core": pytest.approx(100 * 8000 / 1e9),
        "busy %": 50,
        "lost %": 0,
        "x theirs": 0.5,
    }
    assert second["x theirs"] == 1


def test_without_the_yardstick_there_is_no_ratio() -> None:
    """coturn is not installed: figures without comparison, and no target is judged."""
    results = {_cell(1): {"ours": _results(100)}}

    assert channel_table(results, "theirs").as_plain()[0]["x theirs"] is None
    assert target_table(results, {}, relay="ours", coturn="theirs", stock="echo", streams={}).rows == []


def test_stream_rows_compare_with_the_echo() -> None:
    """One row for each server."""
    results = {(1000, 1): {"up": _results(300), "echo": _results(100)}}

    assert [row["x echo"] for row in stream_table(results, "echo").as_plain()] == [3, 1]


def test_targets_are_judged_by_the_worst_cell() -> None:
    """Trains of less than ten count for nothing; a single cell below its target is enough for a no."""
    channel = {
        _cell(1): {"ours": _results(60), "theirs": _results(100)},
        _cell(4): {"ours": _results(1), "theirs": _results(100)},
        _cell(16): {"ours": _results(500), "theirs": _results(100)},
        _cell(16, cut=True): {"ours": _results(150), "theirs": _results(100)},
    }
    stream = {(1000, 1): {"up": _results(300), "both": _results(90), "echo": _results(100)}}

    table = target_table(
        channel, stream, relay="ours", coturn="theirs", stock="echo", streams={"up": 1.0, "both": None}
    )

    assert [(row[2], row[4], row[5]) for row in table.rows] == [
        (0.6, 1, "yes"),
        (1.5, 2, "no"),
        (3.0, 1, "yes"),
        (0.9, 1, None),
    ]
