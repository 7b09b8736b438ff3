"""Repetition: what passes, what is counted, and that no count is ever lost."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from antquic_server.log_repeats import Repeated, RepeatLimiter


class Clock:
    """Time as the test wants it."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return it."""
        return self.now_s


def limiter(clock: Clock, *, burst: int = 2, max_events: int = 8) -> RepeatLimiter:
    """Return one with windows of ten seconds."""
    return RepeatLimiter(burst=burst, window_s=10.0, clock=clock, max_events=max_events)


def test_burst_passes_and_the_rest_is_summed_up_once() -> None:
    """When the window is over, not before; the next occurrence opens another."""
    clock = Clock()
    it = limiter(clock)

    assert [it.admit("net", 30, "lost") for _ in range(5)] == [True, True, False, False, False]
    assert it.take_due() == []
    clock.now_s += 10
    assert it.take_due() == [Repeated(logger="net", level=30, event="lost", count=3, window_s=10.0)]
    assert it.take_due() == []
    assert it.admit("net", 30, "lost")
    assert len(it) == 1


def test_next_occurrence_ends_the_window_as_well() -> None:
    """Without anybody asking in between."""
    clock = Clock()
    it = limiter(clock, burst=1)
    assert [it.admit("net", 30, "lost") for _ in range(3)] == [True, False, False]
    clock.now_s += 11
    assert it.admit("net", 30, "lost")
    assert [each.count for each in it.take_due()] == [2]


def test_different_events_do_not_hold_each_other_back() -> None:
    """Logger, level and text tell them apart; errors are treated like everything else."""
    it = limiter(Clock(), burst=1)
    kinds = [("net", 30, "lost"), ("net", 30, "found"), ("net", 40, "lost"), ("ipc", 30, "lost")]

    assert [it.admit(*kind) for kind in kinds] == [True] * 4
    assert [it.admit(*kind) for kind in kinds] == [False] * 4


def test_place_tells_events_apart_where_the_text_holds_facts() -> None:
    """Ten texts from one line of a library are one event."""
    it = limiter(Clock(), burst=1)
    assert [it.admit("quic", 40, f"id {number}", place=("f.py", 7)) for number in range(3)] == [True, False, False]
    assert it.admit("quic", 40, "id 0", place=("f.py", 8))


def test_burst_of_zero_lets_everything_pass() -> None:
    """And keeps nothing."""
    it = limiter(Clock(), burst=0)
    assert all(it.admit("net", 30, "lost") for _ in range(100))
    assert len(it) == 0


def test_changed_limits_hold_at_once() -> None:
    """For the window that is open the burst, for the next one the length."""
    clock = Clock()
    it = limiter(clock, burst=1)
    assert [it.admit("net", 30, "lost") for _ in range(2)] == [True, False]
    it.change(burst=3, window_s=1.0)
    assert it.admit("net", 30, "lost")
    clock.now_s += 10
    assert it.admit("net", 30, "lost")
    clock.now_s += 1
    assert [each.count for each in it.take_due()] == [1]


def test_table_is_bounded_and_whoever_leaves_it_is_summed_up() -> None:
    """The event whose window began first makes room."""
    it = limiter(Clock(), burst=1, max_events=3)
    for _ in range(2):
        it.admit("net", 30, "first")
    for number in range(50):
        it.admit("net", 30, f"event {number}")
        assert len(it) <= 3
    assert it.take_due() == [Repeated(logger="net", level=30, event="first", count=1, window_s=10.0)]


def test_everything_is_handed_out_at_the_end() -> None:
    """Windows that are not over included: the process ends."""
    it = limiter(Clock(), burst=1)
    for _ in range(4):
        it.admit("net", 30, "lost")
    assert [each.count for each in it.take_due(everything=True)] == [3]


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 7)), max_size=200), st.integers(1, 4))
def test_no_line_is_lost(story: list[tuple[int, float]], burst: int) -> None:
    """Whatever comes when: each event was written or counted as often as it came, never more than a burst a window."""
    clock = Clock()
    it = limiter(clock, burst=burst, max_events=4)
    came: Counter[str] = Counter()
    told: Counter[str] = Counter()
    for number, wait_s in story:
        clock.now_s += wait_s
        event = f"event {number}"
        came[event] += 1
        told[event] += it.admit("net", 30, event)
        for each in it.take_due():
            told[each.event] += each.count
    for each in it.take_due(everything=True):
        told[each.event] += each.count
    assert told == came
