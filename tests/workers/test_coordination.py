"""Tests of ``workers.coordination``: requests are served or refused, on one worker and across several."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from antquic_server.config.model import NatSettings
from antquic_server.ipc.messages import Introduce, Introduced, Message
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import RejectionReason
from antquic_server.protocol.coordinator import CLOCK_SKEW_MS
from antquic_server.protocol.limits import KeyedBuckets
from antquic_server.protocol.raw_public_key import peer_id
from antquic_server.stats.counters import CounterSet
from antquic_server.supervisor.directory import Directory, PeerConnection
from antquic_server.supervisor.hub import Hub
from support.coordination import ALICE, BOB, accepted, on_the_wire, rejected, request, request_fields
from support.in_process import Bench, run, running_worker, settings_with, until
from support.pair import node_key
from workers.connection import Connection
from workers.coordination import OUTCOMES, Coordination, Surroundings

CAROL = bytes(range(200, 232))
NOW_S = 1_764_000_000.0
NOW_MS = int(NOW_S * 1000)
RATE_PER_S = 0.5
BURST = 3
NAT = NatSettings(coordination_rate_per_s=RATE_PER_S, coordination_burst=BURST)
CLIENT_PEER_ID = peer_id(node_key("client").public_key)


@dataclass(kw_only=True)
class FakeQuic:
    """What coordination asks of a connection's state machine."""

    candidates: list[SocketAddress] = field(default_factory=list)
    is_closing: bool = False
    blocked: bool = False
    sent: list[bytes] = field(default_factory=list)
    moved_to: PathAddress | None = None

    def send_message(self, data: bytes) -> bool:
        """Keep the message, unless the peer grants no streams."""
        if not self.blocked:
            self.sent.append(data)
        return not self.blocked

    def get_peer_address(self) -> PathAddress | None:
        """Where the newest packet came from, if the connection has not noticed yet."""
        return self.moved_to


class FakeWorker:
    """A coordination with its connections; what it tells the hub waits in the node's queue."""

    def __init__(self, node: "FakeNode", slot: int) -> None:
        self.slot = slot
        self.connections: dict[int, Connection] = {}
        self.flushed: list[int] = []
        self.hub_is_full = False
        self.counters = CounterSet()
        self._node = node
        surroundings = Surroundings(
            tell_hub=self.tell_hub,
            find=self.connections.get,
            flush=lambda connection: self.flushed.append(connection.number),
            monotonic_s=lambda: node.monotonic_s,
            unix_s=lambda: NOW_S,
        )
        self.coordination = Coordination(
            surroundings, counters=self.counters, rates=KeyedBuckets(RATE_PER_S, BURST, 1 << 12)
        )

    def tell_hub(self, message: Message) -> bool:
        """Queue the message for the hub."""
        if not self.hub_is_full:
            self._node.queue.append(partial(self._node.heard, self.slot, message))
        return not self.hub_is_full

    def handle(self, message: Message) -> bool:
        """Queue a message from the hub."""
        act: dict[type, Callable[[Any], None]] = {
            Introduce: self.coordination.introduce,
            Introduced: self.coordination.introduced,
        }
        self._node.queue.append(partial(act[type(message)], message))
        return True

    def counted(self) -> dict[str, float]:
        """What is not zero."""
        return {key: value for key, value in self.counters.values.items() if value}


class FakeNode:
    """Workers around a hub; messages travel when the test lets them."""

    def __init__(self, workers: int = 2, *, nat: NatSettings = NAT) -> None:
        self.monotonic_s = 1000.0
        self.queue: deque[Callable[[], Any]] = deque()
        self.workers = [FakeWorker(self, slot) for slot in range(workers)]
        self.directory = Directory(100)
        self.hub = Hub(
            self.directory,
            lambda slot, message: self.workers[slot].handle(message),
            nat=nat,
            clock=lambda: self.monotonic_s,
        )
        self._next_number = 1

    def heard(self, slot: int, message: Message) -> None:
        """Let the hub react."""
        if isinstance(message, Introduce):
            self.hub.introduce(slot, message)
        else:
            assert isinstance(message, Introduced)
            self.hub.introduced(message)

    def settle(self) -> None:
        """Deliver until nothing is on its way."""
        while self.queue:
            self.queue.popleft()()

    def connect(self, who: bytes | None, slot: int, address: str, *advertised: str) -> Connection:
        """A peer, or an anonymous client, comes to a worker."""
        quic = FakeQuic(candidates=[SocketAddress.parse(item) for item in advertised])
        parsed = SocketAddress.parse(address)
        path = PathAddress(str(parsed.host), parsed.port, 0, 0, b"", 0)
        as_quic: Any = quic
        connection = Connection(number=self._next_number, quic=as_quic, path=path, handshake_deadline_s=0.0)
        connection.peer_id = who
        self._next_number += 1
        self.workers[slot].connections[connection.number] = connection
        if who is not None:
            listed = PeerConnection(
                slot=slot, connection=connection.number, host=path.host, port=path.port, advertised=advertised
            )
            self.directory.peer_up(who, listed)
        return connection

    def ask(self, slot: int, connection: Connection, data: bytes) -> None:
        """Let a message arrive on a connection, and everything happen that follows from it."""
        self.workers[slot].coordination.handle_message_untrusted(connection, data)
        self.settle()


