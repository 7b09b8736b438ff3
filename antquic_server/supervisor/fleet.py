"""
Keeps a worker on every slot.

The fleet listens to the workers' messages, watches their heartbeats and carries out what ``policy`` decides.
It does not know what the workers do, only whether they do it.

The number of processes is that of the slots, plus spares once the node is ready: spares would only slow the
start down. Processes and slots are matched in one place, ``_reconcile``, called whenever either may have
changed.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from antquic_server.config.model import NatSettings, RelaySettings
from antquic_server.ipc.messages import (
    VERSION,
    Assign,
    BootFailed,
    Drained,
    Heartbeat,
    HeartbeatAck,
    Hello,
    LimitsChanged,
    Message,
    PeerDown,
    PeerUp,
    Ready,
)
from antquic_server.logs import get_logger
from antquic_server.stats.merge import RetiredTotals
from antquic_server.supervisor.directory import Directory, PeerConnection
from antquic_server.supervisor.hub import Hub, HubMessage
from antquic_server.supervisor.policy import (
    HELLO_DEADLINE_S,
    READY_DEADLINE_S,
    HeartbeatWatch,
    RestartPolicy,
    StopNode,
    WorkerEnd,
)
from antquic_server.supervisor.process import EndReason, WorkerListener, WorkerProcess, WorkerState
from antquic_server.supervisor.relay_desk import RelayDesk, RelayMessage, RelayPlan
from antquic_server.supervisor.slots import SlotTable

FIGURES_INTERVAL_S: Final = 1.0
"""Reading /proc for one worker takes about 0.2 ms, so 64 workers cost about 1 % of a core."""

SPARE_TIMEOUT_S: Final = 10.0
"""A spare has no settings yet, and on a machine whose every core is busy with an attack it may wait long for its turn;
nobody waits for it meanwhile."""

ASSIGNED_TIMEOUT_S: Final = 3.0
"""A spare that takes over a running node's slot needs a tenth of a second; frozen, it must not keep the slot."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """How many workers, how they are started and judged, and what a slot's worker is told."""

    worker_count: int
    standby_workers: int
    heartbeat_interval_s: float
    heartbeat_timeout_s: float
    max_connections: int
    start_worker: Callable[[WorkerListener], WorkerProcess]
    assignment: Callable[[int, int], Assign]
    nat: NatSettings = field(default_factory=NatSettings)
    relay: RelaySettings = field(default_factory=RelaySettings)
    channel_secret: bytes = b""


class Fleet:
    """
    All workers of the node; a ``WorkerListener``.

    Args:
        plan: What to keep running.
        clock: Monotonic seconds.
        on_ready: Called once, when every slot has a ready worker for the first time.
        on_hopeless: Called with one line when the node cannot go on; the caller stops the fleet.
        on_empty: Called when the last process of a stopped fleet is gone.
    """

    def __init__(
        self,
        plan: FleetPlan,
        *,
        clock: Callable[[], float],
        on_ready: Callable[[], None],
        on_hopeless: Callable[[str], None],
        on_empty: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.slots: SlotTable[WorkerProcess] = SlotTable(plan.worker_count)
        self.workers: list[WorkerProcess] = []
        self.directory = Directory(plan.max_connections)
        relay = RelayPlan(
            settings=plan.relay,
            nat=plan.nat,
            slots=plan.worker_count,
            secret=plan.channel_secret,
            random_bytes=secrets.token_bytes,
        )
        self.relay = RelayDesk(relay, self.directory, self.tell_slot, self.ready_slots, clock=clock)
        self.hub = Hub(
            self.directory,
            self.tell_slot,
            nat=plan.nat,
            clock=clock,
            relay_addresses=self.relay.quotas.addresses,
            holds_relay=self.relay.quotas.holds,
            relayed=self.relay.channels.connects,
        )
        self.retired = RetiredTotals()
        self.restarts: dict[EndReason, int] = dict.fromkeys(EndReason, 0)
        self.stopping = False
        now_s = clock()
        self.watch = HeartbeatWatch(
            interval_s=plan.heartbeat_interval_s, timeout_s=plan.heartbeat_timeout_s, now_s=now_s
        )
        self._policy = RestartPolicy()
        self._clock = clock
        self._on_ready = on_ready
        self._on_hopeless = on_hopeless
        self._on_empty = on_empty
        self.start_at_s = now_s
        self._figures_due_s = now_s
        self._was_ready = False
        self._retired_drops = 0

    # What others ask.

    @property
    def ready_count(self) -> int:
        """Slots served by a ready worker."""
        return sum(worker.state is WorkerState.READY for worker in self.workers)

    @property
    def spares(self) -> list[WorkerProcess]:
        """Workers that wait for a slot, the longest waiting first."""
        return [worker for worker in self.workers if worker.state is WorkerState.SPARE]

    @property
    def ipc_dropped(self) -> int:
        """Messages to workers, past and present, that full channels did not take."""
        return self._retired_drops + sum(worker.dropped for worker in self.workers)

    def snapshots(self) -> dict[int, dict[str, float]]:
        """Return the last snapshot of each slot's present worker."""
        return {slot.index: slot.worker.snapshot() for slot in self.slots if slot.worker is not None}

    # What the supervisor does.

    def start(self) -> None:
        """Start one process per slot."""
        self._reconcile()

    def tick(self) -> None:
        """Judge heartbeats and deadlines, and end waits; called every heartbeat interval."""
        now_s = self._clock()
        self.watch.tick(now_s)
        for worker in list(self.workers):
            worker.check_exit()
        for worker in self.workers:
            reason = self._verdict(worker, now_s)
            if reason is not None:
                log.warning("killing worker", reason=str(reason), worker_pid=worker.pid, slot=worker.slot)
                worker.kill(reason)
        if now_s >= self._figures_due_s:
            self._figures_due_s = now_s + FIGURES_INTERVAL_S
            for worker in self.workers:
                worker.read_figures()
        self.relay.tick()
        self.hub.punches.tick(now_s)
        self._reconcile()

    def drain(self, deadline_s: float) -> None:
        """Ask every worker to leave; nobody is replaced any more."""
        self.stopping = True
        self.relay.drain()
        for worker in list(self.workers):
            if worker.state is WorkerState.STARTING:
                worker.kill(EndReason.LATE)
            else:
                worker.drain(deadline_s)
        self._tell_if_empty()

    def change_relay(self, settings: RelaySettings, everything: dict[str, object]) -> None:
        """Let other limits of relaying hold; ``everything`` are all settings, as workers are told them."""
        self.relay.change(settings)
        for worker in self.workers:
            if worker.slot is not None:
                worker.send(LimitsChanged(settings=everything))

    def kill(self) -> None:
        """End every worker at once."""
        self.stopping = True
        for worker in list(self.workers):
            worker.kill(EndReason.LATE)
        self._tell_if_empty()

    # What the workers say.

    def worker_said(self, worker: WorkerProcess, message: Message) -> None:
        """React to one message of a worker."""
        match message:
            case Heartbeat():
                worker.beat(message)
                total = sum(each.open_connections for each in self.workers)
                elsewhere = total - message.connections
                worker.send(HeartbeatAck(sequence=message.sequence, connections_elsewhere=elsewhere))
            case PeerUp() if worker.slot is not None:
                self._peer_up(worker.slot, message)
            case PeerDown() if worker.slot is not None:
                self.directory.peer_down(worker.slot, message.connection)
                self.relay.peer_down(message.peer_id)
            case _ if isinstance(message, HubMessage) and worker.slot is not None:
                self.hub.heard(worker.slot, message)
            case _ if isinstance(message, RelayMessage) and worker.slot is not None:
                self.relay.heard(worker.slot, message)
            case Hello() if worker.state is WorkerState.STARTING:
                self._greet(worker, message)
            case Ready() if worker.state is WorkerState.ASSIGNED and message.slot == worker.slot:
                self._ready(worker, message)
            case BootFailed():
                worker.boot_failure = message.reason
                worker.kill(EndReason.BOOT)
            case Drained():
                log.info("worker drained", slot=worker.slot, connections=message.connections)
            case _ if worker.state is WorkerState.DRAINING or self.stopping:
                # Crossed on the way with our Drain, such as the Ready of a worker just assigned.
                pass
            case _:
                log.error("worker spoke out of turn", worker_pid=worker.pid, said=type(message).__name__)
                worker.kill(EndReason.PROTOCOL)

    def worker_exited(self, worker: WorkerProcess) -> None:
        """Replace a worker whose process has ended, if it is to be replaced."""
        self.workers.remove(worker)
        self._retired_drops += worker.dropped
        if worker.slot is not None:
            self.retired.retire(worker.slot, worker.snapshot())
            forgotten = self.directory.slot_down(worker.slot)
            self.relay.slot_down(worker.slot)
            log.debug("directory forgot a slot", slot=worker.slot, connections=forgotten)
        if self.stopping:
            self._tell_if_empty()
        else:
            self._replace(worker)

    def _greet(self, worker: WorkerProcess, message: Hello) -> None:
        if message.version != VERSION:
            worker.boot_failure = (
                f"worker speaks version {message.version} of the messages, supervisor {VERSION}: "
                "two installations are mixed; restart the node"
            )
            worker.kill(EndReason.PROTOCOL)
            return
        worker.enter(WorkerState.SPARE)
        self._reconcile()

    def _ready(self, worker: WorkerProcess, message: Ready) -> None:
        worker.ready(message)
        self._policy.worker_ready()
        self.relay.slot_ready(message.slot)
        log.debug("worker ready", slot=worker.slot, generation=worker.generation, worker_pid=worker.pid)
        if not self._was_ready and self.ready_count == len(self.slots):
            self._was_ready = True
            self._on_ready()
        self._reconcile()

    def _peer_up(self, slot: int, message: PeerUp) -> None:
        connection = PeerConnection(
            slot=slot,
            connection=message.connection,
            host=message.host,
            port=message.port,
            readable=message.readable,
            advertised=tuple(message.advertised),
            reached_at=message.reached_at,
            channels=message.channels,
        )
        self.directory.peer_up(message.peer_id, connection)

    def ready_slots(self) -> dict[int, int]:
        """Return the open connections of each slot that has a ready worker."""
        ready = (worker for worker in self.workers if worker.is_ready)
        return {worker.slot: worker.open_connections for worker in ready if worker.slot is not None}

    def tell_slot(self, slot: int, message: Message) -> bool:
        """Send a message to the worker of a slot; False if there is none or its channel is full."""
        # The number has been through a worker, and a worker reads what strangers send.
        worker = self.slots[slot].worker if 0 <= slot < len(self.slots) else None
        return worker is not None and worker.send(message)

    def _verdict(self, worker: WorkerProcess, now_s: float) -> EndReason | None:
        """Return why this worker must be killed, None if it need not."""
        waited_s = now_s - worker.changed_s
        match worker.state:
            case WorkerState.STARTING if waited_s > HELLO_DEADLINE_S:
                return EndReason.LATE
            case WorkerState.ASSIGNED if waited_s > READY_DEADLINE_S:
                return EndReason.LATE
            case WorkerState.ASSIGNED if self._was_ready and self._silent(worker, now_s, ASSIGNED_TIMEOUT_S):
                return EndReason.FROZEN
            case WorkerState.SPARE if self._silent(worker, now_s, self._spare_timeout_s()):
                return EndReason.FROZEN
            case WorkerState.READY if self._silent(worker, now_s):
                return EndReason.FROZEN
        return None

    def _silent(self, worker: WorkerProcess, now_s: float, at_least_s: float = 0.0) -> bool:
        # A worker that has just said Hello, or was just given its slot, is not judged by the silence before: on a busy
        # machine it loads for longer than any of the timeouts, and would be killed each time it is ready at last.
        return self.watch.overdue(max(worker.last_heartbeat_s, worker.changed_s), now_s, at_least_s)

    def _spare_timeout_s(self) -> float:
        # A slot that waits must not be given to a spare that does not answer.
        waiting = self._was_ready and any(slot.worker is None for slot in self.slots)
        return 0.0 if waiting else SPARE_TIMEOUT_S

    # Matching processes and slots.

    def _replace(self, worker: WorkerProcess) -> None:
        now_s = self._clock()
        assert worker.exit_code is not None, "it has ended"
        end = WorkerEnd(
            slot=worker.slot,
            ready_for_s=None if worker.ready_s is None else now_s - worker.ready_s,
            exit_code=worker.exit_code,
            boot_failure=worker.boot_failure,
        )
        self.restarts[worker.end_reason] += 1
        decision = self._policy.worker_ended(end, now_s=now_s, ready_workers=self.ready_count)
        if isinstance(decision, StopNode):
            # Said by whoever stops the node, in one line.
            self._on_hopeless(decision.reason)
            return
        log.warning(
            "worker lost",
            slot=worker.slot,
            worker_pid=worker.pid,
            reason=str(worker.end_reason),
            detail=end.describe(),
            wait_s=round(max(decision.slot_at_s, decision.start_at_s) - now_s, 3),
        )
        if worker.slot is not None:
            self.slots.vacate(worker.slot, until_s=decision.slot_at_s)
        self.start_at_s = max(self.start_at_s, decision.start_at_s)
        self._reconcile()

    def _reconcile(self) -> None:
        if self.stopping:
            return
        now_s = self._clock()
        for spare in self.spares:
            slot = self.slots.next_vacant(now_s)
            if slot is None:
                break
            generation = self.slots.fill(slot, spare)
            spare.assign(self.plan.assignment(slot.index, generation))
            if generation > 1:
                log.info("slot taken over", slot=slot.index, generation=generation, worker_pid=spare.pid)
        wanted = len(self.slots) + (self.plan.standby_workers if self._was_ready else 0)
        while len(self.workers) < wanted and now_s >= self.start_at_s:
            if not self._start_one(now_s):
                break

    def _start_one(self, now_s: float) -> bool:
        try:
            self.workers.append(self.plan.start_worker(self))
        except OSError as error:
            program = f"{error.filename}: " if error.filename else ""
            reason = f"cannot start a worker as user {os.geteuid()}: {program}{os.strerror(error.errno or 0)}"
        else:
            return True
        end = WorkerEnd(slot=None, ready_for_s=None, exit_code=1, boot_failure=reason)
        decision = self._policy.worker_ended(end, now_s=now_s, ready_workers=self.ready_count)
        if isinstance(decision, StopNode):
            self._on_hopeless(decision.reason)
        else:
            log.error("worker not started", detail=reason, wait_s=round(decision.start_at_s - now_s, 3))
            self.start_at_s = decision.start_at_s
        return False

    def _tell_if_empty(self) -> None:
        if not self.workers:
            self._on_empty()
