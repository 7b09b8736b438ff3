"""What comes from outside can neither command a terminal nor pretend to be another line."""

from hypothesis import given
from hypothesis import strategies as st

from antquic_server.commands.one_line import one_line


@given(st.text(st.characters()))
def test_whatever_it_is_it_can_be_printed(text: str) -> None:
    """In one line, even if it is no Unicode; what is printable stays as it is."""
    shown = one_line(text)

    assert shown.isprintable()
    shown.encode()
    assert shown == text or not text.isprintable()


def test_commands_of_terminals_can_be_seen() -> None:
    """As their escapes."""
    assert one_line("a\x1b[2J\nb\udcff") == "a\\x1b[2J\\nb\\udcff"
