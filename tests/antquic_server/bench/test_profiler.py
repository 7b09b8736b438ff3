"""Flame graphs of servers while they are measured."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from antquic_server.bench import profiler
from antquic_server.bench.node_process import running_stock_server
from antquic_server.bench.profiler import Profiler, find_py_spy, profiled, profiling
from support.require import require

FAKE = """#!{python}
import signal, sys, time
path = sys.argv[sys.argv.index("--output") + 1]
def finish(*_):
    {finish}
    sys.exit(0)
signal.signal(signal.SIGINT, finish)
open({started!r}, "w").close()
while True:
    time.sleep(0.05)
"""


def fake_py_spy(directory: Path, finish: str) -> str:
    """Write a program that behaves like py-spy until it is interrupted, and then does ``finish``."""
    program = directory / "py-spy"
    program.write_text(FAKE.format(python=sys.executable, finish=finish, started=str(directory / "started")))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def wait_for(path: Path) -> None:
    """Wait until the fake program has installed its handler."""
    subprocess.run(["sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.05; done', str(path)], check=True, timeout=30)


def test_nobody_is_profiled_unless_somebody_wants_it() -> None:
    """The usual case costs nothing and starts nothing."""
    with profiling(None), profiled(os.getpid(), "node"):
        pass


def test_file_is_named_after_benchmark_number_and_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """py-spy is interrupted when the server is no longer measured, and writes then."""
    program = fake_py_spy(tmp_path, "open(path, 'w').write('<svg/>')")
    monkeypatch.setattr(profiler, "find_py_spy", lambda: program)
    found = Profiler(tmp_path / "made" / "flames")
    found.benchmark = "datagram"

    with profiling(found), profiled(os.getpid(), "stock uvloop"):
        wait_for(tmp_path / "started")

    assert found.written == [tmp_path / "made" / "flames" / "datagram-1-stock-uvloop.svg"]
    assert found.failures == []


def test_reason_of_py_spy_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line; the measurement itself goes on."""
    program = fake_py_spy(tmp_path, "print('noise\\nError: Permission denied', file=sys.stderr)")
    monkeypatch.setattr(profiler, "find_py_spy", lambda: program)
    found = Profiler(tmp_path)

    with profiling(found), profiled(4242, "node"):
        wait_for(tmp_path / "started")

    assert found.written == []
    assert found.failures == ["no flame graph of node (pid 4242): Error: Permission denied"]


def test_py_spy_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And there is no flame graph, which is said."""
    program = fake_py_spy(tmp_path, "time.sleep(600)")
    monkeypatch.setattr(profiler, "find_py_spy", lambda: program)
    monkeypatch.setattr(profiler, "_STOP_TIMEOUT_S", 0.1)
    found = Profiler(tmp_path)

    with profiling(found), profiled(4242, "node"):
        wait_for(tmp_path / "started")

    assert found.failures == ["no flame graph of node (pid 4242): py-spy wrote nothing"]


@pytest.mark.end_to_end
def test_real_flame_graph_of_a_real_server(tmp_path: Path, root: None) -> None:
    """py-spy attaches to a server of ours and draws its functions."""
    require(find_py_spy() is not None, "needs py-spy")
    found = Profiler(tmp_path)

    with profiling(found), running_stock_server("asyncio") as server:
        # Samples are taken from the start; a few tenths of a second of CPU time show up whatever it does.
        subprocess.run(["sh", "-c", f"kill -CONT {server.pid}; sleep 1"], check=True, timeout=30)

    assert [path.name for path in found.written] == ["bench-1-stock-asyncio.svg"], found.failures
    assert "stock_server.py" in found.written[0].read_text()
