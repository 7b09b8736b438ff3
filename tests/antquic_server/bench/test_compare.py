"""Whether a change shows."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from antquic_server.bench.compare import Change, Verdict, changes, comparison_tables, differences, worse_than
from antquic_server.bench.report import Better, Column, Figure
from antquic_server.bench.saved import SavedRun
from antquic_server.bench.spread import Spread
from antquic_server.errors import UsageError


def change(old: Sequence[float], new: Sequence[float], better: Better | None = "lower") -> Change:
    """Return the change of one figure."""
    column = Column(name="us", unit="us", better=better)
    return Change(
        benchmark="b", table="t", row="r", old=Spread(column=column, values=old), new=Spread(column=column, values=new)
    )


def run(name: str, **figures: Sequence[float]) -> SavedRun:
    """Return a run whose benchmark ``b`` has these figures, one value for each repetition; ``x…`` is a ratio."""
    repetitions = max(map(len, figures.values()))
    return SavedRun(
        path=Path(name),
        created="now",
        machine={"cpu": "z80"},
        versions={"aioquic": "1"},
        load_average={},
        options={"b": {"rounds": "3"}},
        figures={
            "b": [
                [
                    Figure(
                        table="t",
                        row="r",
                        column=Column(name=key, unit="x" if key.startswith("x") else "us", better="lower"),
                        value=values[at],
                    )
                    for key, values in figures.items()
                ]
                for at in range(repetitions)
            ]
        },
    )


@pytest.mark.parametrize(
    ("old", "new", "better", "verdict"),
    [
        ([1, 2, 3], [4, 5, 6], "lower", Verdict.WORSE),
        ([1, 2, 3], [4, 5, 6], "higher", Verdict.BETTER),
        ([4, 5, 6], [1, 2, 3], "lower", Verdict.BETTER),
        ([4, 5, 6], [1, 2, 3], "higher", Verdict.WORSE),
        ([1, 2, 3], [4, 5, 6], None, Verdict.DIFFERENT),
        ([1, 2, 3], [3, 4, 5], "lower", Verdict.NONE),
        ([1, 2, 9], [4, 5, 6], "lower", Verdict.NONE),
        ([1, 2], [4, 5, 6], "lower", Verdict.UNKNOWN),
        ([1], [4], "lower", Verdict.UNKNOWN),
        ([7], [7], "lower", Verdict.NONE),
        ([7, 7, 7], [7, 7, 7], "lower", Verdict.NONE),
        ([7, 7, 7], [8, 8, 8], "lower", Verdict.WORSE),
    ],
)
def test_a_change_shows_if_the_ranges_do_not_overlap(
    old: Sequence[float], new: Sequence[float], better: Better | None, verdict: Verdict
) -> None:
    """Touching is overlapping; with fewer than three values only equality says something."""
    assert change(old, new, better).verdict is verdict


@pytest.mark.parametrize(
    ("old", "new", "percent"), [([2], [3], 50.0), ([-2], [-3], -50.0), ([0], [0], 0.0), ([0], [1], None)]
)
def test_change_in_per_cent_of_the_old_median(
    old: Sequence[float], new: Sequence[float], percent: float | None
) -> None:
    """Upwards is positive whatever the sign; nothing is a share of nothing."""
    assert change(old, new).percent == percent


def test_tables_name_figure_change_and_verdict() -> None:
    """One table for each table of a benchmark, one row for each figure in both."""
    (table,) = comparison_tables(changes(run("old", us=[1, 1, 1], only=[1, 1, 1]), run("new", us=[2, 2, 2])))

    assert table.title == "b: t"
    (row,) = table.as_plain()
    assert row == {
        "row": "r",
        "figure": "us",
        "unit": "us",
        "old": 1,
        "new": 2,
        "change": "+100.0 %",
        "verdict": "worse",
    }


def test_only_ratios_on_request() -> None:
    """Between machines nothing else means much."""
    old, new = run("old", us=[1, 1, 1], x=[1, 1, 1]), run("new", us=[2, 2, 2], x=[1, 1, 1])

    assert [item.new.column.name for item in changes(old, new)] == ["us", "x"]
    assert [item.new.column.name for item in changes(old, new, ratios_only=True)] == ["x"]


def test_nothing_in_common_is_a_usage_error() -> None:
    """Not an empty table that looks like no change."""
    with pytest.raises(UsageError, match="no figure is in both old and new"):
        changes(run("old", a=[1]), run("new", b=[1]))
    with pytest.raises(UsageError, match="no ratio is in both"):
        changes(run("old", a=[1]), run("new", a=[1]), ratios_only=True)


def test_differences_beside_the_figures_are_told() -> None:
    """Machine, versions, options, and what one run has alone."""
    old = run("old", us=[1], gone=[1])
    new = run("new", us=[1])
    other = SavedRun(
        path=new.path,
        created=new.created,
        machine={"cpu": "6502", "kernel": "9"},
        versions={},
        load_average={},
        options={"b": {"rounds": "5"}},
        figures=new.figures,
    )

    assert differences(old, old) == []
    assert differences(old, other) == [
        "machine: cpu was z80, is 6502",
        "machine: kernel was None, is 9",
        "versions: aioquic was 1, is None",
        "options of b: rounds=3 then, rounds=5 now",
        "1 figures are in old only",
    ]


def test_worse_by_more_than_allowed() -> None:
    """What shows and exceeds the limit, and what has come out of nothing."""
    slightly, much, from_nothing = (
        change([100, 100, 100], [104, 104, 104]),
        change([100, 100, 100], [120, 120, 120]),
        change([0, 0, 0], [1, 1, 1]),
    )
    better, noise = change([120, 120, 120], [100, 100, 100]), change([100, 150, 110], [140, 140, 145])

    found = worse_than([slightly, much, from_nothing, better, noise], 5)

    assert found == [much, from_nothing]


def test_too_few_runs_are_no_pass() -> None:
    """A script must not take ignorance for success."""
    with pytest.raises(UsageError, match="needs 3 runs or more in both files"):
        worse_than([change([1], [2])], 5)
