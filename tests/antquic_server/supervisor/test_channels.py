"""Tests of the channel broker: how channels come about, how they do not, and how they end."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.config.model import NatSettings
from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import (
    ChannelAnswerIn,
    ChannelClosedOut,
    ChannelCreate,
    ChannelCreated,
    ChannelDestroy,
    ChannelEnded,
    ChannelHangUp,
    ChannelOfferOut,
    ChannelOpenedOut,
    ChannelRefusedOut,
    RelayUsage,
)
from antquic_server.protocol.relay_channel import CHANNEL_ID_BYTES, KEY_BYTES, channel_token
from antquic_server.protocol.relay_limits import Refusal, RelayEnd, RelayMode
from antquic_server.supervisor.channels import ABSENCE_GRACE_S, ANSWER_TIMEOUT_S, session_number
from support.coordination import ALICE, BOB
from support.relay_stage import ALICE_AT, BOB_AT, SECRET, RelayStage

CAROL = bytes(range(200, 232))


def closed(to: bytes, at: tuple[int, int], channel_id: bytes, reason: str) -> tuple[int, Message]:
    """What the worker of a side is told of the end."""
    return at[0], ChannelClosedOut(connection=at[1], peer_id=to, channel_id=channel_id, reason=reason)


def refused(reason: str, request_id: int = 7) -> tuple[int, Message]:
    """What Alice's worker is told of a refusal."""
    return ALICE_AT[0], ChannelRefusedOut(
        connection=ALICE_AT[1], peer_id=ALICE, request_id=request_id, target=BOB, reason=reason
    )


def ended(channel_id: bytes, reason: str = "closed", moved_bytes: int = 0) -> ChannelEnded:
    """An owner's word that a channel has ended."""
    return ChannelEnded(channel_id=channel_id, reason=reason, moved_bytes=moved_bytes)


def test_channel_comes_about_in_four_steps() -> None:
    """Owner, target, initiator; each is told what it needs and nothing that proves another's leg."""
    stage = RelayStage(bandwidth_per_peer_bytes_per_s=4000, burst_s=0.5)
    owner, create = stage.create(request_id=9)
    channel_id = create.channel_id
    assert len(channel_id) == CHANNEL_ID_BYTES
    assert channel_id[3] % 3 == owner
    assert len(create.initiator_key) == len(create.target_key) == KEY_BYTES
    assert create.initiator_key != create.target_key
    assert (create.rate_bytes_per_s, create.burst_bytes) == (4000, 2000)

    token = channel_token(SECRET, channel_id)
    stage.desk.heard(owner, ChannelCreated(channel_id=channel_id, refusal=""))
    offer = ChannelOfferOut(
        connection=BOB_AT[1], target=BOB, initiator=ALICE, channel_id=channel_id, key=create.target_key, token=token
    )
    assert stage.told() == [(BOB_AT[0], offer)]
    assert not stage.desk.channels.connects(ALICE, BOB)

    stage.desk.heard(BOB_AT[0], ChannelAnswerIn(peer_id=BOB, channel_id=channel_id, accepted=True))
    opened = ChannelOpenedOut(
        connection=ALICE_AT[1],
        peer_id=ALICE,
        request_id=9,
        target=BOB,
        channel_id=channel_id,
        key=create.initiator_key,
        token=token,
    )
    assert stage.told() == [(ALICE_AT[0], opened)]
    assert stage.desk.quotas.count(RelayMode.CHANNEL) == len(stage.desk.channels) == 1
    assert stage.desk.channels.connects(ALICE, BOB)
    assert stage.desk.channels.connects(BOB, ALICE)
    assert not stage.desk.channels.connects(ALICE, CAROL)
    stage.wait(60)
    assert [message for _, message in stage.told() if isinstance(message, ChannelClosedOut)] == []


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"target": b"short"}, Refusal.BAD_REQUEST),
        ({"target": ALICE}, Refusal.SELF_TARGET),
        ({"peer_id": b""}, Refusal.UNAUTHENTICATED),
        ({"target": CAROL}, Refusal.TARGET_UNKNOWN),
        ({"target": bytes(32)}, Refusal.UNSUPPORTED),
        ({"target": bytes([1]) * 32}, Refusal.TARGET_UNKNOWN),
        ({"host": "nowhere"}, Refusal.INTERNAL),
    ],
)
def test_request_is_refused_at_once(facts: dict[str, Any], reason: Refusal) -> None:
    """Nothing is created, nothing is charged, and the refusal is counted."""
    stage = RelayStage()
    stage.up(bytes(32), (2, 1), channels=False)
    stage.up(bytes([1]) * 32, (2, 2), readable=False)
    stage.ask(**facts)

    answer = stage.told_one(ChannelRefusedOut, slot=0)
    assert (answer.reason, answer.connection, answer.request_id) == (reason, ALICE_AT[1], 7)
    assert (answer.peer_id, answer.target) == (facts.get("peer_id", ALICE), facts.get("target", BOB))
    assert stage.desk.refused == {(RelayMode.CHANNEL, reason): 1}
    assert stage.desk.quotas.peers == len(stage.desk.channels) == 0


