"""Tests of the metric table and of a process's numbers."""

import re

import pytest

from antquic_server.stats.counters import MAX_KEY_CHARACTERS, METRICS, CounterSet, series_key, split_key


def test_metrics_without_labels_start_at_zero() -> None:
    """A fresh set shows every metric of a worker without labels, so that a page has no gaps."""
    snapshot = CounterSet().snapshot()

    assert snapshot.keys() == {
        name
        for name, metric in METRICS.items()
        if not metric.labels and metric.kind != "histogram" and metric.by in ("worker", "both")
    }
    assert "retries" in snapshot
    assert "slots_ready" not in snapshot
    assert set(snapshot.values()) == {0}


def test_add_counts_per_label_value() -> None:
    """Each label value is a series of its own."""
    counters = CounterSet()
    counters.add("drops", 2, "header_malformed")
    counters.add("drops", 1, "header_malformed")
    counters.add("drops", 1, "not_quic")
    counters.add("bytes_received", 1200)

    snapshot = counters.snapshot()
    assert snapshot["drops|header_malformed"] == 3
    assert snapshot["drops|not_quic"] == 1
    assert snapshot["bytes_received"] == 1200


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("no_such_metric", ()),
        ("drops", ()),
        ("drops", ("a", "b")),
        ("retries", ("a",)),
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
    with pytest.raises(KeyError):
        counters.histogram(name, *labels)
    assert counters.snapshot() == before


@pytest.mark.parametrize("word", ["made up", "a|b", "", bytes(32).hex(), "192.0.2.1:9"])
def test_words_that_are_not_listed_share_one_series(word: str) -> None:
    """Whoever makes them up, and however many: they are counted, and name nothing."""
    counters = CounterSet()
    counters.add("drops", 2, word)
    counters.add("drops", 1, word + "1")

    assert [key for key in counters.snapshot() if key.startswith("drops")] == ["drops|other"]
    assert counters.snapshot()["drops|other"] == 3
    assert split_key(f"drops|{word}") is None


def test_histogram_counts_what_is_at_most_its_bound() -> None:
    """A value on a bound belongs below it, as Prometheus has it (``le``); one beyond all bounds still counts."""
    counters = CounterSet()
    histogram = counters.histogram("handshake_duration_s", "ant_quic")
    for value_s in (0.0, 0.001, 0.0011, 10.0, 10.1):
        histogram.observe(value_s)
    assert counters.histogram("handshake_duration_s", "ant_quic") is histogram

    found = {
        key.rpartition("|")[2]: value for key, value in counters.snapshot().items() if key.startswith("handshake_d")
    }
    bounds = METRICS["handshake_duration_s"].bounds
    assert set(found) == {*bounds, "sum"}
    assert {bound: found[bound] for bound in bounds if found[bound]} == {"0.001": 2, "0.0025": 1, "10.0": 1, "+Inf": 1}
    assert found["sum"] == pytest.approx(20.1021)


def test_keys_of_histograms_have_a_bound() -> None:
    """One that this version does not have is of another version."""
    metric = METRICS["loop_delay_s"]
    assert split_key("loop_delay_s|0.0025") == (metric, ("0.0025",))
    assert split_key("loop_delay_s|sum") == (metric, ("sum",))
    assert split_key("loop_delay_s|0.003") is None
    assert split_key("loop_delay_s") is None
    assert split_key("handshake_duration_s|0.001") is None
    assert split_key("handshake_duration_s|ant_quic|0.001") is not None


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
    assert split_key(series_key("drops", "not_quic")) == (METRICS["drops"], ("not_quic",))
    assert split_key(series_key("retries")) == (METRICS["retries"], ())


def test_every_key_is_short_enough() -> None:
    """For what may be split, and so be remembered."""
    longest = max(
        len(series_key(name, *(max(words, key=len) for words in metric.values))) for name, metric in METRICS.items()
    )
    assert longest + len("|0.0025") <= MAX_KEY_CHARACTERS
    assert split_key("drops|" + "x" * MAX_KEY_CHARACTERS) is None


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


def test_names_have_base_units() -> None:
    """Seconds and bytes, written out on the page; a histogram of something else would need its own unit here."""
    for name, metric in METRICS.items():
        assert not re.search(r"_(ms|us|minutes|hours|kb|mb|percent|bits)(_|$)", name), name
        assert metric.kind != "histogram" or name.endswith(("_s", "_bytes")), name
        assert list(metric.buckets) == sorted(set(metric.buckets)), name
