"""Tests of ``workers.relay_canary``: it tells a relay that forwards from one that does not."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.stats.counters import CounterSet
from support.in_process import Bench, run, running_worker, settings_with, until
from workers import relay_canary
from workers.channel_table import ChannelTable
from workers.relay_canary import ChannelRound, RelayCanary

QUICK = settings_with(relay={"canary_interval_s": 0.02})
NEVER = settings_with(relay={"canary_interval_s": 0.0})


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come is given up soon."""
    monkeypatch.setattr(relay_canary, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(relay_canary, "REPEAT_S", 0.05)


def rounds(bench: Bench, result: str) -> float:
    """How many attempts have ended so."""
    return bench.counted("relay_canaries", f"channel|{result}")


def table_of(bench: Bench) -> ChannelTable:
    """The worker's table of channels."""
    return bench.endpoint._incoming._channels


def test_working_relay_is_proven_again_and_again() -> None:
    """With real bytes through the real path, and without a trace in what peers are counted by."""

    async def story() -> None:
        async with running_worker(QUICK) as bench:
            received = bench.counted("bytes_received")
            await until(lambda: rounds(bench, "ok") >= 3, "rounds")
            assert bench.counted("bytes_received") - received >= 6 * relay_canary.PAYLOAD_BYTES
            assert 0 < bench.counted("relay_canary_latency_s", "channel") < 2
            for name in ("relay_sessions", "relay_sessions_opened", "relay_bytes", "relay_drops"):
                assert bench.counted(name) == 0, name
            assert bench.told_hub == []
            await until(lambda: not len(table_of(bench)), "end of a round")
            assert rounds(bench, "failed") == 0

    run(story())


def test_relay_that_forwards_nothing_is_found_out(short_waits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Binds are answered and the session is there: only the bytes tell. The log says so too."""
    monkeypatch.setattr(ChannelTable, "forward_train", lambda *_: 1)

    async def story() -> None:
        async with running_worker(QUICK) as bench:
            await until(lambda: rounds(bench, "failed") >= 1, "failed round")
            assert rounds(bench, "ok") == 0

    with capture_logs() as logs:
        run(story())
    assert "the relay does not forward" in {entry["event"] for entry in logs}


def test_lost_datagrams_are_sent_again(short_waits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a full buffer has cost is no proof of anything."""
    forward = ChannelTable.forward_train
    handled: list[int] = []

    def forward_every_other(*arguments: object) -> int:
        handled.append(1)
        return forward(*arguments) if len(handled) % 2 == 0 else 1  # type: ignore[arg-type]

    monkeypatch.setattr(ChannelTable, "forward_train", forward_every_other)
    monkeypatch.setattr(relay_canary, "TIMEOUT_S", 5.0)

    async def story() -> None:
        async with running_worker(QUICK) as bench:
            await until(lambda: rounds(bench, "ok") >= 1, "round")
            assert rounds(bench, "failed") == 0

    run(story())


def test_interval_of_zero_sends_nothing() -> None:
    """The operator wants none."""

    async def story() -> None:
        async with running_worker(NEVER) as bench:
            await asyncio.sleep(0.1)
            assert bench.counted("datagrams_received") == 0
            assert bench.counted("relay_canaries") == 0

    run(story())


def test_only_one_attempt_at_a_time() -> None:
    """A slow one is not overtaken, and is given up when the worker stops."""

    async def story() -> None:
        begun: list[int] = []
        gone: list[int] = []

        async def slow() -> float:
            begun.append(1)
            try:
                await asyncio.sleep(60)
            finally:
                gone.append(1)
            return 0.0

        canary = _canary(slow)
        canary.stop()
        canary.begin()
        canary.begin()
        await until(lambda: begun, "attempt")
        canary.begin()
        canary.stop()
        await until(lambda: gone, "end")
        canary.stop()
        assert (len(begun), len(gone)) == (1, 1)

    run(story())


def test_socket_error_is_a_failure() -> None:
    """Without loopback, or without descriptors."""

    async def story() -> None:
        counters = CounterSet()

        async def broken() -> float:
            raise OSError("no more descriptors")

        _canary(broken, counters).begin()
        await until(lambda: counters.values.get("relay_canaries|channel|failed"), "failure")

    run(story())


@pytest.mark.parametrize(
    ("host", "target"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1")]
)
def test_wildcard_is_reached_by_loopback(host: str, target: str) -> None:
    """Any other address by itself."""
    table: ChannelTable = ChannelTable(
        slot=0, worker_count=1, sockets=[], counters=CounterSet(), secret=b"", unknowns_per_s=0.0
    )
    attempt = ChannelRound(table, slot=0, worker_count=1, host=host, port=9)
    assert attempt._node == (target, 9)


def test_round_that_cannot_reach_the_node_leaves_nothing_behind() -> None:
    """Neither sockets, which the test run would complain of, nor a channel."""

    async def story() -> None:
        table = ChannelTable(slot=0, worker_count=1, sockets=[], counters=CounterSet(), secret=b"", unknowns_per_s=0.0)
        with pytest.raises(OSError, match=r".+"):
            await ChannelRound(table, slot=0, worker_count=1, host="255.255.255.255", port=9)()
        assert len(table) == 0

    run(story())


def _canary(attempt: Callable[[], Awaitable[float]], counters: CounterSet | None = None) -> RelayCanary:
    return RelayCanary(RelayMode.CHANNEL, attempt, counters or CounterSet(), asyncio.get_running_loop())
