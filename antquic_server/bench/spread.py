"""What repetitions of one figure say together: median and spread."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from antquic_server.bench.report import Cell, Column, Figure, Report, Table

__all__ = ["FigureKey", "Spread", "collect", "combined", "spread_table"]

FigureKey = tuple[str, str, str]
"""Table, row and column: what makes a figure the same one in another repetition."""

_COLUMNS = ("runs", "median", "min", "max", "MAD", "MAD %")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The values of one figure, one for each repetition that had it; at least one."""

    column: Column
    values: Sequence[float]
    drawn: bool = False
    """Whether charts show it."""

    @property
    def median(self) -> float:
        """The middle one, or the mean of the two in the middle."""
        return float(statistics.median(self.values))

    @property
    def least(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def greatest(self) -> float:
        """The largest value."""
        return max(self.values)

    @property
    def deviation(self) -> float:
        """Median absolute deviation from the median: half of the values are closer to it than that."""
        return statistics.median(abs(value - self.median) for value in self.values)

    @property
    def relative_deviation(self) -> float | None:
        """The same as a share of the median, in per cent; None if that is 0."""
        return 100 * self.deviation / abs(self.median) if self.median else None


def key_of(figure: Figure) -> FigureKey:
    """Return what makes the figure the same one in another repetition."""
    return figure.table, figure.row, figure.column.name


def collect(repetitions: Sequence[Sequence[Figure]]) -> dict[FigureKey, Spread]:
    """Return the spread of every figure, in the order in which they come first."""
    values: dict[FigureKey, list[float]] = {}
    first: dict[FigureKey, Figure] = {}
    for figures in repetitions:
        for figure in figures:
            key = key_of(figure)
            values.setdefault(key, []).append(figure.value)
            first.setdefault(key, figure)
    return {
        key: Spread(column=first[key].column, values=found, drawn=first[key].drawn) for key, found in values.items()
    }


def combined(reports: Sequence[Report]) -> Report:
    """
    Return the tables of the first report with the medians of all in the place of its figures.

    Its notes and those of the others follow, each once.
    """
    spreads = collect([report.figures() for report in reports])
    tables = [
        Table(
            title=table.title,
            columns=table.columns,
            rows=[_with_medians(table, row, spreads) for row in table.rows],
            chart=table.chart,
        )
        for table in reports[0].tables
    ]
    notes = list(dict.fromkeys(note for report in reports for note in report.notes))
    return Report(tables=tables, notes=notes)


def spread_table(title: str, spreads: Mapping[FigureKey, Spread]) -> Table:
    """One row for every figure of the table called ``title`` that differs from run to run."""
    table = Table(
        title=f"spread: {title}",
        columns=("row", "figure", "unit", *(Column(name=name) for name in _COLUMNS)),
    )
    for (name, row, _), spread in spreads.items():
        if name == title and spread.least != spread.greatest:
            table.rows.append(
                (
                    *(row, spread.column.name, spread.column.unit, len(spread.values), spread.median),
                    *(spread.least, spread.greatest, spread.deviation, spread.relative_deviation),
                )
            )
    return table


def _with_medians(table: Table, row: Sequence[Cell], spreads: Mapping[FigureKey, Spread]) -> list[Cell]:
    label = table.label(row)
    cells: list[Cell] = []
    for column, cell in zip(table.columns, row, strict=True):
        spread = spreads.get((table.title, label, column.name)) if isinstance(column, Column) else None
        if spread is None:
            cells.append(cell)
        else:
            # A count is shown as the whole number that it is.
            whole = isinstance(cell, int) and spread.median.is_integer()
            cells.append(int(spread.median) if whole else spread.median)
    return cells
