"""The benchmarks that come with the package."""

import pytest

from antquic_server.bench.benchmark import RESERVED_NAMES
from antquic_server.bench.registry import BENCHMARKS
from support.node import REPOSITORY

PAGE = (REPOSITORY / "docs" / "benchmarks.md").read_text()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_quick(name: str) -> None:
    """With options that it has."""
    benchmark = BENCHMARKS[name]

    assert benchmark.quick
    assert set(benchmark.quick) <= set(benchmark.options)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_listing_says_what_every_benchmark_is_about(name: str) -> None:
    """What it measures, against what, how long it takes either way, and what it needs."""
    benchmark = BENCHMARKS[name]

    assert benchmark.summary
    assert "/" in benchmark.ratio, "one thing to another"
    assert benchmark.about_s > benchmark.quick_s > 0
    assert benchmark.needs


def test_names_are_not_words_of_the_command_line() -> None:
    """``bench all`` and ``bench compare`` mean something else."""
    assert not set(BENCHMARKS) & set(RESERVED_NAMES)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_page_explains_every_benchmark_and_option(name: str) -> None:
    """In a section of its own, and in the table at the top."""
    assert f"[`{name}`](#bench-{name})" in PAGE
    section = PAGE.partition(f"\n## `bench {name}`\n")[2].partition("\n## ")[0]

    assert section
    for option in BENCHMARKS[name].options:
        assert f"`{option}`" in section, option
