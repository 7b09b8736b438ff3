"""Tests of the Prometheus page."""

from prometheus_client.parser import text_string_to_metric_families

from antquic_server.stats.counters import METRICS, CounterSet, series_key
from antquic_server.stats.prometheus import metric_name, render


def test_page_has_prefix_kind_and_worker_label() -> None:
    """Counters and gauges of two workers are told apart by their label."""
    page = render(
        {
            "0": {"retries": 3, "drops|malformed": 2, "loop_lag_s": 0.25},
            "1": {"retries": 4},
            "supervisor": {"slots_ready": 2},
        }
    ).decode()

    assert 'antquic_retries_total{worker="0"} 3.0' in page
    assert 'antquic_retries_total{worker="1"} 4.0' in page
    assert 'antquic_drops_total{reason="malformed",worker="0"} 2.0' in page
    assert 'antquic_loop_lag_seconds{worker="0"} 0.25' in page
    assert 'antquic_slots_ready{worker="supervisor"} 2.0' in page
    assert "# TYPE antquic_retries_total counter" in page
    assert "# TYPE antquic_loop_lag_seconds gauge" in page


def test_every_declared_metric_can_be_read_back() -> None:
    """A parser finds each metric with its help text, once."""
    counters = CounterSet()
    for name, metric in METRICS.items():
        counters.declare(name, *metric.labels)

    families = list(text_string_to_metric_families(render({"0": counters.snapshot()}).decode()))

    assert [family.name for family in families] == [metric_name(name) for name in METRICS]
    assert [family.documentation for family in families] == [metric.help for metric in METRICS.values()]


def test_undeclared_series_and_strange_labels_do_no_harm() -> None:
    """A series of another version is left out, a label with quotes is escaped."""
    page = render({"0": {"future": 1, series_key("drops", 'a"\n\\b'): 1}}).decode()

    assert "future" not in page
    (family,) = text_string_to_metric_families(page)
    assert family.samples[0].labels == {"reason": 'a"\n\\b', "worker": "0"}


def test_page_without_series_is_empty() -> None:
    """A node that has not heard of any worker yet has an empty page."""
    assert render({}) == b""