def quic_of(connection: Connection) -> FakeQuic:
    """The pretended state machine."""
    quic: Any = connection.quic
    assert isinstance(quic, FakeQuic)
    return quic


def sent(connection: Connection) -> list[bytes]:
    """What a peer was told."""
    return quic_of(connection).sent


def sound(initiator: bytes = ALICE, target: bytes = BOB, **options: Any) -> bytes:
    """A request that is still good for two seconds of the fake clock."""
    return request(initiator, target, **({"expires_at_unix_ms": NOW_MS + 2000} | options))


@pytest.mark.parametrize("slot_of_target", [0, 1], ids=["same worker", "other worker"])
def test_both_sides_are_told_of_each_other(slot_of_target: int) -> None:
    """One observed address of each, under the request's id, to both; counted where the request came in."""
    node = FakeNode()
    alice = node.connect(ALICE, 0, "203.0.113.1:1001")
    bob = node.connect(BOB, slot_of_target, "203.0.113.2:1002")
    node.ask(0, alice, sound(request_id=77, addresses=("10.0.0.1:1", "203.0.113.77:9")))

    expected = (77, ["203.0.113.1:1001"], ["203.0.113.2:1002"])
    assert [accepted(item) for item in sent(alice)] == [expected]
    assert sent(bob) == sent(alice)
    assert node.workers[0].flushed.count(alice.number) == 1
    assert node.workers[slot_of_target].flushed.count(bob.number) == 1
    totals = {**node.workers[0].counted(), **node.workers[1].counted()}
    assert totals == {"coordinations|accepted": 1, "introductions_received": 1}
    assert node.workers[slot_of_target].counted()["introductions_received"] == 1


def test_expiry_is_copied() -> None:
    """It is by the initiator's clock, which alone understands it."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "203.0.113.2:2")
    node.ask(0, alice, sound(expires_at_unix_ms=NOW_MS + 1234))

    assert b'"expires_at_unix_ms":%d' % (NOW_MS + 1234) in sent(alice)[0]
    assert sent(bob) == sent(alice)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(sound(target=ALICE), "SelfTarget", id="self"),
        pytest.param(sound(target=CAROL), "UnknownTarget", id="unknown"),
        pytest.param(sound(expires_at_unix_ms=NOW_MS - CLOCK_SKEW_MS - 1), "Expired", id="expired"),
        pytest.param(sound(addresses=()), "InternalError", id="no addresses"),
    ],
)
def test_refusals_name_their_reason(data: bytes, reason: str) -> None:
    """The initiator is told, under its request id, the target is not, and the outcome is counted."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "203.0.113.2:2")
    node.ask(0, alice, data)

    assert [rejected(item) for item in sent(alice)] == [(1, reason)]
    assert sent(bob) == []
    assert node.workers[0].counted() == {f"coordinations|{OUTCOMES[RejectionReason(reason)]}": 1}
    assert node.workers[1].counted() == {}


def test_every_reason_has_a_word_in_the_metrics() -> None:
    """No reason is counted as another."""
    assert set(OUTCOMES) == {"", *RejectionReason}
    assert len(set(OUTCOMES.values())) == len(OUTCOMES)


@pytest.mark.parametrize("late_ms", [1, CLOCK_SKEW_MS])
def test_clock_that_is_slow_is_forgiven(late_ms: int) -> None:
    """A request that has expired by our clock but may not have by its maker's is served."""
    node = FakeNode()
    alice = node.connect(ALICE, 0, "203.0.113.1:1")
    node.connect(BOB, 1, "203.0.113.2:2")
    node.ask(0, alice, sound(expires_at_unix_ms=NOW_MS - late_ms))

    assert accepted(sent(alice)[0])


