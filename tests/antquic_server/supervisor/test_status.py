"""Tests of what the node says about itself, over a fleet of pretended processes."""

import platform
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from prometheus_client.parser import text_string_to_metric_families

from antquic_server import __version__
from antquic_server.config.model import RelaySettings, Settings, to_plain
from antquic_server.ipc.messages import Heartbeat, Ready
from antquic_server.stats.merge import RetiredTotals
from antquic_server.supervisor.directory import Directory, PeerConnection
from antquic_server.supervisor.fleet import Fleet
from antquic_server.supervisor.process import EndReason, ProcessFigures, WorkerProcess, WorkerState
from antquic_server.supervisor.relay_quotas import RelayQuotas
from antquic_server.supervisor.slots import SlotTable
from antquic_server.supervisor.status import NodeFacts, NodeStatus
from antquic_server.supervisor.target_limits import Limit

PEER = bytes(range(32))


class PretendedWorker:
    """What a status reads of a worker."""

    def __init__(self, pid: int, slot: int | None, retries: float = 0) -> None:
        self.pid = pid
        self.slot = slot
        self.state = WorkerState.SPARE if slot is None else WorkerState.READY
        self.started_s = 100.0
        self.last_heartbeat_s = 109.5
        self.readiness: Ready | None = None
        self.heartbeat: Heartbeat | None = None
        self.figures: ProcessFigures | None = None
        self.dropped = 0
        self.retries = retries
        if slot is not None:
            self.readiness = Ready(slot=slot, generation=1, pqc_provider="liboqs", offloads=["gro"])
            self.heartbeat = Heartbeat(sequence=1, connections=4, handshakes_in_flight=1, loop_lag_s=0.002, counters={})
            self.figures = ProcessFigures(cpu_percent=12.5, rss_bytes=1 << 20, open_files=9)

    @property
    def is_ready(self) -> bool:
        """Whether it serves."""
        return self.state is WorkerState.READY

    @property
    def open_connections(self) -> int:
        """Four if it serves."""
        return 4 if self.heartbeat else 0

    def snapshot(self) -> dict[str, float]:
        """One counter and one gauge, a histogram and figures of the process."""
        figures = {} if self.figures is None else self.figures.series()
        return {"retries": self.retries, "loop_lag_s": 0.002, "loop_delay_s|0.001": 5, **figures}


class PretendedFleet:
    """Two slots, the second of them vacant, and a spare."""

    def __init__(self) -> None:
        self.slots: SlotTable[WorkerProcess] = SlotTable(2)
        self.workers = [PretendedWorker(11, 0, retries=3), PretendedWorker(12, None)]
        self.slots.fill(self.slots[0], cast("WorkerProcess", self.workers[0]))
        self.retired = RetiredTotals()
        self.retired.retire(0, {"retries": 2, "timers": 8})
        self.retired.retire(1, {"retries": 10})
        self.directory = Directory(10)
        listed = PeerConnection(
            slot=0,
            connection=5,
            host="192.0.2.1",
            port=9,
            advertised=("10.0.0.1:9",),
            reached_at="198.51.100.1:10000",
            channels=True,
        )
        self.directory.peer_up(PEER, listed)
        self.hub = SimpleNamespace(
            limited={Limit.INITIATOR: 3, Limit.TARGET: 0},
            introduced_by={"direct": 8, "relayed": 1},
            punches=SimpleNamespace(counters=lambda: {"hole_punches|failed|unknown|dependent": 4}),
        )
        self.plan = SimpleNamespace(max_connections=10)
        self.relay = SimpleNamespace(
            quotas=RelayQuotas(RelaySettings(), 100.0),
            counters=lambda: {"relay_refusals|channel|open_rate": 2, "relay_misreports": 0},
        )
        self.restarts = {EndReason.FROZEN: 1}
        self.stopping = False
        self.start_at_s = 0.0
        self.watch = SimpleNamespace(lag_s=0.25)
        self.ipc_dropped = 6
        self.ready_count = 1
        self.spares = self.workers[1:]

    def snapshots(self) -> dict[int, dict[str, float]]:
        """The snapshot of slot 0."""
        return {0: self.workers[0].snapshot()}


