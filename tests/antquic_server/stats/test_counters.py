"""Tests of the metric table and of a process's numbers."""

import pytest

from antquic_server.stats.counters import METRICS, CounterSet, series_key, split_key


def test_metrics_without_labels_start_at_zero() -> None:
    """A fresh set shows every metric without labels, so that a page has no gaps."""
    snapshot = CounterSet().snapshot()

    assert snapshot.keys() == {name for name, metric in METRICS.items() if not metric.labels}
    assert set(snapshot.values()) == {0}


def test_add_counts_per_label_value() -> None:
    """Each label value is a series of its own."""
    counters = CounterSet()
    counters.add("drops", 2, "malformed")
    counters.add("drops", 1, "malformed")
    counters.add("drops", 1, "unknown_connection")
    counters.add("bytes_received", 1200)

    snapshot = counters.snapshot()
    assert snapshot["drops|malformed"] == 3
    assert snapshot["drops|unknown_connection"] == 1
    assert snapshot["bytes_received"] == 1200


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("no_such_metric", ()),
        ("drops", ()),
        ("drops", ("a", "b")),
        ("retries", ("a",)),
        ("drops", ("a|b",)),
    ],
)
def test_misuse_is_a_key_error_at_once(name: str, labels: tuple[str, ...]) -> None:
    """An undeclared name or a wrong number of labels never becomes a series."""
    counters = CounterSet()
    before = counters.snapshot()

    with pytest.raises(KeyError):
        counters.add(name, 1, *labels)
    with pytest.raises(KeyError):
        counters.set(name, 1, *labels)
    with pytest.raises(KeyError):
        counters.declare(name, *labels)
    assert counters.snapshot() == before


def test_declared_key_can_be_incremented_directly() -> None:
    """A hot path writes the dictionary itself."""
    counters = CounterSet()
    key = counters.declare("handshakes", "ant_quic")
    counters.values[key] += 1
    counters.declare("handshakes", "ant_quic")

    assert counters.snapshot()["handshakes|ant_quic"] == 1


def test_gauges_can_be_set() -> None:
    """A gauge is replaced, not added to."""
    counters = CounterSet()
    counters.set("timers", 7)
    counters.set("timers", 4)

    assert counters.snapshot()["timers"] == 4


def test_snapshot_is_not_changed_by_later_counting() -> None:
    """What was sent to the supervisor stays what it was."""
    counters = CounterSet()
    snapshot = counters.snapshot()
    counters.add("retries")

    assert snapshot["retries"] == 0


def test_split_key_reverses_series_key() -> None:
    """Keys and their parts convert both ways."""
    assert split_key(series_key("drops", "malformed")) == (METRICS["drops"], ("malformed",))
    assert split_key(series_key("retries")) == (METRICS["retries"], ())


@pytest.mark.parametrize("key", ["future_metric", "drops", "drops|a|b", "retries|a", ""])
def test_split_key_knows_only_declared_series(key: str) -> None:
    """Series of another version are recognised as such."""
    assert split_key(key) is None


def test_metrics_are_described() -> None:
    """Every metric has a help text, and none a counter suffix of its own."""
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.help.endswith("."), name
        assert not name.endswith("_total"), name
