"""A progress bar on standard error, where somebody is looking."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

__all__ = ["ProgressBar"]

WIDTH = 30
REDRAW_S = 0.1
_UNITS = ("B", "kB", "MB", "GB", "TB")


class ProgressBar:
    """
    Draws nothing unless ``stream`` is a terminal.

    As a context manager it ends the line of a transfer that has stopped half-way, so that what is said next stands
    alone.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._visible = self._stream.isatty()
        self._started_s = time.monotonic()
        self._drawn_s = 0.0
        self._name: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._name is not None:
            self._stream.write("\n")
            self._stream.flush()

    def update(self, name: str, done: int, total: int) -> None:
        """Show how far a file has come; ten times a second at most, and always the end."""
        if not self._visible:
            return
        now_s = time.monotonic()
        if name != self._name:
            self._name, self._started_s = name, now_s
        if done < total and now_s - self._drawn_s < REDRAW_S:
            return
        self._drawn_s = now_s
        self._stream.write("\r" + bar(name, done, total, now_s - self._started_s) + "\x1b[K")
        if done >= total:
            self._stream.write("\n")
            self._name = None
        self._stream.flush()


def bar(name: str, done: int, total: int, elapsed_s: float) -> str:
    """Return one line: name, bar, share, bytes and rate."""
    share = done / total if total else 1.0
    filled = int(share * WIDTH)
    rate = f"{human(done / elapsed_s)}/s" if elapsed_s > 0 else ""
    return f"{name}  [{'#' * filled}{'.' * (WIDTH - filled)}] {share:4.0%}  {human(done)} of {human(total)}  {rate}"


def human(size_bytes: float) -> str:
    """Return a size with three digits and a unit."""
    for unit in _UNITS[:-1]:
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} {_UNITS[-1]}"