@pytest.mark.parametrize("sender", [CAROL, None], ids=["another peer", "an anonymous client"])
def test_request_in_another_peers_name_is_not_answered(sender: bytes | None) -> None:
    """Neither the sender nor the one it pretends to be, nor the target, hears anything."""
    node = FakeNode()
    forger = node.connect(sender, 0, "203.0.113.3:3")
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "203.0.113.2:2")
    node.ask(0, forger, sound(initiator=ALICE))

    assert sent(forger) == sent(alice) == sent(bob) == []
    assert node.workers[0].counted() == {"coordinations|forged_initiator": 1}


def test_forger_spends_nothing_of_its_victims_rate() -> None:
    """However often somebody asks in Alice's name, Alice is served."""
    node = FakeNode()
    forger = node.connect(CAROL, 0, "203.0.113.3:3")
    alice = node.connect(ALICE, 0, "203.0.113.1:1")
    node.connect(BOB, 1, "203.0.113.2:2")
    for _ in range(50):
        node.ask(0, forger, sound(initiator=ALICE))
    node.ask(0, alice, sound())

    assert accepted(sent(alice)[0])


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b"AQCC\x01", "malformed"),
        (b"AQCC\x01{", "malformed"),
        (b"AQCC\x01" + b"[" * 10_000, "malformed"),
        (on_the_wire({"message": {"CoordinationOffer": {}}}), "not_a_request"),
        (on_the_wire({"message": {"CoordinationReady": {}}}), "not_a_request"),
    ],
)
def test_what_is_no_request_is_dropped(data: bytes, outcome: str) -> None:
    """Counted, and not answered."""
    node = FakeNode()
    alice = node.connect(ALICE, 0, "203.0.113.1:1")
    node.ask(0, alice, data)

    assert sent(alice) == []
    assert node.workers[0].counted() == {f"coordinations|{outcome}": 1}


@pytest.mark.parametrize("variant", ["CoordinationAccepted", "CoordinationRejected"])
def test_answers_that_a_peer_sends_us_are_dropped(variant: str) -> None:
    """Only coordinators answer, and we have asked nobody."""
    fields = request_fields(ALICE, BOB)
    body = fields["message"].pop("CoordinationRequest")
    fields["message"][variant] = body | {"target_addrs": [], "reason": "Expired"}
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "203.0.113.2:2")
    node.ask(0, alice, on_the_wire(fields))

    assert sent(alice) == sent(bob) == []
    assert node.workers[0].counted() == {"coordinations|not_a_request": 1}


def test_rate_is_limited_per_peer() -> None:
    """A burst, then one every two seconds; what others ask does not count, unknown targets do."""
    node = FakeNode()
    alice = node.connect(ALICE, 0, "203.0.113.1:1")
    carol = node.connect(CAROL, 0, "203.0.113.3:3")
    node.connect(BOB, 1, "203.0.113.2:2")
    for number in range(BURST + 2):
        node.ask(0, alice, sound(target=bytes([number]) * 32))
    assert [rejected(item)[1] for item in sent(alice)] == ["UnknownTarget"] * BURST + ["RateLimited"] * 2

    node.ask(0, carol, sound(initiator=CAROL))
    assert accepted(sent(carol)[0])
    node.monotonic_s += 1 / RATE_PER_S
    sent(alice).clear()
    node.ask(0, alice, sound())
    node.ask(0, alice, sound())
    assert accepted(sent(alice)[0])
    assert rejected(sent(alice)[1]) == (1, "RateLimited")


def test_rate_of_a_peer_is_one_for_all_workers() -> None:
    """Connections to four workers are worth no more than one."""
    node = FakeNode(4)
    everywhere = [node.connect(ALICE, slot, f"203.0.113.1:{slot + 1}") for slot in range(4)]
    node.connect(BOB, 1, "203.0.113.2:2")
    for _ in range(2):
        for slot, connection in enumerate(everywhere):
            node.ask(slot, connection, sound())

    told = [item for connection in everywhere for item in sent(connection)]
    assert len([item for item in told if b"RateLimited" in item]) == 8 - BURST
    assert sum(worker.counted().get("coordinations|rate_limited", 0) for worker in node.workers) == 8 - BURST
    node.monotonic_s += 1 / RATE_PER_S
    sent(everywhere[3]).clear()
    node.ask(3, everywhere[3], sound())
    assert accepted(sent(everywhere[3])[0])


