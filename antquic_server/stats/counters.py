"""
What a process counts.

Every metric is declared once, in ``METRICS``: workers count with these names, the supervisor merges by them
and the Prometheus page takes its help texts from here. A process keeps its numbers in one flat dictionary
whose keys are ``name`` or ``name|label|label`` in the order of the declared labels. That form is cheap to
increment, travels between processes as it is, and needs no object per series.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

SEPARATOR: Final = "|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """
    One declared metric.

    A counter only grows and survives the process that counted it; a gauge describes a living process.
    ``merge`` says what one number for several processes is: their sum, or the largest of them.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()
    merge: Literal["sum", "max"] = "sum"


def _counter(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name=name, kind="counter", help=help_text, labels=labels)


def _gauge(name: str, help_text: str, *labels: str, merge: Literal["sum", "max"] = "sum") -> Metric:
    return Metric(name=name, kind="gauge", help=help_text, labels=labels, merge=merge)


_DECLARED: Final = (
    # Connections and handshakes.
    _gauge("active_connections", "Connections in the table, handshakes included."),
    _gauge("handshakes_in_flight", "Connections whose handshake is not confirmed yet."),
    _counter("handshakes", "Handshakes completed.", "profile"),
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
    _counter("coordinations", "Requests to be introduced to another peer, by how they ended.", "outcome"),
    _counter("introductions_received", "Peers that were told of another that wants to reach them."),
    _counter("introductions_limited", "Sound requests that the hub refused, by the limit of the node.", "limit"),
    _counter("introductions", "Pairs of peers given addresses: their own, or that of a relay session.", "path"),
    # Relay. Modes are "channel" and "stream"; reasons are protocol.relay_limits. Refusals are counted by whoever
    # refuses: the hub, or the worker for what it knows by itself.
    _gauge("relay_sessions", "Relay sessions that are there.", "mode"),
    _counter("relay_sessions_opened", "Relay sessions opened.", "mode"),
    _counter("relay_sessions_closed", "Relay sessions that have ended.", "mode", "reason"),
    _counter("relay_refusals", "Relay sessions refused, by the limit or rule.", "mode", "reason"),
    _counter("relay_bytes", "Payload bytes delivered by relaying, both directions.", "mode"),
    _counter("relay_datagrams", "Datagrams delivered by relaying, both directions.", "mode"),
    _counter("relay_drops", "Datagrams not relayed.", "mode", "reason"),
    _counter("channel_messages", "Messages of peers about relay channels, and ours that did not get out.", "outcome"),
    _counter("relay_canaries", "Round trips of the relay's own test traffic.", "mode", "result"),
    _gauge("relay_canary_latency_s", "Duration of the last such round trip that came back.", "mode", merge="max"),
    _counter("relay_misreports", "Words of workers about relaying that the hub could make nothing of."),
    # Cryptography.
    _counter("pqc_pool_hits", "Operations served by a ready context of the memory pool."),
    _counter("pqc_pool_misses", "Operations that had to make a temporary context."),
    # Echo service.
    _counter("streams_echoed", "Bidirectional streams echoed to their end."),
    _counter("messages_echoed", "Unidirectional messages echoed."),
    _counter("datagrams_echoed", "DATAGRAM frames echoed."),
    # The process.
    _gauge("loop_lag_s", "Largest delay of the event loop in the last interval.", merge="max"),
    _gauge("timers", "Deadlines waiting in the timer structure."),
    _gauge("process_cpu_percent", "CPU time used, in percent of one core, since the last reading."),
    _gauge("process_resident_bytes", "Resident memory; pages shared between workers count in each."),
    _gauge("process_open_fds", "Open file descriptors."),
    # Counted by the supervisor.
    _counter("ipc_dropped", "Messages to workers dropped because their queue was full."),
    _counter("worker_restarts", "Workers replaced.", "reason"),
    _counter("directory_dropped", "Peers left out of the full directory."),
    _gauge("directory_peers", "Peers in the directory."),
    _gauge("slots_ready", "Slots served by a ready worker."),
    _gauge("spares_ready", "Spare workers waiting for a slot."),
)

METRICS: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _DECLARED}
"""Every metric by its name."""


def series_key(name: str, *labels: str) -> str:
    """
    Return the key under which ``name`` with these label values is counted.

    Raises:
        KeyError: No such metric, a label is missing or too many, or a value contains the separator.
    """
    metric = METRICS[name]
    if len(labels) != len(metric.labels):
        raise KeyError(f"{name} takes the labels {metric.labels}, got {labels}")
    if not labels:
        return name
    if any(SEPARATOR in label for label in labels):
        raise KeyError(f"a label of {name} contains {SEPARATOR!r}: {labels}")
    return SEPARATOR.join((name, *labels))


def split_key(key: str) -> tuple[Metric, tuple[str, ...]] | None:
    """Return metric and label values of a key, or None if this version does not declare such a series."""
    name, *labels = key.split(SEPARATOR)
    metric = METRICS.get(name)
    if metric is None or len(labels) != len(metric.labels):
        return None
    return metric, tuple(labels)


class CounterSet:
    """
    The numbers of one process.

    Metrics without labels start at zero; series with labels appear when they are first used. A hot path asks
    once for its key with ``declare`` and then writes ``counters.values[key] += n`` itself.
    """

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, float] = {name: 0 for name, metric in METRICS.items() if not metric.labels}

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
            # Only the first use of a series pays for the check of its name.
            self.values[self.declare(name, *labels)] += amount

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge to ``value`` (KeyError as ``series_key``)."""
        self.values[series_key(name, *labels)] = value

    def snapshot(self) -> dict[str, float]:
        """Return a copy that later counting does not change."""
        return dict(self.values)
