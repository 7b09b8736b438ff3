"""Tests of ``workers.relay_channels``: what the hub has made and ended, and what nobody uses."""

import hashlib
import time
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import ChannelCreate, ChannelCreated, ChannelDestroy, ChannelEnded, RelayUsage
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_limits import Refusal, RelayEnd
from antquic_server.stats.counters import CounterSet
from support.channels import INITIATOR_KEY, TARGET_KEY, FakeUdp, bind_at, create_message, made_up_id
from workers.channel_table import ChannelTable
from workers.relay_channels import BIND_TIMEOUT_S, IDLE_TIMEOUT_S, RelayChannels, session_number
from workers.relay_meter import CHANNEL_SESSION_BIT, RelayMeter
from workers.relay_reports import RelayReports

ID = made_up_id(1)
A = PathAddress("192.0.2.1", 1001, 0, 0, b"", 0)
B = PathAddress("192.0.2.2", 1002, 0, 0, b"", 0)
MAX_CHANNEL_BYTES = 3000


class Bench:
    """The channels of slot 1 of 2, with a hub that takes messages, or not."""

    def __init__(self, max_channels: int = 10) -> None:
        self.told: list[Message] = []
        self.hub_takes = True
        self.now_s = 1000.0
        self.counters = CounterSet()
        self.table = ChannelTable(
            slot=0,
            worker_count=1,
            sockets=[FakeUdp().as_udp],
            counters=self.counters,
            secret=bytes(32),
            unknowns_per_s=0.0,
        )
        self.meter = RelayMeter(self.counters, TokenBucket(1e12, 1e12))
        loop: Any = SimpleNamespace(call_later=lambda _delay_s, report: SimpleNamespace(cancel=lambda: None))
        self.reports = RelayReports(self._tell_hub, self.meter.sessions, loop)
        self.channels = RelayChannels(
            self.table,
            meter=self.meter,
            reports=self.reports,
            tell_hub=self._tell_hub,
            max_channels=max_channels,
            monotonic_s=lambda: self.now_s,
        )

    def _tell_hub(self, message: Message) -> bool:
        if self.hub_takes:
            self.told.append(message)
        return self.hub_takes

    def create(self, request: ChannelCreate) -> str:
        """Create a channel and return the refusal."""
        self.channels.create(request)
        answer = self.told.pop()
        assert isinstance(answer, ChannelCreated)
        assert answer.channel_id == request.channel_id
        return answer.refusal

    def bind(self, key: bytes, path: PathAddress) -> None:
        """Bind a leg, now."""
        bind_at(self.table, ID, int(self.now_s * 1e6), key, path, self.now_s)

    def tick_until(self, now_s: float) -> None:
        """Let time pass."""
        while self.now_s < now_s:
            self.now_s = min(now_s, self.now_s + 1.0)
            self.channels.tick(self.now_s)
            self.reports._report()

    def move(self, size: int) -> None:
        """Count bytes as if the data path had moved them."""
        (channel,) = self.table
        channel.session.passed_bytes += size
        channel.session.passed_datagrams += 1


@pytest.fixture
def bench() -> Bench:
    """A fresh one."""
    return Bench()


def test_channel_from_creation_to_the_hubs_end(bench: Bench) -> None:
    """It is counted, its bytes are reported under its number, and the rest of them with its end."""
    assert bench.create(create_message(ID)) == ""
    assert ID in bench.table
    assert bench.counters.values["relay_sessions|channel"] == 1
    bench.move(700)
    bench.reports._report()
    bench.move(11)
    bench.channels.destroy(ChannelDestroy(channel_id=ID, reason="peer_bytes"))

    assert bench.told == [
        RelayUsage(sessions=[session_number(ID)], moved_bytes=[700]),
        ChannelEnded(channel_id=ID, reason="peer_bytes", moved_bytes=11),
    ]
    assert ID not in bench.table
    assert len(bench.channels) == 0
    assert bench.counters.values["relay_sessions|channel"] == 0
    assert bench.counters.values["relay_sessions_closed|channel|peer_bytes"] == 1
    assert bench.counters.values["bytes_sent"] == 711


def test_channel_begins_with_what_the_hub_says_and_ends_with_what_it_owes(bench: Bench) -> None:
    """Time counts from its creation; a train longer than what is left is paid by the peer's next sessions."""
    bench.create(replace(create_message(ID, rate=1000, burst=500), start_bytes=-100.0))
    (channel,) = bench.table
    assert channel.session.refuses(1, bench.now_s + 0.05) == "session_rate"
    bench.now_s += 0.2
    assert channel.session.refuses(2000, bench.now_s) == ""
    bench.now_s += 0.5
    bench.channels.destroy(ChannelDestroy(channel_id=ID, reason="closed"))
    (ended,) = bench.told
    assert isinstance(ended, ChannelEnded)
    assert ended.owed_bytes == pytest.approx(1400)


def test_session_number_is_told_apart_from_those_of_streams() -> None:
    """And leads back to the channel."""
    number = session_number(b"\xff" * 7)
    assert number & CHANNEL_SESSION_BIT
    assert number == (1 << 57) - 1


@pytest.mark.parametrize(
    "change",
    [{"channel_id": b"short"}, {"initiator_key": b"i"}, {"target_key": b""}, {"target_key": INITIATOR_KEY}],
    ids=["id", "initiator key", "target key", "one key for both"],
)
def test_unsound_request_is_refused(bench: Bench, change: dict[str, Any]) -> None:
    """It is the hub's fault, and is said so."""
    assert bench.create(replace(create_message(ID), **change)) == Refusal.INTERNAL
    assert len(bench.table) == 0


