"""Tests of the hub: questions find the target's worker, answers find their way back, the node's limits hold."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from antquic_server.config.model import NatSettings
from antquic_server.ipc.messages import Introduce, Introduced, Message
from antquic_server.protocol.address import SocketAddress
from antquic_server.supervisor.directory import Directory, PeerConnection
from antquic_server.supervisor.hub import UNPROVEN_BURST, UNPROVEN_PER_S, Hub
from antquic_server.supervisor.target_limits import Limit
from support.coordination import ALICE, BOB

NAT = NatSettings(
    coordination_rate_per_s=0.5,
    coordination_burst=3,
    introductions_per_target_per_s=2.0,
    introductions_per_target_burst=8,
)

QUESTION = Introduce(
    request_id=7,
    expires_at_unix_ms=1_764_000_000_000,
    round=1,
    initiator=ALICE,
    target=BOB,
    connection=3,
    address="198.18.0.5:4433",
    advertised=["[2001:470::1]:4433"],
)
PASSED_ON = replace(QUESTION, advertised=[])
"""Both sides have IPv4 addresses, so that what is advertised is of no use."""


class Stage:
    """A hub before workers that take every message, except those of ``deaf`` slots."""

    def __init__(self, nat: NatSettings = NAT) -> None:
        self.now_s = 1000.0
        self.directory = Directory(100)
        self.relays: dict[bytes, list[SocketAddress]] = {}
        self.hub = Hub(
            self.directory,
            self.tell_slot,
            nat=nat,
            clock=lambda: self.now_s,
            relay_addresses=lambda peer_id: self.relays.get(peer_id, []),
            holds_relay=self.relays.__contains__,
        )
        self.told: list[tuple[int, Message]] = []
        self.deaf: set[int] = set()

    def tell_slot(self, slot: int, message: Message) -> bool:
        """Note the message."""
        if slot in self.deaf:
            return False
        self.told.append((slot, message))
        return True

    def up(self, peer_id: bytes, slot: int, connection: int, host: str = "192.0.2.1", **facts: Any) -> None:
        """List a connection."""
        listed = PeerConnection(slot=slot, connection=connection, host=host, port=1, **facts)
        assert self.directory.peer_up(peer_id, listed)

    def ask(
        self, initiator: int | bytes = ALICE, target: bytes = BOB, address: str = "198.18.0.5:1", **facts: Any
    ) -> str:
        """Have a peer ask, a number standing for its id; returns what came of it: ``passed`` or the reason."""
        who = initiator if isinstance(initiator, bytes) else initiator.to_bytes(32, "big")
        self.told.clear()
        self.hub.introduce(0, replace(QUESTION, initiator=who, target=target, address=address, **facts))
        ((_, message),) = self.told
        return message.reason if isinstance(message, Introduced) else "passed"

    def limited(self) -> dict[Limit, int]:
        """What was refused, by limit."""
        return {limit: count for limit, count in self.hub.limited.items() if count}


@pytest.mark.parametrize("asking_slot", [0, 1])
def test_question_goes_to_the_worker_that_has_the_target(asking_slot: int) -> None:
    """With the asking slot and the target's connection filled in; another worker and the same one are alike."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.hub.introduce(asking_slot, QUESTION)

    assert stage.told == [(1, replace(PASSED_ON, slot=asking_slot, target_connection=5))]


def test_newest_connection_that_the_target_reads_is_taken() -> None:
    """A connection made only to ask is passed over, however new."""
    stage = Stage()
    stage.up(BOB, 0, 9)
    stage.up(BOB, 1, 5)
    stage.up(BOB, 0, 10, readable=False)
    stage.hub.introduce(0, QUESTION)

    assert stage.told == [(1, replace(PASSED_ON, slot=0, target_connection=5))]


@pytest.mark.parametrize("readable", [None, False])
def test_unknown_target_is_answered_at_once(readable: bool | None) -> None:
    """Nobody, or nobody who listens: the asking worker hears of it on its own message's terms."""
    stage = Stage()
    if readable is not None:
        stage.up(BOB, 1, 5, readable=readable)
    stage.hub.introduce(0, QUESTION)

    assert stage.told == [(0, replace(QUESTION, slot=0).answer(reason="UnknownTarget"))]