def status_of(fleet: PretendedFleet, now_s: float = 110.0) -> NodeStatus:
    """The status of a node that has run for ten seconds, or until ``now_s``."""
    facts = NodeFacts(peer_id=PEER, pid=1, listen=["127.0.0.1:10000"], steered=True, started_s=100.0)
    status = NodeStatus(facts, cast("Fleet", fleet), clock=lambda: now_s)
    status.admin_refused = lambda: 7
    return status


def test_document_has_all_sections() -> None:
    """Node, workers by slot, spares, totals and directory, as the command line shows them."""
    document = status_of(PretendedFleet()).document()

    assert document["node"] == {
        "peer_id": PEER.hex(),
        "version": __version__,
        "pid": 1,
        "uptime_s": 10.0,
        "listen": ["127.0.0.1:10000"],
        "steered": True,
        "workers": 2,
        "pqc_provider": "liboqs",
        "healthy": False,
        "draining": False,
    }
    assert document["workers"] == [
        {
            "slot": 0,
            "generation": 1,
            "restarts": 0,
            "state": "ready",
            "pid": 11,
            "uptime_s": 10.0,
            "heartbeat_age_s": 0.5,
            "connections": 4,
            "counters": {"retries": 5, "loop_lag_s": 0.002},
            "handshakes_in_flight": 1,
            "loop_lag_s": 0.002,
            "offloads": ["gro"],
            "cpu_percent": 12.5,
            "rss_bytes": 1 << 20,
            "open_files": 9,
        },
        {
            "slot": 1,
            "generation": 0,
            "restarts": 0,
            "state": "vacant",
            "pid": None,
            "counters": {"retries": 10},
        },
    ]
    assert document["spares"] == [{"pid": 12, "state": "spare"}]
    assert document["directory"] == {"peers": 1, "connections": 1, "dropped": 0}
    relay = document["relay"]
    assert isinstance(relay, dict)
    assert relay["introductions"] == {"direct": 8, "relayed": 1}
    assert relay["refusals"] == {"channel": {"open_rate": 2}, "stream": {}}
    assert document["punches"] == {
        "successful": 0,
        "failed": 4,
        "unknown": 0,
        "by_nat_pair": [{"initiator": "unknown", "target": "dependent", "successful": 0, "failed": 4}],
    }
    totals = document["totals"]
    assert isinstance(totals, dict)
    assert not [key for key in totals if key.startswith(("loop_delay_s", "process_"))]
    assert list(document) == [
        "node",
        "workers",
        "spares",
        "totals",
        "directory",
        "punches",
        "relay",
        "configuration",
        "configuration_changes",
        "control",
        "keylog",
    ]
    assert (document["control"], document["keylog"]) == (None, None)


def test_configuration_is_that_in_force() -> None:
    """Every setting, those that differ from the defaults with the default; after a reload, the new ones."""
    status = status_of(PretendedFleet())
    assert status.document()["configuration"] == to_plain(Settings())
    assert status.document()["configuration_changes"] == {}

    changed = replace(Settings(), relay=RelaySettings(max_sessions=7, denied_targets=("192.0.2.0/24",)))
    status.settings_changed(changed)
    assert status.document()["configuration"] == to_plain(changed)
    assert status.document()["configuration_changes"] == {"relay.max_sessions": 1000, "relay.denied_targets": []}


def test_history_is_of_the_fleet() -> None:
    """The connections of the workers, and the larger of their lag and that of the supervisor."""
    status = status_of(PretendedFleet())
    status.tick()
    history = status.history(0.0)

    assert (history["t_s"], history["connections"], history["loop_lag_s"]) == ([10.0], [4], [0.25])
    assert status.history(10.0)["t_s"] == []


def test_totals_include_the_dead_and_the_supervisor() -> None:
    """Counters of all generations, and what only the supervisor can count."""
    totals = status_of(PretendedFleet()).totals()

    assert totals["retries"] == 15
    assert totals["worker_restarts|frozen"] == 1
    assert totals["ipc_dropped"] == 6
    assert totals["introductions_limited|initiator"] == 3
    assert totals["introductions|relayed"] == 1
    assert totals["relay_refusals|channel|open_rate"] == 2
    assert totals["loop_lag_s"] == 0.25
    assert "timers" not in totals


