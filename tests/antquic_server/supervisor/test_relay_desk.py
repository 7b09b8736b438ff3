"""Tests of the relay desk: what workers are answered, told and believed."""

from dataclasses import replace

import pytest

from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import (
    ChannelCreate,
    RelayAddress,
    RelayRate,
    RelayReleased,
    RelayReserve,
    RelayReserved,
    RelayRevoked,
    RelayShare,
    RelayUsage,
)
from antquic_server.protocol.relay_limits import Refusal, RelayMode
from antquic_server.supervisor.channels import session_number
from antquic_server.supervisor.relay_desk import LOAD_STEP_BYTES_PER_S, MAX_STREAM_SESSION
from support.coordination import ALICE, BOB
from support.relay_stage import RelayStage


def of_kind(stage: RelayStage, *kinds: type[Message]) -> list[tuple[int, Message]]:
    """What workers were told, of these kinds."""
    return [(slot, message) for slot, message in stage.told() if isinstance(message, kinds)]


def test_session_is_given_with_its_rate() -> None:
    """All of the peer's bandwidth for the first one, and half of its burst to begin with."""
    stage = RelayStage(bandwidth_per_peer_bytes_per_s=4000, burst_s=0.25)
    answer = stage.reserve(5)
    assert answer == RelayReserved(session=5, refusal="", rate_bytes_per_s=4000, burst_bytes=1000, start_bytes=500)
    assert stage.desk.quotas.count(RelayMode.STREAM) == 1


@pytest.mark.parametrize("number", [-1, MAX_STREAM_SESSION + 1, 1 << 63])
def test_number_of_a_channel_is_none_for_a_stream_session(number: int) -> None:
    """Or a worker could speak for a channel that it does not own."""
    assert RelayStage().reserve(number).refusal == Refusal.INTERNAL


def test_refusal_names_the_limit_and_is_counted() -> None:
    """By mode and reason, in the metrics' words."""
    stage = RelayStage(max_sessions_per_peer=1)
    assert stage.reserve(1).refusal == ""
    assert stage.reserve(2).refusal == "peer_sessions"
    assert stage.reserve(3, b"").refusal == "unauthenticated"
    assert stage.desk.counters() == {
        "relay_refusals|stream|peer_sessions": 1,
        "relay_refusals|stream|unauthenticated": 1,
        "relay_misreports": 0,
    }


def test_refusal_that_gets_lost_is_not_counted() -> None:
    """The worker, whose queue is full, refuses for want of an answer, and counts that."""
    stage = RelayStage(max_sessions_per_peer=1)
    stage.reserve(1)
    stage.deaf.add(0)
    stage.desk.heard(0, RelayReserve(session=2, peer_id=ALICE, host="192.0.2.1"))
    assert stage.desk.refused == {}


def test_peer_that_gives_up_before_it_is_refused_is_no_misreport() -> None:
    """Its worker releases what it has asked for and does not know the answer to."""
    stage = RelayStage(max_sessions_per_peer=1)
    stage.reserve(1)
    assert stage.reserve(2).refusal == "peer_sessions"
    stage.desk.heard(0, RelayReleased(session=2, moved_bytes=0))
    assert stage.desk.misreported == 0
    assert stage.desk.quotas.count(RelayMode.STREAM) == 1


def test_draining_node_gives_no_sessions() -> None:
    """Of either mode."""
    stage = RelayStage()
    stage.desk.drain()
    assert stage.reserve(1).refusal == "draining"
    stage.ask()
    assert stage.desk.refused[RelayMode.CHANNEL, "draining"] == 1


def test_answer_that_gets_lost_leaves_no_session() -> None:
    """The worker's queue is full: it will never release what it was not given."""
    stage = RelayStage()
    stage.deaf.add(0)
    stage.desk.heard(0, RelayReserve(session=1, peer_id=ALICE, host="192.0.2.1"))
    assert stage.desk.quotas.peers == 0


def test_released_session_is_free_and_charged() -> None:
    """Once; a session of the same number of another worker stays."""
    stage = RelayStage()
    stage.reserve(1)
    stage.reserve(1, slot=1)
    stage.desk.heard(0, RelayReleased(session=1, moved_bytes=70))
    stage.desk.heard(0, RelayReleased(session=1, moved_bytes=70))

    assert stage.desk.quotas.bytes.node_bytes == 70
    assert stage.desk.quotas.count(RelayMode.STREAM) == 1
    assert stage.desk.misreported == 1


