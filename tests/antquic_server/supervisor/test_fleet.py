"""Tests of the fleet with pretended processes and a clock that jumps."""

import os
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from antquic_server.config.model import RelaySettings
from antquic_server.ipc.messages import (
    VERSION,
    Assign,
    BootFailed,
    Drain,
    Drained,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Introduce,
    Introduced,
    LimitsChanged,
    Message,
    PeerDown,
    PeerUp,
    Ready,
)
from antquic_server.ipc.relay_messages import (
    ChannelAnswerIn,
    ChannelAsk,
    ChannelClosedOut,
    ChannelCreate,
    ChannelCreated,
    ChannelDestroy,
    ChannelOfferOut,
    ChannelOpenedOut,
    RelayReserve,
    RelayReserved,
    RelayRevoked,
    RelayShare,
)
from antquic_server.supervisor.fleet import ASSIGNED_TIMEOUT_S, SPARE_TIMEOUT_S, Fleet, FleetPlan
from antquic_server.supervisor.policy import GIVE_UP_AFTER, HELLO_DEADLINE_S, READY_DEADLINE_S
from antquic_server.supervisor.process import EndReason, WorkerListener, WorkerProcess, WorkerState

INTERVAL_S = 0.25
TIMEOUT_S = 2.0
PEER = b"p" * 32


class PretendedProcess(WorkerProcess):
    """A worker without a process: everything it is told is kept, and it ends when the test says so."""

    def __init__(self, number: int, clock: Callable[[], float], listener: WorkerListener) -> None:
        self._loop = cast("object", SimpleNamespace(time=clock))  # type: ignore[assignment]
        self._listener = listener
        self.pid = number
        self.state = WorkerState.STARTING
        self.slot = None
        self.generation = 0
        self.started_s = self.changed_s = self.last_heartbeat_s = clock()
        self.ready_s = None
        self.heartbeat = self.readiness = self.boot_failure = self.exit_code = self.figures = None
        self.end_reason = EndReason.CRASHED
        self.told: list[Message] = []
        self.kills: list[EndReason] = []

    @property
    def dropped(self) -> int:
        """One message per process was dropped."""
        return 1

    def send(self, message: Message) -> bool:
        """Keep the message."""
        self.told.append(message)
        return True

    def kill(self, reason: EndReason) -> None:
        """Keep the reason."""
        self.end_reason = reason
        self.kills.append(reason)

    def check_exit(self) -> None:
        """Nothing ends by itself."""

    def read_figures(self) -> None:
        """There is nothing to read."""

    def say(self, message: Message) -> None:
        """Let the worker speak."""
        self._listener.worker_said(self, message)

    def hello(self) -> None:
        """Let the worker greet."""
        self.say(Hello(version=VERSION, pid=self.pid))

    def become_ready(self) -> None:
        """Let the worker serve the slot it was assigned."""
        assert self.slot is not None
        self.say(Ready(slot=self.slot, generation=self.generation, pqc_provider="fake", offloads=[]))

    def tell_beat(self, connections: int = 0, **counters: float) -> None:
        """Let the worker give a sign of life."""
        self.say(
            Heartbeat(
                sequence=1,
                connections=connections,
                handshakes_in_flight=0,
                loop_lag_s=0,
                counters=counters,
            )
        )

    def end(self, exit_code: int = -9) -> None:
        """Let the process end."""
        self.exit_code = exit_code
        self.state = WorkerState.GONE
        self._listener.worker_exited(self)


