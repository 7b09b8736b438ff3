"""``bench``: what it hands to the benchmarks."""

import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import pytest

import antquic_server.bench
from antquic_server import cli


class _FakeRegistry(ModuleType):
    """Stands in for the benchmarks, which take minutes."""

    def __init__(self) -> None:
        super().__init__("antquic_server.bench.registry")
        self.calls: list[tuple[Any, ...]] = []

    def run(self, names: Sequence[str], json_output: bool, options: Mapping[str, str], *, quick: bool) -> int:
        self.calls.append((list(names), json_output, dict(options), quick))
        return 7


def test_names_and_options_reach_the_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, --json, --quick and options are passed on, and the exit code comes back."""
    registry = _FakeRegistry()
    monkeypatch.setitem(sys.modules, registry.__name__, registry)
    monkeypatch.setattr(antquic_server.bench, "registry", registry, raising=False)

    assert cli.main(["bench"]) == 7
    assert cli.main(["bench", "a", "b", "--json", "--option", "seconds=2", "--option", "x=y=z"]) == 7
    assert cli.main(["bench", "a", "--quick"]) == 7
    assert registry.calls == [
        ([], False, {}, False),
        (["a", "b"], True, {"seconds": "2", "x": "y=z"}, False),
        (["a"], False, {}, True),
    ]
