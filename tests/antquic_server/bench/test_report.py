"""Tables and options of the benchmarks."""

import pytest

from antquic_server.bench.report import Progress, Report, Table, listed, machine, whole, whole_list
from antquic_server.errors import UsageError


def _table() -> Table:
    return Table(title="t", columns=("name", "n", "x"), rows=[("a", 12345, 1.234), ("bcd", 5, None)])


def test_table_aligns_text_left_and_numbers_right() -> None:
    """Columns line up, whole numbers are grouped, a missing figure is a dash."""
    lines = _table().as_text().splitlines()

    assert lines[0] == "t"
    assert lines[3:] == ["a     12,345  1.23", "bcd        5     -"]


def test_report_keeps_full_precision_for_programs() -> None:
    """JSON gets the figures unrounded, by column name."""
    plain = Report(tables=[_table()], notes=["why"]).as_plain()

    assert plain == {
        "tables": {"t": [{"name": "a", "n": 12345, "x": 1.234}, {"name": "bcd", "n": 5, "x": None}]},
        "notes": ["why"],
    }


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


def test_machine_names_what_figures_depend_on() -> None:
    """Processor, core count, kernel and interpreter are in every JSON result."""
    found = machine()

    assert set(found) == {"cpu", "cpus", "kernel", "python"}
    assert all(found.values())


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing disturbs a log file."""
    progress = Progress("t", 2)
    progress.step("one")
    progress.close()

    assert capsys.readouterr().err == ""
