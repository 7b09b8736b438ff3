"""The window of a load: what is on its way, and what is given up."""

from antquic_server.bench.relay_window import Window


def test_room_is_what_is_not_on_its_way() -> None:
    """Sending takes room, arrivals give it back."""
    window = Window(10, 0.0)
    window.sent += 8

    assert (window.room, window.on_the_way) == (2, 8)
    window.delivered += 5
    assert (window.room, window.on_the_way) == (7, 3)


def test_what_is_overdue_makes_room_again() -> None:
    """Nothing is given up before its time, everything sent before that is afterwards."""
    window = Window(10, 0.0, lost_after_s=1.0)
    window.sent += 10
    window.tick(0.5)
    window.tick(1.0)
    window.tick(1.9)
    assert window.room == 0

    window.tick(2.0)
    assert window.room == 10


def test_a_loss_is_counted_once() -> None:
    """What follows a loss and arrives does not make the lost ones count again, or be forgotten."""
    window = Window(10, 0.0, lost_after_s=1.0)
    window.sent, window.delivered = 10, 4
    window.tick(1.0)
    window.tick(2.0)
    assert window.on_the_way == 0

    window.sent += 10
    assert window.room == 0
    window.delivered += 10
    window.tick(3.0)
    assert (window.room, window.sent - window.delivered) == (10, 6)
