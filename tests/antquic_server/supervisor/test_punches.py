"""Tests of the book of hole punches: what counts, how often, and what lying peers can do."""

import random
from collections.abc import Sequence

import pytest

from antquic_server.ipc.punch_messages import PunchReported
from antquic_server.protocol.address_discovery import Mapping
from antquic_server.supervisor.punches import LINGER_S, MAX_ATTEMPTS, WINDOW_S, Punches, punch_document

ALICE, BOB, EVE = (bytes([number]) * 32 for number in (1, 2, 3))


class Stage:
    """A book, the clock, and what the node knows of peers."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.nats: dict[bytes, Mapping] = {}
        self.relays: set[bytes] = set()
        self.channels: set[frozenset[bytes]] = set()
        self.punches = Punches(
            lambda peer: self.nats.get(peer, Mapping.UNKNOWN),
            self.relays.__contains__,
            lambda one, other: frozenset((one, other)) in self.channels,
        )

    def introduce(self, initiator: bytes = ALICE, target: bytes = BOB) -> None:
        """Two peers are given each other's addresses."""
        self.punches.introduced(initiator, target, self.now_s)

    def report(self, peer: bytes, other: bytes, succeeded: bool, nat: str = "unknown") -> None:
        """A peer says how it went."""
        message = PunchReported(peer_id=peer, other=other, succeeded=succeeded, nat_mapping=nat)
        self.punches.reported(message, self.now_s)

    def wait(self, duration_s: float) -> None:
        """Let time pass."""
        self.now_s += duration_s
        self.punches.tick(self.now_s)

    def counted(self, name: str) -> dict[str, float]:
        """What is counted under a name, by the rest of its key."""
        counters = self.punches.counters()
        return {key.partition("|")[2]: value for key, value in counters.items() if key.split("|")[0] == name}


@pytest.fixture
def stage() -> Stage:
    """A fresh one."""
    return Stage()


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ((True, True), "successful"),
        ((True, False), "successful"),
        ((False, True), "successful"),
        ((False, False), "failed"),
    ],
)
def test_two_reports_settle_at_once(stage: Stage, words: Sequence[bool], result: str) -> None:
    """One that has a connection is right: the other may have given up a moment before."""
    stage.introduce()
    stage.report(ALICE, BOB, words[0])
    assert stage.counted("hole_punches") == {}
    stage.report(BOB, ALICE, words[1])

    assert stage.counted("hole_punches") == {f"{result}|unknown|unknown": 1}
    stage.wait(WINDOW_S * 2)
    assert stage.counted("hole_punches") == {f"{result}|unknown|unknown": 1}
    assert stage.counted("hole_punches_unknown") == {}


@pytest.mark.parametrize("peer", [ALICE, BOB])
def test_one_report_is_enough_after_a_while(stage: Stage, peer: bytes) -> None:
    """The other side may be a peer of ant-quic, which says nothing."""
    stage.introduce()
    stage.report(peer, BOB if peer is ALICE else ALICE, False)
    stage.wait(LINGER_S - 0.1)
    assert stage.counted("hole_punches") == {}
    stage.wait(0.2)
    assert stage.counted("hole_punches") == {"failed|unknown|unknown": 1}


@pytest.mark.parametrize(("relayed", "hint"), [(None, "none"), (ALICE, "relay_held"), (BOB, "relay_held")])
def test_who_says_nothing_is_unknown(stage: Stage, relayed: bytes | None, hint: str) -> None:
    """Neither a success nor a failure, however long it takes; a relay session is no more than a hint."""
    stage.introduce()
    if relayed is not None:
        stage.relays.add(relayed)
    stage.wait(WINDOW_S - 0.1)
    assert stage.punches.counters() == {}
    stage.wait(0.2)
    assert stage.punches.counters() == {f"hole_punches_unknown|{hint}": 1}


def test_nats_are_those_the_node_has_seen_or_else_the_peers_own_word(stage: Stage) -> None:
    """By the sides of the introduction, whoever reports; a word that means nothing is none."""
    stage.nats = {ALICE: Mapping.DEPENDENT}
    stage.introduce()
    stage.report(BOB, ALICE, True, "endpoint_independent")
    stage.report(ALICE, BOB, True, "endpoint_independent")
    stage.introduce()
    stage.report(BOB, ALICE, False, "192.0.2.1")
    stage.report(ALICE, BOB, False)

    assert stage.counted("hole_punches") == {
        "successful|dependent|endpoint_independent": 1,
        "failed|dependent|unknown": 1,
    }


def test_further_rounds_are_the_same_attempt(stage: Stage) -> None:
    """A side that had given up and asks again has not failed yet; who asks does not matter."""
    stage.introduce()
    stage.report(ALICE, BOB, False)
    stage.wait(2.0)
    stage.introduce()
    stage.wait(LINGER_S)
    assert stage.counted("hole_punches") == {}
    stage.introduce(BOB, ALICE)
    stage.report(ALICE, BOB, True)
    stage.wait(LINGER_S)
    assert stage.counted("hole_punches") == {"successful|unknown|unknown": 1}


def test_a_settled_attempt_is_followed_by_another(stage: Stage) -> None:
    """Peers that part and meet again have punched twice; a success stays one when they are introduced at once."""
    stage.introduce()
    stage.report(ALICE, BOB, True)
    stage.introduce()
    assert stage.counted("hole_punches") == {"successful|unknown|unknown": 1}
    stage.report(ALICE, BOB, False)
    stage.wait(LINGER_S)
    assert stage.counted("hole_punches") == {"successful|unknown|unknown": 1, "failed|unknown|unknown": 1}


