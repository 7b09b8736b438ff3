"""The ring behind the charts: rates between heartbeats, whatever happens to the workers."""

from dataclasses import dataclass, field

import pytest

from antquic_server.ipc.messages import Heartbeat
from antquic_server.supervisor.history import COLUMNS, INTERVAL_S, KEPT_POINTS, History

STARTED_S = 1000.0


@dataclass
class Beating:
    """A worker as the history sees it."""

    pid: int = 1
    slot: int | None = 0
    heartbeat: Heartbeat | None = None
    last_heartbeat_s: float = STARTED_S
    counters: dict[str, float] = field(default_factory=dict)

    def beat(self, at_s: float, *, connections: int = 0, lag_s: float = 0.0, **counters: float) -> None:
        """Send a heartbeat; counter names have ``__`` for the separator."""
        self.counters |= {name.replace("__", "|"): value for name, value in counters.items()}
        self.last_heartbeat_s = STARTED_S + at_s
        self.heartbeat = Heartbeat(
            sequence=1, connections=connections, handshakes_in_flight=0, loop_lag_s=lag_s, counters=dict(self.counters)
        )


def column(history: History, name: str, *, after_s: float = -1.0) -> list[float]:
    """One list of the document."""
    values = history.document(after_s)[name]
    assert isinstance(values, list)
    return values


def test_document_of_a_node_that_has_just_started() -> None:
    """Every list is there, and empty."""
    document = History(started_s=STARTED_S).document(0.0)

    assert document == {"interval_s": 1.0, "kept_s": 300.0} | {name: [] for name in COLUMNS}


def test_rates_are_those_between_heartbeats() -> None:
    """Five heartbeats in one second and three in the next are no change of the rate."""
    history, worker = History(started_s=STARTED_S), Beating()
    for at_s, beat_at_s in ((1.0, 0.75), (2.0, 2.0), (3.0, 2.75), (4.0, 4.0)):
        worker.beat(beat_at_s, bytes_received=1000 * beat_at_s, bytes_sent=400 * beat_at_s)
        history.tick([worker], 0.0, STARTED_S + at_s)

    assert column(history, "t_s") == [1.0, 2.0, 3.0, 4.0]
    assert column(history, "received_bytes_per_s") == [1000.0] * 4
    assert column(history, "sent_bytes_per_s") == [400.0] * 4


def test_series_of_a_metric_go_together() -> None:
    """All profiles and reasons of handshakes and drops; relayed bytes by mode; what is not charted is left out."""
    history, worker = History(started_s=STARTED_S), Beating()
    worker.beat(
        1.0,
        connections=7,
        handshakes__ant_quic=5,
        handshakes__x509=3,
        handshake_failures__alert=2,
        relay_bytes__channel=100,
        relay_bytes__stream=50,
        drops__malformed=1,
        relay_drops__stream__rate=4,
        retries=99,
        tokens__good=98,
    )
    history.tick([worker], 0.0, STARTED_S + 1.0)

    assert {name: column(history, name)[0] for name in COLUMNS} == {
        "t_s": 1.0,
        "connections": 7,
        "received_bytes_per_s": 0.0,
        "sent_bytes_per_s": 0.0,
        "handshakes_per_s": 8.0,
        "handshake_failures_per_s": 2.0,
        "relayed_channel_bytes_per_s": 100.0,
        "relayed_stream_bytes_per_s": 50.0,
        "drops_per_s": 5.0,
        "loop_lag_s": 0.0,
    }


def test_workers_are_added_up() -> None:
    """Connections and rates are sums; spares and workers without a heartbeat count nothing."""
    history = History(started_s=STARTED_S)
    workers = [Beating(pid=1, slot=0), Beating(pid=2, slot=1), Beating(pid=3, slot=None), Beating(pid=4, slot=2)]
    for worker in workers[:3]:
        worker.beat(1.0, connections=3, bytes_sent=10)
    history.tick(workers, 0.0, STARTED_S + 1.0)

    assert column(history, "connections") == [6]
    assert column(history, "sent_bytes_per_s") == [20.0]


