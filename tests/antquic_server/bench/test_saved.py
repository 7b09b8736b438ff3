"""Saved campaigns: written whole, read with suspicion."""

import copy
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from antquic_server.bench.report import Column, Report, Table
from antquic_server.bench.saved import Outcome, document, load, save
from antquic_server.errors import BenchmarkError, UsageError

CREATED = datetime(2026, 11, 28, 7, 20, tzinfo=UTC)


def report(value: float) -> Report:
    """Return a report with one figure and one cell that is none."""
    table = Table(
        title="t",
        columns=("name", Column(name="us", unit="us", better="lower"), Column(name="x", unit="x")),
        rows=[("a", value, math.inf)],
        chart="us",
    )
    return Report(tables=[table], notes=["why"])


def content() -> dict[str, Any]:
    """Return what a campaign of two repetitions saves."""
    outcome = Outcome(options={"rounds": "2"}, reports=[report(1.0), report(2.0)], took_s=[0.1, 0.2])
    return document(
        {"fake": outcome},
        created=CREATED,
        complete=True,
        machine={"cpu": "z80"},
        versions={"aioquic": "1.7.2"},
        load_average={"before": [0.5, 0.4, 0.3], "after": []},
    )


def test_everything_comes_back(tmp_path: Path) -> None:
    """Every figure of every repetition, with unit, direction and whether it is drawn."""
    path = tmp_path / "run.json"
    save(path, content())

    run = load(path)

    assert (run.created, run.machine, run.versions) == (CREATED.isoformat(), {"cpu": "z80"}, {"aioquic": "1.7.2"})
    assert run.options == {"fake": {"rounds": "2"}}
    first, second = run.figures["fake"]
    assert [figure.value for figure in (*first, *second)] == [1.0, 2.0]
    assert first == report(1.0).figures()
    assert first[0].drawn


def test_file_is_plain_json_with_tables_and_notes(tmp_path: Path) -> None:
    """Others read it as well; what is no number in JSON is null."""
    path = tmp_path / "run.json"
    save(path, content())

    written = json.loads(path.read_text())
    assert (written["format"], written["schema"], written["complete"]) == ("antquic-server bench", 1, True)
    repetition = written["benchmarks"]["fake"]["repetitions"][0]
    assert repetition["tables"] == {"t": [{"name": "a", "us": 1.0, "x": None}]}
    assert repetition["notes"] == ["why"]
    assert repetition["took_s"] == 0.1
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"


def test_failure_is_saved_with_what_came_before_it() -> None:
    """A benchmark that failed in its second run has one repetition and a reason."""
    outcome = Outcome(options={}, reports=[report(1.0)], took_s=[0.1], failure="no root")
    written: Any = document({"fake": outcome}, created=CREATED, complete=False)

    assert written["benchmarks"]["fake"]["failure"] == "no root"
    assert len(written["benchmarks"]["fake"]["repetitions"]) == 1


def test_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """With its name and the reason."""
    with pytest.raises(BenchmarkError, match=r"cannot write .*/no/run.json: No such file"):
        save(tmp_path / "no" / "run.json", content())


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "expected a file that bench --save has written"),
        (b'{"format": "something else"}', "expected a file that bench --save has written"),
        (b'{"format": "antquic-server bench", "schema": 2}', "schema 2, expected 1"),
        (b'{"format": "antquic-server bench", "schema": 1}', "damaged"),
    ],
    ids=["empty", "binary", "deep", "list", "foreign", "newer", "hollow"],
)
def test_file_of_somebody_else_is_refused_in_one_line(tmp_path: Path, data: bytes, complaint: str) -> None:
    """The message begins with the file and says what was expected."""
    path = tmp_path / "run.json"
    path.write_bytes(data)

    with pytest.raises(UsageError) as refusal:
        load(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_missing_file_and_directory_are_refused(tmp_path: Path) -> None:
    """With the reason of the operating system."""
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none.json")
    with pytest.raises(UsageError, match="Is a directory"):
        load(tmp_path)


def test_huge_file_is_not_read(tmp_path: Path) -> None:
    """It is none of ours; a sparse one takes no room here."""
    path = tmp_path / "run.json"
    with path.open("wb") as file:
        file.truncate(100_000_001)

    with pytest.raises(UsageError, match="larger than any file"):
        load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("value", "1"),
        ("value", True),
        ("value", None),
        ("value", math.inf),
        ("better", "faster"),
        ("row", 3),
        ("unit", None),
        ("drawn", KeyError),
    ],
    ids=str,
)
def test_damaged_figure_is_refused(tmp_path: Path, key: str, value: object) -> None:
    """A figure with a member of the wrong kind, or without one (KeyError here), is not compared."""
    damaged = copy.deepcopy(content())
    figure = damaged["benchmarks"]["fake"]["repetitions"][1]["figures"][0]
    if value is KeyError:
        del figure[key]
    else:
        figure[key] = value
    path = tmp_path / "run.json"
    path.write_text(json.dumps(damaged))

    with pytest.raises(UsageError, match="damaged"):
        load(path)


@pytest.mark.parametrize("key", ["created", "machine", "versions", "load_average", "benchmarks"])
@pytest.mark.parametrize("value", [None, 7, [1]], ids=str)
def test_damaged_head_is_refused(tmp_path: Path, key: str, value: object) -> None:
    """Members of the top level of another kind."""
    damaged = {**content(), key: value}
    if key == "created":
        del damaged[key]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(damaged))

    with pytest.raises(UsageError, match="damaged"):
        load(path)
