"""``bench profiled``: what profiling costs, in one run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from antquic_server.bench import profiled
from antquic_server.bench.profiled import OPTIONS, QUICK
from antquic_server.errors import ProfilerUnavailableError
from antquic_server.profiling.cpu import CpuProfile
from antquic_server.profiling.memory import MemoryProfile

pytestmark = pytest.mark.end_to_end


def test_a_worker_left_alone_is_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every profiler has a row; one that is missing here has a note instead."""
    asked: list[CpuProfile] = []

    def pretend(profile: CpuProfile, waiting: Callable[[float], None]) -> list[object]:
        asked.append(profile)
        waiting(0.0)
        return []

    def missing(_profile: MemoryProfile, _waiting: Callable[[float], None], _directory: Path) -> object:
        raise ProfilerUnavailableError("there is no gdb")

    monkeypatch.setattr(profiled, "record_cpu", pretend)
    monkeypatch.setattr(profiled, "record_memory", missing)
    report = profiled.run({**OPTIONS, **QUICK, "rate": "50"})

    rows = report.tables[0].as_plain()
    assert [row["worker"] for row in rows] == ["left alone", "profile cpu, 50 Hz", "profile cpu --exact, 50 Hz"]
    assert rows[0]["x alone"] == rows[0]["x alone per CPU"] == 1.0
    assert all(isinstance(row["echoes/s"], float) and row["echoes/s"] > 0 for row in rows)
    assert [profile.exact for profile in asked] == [False, True]
    assert report.notes == ["profile memory left out: there is no gdb"]
