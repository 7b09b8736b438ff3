"""Listing and running benchmarks by name."""

import json
from collections.abc import Mapping

import pytest

from antquic_server.bench import registry
from antquic_server.bench.report import Report
from antquic_server.errors import UsageError


def test_list_names_every_benchmark_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name nothing runs; names and options are shown."""
    assert registry.run([], False, {}) == 0

    shown = capsys.readouterr().out
    for name, benchmark in registry.BENCHMARKS.items():
        assert name in shown
        for key, value in benchmark.options.items():
            assert f"{key}={value}" in shown


def test_unknown_benchmark_is_a_usage_error() -> None:
    """The message names those there are."""
    with pytest.raises(UsageError, match="no benchmark 'nope'; there are datagram, handshake"):
        registry.run(["nope"], False, {})


def test_unknown_option_is_a_usage_error() -> None:
    """A mistyped option does not run with its default."""
    with pytest.raises(UsageError, match="no option 'round'"):
        registry.run(["handshake"], False, {"round": "1"})


def test_json_output_is_one_object_with_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets machine, tables and notes."""
    assert registry.run(["handshake"], True, {"rounds": "1", "live_s": "0"}) == 0

    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"machine", "handshake"}
    assert set(printed["handshake"]) == {"tables", "notes"}


def test_quick_is_less_of_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It replaces defaults, and gives way to what was asked for."""
    seen = []

    def run(options: Mapping[str, str]) -> Report:
        seen.append(dict(options))
        return Report(tables=[], notes=[])

    fake = registry.Benchmark(summary="", options={"a": "10", "b": "20"}, quick={"a": "1", "b": "2"}, run=run)
    monkeypatch.setitem(registry.BENCHMARKS, "fake", fake)

    registry.run(["fake"], False, {"b": "5"}, quick=True)
    registry.run(["fake"], False, {"b": "5"})

    assert seen == [{"a": "1", "b": "5"}, {"a": "10", "b": "5"}]


def test_every_benchmark_can_be_quick() -> None:
    """With options that it has."""
    for benchmark in registry.BENCHMARKS.values():
        assert benchmark.quick
        assert set(benchmark.quick) <= set(benchmark.options)
