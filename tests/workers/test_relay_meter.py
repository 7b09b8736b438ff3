"""Tests of ``workers.relay_meter``: rates and counters, on a clock of the test's own."""

import pytest

from antquic_server.protocol.limits import TokenBucket
from antquic_server.stats.counters import CounterSet
from workers.relay_meter import CHANNEL_SESSION_BIT, RelayMeter, SessionMeter


class Bench:
    """A meter, and the share that all its sessions have."""

    def __init__(self) -> None:
        self.counters = CounterSet()
        self.share = TokenBucket(1e12, 1e12)
        self.meter = RelayMeter(self.counters, self.share)

    def open(self, number: int, rate: float = 1000.0, burst: float = 100.0) -> SessionMeter:
        """Open a session."""
        return self.meter.open(number, rate_bytes_per_s=rate, burst_bytes=burst, start_bytes=burst, now_s=0.0)

    def counted(self, key: str) -> float:
        """Read a counter by its key."""
        return self.counters.values.get(key, 0)


@pytest.fixture
def bench() -> Bench:
    """Make a fresh one."""
    return Bench()


def test_long_run_rate_is_kept_whatever_the_size_of_trains(bench: Bench) -> None:
    """Trains longer than the burst pass too, and what they owe is paid before the next."""
    for size in (10, 99, 5000):
        session = bench.open(size, rate=1000.0, burst=100.0)
        passed = sum(size for tick in range(100_000) if not session.refuses(size, tick / 1000))
        assert passed == pytest.approx(100_000, abs=size + 100)


def test_session_and_worker_limits_have_their_own_words(bench: Bench) -> None:
    """The session's own comes first, and a train refused takes nothing from either."""
    bench.share.change(100.0, 150.0, 0.0)
    one, other = bench.open(1, burst=100.0), bench.open(2, burst=100.0)
    assert one.refuses(100, 0.0) == ""
    assert one.refuses(1, 0.0) == "session_rate"
    assert other.refuses(60, 0.0) == ""
    assert other.refuses(1, 0.0) == "node_rate"
    assert other.rate.take(0.0, 40)
    assert not other.rate.take(0.0, 1)
    assert other.refuses(1, 1.0) == ""


def test_rates_change_while_running(bench: Bench) -> None:
    """For one session; one that is gone is none of the meter's business."""
    session = bench.open(1, rate=1.0, burst=10.0)
    assert session.refuses(10, 0.0) == ""
    bench.meter.change_rate(1, 1000.0, 500.0, 0.0)
    bench.meter.change_rate(77, 1.0, 1.0, 0.0)
    assert session.refuses(400, 0.0) == "session_rate"
    assert session.refuses(400, 0.5) == ""
    assert session.refuses(1, 0.5) == ""


def test_what_has_passed_is_counted_once_and_owed_to_the_hub(bench: Bench) -> None:
    """However often it is collected; what the node's sockets have sent is among what they count."""
    one, idle, other = bench.open(1), bench.open(2), bench.open(CHANNEL_SESSION_BIT | 3)
    one.passed_bytes, one.passed_datagrams = 700, 7
    other.passed_bytes, other.passed_datagrams = 1, 1
    bench.meter.collect()
    one.passed_bytes, one.passed_datagrams = 5, 1
    assert bench.meter.sessions() == [(1, one), (2, idle), (CHANNEL_SESSION_BIT | 3, other)]
    assert [session.moved_bytes for session in (one, idle, other)] == [705, 0, 1]
    for key in ("relay_bytes|channel", "bytes_sent"):
        assert bench.counted(key) == 706
    for key in ("relay_datagrams|channel", "datagrams_sent"):
        assert bench.counted(key) == 9


def test_end_returns_what_was_not_reported(bench: Bench) -> None:
    """And is counted, once."""
    session = bench.open(1)
    assert (len(bench.meter), bench.counted("relay_sessions|channel")) == (1, 1)
    session.passed_bytes, session.passed_datagrams = 10, 1
    bench.meter.collect()
    session.moved_bytes = 0
    session.passed_bytes, session.passed_datagrams = 5, 1
    assert bench.meter.close(session, "closed") == 5
    assert bench.meter.close(session, "closed") == 0
    assert (len(bench.meter), bench.counted("relay_sessions|channel")) == (0, 0)
    assert bench.counted("relay_sessions_opened|channel") == 1
    assert bench.counted("relay_sessions_closed|channel|closed") == 1
    assert bench.counted("relay_bytes|channel") == 15