def test_target_whose_worker_cannot_be_told_is_an_error_of_ours() -> None:
    """The worker is being replaced, or its queue is full."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.deaf.add(1)
    stage.hub.introduce(0, QUESTION)

    ((slot, answer),) = stage.told
    assert slot == 0
    assert isinstance(answer, Introduced)
    assert (answer.reason, answer.slot, answer.connection) == ("InternalError", 0, 3)


def test_target_that_left_with_its_worker_is_unknown() -> None:
    """The directory is asked each time."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.directory.slot_down(1)
    stage.hub.introduce(0, QUESTION)

    assert [message.reason for _, message in stage.told if isinstance(message, Introduced)] == ["UnknownTarget"]


def test_slot_that_a_worker_claims_is_not_believed() -> None:
    """The hub knows who speaks to it."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.hub.introduce(2, replace(QUESTION, slot=0, target_connection=77))

    assert stage.told == [(1, replace(PASSED_ON, slot=2, target_connection=5))]


def test_answer_goes_back_to_the_worker_that_asked() -> None:
    """Unchanged; one for a worker that is gone is lost with the initiator's connection."""
    stage = Stage()
    answer = replace(QUESTION, slot=2).answer(initiator_address="198.18.0.5:1", target_address="198.18.0.6:2")
    stage.hub.introduced(answer)
    assert stage.told == [(2, answer)]

    stage.deaf.add(2)
    stage.hub.introduced(answer)
    assert len(stage.told) == 1


def test_initiator_that_does_not_read_where_it_asked_is_answered_where_it_does() -> None:
    """An ant-quic peer may dial a connection only to ask; the answer goes to the one it listens on, on any worker."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.up(ALICE, 2, 8)
    stage.up(ALICE, 0, 3, readable=False)
    stage.hub.introduce(0, QUESTION)

    assert stage.told == [(1, replace(PASSED_ON, slot=2, connection=8, target_connection=5))]


def test_initiator_that_reads_nowhere_is_answered_where_it_asked() -> None:
    """There is no better place."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.up(ALICE, 0, 3, readable=False)
    stage.hub.introduce(0, QUESTION)

    assert stage.told == [(1, replace(PASSED_ON, slot=0, target_connection=5))]


def test_initiator_is_answered_where_it_asked_even_if_it_has_a_newer_connection() -> None:
    """The request itself proves that this path works."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.up(ALICE, 0, 3)
    stage.up(ALICE, 2, 8)
    stage.hub.introduce(0, QUESTION)

    assert stage.told == [(1, replace(PASSED_ON, slot=0, target_connection=5))]


# Limits of the whole node.


def test_initiator_has_one_rate_whichever_workers_it_asks() -> None:
    """A burst, then one every two seconds; what others ask does not count, and unknown targets do."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    heard = []
    for slot in range(5):
        stage.told.clear()
        stage.hub.introduce(slot, replace(QUESTION, target=BOB if slot % 2 else bytes(32)))
        heard.append(getattr(stage.told[0][1], "reason", "passed"))
    assert heard == ["UnknownTarget", "passed", "UnknownTarget", "RateLimited", "RateLimited"]
    assert stage.limited() == {Limit.INITIATOR: 2}

    assert stage.ask(7) == "passed"
    stage.now_s += 2.0
    assert [stage.ask(), stage.ask()] == ["passed", "RateLimited"]


def test_target_is_asked_for_by_all_together_no_faster_than_its_limit() -> None:
    """However many initiators there are, from however many places; other targets are not concerned."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    stage.up(ALICE, 1, 6)
    heard = [stage.ask(number, address=f"198.18.{number}.1:1") for number in range(100)]
    assert heard == ["passed"] * 8 + ["RateLimited"] * 92
    assert stage.limited() == {Limit.TARGET: 92}

    assert stage.ask(200, target=ALICE) == "passed"
    stage.now_s += 0.5
    assert [stage.ask(201), stage.ask(202)] == ["passed", "RateLimited"]


def test_one_place_cannot_use_up_a_targets_limit() -> None:
    """An attacker with a thousand peer ids behind one address leaves half of it to the others."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    for number in range(1000):
        stage.ask(number, address=f"198.18.0.5:{number + 1}")
        stage.now_s += 0.001
    assert stage.limited()[Limit.TARGET_SHARE] > 900
    assert Limit.TARGET not in stage.limited()

    assert stage.ask(5000, address="198.18.0.6:1") == "passed"


