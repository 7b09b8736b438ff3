"""
The counters as a Prometheus page.

Counters become ``antquic_<name>_total``, gauges and histograms ``antquic_<name>``; a unit ``_s`` is spelled
``_seconds`` as Prometheus asks. Every series has the label ``worker``: the slot number, or ``supervisor``.

A rate needs a series that is there before the first event. Counters and histograms are therefore shown at zero from the
start, as long as their labels have only few combinations; the others appear when they are first counted.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import product
from math import prod
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from antquic_server.stats.counters import INFINITY, METRICS, SUM, series_key, split_key
from antquic_server.stats.labels import OTHER

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
"""Content type of the page."""

PREFIX: Final = "antquic_"

SUPERVISOR: Final = "supervisor"
"""Value of the label ``worker`` for what the supervisor itself counts."""

MAX_ZEROS: Final = 55
"""Most combinations of label values of a metric that are shown at zero; every refusal of the relay by mode is one."""

Snapshot = Mapping[str, float]
"""Flat snapshot, keys as in ``counters``."""

_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def render(by_worker: Mapping[str, Snapshot]) -> bytes:
    """Return the page for snapshots by value of the label ``worker``; unknown series are left out."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(by_worker))
    return generate_latest(registry)


def metric_name(name: str) -> str:
    """Return the name on the page, without the ``_total`` that the page adds to counters."""
    return PREFIX + (name.removesuffix("_s") + "_seconds" if name.endswith("_s") else name)


def family_name(name: str) -> str:
    """Return the name by which people and expressions know a metric, with the ``_total`` of a counter."""
    return metric_name(name) + ("_total" if METRICS[name].kind == "counter" else "")


class _SnapshotCollector(Collector):
    """Presents snapshots taken elsewhere; the library's own metric objects would count a second time."""

    def __init__(self, by_worker: Mapping[str, Snapshot]) -> None:
        self._by_worker = by_worker

    def collect(self) -> Iterable[Metric]:
        return self._families()

    def _families(self) -> Iterator[Metric]:
        families: dict[str, _Family] = {}
        for worker, snapshot in self._by_worker.items():
            histograms: dict[tuple[str, tuple[str, ...]], dict[str, float]] = {}
            for key, value in {**_zeros(worker == SUPERVISOR), **snapshot}.items():
                series = split_key(key)
                if series is None:
                    continue
                metric, labels = series
                family = families.get(metric.name)
                if family is None:
                    family = families[metric.name] = _family(metric.name)
                if isinstance(family, HistogramMetricFamily):
                    histograms.setdefault((metric.name, labels[:-1]), {})[labels[-1]] = value
                else:
                    family.add_metric([worker, *labels], value)
            for (name, labels), parts in histograms.items():
                _add_histogram(families[name], [worker, *labels], METRICS[name].bounds, parts)
        # In the order of declaration, so that two pages can be compared line by line.
        yield from (families[name] for name in METRICS if name in families)


def _family(name: str) -> _Family:
    metric = METRICS[name]
    labels = ["worker", *metric.labels]
    if metric.kind == "histogram":
        return HistogramMetricFamily(metric_name(name), metric.help, labels=labels)
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric_name(name), metric.help, labels=labels)


def _add_histogram(family: _Family, labels: list[str], bounds: Iterable[str], parts: Mapping[str, float]) -> None:
    assert isinstance(family, HistogramMetricFamily), "made by _family"
    below = 0.0
    buckets = []
    for bound in bounds:
        below += parts.get(bound, 0)
        buckets.append((bound, below))
    family.add_metric(labels, buckets, parts.get(SUM, 0))


@cache
def _zeros(supervisor: bool) -> dict[str, float]:
    """What a process of a kind shows at zero before it has counted anything."""
    others = "worker" if supervisor else "supervisor"
    zeros: dict[str, float] = {}
    for name, metric in METRICS.items():
        known = [sorted(words - {OTHER}) for words in metric.values]
        if metric.kind == "gauge" or metric.by == others or prod(map(len, known)) > MAX_ZEROS:
            continue
        for labels in product(*known):
            key = series_key(name, *labels)
            zeros[f"{key}|{INFINITY}" if metric.kind == "histogram" else key] = 0
    return zeros
