"""
What the node is doing, for those who ask the admin endpoint.

The document of ``/status``::

    node       peer_id, version, pid, uptime_s, listen, steered, workers, pqc_provider, healthy, draining
    workers    one object per slot: its state and its present worker's figures and counters
    spares     pid and state of the processes without a slot
    totals     counters and gauges of the whole node, keys as in ``stats.counters``
    directory  peers, connections, dropped
    punches    successful, failed and unknown hole punches, by_nat_pair (``punches``)
    relay      sessions, delivered bytes, introductions, refusals, canaries, quota and limits (``relay_status``)
    configuration          every setting in force, by section and key; of secrets only the paths of their files
    configuration_changes  defaults of the settings that differ from them, by ``section.key``
    control    path of the control socket, null without one
    keylog     file that the TLS secrets go to, null (as it should be) without one

Histograms and the figures of processes are on the Prometheus page only.
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from antquic_server import __version__
from antquic_server.config.model import Settings, changed_from_default, to_plain
from antquic_server.stats import prometheus
from antquic_server.stats.counters import METRICS, SEPARATOR
from antquic_server.stats.merge import merge
from antquic_server.stats.prometheus import SUPERVISOR
from antquic_server.supervisor.fleet import Fleet
from antquic_server.supervisor.history import History
from antquic_server.supervisor.process import FiguresReader, WorkerProcess
from antquic_server.supervisor.punches import punch_document
from antquic_server.supervisor.relay_status import relay_document
from antquic_server.supervisor.slots import Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What does not change while the node runs; ``started_s`` is monotonic seconds."""

    peer_id: bytes
    pid: int
    listen: list[str]
    steered: bool
    started_s: float
    control: str | None = None
    keylog: str | None = None


NEGLECTED_AFTER_S: Final = 5.0
"""Slots are looked after every heartbeat interval; one that nobody has looked after for this long is forgotten."""