def test_successor_of_a_worker_begins_at_zero() -> None:
    """Its counters are smaller than those before; no rate is ever negative."""
    history, worker = History(started_s=STARTED_S), Beating(pid=1)
    worker.beat(1.0, bytes_sent=1_000_000)
    history.tick([worker], 0.0, STARTED_S + 1.0)
    successor = Beating(pid=2)
    successor.beat(2.0, bytes_sent=500)
    history.tick([successor], 0.0, STARTED_S + 2.0)
    history.tick([], 0.0, STARTED_S + 3.0)
    successor.beat(4.0, bytes_sent=700)
    history.tick([successor], 0.0, STARTED_S + 4.0)

    assert column(history, "sent_bytes_per_s")[1] == 500.0
    assert min(column(history, "sent_bytes_per_s")) == 0.0


def test_silent_worker_has_no_rate_until_it_speaks_again() -> None:
    """Then what it did is spread over the silence, and does not look like a burst."""
    history, worker = History(started_s=STARTED_S), Beating()
    worker.beat(1.0, bytes_sent=100)
    history.tick([worker], 0.0, STARTED_S + 1.0)
    history.tick([worker], 0.0, STARTED_S + 2.0)
    worker.beat(3.0, bytes_sent=300)
    history.tick([worker], 0.0, STARTED_S + 3.0)

    assert column(history, "sent_bytes_per_s") == [100.0, 0.0, 100.0]


def test_no_heartbeats_lag_is_missed() -> None:
    """Four heartbeats a second each tell of a quarter of it; the largest is kept, and only for its second."""
    history, worker = History(started_s=STARTED_S), Beating()
    history.tick([worker], 0.0, STARTED_S)
    for at_s, lag_s in ((0.25, 0.001), (0.5, 0.3), (0.75, 0.002), (1.0, 0.001)):
        worker.beat(at_s, lag_s=lag_s)
        history.tick([worker], 0.01, STARTED_S + at_s)
    history.tick([worker], 0.7, STARTED_S + 2.0)

    assert column(history, "loop_lag_s") == [0.0, 0.3, 0.7]


@pytest.mark.parametrize("tick_s", [0.25, 0.3])
def test_points_are_a_second_apart(tick_s: float) -> None:
    """Whatever the heartbeat interval; a late tick does not move those after it for good."""
    history = History(started_s=STARTED_S)
    for number in range(int(60 / tick_s)):
        history.tick([], 0.0, STARTED_S + number * tick_s)

    assert len(column(history, "t_s")) == pytest.approx(60 / INTERVAL_S, abs=1)


def test_stalled_supervisor_leaves_a_gap() -> None:
    """Seconds in which nothing was seen are not made up afterwards."""
    history = History(started_s=STARTED_S)
    for at_s in (0.0, 1.0, 31.0, 31.25, 31.75, 32.0):
        history.tick([], 0.0, STARTED_S + at_s)

    assert column(history, "t_s") == [0.0, 1.0, 31.0, 31.75]


def test_ring_is_bounded_and_can_be_asked_for_its_end() -> None:
    """The oldest seconds are forgotten; whoever has the others asks for what is new."""
    history = History(started_s=STARTED_S)
    for number in range(3 * KEPT_POINTS):
        history.tick([], 0.0, STARTED_S + number)

    times = column(history, "t_s")
    assert (len(times), times[0], times[-1]) == (KEPT_POINTS, 2 * KEPT_POINTS, 3 * KEPT_POINTS - 1)
    assert column(history, "connections", after_s=times[-3]) == [0, 0]
    assert column(history, "t_s", after_s=times[-1]) == []


def test_long_heartbeat_interval_is_said() -> None:
    """So that whoever draws knows a gap from the ordinary distance."""
    document = History(started_s=STARTED_S).document(0.0, interval_s=10.0)

    assert (document["interval_s"], document["kept_s"]) == (10.0, 3000.0)
