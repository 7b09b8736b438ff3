"""What a setting must be, and what is written where it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.tuning.rules import Rule, RuleError, RuleKind, parse_rule, port_text, ports_of, target


@pytest.mark.parametrize(
    ("rule", "found", "wanted", "written"),
    [
        ("at least", "212992", "26214400", "26214400"),
        ("at least", "26214400", "26214400", None),
        ("at least", "67108864", "26214400", None),
        ("at least", "10\t20\t30", "5 25 40", "10 25 40"),
        ("at least", "9223372036854775807", "1048576", None),
        ("at most", "60", "10", "10"),
        ("at most", "1", "10", None),
        ("exactly", "1\t2", "1 2", None),
        ("exactly", "1", "2", "2"),
        ("range 20 60", "10", "30", "30"),
        ("range 20 60", "20", "30", None),
        ("range 20 60", "60", "30", None),
        ("range 20 60", "61", "30", "30"),
        ("covers", "49152\t65535", "32768 49151", "32768 65535"),
        ("covers", "32768\t60999", "32768 49151", None),
        ("covers", "40000 45000", "32768 49151", "32768 49151"),
        ("includes", "", "10000,49152-65535", "10000,49152-65535"),
        ("includes", "8080,49152-49999", "10000,49152-65535", "8080,10000,49152-65535"),
        ("includes", "1-65535", "10000,49152-65535", None),
    ],
)
def test_what_is_written(rule: str, found: str, wanted: str, written: str | None) -> None:
    """The value that is needed, nothing where the one found will do, and never less than was there."""
    assert target(parse_rule(rule), found=found, wanted=wanted) == written


@pytest.mark.parametrize("text", ["atleast", "range", "range 1", "range 9 1", "range -1 2", ""])
def test_an_unknown_rule_is_refused(text: str) -> None:
    """With the list of those that there are."""
    with pytest.raises(RuleError, match="expected one of at least, at most"):
        parse_rule(text)


@pytest.mark.parametrize("text", ["at least", "at most", "exactly", "range 20 60", "covers", "includes"])
def test_a_rule_is_shown_as_it_is_written(text: str) -> None:
    """So that tables and files use the same words."""
    assert str(parse_rule(text)) == text


@pytest.mark.parametrize("found", ["", "many", "1 2", "0x10", "1.5"])
def test_a_value_of_another_form_is_refused(found: str) -> None:
    """A kernel that answers something else is not written to on a guess."""
    with pytest.raises(RuleError, match="expected"):
        target(Rule(kind=RuleKind.AT_LEAST), found=found, wanted="1")


@pytest.mark.parametrize("text", ["65536", "2-1", "a", "1--2", "-1", "1-2-3", "99999999"])
def test_what_is_no_list_of_ports_is_refused(text: str) -> None:
    """With the part that is wrong."""
    with pytest.raises(RuleError, match="expected a port or a range"):
        ports_of(f"80,{text}")


@given(st.frozensets(st.integers(0, 65535), max_size=50))
def test_ports_survive_being_written(ports: frozenset[int]) -> None:
    """Whatever the set, its text names the same ports."""
    assert ports_of(port_text(ports)) == ports


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=3))
def test_at_least_takes_nothing_away_and_is_settled_at_once(pairs: list[tuple[int, int]]) -> None:
    """The value written is nowhere below the one found or wanted, and is itself fine."""
    found, wanted = (" ".join(str(pair[side]) for pair in pairs) for side in (0, 1))
    rule = Rule(kind=RuleKind.AT_LEAST)
    written = target(rule, found=found, wanted=wanted) or found

    assert all(int(word) >= max(pair) for word, pair in zip(written.split(), pairs, strict=True))
    assert target(rule, found=written, wanted=wanted) is None