def test_only_the_initiator_is_charged() -> None:
    """Bob is in as many channels as others want him in, and may have as many of his own as ever."""
    stage = RelayStage(max_sessions_per_peer=2)
    for number in range(3):
        stage.open(peer_id=bytes([60 + number]) * 32, host=f"198.18.0.{number}")
    stage.open()
    stage.open()
    stage.ask()
    assert stage.told() == [refused("peer_sessions")]
    stage.ask(slot=1, connection=5, peer_id=BOB, target=ALICE, host="198.51.100.1")
    assert isinstance(stage.told()[0][1], ChannelCreate)


def test_offers_to_one_target_are_limited() -> None:
    """By all together, and by those behind one address: it is the mechanism of introductions."""
    stage = RelayStage(
        NatSettings(introductions_per_target_per_s=1.0, introductions_per_target_burst=4),
    )
    heard = []
    for number in range(8):
        stage.ask(peer_id=bytes([60 + number]) * 32, host=f"198.18.0.{number // 4}")
        ((_, message),) = stage.told()
        heard.append(message.reason if isinstance(message, ChannelRefusedOut) else "created")

    assert heard == ["created"] * 2 + ["target_rate"] * 2 + ["created"] * 2 + ["target_rate"] * 2
    assert stage.desk.quotas.count(RelayMode.CHANNEL) == 4


def test_without_a_ready_worker_there_is_no_channel() -> None:
    """Nobody could own it."""
    stage = RelayStage()
    stage.ready.clear()
    stage.ask()
    assert stage.desk.refused == {(RelayMode.CHANNEL, Refusal.INTERNAL): 1}


def test_owner_that_cannot_be_told_is_an_error_of_ours() -> None:
    """Its queue is full."""
    stage = RelayStage()
    stage.owners = stage.deaf = {2}
    stage.ask()
    assert stage.told() == [refused("internal_error")]
    assert stage.desk.quotas.count(RelayMode.CHANNEL) == 0


@pytest.mark.parametrize(("word", "reason"), [("draining", "draining"), ("a word|of nobody", "internal_error")])
def test_owner_may_refuse(word: str, reason: str) -> None:
    """In words of ours; it has nothing to destroy."""
    stage = RelayStage()
    owner, create = stage.create()
    stage.desk.heard(owner, ChannelCreated(channel_id=create.channel_id, refusal=word))

    assert stage.told() == [refused(reason)]
    assert stage.desk.quotas.peers == len(stage.desk.channels) == 0


def test_silent_owner_is_given_up() -> None:
    """And told, should it have created the channel after all; then its word is awaited as long again."""
    stage = RelayStage()
    owner, create = stage.create()
    stage.wait(ANSWER_TIMEOUT_S - 0.25)
    assert [message for _, message in stage.told() if isinstance(message, ChannelRefusedOut)] == []
    stage.wait(0.25)
    destroy = ChannelDestroy(channel_id=create.channel_id, reason="internal_error")
    assert stage.told() == [refused("internal_error"), (owner, destroy)]
    stage.desk.heard(owner, ChannelCreated(channel_id=create.channel_id, refusal=""))
    assert stage.told() == []
    stage.wait(ANSWER_TIMEOUT_S)
    assert stage.desk.quotas.peers == len(stage.desk.channels) == 0


def test_target_that_has_gone_meanwhile_is_unknown() -> None:
    """The directory is asked again when the channel is there."""
    stage = RelayStage()
    owner, create = stage.create()
    stage.down(BOB, BOB_AT)
    stage.desk.heard(owner, ChannelCreated(channel_id=create.channel_id, refusal=""))

    destroy = ChannelDestroy(channel_id=create.channel_id, reason="target_unknown")
    assert stage.told() == [refused("target_unknown"), (owner, destroy)]


def test_target_whose_worker_cannot_be_told_is_an_error_of_ours() -> None:
    """Its queue is full."""
    stage = RelayStage()
    owner, create = stage.create()
    stage.deaf.add(BOB_AT[0])
    stage.desk.heard(owner, ChannelCreated(channel_id=create.channel_id, refusal=""))
    assert refused("internal_error") in stage.told()


