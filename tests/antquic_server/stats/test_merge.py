"""Tests of merging snapshots and of keeping the counts of the dead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.stats.counters import CounterSet
from antquic_server.stats.merge import RetiredTotals, merge


def test_sums_are_added_and_lag_is_the_largest() -> None:
    """Traffic of two workers adds up; their loop lags do not."""
    merged = merge(
        [
            {"bytes_sent": 10, "loop_lag_s": 0.5, "active_connections": 2},
            {"bytes_sent": 5, "loop_lag_s": 0.1, "active_connections": 3, "drops|not_quic": 1},
        ]
    )

    assert merged == {"bytes_sent": 15, "loop_lag_s": 0.5, "active_connections": 5, "drops|not_quic": 1}


def test_undeclared_series_are_left_out() -> None:
    """A worker of another version cannot invent metrics."""
    assert merge([{"future": 1, "retries": 2}]) == {"retries": 2}


def test_counters_of_the_dead_stay_and_gauges_go() -> None:
    """The successor's numbers come on top of its predecessor's."""
    retired = RetiredTotals()
    retired.retire(0, {"retries": 5, "active_connections": 9, "future": 1})

    assert retired.slot_total(0, {"retries": 1, "active_connections": 2}) == {
        "retries": 6,
        "active_connections": 2,
    }
    assert retired.slot_total(0, None) == {"retries": 5}
    assert retired.slot_total(1, {"retries": 3}) == {"retries": 3}
    assert retired.total({1: {"retries": 3}}) == {"retries": 8}


def test_histograms_of_workers_add_up_and_outlive_them() -> None:
    """Bucket by bucket: what the dead have observed stays, and the sum of all with it."""
    lives = []
    for delays_s in ((0.0002, 0.002, 3.0), (0.002,), (0.2,)):
        counters = CounterSet()
        for delay_s in delays_s:
            counters.histogram("loop_delay_s").observe(delay_s)
        lives.append(counters.snapshot())
    retired = RetiredTotals()
    retired.retire(0, lives[0])
    total = retired.total({0: lives[1], 1: lives[2]})

    buckets = {
        key.rpartition("|")[2]: value for key, value in total.items() if key.startswith("loop_delay_s|") and value
    }
    assert buckets.pop("sum") == pytest.approx(3.2042)
    assert buckets == {"0.0005": 1, "0.0025": 2, "0.25": 1, "+Inf": 1}


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 100), min_size=1), st.booleans()), max_size=20))
def test_totals_never_decrease(lives: list[tuple[int, list[int], bool]]) -> None:
    """Whatever the order of lives and deaths, a total only grows."""
    retired = RetiredTotals()
    living: dict[int, dict[str, float]] = {}
    last = 0.0
    for slot, steps, dies in lives:
        for step in steps:
            present = living.setdefault(slot, {"retries": 0.0})
            present["retries"] += step
            total = retired.total(living).get("retries", 0.0)
            assert total >= last
            last = total
        if dies:
            retired.retire(slot, living.pop(slot))
            assert retired.total(living)["retries"] == last
