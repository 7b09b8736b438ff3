"""
A campaign as one JSON object: what ``--json`` prints and ``--save`` writes, and how such a file is read again.

::

    {"format": "antquic-server bench", "schema": 1,
     "created": "2026-11-28T07:20:00+00:00", "took_s": 61.2, "complete": true,
     "command": ["antquic-server", "bench", "handshake", "--repeat", "5"],
     "machine": {"cpu": "…", "cpus": 2, "kernel": "…", "python": "3.11.7"},
     "versions": {"antquic-server": "0.1.0", "aioquic": "1.7.2", "liboqs": "0.13.0", …},
     "load_average": {"before": [0.1, 0.2, 0.2], "after": [1.0, 0.5, 0.3]},
     "benchmarks": {"handshake": {
         "options": {"rounds": "200", …}, "failure": null,
         "repetitions": [{
             "took_s": 12.1, "notes": ["…"],
             "figures": [{"table": "…", "row": "…", "figure": "x CPU",
                          "unit": "x", "better": "lower", "drawn": true, "value": 1.2}, …],
             "tables": {"…": [{"handshake": "…", "x CPU": 1.2, …}, …]}}]}}}

``schema`` changes when a reader of the old one would misunderstand; what is added does not change it. ``tables`` are
for people and their scripts, ``figures`` are what ``bench compare`` reads.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

from antquic_server.bench.report import Column, Figure, Report
from antquic_server.errors import BenchmarkError, UsageError

__all__ = ["Outcome", "SavedRun", "document", "load", "save"]

FORMAT: Final = "antquic-server bench"
SCHEMA: Final = 1
MAX_FILE_BYTES: Final = 100_000_000
"""More than any campaign: a file that is larger is something else."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one benchmark came to: its options, a report for each repetition that ended, and why the next did not."""

    options: Mapping[str, str]
    reports: list[Report] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """What ``bench compare`` needs of a file; ``figures`` by benchmark, one list for each repetition."""

    path: Path
    created: str
    machine: Mapping[str, object]
    versions: Mapping[str, object]
    load_average: Mapping[str, object]
    options: Mapping[str, Mapping[str, object]]
    figures: Mapping[str, Sequence[Sequence[Figure]]]


def document(
    outcomes: Mapping[str, Outcome], *, created: datetime, complete: bool, **surroundings: object
) -> dict[str, object]:
    """Return the JSON object of a campaign; ``surroundings`` are the other members of the top level, as they are."""
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "created": created.isoformat(timespec="seconds"),
        "complete": complete,
        **surroundings,
        "benchmarks": {name: _plain_outcome(outcome) for name, outcome in outcomes.items()},
    }


def save(path: Path, content: Mapping[str, object]) -> None:
    """
    Write the object to a file, whole or not at all.

    Raises:
        BenchmarkError: It cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise BenchmarkError(f"cannot write {path}: {error.strerror}") from error


def load(path: Path) -> SavedRun:
    """
    Read a file that ``save`` has written.

    Raises:
        UsageError: It cannot be read, is not one of ours, or of a schema this version does not know.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{path}: larger than any file that bench --save writes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: not JSON; expected a file that bench --save has written") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"{path}: expected a file that bench --save has written")
    if content.get("schema") != SCHEMA:
        raise UsageError(f"{path}: schema {content.get('schema')!r}, expected {SCHEMA}")
    try:
        return _saved_run(path, content)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{path}: damaged; expected a file as bench --save has written it") from None


def _plain_outcome(outcome: Outcome) -> dict[str, object]:
    return {
        "options": dict(outcome.options),
        "failure": outcome.failure,
        "repetitions": [
            {
                "took_s": took_s,
                "notes": report.notes,
                "figures": [_plain_figure(figure) for figure in report.figures()],
                "tables": {table.title: _finite(table.as_plain()) for table in report.tables},
            }
            for report, took_s in zip(outcome.reports, outcome.took_s, strict=True)
        ],
    }


def _finite(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Replace what JSON has no number for by null."""
    return [
        {key: None if isinstance(cell, float) and not math.isfinite(cell) else cell for key, cell in row.items()}
        for row in rows
    ]


def _plain_figure(figure: Figure) -> dict[str, object]:
    return {
        "table": figure.table,
        "row": figure.row,
        "figure": figure.column.name,
        "unit": figure.column.unit,
        "better": figure.column.better,
        "drawn": figure.drawn,
        "value": figure.value,
    }


def _saved_run(path: Path, content: Mapping[str, Any]) -> SavedRun:
    benchmarks = content["benchmarks"].items()
    return SavedRun(
        path=path,
        created=str(content["created"]),
        machine=dict(content["machine"]),
        versions=dict(content["versions"]),
        load_average=dict(content["load_average"]),
        options={str(name): dict(item["options"]) for name, item in benchmarks},
        figures={
            str(name): [[_figure(figure) for figure in repetition["figures"]] for repetition in item["repetitions"]]
            for name, item in benchmarks
        },
    )


def _figure(plain: Mapping[str, Any]) -> Figure:
    value, better = plain["value"], plain["better"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a number")
    if better not in ("higher", "lower", None):
        raise ValueError("unknown direction")
    names = [plain[key] for key in ("table", "row", "figure", "unit")]
    if not all(isinstance(name, str) for name in names):
        raise TypeError("not a text")
    table, row, name, unit = cast(list[str], names)
    column = Column(name=name, unit=unit, better=better)
    return Figure(table=table, row=row, column=column, value=float(value), drawn=plain["drawn"] is True)
