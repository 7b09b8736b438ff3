"""
What a process counts.

Every metric is declared once, in ``METRICS``: workers count with these names, the supervisor merges by them
and the Prometheus page takes its help texts from here. A process keeps its numbers in one flat dictionary
whose keys are ``name`` or ``name|label|label`` in the order of the declared labels. That form is cheap to
increment, travels between processes as it is, and needs no object per series.

A histogram has one more part in its keys: the upper bound of a bucket, ``+Inf``, or ``sum``. Each bucket counts what is
above the bound before it, so that an observation is one addition, and histograms merge by adding like counters.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from antquic_server.stats.labels import OTHER, VALUES, Words

SEPARATOR: Final = "|"

SUM: Final = "sum"
INFINITY: Final = "+Inf"
"""Last part of the keys of a histogram, beside the bounds of its buckets."""

MAX_KEY_CHARACTERS: Final = 160
"""The longest has 72."""

Counting = Literal["worker", "supervisor", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """
    One declared metric.

    A counter or histogram only grows and survives the process that counted it; a gauge describes a living process.
    ``merge`` says what one number for several processes is: their sum, or the largest of them. ``by`` says who counts,
    ``buckets`` are the upper bounds of a histogram, ``values`` what each label can be.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    merge: Literal["sum", "max"] = "sum"
    by: Counting = "worker"
    buckets: tuple[float, ...] = ()
    values: tuple[Words, ...] = ()

    @property
    def bounds(self) -> tuple[str, ...]:
        """The buckets of a histogram as they stand in keys and on the page, the last one without bound."""
        return (*map(str, self.buckets), INFINITY)


def _counter(name: str, help_text: str, *labels: str, by: Counting = "worker") -> Metric:
    return Metric(name=name, kind="counter", help=help_text, labels=labels, by=by, values=VALUES.get(name, ()))


def _gauge(
    name: str, help_text: str, *labels: str, merge: Literal["sum", "max"] = "sum", by: Counting = "worker"
) -> Metric:
    values = VALUES.get(name, ())
    return Metric(name=name, kind="gauge", help=help_text, labels=labels, merge=merge, by=by, values=values)


def _histogram(name: str, help_text: str, *labels: str, buckets: tuple[float, ...], by: Counting = "worker") -> Metric:
    return Metric(
        name=name,
        kind="histogram",
        help=help_text,
        labels=labels,
        by=by,
        buckets=buckets,
        values=VALUES.get(name, ()),
    )


_HANDSHAKE_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a peer in the same rack to one that has lost two flights."""
_LOOP_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""From an idle worker to one that is about to be replaced."""

