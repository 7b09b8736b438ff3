"""Benchmarks of one's own, from a file."""

from pathlib import Path

import pytest

from antquic_server.bench.own import load_benchmarks, where
from antquic_server.errors import UsageError

GOOD = """
from antquic_server.bench.api import Benchmark, Report

def run(options):
    return Report(tables=[], notes=["hello"])

BENCHMARKS = {"mine": Benchmark(summary="mine", run=run)}
"""


def written(path: Path, text: str) -> Path:
    """Write a file and return its path."""
    path.write_text(text)
    return path


def test_file_brings_its_benchmarks(tmp_path: Path) -> None:
    """By name, ready to run."""
    found = load_benchmarks(written(tmp_path / "own.py", GOOD), [])

    assert list(found) == ["mine"]
    assert found["mine"].run({}).notes == ["hello"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def run(:", r"SyntaxError: .* \(own\.py, line 1\)$"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(own\.py:1\)"),
        ("\nimport nothing_of_that_name", r"No module named 'nothing_of_that_name' \(own\.py:2\)"),
        ("", "expected BENCHMARKS, a dictionary"),
        ("BENCHMARKS = {}", "expected BENCHMARKS, a dictionary"),
        ("BENCHMARKS = {'mine': 3}", r"BENCHMARKS\['mine'\]: expected a Benchmark under a name"),
        (GOOD.replace('"mine":', "3:"), r"BENCHMARKS\[3\]: expected a Benchmark under a name"),
        (GOOD.replace('"mine":', '"relay":'), r"BENCHMARKS\['relay'\]: expected another name"),
        (GOOD.replace('"mine":', '"all":'), r"BENCHMARKS\['all'\]: expected another name"),
        (GOOD.replace('"mine":', '"-x":'), r"BENCHMARKS\['-x'\]: expected another name"),
    ],
)
def test_file_that_has_none_is_a_usage_error(tmp_path: Path, text: str, complaint: str) -> None:
    """In one line, which says where in the file."""
    path = written(tmp_path / "own.py", text)

    with pytest.raises(UsageError, match=complaint) as refusal:
        load_benchmarks(path, ["relay"])
    assert f"--load {path}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_missing_and_foreign_files_are_usage_errors(tmp_path: Path) -> None:
    """No such file; no Python file."""
    with pytest.raises(UsageError, match="no such file"):
        load_benchmarks(tmp_path / "none.py", [])
    with pytest.raises(UsageError, match="expected a Python file"):
        load_benchmarks(written(tmp_path / "own.txt", GOOD), [])


def test_place_of_an_exception_is_the_innermost_line() -> None:
    """Of all files, if no file is asked for."""
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")

    assert where(caught.value).startswith("ValueError: invalid literal for int() with base 10: 'x' (test_own.py:")
