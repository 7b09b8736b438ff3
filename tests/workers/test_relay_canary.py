"""Tests of ``workers.relay_canary``: it tells a relay that forwards from one that does not."""

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from antquic_server.config.model import to_plain
from antquic_server.errors import NoPortError
from antquic_server.ipc.messages import LimitsChanged
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.stats.counters import CounterSet
from support.in_process import Bench, run, running_worker, settings_with, until
from support.require import require
from workers import relay_canary
from workers.channel_table import ChannelTable
from workers.relay_canary import ChannelRound, RelayCanary, StreamRound
from workers.relay_ports import RelayPorts
from workers.relay_session import RelaySession

QUICK = settings_with(relay={"canary_interval_s": 0.02})
NEVER = settings_with(relay={"canary_interval_s": 0.0})


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come is given up soon."""
    monkeypatch.setattr(relay_canary, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(relay_canary, "REPEAT_S", 0.05)


BOTH = pytest.mark.parametrize("mode", list(RelayMode))


def rounds(bench: Bench, result: str, mode: RelayMode = RelayMode.CHANNEL) -> float:
    """How many attempts have ended so."""
    return bench.counted("relay_canaries", f"{mode}|{result}")


def table_of(bench: Bench) -> ChannelTable:
    """The worker's table of channels."""
    return bench.endpoint._incoming._channels


@BOTH
def test_working_relay_is_proven_again_and_again(mode: RelayMode) -> None:
    """With real bytes through the real path, and without a trace in what peers are counted by."""

    async def story() -> None:
        async with running_worker(QUICK) as bench:
            received = bench.counted("bytes_received")
            await until(lambda: rounds(bench, "ok", mode) >= 3, "rounds")
            if mode is RelayMode.CHANNEL:
                assert bench.counted("bytes_received") - received >= 6 * relay_canary.PAYLOAD_BYTES
            assert 0 < bench.counted("relay_canary_latency_s", mode) < 2
            for name in ("relay_sessions", "relay_sessions_opened", "relay_bytes", "relay_drops"):
                assert bench.counted(name) == 0, name
            assert bench.told_hub == []
            await until(lambda: not len(table_of(bench)), "end of a round")
            assert rounds(bench, "failed", mode) == 0

    run(story())


@BOTH
def test_relay_that_forwards_nothing_is_found_out(
    mode: RelayMode, short_waits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Binds are answered and the session is there: only the bytes tell. The log says so too."""
    monkeypatch.setattr(ChannelTable, "follow_run", lambda *_: None)
    monkeypatch.setattr(RelaySession, "_send_to", lambda *_: None)

    async def story() -> None:
        async with running_worker(QUICK) as bench:
            await until(lambda: rounds(bench, "failed", mode) >= 1, "failed round")
            assert rounds(bench, "ok", mode) == 0

    with capture_logs() as logs:
        run(story())
    assert str(mode) in {entry["mode"] for entry in logs if entry["event"] == "the relay does not forward"}


@BOTH
def test_lost_datagrams_are_sent_again(mode: RelayMode, short_waits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a full buffer has cost is no proof of anything."""
    monkeypatch.setattr(relay_canary, "TIMEOUT_S", 5.0)
    for owner, name, lost in (
        (ChannelTable, "follow_run", None),
        (RelaySession, "_send_to", None),
        (RelaySession, "_pass_on", None),
    ):
        monkeypatch.setattr(owner, name, every_other(getattr(owner, name), lost))

    async def story() -> None:
        async with running_worker(QUICK) as bench:
            await until(lambda: rounds(bench, "ok", mode) >= 1, "round")
            assert rounds(bench, "failed", mode) == 0

    run(story())


def every_other(method: Callable[..., object], lost: object) -> Callable[..., object]:
    """Return a method that works every other time."""
    called: list[int] = []

    def call(*arguments: object) -> object:
        called.append(1)
        return lost if len(called) % 2 else method(*arguments)

    return call


def test_disabled_relay_is_not_tried() -> None:
    """It refuses everybody; enabled while running it is."""

    async def story() -> None:
        settings = settings_with(relay={"canary_interval_s": 0.02, "enabled": False})
        async with running_worker(settings) as bench:
            await asyncio.sleep(0.1)
            assert bench.counted("relay_canaries") == 0
            bench.worker.relay.handle_message(LimitsChanged(settings=to_plain(QUICK)))
            await until(lambda: bench.counted("relay_canaries"), "round")

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


def test_stream_without_a_free_port_is_a_failure() -> None:
    """A peer would be refused for it."""

    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            with pytest.raises(NoPortError):
                await StreamRound(RelayPorts((port, port), lambda _: 0), host="127.0.0.1")()

    run(story())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_stream_round_on_each_kind_of_address(host: str) -> None:
    """And its port is free again afterwards."""
    if ":" in host:
        require(socket.has_ipv6, "this machine has no IPv6")

    async def story() -> None:
        assert await StreamRound(RelayPorts((20_000, 30_000), secrets.randbelow), host=host)() > 0

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
