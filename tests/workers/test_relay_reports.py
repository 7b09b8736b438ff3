"""Tests of ``workers.relay_reports``: what the hub is told, and what is kept until it can be."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import RelayReleased, RelayUsage
from workers.relay_reports import USAGE_INTERVAL_S, RelayReports


@dataclass
class Session:
    """What is reported about."""

    moved_bytes: int = 0


@dataclass
class Hub:
    """A hub whose queue may be full, and a loop whose clock is turned by hand."""

    sessions: dict[int, Session] = field(default_factory=dict)
    full: bool = False
    told: list[Message] = field(default_factory=list)
    timers: list[Callable[[], None]] = field(default_factory=list)
    cancelled: int = 0

    def __post_init__(self) -> None:
        loop: Any = self
        self.reports = RelayReports(self.tell, self.sessions.items, loop)

    def tell(self, message: Message) -> bool:
        """Take a message, unless the queue is full."""
        if not self.full:
            self.told.append(message)
        return not self.full

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> "Hub":
        """What the loop does."""
        assert delay_s == USAGE_INTERVAL_S
        self.timers.append(callback)
        return self

    def cancel(self) -> None:
        """What a timer does."""
        self.cancelled += 1

    def second(self) -> None:
        """A second passes."""
        self.timers.pop()()


def test_only_what_has_moved_is_reported() -> None:
    """Once a second, as a difference; idle sessions cost nothing."""
    hub = Hub({1: Session(100), 2: Session(), 3: Session(7)})
    hub.reports.wake()
    hub.reports.wake()
    assert len(hub.timers) == 1
    hub.second()
    assert hub.told == [RelayUsage(sessions=[1, 3], moved_bytes=[100, 7])]
    hub.sessions[1].moved_bytes = 5
    hub.second()
    assert hub.told[1:] == [RelayUsage(sessions=[1], moved_bytes=[5])]
    hub.second()
    assert len(hub.told) == 2


def test_timer_stops_with_the_last_session() -> None:
    """A worker that relays nothing is not woken."""
    hub = Hub({1: Session()})
    hub.reports.wake()
    hub.second()
    assert hub.timers
    hub.sessions.clear()
    hub.second()
    assert not hub.timers
    hub.reports.stop()
    assert not hub.cancelled


def test_what_the_hub_cannot_take_is_kept() -> None:
    """In order, however long it takes; bytes are added up meanwhile."""
    hub = Hub({1: Session(100)}, full=True)
    released = [RelayReleased(session=number, moved_bytes=0) for number in (8, 9)]
    hub.reports.tell(released[0])
    hub.second()
    assert hub.told == []
    hub.sessions[1].moved_bytes += 11
    hub.full = False
    hub.reports.tell(released[1])
    assert hub.told == []  # it does not overtake
    hub.second()
    assert hub.told == [*released, RelayUsage(sessions=[1], moved_bytes=[111])]
    hub.reports.tell(released[0])
    assert hub.told[3:] == [released[0]]


def test_usage_that_is_not_taken_is_told_next_time() -> None:
    """Nothing is forgotten."""
    hub = Hub({1: Session(100)})
    hub.reports.wake()
    hub.full = True
    hub.second()
    hub.full = False
    hub.sessions[1].moved_bytes += 1
    hub.second()
    assert hub.told == [RelayUsage(sessions=[1], moved_bytes=[101])]


def test_stopped_reports_are_not_made() -> None:
    """The timer is taken back."""
    hub = Hub({1: Session(1)})
    hub.reports.wake()
    hub.reports.stop()
    assert hub.cancelled == 1
