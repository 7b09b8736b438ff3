"""Every file in docs/examples/ works as it stands."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from antquic_server.config.load import load_settings
from support.node import REPOSITORY, node_environment

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"
CONFIGURATIONS = sorted(EXAMPLES.glob("*.toml"))
BENCHMARK = EXAMPLES / "my_benchmark.py"


def test_every_example_is_of_a_kind_that_is_tested() -> None:
    """An example of a new kind needs a test here that runs it."""
    found = [path for path in EXAMPLES.iterdir() if path.name != "__pycache__"]
    assert sorted(found) == sorted([*CONFIGURATIONS, BENCHMARK])
    assert CONFIGURATIONS != []


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_example_configuration_loads(path: Path) -> None:
    """The loader accepts the file, every key of it."""
    load_settings(path)


def test_examples_are_plain_files() -> None:
    """An example can be copied as it is: readable and not executable."""
    for path in (*CONFIGURATIONS, BENCHMARK):
        mode = path.stat().st_mode
        assert stat.S_ISREG(mode)
        assert not mode & stat.S_IXUSR, path
        assert os.access(path, os.R_OK), path


@pytest.mark.end_to_end
def test_example_benchmark_runs_as_its_page_says(tmp_path: Path) -> None:
    """With the command of docs/benchmarks.md, from the directory of the file; it repeats, saves and compares."""
    documented = "antquic-server bench --load my_benchmark.py mine"
    assert documented in (REPOSITORY / "docs" / "benchmarks.md").read_text()
    saved = tmp_path / "mine.json"

    command = [sys.executable, "-m", *documented.replace("-", "_", 1).split(), "--quick", "--save", str(saved)]
    done = subprocess.run(
        command, cwd=EXAMPLES, env=node_environment(), capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "streams echoed by a node" in done.stdout
    (repetition,) = json.loads(saved.read_text())["benchmarks"]["mine"]["repetitions"]
    assert [figure["row"] for figure in repetition["figures"]] == [
        f"bytes {size}" for size in ("1,000", "10,000", "100,000") for _ in range(2)
    ]
