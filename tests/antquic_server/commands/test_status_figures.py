"""Rates from two answers of a node, and what does not count as an older answer."""

from typing import Any

import pytest

from antquic_server.commands.status_figures import LOSSES, Answer, Figures, Loss
from antquic_server.stats.counters import METRICS


def document(*, uptime_s: float = 100.0, pid: int = 1, **facts: Any) -> dict[str, Any]:
    """An answer of a node with two workers that have done nothing."""
    workers: list[dict[str, Any]] = [{"slot": slot, "heartbeat_age_s": 0.1, "counters": {}} for slot in (0, 1)]
    return {"node": {"pid": pid, "peer_id": "ab", "uptime_s": uptime_s}, "workers": workers, "totals": {}, **facts}


def counted(uptime_s: float, slots: tuple[dict[str, float], dict[str, float]], **own: float) -> dict[str, Any]:
    """An answer with the counters of both workers, and those of the supervisor."""
    found = document(uptime_s=uptime_s)
    for worker, counters in zip(found["workers"], slots, strict=True):
        worker["counters"] = counters
    found["totals"] = {key: sum(each.get(key, 0) for each in slots) for each in slots for key in each} | own
    return found


def figures(before: dict[str, Any], now: dict[str, Any], *, elapsed_s: float = 2.0) -> Figures:
    """What two answers say."""
    return Figures(Answer(at_s=50.0 + elapsed_s, document=now), Answer(at_s=50.0, document=before))


def test_rate_is_growth_per_second() -> None:
    """Labels and workers added up, or each by itself."""
    before = counted(100, ({"handshakes|ant_quic": 10, "handshakes|x509": 1}, {"handshakes|ant_quic": 4}))
    now = counted(102, ({"handshakes|ant_quic": 30, "handshakes|x509": 1}, {"handshakes|ant_quic": 8}))
    found = figures(before, now)

    assert found.rate("handshakes") == pytest.approx(12.0)
    assert found.series_rate("handshakes|ant_quic") == pytest.approx(12.0)
    assert found.worker_rate(found.workers[1], "handshakes") == pytest.approx(2.0)
    assert found.total("handshakes") == 39


def test_time_between_heartbeats_counts_and_not_between_answers() -> None:
    """An answer may come just before the next heartbeat: the counters are older than the answer."""
    before, now = counted(100, ({"bytes_sent": 0}, {})), counted(102, ({"bytes_sent": 2250}, {}))
    before["workers"][0]["heartbeat_age_s"], now["workers"][0]["heartbeat_age_s"] = 0.25, 0.0

    assert figures(before, now).rate("bytes_sent") == pytest.approx(1000.0)


def test_worker_that_is_silent_between_two_answers_has_no_rate_of_its_own() -> None:
    """Nothing was heard of it: nothing moved, as far as anybody knows."""
    before, now = counted(100, ({"bytes_sent": 5}, {})), counted(102, ({"bytes_sent": 5}, {}))
    before["workers"][0]["heartbeat_age_s"], now["workers"][0]["heartbeat_age_s"] = 0.1, 2.1

    assert figures(before, now).rate("bytes_sent") == 0.0


def test_counters_of_the_supervisor_have_rates_too() -> None:
    """They are in the totals only."""
    before = counted(100, ({"drops|bad": 1}, {}), **{"introductions|direct": 4})
    now = counted(102, ({"drops|bad": 1}, {}), **{"introductions|direct": 10})

    assert figures(before, now).rate("introductions") == pytest.approx(3.0)


def test_series_that_has_just_appeared_began_at_zero() -> None:
    """A counter with labels is there from its first use on."""
    assert figures(counted(100, ({}, {})), counted(102, ({"retries": 8}, {}))).rate("retries") == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("before", "elapsed_s"),
    [
        (document(pid=2), 2.0),
        (document(uptime_s=500.0), 2.0),
        (document(), 0.0),
        ({"node": {}}, 2.0),
    ],
)
def test_answer_of_another_run_is_none(before: dict[str, Any], elapsed_s: float) -> None:
    """A node that was started anew counts from zero: a rate over that would be nonsense."""
    found = figures(before, counted(102, ({"retries": 8}, {})), elapsed_s=elapsed_s)

    assert not found.has_rates
    assert found.rate("retries") is None
    assert found.worker_rate(found.workers[0], "retries") is None


def test_counter_that_falls_has_no_negative_rate() -> None:
    """Whatever made it fall."""
    assert figures(counted(100, ({"retries": 9}, {})), counted(102, ({"retries": 1}, {}))).rate("retries") == 0.0


def test_losses_are_sorted_by_what_happens_now() -> None:
    """Then by what has happened; what has never happened is left out."""
    own = {"relay_refusals|channel|open_rate": 50.0, "directory_dropped": 0.0}
    before = counted(100, ({"drops|not_quic": 5, "drops|truncated": 3}, {}), **own)
    now = counted(102, ({"drops|not_quic": 5, "drops|truncated": 9}, {}), **own)

    assert figures(before, now).losses() == [
        Loss(what="datagrams dropped", reason="truncated", total=9, per_s=3.0),
        Loss(what="relay sessions refused", reason="channel open_rate", total=50, per_s=0.0),
        Loss(what="datagrams dropped", reason="not_quic", total=5, per_s=0.0),
    ]
    assert Figures(Answer(at_s=1.0, document=now)).losses()[0].per_s is None


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_a_counter_of_the_node(name: str) -> None:
    """Under the name that the node counts it by."""
    assert METRICS[name].kind == "counter"
