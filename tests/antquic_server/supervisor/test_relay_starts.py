"""Tests of what new sessions begin with: a peer that opens and closes them gets no more than its bandwidth."""

from collections.abc import Callable
from typing import Any

import pytest

from antquic_server.config.model import NatSettings
from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import (
    ChannelAnswerIn,
    ChannelCreate,
    ChannelCreated,
    ChannelEnded,
    RelayRate,
    RelayReleased,
    RelayReserve,
    RelayReserved,
    RelayShare,
    RelayUsage,
)
from antquic_server.protocol.limits import TokenBucket
from antquic_server.supervisor.channels import session_number
from antquic_server.supervisor.relay_starts import MAX_TRAIN_BYTES, RelayStarts
from support.coordination import ALICE, BOB
from support.relay_stage import BOB_AT, RelayStage
from workers.relay_meter import SessionMeter

DURATION_S = 30.0
STEP_S = 0.02
TICK_STEPS = 50
"""The hub looks with every heartbeat, which an operator may have come once a second."""
DATAGRAM_BYTES = 1200
TOLERANCE = 1.15
"""Of the bandwidth: a tenth is what new sessions may begin with."""


class Workers:
    """Workers of a desk that have real meters, and peers that send whatever these let pass."""

    def __init__(self, *, channels: bool, size_bytes: int, **settings: Any) -> None:
        nat = NatSettings(introductions_per_target_per_s=1e6, introductions_per_target_burst=1_000_000)
        self.stage = RelayStage(nat, **settings)
        self.channels = channels
        self.size_bytes = size_bytes
        self.moved_bytes = 0
        self.opened = 0
        self.meters: dict[tuple[int, int], SessionMeter] = {}
        self.ids: dict[SessionMeter, bytes] = {}
        self.shares: dict[int, TokenBucket] = {}
        self.stage.desk.tick()
        self.listen()

    def listen(self) -> list[tuple[int, Message]]:
        """React to what workers were told; returns the rest."""
        rest: list[tuple[int, Message]] = []
        for slot, message in self.stage.told():
            if isinstance(message, RelayRate):
                rate = self.meters[slot, message.session].rate
                rate.change(message.rate_bytes_per_s, message.burst_bytes, self.stage.now_s)
            elif isinstance(message, RelayShare):
                new = TokenBucket(message.rate_bytes_per_s, message.burst_bytes)
                self.shares.setdefault(slot, new).change(
                    message.rate_bytes_per_s, message.burst_bytes, self.stage.now_s
                )
            else:
                rest.append((slot, message))
        return rest

    def open(self, peer_id: bytes = ALICE, slot: int = 0) -> SessionMeter | None:
        """Ask for a session; None if it is refused."""
        number = self.opened
        if self.channels:
            self.stage.ask(request_id=number)
        else:
            asked = RelayReserve(session=number, peer_id=peer_id, host=f"192.0.2.{peer_id[0] + 1}")
            self.stage.desk.heard(slot, asked)
        for to, message in self.listen():
            if isinstance(message, ChannelCreate):
                meter = self._meter(to, session_number(message.channel_id), message)
                self.ids[meter] = message.channel_id
                self.stage.desk.heard(to, ChannelCreated(channel_id=message.channel_id, refusal=""))
                yes = ChannelAnswerIn(peer_id=BOB, channel_id=message.channel_id, accepted=True)
                self.stage.desk.heard(BOB_AT[0], yes)
                self.listen()
                return meter
            if isinstance(message, RelayReserved) and not message.refusal:
                return self._meter(to, number, message)
        return None

    def _meter(self, slot: int, number: int, message: ChannelCreate | RelayReserved) -> SessionMeter:
        self.opened += 1
        meter = self.meters[slot, number] = SessionMeter(
            number=number,
            rate_bytes_per_s=message.rate_bytes_per_s,
            burst_bytes=message.burst_bytes,
            share=self.shares[slot],
            start_bytes=message.start_bytes,
            now_s=self.stage.now_s,
        )
        return meter

    def close(self, meter: SessionMeter) -> None:
        """End a session."""
        ((slot, number),) = [key for key, item in self.meters.items() if item is meter]
        moved, meter.moved_bytes = meter.moved_bytes, 0
        if self.channels:
            owed = meter.rate.owed(self.stage.now_s)
            ended = ChannelEnded(channel_id=self.ids[meter], reason="closed", moved_bytes=moved, owed_bytes=owed)
            self.stage.desk.heard(slot, ended)
        else:
            self.stage.desk.heard(slot, RelayReleased(session=number, moved_bytes=moved))
        del self.meters[slot, number]

    def send(self, meter: SessionMeter) -> None:
        """Send as much as passes now: a channel's trains may be longer than what is left, the stream's may not."""
        now_s = self.stage.now_s
        while self._passes(meter, now_s):
            self.moved_bytes += self.size_bytes
            meter.moved_bytes += self.size_bytes

    def _passes(self, meter: SessionMeter, now_s: float) -> bool:
        if self.channels:
            return not meter.refuses(self.size_bytes, now_s)
        return meter.rate.take(now_s, self.size_bytes) and meter.share.take(now_s, self.size_bytes)

    def report(self) -> None:
        """Tell the hub what was moved, as each worker does every second."""
        for (slot, number), meter in self.meters.items():
            moved, meter.moved_bytes = meter.moved_bytes, 0
            self.stage.desk.heard(slot, RelayUsage(sessions=[number], moved_bytes=[moved]))

    def run(self, turn: Callable[["Workers"], None]) -> None:
        """Let time pass; ``turn`` is what the peers do at each moment."""
        steps = round(DURATION_S / STEP_S)
        for step in range(steps):
            turn(self)
            self.stage.now_s += STEP_S
            if step % TICK_STEPS == 0:
                self.report()
            if step % TICK_STEPS == TICK_STEPS - 1:
                self.stage.desk.tick()
            self.listen()


