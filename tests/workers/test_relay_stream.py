"""Tests of ``workers.relay_stream``: the table of a connection's streams."""

from typing import Any

from workers.relay_stream import RelayStream, Stage


def stream(stream_id: int, siblings: dict[int, RelayStream | None]) -> RelayStream:
    """One that has just begun."""
    connection: Any = object()
    made = siblings[stream_id] = RelayStream(connection, stream_id, siblings)
    return made


def test_stream_is_forgotten_once_nothing_more_can_come() -> None:
    """It has to be over on both sides: what still arrives must find it."""
    siblings: dict[int, RelayStream | None] = {}
    one = stream(0, siblings)
    one.stage = Stage.OVER
    one.forget_if_over()
    assert siblings == {0: one}
    one.ended, one.stage = True, Stage.WAITING
    one.forget_if_over()
    assert siblings == {0: one}
    one.stage = Stage.OVER
    one.forget_if_over()
    one.forget_if_over()
    assert siblings == {}


def test_stream_of_the_application_keeps_its_place_until_it_ends() -> None:
    """The table remembers whose it is, but not a stream that has ended with its first bytes."""
    siblings: dict[int, RelayStream | None] = {}
    stream(0, siblings).pass_on()
    assert siblings == {0: None}
    short = stream(4, siblings)
    short.ended = True
    short.pass_on()
    assert siblings == {0: None}


def test_only_siblings_that_wait_are_counted() -> None:
    """Neither the application's streams nor those with an answer."""
    siblings: dict[int, RelayStream | None] = {8: None}
    one, two, three = (stream(number, siblings) for number in (0, 4, 12))
    one.stage = two.stage = Stage.WAITING
    three.stage = Stage.OPEN
    assert three.waiting_siblings == 2
