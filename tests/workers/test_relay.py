"""Tests of ``workers.relay``: what the hub says reaches whom it is for."""

import asyncio
from dataclasses import replace

import pytest

from antquic_server.config.model import to_plain
from antquic_server.ipc.messages import HeartbeatAck, LimitsChanged
from antquic_server.ipc.relay_messages import (
    ChannelCreated,
    ChannelDestroy,
    ChannelEnded,
    RelayRate,
    RelayRevoked,
    RelayShare,
    RelayUsage,
)
from antquic_server.protocol.relay_limits import Refusal
from support.channels import create_message, made_up_id
from support.in_process import Bench, run, running_worker, settings_with, until
from workers import relay, relay_reports
from workers.channel_table import Channel
from workers.relay_channels import session_number

ID = made_up_id(1)
NUMBER = session_number(ID)


def channel_of(bench: Bench) -> Channel:
    """The one channel of the worker."""
    (channel,) = bench.endpoint._incoming._channels
    return channel


def test_channels_are_made_and_ended() -> None:
    """By three kinds of messages; a stream session's end is nothing to them."""

    async def story() -> None:
        async with running_worker() as bench:
            handle = bench.worker.relay.handle_message
            handle(create_message(ID))
            handle(RelayRevoked(session=NUMBER & 0xFFFF, reason="peer_bytes"))
            handle(HeartbeatAck(sequence=1, connections_elsewhere=0))
            assert bench.told_hub == [ChannelCreated(channel_id=ID, refusal="")]
            handle(RelayRevoked(session=NUMBER, reason="peer_bytes"))
            handle(create_message(ID))
            handle(ChannelDestroy(channel_id=ID, reason="closed"))
            assert bench.told_hub[1::2] == [
                ChannelEnded(channel_id=ID, reason="peer_bytes", moved_bytes=0),
                ChannelEnded(channel_id=ID, reason="closed", moved_bytes=0),
            ]

    run(story())


def test_rates_reach_the_buckets() -> None:
    """The session's own, and what all of the worker share."""

    async def story() -> None:
        async with running_worker() as bench:
            handle = bench.worker.relay.handle_message
            handle(create_message(ID, rate=10.0, burst=10.0))
            session = channel_of(bench).session
            now_s = asyncio.get_running_loop().time()
            assert session.refuses(10, now_s) == ""
            assert session.refuses(1, now_s) == "session_rate"
            handle(RelayRate(session=NUMBER, rate_bytes_per_s=1e9, burst_bytes=1e9))
            assert session.refuses(1, now_s + 1.0) == ""
            handle(RelayShare(rate_bytes_per_s=0.001, burst_bytes=1.0))
            assert session.refuses(10, now_s + 2.0) == ""
            assert session.refuses(1, now_s + 3.0) == "node_rate"

    run(story())


@pytest.mark.parametrize("worker_count", [1, 4])
def test_share_before_the_hub_has_spoken_is_an_even_part(worker_count: int) -> None:
    """Of the node's bandwidth."""
    settings = settings_with(relay={"bandwidth_bytes_per_s": 4_000_000, "burst_s": 2.0})

    async def story() -> None:
        async with running_worker(settings, worker_count=worker_count) as bench:
            bench.worker.relay.handle_message(create_message(made_up_id(1, slot=0, worker_count=worker_count)))
            session = channel_of(bench).session
            assert session.refuses(8_000_000 // worker_count, 1.0) == ""
            assert session.refuses(1, 1.0) == "node_rate"

    run(story())


def test_limits_change_while_running() -> None:
    """The number of channels follows the settings."""

    async def story() -> None:
        settings = settings_with(relay={"max_sessions": 1})
        async with running_worker(settings) as bench:
            handle = bench.worker.relay.handle_message
            refusals = []
            for number in (1, 2, 3):
                if number == 3:
                    changed = replace(settings, relay=replace(settings.relay, max_sessions=2))
                    handle(LimitsChanged(settings=to_plain(changed)))
                handle(create_message(made_up_id(number)))
                answer = bench.told_hub[-1]
                assert isinstance(answer, ChannelCreated)
                refusals.append(answer.refusal)
            assert refusals == ["", Refusal.NODE_SESSIONS, ""]
            bench.worker.relay.drain()
            handle(create_message(made_up_id(4)))
            assert bench.told_hub[-1] == ChannelCreated(channel_id=made_up_id(4), refusal=Refusal.DRAINING)

    run(story())


def test_usage_is_reported_and_idle_channels_end_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anybody asking, until the worker stops."""
    monkeypatch.setattr(relay, "TICK_INTERVAL_S", 0.02)
    monkeypatch.setattr(relay_reports, "USAGE_INTERVAL_S", 0.02)

    async def story() -> None:
        async with running_worker() as bench:
            bench.worker.relay.handle_message(create_message(ID))
            channel = channel_of(bench)
            channel.session.passed_bytes, channel.session.passed_datagrams = 500, 1
            expected = RelayUsage(sessions=[NUMBER], moved_bytes=[500])
            await until(lambda: expected in bench.told_hub, "report")
            channel.created_s -= 60.0
            await until(lambda: isinstance(bench.told_hub[-1], ChannelEnded), "end")

    run(story())