def test_one_place_of_ipv6_is_what_one_customer_gets() -> None:
    """A /48, in which an attacker can take any address it likes."""
    stage = Stage()
    stage.up(BOB, 1, 5, "2001:470::b")
    heard = [stage.ask(number, address=f"[2001:470:1:{number}::{number}]:1") for number in range(6)]
    assert heard == ["passed"] * 4 + ["RateLimited"] * 2
    assert stage.ask(9, address="[2001:470:2::1]:1") == "passed"


def test_unknown_targets_do_not_touch_the_targets_limit() -> None:
    """A target that comes back is not made to wait for what was asked while it was away."""
    stage = Stage()
    assert {stage.ask(number, address=f"198.18.{number}.1:1") for number in range(50)} == {"UnknownTarget"}
    stage.up(BOB, 1, 5)
    assert stage.ask(77) == "passed"


@pytest.mark.parametrize("damage", [{"address": "nowhere"}, {"advertised": ["nowhere"]}])
def test_question_with_an_address_that_is_none_is_refused(damage: dict[str, Any]) -> None:
    """A worker's word is checked where it is used."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    assert stage.ask(**damage) == "InternalError"


# Families.

SIX = "[2001:470::1]:4433"


def passed_on(stage: Stage) -> tuple[list[str], list[str]]:
    """The addresses that the target's worker may use beside the observed ones."""
    ((_, message),) = stage.told
    assert isinstance(message, Introduce)
    return message.advertised, message.target_advertised


def test_address_seen_on_another_connection_brings_families_together() -> None:
    """Of the initiator, whatever it advertises; it is proven and costs nothing."""
    stage = Stage()
    stage.up(ALICE, 3, 1, "2001:470::aa")
    stage.up(BOB, 1, 5, "2001:470::b")
    for number in range(3):
        assert stage.ask(request_id=number, advertised=[SIX]) == "passed"
        assert passed_on(stage) == (["[2001:470::aa]:1"], [])
    assert stage.limited() == {}


def test_address_seen_of_the_target_comes_before_one_the_initiator_claims() -> None:
    """Proven before advertised."""
    stage = Stage()
    stage.up(BOB, 2, 4, "203.0.113.9")
    stage.up(BOB, 1, 5, "2001:470::b")
    assert stage.ask(advertised=[SIX]) == "passed"
    assert passed_on(stage) == ([], ["203.0.113.9:1"])


def test_address_that_is_only_advertised_is_named_rarely() -> None:
    """By whichever peers, and whichever address of one prefix it is: it may be a victim's."""
    stage = Stage()
    for number in range(40):
        stage.up(bytes([number]) * 32, 1, number, "2001:470::b")
    heard = [
        stage.ask(1000 + number, target=bytes([number % 40]) * 32, address=f"198.18.{number}.1:1", advertised=[SIX])
        for number in range(100)
    ]
    assert heard.count("passed") == UNPROVEN_BURST
    assert stage.limited() == {Limit.UNPROVEN_ADDRESS: 100 - UNPROVEN_BURST}

    stage.now_s += 1 / UNPROVEN_PER_S
    asked = partial(stage.ask, target=bytes(32), advertised=["[2001:470::ffff]:9"])
    assert [asked(500), asked(501)] == ["passed", "RateLimited"]
    assert stage.ask(502, target=bytes(32), advertised=["[2620:fe::1]:9"]) == "passed"


def test_what_the_target_advertises_is_limited_alike() -> None:
    """The directory has it."""
    stage = Stage()
    stage.up(BOB, 1, 5, advertised=("[2001:470::9]:9", "10.0.0.1:1"))
    heard = [stage.ask(number, address=f"[2001:470:{number}::1]:1", advertised=[]) for number in range(8)]
    assert heard == ["passed"] * 5 + ["RateLimited"] * 3
    stage.now_s += 5.0
    assert stage.ask(address="[2001:470:ff::1]:1", advertised=[]) == "passed"
    assert passed_on(stage) == ([], ["[2001:470::9]:9"])