def steady(workers: Workers) -> None:
    """One session all the time."""
    if not workers.meters:
        workers.open()
    for meter in workers.meters.values():
        workers.send(meter)


def one_after_another(workers: Workers) -> None:
    """Open, send what may be sent at once, close."""
    meter = workers.open()
    if meter is not None:
        workers.send(meter)
        workers.close(meter)


def one_stays(workers: Workers) -> None:
    """The first goes on while others come and go beside it."""
    steady(workers)
    one_after_another(workers)


def all_at_once(workers: Workers) -> None:
    """As many as there may be, which end together; then there are none until there may be as many again."""
    while workers.open() is not None:
        pass
    for meter in list(workers.meters.values()):
        workers.send(meter)
        workers.close(meter)


def oldest_goes(workers: Workers) -> None:
    """There are as many as may be, and the oldest makes room for a new one."""
    if workers.meters and workers.open() is None:
        workers.close(next(iter(workers.meters.values())))
    workers.open()
    for meter in workers.meters.values():
        workers.send(meter)


def guests(workers: Workers) -> None:
    """The first goes on; others are there for less time than the hub takes to divide rates anew by itself."""
    steady(workers)
    due = round(workers.stage.now_s / STEP_S) % 20 == 0
    if due:
        for meter in list(workers.meters.values())[1:]:
            workers.close(meter)
        workers.open()


@pytest.mark.parametrize("turn", [steady, one_after_another, one_stays, all_at_once, oldest_goes, guests])
@pytest.mark.parametrize(("burst_s", "sessions"), [(1.0, 4), (10.0, 4), (0.05, 4), (1.0, 32), (10.0, 32)])
@pytest.mark.parametrize(
    ("channels", "size_bytes"),
    [(False, DATAGRAM_BYTES), (True, DATAGRAM_BYTES), (True, MAX_TRAIN_BYTES)],
)
def test_peer_that_reopens_gets_its_bandwidth_and_one_burst(
    turn: Callable[[Workers], None], burst_s: float, sessions: int, channels: bool, size_bytes: int
) -> None:
    """However it opens and closes sessions; what each may owe for a train it may owe once."""
    rate = 1_000_000
    workers = Workers(
        channels=channels,
        size_bytes=size_bytes,
        bandwidth_per_peer_bytes_per_s=rate,
        burst_s=burst_s,
        max_sessions_per_peer=sessions,
    )
    workers.run(turn)
    once = rate * burst_s + sessions * size_bytes
    assert workers.opened >= (1 if turn is steady else 2 * sessions)
    assert workers.moved_bytes <= TOLERANCE * rate * DURATION_S + once
    if turn is steady:
        assert workers.moved_bytes >= rate * DURATION_S * 0.95


def test_node_gets_its_bandwidth_and_one_burst_whoever_reopens() -> None:
    """Buckets of workers outlive sessions; dividing them anew hands nothing out twice."""
    rate, burst_s = 2_000_000, 5.0
    workers = Workers(
        channels=False,
        size_bytes=DATAGRAM_BYTES,
        bandwidth_bytes_per_s=rate,
        bandwidth_per_peer_bytes_per_s=rate,
        burst_s=burst_s,
    )
    peers = [bytes([number]) * 32 for number in range(20)]

    def turn(workers: Workers) -> None:
        # All at one worker for three seconds, then at the next.
        slot = int(workers.stage.now_s) // 3 % 3
        for key, meter in list(workers.meters.items()):
            if key[0] != slot:
                workers.close(meter)
        if not workers.meters:
            for peer_id in peers:
                workers.open(peer_id, slot)
        for meter in workers.meters.values():
            workers.send(meter)

    workers.run(turn)
    assert rate * DURATION_S * 0.5 < workers.moved_bytes <= TOLERANCE * rate * DURATION_S + rate * burst_s


def test_new_session_begins_with_half_of_what_is_left() -> None:
    """Or with its own burst, if that is less; another peer has its own."""
    starts = RelayStarts(1000.0, 800.0, 1 << 14)
    assert [starts.take(ALICE, 800.0, 5.0) for _ in range(3)] == [400, 200, 100]
    assert starts.take(ALICE, 10.0, 5.0) == 10
    assert starts.take(BOB, 800.0, 5.0) == 400
    assert starts.take(ALICE, 800.0, 6.0) == pytest.approx((90 + 100) / 2)
    assert starts.take(ALICE, 800.0, 1000.0) == 400


def test_debt_stays_until_it_is_paid() -> None:
    """It is no better for being handed to a session that ends at once, and no worse either."""
    starts = RelayStarts(1000.0, 100.0, 1 << 14)
    starts.take(ALICE, 100.0, 0.0)
    starts.owe(ALICE, 250.0, 50.0)
    assert starts.take(ALICE, 100.0, 0.0) == -200
    starts.owe(ALICE, 200.0, -200.0)
    assert starts.take(ALICE, 100.0, 1.0) == -100
    starts.owe(ALICE, 130.0, -100.0)
    assert starts.take(ALICE, 100.0, 1.0) == -130
    starts.owe(ALICE, -1e9, 0.0)
    starts.owe(ALICE, 1e18, 0.0)
    assert starts.take(ALICE, 100.0, 1.0) == -130 - MAX_TRAIN_BYTES