class Stage:
    """A fleet, its clock and all processes it ever started."""

    def __init__(self, workers: int = 2, standby: int = 1) -> None:
        self.now_s = 100.0
        self.started: list[PretendedProcess] = []
        self.happened: list[str] = []
        self.refuse_starts: OSError | None = None
        plan = FleetPlan(
            worker_count=workers,
            standby_workers=standby,
            heartbeat_interval_s=INTERVAL_S,
            heartbeat_timeout_s=TIMEOUT_S,
            max_connections=100,
            start_worker=self.start_worker,
            assignment=assignment,
        )
        self.fleet = Fleet(
            plan,
            clock=lambda: self.now_s,
            on_ready=lambda: self.happened.append("ready"),
            on_hopeless=lambda reason: self.happened.append(f"hopeless: {reason}"),
            on_empty=lambda: self.happened.append("empty"),
        )

    def start_worker(self, listener: WorkerListener) -> WorkerProcess:
        """Start a pretended process."""
        if self.refuse_starts is not None:
            raise self.refuse_starts
        worker = PretendedProcess(len(self.started) + 1, lambda: self.now_s, listener)
        self.started.append(worker)
        return worker

    def boot(self) -> list[PretendedProcess]:
        """Bring the fleet to where every slot and every spare is ready; returns the slots' workers."""
        self.fleet.start()
        workers = list(self.started)
        for worker in workers:
            worker.hello()
            worker.become_ready()
        for spare in self.started[len(workers) :]:
            spare.hello()
        return workers

    def let_pass(self, seconds: float, beating: list[PretendedProcess] | None = None) -> None:
        """Tick as time passes; ``beating`` gives signs of life (default: all)."""
        end_s = self.now_s + seconds
        while self.now_s < end_s - 1e-9:
            self.now_s += INTERVAL_S
            for worker in self.started if beating is None else beating:
                if worker.exit_code is None:
                    worker.tell_beat()
            self.fleet.tick()


def assignment(slot: int, generation: int) -> Assign:
    """An assignment without content."""
    return Assign(
        slot=slot,
        worker_count=2,
        generation=generation,
        cpu=-1,
        settings={},
        identity_seed=b"",
        root_secret=b"",
        certificate_pem=b"",
        certificate_key_pem=b"",
        sockets=[],
        steering_fd=-1,
        steering_fds=[],
        echo=False,
    )


def test_slots_are_assigned_as_workers_greet_and_spares_start_last() -> None:
    """The node is ready before the first spare costs anything."""
    stage = Stage()
    stage.fleet.start()
    first, second = stage.started
    second.hello()
    first.hello()
    assert (second.slot, first.slot) == (0, 1)

    first.become_ready()
    assert stage.happened == []
    second.become_ready()
    assert stage.happened == ["ready"]
    assert len(stage.started) == 3
    stage.started[2].hello()
    assert stage.fleet.spares == [stage.started[2]]
    assert stage.fleet.ready_count == 2


def test_spare_takes_over_a_dead_slot_at_once() -> None:
    """Within the same call: the spare gets the slot, and a new spare is started."""
    stage = Stage()
    workers = stage.boot()
    spare = stage.started[2]
    workers[1].end()

    assert spare.slot == 1
    assert spare.generation == 2
    assert isinstance(spare.told[-1], Assign)
    assert len(stage.started) == 4
    assert stage.fleet.slots[1].restarts == 1
    assert stage.fleet.restarts[EndReason.CRASHED] == 1
    assert stage.happened == ["ready"]


def test_without_a_spare_a_process_is_started_at_once() -> None:
    """The slot then waits only for the start of the process."""
    stage = Stage(standby=0)
    workers = stage.boot()
    assert len(stage.started) == 2
    workers[0].end()

    assert len(stage.started) == 3
    stage.started[2].hello()
    assert stage.started[2].slot == 0


def test_slot_in_back_off_is_filled_when_its_wait_is_over() -> None:
    """The second young death in a row makes the slot wait, not the spare disappear."""
    stage = Stage()
    stage.boot()[0].end()
    stage.started[2].become_ready()
    stage.started[3].hello()
    stage.started[2].end()
    assert stage.fleet.slots[0].worker is None
    stage.started[4].hello()
    assert stage.fleet.spares == [stage.started[3], stage.started[4]]

    stage.let_pass(INTERVAL_S)
    assert stage.fleet.slots[0].worker is stage.started[3]


def test_frozen_worker_is_killed_and_replaced() -> None:
    """Silence for longer than the timeout is the end; those who beat are left alone."""
    stage = Stage()
    frozen, healthy = stage.boot()
    spare = stage.started[2]
    stage.let_pass(TIMEOUT_S, beating=[healthy, spare])
    assert frozen.kills == []
    stage.let_pass(INTERVAL_S, beating=[healthy, spare])
    assert frozen.kills == [EndReason.FROZEN]
    assert healthy.kills == spare.kills == []

    frozen.end()
    assert stage.fleet.restarts[EndReason.FROZEN] == 1
    assert spare.slot == 0