def test_without_any_address_of_the_family_the_worker_decides() -> None:
    """The question is passed on: a peer may just have moved to the other family."""
    stage = Stage()
    stage.up(BOB, 1, 5, "2001:470::b")
    assert stage.ask(advertised=["127.0.0.1:1"]) == "passed"
    assert passed_on(stage) == ([], [])


RELAY = "203.0.113.7:50000"
OTHER_RELAY = "203.0.113.7:50001"
SIX_RELAY = "[2001:470:7::1]:50000"


def addresses(*texts: str) -> list[SocketAddress]:
    """Where a peer is reached through its relay sessions."""
    return [SocketAddress.parse(text) for text in texts]


@pytest.mark.parametrize(
    ("held", "advertised", "named"),
    [
        ([RELAY], (RELAY,), RELAY),
        ([RELAY], (), ""),
        ([RELAY], ("10.0.0.1:1",), ""),
        ([], (RELAY,), ""),
        ([OTHER_RELAY, RELAY], (RELAY,), RELAY),
        ([SIX_RELAY, RELAY], (RELAY, SIX_RELAY), RELAY),
        ([SIX_RELAY], (SIX_RELAY,), ""),
    ],
)
def test_target_that_listens_behind_a_relay_is_named_there(
    held: list[str], advertised: tuple[str, ...], named: str
) -> None:
    """If the session is there and the peer says that it listens behind it, in a family that the initiator has."""
    stage = Stage()
    stage.relays[BOB] = addresses(*held)
    stage.up(BOB, 1, 5, advertised=advertised)
    stage.up(BOB, 0, 6)
    assert stage.ask(advertised=[]) == "passed"
    ((_, message),) = stage.told
    assert isinstance(message, Introduce)
    assert (message.target_relay, message.address) == (named, "198.18.0.5:1")


def test_initiator_that_has_both_families_reaches_a_relay_of_the_other() -> None:
    """With the address of it that we have seen."""
    stage = Stage()
    stage.relays[BOB] = addresses(SIX_RELAY)
    stage.up(ALICE, 0, 1, "2001:470::aa")
    stage.up(BOB, 1, 5, advertised=(SIX_RELAY,))
    assert stage.ask(advertised=[]) == "passed"
    ((_, message),) = stage.told
    assert isinstance(message, Introduce)
    assert (message.target_relay, message.advertised) == (SIX_RELAY, ["[2001:470::aa]:1"])


@pytest.mark.parametrize(
    ("round_number", "held", "address"),
    [
        (1, [RELAY], "198.18.0.5:1"),
        (2, [RELAY], RELAY),
        (3, [SIX_RELAY, RELAY], RELAY),
        (2, [SIX_RELAY], "198.18.0.5:1"),
        (2, [], "198.18.0.5:1"),
    ],
)
def test_initiator_dials_through_its_relay_once_a_round_has_failed(
    round_number: int, held: list[str], address: str
) -> None:
    """So the target has to open its NAT for what comes from there."""
    stage = Stage()
    stage.relays[ALICE] = addresses(*held)
    stage.up(BOB, 1, 5)
    assert stage.ask(advertised=[], round=round_number) == "passed"
    ((_, message),) = stage.told
    assert isinstance(message, Introduce)
    assert (message.address, message.target_relay) == (address, "")


def test_limit_of_an_address_is_that_of_the_peer_not_of_its_relay() -> None:
    """Or the node's own address would use up what all its relayed peers may ask for together."""
    stage = Stage()
    stage.up(BOB, 1, 5)
    for number in range(8):
        stage.relays[number.to_bytes(32, "big")] = addresses(RELAY)
        assert stage.ask(number, address=f"198.18.{number}.1:1", advertised=[], round=2) == "passed"


def test_introductions_are_counted_by_what_was_given() -> None:
    """Refused ones are not."""
    stage = Stage()
    stage.relays[BOB] = addresses(RELAY)
    asked = replace(QUESTION, slot=0)
    stage.hub.introduced(asked.answer(reason="UnknownTarget"))
    stage.hub.introduced(asked.answer(initiator_address="198.18.0.5:1", target_address="192.0.2.1:1"))
    stage.hub.introduced(asked.answer(initiator_address="198.18.0.5:1", target_address=RELAY))
    assert stage.hub.introduced_by == {"direct": 1, "relayed": 1}
