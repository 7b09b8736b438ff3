"""``antquic-server bench compare OLD NEW``: print, draw and judge what has changed between two saved runs."""

import json
from dataclasses import dataclass
from pathlib import Path

from antquic_server.bench import charts
from antquic_server.bench.compare import Change, Verdict, changes, comparison_tables, differences, worse_than
from antquic_server.bench.report import Report
from antquic_server.bench.saved import SavedRun, load
from antquic_server.bench.spread import Spread
from antquic_server.errors import ExitCode

__all__ = ["ComparisonRequest", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """What the command line asks for."""

    old: Path
    new: Path
    fail_on_worse_percent: float | None = None
    ratios_only: bool = False
    json_output: bool = False
    chart: Path | None = None


def run(request: ComparisonRequest) -> int:
    """
    Compare; returns 1 if a figure is worse by more than what may be, else 0.

    Raises:
        UsageError: A file is not one of ours, or there is nothing to compare.
        BenchmarkError: The chart cannot be drawn.
    """
    if request.chart is not None:
        charts.check(request.chart)
    old, new = load(request.old), load(request.new)
    found = changes(old, new, ratios_only=request.ratios_only)
    if request.json_output:
        print(json.dumps(_plain(old, new, found)))
    else:
        print(Report(tables=comparison_tables(found), notes=_notes(old, new, found)).as_text(), end="")
    if request.chart is not None:
        charts.draw(request.chart, charts.comparison_panels(found), (f"old: {old.path.name}", f"new: {new.path.name}"))
    if request.fail_on_worse_percent is not None and worse_than(found, request.fail_on_worse_percent):
        return ExitCode.FAILURE
    return ExitCode.OK


def _notes(old: SavedRun, new: SavedRun, found: list[Change]) -> list[str]:
    verdicts = [change.verdict for change in found]
    return [
        "; ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in Verdict if verdict in verdicts),
        f"old: {old.path}, {old.created}; new: {new.path}, {new.created}; medians.",
        "A difference shows if the ranges do not overlap; with five runs each chance does that to 1 in 126 figures.",
        *(f"load average of {run.path}: {_load(run)}" for run in (old, new)),
        *differences(old, new),
    ]


def _load(run: SavedRun) -> str:
    """Return the load of the last minute before and after: what else the machine did, and we."""
    minutes = [run.load_average.get(when) for when in ("before", "after")]
    return ", ".join(f"{minute[0]:.2f}" for minute in minutes if isinstance(minute, list) and minute) or "unknown"


def _plain(old: SavedRun, new: SavedRun, found: list[Change]) -> dict[str, object]:
    return {
        "old": str(old.path),
        "new": str(new.path),
        "differences": differences(old, new),
        "changes": [
            {
                "benchmark": change.benchmark,
                "table": change.table,
                "row": change.row,
                "figure": change.new.column.name,
                "unit": change.new.column.unit,
                "better": change.new.column.better,
                "old": _summary(change.old),
                "new": _summary(change.new),
                "change_percent": change.percent,
                "verdict": change.verdict.value,
            }
            for change in found
        ],
    }


def _summary(spread: Spread) -> dict[str, object]:
    return {
        "median": spread.median,
        "min": spread.least,
        "max": spread.greatest,
        "mad": spread.deviation,
        "runs": len(spread.values),
    }
