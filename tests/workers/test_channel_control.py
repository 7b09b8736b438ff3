"""Tests of ``workers.channel_control``: what peers and the hub tell each other about channels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import (
    ChannelAnswerIn,
    ChannelAsk,
    ChannelClosedOut,
    ChannelHangUp,
    ChannelOfferOut,
    ChannelOpenedOut,
    ChannelRefusedOut,
)
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.relay_control import (
    PREFIX,
    ChannelAnswer,
    ChannelClosed,
    ChannelMessage,
    ChannelOffer,
    ChannelOpened,
    ChannelRefused,
    ChannelRequest,
    decode_channel_message_untrusted,
    encode_channel_message,
)
from antquic_server.protocol.relay_limits import Refusal, RelayEnd
from antquic_server.stats.counters import CounterSet
from support.in_process import run, running_worker, until
from workers.channel_control import MESSAGES_BURST, REQUESTS_BURST, ChannelControl, FromHub
from workers.connection import Connection
from workers.coordination import Surroundings

PATH = PathAddress("192.0.2.7", 50007, 0, 0, b"", 0)
PEER = b"p" * 32
OTHER = b"o" * 32
ID = b"1234567"
KEY = b"k" * 32
TOKEN = b"t" * 16
DECLARED = ExtensionParameters(relay_channels=True)
REQUEST = ChannelRequest(request_id=7, target=OTHER)
ASK = ChannelAsk(connection=1, peer_id=PEER, host=PATH.host, request_id=7, target=OTHER)
OFFER_OUT = ChannelOfferOut(connection=1, target=PEER, initiator=OTHER, channel_id=ID, key=KEY, token=TOKEN)
OPENED_OUT = ChannelOpenedOut(
    connection=1, peer_id=PEER, request_id=7, target=OTHER, channel_id=ID, key=KEY, token=TOKEN
)
REFUSED_OUT = ChannelRefusedOut(connection=1, peer_id=PEER, request_id=7, target=OTHER, reason=Refusal.PEER_SESSIONS)
CLOSED_OUT = ChannelClosedOut(connection=1, peer_id=PEER, channel_id=ID, reason=RelayEnd.WORKER_LOST)
FROM_HUB: Sequence[tuple[FromHub, ChannelMessage]] = (
    (OFFER_OUT, ChannelOffer(channel_id=ID, initiator=OTHER, key=KEY, token=TOKEN)),
    (OPENED_OUT, ChannelOpened(request_id=7, target=OTHER, channel_id=ID, key=KEY, token=TOKEN)),
    (REFUSED_OUT, ChannelRefused(request_id=7, target=OTHER, reason=Refusal.PEER_SESSIONS)),
    (CLOSED_OUT, ChannelClosed(channel_id=ID, reason=RelayEnd.WORKER_LOST)),
)


class FakeQuic:
    """What this asks of a connection's state machine."""

    def __init__(self) -> None:
        self.is_closing = False
        self.validated_address: PathAddress | None = PATH
        self.remote_extensions: ExtensionParameters | None = DECLARED
        self.takes_messages = True
        self.sent: list[bytes] = []

    def send_message(self, data: bytes) -> bool:
        """Note a message, unless the peer keeps too many waiting."""
        if self.takes_messages:
            self.sent.append(data)
        return self.takes_messages