def test_health_names_the_slots_without_a_ready_worker() -> None:
    """A slot counts as served only by a ready worker, and a draining node is not healthy."""
    fleet = PretendedFleet()
    assert status_of(fleet).unhealthy() == "no ready worker for slot 1"

    fleet.workers[0].state = WorkerState.ASSIGNED
    assert status_of(fleet).unhealthy() == "no ready worker for slot 0, 1"
    fleet.slots = SlotTable(0)
    assert status_of(fleet).unhealthy() is None
    assert status_of(fleet).pqc_provider() is None
    fleet.stopping = True
    assert status_of(fleet).unhealthy() == "draining"


def test_metrics_page_has_a_series_per_slot_and_the_supervisor() -> None:
    """Vacant slots keep the counters of their dead workers."""
    families = text_string_to_metric_families(status_of(PretendedFleet()).metrics().decode())
    samples = {(sample.name, sample.labels["worker"]): sample.value for family in families for sample in family.samples}

    assert samples["antquic_retries_total", "0"] == 5
    assert samples["antquic_retries_total", "1"] == 10
    assert samples["antquic_process_resident_bytes", "0"] == 1 << 20
    assert samples["antquic_slots_ready", "supervisor"] == 1
    assert ("antquic_loop_lag_seconds", "1") not in samples
    assert samples["antquic_loop_delay_seconds_count", "0"] == 5
    assert samples["antquic_slots", "supervisor"] == 2
    assert samples["antquic_max_connections", "supervisor"] == 10
    assert samples["antquic_relay_quota_bytes", "supervisor"] == 0
    assert samples["antquic_admin_refused_total", "supervisor"] == 7


def test_used_quota_is_that_of_the_present_period() -> None:
    """Also when nothing has been relayed since it began; the page and the document agree."""
    fleet = PretendedFleet()
    fleet.relay.quotas.bytes.use(PEER, 500, 101.0)
    series = 'antquic_relay_quota_used_bytes{worker="supervisor"} '
    assert f"{series}500.0" in status_of(fleet).metrics().decode()

    later = status_of(fleet, 101.0 + RelaySettings().quota_period_s)
    relay = later.document()["relay"]
    assert isinstance(relay, dict)
    assert relay["quota"]["used_bytes"] == 0
    assert f"{series}0.0" in later.metrics().decode()


def test_build_is_named_on_the_page() -> None:
    """What runs, as labels of one series, so that an upgrade shows."""
    page = status_of(PretendedFleet()).metrics().decode()
    (line,) = [line for line in page.splitlines() if line.startswith("antquic_build_info{")]
    assert f'version="{__version__}"' in line
    assert 'pqc_provider="liboqs"' in line
    assert f'python="{platform.python_version()}"' in line
    assert line.endswith(" 1.0")


def test_peers_are_listed_with_their_slots() -> None:
    """The directory's answer in plain values."""
    status = status_of(PretendedFleet())

    assert status.peer(PEER) == [
        {
            "slot": 0,
            "connection": 5,
            "host": "192.0.2.1",
            "port": 9,
            "readable": True,
            "reached_at": "198.51.100.1:10000",
            "advertised": ["10.0.0.1:9"],
            "channels": True,
        }
    ]
    assert status.peer(bytes(32)) == []
    assert status.nat_mapping(PEER) == status.nat_mapping(bytes(32)) == "unknown"


def test_slot_is_neglected_only_when_nobody_is_on_the_way() -> None:
    """A spare, a wait of the slot, a wait of new processes or a drain explain a vacant slot; nothing else does."""
    fleet = PretendedFleet()
    status = status_of(fleet)
    assert not status.neglected()

    fleet.workers = fleet.workers[:1]
    assert status.neglected()
    fleet.slots[1].vacant_until_s = 106.0
    assert not status.neglected()
    fleet.slots[1].vacant_until_s = 105.0
    assert status.neglected()
    fleet.start_at_s = 106.0
    assert not status.neglected()
    fleet.start_at_s = 100.0
    fleet.stopping = True
    assert not status.neglected()


def test_line_says_what_is_wrong_or_where_it_serves() -> None:
    """As `systemctl status` shows it."""
    fleet = PretendedFleet()
    assert status_of(fleet).line() == "no ready worker for slot 1"

    fleet.workers.append(PretendedWorker(13, 1))
    fleet.slots.fill(fleet.slots[1], cast("WorkerProcess", fleet.workers[2]))
    assert status_of(fleet).line() == f"2 workers serve on 127.0.0.1:10000 as {PEER.hex()[:16]}"