class NodeStatus:
    """Answers for the node as a whole; reads the fleet and changes nothing. ``settings`` are those in force."""

    def __init__(
        self, facts: NodeFacts, fleet: Fleet, *, clock: Callable[[], float], settings: Settings | None = None
    ) -> None:
        self._facts = facts
        self._fleet = fleet
        self._clock = clock
        self.admin_refused: Callable[[], int] = lambda: 0
        """Connections that the admin endpoint has refused; set by whoever runs it."""
        self._figures_reader = FiguresReader(facts.pid)
        self._history = History(started_s=facts.started_s)
        self.settings_changed(settings or Settings())

    def settings_changed(self, settings: Settings) -> None:
        """Take note of the settings in force; both parts of the document are made once, not for every question."""
        self._heartbeat_interval_s = settings.endpoint.heartbeat_interval_s
        self._configuration = to_plain(settings)
        self._configuration_changes = changed_from_default(settings)

    def tick(self) -> None:
        """Note what the node is doing, for ``history``; called every heartbeat interval."""
        self._history.tick(self._fleet.workers, self._fleet.watch.lag_s, self._clock())

    def history(self, after_s: float) -> dict[str, object]:
        """Return the document of ``/history`` for the time after ``after_s`` seconds since the start."""
        return self._history.document(after_s, interval_s=self._heartbeat_interval_s)

    def unhealthy(self) -> str | None:
        """Return None while every slot is served, else one line that says what is wrong."""
        if self._fleet.stopping:
            return "draining"
        idle = [str(slot.index) for slot in self._fleet.slots if not _is_ready(slot)]
        return f"no ready worker for slot {', '.join(idle)}" if idle else None

    def neglected(self) -> bool:
        """
        Whether a slot is without a worker and nobody does anything about it.

        A slot may wait because its workers die young, and processes may wait because none can be started; both waits
        have an end. What is neither waiting, nor served, nor about to get a process, is a mistake of the supervisor,
        which only a restart of the node mends.
        """
        fleet = self._fleet
        since_s = self._clock() - NEGLECTED_AFTER_S
        if fleet.stopping or fleet.start_at_s > since_s:
            return False
        vacant = sum(slot.worker is None and slot.vacant_until_s <= since_s for slot in fleet.slots)
        return vacant > sum(worker.slot is None for worker in fleet.workers)

    def line(self) -> str:
        """Return one line for people: what is wrong, else where the node serves."""
        facts, count = self._facts, len(self._fleet.slots)
        serving = f"{count} {'worker serves' if count == 1 else 'workers serve'} on {', '.join(facts.listen)}"
        return self.unhealthy() or f"{serving} as {facts.peer_id.hex()[:16]}"

    def pqc_provider(self) -> str | None:
        """Name of the provider the workers use, None before the first is ready."""
        for slot in self._fleet.slots:
            if slot.worker is not None and slot.worker.readiness is not None:
                return slot.worker.readiness.pqc_provider
        return None

    def document(self) -> dict[str, object]:
        """Return the document of ``/status``."""
        fleet, facts, now_s = self._fleet, self._facts, self._clock()
        node = {
            "peer_id": facts.peer_id.hex(),
            "version": __version__,
            "pid": facts.pid,
            "uptime_s": round(now_s - facts.started_s, 3),
            "listen": facts.listen,
            "steered": facts.steered,
            "workers": len(fleet.slots),
            "pqc_provider": self.pqc_provider(),
            "healthy": self.unhealthy() is None,
            "draining": fleet.stopping,
        }
        totals = self.totals()
        return {
            "node": node,
            "workers": [self._slot(slot, now_s) for slot in fleet.slots],
            "spares": [
                {"pid": worker.pid, "state": str(worker.state)} for worker in fleet.workers if worker.slot is None
            ],
            "totals": _plain(totals),
            "directory": {
                "peers": fleet.directory.peer_count,
                "connections": fleet.directory.connection_count,
                "dropped": fleet.directory.dropped,
            },
            "punches": punch_document(totals),
            "relay": relay_document(fleet.relay.quotas, totals, now_s),
            "configuration": self._configuration,
            "configuration_changes": self._configuration_changes,
            "control": facts.control,
            "keylog": facts.keylog,
        }

    def totals(self) -> dict[str, float]:
        """Return counters and gauges of the whole node; no counter is ever lower than before."""
        return merge([self._fleet.retired.total(self._fleet.snapshots()), self._own()])

    def metrics(self) -> bytes:
        """Return the Prometheus page."""
        figures = self._figures_reader.read()
        pages = {SUPERVISOR: self._own() | self._limits() | ({} if figures is None else figures.series())}
        for slot in self._fleet.slots:
            living = None if slot.worker is None else slot.worker.snapshot()
            pages[str(slot.index)] = self._fleet.retired.slot_total(slot.index, living)
        return prometheus.render(pages)

    def peer(self, peer_id: bytes) -> list[dict[str, object]]:
        """Return the connections of a peer, an empty list if it has none."""
        return [
            {
                "slot": each.slot,
                "connection": each.connection,
                "host": each.host,
                "port": each.port,
                "readable": each.readable,
                "reached_at": each.reached_at,
                "advertised": list(each.advertised),
                "channels": each.channels,
            }
            for each in self._fleet.directory.find(peer_id)
        ]

    def nat_mapping(self, peer_id: bytes) -> str:
        """Return how a peer's NAT maps, as far as observed."""
        return self._fleet.directory.mapping(peer_id).value

    def _own(self) -> dict[str, float]:
        """What the supervisor counts itself."""
        fleet = self._fleet
        restarts = {f"worker_restarts|{reason}": count for reason, count in fleet.restarts.items()}
        limited = {f"introductions_limited|{limit}": count for limit, count in fleet.hub.limited.items()}
        introduced = {f"introductions|{path}": count for path, count in fleet.hub.introduced_by.items()}
        return (
            restarts
            | limited
            | introduced
            | fleet.hub.punches.counters()
            | fleet.relay.counters()
            | {
                "ipc_dropped": fleet.ipc_dropped,
                "directory_dropped": fleet.directory.dropped,
                "directory_peers": fleet.directory.peer_count,
                "slots_ready": fleet.ready_count,
                "spares_ready": len(fleet.spares),
                "loop_lag_s": fleet.watch.lag_s,
                "admin_refused": self.admin_refused(),
            }
        )

    def _limits(self) -> dict[str, float]:
        """What the figures of the page are to be held against."""
        fleet, quotas = self._fleet, self._fleet.relay.quotas
        # First, since a period that is over ends only when somebody looks.
        quotas.bytes.ends_in_s(self._clock())
        build = SEPARATOR.join(("build_info", __version__, platform.python_version(), self.pqc_provider() or "none"))
        return {
            build: 1,
            "slots": len(fleet.slots),
            "draining": int(fleet.stopping),
            "max_connections": fleet.plan.max_connections,
            "relay_max_sessions": quotas.settings.max_sessions,
            "relay_quota_bytes": quotas.settings.max_bytes,
            "relay_quota_used_bytes": quotas.bytes.node_bytes,
        }

    def _slot(self, slot: Slot[WorkerProcess], now_s: float) -> dict[str, object]:
        row: dict[str, object] = {
            "slot": slot.index,
            "generation": slot.generation,
            "restarts": slot.restarts,
        }
        worker = slot.worker
        if worker is None:
            return row | {
                "state": "vacant",
                "pid": None,
                "counters": _plain(self._fleet.retired.slot_total(slot.index, None)),
            }
        row |= {
            "state": str(worker.state),
            "pid": worker.pid,
            "uptime_s": round(now_s - worker.started_s, 3),
            "heartbeat_age_s": round(now_s - worker.last_heartbeat_s, 3),
            "connections": worker.open_connections,
            "counters": _plain(self._fleet.retired.slot_total(slot.index, worker.snapshot())),
        }
        if worker.heartbeat is not None:
            row["handshakes_in_flight"] = worker.heartbeat.handshakes_in_flight
            row["loop_lag_s"] = worker.heartbeat.loop_lag_s
        if worker.readiness is not None:
            row["offloads"] = worker.readiness.offloads
        if worker.figures is not None:
            row["cpu_percent"] = worker.figures.cpu_percent
            row["rss_bytes"] = worker.figures.rss_bytes
            row["open_files"] = worker.figures.open_files
        return row


def _is_ready(slot: Slot[WorkerProcess]) -> bool:
    return slot.worker is not None and slot.worker.is_ready


def _plain(snapshot: Mapping[str, float]) -> dict[str, float]:
    """Leave out what only makes sense on the Prometheus page."""
    return {key: value for key, value in snapshot.items() if not _is_for_prometheus(key.partition(SEPARATOR)[0])}


def _is_for_prometheus(name: str) -> bool:
    return name.startswith("process_") or METRICS[name].kind == "histogram"