def test_id_of_another_slot_is_refused() -> None:
    """Its datagrams would never arrive here."""
    bench = Bench()
    bench.table._worker_count = 2
    assert bench.create(create_message(made_up_id(1, slot=1, worker_count=2))) == Refusal.INTERNAL
    assert bench.create(create_message(made_up_id(1, slot=0, worker_count=2))) == ""


def test_id_that_is_there_is_refused(bench: Bench) -> None:
    """The channel that has it stays."""
    bench.create(create_message(ID))
    (channel,) = bench.table
    assert bench.create(create_message(ID)) == Refusal.INTERNAL
    assert list(bench.table) == [channel]


def test_number_of_channels_is_bounded() -> None:
    """Whatever the hub thinks; the bound may be changed."""
    bench = Bench(max_channels=2)
    assert [bench.create(create_message(made_up_id(number))) for number in range(3)] == ["", "", Refusal.NODE_SESSIONS]
    bench.channels.max_channels = 3
    assert bench.create(create_message(made_up_id(7))) == ""


def test_draining_worker_takes_none(bench: Bench) -> None:
    """Those it has go on until it ends."""
    bench.create(create_message(ID))
    bench.channels.accepting = False
    assert bench.create(create_message(made_up_id(2))) == Refusal.DRAINING
    assert ID in bench.table


@pytest.mark.parametrize("bound", [(), (A,), (B,)])
def test_channel_that_not_both_have_bound_ends(bench: Bench, bound: tuple[PathAddress, ...]) -> None:
    """After the time that both have for it, and not before."""
    bench.create(create_message(ID))
    for path in bound:
        bench.bind(INITIATOR_KEY if path is A else TARGET_KEY, path)
    bench.tick_until(1000.0 + BIND_TIMEOUT_S)
    assert bench.told == []
    bench.tick_until(1001.0 + BIND_TIMEOUT_S)
    assert bench.told == [ChannelEnded(channel_id=ID, reason=RelayEnd.NEVER_BOUND, moved_bytes=0)]
    assert len(bench.table) == 0


@pytest.mark.parametrize("silent", ["both", "initiator", "target"])
def test_channel_lives_while_both_bind(bench: Bench, silent: str) -> None:
    """One silent leg is enough to end it, with what it has moved."""
    bench.create(create_message(ID))
    for _ in range(20):
        bench.bind(INITIATOR_KEY, A)
        bench.bind(TARGET_KEY, B)
        bench.tick_until(bench.now_s + 10.0)
    last_s = bench.now_s - 10.0
    assert bench.told == []
    while bench.now_s < last_s + IDLE_TIMEOUT_S:
        if silent == "target":
            bench.bind(INITIATOR_KEY, A)
        elif silent == "initiator":
            bench.bind(TARGET_KEY, B)
        bench.tick_until(min(bench.now_s + 10.0, last_s + IDLE_TIMEOUT_S))
    assert bench.told == []
    bench.move(5)
    bench.channels.tick(bench.now_s + 1.0)
    assert bench.told == [ChannelEnded(channel_id=ID, reason=RelayEnd.IDLE, moved_bytes=5)]


def test_revoked_channel_ends(bench: Bench) -> None:
    """By its session's number; one that is gone already needs no word."""
    bench.create(create_message(ID))
    bench.channels.revoke(session_number(made_up_id(9)), "node_bytes")
    bench.channels.revoke(session_number(ID), "node_bytes")
    bench.channels.revoke(session_number(ID), "node_bytes")
    assert bench.told == [ChannelEnded(channel_id=ID, reason="node_bytes", moved_bytes=0)]


def test_hub_is_answered_about_a_channel_that_is_not_there(bench: Bench) -> None:
    """It waits for that."""
    bench.channels.destroy(ChannelDestroy(channel_id=ID, reason="closed"))
    assert bench.told == [ChannelEnded(channel_id=ID, reason="closed", moved_bytes=0)]


def test_end_that_the_hub_did_not_take_is_said_again(bench: Bench) -> None:
    """Else the session would be counted for ever."""
    bench.create(create_message(ID))
    bench.move(5)
    bench.hub_takes = False
    bench.channels.destroy(ChannelDestroy(channel_id=ID, reason="closed"))
    bench.tick_until(1003.0)
    bench.hub_takes = True
    bench.tick_until(1005.0)
    assert bench.told == [ChannelEnded(channel_id=ID, reason="closed", moved_bytes=5)]


def test_two_thousand_idle_channels_are_held() -> None:
    """All bound, each from a source address of its own; what one costs is stated in docs/architecture.md."""
    count = 2000
    bench = Bench(max_channels=count)
    tracemalloc.start()
    try:
        before_bytes, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            channel_id = made_up_id(number)
            # As they come from the hub: keys of each channel's own.
            request = create_message(channel_id)
            keys = hashlib.sha256(channel_id).digest(), hashlib.sha256(channel_id + b"target").digest()
            assert bench.create(replace(request, initiator_key=keys[0], target_key=keys[1])) == ""
            for side, key in enumerate(keys):
                path = PathAddress(f"192.0.2.{side}", 10_000 + number, 0, 0, b"", 0)
                bind_at(bench.table, channel_id, 1, key, path, bench.now_s)
        after_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    each_bytes = (after_bytes - before_bytes) / count
    assert len(bench.table.routes) == 2 * count
    assert each_bytes < MAX_CHANNEL_BYTES, each_bytes
    begun_s = time.process_time()
    bench.channels.tick(bench.now_s + 1.0)
    bench.reports._report()
    # Once a second: a hundredth of a core would already be too much.
    assert time.process_time() - begun_s < 0.1
    assert bench.told == []