def test_channel_is_not_released_like_a_stream_session() -> None:
    """It ends by ChannelEnded, which its peers hear of."""
    stage = RelayStage()
    owner, opened = stage.open()
    stage.desk.heard(owner, RelayReleased(session=session_number(opened.channel_id), moved_bytes=1))
    assert len(stage.desk.channels) == stage.desk.misreported == 1


def test_usage_is_charged_by_peer() -> None:
    """Both modes in one report."""
    stage = RelayStage()
    owner, opened = stage.open()
    stage.reserve(1, BOB, slot=owner, host="198.51.100.1")
    stage.desk.heard(owner, RelayUsage(sessions=[1, session_number(opened.channel_id)], moved_bytes=[30, 12]))

    quotas = stage.desk.quotas
    assert quotas.bytes.node_bytes == 42
    assert quotas.bytes.is_peer_out(ALICE, 12, stage.now_s)
    assert not quotas.bytes.is_peer_out(ALICE, 13, stage.now_s)
    assert quotas.bytes.is_peer_out(BOB, 30, stage.now_s)


def test_report_of_two_lengths_is_ignored() -> None:
    """A worker that has lost its mind."""
    stage = RelayStage()
    stage.reserve(1)
    stage.desk.heard(0, RelayUsage(sessions=[1, 2], moved_bytes=[5]))
    assert (stage.desk.quotas.bytes.node_bytes, stage.desk.misreported) == (0, 1)


def test_session_nobody_knows_of_has_to_end() -> None:
    """A message between us was lost: nobody would count what it moves."""
    stage = RelayStage()
    stage.desk.heard(2, RelayUsage(sessions=[9], moved_bytes=[5]))
    assert stage.told() == [(2, RelayRevoked(session=9, reason="internal_error"))]
    assert stage.desk.misreported == 1


def test_peer_out_of_bytes_is_cut_off_with_the_reason() -> None:
    """With the report that crosses the limit; a worker that could not be told is told later, and then no more."""
    stage = RelayStage(max_bytes_per_peer=100)
    stage.reserve(1)
    stage.reserve(1, slot=1)
    stage.told()
    stage.deaf.add(1)
    stage.desk.heard(0, RelayUsage(sessions=[1], moved_bytes=[100]))
    assert of_kind(stage, RelayRevoked) == [(0, RelayRevoked(session=1, reason="peer_bytes"))]
    stage.deaf.clear()
    stage.wait(5)
    assert of_kind(stage, RelayRevoked) == [(1, RelayRevoked(session=1, reason="peer_bytes"))]
    assert stage.reserve(2).refusal == "peer_bytes"


def test_rates_follow_when_a_peer_opens_and_closes() -> None:
    """At once when one is opened, within one tick when one has ended; a worker that could not be told is told later."""
    stage = RelayStage(bandwidth_per_peer_bytes_per_s=1200, burst_s=0.5)
    stage.reserve(1)
    stage.reserve(1, slot=1)
    assert of_kind(stage, RelayRate) == [(0, RelayRate(session=1, rate_bytes_per_s=600, burst_bytes=300))]
    stage.deaf.add(0)
    assert stage.reserve(2, slot=1).rate_bytes_per_s == 400
    assert of_kind(stage, RelayRate) == [(1, RelayRate(session=1, rate_bytes_per_s=400, burst_bytes=200))]
    stage.deaf.clear()
    stage.wait(0.25)
    assert of_kind(stage, RelayRate) == [(0, RelayRate(session=1, rate_bytes_per_s=400, burst_bytes=200))]

    stage.desk.heard(1, RelayReleased(session=1, moved_bytes=0))
    stage.wait(1)
    rate = RelayRate(session=1, rate_bytes_per_s=600, burst_bytes=300)
    assert of_kind(stage, RelayRate) == [(0, rate), (1, replace(rate, session=2))]


