"""Tables and options of the benchmarks."""

import io
import sys

import pytest

from antquic_server.bench.report import Column, Report, Table, bar, listed, whole, whole_list
from antquic_server.errors import UsageError


def _table() -> Table:
    return Table(title="t", columns=("name", "n", "x"), rows=[("a", 12345, 1.234), ("bcd", 5, None)])


def test_table_aligns_text_left_and_numbers_right() -> None:
    """Columns line up, whole numbers are grouped, a missing figure is a dash."""
    lines = _table().as_text().splitlines()

    assert lines[0] == "t"
    assert lines[3:] == ["a     12,345  1.23", "bcd        5     -"]


def test_table_keeps_full_precision_for_programs() -> None:
    """JSON gets the figures unrounded, by column name."""
    assert _table().as_plain() == [{"name": "a", "n": 12345, "x": 1.234}, {"name": "bcd", "n": 5, "x": None}]


def test_figures_are_the_numbers_under_columns() -> None:
    """A row is named by its other cells, numbers with their column; what is missing, text or infinite is none."""
    latency, ratio = Column(name="us", unit="us", better="lower"), Column(name="x stock", unit="x", better="higher")
    table = Table(
        title="t",
        columns=("server", "size", latency, ratio),
        rows=[("node", 1200, 7, 1.5), ("stock", 200, None, float("inf")), ("other", 200, "no", float("nan"))],
        chart="us",
    )

    first, second = Report(tables=[table], notes=[]).figures()

    assert (first.table, first.row, first.column, first.value) == ("t", "node, size 1,200", latency, 7.0)
    assert (second.column, second.value) == (ratio, 1.5)
    assert (first.drawn, second.drawn) == (True, False)
    assert (latency.ratio, ratio.ratio) == (False, True)


def test_charted_figure_has_bars_beside_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest has the longest; what is missing has none."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    monkeypatch.setenv("COLUMNS", "80")
    table = Table(title="t", columns=("name", Column(name="x")), rows=[("a", 2.0), ("b", 1.0), ("c", None)], chart="x")

    assert table.as_text().splitlines()[3:] == ["a     2.00  " + "█" * 20, "b     1.00  " + "█" * 10, "c        -"]


@pytest.mark.parametrize(("columns", "longest"), [(24, 11), (18, 5), (17, 0)])
def test_bars_keep_to_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, longest: int) -> None:
    """The table is 13 characters wide; where nothing sensible fits beside it there are none."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    monkeypatch.setenv("COLUMNS", str(columns))
    table = Table(title="t", columns=("name", Column(name="x")), rows=[("abcde", 2.0)], chart="x")

    assert table.as_text().splitlines()[3].count("█") == longest


@pytest.mark.parametrize(
    ("value", "longest", "drawn"),
    [(4, 4, "████"), (3.5, 4, "███▌"), (0.001, 4, "▌"), (0, 4, ""), (-1, 4, ""), (1, 0, ""), (float("nan"), 4, "")],
)
def test_bars_are_in_proportion(monkeypatch: pytest.MonkeyPatch, value: float, longest: float, drawn: str) -> None:
    """To half a character, never invisible unless there is nothing to see."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))

    assert bar(value, longest, 4) == drawn


def test_bars_are_plain_where_the_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else printing them would end in an error."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))

    assert bar(1, 2, 4) == "##"


def test_report_text_ends_with_its_notes() -> None:
    """A person reads the tables first and then how to read them."""
    assert Report(tables=[_table()], notes=["why", "how"]).as_text().endswith("\n\n- why\n- how\n")


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "0"])
def test_option_that_is_no_whole_number_is_a_usage_error(text: str) -> None:
    """The message names key, value and expectation."""
    with pytest.raises(UsageError, match=r"rounds = '.*': expected a whole number, 1 or more"):
        whole({"rounds": text}, "rounds", 1)


def test_option_is_read() -> None:
    """A whole number at the minimum is accepted."""
    assert whole({"rounds": "1"}, "rounds", 1) == 1


def test_lists_are_read_without_repetition() -> None:
    """In the order in which they were given."""
    assert whole_list({"sizes": "200,100,200"}, "sizes", 100) == (200, 100)
    assert listed({"modes": "b,a,b"}, "modes", ("a", "b", "c")) == ("b", "a")


@pytest.mark.parametrize("text", ["", "1,", "1,x", "0,1"])
def test_list_with_anything_but_whole_numbers_is_a_usage_error(text: str) -> None:
    """The message names key, value and expectation."""
    with pytest.raises(UsageError, match=r"sizes = '.*': expected whole numbers, 1 or more"):
        whole_list({"sizes": text}, "sizes", 1)


def test_list_with_an_unknown_word_is_a_usage_error() -> None:
    """The message names those there are."""
    with pytest.raises(UsageError, match="modes = 'a,x': expected some of a,b"):
        listed({"modes": "a,x"}, "modes", ("a", "b"))
