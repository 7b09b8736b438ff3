"""``profile``: its command line, which worker it means, and what it prints; real ones are in tests/end_to_end."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antquic_server import cli
from antquic_server.commands.profile import worker_pid
from antquic_server.errors import ConfigurationError, ProfileError
from antquic_server.profiling import cpu, memory
from antquic_server.profiling.cpu import CpuProfile, ProfileFormat
from antquic_server.profiling.memory import MemoryProfile, MemoryResult
from support.http_answers import answering

STATUS: dict[str, Any] = {
    "node": {},
    "totals": {},
    "directory": {},
    "workers": [{"slot": 0, "pid": os.getpid()}, {"slot": 1, "pid": None}],
}
STACKS = [(["main (a.py:1)", "work (a.py:2)"], 75.0), (["main (a.py:1)"], 25.0), (["x" * 90 + " (b.py:1)"], 100.0)]


@pytest.fixture
def cpu_profiles(monkeypatch: pytest.MonkeyPatch) -> list[CpuProfile]:
    """What would be recorded, in place of recording it."""
    asked: list[CpuProfile] = []

    def record(profile: CpuProfile, waiting: Callable[[float], None]) -> object:
        asked.append(profile)
        waiting(0.5)
        return STACKS

    monkeypatch.setattr(cpu, "record_cpu", record)
    return asked


@pytest.fixture
def memory_profiles(monkeypatch: pytest.MonkeyPatch) -> list[MemoryProfile]:
    """The same for memory."""
    asked: list[MemoryProfile] = []

    def record(profile: MemoryProfile, waiting: Callable[[float], None], directory: Path) -> MemoryResult:
        asked.append(profile)
        assert directory.is_dir()
        waiting(0.5)
        return MemoryResult(stacks=STACKS, standstill_s=0.0804)

    monkeypatch.setattr(memory, "record_memory", record)
    return asked


def test_cpu_profile_of_a_slot(
    cpu_profiles: list[CpuProfile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker is found through the node; the heaviest functions stand in a table."""
    path = tmp_path / "worker.svg"
    with answering(json.dumps(STATUS).encode()) as url:
        assert cli.main(["profile", "cpu", "--output", str(path), "--admin", url]) == 0

    assert cpu_profiles == [CpuProfile(pid=os.getpid(), seconds=10, rate=100, output=path)]
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines() == [
        "200 samples of 10 s in which the worker was busy; heaviest functions:",
        "",
        "  SELF   TOTAL  FUNCTION",
        f" 50.0%   50.0%  {'x' * 75}…",
        " 37.5%   37.5%  work (a.py)",
        " 12.5%   50.0%  main (a.py)",
        "",
        f"written to {path}",
    ]


def test_options_of_cpu_reach_the_profiler(
    cpu_profiles: list[CpuProfile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --output the file is named after what it is, in this directory; native samples are exact."""
    monkeypatch.chdir(tmp_path)
    options = ["--pid", str(os.getpid()), "--seconds", "3", "--rate", "7", "--format", "speedscope", "--native"]
    assert cli.main(["profile", "cpu", *options]) == 0

    (asked,) = cpu_profiles
    assert (asked.seconds, asked.rate, asked.format) == (3, 7, ProfileFormat.SPEEDSCOPE)
    assert asked.exact
    assert asked.native
    assert asked.output.parent == tmp_path
    assert asked.output.name.startswith(f"antquic-cpu-{os.getpid()}-")
    assert asked.output.suffix == ".json"


@pytest.mark.parametrize(
    ("options", "what"), [([], "allocated at the peak"), (["--leaks", "--small-objects"], "allocated and not freed")]
)
def test_memory_profile(
    options: list[str],
    what: str,
    memory_profiles: list[MemoryProfile],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Bytes instead of samples, and for how long the worker was held."""
    path = tmp_path / "m.html"
    assert cli.main(["profile", "memory", "--pid", str(os.getpid()), "--output", str(path), *options]) == 0

    chosen = bool(options)
    assert memory_profiles == [
        MemoryProfile(pid=os.getpid(), seconds=10, output=path, leaks=chosen, small_objects=chosen)
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"200 B {what} within 10 s; heaviest functions:"
    assert lines[-2:] == ["the worker stood still for 80 ms when it began", f"written to {path}"]


NO_DIRECTORY = "expected a file in a directory that exists"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["disk"], "profile = 'disk': expected cpu or memory"),
        (["cpu", "--seconds", "0"], "--seconds = '0': expected a whole number from 1 to 600"),
        (["memory", "--seconds", "121"], "--seconds = '121': expected a whole number from 1 to 120"),
        (["cpu", "--seconds", "1.5"], "expected a whole number"),
        (["cpu", "--pid", "x"], "--pid = 'x': expected a whole number"),
        (["cpu", "--pid", "5", "--slot", "1"], "expected either --slot or --pid"),
        (["cpu", "--slot", "-1"], "--slot = '-1'"),
        (
            ["cpu", "--pid", str(os.getpid()), "--rate", "1001"],
            "--rate = '1001': expected a whole number from 1 to 1000",
        ),
        (["cpu", "--pid", str(os.getpid()), "--format", "png"], "expected flamegraph, speedscope or raw"),
        (["cpu", "--pid", str(os.getpid()), "--output", "/"], NO_DIRECTORY),
        (
            ["cpu", "--pid", str(os.getpid()), "--output", "/nowhere/x.svg"],
            "expected a file in a directory that exists",
        ),
        (["cpu", "--leaks"], "--leaks = 'cpu': expected this option with profile memory only"),
        (["memory", "--exact"], "--exact = 'memory': expected this option with profile cpu only"),
        (["memory", "--small-object"], "unknown option '--small-object' (did you mean --small-objects?)"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each names what was expected; nothing is profiled."""
    assert cli.main(["profile", *arguments]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.err.count("\n") == 1


def test_worker_is_found_by_its_slot() -> None:
    """Of those that the node has."""
    assert worker_pid(STATUS, 0) == os.getpid()
    with pytest.raises(ProfileError, match="slot 1 has no worker at present"):
        worker_pid(STATUS, 1)
    with pytest.raises(ConfigurationError, match=r"expected a slot of this node: 0, 1"):
        worker_pid(STATUS, 2)
    with pytest.raises(ConfigurationError, match=r"expected a slot of this node: none"):
        worker_pid({}, 0)
