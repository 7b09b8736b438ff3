"""Tests of the Prometheus page."""

from prometheus_client.parser import text_string_to_metric_families

from antquic_server.stats.counters import METRICS, CounterSet
from antquic_server.stats.prometheus import SUPERVISOR, family_name, metric_name, render


def test_page_has_prefix_kind_and_worker_label() -> None:
    """Counters and gauges of two workers are told apart by their label."""
    page = render(
        {
            "0": {"retries": 3, "drops|not_quic": 2, "loop_lag_s": 0.25},
            "1": {"retries": 4},
            "supervisor": {"slots_ready": 2},
        }
    ).decode()

    assert 'antquic_retries_total{worker="0"} 3.0' in page
    assert 'antquic_retries_total{worker="1"} 4.0' in page
    assert 'antquic_drops_total{reason="not_quic",worker="0"} 2.0' in page
    assert 'antquic_loop_lag_seconds{worker="0"} 0.25' in page
    assert 'antquic_slots_ready{worker="supervisor"} 2.0' in page
    assert "# TYPE antquic_retries_total counter" in page
    assert "# TYPE antquic_loop_lag_seconds gauge" in page


def everything(worker: str) -> dict[str, float]:
    """Return one series of each metric that a process of this kind counts."""
    others = "worker" if worker == SUPERVISOR else "supervisor"
    counters = CounterSet()
    for name, metric in METRICS.items():
        labels = [min(words) for words in metric.values]
        if metric.by != others and metric.kind == "histogram":
            counters.histogram(name, *labels).observe(0.003)
        elif metric.by != others:
            counters.declare(name, *labels)
    return counters.snapshot()


def test_every_declared_metric_can_be_read_back() -> None:
    """A parser finds each metric with its help text, once, and of its kind."""
    page = render({worker: everything(worker) for worker in (SUPERVISOR, "0")}).decode()
    families = list(text_string_to_metric_families(page))

    assert [family.name for family in families] == [metric_name(name) for name in METRICS]
    assert [family.documentation for family in families] == [metric.help for metric in METRICS.values()]
    assert [family.type for family in families] == [metric.kind for metric in METRICS.values()]


def test_histogram_is_cumulative_on_the_page() -> None:
    """Each bucket has what is below it; the last one has all, as has the count."""
    counters = CounterSet()
    for value_s in (0.002, 0.02, 0.02, 9.0):
        counters.histogram("loop_delay_s").observe(value_s)
    page = render({"0": counters.snapshot()}).decode()

    assert "# TYPE antquic_loop_delay_seconds histogram" in page
    assert 'antquic_loop_delay_seconds_bucket{le="0.001",worker="0"} 0.0' in page
    assert 'antquic_loop_delay_seconds_bucket{le="0.0025",worker="0"} 1.0' in page
    assert 'antquic_loop_delay_seconds_bucket{le="0.025",worker="0"} 3.0' in page
    assert 'antquic_loop_delay_seconds_bucket{le="+Inf",worker="0"} 4.0' in page
    assert 'antquic_loop_delay_seconds_count{worker="0"} 4.0' in page
    assert 'antquic_loop_delay_seconds_sum{worker="0"} 9.042' in page


def test_counters_with_few_series_are_there_before_they_count() -> None:
    """A rate over the first event needs a zero before it; refusals by mode and reason are too many for that."""
    page = render({"0": {}, SUPERVISOR: {}}).decode()

    assert 'antquic_handshakes_total{profile="ant_quic",worker="0"} 0.0' in page
    assert 'antquic_handshake_duration_seconds_count{profile="x509",worker="0"} 0.0' in page
    assert 'antquic_relay_canaries_total{mode="stream",result="failed",worker="0"} 0.0' in page
    assert 'antquic_worker_restarts_total{reason="frozen",worker="supervisor"} 0.0' in page
    assert 'result="failed",target_nat="dependent",worker="supervisor"} 0.0' in page
    assert 'antquic_relay_refusals_total{mode="stream",reason="no_free_port",worker="0"} 0.0' in page
    assert "antquic_handshake_failures_total{" not in page
    assert 'profile="other"' not in page
    assert "antquic_active_connections" not in page, "a gauge at zero would be a lie"
    per_worker = [line for line in page.splitlines() if 'worker="0"' in line]
    assert len(per_worker) < 500


def test_undeclared_series_and_unlisted_words_are_left_out() -> None:
    """A worker of another version, or one that has lost its mind, brings nothing to the page."""
    page = render({"0": {"future": 1, "drops|192.0.2.1": 1, "drops|not_quic": 1}}).decode()

    assert "future" not in page
    assert "192.0.2.1" not in page
    assert 'antquic_drops_total{reason="not_quic",worker="0"} 1.0' in page


def test_names_are_those_of_the_page() -> None:
    """Units are spelled out; counters end as Prometheus wants them to."""
    assert family_name("process_cpu_s") == "antquic_process_cpu_seconds_total"
    assert family_name("loop_delay_s") == "antquic_loop_delay_seconds"
    assert family_name("drops") == "antquic_drops_total"
    assert family_name("timers") == "antquic_timers"


def test_page_without_series_is_empty() -> None:
    """A node that has not heard of any worker yet has an empty page."""
    assert render({}) == b""
