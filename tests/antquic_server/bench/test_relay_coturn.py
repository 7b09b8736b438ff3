"""coturn under measurement; skipped where it is not installed."""

import asyncio
from pathlib import Path

import pytest

from antquic_server.bench.cpu_time import process_cpu_s
from antquic_server.bench.relay_contender import Load, running_load
from antquic_server.bench.relay_coturn import coturn_version, find_coturn, running_coturn
from antquic_server.bench.relay_load import LoadResult
from antquic_server.bench.relay_place import open_place
from antquic_server.errors import CannotBootError
from support.require import require

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def coturn() -> str:
    """The program."""
    program = find_coturn()
    require(program, "coturn (turnserver) is not installed")
    assert program is not None
    return program


def _relay(place_kind: str) -> None:
    async def scenario() -> LoadResult:
        async with running_load([contender], []) as process:
            return await process.measure(contender, Load(sessions=2, train=1, payload_bytes=200, seconds=0.05))

    with open_place(place_kind) as place, running_coturn(place, 2) as contender:
        result = asyncio.run(scenario())

        assert result.delivered > 0
        assert result.silent_sessions == 0
        assert 0 < result.cpu_s < process_cpu_s(contender.pid)


def test_two_allocations_relay(coturn: str) -> None:
    """Over loopback."""
    _relay("loopback")


def test_two_allocations_relay_across_namespaces(coturn: str, root: None) -> None:
    """As the benchmark runs it as root."""
    _relay("namespaces")


def test_version_is_read(coturn: str) -> None:
    """Figures name what they compare with."""
    assert coturn_version(coturn)[0].isdigit()


def test_without_coturn_there_is_no_yardstick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark goes on without."""
    monkeypatch.setattr("shutil.which", lambda _: None)

    with (
        open_place("loopback") as place,
        pytest.raises(CannotBootError, match="not installed"),
        running_coturn(place, 1),
    ):
        pass


def test_a_program_that_says_no_version_has_none(tmp_path: Path) -> None:
    """That is no reason to stop."""
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\n")
    silent.chmod(0o755)

    assert coturn_version(str(silent)) == ""
    assert coturn_version("/nonexistent") == ""
