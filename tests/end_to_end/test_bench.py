"""``antquic-server bench`` as its user runs it: two runs, saved, compared and drawn."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from antquic_server.bench.profiler import find_py_spy
from support.node import node_environment
from support.require import require
from support.waiting import wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

RUN = ("pool", "--quick", "--repeat", "3", "--option", "rounds=1", "--save")


def bench(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a directory."""
    return subprocess.run(
        [sys.executable, "-m", "antquic_server", "bench", *arguments],
        cwd=directory,
        env=node_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_two_runs_are_saved_compared_and_drawn(tmp_path: Path) -> None:
    """What docs/benchmarks.md tells operators to do before and after a change."""
    for name in ("old", "new"):
        done = bench(tmp_path, *RUN, f"{name}.json", "--chart", f"{name}.svg")
        assert done.returncode == 0, done.stderr
        assert "spread: dialling" in done.stdout
        assert "bench: [3/3] pool" in done.stderr
        assert "</svg>" in (tmp_path / f"{name}.svg").read_text()

    compared = bench(tmp_path, "compare", "old.json", "new.json", "--chart", "change.svg")

    assert compared.returncode == 0, compared.stderr
    assert "hit rate %" in compared.stdout
    assert "no difference that shows" in compared.stdout
    assert "old: old.json" in (tmp_path / "change.svg").read_text()


def test_a_figure_that_became_worse_fails_a_script(tmp_path: Path) -> None:
    """A run against itself with every CPU time tripled: exit code 1; the other way round 0."""
    assert bench(tmp_path, *RUN, "old.json").returncode == 0
    slower = json.loads((tmp_path / "old.json").read_text())
    for repetition in slower["benchmarks"]["pool"]["repetitions"]:
        for figure in repetition["figures"]:
            if figure["unit"] == "us":
                # Further than any of the three runs lies from another, however busy the machine.
                figure["value"] = figure["value"] * 3 + 1e6
    (tmp_path / "slow.json").write_text(json.dumps(slower))

    worse = bench(tmp_path, "compare", "old.json", "slow.json", "--fail-on-worse", "10")
    better = bench(tmp_path, "compare", "slow.json", "old.json", "--fail-on-worse", "10")

    assert (worse.returncode, better.returncode) == (1, 0)
    assert "worse" in worse.stdout
    assert "better" in better.stdout
    assert worse.stderr == better.stderr == ""


def test_terminated_run_saves_what_it_has_and_ends_its_servers(tmp_path: Path) -> None:
    """SIGTERM does what Ctrl-C does: exit code 130, the finished benchmark in the file, no node left behind."""
    command = [sys.executable, "-m", "antquic_server", "bench", "pool", "reuse", "--quick", "--save", "run.json"]
    process = subprocess.Popen(
        [*command, "--option", "requests=100000"],
        cwd=tmp_path,
        env=node_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    servers: list[psutil.Process] = []

    def measuring() -> bool:
        servers[:] = psutil.Process(process.pid).children(recursive=True)
        with suppress(psutil.Error):
            # Other children look for libraries, and are gone at once.
            return any("workers" in each.cmdline() for each in servers)
        return False

    try:
        wait_until(measuring, timeout_s=60, what="node")
        process.terminate()
        assert process.wait(30) == 130
        _, alive = psutil.wait_procs(servers, timeout=30)
        assert alive == []
    finally:
        process.kill()
        process.wait()
    saved = json.loads((tmp_path / "run.json").read_text())
    assert saved["complete"] is False
    assert [len(item["repetitions"]) for item in saved["benchmarks"].values()] == [1, 0]


def test_foreign_file_is_refused_in_one_line(tmp_path: Path) -> None:
    """Exit code 2 and what was expected, without a traceback."""
    (tmp_path / "other.json").write_text('{"format": "something else"}')

    done = bench(tmp_path, "compare", "other.json", "other.json")

    assert done.returncode == 2
    assert done.stderr == ("antquic-server: error: other.json: expected a file that bench --save has written\n")


def test_servers_are_profiled_while_they_are_measured(tmp_path: Path, root: None) -> None:
    """``--profile`` leaves a flame graph of each, with functions of the worker's own loop."""
    require(find_py_spy() is not None, "needs py-spy")

    done = bench(tmp_path, "datagram", "--quick", "--option", "connections=1", "--profile", "flames")

    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "flames").iterdir())
    assert names == ["datagram-1-stock-asyncio.svg", "datagram-2-stock-uvloop.svg", "datagram-3-node.svg"]
    assert "flame graph: flames/datagram-3-node.svg" in done.stderr
    assert "workers/" in (tmp_path / "flames" / "datagram-3-node.svg").read_text()
