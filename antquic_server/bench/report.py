"""Tables of figures, for people and for programs."""

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from antquic_server.errors import UsageError

__all__ = ["Cell", "Column", "Figure", "Report", "Table", "bar", "listed", "terminal_columns", "whole", "whole_list"]

Cell = str | float | int | None

Better = Literal["higher", "lower"]

BAR_CHARACTERS: Final = 20
"""Length of the longest bar beside a table."""

_MIN_BAR_CHARACTERS: Final = 5
_ENDLESS_COLUMNS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """
    A column whose cells are figures: numbers, or None where there is none.

    ``unit`` is what one of them is counted in, "x" for a ratio to another row of the same run. ``better`` says which
    way a change of it is good; None: neither, as for a size that was asked for.
    """

    name: str
    unit: str = ""
    better: Better | None = None

    @property
    def ratio(self) -> bool:
        """Whether it compares within one run, so that it can be compared between machines as well."""
        return self.unit == "x"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """
    One number of a table.

    ``row`` is what its label cells say, ``column`` what it is and which way is better; ``drawn``: charts show it.
    """

    table: str
    row: str
    column: Column
    value: float
    drawn: bool = False


@dataclass(slots=True, kw_only=True)
class Table:
    """
    Rows of cells under columns; numbers are shown with the fewest digits that mean something.

    A plain string names a column that says what a row is about, whatever its type; those of a row together must be
    unique in the table. A :class:`Column` has figures. ``chart`` is the name of the figure that is drawn: as bars
    beside the table, and by ``--chart``.
    """

    title: str
    columns: Sequence[str | Column]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    chart: str | None = None

    @property
    def names(self) -> list[str]:
        """Names of all columns."""
        return [column.name if isinstance(column, Column) else column for column in self.columns]

    def label(self, row: Sequence[Cell]) -> str:
        """Return what a row is about: its label cells, numbers with the name of their column."""
        cells = zip(self.columns, row, strict=True)
        return ", ".join(
            cell if isinstance(cell, str) else f"{column} {_text(cell)}"
            for column, cell in cells
            if isinstance(column, str)
        )

    def figures(self) -> list[Figure]:
        """Return every number under a :class:`Column`, row by row."""
        return [
            Figure(
                table=self.title,
                row=self.label(row),
                column=column,
                value=float(cell),
                drawn=column.name == self.chart,
            )
            for row in self.rows
            for column, cell in zip(self.columns, row, strict=True)
            if isinstance(column, Column) and isinstance(cell, int | float) and math.isfinite(cell)
        ]

    def as_text(self) -> str:
        """Return the table with aligned columns: text to the left, numbers to the right, bars at the end."""
        names = self.names
        cells = [[_text(cell) for cell in row] for row in self.rows]
        widths = [max(len(row[i]) for row in [names, *cells]) for i in range(len(names))]
        numeric = [any(isinstance(row[i], int | float) for row in self.rows) for i in range(len(names))]
        # Bars that a narrow terminal would break into the next line are shorter, or not there.
        bars = self._bars(min(BAR_CHARACTERS, terminal_columns() - sum(widths) - 2 * len(widths)))
        lines = [
            self.title,
            "  ".join(_pad(name, w, n) for name, w, n in zip(names, widths, numeric, strict=True)),
        ]
        lines.append("  ".join("-" * width for width in widths))
        lines += [
            "  ".join([*(_pad(c, w, n) for c, w, n in zip(row, widths, numeric, strict=True)), drawn])
            for row, drawn in zip(cells, bars, strict=True)
        ]
        return "\n".join(line.rstrip() for line in lines)

    def as_plain(self) -> list[dict[str, Cell]]:
        """Return one dictionary per row."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]

    def _bars(self, characters: int) -> list[str]:
        if self.chart is None or characters < _MIN_BAR_CHARACTERS:
            return [""] * len(self.rows)
        at = self.names.index(self.chart)
        values = [float(cell) if isinstance(cell := row[at], int | float) else 0.0 for row in self.rows]
        return [bar(value, max(values, default=0.0), characters) for value in values]


@dataclass(slots=True, kw_only=True)
class Report:
    """What one benchmark found: tables, and notes that say how to read them."""

    tables: list[Table]
    notes: list[str]

    def figures(self) -> list[Figure]:
        """Return the figures of every table."""
        return [figure for table in self.tables for figure in table.figures()]

    def as_text(self) -> str:
        """Return everything for a terminal."""
        parts = [table.as_text() for table in self.tables]
        parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"


def terminal_columns() -> int:
    """Return how wide the terminal is, as wide as anything where output goes elsewhere."""
    return shutil.get_terminal_size((_ENDLESS_COLUMNS, 24)).columns


def bar(value: float, longest: float, characters: int = BAR_CHARACTERS) -> str:
    """Return a bar that is to ``characters`` as ``value`` is to ``longest``, but half a character at least."""
    if not (math.isfinite(value) and math.isfinite(longest)) or value <= 0 or longest <= 0:
        return ""
    halves = max(1, round(2 * characters * min(1.0, value / longest)))
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        return "#" * max(1, halves // 2)
    return "█" * (halves // 2) + "▌" * (halves % 2)


def whole(options: Mapping[str, str], key: str, minimum: int) -> int:
    """Read a whole number from the options; UsageError says what was expected."""
    text = options[key]
    if not text.isdigit() or int(text) < minimum:
        raise UsageError(f"bench: {key} = {text!r}: expected a whole number, {minimum} or more")
    return int(text)


def whole_list(options: Mapping[str, str], key: str, minimum: int) -> tuple[int, ...]:
    """Read whole numbers separated by commas; UsageError says what was expected."""
    texts = options[key].split(",")
    if not all(text.isdigit() and int(text) >= minimum for text in texts):
        raise UsageError(f"bench: {key} = {options[key]!r}: expected whole numbers, {minimum} or more, as in 1,2")
    return tuple(dict.fromkeys(int(text) for text in texts))


def listed(options: Mapping[str, str], key: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read words separated by commas, each of them a known one; UsageError names those."""
    words = options[key].split(",")
    if not set(words) <= set(known):
        raise UsageError(f"bench: {key} = {options[key]!r}: expected some of {','.join(known)}")
    return tuple(dict.fromkeys(words))


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        if abs(cell) >= 1000:
            return f"{cell:,.0f}"
        return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