def test_each_worker_gets_its_share_and_hears_of_changes_only() -> None:
    """Even while nobody relays; the one that does gets more, and a worker that begins to serve is told at once."""
    stage = RelayStage(bandwidth_bytes_per_s=3000, bandwidth_per_peer_bytes_per_s=3000, burst_s=2.0)
    stage.wait(5)
    even = RelayShare(rate_bytes_per_s=1000, burst_bytes=2000)
    assert of_kind(stage, RelayShare) == [(slot, even) for slot in range(3)]

    stage.reserve(1)
    for _ in range(4):
        stage.desk.heard(0, RelayUsage(sessions=[1], moved_bytes=[1000]))
        stage.wait(1)
    assert (0, RelayShare(rate_bytes_per_s=2800, burst_bytes=5600)) in of_kind(stage, RelayShare)

    stage.die(2)
    stage.ready[2] = 0
    stage.told()
    stage.desk.slot_ready(2)
    assert stage.told() == [(2, even)]


def test_dead_worker_frees_its_sessions() -> None:
    """Of both modes."""
    stage = RelayStage(max_sessions_per_peer=1)
    stage.reserve(1, slot=2)
    assert stage.reserve(2, slot=1).refusal == "peer_sessions"
    stage.die(2)
    assert stage.reserve(3, slot=1).refusal == ""


def test_address_of_a_session_is_known_while_it_lasts() -> None:
    """It is what introductions may name."""
    stage = RelayStage()
    stage.reserve(1)
    stage.desk.heard(0, RelayAddress(session=1, address="203.0.113.7:50000"))
    assert list(map(str, stage.desk.quotas.addresses(ALICE))) == ["203.0.113.7:50000"]
    stage.desk.heard(0, RelayReleased(session=1, moved_bytes=0))
    assert stage.desk.quotas.addresses(ALICE) == []


def test_address_without_sense_is_not_taken() -> None:
    """Of a session that is not there, of a channel, or no address at all."""
    stage = RelayStage()
    owner, opened = stage.open()
    stage.reserve(1)
    stage.desk.heard(0, RelayAddress(session=1, address="somewhere"))
    stage.desk.heard(1, RelayAddress(session=1, address="203.0.113.7:50000"))
    stage.desk.heard(owner, RelayAddress(session=session_number(opened.channel_id), address="203.0.113.7:50000"))

    assert stage.desk.quotas.addresses(ALICE) == []
    assert stage.desk.misreported == 3


def test_channels_go_to_the_least_loaded_worker() -> None:
    """By traffic, then sessions, then connections; little differences of traffic do not count."""
    stage = RelayStage()
    stage.ready = {0: 7, 1: 3, 2: 5}
    assert stage.create()[0] == 1
    assert stage.create()[0] == 2
    stage.reserve(1, BOB, slot=0)
    stage.reserve(2, BOB, slot=0)
    stage.desk.heard(0, RelayUsage(sessions=[1], moved_bytes=[100]))
    assert stage.create()[0] == 1

    for slot, moved in ((1, 5 * LOAD_STEP_BYTES_PER_S), (2, LOAD_STEP_BYTES_PER_S)):
        stage.reserve(10, BOB, slot=slot)
        stage.desk.heard(slot, RelayUsage(sessions=[10], moved_bytes=[moved]))
    assert stage.create()[0] == 0


def test_limits_change_at_once() -> None:
    """Sessions end, rates and shares change, without waiting for anything."""
    stage = RelayStage()
    for number, slot in ((1, 0), (2, 1)):
        stage.reserve(number, slot=slot)
    stage.wait(3)
    stage.told()
    limits = replace(
        stage.desk.quotas.settings,
        max_sessions_per_peer=1,
        bandwidth_per_peer_bytes_per_s=2000,
        bandwidth_bytes_per_s=6000,
        burst_s=0.5,
    )
    stage.desk.change(limits)
    told = stage.told()

    assert (1, RelayRevoked(session=2, reason="peer_sessions")) in told
    assert (0, RelayRate(session=1, rate_bytes_per_s=1000, burst_bytes=500)) in told
    assert {message.rate_bytes_per_s for _, message in told if isinstance(message, RelayShare)} == {2000}
    stage.desk.heard(1, RelayReleased(session=2, moved_bytes=0))
    stage.wait(0.25)
    assert of_kind(stage, RelayRate) == [(0, RelayRate(session=1, rate_bytes_per_s=2000, burst_bytes=1000))]


def test_new_channel_gets_the_part_of_its_peer() -> None:
    """Which other sessions of the peer have already."""
    stage = RelayStage(bandwidth_per_peer_bytes_per_s=1000)
    stage.reserve(1)
    _, create = stage.create()
    assert isinstance(create, ChannelCreate)
    assert create.rate_bytes_per_s == 500