def test_spare_that_freezes_with_a_slot_in_hand_loses_it() -> None:
    """A slot given to a spare that never answers is served again within seconds, not when its start takes too long."""
    stage = Stage()
    workers = stage.boot()
    spare = stage.started[2]
    workers[1].end()
    assert spare.slot == 1
    replacement = stage.started[3]
    replacement.hello()

    stage.let_pass(ASSIGNED_TIMEOUT_S + 2 * INTERVAL_S, beating=[workers[0], replacement])

    assert set(spare.kills) == {EndReason.FROZEN}
    spare.end()
    assert replacement.slot == 1


@pytest.mark.parametrize("standby", [0, 1])
def test_replacement_that_takes_long_to_start_is_not_frozen(standby: int) -> None:
    """Its silence counts from its first word, and from its slot: on a busy machine it loads for many seconds."""
    stage = Stage(standby=standby)
    workers = stage.boot()
    if standby:
        # It died as well, so that the slot has to wait for a process that is only starting.
        stage.started[2].end()
        stage.let_pass(1.0, beating=workers)
    workers[1].end()
    replacement = stage.started[-1]
    stage.let_pass(HELLO_DEADLINE_S / 2, beating=[workers[0]])
    assert replacement.kills == []

    replacement.hello()
    assert replacement.slot == 1
    stage.let_pass(ASSIGNED_TIMEOUT_S - INTERVAL_S, beating=[workers[0]])
    assert replacement.kills == []

    replacement.become_ready()
    assert stage.fleet.ready_count == 2
    assert stage.fleet.restarts[EndReason.FROZEN] == 0


def test_spare_that_was_kept_waiting_for_its_turn_may_take_the_slot() -> None:
    """It has not been heard for longer than a slot may be silent, and gets that time anew with the slot."""
    stage = Stage()
    workers = stage.boot()
    spare = stage.started[2]
    stage.let_pass(SPARE_TIMEOUT_S - INTERVAL_S, beating=workers)
    workers[1].end()
    assert spare.slot == 1

    stage.let_pass(ASSIGNED_TIMEOUT_S - INTERVAL_S, beating=[workers[0]])

    assert spare.kills == []


def test_frozen_spare_is_killed_too() -> None:
    """A spare that could not take over is no spare."""
    stage = Stage()
    workers = stage.boot()
    stage.let_pass(SPARE_TIMEOUT_S + INTERVAL_S, beating=workers)

    assert stage.started[2].kills == [EndReason.FROZEN]
    stage.started[2].end()
    stage.let_pass(0.5)
    assert len(stage.started) == 4


def test_stall_of_the_supervisor_kills_nobody() -> None:
    """After a long gap the workers have one interval to be heard."""
    stage = Stage()
    workers = stage.boot()
    stage.let_pass(INTERVAL_S)
    stage.now_s += 60
    stage.fleet.tick()
    assert [worker.kills for worker in stage.started] == [[], [], []]

    stage.let_pass(INTERVAL_S, beating=workers)
    assert [worker.kills for worker in stage.started] == [[], [], [EndReason.FROZEN]]


def test_workers_that_never_get_ready_are_killed() -> None:
    """Both waits, for Hello and for Ready, have an end."""
    stage = Stage()
    stage.fleet.start()
    silent, slow = stage.started
    slow.hello()
    stage.let_pass(READY_DEADLINE_S, beating=[])
    assert slow.kills == []
    stage.let_pass(INTERVAL_S, beating=[])
    assert slow.kills[0] is EndReason.LATE

    stage.let_pass(HELLO_DEADLINE_S - READY_DEADLINE_S, beating=[])
    assert silent.kills[0] is EndReason.LATE


@pytest.mark.parametrize("says_so", [True, False])
def test_worker_that_cannot_boot_makes_a_new_node_hopeless(says_so: bool) -> None:
    """By message or by exit code, the first one is enough."""
    stage = Stage()
    stage.fleet.start()
    worker = stage.started[0]
    worker.hello()
    if says_so:
        worker.say(BootFailed(reason="no provider"))
        assert worker.kills == [EndReason.BOOT]
    worker.end(-9 if says_so else 3)

    reason = "no provider" if says_so else "worker ended before it was ready (exit code 3)"
    assert stage.happened == [f"hopeless: {reason}"]


