"""What a benchmark is."""

from antquic_server.bench.benchmark import Benchmark, chosen_options
from antquic_server.bench.report import Report

FAKE = Benchmark(
    summary="fake",
    run=lambda options: Report(tables=[], notes=[]),
    options={"a": "10", "b": "20"},
    quick={"a": "1", "b": "2"},
)


def test_quick_replaces_defaults_and_gives_way_to_what_was_asked_for() -> None:
    """An option on the command line wins; one that the benchmark does not have is left to others."""
    assert chosen_options(FAKE, {}, quick=False) == {"a": "10", "b": "20"}
    assert chosen_options(FAKE, {}, quick=True) == {"a": "1", "b": "2"}
    assert chosen_options(FAKE, {"b": "5", "c": "7"}, quick=True) == {"a": "1", "b": "5"}


def test_a_benchmark_needs_no_more_than_a_summary_and_a_function() -> None:
    """Of one's own, for oneself."""
    benchmark = Benchmark(summary="fake", run=FAKE.run)

    assert (benchmark.options, benchmark.quick, benchmark.ratio, benchmark.about_s) == ({}, {}, "", 0)
    assert benchmark.needs == "nothing"