def test_who_is_relayed_already_fails_no_more(stage: Stage) -> None:
    """Their attempts to find a direct path go on for as long as they are connected; only a success is news."""
    stage.introduce()
    stage.report(ALICE, BOB, False)
    stage.wait(LINGER_S)
    stage.channels.add(frozenset((ALICE, BOB)))
    for number in range(3):
        stage.introduce()
        stage.report(ALICE, BOB, False)
        stage.report(BOB, ALICE, number == 2)
        stage.wait(300.0)
    stage.introduce()
    stage.wait(300.0)

    assert stage.counted("hole_punches") == {"failed|unknown|unknown": 1, "successful|unknown|unknown": 1}
    assert stage.counted("hole_punch_retries") == {"": 3}
    assert stage.counted("hole_punches_unknown") == {}


def test_a_liar_spoils_no_more_than_its_own_introductions(stage: Stage) -> None:
    """Whom it was not introduced to, twice for one introduction, too late: none of it counts."""
    stage.introduce()
    for _ in range(100):
        stage.report(EVE, ALICE, True)
        stage.report(EVE, EVE, True)
        stage.report(ALICE, EVE, True)
        stage.report(ALICE, BOB, True)
    stage.report(BOB, ALICE, True)
    for _ in range(100):
        stage.report(BOB, ALICE, True)
    stage.wait(WINDOW_S + 1)
    stage.report(BOB, ALICE, True)

    assert stage.counted("hole_punches") == {"successful|unknown|unknown": 1}
    assert stage.counted("punch_reports") == {"not_introduced": 301, "counted": 2, "repeated": 199}


def test_a_worker_that_has_lost_its_mind_makes_no_attempts(stage: Stage) -> None:
    """A pair of one, or ids that are none."""
    stage.introduce(ALICE, ALICE)
    stage.introduce(ALICE, b"b" * 5000)
    stage.wait(WINDOW_S + 1)
    assert stage.punches.counters() == {}


def test_attempts_are_bounded(stage: Stage) -> None:
    """The oldest is settled early, and nothing is lost from the count."""
    for number in range(MAX_ATTEMPTS + 10):
        stage.introduce(ALICE, number.to_bytes(32, "big"))
    stage.report(ALICE, (0).to_bytes(32, "big"), True)
    stage.report(ALICE, (10).to_bytes(32, "big"), True)

    assert stage.counted("hole_punches_unknown") == {"none": 10}
    assert stage.counted("punch_reports") == {"not_introduced": 1, "counted": 1}
    stage.wait(WINDOW_S + 1)
    assert stage.counted("hole_punches_unknown") == {"none": MAX_ATTEMPTS + 9}
    assert stage.counted("hole_punches") == {"successful|unknown|unknown": 1}


def test_the_end_of_the_node_settles_what_was_reported(stage: Stage) -> None:
    """What nobody has said anything about is left out: it may still come about."""
    stage.introduce()
    stage.report(ALICE, BOB, True)
    stage.introduce(ALICE, EVE)
    stage.punches.settle_all()
    assert stage.punches.counters() == {"hole_punches|successful|unknown|unknown": 1, "punch_reports|counted": 1}


def test_every_attempt_is_counted_once_whatever_happens(stage: Stage) -> None:
    """Random introductions, reports and pauses: what was settled never exceeds the introductions, and only grows."""
    randomness = random.Random(5)
    peers = [bytes([number]) * 32 for number in range(6)]
    introductions = 0
    last: dict[str, float] = {}
    for _ in range(5000):
        one, other = randomness.sample(peers, 2)
        match randomness.randrange(4):
            case 0:
                stage.introduce(one, other)
                introductions += 1
            case 1 | 2:
                stage.report(one, other, randomness.random() < 0.5)
            case 3:
                stage.wait(randomness.choice((0.1, 1.0, LINGER_S, 20.0)))
        counters = stage.punches.counters()
        assert all(counters[key] >= value for key, value in last.items())
        last = counters
        settled = sum(value for key, value in counters.items() if key.startswith("hole_punches"))
        assert settled <= introductions
    stage.wait(WINDOW_S + 1)
    assert sum(stage.counted("hole_punches").values()) > 100


def test_document_adds_up_by_pair() -> None:
    """What /status shows: successes and failures of each pair of NATs, and both sums."""
    totals = {
        "hole_punches|successful|unknown|dependent": 3.0,
        "hole_punches|failed|unknown|dependent": 1.0,
        "hole_punches|failed|dependent|dependent": 2.0,
        "hole_punches_unknown|none": 4.0,
        "hole_punches_unknown|relay_held": 1.0,
        "bytes_sent": 9.0,
    }
    assert punch_document(totals) == {
        "successful": 3,
        "failed": 3,
        "unknown": 5,
        "by_nat_pair": [
            {"initiator": "dependent", "target": "dependent", "successful": 0, "failed": 2},
            {"initiator": "unknown", "target": "dependent", "successful": 3, "failed": 1},
        ],
    }
    assert punch_document({}) == {"successful": 0, "failed": 0, "unknown": 0, "by_nat_pair": []}
