"""Words for values: every form, and what is shown for a value of another kind."""

from collections.abc import Callable

import pytest

from antquic_server.commands import status_values as values


@pytest.mark.parametrize(
    ("form", "value", "shown"),
    [
        (values.text, "queue_full", "queue_full"),
        (values.text, 7, "7"),
        (values.text, "a\x1b[2J", "a\\x1b[2J"),
        (values.count, 1234567, "1,234,567"),
        (values.percent, 12.34, "12.3%"),
        (values.milliseconds, 0.0015, "1.5 ms"),
        (values.size, 999, "999 B"),
        (values.size, 1000, "1.0 kB"),
        (values.size, 2.5e15, "2500.0 TB"),
        (values.size_rate, 1_200_000, "1.2 MB/s"),
        (values.decimal_rate, 0, "0/s"),
        (values.decimal_rate, 0.25, "0.2/s"),
        (values.decimal_rate, 12345.6, "12,346/s"),
        (values.duration, 59.9, "59 s"),
        (values.duration, 3725, "1 h 2 min"),
        (values.duration, 90061, "1 d 1 h"),
    ],
)
def test_values_have_their_form(form: Callable[[object], str], value: object, shown: str) -> None:
    """Short, with a unit, and harmless to a terminal."""
    assert form(value) == shown


@pytest.mark.parametrize(
    "form",
    [
        values.count,
        values.percent,
        values.milliseconds,
        values.size,
        values.size_rate,
        values.decimal_rate,
        values.duration,
    ],
)
@pytest.mark.parametrize("value", [None, "many", True, [1], {}, float("nan"), float("inf")])
def test_what_is_no_number_is_unknown(form: Callable[[object], str], value: object) -> None:
    """A dash, never an error."""
    assert form(value) == values.UNKNOWN


def test_missing_text_is_unknown() -> None:
    """As a number is."""
    assert values.text(None) == values.UNKNOWN


def test_tables_are_found_where_there_are_any() -> None:
    """Anything else is empty."""
    assert values.table({"a": 1}) == {"a": 1}
    assert values.table([1]) == {}
    assert values.tables([{"a": 1}, 2, {}]) == [{"a": 1}, {}]
    assert values.tables({"a": 1}) == []
