"""``bench compare`` from two files to an exit code."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from antquic_server.bench.comparison import ComparisonRequest, run
from antquic_server.bench.report import Column, Report, Table
from antquic_server.bench.saved import Outcome, document, save
from antquic_server.errors import ExitCode, UsageError


def saved(path: Path, values: Sequence[float]) -> Path:
    """Save a run of one figure, for which less is better, with these values."""
    columns = ("name", Column(name="x", unit="x", better="lower"))
    reports = [
        Report(tables=[Table(title="t", columns=columns, rows=[("a", value)], chart="x")], notes=[]) for value in values
    ]
    outcome = Outcome(options={}, reports=reports, took_s=[1.0] * len(values))
    load_average = {"before": [0.25, 0.1, 0.1], "after": [1.5, 0.2, 0.1]}
    content = document(
        {"fake": outcome},
        created=datetime.now(UTC),
        complete=True,
        machine={},
        versions={},
        load_average=load_average if path.stem == "new" else {"before": [], "after": []},
    )
    save(path, content)
    return path


def test_table_and_verdicts_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And without a limit the exit code is 0, whatever has become worse."""
    old, new = saved(tmp_path / "old.json", [1, 1.1, 1.2]), saved(tmp_path / "new.json", [2, 2.2, 2.1])

    assert run(ComparisonRequest(old=old, new=new)) == ExitCode.OK

    printed = capsys.readouterr().out
    assert "fake: t" in printed
    assert "+90.9 %  worse" in printed
    assert "- 1 worse" in printed
    assert f"load average of {new}: 0.25, 1.50" in printed
    assert f"load average of {old}: unknown" in printed


@pytest.mark.parametrize(("percent", "code"), [(50.0, ExitCode.FAILURE), (95.0, ExitCode.OK)])
def test_exit_code_for_scripts(tmp_path: Path, percent: float, code: ExitCode) -> None:
    """1 if a figure is worse by more than the limit."""
    old, new = saved(tmp_path / "old.json", [1, 1.1, 1.2]), saved(tmp_path / "new.json", [2, 2.2, 2.1])

    assert run(ComparisonRequest(old=old, new=new, fail_on_worse_percent=percent)) == code
    assert run(ComparisonRequest(old=new, new=old, fail_on_worse_percent=0)) == ExitCode.OK


def test_json_has_both_spreads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets medians, ranges, change and verdict."""
    old, new = saved(tmp_path / "old.json", [1, 1, 4]), saved(tmp_path / "new.json", [2, 2, 3])

    run(ComparisonRequest(old=old, new=new, json_output=True))

    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change["old"] == {"median": 1, "min": 1, "max": 4, "mad": 0, "runs": 3}
    assert (change["change_percent"], change["verdict"]) == (100, "no difference that shows")


def test_chart_shows_both_runs(tmp_path: Path) -> None:
    """Their file names are the legend, the verdict stands at the bars."""
    old, new = saved(tmp_path / "old.json", [1, 1.1, 1.2]), saved(tmp_path / "new.json", [2, 2.2, 2.1])
    chart = tmp_path / "chart.svg"

    run(ComparisonRequest(old=old, new=new, chart=chart))

    drawn = chart.read_text()
    for text in ("old: old.json", "new: new.json", "fake: t", "+90.9 %, worse"):
        assert text in drawn


def test_foreign_file_is_a_usage_error(tmp_path: Path) -> None:
    """Exit code 2, with the file's name."""
    old, other = saved(tmp_path / "old.json", [1]), tmp_path / "other.json"
    other.write_text("{}")

    with pytest.raises(UsageError, match=r"other\.json: expected a file that bench --save has written"):
        run(ComparisonRequest(old=old, new=other))
