"""
The counters as a Prometheus page.

Counters become ``antquic_<name>_total``, gauges ``antquic_<name>``; a unit ``_s`` is spelled ``_seconds`` as
Prometheus asks. Every series has the label ``worker``: the slot number, or ``supervisor``.
"""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from antquic_server.stats.counters import METRICS, split_key

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Content type of the page."""

PREFIX = "antquic_"


def render(by_worker: Mapping[str, Mapping[str, float]]) -> bytes:
    """Return the page for snapshots by value of the label ``worker``; unknown series are left out."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(by_worker))
    return generate_latest(registry)


def metric_name(name: str) -> str:
    """Return the name on the page, without the ``_total`` that the page adds to counters."""
    return PREFIX + (name.removesuffix("_s") + "_seconds" if name.endswith("_s") else name)


class _SnapshotCollector(Collector):
    """Presents snapshots taken elsewhere; the library's own metric objects would count a second time."""

    def __init__(self, by_worker: Mapping[str, Mapping[str, float]]) -> None:
        self._by_worker = by_worker

    def collect(self) -> Iterable[Metric]:
        return self._families()

    def _families(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for worker, snapshot in self._by_worker.items():
            for key, value in snapshot.items():
                series = split_key(key)
                if series is None:
                    continue
                metric, labels = series
                if metric.name not in families:
                    families[metric.name] = _family(metric.name)
                families[metric.name].add_metric([worker, *labels], value)
        # In the order of declaration, so that two pages can be compared line by line.
        yield from (families[name] for name in METRICS if name in families)


def _family(name: str) -> CounterMetricFamily | GaugeMetricFamily:
    metric = METRICS[name]
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric_name(name), metric.help, labels=["worker", *metric.labels])