def test_other_version_is_refused_with_the_reason() -> None:
    """Two installations mixed up are told apart from a crash."""
    stage = Stage()
    stage.fleet.start()
    worker = stage.started[0]
    worker.say(Hello(version=VERSION + 1, pid=1))
    assert worker.kills == [EndReason.PROTOCOL]
    worker.end()

    assert len(stage.happened) == 1
    assert f"version {VERSION + 1}" in stage.happened[0]


def test_repeated_crashes_at_start_make_a_new_node_hopeless() -> None:
    """A package that cannot be imported is not restarted for ever."""
    stage = Stage(workers=1, standby=0)
    stage.fleet.start()
    for number in range(GIVE_UP_AFTER):
        assert len(stage.started) == number + 1
        stage.started[number].end(1)
        stage.let_pass(1.0, beating=[])

    assert stage.happened == ["hopeless: worker ended before it was ready (exit code 1)"]


def test_failing_to_start_processes_is_fatal_at_first_and_waited_out_later() -> None:
    """A node that serves waits for memory or process slots to come back."""
    error = OSError(11, "Resource temporarily unavailable")
    unborn = Stage()
    unborn.refuse_starts = error
    unborn.fleet.start()
    assert unborn.happened == [
        f"hopeless: cannot start a worker as user {os.geteuid()}: Resource temporarily unavailable"
    ]

    stage = Stage(standby=0)
    workers = stage.boot()
    stage.refuse_starts = error
    workers[0].end()
    stage.let_pass(2.0)
    assert stage.happened == ["ready"]
    stage.refuse_starts = None
    stage.let_pass(10.0)
    assert len(stage.started) == 3


def test_heartbeats_are_answered_with_the_connections_of_the_others() -> None:
    """Each worker can tell how much of the node's limit is left."""
    stage = Stage()
    first, second = stage.boot()
    first.tell_beat(connections=5)
    second.tell_beat(connections=7)
    first.tell_beat(connections=6)

    acks = [message.connections_elsewhere for message in first.told if isinstance(message, HeartbeatAck)]
    assert acks == [0, 7]
    assert second.told[-1] == HeartbeatAck(sequence=1, connections_elsewhere=5)


def test_directory_follows_reports_and_deaths() -> None:
    """Peers come and go with reports, and go with their worker."""
    stage = Stage()
    first, second = stage.boot()
    directory = stage.fleet.directory
    first.say(PeerUp(peer_id=PEER, connection=1, host="192.0.2.1", port=1))
    second.say(PeerUp(peer_id=PEER, connection=1, host="192.0.2.1", port=2))
    second.say(PeerUp(peer_id=PEER, connection=2, host="192.0.2.1", port=3))
    second.say(PeerDown(peer_id=PEER, connection=2))
    assert [(each.slot, each.connection) for each in directory.find(PEER)] == [(0, 1), (1, 1)]

    second.end()
    assert [each.slot for each in directory.find(PEER)] == [0]


def question(**changes: Any) -> Introduce:
    """A peer of some worker asks for ``PEER``."""
    fields: dict[str, Any] = {
        "request_id": 7,
        "expires_at_unix_ms": 1,
        "round": 1,
        "initiator": b"i" * 32,
        "target": PEER,
        "connection": 3,
        "address": "192.0.2.9:9",
        "advertised": [],
    }
    return Introduce(**(fields | changes))


def test_introductions_go_through_the_hub_to_the_targets_worker_and_back() -> None:
    """The question arrives with the slot that asked, the answer at that slot."""
    stage = Stage()
    first, second = stage.boot()
    second.say(PeerUp(peer_id=PEER, connection=4, host="192.0.2.1", port=1))
    first.say(question())
    passed_on = second.told[-1]
    assert passed_on == question(slot=0, target_connection=4)

    assert isinstance(passed_on, Introduce)
    answer = passed_on.answer(initiator_address="192.0.2.9:9", target_address="192.0.2.1:1")
    second.say(answer)
    assert first.told[-1] == answer
    assert first.kills == second.kills == []


def test_readable_flag_reaches_the_directory() -> None:
    """A peer that only asks is listed, and is no target."""
    stage = Stage()
    first, second = stage.boot()
    second.say(PeerUp(peer_id=PEER, connection=4, host="192.0.2.1", port=1, readable=False))
    first.say(question())

    assert [each.readable for each in stage.fleet.directory.find(PEER)] == [False]
    assert first.told[-1] == question(slot=0).answer(reason="UnknownTarget")