_DECLARED: Final = (
    # The node.
    _gauge("build_info", "Always 1; the labels say what runs.", "version", "python", "pqc_provider", by="supervisor"),
    _gauge("slots", "Slots of the node, each to be served by a worker.", by="supervisor"),
    _gauge("slots_ready", "Slots served by a ready worker.", by="supervisor"),
    _gauge("spares_ready", "Spare workers waiting for a slot.", by="supervisor"),
    _gauge("draining", "1 while the node is ending, else 0.", by="supervisor"),
    _counter("worker_restarts", "Workers replaced.", "reason", by="supervisor"),
    # Connections and handshakes.
    _gauge("max_connections", "Most connections that the node accepts: endpoint.max_connections.", by="supervisor"),
    _gauge("active_connections", "Connections in the table, handshakes included."),
    _gauge("handshakes_in_flight", "Connections whose handshake is not confirmed yet."),
    _counter("handshakes", "Handshakes completed.", "profile"),
    _histogram(
        "handshake_duration_s",
        "Time from the first packet of a client that was let in to its completed handshake.",
        "profile",
        buckets=_HANDSHAKE_BUCKETS_S,
    ),
    _counter("handshake_failures", "Handshakes that ended before completion.", "reason"),
    _counter("connections_closed", "Connections that left the table.", "reason"),
    # Datagrams. Bytes are UDP payload; a call may move a whole train of datagrams.
    _counter("bytes_received", "UDP payload bytes received."),
    _counter("bytes_sent", "UDP payload bytes given to the kernel."),
    _counter("datagrams_received", "Datagrams received, trains split."),
    _counter("datagrams_sent", "Datagrams given to the kernel, trains split."),
    _counter("receive_calls", "System calls that received a datagram or a train."),
    _counter("send_calls", "System calls that sent a datagram or a train."),
    _counter("drops", "Datagrams dropped on purpose, in or out.", "reason"),
    _counter("misrouted_forwarded", "Datagrams of another slot passed on to it."),
    _counter("misrouted_received", "Datagrams of this slot that another slot received first."),
    # Address validation.
    _counter("retries", "Retry packets sent."),
    _counter("tokens", "Address validation tokens seen in Initial packets.", "result"),
    _counter("stateless_resets", "Stateless resets sent."),
    _counter("version_negotiations", "Version Negotiation packets sent."),
    # Path MTU discovery.
    _counter("mtu_probes_sent", "Probes of a larger datagram size, or of the smallest on a new path."),
    _counter("mtu_probes_lost", "Probes that did not arrive, those the kernel refused included."),
    _counter("mtu_black_holes", "Paths that stopped carrying the datagram size in use."),
    _gauge("path_mtu_sum_bytes", "Largest datagram of each connection, added up: mean times active_connections."),
    # Extensions.
    _counter("address_changes", "Peers whose address changed during a connection."),
    _counter("observed_addresses_sent", "OBSERVED_ADDRESS frames queued."),
    _counter("extension_frames_received", "Extension frames received.", "frame"),
    # Coordination.
    _gauge("directory_peers", "Peers in the directory.", by="supervisor"),
    _counter("directory_dropped", "Peers left out of the full directory.", by="supervisor"),
    _counter("coordinations", "Requests to be introduced to another peer, by how they ended.", "outcome"),
    _counter("introductions_received", "Peers that were told of another that wants to reach them."),
    _counter(
        "introductions_limited",
        "Sound requests that the hub refused, by the limit of the node.",
        "limit",
        by="supervisor",
    ),
    _counter(
        "introductions",
        "Pairs of peers given addresses: their own, or that of a relay session.",
        "path",
        by="supervisor",
    ),
    _counter(
        "hole_punches",
        "Hole punches whose outcome a peer has reported, by the NATs of both sides.",
        "result",
        "initiator_nat",
        "target_nat",
        by="supervisor",
    ),
    _counter(
        "hole_punches_unknown",
        "Hole punches of which no peer has reported the outcome, by whether one of the two held a relay session then.",
        "hint",
        by="supervisor",
    ),
    _counter(
        "hole_punch_retries",
        "Failed attempts to find a direct path for two peers that a relay channel connects.",
        by="supervisor",
    ),
    _counter("punch_reports", "Reports of peers about hole punches, by what became of them.", "outcome", by="both"),
    # Relay. Modes are "channel" and "stream"; reasons are protocol.relay_limits. Refusals are counted by whoever
    # refuses: the hub, or the worker for what it knows by itself.
    _gauge("relay_sessions", "Relay sessions that are there.", "mode"),
    _gauge("relay_max_sessions", "Most relay sessions of the node: relay.max_sessions.", by="supervisor"),
    _gauge("relay_quota_bytes", "Bytes that may be relayed in a quota period, 0 without limit.", by="supervisor"),
    _gauge("relay_quota_used_bytes", "Bytes relayed in the present quota period.", by="supervisor"),
    _counter("relay_sessions_opened", "Relay sessions opened.", "mode"),
    _counter("relay_sessions_closed", "Relay sessions that have ended.", "mode", "reason"),
    _counter("relay_refusals", "Relay sessions refused, by the limit or rule.", "mode", "reason", by="both"),
    _counter("relay_bytes", "Payload bytes delivered by relaying, both directions.", "mode"),
    _counter("relay_datagrams", "Datagrams delivered by relaying, both directions.", "mode"),
    _counter("relay_drops", "Datagrams not relayed.", "mode", "reason"),
    _counter("channel_messages", "Messages of peers about relay channels, and ours that did not get out.", "outcome"),
    _counter("relay_canaries", "Round trips of the relay's own test traffic.", "mode", "result"),
    _gauge("relay_canary_latency_s", "Duration of the last such round trip that came back.", "mode", merge="max"),
    _counter(
        "relay_misreports", "Words of workers about relaying that the hub could make nothing of.", by="supervisor"
    ),
    # Cryptography.
    _counter("pqc_pool_hits", "Operations served by a ready context of the memory pool."),
    _counter("pqc_pool_misses", "Operations that had to make a temporary context."),
    # Echo service.
    _counter("streams_echoed", "Bidirectional streams echoed to their end."),
    _counter("messages_echoed", "Unidirectional messages echoed."),
    _counter("datagrams_echoed", "DATAGRAM frames echoed."),
    # The processes.
    _gauge("loop_lag_s", "How late the event loop was with the last heartbeat.", merge="max", by="both"),
    _histogram(
        "loop_delay_s",
        "How late the event loop ran a timer, ten times a second.",
        buckets=_LOOP_BUCKETS_S,
        by="worker",
    ),
    _gauge("timers", "Deadlines waiting in the timer structure."),
    _counter("ipc_dropped", "Messages to workers dropped because their queue was full.", by="supervisor"),
    _counter("admin_refused", "Connections to the admin endpoint refused because it had too many.", by="supervisor"),
    _counter("process_cpu_s", "CPU time used, in user and kernel mode.", by="both"),
    _gauge("process_resident_bytes", "Resident memory; pages shared between workers count in each.", by="both"),
    _gauge("process_open_fds", "Open file descriptors.", by="both"),
    _gauge("process_max_fds", "Most file descriptors that the process may open.", by="both"),
    _gauge("process_start_time_s", "Start of the process, in seconds since 1970.", merge="max", by="both"),
)