def test_target_that_declines_is_not_told_what_it_knows() -> None:
    """The initiator is, and the owner destroys the channel; its word frees the session."""
    stage = RelayStage()
    owner, offer = stage.offer()
    stage.desk.heard(BOB_AT[0], ChannelAnswerIn(peer_id=BOB, channel_id=offer.channel_id, accepted=False))

    destroy = ChannelDestroy(channel_id=offer.channel_id, reason="target_declined")
    assert stage.told() == [refused("target_declined"), (owner, destroy)]
    assert stage.desk.quotas.count(RelayMode.CHANNEL) == 1
    stage.desk.heard(owner, ended(offer.channel_id))
    assert stage.told() == []
    assert stage.desk.quotas.count(RelayMode.CHANNEL) == len(stage.desk.channels) == 0


def test_target_that_hangs_up_on_an_offer_declines() -> None:
    """An application may say no that way."""
    stage = RelayStage()
    _, offer = stage.offer()
    stage.desk.heard(BOB_AT[0], ChannelHangUp(peer_id=BOB, channel_id=offer.channel_id, reason="later"))
    assert stage.told()[0] == refused("target_declined")


def test_silent_target_is_given_up_and_told() -> None:
    """After five seconds; its late answer changes nothing."""
    stage = RelayStage()
    owner, offer = stage.offer()
    stage.wait(ANSWER_TIMEOUT_S)
    destroy = ChannelDestroy(channel_id=offer.channel_id, reason="target_silent")
    expected = [refused("target_silent"), closed(BOB, BOB_AT, offer.channel_id, "target_silent"), (owner, destroy)]
    assert [
        each for each in stage.told() if isinstance(each[1], ChannelRefusedOut | ChannelClosedOut | ChannelDestroy)
    ] == (expected)
    stage.desk.heard(BOB_AT[0], ChannelAnswerIn(peer_id=BOB, channel_id=offer.channel_id, accepted=True))
    assert stage.told() == []


@pytest.mark.parametrize(
    "word",
    [
        lambda channel_id: (1, ChannelAnswerIn(peer_id=CAROL, channel_id=channel_id, accepted=True)),
        lambda channel_id: (1, ChannelAnswerIn(peer_id=ALICE, channel_id=channel_id, accepted=True)),
        lambda channel_id: (1, ChannelAnswerIn(peer_id=BOB, channel_id=channel_id[:6], accepted=True)),
        lambda channel_id: (1, ChannelAnswerIn(peer_id=BOB, channel_id=b"", accepted=False)),
        lambda channel_id: (0, ChannelHangUp(peer_id=CAROL, channel_id=channel_id, reason="x")),
        lambda channel_id: (0, ChannelHangUp(peer_id=ALICE, channel_id=channel_id, reason="x")),
        lambda channel_id: (0, ChannelHangUp(peer_id=BOB, channel_id=bytes(7), reason="x")),
        lambda channel_id: ((channel_id[3] + 1) % 3, ended(channel_id)),
        lambda channel_id: ((channel_id[3] + 1) % 3, ChannelCreated(channel_id=channel_id, refusal="draining")),
        lambda channel_id: (channel_id[3] % 3, ChannelCreated(channel_id=channel_id, refusal="")),
        lambda _: (0, ended(bytes(7))),
    ],
)
def test_words_of_those_it_does_not_concern_change_nothing(word: Any) -> None:
    """Of strangers, of the initiator about an offer, of workers that do not own the channel."""
    stage = RelayStage()
    _, offer = stage.offer()
    stage.desk.heard(*word(offer.channel_id))
    assert stage.told() == []

    stage.desk.heard(BOB_AT[0], ChannelAnswerIn(peer_id=BOB, channel_id=offer.channel_id, accepted=True))
    assert stage.told_one(ChannelOpenedOut).channel_id == offer.channel_id


def test_initiator_whose_worker_cannot_be_told_gets_no_channel() -> None:
    """The target is told that there is none, or it would bind to it for nothing."""
    stage = RelayStage()
    owner, offer = stage.offer()
    stage.deaf.add(ALICE_AT[0])
    stage.desk.heard(BOB_AT[0], ChannelAnswerIn(peer_id=BOB, channel_id=offer.channel_id, accepted=True))
    expected = [closed(BOB, BOB_AT, offer.channel_id, "internal_error")]
    if owner not in stage.deaf:
        expected.append((owner, ChannelDestroy(channel_id=offer.channel_id, reason="internal_error")))
    assert stage.told() == expected