class Bench:
    """One connection of an authenticated peer that knows channels."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.hub_takes = True
        self.now_s = 1.0
        self.flushed: list[Connection] = []
        self.counters = CounterSet()
        quic: Any = FakeQuic()
        self.quic: FakeQuic = quic
        self.connection = Connection(number=1, quic=quic, path=PATH, handshake_deadline_s=0.0)
        self.connection.peer_id = PEER
        surroundings = Surroundings(
            tell_hub=self._tell_hub,
            find=lambda number: self.connection if number == 1 else None,
            flush=self.flushed.append,
            monotonic_s=lambda: self.now_s,
            unix_s=lambda: 0.0,
        )
        self.control = ChannelControl(surroundings, self.counters)

    def _tell_hub(self, message: Message) -> bool:
        if self.hub_takes:
            self.told.append(message)
        return self.hub_takes

    def give(self, message: ChannelMessage | bytes) -> None:
        """Let the peer say something."""
        data = message if isinstance(message, bytes) else encode_channel_message(message)
        self.control.handle_message_untrusted(self.connection, data)

    def answers(self) -> list[ChannelMessage | None]:
        """What the peer was told."""
        return [decode_channel_message_untrusted(data) for data in self.quic.sent]

    def counted(self) -> dict[str, float]:
        """Outcomes and how often."""
        prefix = "channel_messages|"
        values = self.counters.values
        return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


@pytest.fixture
def bench() -> Bench:
    """A fresh one."""
    return Bench()


@pytest.mark.parametrize(
    ("message", "told", "outcome"),
    [
        (REQUEST, ASK, "request"),
        (
            ChannelAnswer(channel_id=ID, accepted=True),
            ChannelAnswerIn(peer_id=PEER, channel_id=ID, accepted=True),
            "answer",
        ),
        (
            ChannelAnswer(channel_id=ID, accepted=False),
            ChannelAnswerIn(peer_id=PEER, channel_id=ID, accepted=False),
            "answer",
        ),
        (
            ChannelClosed(channel_id=ID, reason="closed"),
            ChannelHangUp(peer_id=PEER, channel_id=ID, reason="closed"),
            "closed",
        ),
    ],
)
def test_hub_is_told_what_a_peer_says(bench: Bench, message: ChannelMessage, told: Message, outcome: str) -> None:
    """Under the id that the peer has proven, with the address that its prefix follows from."""
    bench.give(message)
    assert bench.told == [told]
    assert bench.quic.sent == []
    assert bench.counted() == {outcome: 1}


def test_proven_address_is_the_one_that_is_charged(bench: Bench) -> None:
    """Not the source of the latest packet, which anybody can write; and nothing is asked for before one is proven."""
    bench.connection.path = PATH._replace(host="198.51.100.66")
    bench.give(REQUEST)
    assert bench.told == [ASK]
    bench.quic.validated_address = PATH._replace(host="::ffff:192.0.2.7")
    bench.give(REQUEST)
    assert bench.told == [ASK, ASK]
    bench.quic.validated_address = None
    bench.give(REQUEST)
    assert len(bench.told) == 2
    assert bench.answers() == [ChannelRefused(request_id=7, target=OTHER, reason=Refusal.OPEN_RATE)]


@pytest.mark.parametrize(("message", "expected"), FROM_HUB)
def test_peer_is_told_what_the_hub_says(bench: Bench, message: FromHub, expected: ChannelMessage) -> None:
    """And at once."""
    bench.control.tell_peer(message)
    assert bench.answers() == [expected]
    assert bench.flushed == [bench.connection]


@pytest.mark.parametrize(("message", "_expected"), FROM_HUB)
@pytest.mark.parametrize("why", ["other connection", "other peer", "undeclared", "closing", "blocked"])
def test_peer_that_cannot_be_told_is_not(bench: Bench, message: FromHub, _expected: ChannelMessage, why: str) -> None:
    """A number may lead to another peer by now; what one does not read is not written to it."""
    outcome = "peer_gone"
    if why == "other connection":
        message = replace(message, connection=2)
    elif why == "other peer":
        bench.connection.peer_id = OTHER
    elif why == "undeclared":
        bench.quic.remote_extensions = ExtensionParameters()
    else:
        bench.quic.is_closing = why == "closing"
        bench.quic.takes_messages = why != "blocked"
        outcome = "answer_blocked"
    bench.control.tell_peer(message)
    assert bench.quic.sent == []
    assert bench.counted() == {outcome: 1}


@pytest.mark.parametrize("declared", [None, ExtensionParameters(), ExtensionParameters(rfc_nat_traversal=True)])
def test_who_has_not_declared_channels_is_not_listened_to(bench: Bench, declared: ExtensionParameters | None) -> None:
    """Nor answered: it would not understand."""
    bench.quic.remote_extensions = declared
    bench.give(REQUEST)
    assert bench.told == []
    assert bench.quic.sent == []
    assert bench.counted() == {"undeclared": 1}


def test_anonymous_peer_is_not_listened_to(bench: Bench) -> None:
    """There is nobody to charge."""
    bench.connection.peer_id = None
    bench.give(REQUEST)
    assert bench.told == []
    assert bench.counted() == {"unauthenticated": 1}


@pytest.mark.parametrize(("_message", "theirs"), FROM_HUB[:3])
def test_what_only_a_node_says_is_dropped(bench: Bench, _message: FromHub, theirs: ChannelMessage) -> None:
    """And so is a kind of a later version."""
    bench.give(theirs)
    bench.give(PREFIX + b"\x63")
    assert bench.told == []
    assert bench.counted() == {"unexpected": 2}


def test_malformed_message_is_dropped(bench: Bench) -> None:
    """Likewise one that was too long to be collected."""
    bench.give(PREFIX + b"\x01short")
    bench.control.count_malformed()
    assert bench.told == []
    assert bench.counted() == {"malformed": 2}


def test_requests_of_a_connection_are_limited(bench: Bench) -> None:
    """The peer is told which limit it was, and may ask again later."""
    for number in range(int(REQUESTS_BURST) + 3):
        bench.give(ChannelRequest(request_id=number, target=OTHER))
    assert len(bench.told) == REQUESTS_BURST
    refused = ChannelRefused(request_id=16, target=OTHER, reason=Refusal.OPEN_RATE)
    assert bench.answers() == [replace(refused, request_id=number) for number in (16, 17, 18)]
    assert bench.counters.values["relay_refusals|channel|open_rate"] == 3
    bench.now_s += 1.0
    bench.give(REQUEST)
    assert bench.told[-1] == ASK


def test_messages_of_a_connection_are_limited(bench: Bench) -> None:
    """Beyond that they are dropped without an answer."""
    for _ in range(1000):
        bench.give(ChannelAnswer(channel_id=ID, accepted=True))
    assert len(bench.told) == MESSAGES_BURST
    assert bench.counted() == {"answer": MESSAGES_BURST, "rate_limited": 1000 - MESSAGES_BURST}
    assert bench.quic.sent == []


@pytest.mark.parametrize(
    "message", [REQUEST, ChannelAnswer(channel_id=ID, accepted=True), ChannelClosed(channel_id=ID, reason="")]
)
def test_hub_that_takes_nothing_is_counted(bench: Bench, message: ChannelMessage) -> None:
    """Who asked is told so; an answer or an end runs into the hub's own timeouts."""
    bench.hub_takes = False
    bench.give(message)
    assert bench.counted() == {"hub_busy": 1}
    expected = ChannelRefused(request_id=7, target=OTHER, reason=Refusal.INTERNAL)
    assert bench.answers() == ([expected] if message is REQUEST else [])


def test_over_a_real_connection() -> None:
    """A peer that has declared channels asks, and reads the answer; the node has declared them too."""

    async def story() -> None:
        async with running_worker() as it:
            client = await it.connected(relay_channels=True)
            assert client.quic.remote_extensions is not None
            assert client.quic.remote_extensions.relay_channels
            client.quic.send_message(encode_channel_message(REQUEST))
            it.client.flush([client])
            await until(lambda: it.told_hub, "question to the hub")
            (ask,) = it.told_hub
            assert isinstance(ask, ChannelAsk)
            assert (ask.request_id, ask.target, ask.host) == (7, OTHER, "127.0.0.1")
            it.worker.relay.handle_message(replace(REFUSED_OUT, connection=ask.connection, peer_id=ask.peer_id))
            expected = encode_channel_message(FROM_HUB[2][1])
            await until(lambda: expected in client.messages.values(), "answer")

    run(story())
