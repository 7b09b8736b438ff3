"""
Two saved runs side by side: which figures have changed, and whether that shows.

A change shows if the values of both runs do not overlap: the worst of one is better than the best of the other. With
five repetitions each, chance alone does that to one figure in 126, with three to one in ten; with fewer nothing can be
said, unless both runs agree to the last digit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from antquic_server.bench.report import Column, Table
from antquic_server.bench.saved import SavedRun
from antquic_server.bench.spread import Spread, collect
from antquic_server.errors import UsageError

__all__ = ["MIN_REPETITIONS", "Change", "Verdict", "changes", "comparison_tables", "differences", "worse_than"]

MIN_REPETITIONS: Final = 3
"""Values that each run must have of a figure before a change of it can show."""


class Verdict(StrEnum):
    """What a change means."""

    BETTER = "better"
    WORSE = "worse"
    DIFFERENT = "different"
    """It shows, and neither way is better."""
    NONE = "no difference that shows"
    UNKNOWN = "too few runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One figure in both runs; ``benchmark``, ``table`` and ``row`` say where it stands."""

    benchmark: str
    table: str
    row: str
    old: Spread
    new: Spread

    @property
    def percent(self) -> float | None:
        """How much larger the new median is, in per cent of the old one; None if that is 0 and the new one is not."""
        old, new = self.old.median, self.new.median
        if old == new:
            return 0.0
        return 100 * (new - old) / abs(old) if old else None

    @property
    def verdict(self) -> Verdict:
        """What it means."""
        old, new = self.old, self.new
        if (old.least, old.greatest) == (new.least, new.greatest):
            return Verdict.NONE
        if min(len(old.values), len(new.values)) < MIN_REPETITIONS:
            return Verdict.UNKNOWN
        if old.least <= new.greatest and new.least <= old.greatest:
            return Verdict.NONE
        better = new.column.better
        if better is None:
            return Verdict.DIFFERENT
        return Verdict.BETTER if (new.median > old.median) == (better == "higher") else Verdict.WORSE


def changes(old: SavedRun, new: SavedRun, *, ratios_only: bool = False) -> list[Change]:
    """
    Return every figure that is in both runs, in the order of the old one.

    Raises:
        UsageError: There is none.
    """
    found = list(_changes(old, new, ratios_only))
    if not found:
        what = "ratio" if ratios_only else "figure"
        raise UsageError(f"bench compare: no {what} is in both {old.path} and {new.path}")
    return found


def comparison_tables(found: list[Change]) -> list[Table]:
    """Return a table for each table of the benchmarks: old and new median, change and verdict of every figure."""
    tables: dict[tuple[str, str], Table] = {}
    for change in found:
        table = tables.setdefault((change.benchmark, change.table), _empty(f"{change.benchmark}: {change.table}"))
        column = change.new.column
        percent = change.percent
        table.rows.append(
            (
                *(change.row, column.name, column.unit, change.old.median, change.new.median),
                "-" if percent is None else f"{percent:+.1f} %",
                change.verdict.value,
            )
        )
    return list(tables.values())


def differences(old: SavedRun, new: SavedRun) -> list[str]:
    """Return a sentence for everything beside the figures in which two runs differ, and for what is in one only."""
    notes = []
    for what, before, after in (("machine", old.machine, new.machine), ("versions", old.versions, new.versions)):
        notes += [
            f"{what}: {key} was {before.get(key)}, is {after.get(key)}"
            for key in dict.fromkeys([*before, *after])
            if before.get(key) != after.get(key)
        ]
    notes += [
        f"options of {name}: {_shown(old.options[name])} then, {_shown(new.options[name])} now"
        for name in old.options
        if name in new.options and old.options[name] != new.options[name]
    ]
    for here, there in ((old, new), (new, old)):
        alone = len(_spreads(here).keys() - _spreads(there).keys())
        if alone:
            notes.append(f"{alone} figures are in {here.path} only")
    return notes


def worse_than(found: list[Change], percent: float) -> list[Change]:
    """
    Return the figures that are worse by more than ``percent`` per cent, for a script to stop at.

    Raises:
        UsageError: For some figure there are too few runs to tell.
    """
    unknown = [change for change in found if change.verdict is Verdict.UNKNOWN]
    if unknown:
        raise UsageError(
            f"bench compare: --fail-on-worse needs {MIN_REPETITIONS} runs or more in both files (--repeat)"
        )
    return [
        change
        for change in found
        if change.verdict is Verdict.WORSE and (change.percent is None or abs(change.percent) > percent)
    ]


def _changes(old: SavedRun, new: SavedRun, ratios_only: bool) -> Iterator[Change]:
    before, after = _spreads(old), _spreads(new)
    for key, spread in before.items():
        if key in after and (spread.column.ratio or not ratios_only):
            benchmark, table, row, _ = key
            yield Change(benchmark=benchmark, table=table, row=row, old=spread, new=after[key])


def _spreads(run: SavedRun) -> dict[tuple[str, str, str, str], Spread]:
    return {
        (benchmark, *key): spread
        for benchmark, repetitions in run.figures.items()
        for key, spread in collect(repetitions).items()
    }


def _empty(title: str) -> Table:
    return Table(
        title=title,
        columns=("row", "figure", "unit", Column(name="old"), Column(name="new"), Column(name="change"), "verdict"),
    )


def _shown(options: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in options.items()) or "none"