@pytest.mark.parametrize("who", [ALICE, BOB])
def test_side_that_hangs_up_ends_the_channel_for_the_other(who: bytes) -> None:
    """Its reason goes no further than the worker that read it; the other hears that it is closed."""
    stage = RelayStage()
    owner, opened = stage.open()
    stage.desk.heard(0, ChannelHangUp(peer_id=who, channel_id=opened.channel_id, reason="went | away\x1b"))

    other, at = (BOB, BOB_AT) if who == ALICE else (ALICE, ALICE_AT)
    destroy = ChannelDestroy(channel_id=opened.channel_id, reason="closed")
    assert stage.told() == [closed(other, at, opened.channel_id, "closed"), (owner, destroy)]
    stage.desk.heard(0, ChannelHangUp(peer_id=who, channel_id=opened.channel_id, reason="again"))
    assert stage.told() == []
    stage.desk.heard(owner, ended(opened.channel_id, moved_bytes=99))
    assert stage.desk.quotas.bytes.node_bytes == 99
    assert stage.desk.quotas.peers == len(stage.desk.channels) == 0


@pytest.mark.parametrize(
    ("word", "reason"), [("idle", "idle"), ("never_bound", "never_bound"), ("a word|of nobody", "closed")]
)
def test_owner_that_ends_a_channel_is_believed(word: str, reason: str) -> None:
    """Both sides hear why."""
    stage = RelayStage()
    owner, opened = stage.open()
    stage.desk.heard(owner, ended(opened.channel_id, word, moved_bytes=5))

    assert stage.told() == [
        closed(ALICE, ALICE_AT, opened.channel_id, reason),
        closed(BOB, BOB_AT, opened.channel_id, reason),
    ]
    assert stage.desk.quotas.bytes.node_bytes == 5
    assert stage.desk.quotas.peers == len(stage.desk.channels) == 0


def test_death_of_the_owner_is_told_at_once() -> None:
    """Both sides, on their own workers, and the session is free before they ask again."""
    stage = RelayStage(max_sessions_per_peer=1)
    stage.owners = {2}
    owner, opened = stage.open()
    assert owner == 2
    stage.die(2)

    assert stage.told() == [
        closed(ALICE, ALICE_AT, opened.channel_id, "worker_lost"),
        closed(BOB, BOB_AT, opened.channel_id, "worker_lost"),
    ]
    assert len(stage.desk.channels) == 0
    stage.owners = {0, 1}
    owner, again = stage.open(request_id=8)
    assert owner != 2
    assert again.channel_id != opened.channel_id


def test_death_of_the_owner_of_an_offer_is_a_refusal() -> None:
    """The initiator has no channel yet to hear of; the target has, and a channel that is ending concerns nobody."""
    stage = RelayStage()
    stage.owners = {2}
    _, offer = stage.offer()
    _, opened = stage.open(request_id=8)
    stage.desk.heard(0, ChannelHangUp(peer_id=ALICE, channel_id=opened.channel_id, reason="closed"))
    stage.told()
    stage.die(2)

    assert stage.told() == [refused("worker_lost"), closed(BOB, BOB_AT, offer.channel_id, "worker_lost")]
    assert stage.desk.quotas.peers == len(stage.desk.channels) == 0


def test_side_on_the_dead_worker_is_told_on_another_connection() -> None:
    """If it has one on which it reads of channels; else the stateless reset and the node's unknown tell it."""
    stage = RelayStage()
    stage.owners = {1}
    owner, opened = stage.open()
    assert owner == BOB_AT[0]
    stage.up(BOB, (2, 8), channels=False)
    stage.up(BOB, (2, 9))
    stage.die(owner)
    assert stage.told() == [
        closed(ALICE, ALICE_AT, opened.channel_id, "worker_lost"),
        closed(BOB, (2, 9), opened.channel_id, "worker_lost"),
    ]


def test_channel_outlives_the_connections_it_was_agreed_on() -> None:
    """Datagrams prove themselves; a peer that comes back within ten seconds has lost nothing."""
    stage = RelayStage()
    owner, opened = stage.open()
    stage.down(BOB, BOB_AT)
    stage.wait(ABSENCE_GRACE_S - 1)
    stage.up(BOB, (2, 8))
    stage.wait(60)
    stage.down(BOB, (2, 8))
    stage.told()
    stage.wait(ABSENCE_GRACE_S - 0.25)
    assert stage.told() == []
    stage.wait(0.5)
    destroy = ChannelDestroy(channel_id=opened.channel_id, reason="connection_lost")
    assert stage.told() == [closed(ALICE, ALICE_AT, opened.channel_id, "connection_lost"), (owner, destroy)]
    stage.wait(60)
    assert len(stage.desk.channels) == 0