def test_nonsense_does_not_use_up_the_rate() -> None:
    """A peer with a fault in one place is not punished in another."""
    node = FakeNode()
    alice = node.connect(ALICE, 0, "203.0.113.1:1")
    node.connect(BOB, 1, "203.0.113.2:2")
    for _ in range(20):
        node.ask(0, alice, sound(target=ALICE))
        node.ask(0, alice, sound(expires_at_unix_ms=0))
        node.ask(0, alice, b"AQCC\x01nonsense")
    sent(alice).clear()
    node.ask(0, alice, sound())

    assert accepted(sent(alice)[0])


@pytest.mark.parametrize(
    ("alice_at", "bob_at", "expected"),
    [
        pytest.param(
            ["[::ffff:203.0.113.1]:1"], ["203.0.113.2:2"], ("203.0.113.1:1", "203.0.113.2:2"), id="mapped is IPv4"
        ),
        pytest.param(
            ["203.0.113.1:1", "[2001:470::1]:1"],
            ["[2001:470::2]:2"],
            ("[2001:470::1]:1", "[2001:470::2]:2"),
            id="initiator advertises",
        ),
        pytest.param(
            ["[2001:470::1]:1"],
            ["203.0.113.2:2", "127.0.0.1:2", "[2001:470::2]:2"],
            ("[2001:470::1]:1", "[2001:470::2]:2"),
            id="target advertises",
        ),
        pytest.param(
            ["203.0.113.1:1", "203.0.113.99:1"],
            ["203.0.113.2:2", "10.0.0.2:2"],
            ("203.0.113.1:1", "203.0.113.2:2"),
            id="observed comes first",
        ),
    ],
)
def test_addresses_are_of_one_family(alice_at: list[str], bob_at: list[str], expected: tuple[str, str]) -> None:
    """What peers advertise by ADD_ADDRESS travels through the hub and stands in where families differ."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, *alice_at), node.connect(BOB, 1, *bob_at)
    node.ask(0, alice, sound())

    assert accepted(sent(alice)[0]) == accepted(sent(bob)[0]) == (1, [expected[0]], [expected[1]])


def test_what_the_target_advertises_is_used_only_if_the_hub_says_so() -> None:
    """The hub limits how often an address is named that nobody has been seen at; the worker does not go past it."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "[2001:470::1]:1"), node.connect(BOB, 1, "203.0.113.2:2")
    quic_of(bob).candidates.append(SocketAddress.parse("[2001:470::2]:2"))
    node.ask(0, alice, sound())

    assert rejected(sent(alice)[0]) == (1, "InternalError")
    assert sent(bob) == []


def test_peers_without_a_family_in_common_cannot_be_introduced() -> None:
    """The target is not bothered."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "[2001:470::2]:2")
    node.ask(0, alice, sound())

    assert rejected(sent(alice)[0]) == (1, "InternalError")
    assert sent(bob) == []
    assert node.workers[0].counted() == {"coordinations|internal_error": 1}


def test_address_is_that_of_the_packet_with_the_request() -> None:
    """The connection notices a rebinding only after the request that came with it has been handled."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1001"), node.connect(BOB, 1, "203.0.113.2:2")
    quic_of(alice).moved_to = PathAddress("203.0.113.1", 1111, 0, 0, b"", 0)
    node.ask(0, alice, sound())

    assert accepted(sent(bob)[0]) == (1, ["203.0.113.1:1111"], ["203.0.113.2:2"])


def test_target_that_takes_no_message_is_an_error_of_ours() -> None:
    """The initiator does not dial somebody who was told nothing."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "203.0.113.2:2")
    quic_of(bob).blocked = True
    node.ask(0, alice, sound())

    assert rejected(sent(alice)[0]) == (1, "InternalError")
    assert sent(bob) == []
    assert node.workers[0].counted() == {"coordinations|internal_error": 1}
    assert node.workers[1].counted() == {"drops|answer_blocked": 1}


def test_target_that_is_leaving_is_unknown() -> None:
    """Its connection is closing, and the directory has not heard of it yet."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "203.0.113.2:2")
    quic_of(bob).is_closing = True
    node.ask(0, alice, sound())

    assert rejected(sent(alice)[0]) == (1, "UnknownTarget")
    assert sent(bob) == []