def test_target_on_a_slot_without_worker_is_unknown() -> None:
    """What the directory knew of a dead worker is gone with it; its successor is not asked for strangers."""
    stage = Stage(standby=0)
    first, second = stage.boot()
    second.say(PeerUp(peer_id=PEER, connection=4, host="192.0.2.1", port=1))
    second.end()
    first.say(question())

    assert first.told[-1] == question(slot=0).answer(reason="UnknownTarget")


@pytest.mark.parametrize("slot", [-1, 1, 2, 1000])
def test_answers_for_nobody_are_dropped(slot: int) -> None:
    """A worker that has died, and numbers that were never a slot, harm nobody."""
    stage = Stage(standby=0)
    first, second = stage.boot()
    second.end()
    count = len(first.told)
    first.say(question(slot=slot).answer(reason="UnknownTarget"))

    assert first.kills == []
    assert len(first.told) == count


@pytest.mark.parametrize("message", [question(), question(slot=0).answer()], ids=lambda item: type(item).__name__)
def test_spare_may_not_introduce(message: Introduce | Introduced) -> None:
    """It has no peers who could have asked."""
    stage = Stage()
    stage.boot()
    stage.started[2].say(message)

    assert stage.started[2].kills == [EndReason.PROTOCOL]


def test_counters_of_dead_workers_stay_in_the_totals() -> None:
    """The successor's counts are added to its predecessor's."""
    stage = Stage()
    first, second = stage.boot()
    first.tell_beat(retries=5, timers=3)
    second.tell_beat(retries=2)
    first.end()
    fleet = stage.fleet
    assert fleet.retired.total(fleet.snapshots())["retries"] == 7

    stage.started[2].become_ready()
    stage.started[2].tell_beat(retries=1, timers=4)
    total = fleet.retired.total(fleet.snapshots())
    assert (total["retries"], total["timers"]) == (8, 4)
    assert fleet.ipc_dropped == len(stage.started)


@pytest.mark.parametrize(
    "message",
    [
        Drain(deadline_s=1),
        assignment(0, 1),
        HeartbeatAck(sequence=1, connections_elsewhere=0),
        Hello(version=VERSION, pid=1),
        Ready(slot=0, generation=1, pqc_provider="", offloads=[]),
    ],
    ids=lambda message: type(message).__name__,
)
def test_worker_that_speaks_out_of_turn_is_killed(message: Message) -> None:
    """A worker that says what only the supervisor may say, or says it twice, is out of its mind."""
    stage = Stage()
    worker = stage.boot()[0]
    worker.say(message)

    assert worker.kills == [EndReason.PROTOCOL]


def test_spare_may_not_report_peers() -> None:
    """It has no sockets to have heard of them."""
    stage = Stage()
    stage.boot()
    stage.started[2].say(PeerUp(peer_id=PEER, connection=1, host="192.0.2.1", port=1))

    assert stage.started[2].kills == [EndReason.PROTOCOL]
    assert stage.fleet.directory.peer_count == 0


def test_draining_asks_everybody_and_replaces_nobody() -> None:
    """Slots and spares are asked; what has not even greeted is killed."""
    stage = Stage()
    stage.boot()
    stage.started[2].end(1)
    stage.let_pass(0.5)
    late = stage.started[3]
    stage.fleet.drain(1.5)
    stage.fleet.drain(1.5)
    assert late.kills
    for worker in stage.started[:2]:
        assert worker.told.count(Drain(deadline_s=1.5)) == 1
        worker.say(Drained(connections=3))
        worker.say(Ready(slot=worker.slot or 0, generation=1, pqc_provider="", offloads=[]))
        assert worker.kills == []
        worker.end(0)
    assert "empty" not in stage.happened
    late.end()
    assert stage.happened == ["ready", "empty"]
    assert len(stage.started) == 4


def test_killing_an_empty_fleet_is_the_end() -> None:
    """Nothing to wait for means the end is reported at once."""
    stage = Stage()
    stage.fleet.kill()

    assert stage.happened == ["empty"]


