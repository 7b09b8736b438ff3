"""Median and spread of repetitions."""

from antquic_server.bench.report import Cell, Column, Report, Table
from antquic_server.bench.spread import Spread, collect, combined, spread_table

US = Column(name="us", unit="us", better="lower")
COUNT = Column(name="count")


def report(*rows: tuple[Cell, ...], note: str = "n") -> Report:
    """Return a report of one table whose rows are name, us, count."""
    return Report(tables=[Table(title="t", columns=("name", US, COUNT), rows=list(rows), chart="us")], notes=[note])


def test_median_range_and_deviation() -> None:
    """By hand: deviations from 3 are 2, 1, 0, 1, 97, of which 1 is in the middle."""
    spread = Spread(column=US, values=[1.0, 2.0, 3.0, 4.0, 100.0])

    assert (spread.median, spread.least, spread.greatest, spread.deviation) == (3.0, 1.0, 100.0, 1.0)
    assert spread.relative_deviation == 100 / 3


def test_deviation_has_no_share_of_nothing() -> None:
    """A median of 0 is not divided by."""
    assert Spread(column=US, values=[0.0, 0.0, 1.0]).relative_deviation is None


def test_figures_are_collected_by_table_row_and_column() -> None:
    """In the order of their first appearance; a row that a repetition lacks is short of a value."""
    found = collect([report(("a", 1.0, 1)).figures(), report(("a", 2.0, 1), ("b", 9.0, 2)).figures()])

    assert {key: list(spread.values) for key, spread in found.items()} == {
        ("t", "a", "us"): [1.0, 2.0],
        ("t", "a", "count"): [1.0, 1.0],
        ("t", "b", "us"): [9.0],
        ("t", "b", "count"): [2.0],
    }
    assert [key for key, spread in found.items() if spread.drawn] == [("t", "a", "us"), ("t", "b", "us")]


def test_combined_report_shows_medians_in_the_same_tables() -> None:
    """Counts stay whole numbers, what is no figure stays as it is, notes appear once."""
    combination = combined([report(("a", 1.0, 4), note="x"), report(("a", 5.0, 6)), report(("a", 2.0, 6))])

    (table,) = combination.tables
    assert table.rows == [["a", 2.0, 6]]
    assert isinstance(table.rows[0][2], int)
    assert (table.title, table.chart) == ("t", "us")
    assert combination.notes == ["x", "n"]


def test_spread_table_has_what_differs() -> None:
    """One row for each figure that was not the same in every run, of this table only."""
    spreads = collect([report(("a", 1.0, 4)).figures(), report(("a", 3.0, 4)).figures()])

    assert spread_table("t", spreads).as_plain() == [
        {"row": "a", "figure": "us", "unit": "us", "runs": 2, "median": 2.0, "min": 1.0, "max": 3.0, "MAD": 1.0}
        | {"MAD %": 50.0}
    ]
    assert spread_table("another", spreads).rows == []
