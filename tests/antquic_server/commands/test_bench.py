"""``bench``: what it hands to the benchmarks."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import antquic_server.bench
from antquic_server import cli
from antquic_server.bench import campaign, comparison


class _FakeModule(ModuleType):
    """Stands in for what would run benchmarks, which takes minutes."""

    Request = campaign.Request
    ComparisonRequest = comparison.ComparisonRequest

    def __init__(self, name: str) -> None:
        super().__init__(f"antquic_server.bench.{name}")
        self.requests: list[Any] = []

    def run(self, request: object) -> int:
        self.requests.append(request)
        return 7


@dataclass(frozen=True)
class _Fakes:
    campaign: _FakeModule
    comparison: _FakeModule


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> _Fakes:
    """Both modules that the command calls."""
    found = _Fakes(campaign=_FakeModule("campaign"), comparison=_FakeModule("comparison"))
    for name, module in (("campaign", found.campaign), ("comparison", found.comparison)):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(antquic_server.bench, name, module, raising=False)
    return found


def test_defaults_are_one_run_and_nothing_written(fakes: _Fakes) -> None:
    """Without a name it is for the campaign to list; the exit code comes back."""
    assert cli.main(["bench"]) == 7

    (request,) = fakes.campaign.requests
    assert request == campaign.Request(names=[], command=["antquic-server", "bench", "--repeat", "1"])


def test_names_and_options_reach_the_campaign(fakes: _Fakes) -> None:
    """Every option is passed on; the command for the saved file leaves out where results go."""
    line = ["bench", "a", "b", "--json", "--option", "seconds=2", "--option", "x=y=z", "--quick", "--repeat", "5"]
    line += ["--save", "s.json", "--chart", "c.svg", "--profile", "flames", "--load", "own.py"]

    assert cli.main(line) == 7

    (request,) = fakes.campaign.requests
    assert request == campaign.Request(
        names=["a", "b"],
        options={"seconds": "2", "x": "y=z"},
        quick=True,
        repeat=5,
        json_output=True,
        save=Path("s.json"),
        chart=Path("c.svg"),
        profile=Path("flames"),
        load=Path("own.py"),
        command=[
            *("antquic-server", "bench", "a", "b", "--repeat", "5", "--quick"),
            *("--option", "seconds=2", "--option", "x=y=z", "--load", "own.py"),
        ],
    )


def test_compare_reaches_the_comparison(fakes: _Fakes) -> None:
    """Two files and what is wanted of them."""
    line = ["bench", "compare", "old.json", "new.json", "--fail-on-worse", "2.5", "--ratios-only", "--json"]

    assert cli.main([*line, "--chart", "c.svg"]) == 7

    assert fakes.comparison.requests == [
        comparison.ComparisonRequest(
            old=Path("old.json"),
            new=Path("new.json"),
            fail_on_worse_percent=2.5,
            ratios_only=True,
            json_output=True,
            chart=Path("c.svg"),
        )
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("a --option fast", "--option = 'fast': expected KEY=VALUE"),
        ("a --repeat 0", "--repeat = '0': expected a whole number from 1 to 1000"),
        ("a --repeat 1.5", "--repeat = '1.5': expected a whole number from 1 to 1000"),
        ("a --repeat 1001", "--repeat = '1001': expected a whole number from 1 to 1000"),
        ("--quick", "--quick needs the name of a benchmark, or 'all'"),
        ("--option k=v", "--option needs the name of a benchmark, or 'all'"),
        ("--save s.json", "--save needs the name of a benchmark, or 'all'"),
        ("a --fail-on-worse 5", "--fail-on-worse goes with 'bench compare OLD NEW' only"),
        ("a --ratios-only", "--ratios-only goes with 'bench compare OLD NEW' only"),
        ("compare a.json", "1 files given, expected two: OLD.json NEW.json"),
        ("compare a.json b.json c.json", "3 files given, expected two: OLD.json NEW.json"),
        ("compare a.json b.json --quick", "--quick goes with running benchmarks only"),
        ("compare a.json b.json --option k=v", "--option goes with running benchmarks only"),
        ("compare a.json b.json --save s.json", "--save goes with running benchmarks only"),
        ("compare a.json b.json --fail-on-worse much", "--fail-on-worse = 'much': expected a number of per cent"),
        ("compare a.json b.json --fail-on-worse -1", "expected"),
        ("compare a.json b.json --fail-on-worse nan", "--fail-on-worse = 'nan': expected a number of per cent"),
    ],
)
def test_wrong_command_lines_are_one_line(
    fakes: _Fakes, line: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with what was expected, before anything runs."""
    assert cli.main(["bench", *line.split()]) == 2

    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert fakes.campaign.requests == fakes.comparison.requests == []
