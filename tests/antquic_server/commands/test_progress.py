"""The progress bar."""

import io

import pytest

from antquic_server.commands.progress import ProgressBar, bar, human


class Terminal(io.StringIO):
    """A stream somebody looks at."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_nothing_is_drawn_where_nobody_looks() -> None:
    """A log file stays clean."""
    stream = io.StringIO()
    ProgressBar(stream).update("a", 1, 1)

    assert stream.getvalue() == ""


def test_the_end_is_always_drawn() -> None:
    """Steps in between at most ten times a second."""
    stream = Terminal()
    progress = ProgressBar(stream)
    for done in range(1, 1001):
        progress.update("a", done, 1000)

    assert stream.getvalue().count("\r") < 20
    assert "100%" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_a_transfer_that_stops_half_way_leaves_a_whole_line() -> None:
    """What is said next begins on its own; one that was complete, or that nobody sees, needs nothing."""
    for stream, done, expected in ((Terminal(), 5, "\n"), (Terminal(), 10, "\n"), (io.StringIO(), 5, "")):
        with ProgressBar(stream) as progress:
            progress.update("a", done, 10)

        assert stream.getvalue().endswith(expected)
        assert stream.getvalue().count("\n") == len(expected)


@pytest.mark.parametrize(
    ("done", "total", "elapsed_s", "expected"),
    [
        (0, 10, 0.0, f"a  [{'.' * 30}]   0%  0 B of 10 B  "),
        (5_000_000, 10_000_000, 2.0, f"a  [{'#' * 15}{'.' * 15}]  50%  5.0 MB of 10.0 MB  2.5 MB/s"),
        (0, 0, 1.0, f"a  [{'#' * 30}] 100%  0 B of 0 B  0 B/s"),
    ],
)
def test_a_bar_shows_share_bytes_and_rate(done: int, total: int, elapsed_s: float, expected: str) -> None:
    """An empty file is complete at once."""
    assert bar("a", done, total, elapsed_s) == expected


def test_sizes_have_units() -> None:
    """Up to terabytes and beyond."""
    assert [human(10**power) for power in (0, 3, 6, 9, 12, 15)] == [
        "1 B",
        "1.0 kB",
        "1.0 MB",
        "1.0 GB",
        "1.0 TB",
        "1000.0 TB",
    ]
