"""
What the node is doing, for those who ask the admin endpoint.

The document of ``/status``::

    node       peer_id, version, pid, uptime_s, listen, steered, workers, pqc_provider, healthy, draining
    workers    one object per slot: its state and its present worker's figures and counters
    spares     pid and state of the processes without a slot
    totals     counters and gauges of the whole node, keys as in ``stats.counters``
    directory  peers, connections, dropped
    relay      sessions, delivered bytes, introductions, refusals, canaries, quota and limits (``relay_status``)
    talkers    the peers that move the most bytes, the busiest first (``talkers``)
"""

from collections.abc import Callable
from dataclasses import dataclass

from antquic_server import __version__
from antquic_server.stats import prometheus
from antquic_server.stats.merge import merge
from antquic_server.supervisor.fleet import Fleet
from antquic_server.supervisor.process import FiguresReader, ProcessFigures, WorkerProcess
from antquic_server.supervisor.relay_status import relay_document
from antquic_server.supervisor.slots import Slot

SUPERVISOR = "supervisor"
"""Value of the label ``worker`` for what the supervisor itself counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What does not change while the node runs; ``started_s`` is monotonic seconds."""

    peer_id: bytes
    pid: int
    listen: list[str]
    steered: bool
    started_s: float


class NodeStatus:
    """Answers for the node as a whole; reads the fleet and changes nothing."""

    def __init__(self, facts: NodeFacts, fleet: Fleet, *, clock: Callable[[], float]) -> None:
        self._facts = facts
        self._fleet = fleet
        self._clock = clock
        self._figures_reader = FiguresReader(facts.pid)

    def unhealthy(self) -> str | None:
        """Return None while every slot is served, else one line that says what is wrong."""
        if self._fleet.stopping:
            return "draining"
        idle = [str(slot.index) for slot in self._fleet.slots if not _is_ready(slot)]
        return f"no ready worker for slot {', '.join(idle)}" if idle else None

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
            "totals": totals,
            "directory": {
                "peers": fleet.directory.peer_count,
                "connections": fleet.directory.connection_count,
                "dropped": fleet.directory.dropped,
            },
            "relay": relay_document(fleet.relay.quotas, totals, now_s),
            "talkers": fleet.talkers.document(),
        }

    def totals(self) -> dict[str, float]:
        """Return counters and gauges of the whole node; no counter is ever lower than before."""
        return merge([self._fleet.retired.total(self._fleet.snapshots()), self._own()])

    def metrics(self) -> bytes:
        """Return the Prometheus page."""
        pages = {SUPERVISOR: self._own() | _figures(self._figures_reader.read())}
        for slot in self._fleet.slots:
            worker = slot.worker
            living = worker.snapshot() | _figures(worker.figures) if worker is not None else None
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
            | fleet.relay.counters()
            | {
                "ipc_dropped": fleet.ipc_dropped,
                "directory_dropped": fleet.directory.dropped,
                "directory_peers": fleet.directory.peer_count,
                "slots_ready": fleet.ready_count,
                "spares_ready": len(fleet.spares),
                "loop_lag_s": fleet.watch.lag_s,
            }
        )

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
                "counters": self._fleet.retired.slot_total(slot.index, None),
            }
        row |= {
            "state": str(worker.state),
            "pid": worker.pid,
            "uptime_s": round(now_s - worker.started_s, 3),
            "heartbeat_age_s": round(now_s - worker.last_heartbeat_s, 3),
            "connections": worker.open_connections,
            "counters": self._fleet.retired.slot_total(slot.index, worker.snapshot()),
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


def _figures(figures: ProcessFigures | None) -> dict[str, float]:
    if figures is None:
        return {}
    return {
        "process_cpu_percent": figures.cpu_percent,
        "process_resident_bytes": figures.rss_bytes,
        "process_open_fds": figures.open_files,
    }