def test_initiator_that_takes_no_answer_is_counted() -> None:
    """A peer that grants no streams gets none, and costs nothing more."""
    node = FakeNode()
    alice = node.connect(ALICE, 0, "203.0.113.1:1")
    quic_of(alice).blocked = True
    node.ask(0, alice, sound(target=ALICE))

    assert node.workers[0].counted() == {"coordinations|self_target": 1, "drops|answer_blocked": 1}
    assert node.workers[0].flushed == []


def test_hub_that_cannot_be_reached_is_an_error_of_ours() -> None:
    """Better a reason at once than none ever."""
    node = FakeNode()
    alice = node.connect(ALICE, 0, "203.0.113.1:1")
    node.connect(BOB, 1, "203.0.113.2:2")
    node.workers[0].hub_is_full = True
    node.ask(0, alice, sound())

    assert rejected(sent(alice)[0]) == (1, "InternalError")


def test_target_that_left_meanwhile_is_unknown() -> None:
    """The hub's directory lags behind; the worker knows."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "203.0.113.2:2")
    del node.workers[1].connections[bob.number]
    node.ask(0, alice, sound())

    assert rejected(sent(alice)[0]) == (1, "UnknownTarget")


def test_successor_of_a_dead_worker_mistakes_nobody_for_another() -> None:
    """Numbers begin anew with each worker, so one that is found may be somebody else's."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "203.0.113.2:2")
    bob.peer_id = CAROL
    node.ask(0, alice, sound())
    assert rejected(sent(alice)[0]) == (1, "UnknownTarget")
    assert sent(bob) == []

    bob.peer_id = BOB
    sent(alice).clear()
    node.workers[0].coordination.handle_message_untrusted(alice, sound())
    alice.peer_id = CAROL
    node.settle()
    assert sent(alice) == []


def test_initiator_that_left_meanwhile_is_counted_all_the_same() -> None:
    """Its target has been told; nothing fails."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "203.0.113.2:2")
    node.workers[0].coordination.handle_message_untrusted(alice, sound())
    del node.workers[0].connections[alice.number]
    node.settle()

    assert len(sent(bob)) == 1
    assert node.workers[0].counted() == {"coordinations|accepted": 1}


def test_question_with_an_address_that_is_none_is_refused() -> None:
    """A worker's word is checked where it is used."""
    node = FakeNode(1)
    bob = node.connect(BOB, 0, "203.0.113.2:2")
    question = Introduce(
        request_id=1,
        expires_at_unix_ms=1,
        round=1,
        initiator=ALICE,
        target=BOB,
        connection=9,
        address="nowhere",
        advertised=[],
        slot=0,
        target_connection=bob.number,
    )
    told: list[Message] = []
    coordination = node.workers[0].coordination

    def tell_hub(message: Message) -> bool:
        told.append(message)
        return True

    coordination._around = replace(coordination._around, tell_hub=tell_hub)
    coordination.introduce(question)

    assert told == [question.answer(reason="InternalError")]
    assert sent(bob) == []


def test_crossing_requests_are_both_served() -> None:
    """Each peer asks for the other at the same moment, with the same request id: ids belong to their initiator."""
    node = FakeNode()
    alice, bob = node.connect(ALICE, 0, "203.0.113.1:1"), node.connect(BOB, 1, "203.0.113.2:2")
    node.workers[0].coordination.handle_message_untrusted(alice, sound())
    node.workers[1].coordination.handle_message_untrusted(bob, sound(initiator=BOB, target=ALICE))
    node.settle()

    both = [(1, ["203.0.113.1:1"], ["203.0.113.2:2"]), (1, ["203.0.113.2:2"], ["203.0.113.1:1"])]
    assert sorted(map(accepted, sent(alice))) == sorted(map(accepted, sent(bob))) == both


# With real connections.


def send(bench: Bench, connection: Any, *messages: bytes) -> None:
    """Send messages of a client in one burst."""
    for data in messages:
        stream_id = connection.quic.get_next_available_stream_id(is_unidirectional=True)
        connection.quic.send_stream_data(stream_id, data, end_stream=True)
    bench.client.flush([connection])


def answers(connection: Any) -> list[bytes]:
    """Whole messages a client has received."""
    return [bytes(connection.messages[item]) for item in sorted(connection.finished_streams) if item & 3 == 3]


