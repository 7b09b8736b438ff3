"""Tables of figures, for people and for programs."""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from antquic_server.errors import UsageError

__all__ = ["Progress", "Report", "Table", "listed", "machine", "whole", "whole_list"]

Cell = str | float | int | None


@dataclass(slots=True, kw_only=True)
class Table:
    """Rows of cells under column names; numbers are shown with the fewest digits that mean something."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)

    def as_text(self) -> str:
        """Return the table with aligned columns: text to the left, numbers to the right."""
        cells = [[_text(cell) for cell in row] for row in self.rows]
        widths = [max(len(row[i]) for row in [list(self.columns), *cells]) for i in range(len(self.columns))]
        numeric = [any(isinstance(row[i], int | float) for row in self.rows) for i in range(len(self.columns))]
        lines = [
            self.title,
            "  ".join(_pad(name, w, n) for name, w, n in zip(self.columns, widths, numeric, strict=True)),
        ]
        lines.append("  ".join("-" * width for width in widths))
        lines += ["  ".join(_pad(c, w, n) for c, w, n in zip(row, widths, numeric, strict=True)) for row in cells]
        return "\n".join(line.rstrip() for line in lines)

    def as_plain(self) -> list[dict[str, Cell]]:
        """Return one dictionary per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(slots=True, kw_only=True)
class Report:
    """What one benchmark found: tables, and notes that say how to read them."""

    tables: list[Table]
    notes: list[str]

    def as_text(self) -> str:
        """Return everything for a terminal."""
        parts = [table.as_text() for table in self.tables]
        parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def as_plain(self) -> dict[str, object]:
        """Return everything for JSON."""
        return {"tables": {table.title: table.as_plain() for table in self.tables}, "notes": self.notes}


class Progress:
    """A line on stderr that says what is going on, if somebody is watching."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._shown = sys.stderr.isatty()

    def step(self, what: str) -> None:
        """Show the next step."""
        self._done += 1
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{self._title} {self._done}/{self._total}: {what}")
            sys.stderr.flush()

    def close(self) -> None:
        """Remove the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def machine() -> dict[str, object]:
    """Describe where the figures come from."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor without a name
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


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