RESERVE = RelayReserve(session=1, peer_id=PEER, host="192.0.2.1")


def told(worker: PretendedProcess, kind: type[Message]) -> list[Message]:
    """What a worker was told, of one kind."""
    return [message for message in worker.told if isinstance(message, kind)]


def test_relay_sessions_are_those_of_living_workers() -> None:
    """A worker that dies frees them, and its peers' channels hear of it; its successor is told its share."""
    stage = Stage()
    first, _ = stage.boot()
    assert len(told(first, RelayShare)) >= 1
    first.say(RESERVE)
    (answer,) = told(first, RelayReserved)
    assert answer == replace(cast("RelayReserved", answer), session=1, refusal="")
    assert stage.fleet.relay.quotas.peers == 1
    first.end()
    assert stage.fleet.relay.quotas.peers == 0
    stage.started[2].become_ready()
    assert len(told(stage.started[2], RelayShare)) == 1


def test_channel_is_brokered_between_workers() -> None:
    """Down to the death of its owner, which both sides hear of."""
    stage = Stage()
    first, second = stage.boot()
    other = b"o" * 32
    first.say(PeerUp(peer_id=PEER, connection=1, host="192.0.2.1", port=1, channels=True))
    second.say(PeerUp(peer_id=other, connection=2, host="192.0.2.2", port=1, channels=True))
    second.tell_beat(connections=5)
    first.say(ChannelAsk(connection=1, peer_id=PEER, host="192.0.2.1", request_id=1, target=other))
    (create,) = told(first, ChannelCreate)
    assert isinstance(create, ChannelCreate)
    first.say(ChannelCreated(channel_id=create.channel_id, refusal=""))
    assert len(told(second, ChannelOfferOut)) == 1
    second.say(ChannelAnswerIn(peer_id=other, channel_id=create.channel_id, accepted=True))
    assert len(told(first, ChannelOpenedOut)) == 1

    first.end()
    (closed,) = told(second, ChannelClosedOut)
    assert closed == ChannelClosedOut(connection=2, peer_id=other, channel_id=create.channel_id, reason="worker_lost")


def test_peer_that_leaves_for_good_loses_its_channels() -> None:
    """The fleet tells the broker who has gone, and of the time."""
    stage = Stage()
    first, second = stage.boot()
    other = b"o" * 32
    for worker, peer_id in ((first, PEER), (second, other)):
        worker.say(PeerUp(peer_id=peer_id, connection=1, host="192.0.2.1", port=1, channels=True))
    first.say(ChannelAsk(connection=1, peer_id=PEER, host="192.0.2.1", request_id=1, target=other))
    ((owner, create),) = [(worker, each) for worker in (first, second) for each in told(worker, ChannelCreate)]
    assert isinstance(create, ChannelCreate)
    owner.say(ChannelCreated(channel_id=create.channel_id, refusal=""))
    second.say(ChannelAnswerIn(peer_id=other, channel_id=create.channel_id, accepted=True))
    second.say(PeerDown(peer_id=other, connection=1))
    stage.let_pass(11)
    assert told(owner, ChannelDestroy) == [ChannelDestroy(channel_id=create.channel_id, reason="connection_lost")]


def test_spare_may_not_relay() -> None:
    """It has no peers who could have asked."""
    stage = Stage()
    stage.boot()
    stage.started[2].say(RESERVE)
    assert stage.started[2].kills == [EndReason.PROTOCOL]


def test_changed_limits_reach_every_slot() -> None:
    """And no spare, which is told all settings when it is assigned."""
    stage = Stage()
    first, _ = stage.boot()
    first.say(RESERVE)
    stage.fleet.change_relay(RelaySettings(enabled=False), {"relay": {"enabled": False}})
    changed = LimitsChanged(settings={"relay": {"enabled": False}})
    assert [told(worker, LimitsChanged) for worker in stage.started] == [[changed], [changed], []]
    assert told(first, RelayRevoked) == [RelayRevoked(session=1, reason="relay_disabled")]


def test_draining_fleet_refuses_relay_sessions() -> None:
    """Their peers look for another node."""
    stage = Stage()
    first, _ = stage.boot()
    stage.fleet.drain(1.5)
    first.say(RESERVE)
    assert told(first, RelayReserved) == [RelayReserved(session=1, refusal="draining")]