METRICS: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _DECLARED}
"""Every metric by its name."""


def series_key(name: str, *labels: str) -> str:
    """
    Return the key under which ``name`` with these label values is counted.

    A value that is not listed in ``labels.VALUES`` becomes ``other``.

    Raises:
        KeyError: No such metric, or a label is missing or too many.
    """
    metric = METRICS[name]
    if len(labels) != len(metric.labels):
        raise KeyError(f"{name} takes the labels {metric.labels}, got {labels}")
    known = (str(label) if label in words else OTHER for label, words in zip(labels, metric.values, strict=True))
    return SEPARATOR.join((name, *known))


def split_key(key: str) -> tuple[Metric, tuple[str, ...]] | None:
    """
    Return metric and label values of a key, or None if this version does not declare such a series.

    For a histogram the last value is a bound or ``sum``. A worker cannot make a series exist with a word that is not
    listed.
    """
    # What is remembered must not be as long as a worker likes.
    return _split(key) if len(key) <= MAX_KEY_CHARACTERS else None


@lru_cache(maxsize=1 << 13)
def _split(key: str) -> tuple[Metric, tuple[str, ...]] | None:
    name, *labels = key.split(SEPARATOR)
    metric = METRICS.get(name)
    if metric is None:
        return None
    if metric.kind == "histogram" and (not labels or labels[-1] not in (*metric.bounds, SUM)):
        return None
    plain = labels[:-1] if metric.kind == "histogram" else labels
    if len(plain) != len(metric.labels) or any(
        label not in words for label, words in zip(plain, metric.values, strict=True)
    ):
        return None
    return metric, tuple(labels)


class Histogram:
    """One series of a histogram in a flat dictionary; ``observe`` costs a search and two additions."""

    __slots__ = ("_bounds", "_keys", "_sum_key", "_values")

    def __init__(self, values: dict[str, float], metric: Metric, series: str) -> None:
        self._values = values
        self._bounds = metric.buckets
        self._keys = [SEPARATOR.join((series, bound)) for bound in metric.bounds]
        self._sum_key = SEPARATOR.join((series, SUM))
        for key in (*self._keys, self._sum_key):
            values.setdefault(key, 0)

    def observe(self, value: float) -> None:
        """Count one value, in the unit of the metric; it must not be negative."""
        self._values[self._keys[bisect_left(self._bounds, value)]] += 1
        self._values[self._sum_key] += value


class CounterSet:
    """
    The numbers of one process.

    Metrics of a worker without labels start at zero; series with labels appear when they are first used. A hot path
    asks once for its key with ``declare`` and then writes ``counters.values[key] += n`` itself.
    """

    __slots__ = ("_histograms", "values")

    def __init__(self) -> None:
        self.values: dict[str, float] = {
            name: 0
            for name, metric in METRICS.items()
            if metric.by != "supervisor" and not metric.labels and metric.kind != "histogram"
        }
        self._histograms: dict[tuple[str, ...], Histogram] = {}

    def declare(self, name: str, *labels: str) -> str:
        """Make the series exist, at zero if it is new, and return its key (KeyError as ``series_key``)."""
        key = series_key(name, *labels)
        self.values.setdefault(key, 0)
        return key

    def add(self, name: str, amount: float = 1, *labels: str) -> None:
        """Add ``amount`` to a series (KeyError as ``series_key``)."""
        key = SEPARATOR.join((name, *labels)) if labels else name
        try:
            self.values[key] += amount
        except KeyError:
            # Only the first use of a series pays for the check of its name, and every use of a word nobody knows.
            self.values[self.declare(name, *labels)] += amount

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge to ``value`` (KeyError as ``series_key``)."""
        self.values[series_key(name, *labels)] = value

    def histogram(self, name: str, *labels: str) -> Histogram:
        """Return a series of a histogram, made at its first use (KeyError as ``series_key``)."""
        series = (name, *labels)
        found = self._histograms.get(series)
        if found is None:
            key = series_key(name, *labels)
            found = self._histograms[series] = Histogram(self.values, METRICS[name], key)
        return found

    def snapshot(self) -> dict[str, float]:
        """Return a copy that later counting does not change."""
        return dict(self.values)