def test_burst_of_refusals_while_events_are_handled() -> None:
    """128 requests in one burst are each refused from within the handling of the burst; nobody is harmed."""

    async def story() -> None:
        async with running_worker() as bench:
            connection = await bench.connected()
            self_target = request(CLIENT_PEER_ID, CLIENT_PEER_ID)
            send(bench, connection, *[self_target] * 128)
            await until(lambda: len(answers(connection)) == 128, "refusals")
            assert {rejected(item) for item in answers(connection)} == {(1, "SelfTarget")}
            assert bench.counted("coordinations", "self_target") == 128
            assert await connection.echo(b"unharmed", 5.0) == b"unharmed"
            assert bench.counted("connections_closed") == 0

    run(story())


def test_burst_that_ends_with_a_close() -> None:
    """Answers to a connection that is closed in the same burst are not sent and do no harm."""

    async def story() -> None:
        async with running_worker() as bench:
            other = await bench.connected()
            connection = await bench.connected()
            for _ in range(20):
                stream_id = connection.quic.get_next_available_stream_id(is_unidirectional=True)
                data = request(CLIENT_PEER_ID, CLIENT_PEER_ID)
                connection.quic.send_stream_data(stream_id, data, end_stream=True)
            bench.client.flush([connection])
            connection.close()
            await until(lambda: len(bench.endpoint.connections) == 1, "end of the connection")
            assert bench.counted("connections_closed", "internal_error") == 0
            assert await other.echo(b"unharmed", 5.0) == b"unharmed"

    run(story())


def test_question_and_answer_over_real_connections() -> None:
    """The question carries the address we see; the answer of the hub reaches the peer; both messages are flushed."""

    async def story() -> None:
        async with running_worker(settings_with(nat={"coordination_burst": 2})) as bench:
            connection = await bench.connected()
            send(bench, connection, request(CLIENT_PEER_ID, BOB), *[request(CLIENT_PEER_ID, BOB, request_id=2)] * 2)
            await until(lambda: len(bench.told_hub) == 2, "question")
            question = bench.told_hub[0]
            assert isinstance(question, Introduce)
            assert (question.initiator, question.target) == (CLIENT_PEER_ID, BOB)
            assert question.address == f"127.0.0.1:{bench.client.port}"
            # The burst of two is spent: the settings act.
            await until(lambda: len(answers(connection)) == 1, "refusal")
            assert rejected(answers(connection)[0]) == (2, "RateLimited")

            # As if the target were here as well: this worker is asked, and told the answer.
            here = replace(question, target=CLIENT_PEER_ID, target_connection=1, slot=0)
            bench.worker.coordination.introduce(here)
            answer = bench.told_hub[-1]
            assert isinstance(answer, Introduced)
            bench.worker.coordination.introduced(answer)
            await until(lambda: len(answers(connection)) == 3, "both messages")
            own = f"127.0.0.1:{bench.client.port}"
            assert [accepted(item) for item in answers(connection)[1:]] == [(1, [own], [own])] * 2

    run(story())


def test_request_as_the_first_packet_after_a_rebinding() -> None:
    """The target is told the mapping that the request came through, not the one before."""

    async def story() -> None:
        async with running_worker() as bench:
            connection = await bench.connected()
            await asyncio.sleep(0.1)
            old_port = bench.client.port
            bench.client.rebind()
            send(bench, connection, request(CLIENT_PEER_ID, BOB))
            await until(lambda: bench.told_hub, "question")
            question = bench.told_hub[0]
            assert isinstance(question, Introduce)
            assert question.address == f"127.0.0.1:{bench.client.port}" != f"127.0.0.1:{old_port}"

    run(story())


def test_target_behind_a_relay_is_named_there() -> None:
    """The hub knows of the session; the target itself is told of the initiator as ever."""
    node = FakeNode()
    bob = node.connect(BOB, 1, "203.0.113.2:2")
    question = Introduce(
        request_id=1,
        expires_at_unix_ms=1,
        round=1,
        initiator=ALICE,
        target=BOB,
        connection=9,
        address="198.18.0.5:1",
        advertised=[],
        slot=0,
        target_connection=bob.number,
        target_relay="192.0.2.7:50000",
    )
    node.workers[1].coordination.introduce(question)

    answer = question.answer(initiator_address="198.18.0.5:1", target_address="192.0.2.7:50000")
    assert [each.args for each in node.queue if isinstance(each, partial)] == [(1, answer)]