def test_peers_of_a_dead_worker_may_come_back_too() -> None:
    """The channels that other workers own stay meanwhile."""
    stage = RelayStage()
    stage.owners = {2}
    owner, opened = stage.open()
    stage.die(ALICE_AT[0])
    assert stage.told() == []
    stage.wait(ABSENCE_GRACE_S + 0.25)
    told = stage.told()
    assert closed(BOB, BOB_AT, opened.channel_id, "connection_lost") in told
    assert (owner, ChannelDestroy(channel_id=opened.channel_id, reason="connection_lost")) in told


def test_departure_of_somebody_without_channels_is_nothing() -> None:
    """Nor is that of one of a peer's connections."""
    stage = RelayStage()
    stage.open()
    stage.up(CAROL, (2, 1))
    stage.up(BOB, (2, 2))
    stage.down(CAROL, (2, 1))
    stage.down(BOB, BOB_AT)
    stage.wait(60)
    assert len(stage.desk.channels) == 1


def test_channel_of_a_peer_that_is_out_of_bytes_is_revoked() -> None:
    """With the report that says so, and once; both sides hear why."""
    stage = RelayStage(max_bytes_per_peer=1000)
    owner, opened = stage.open()
    stage.desk.heard(owner, RelayUsage(sessions=[session_number(opened.channel_id)], moved_bytes=[1000]))
    assert stage.told() == [
        closed(ALICE, ALICE_AT, opened.channel_id, "peer_bytes"),
        closed(BOB, BOB_AT, opened.channel_id, "peer_bytes"),
        (owner, ChannelDestroy(channel_id=opened.channel_id, reason="peer_bytes")),
    ]
    stage.wait(1)
    assert not [message for _, message in stage.told() if isinstance(message, ChannelDestroy)]


def test_channel_that_is_about_to_come_about_can_be_revoked() -> None:
    """The initiator is refused, in the words of the limit."""
    stage = RelayStage()
    owner, offer = stage.offer()
    stage.desk.change(replace(stage.desk.quotas.settings, enabled=False))
    told = stage.told()
    assert told[:3] == [
        refused("relay_disabled"),
        closed(BOB, BOB_AT, offer.channel_id, "relay_disabled"),
        (owner, ChannelDestroy(channel_id=offer.channel_id, reason="relay_disabled")),
    ]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "ask",
                "created",
                "refused",
                "answer",
                "decline",
                "hang_up",
                "ended",
                "die",
                "up",
                "down",
                "wait",
                "revoke",
            ]
        ),
        st.integers(0, 7),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_sessions_and_channels_are_the_same_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """Nothing leaks: each channel has its session, and a minute after everybody has left there are none."""
    stage = RelayStage(max_sessions=4)
    known: list[ChannelCreate] = []
    for step, which in steps:
        stage.now_s += 0.2
        channel = known[which % len(known)] if known else None
        if step == "ask":
            stage.ask(request_id=which)
        elif step == "die":
            if which in stage.ready:
                stage.die(which)
                stage.ready[which] = 0
        elif step == "up":
            stage.up(ALICE, (0, which + 10))
        elif step == "down":
            stage.down((ALICE, BOB)[which % 2], (which % 3, which))
        elif step == "wait":
            stage.wait(which * 1.5, tick_s=0.5)
        elif step == "revoke":
            stage.desk.change(replace(stage.desk.quotas.settings, max_sessions=4 - which % 3))
        elif channel is not None:
            channel_id, owner = channel.channel_id, channel.channel_id[3] % 3
            words: dict[str, tuple[int, Any]] = {
                "created": (owner, ChannelCreated(channel_id=channel_id, refusal="")),
                "refused": (owner, ChannelCreated(channel_id=channel_id, refusal="draining")),
                "answer": (1, ChannelAnswerIn(peer_id=BOB, channel_id=channel_id, accepted=True)),
                "decline": (1, ChannelAnswerIn(peer_id=BOB, channel_id=channel_id, accepted=False)),
                "hang_up": (0, ChannelHangUp(peer_id=(ALICE, BOB)[which % 2], channel_id=channel_id, reason="")),
                "ended": (owner, ended(channel_id, RelayEnd.IDLE, which)),
            }
            stage.desk.heard(*words[step])
        known += [message for _, message in stage.told() if isinstance(message, ChannelCreate)]
        assert stage.desk.quotas.count(RelayMode.CHANNEL) == len(stage.desk.channels) <= 4
    for slot in list(stage.ready):
        stage.die(slot)
    stage.wait(60, tick_s=1.0)
    assert stage.desk.quotas.peers == len(stage.desk.channels) == 0
