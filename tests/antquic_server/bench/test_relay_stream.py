"""Relay sessions of a real node, and streams of the stock server, under the same load."""

import asyncio

import pytest

from antquic_server.bench import relay_stream
from antquic_server.bench.node_process import running_node, running_stock_server
from antquic_server.bench.relay_place import Place, open_place
from antquic_server.bench.relay_stream import (
    Direction,
    StreamLoad,
    measure_streams,
    open_relay_sessions,
    open_stock_streams,
)
from antquic_server.errors import CannotBootError
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.pool import PqcPool

pytestmark = pytest.mark.end_to_end

LOAD = StreamLoad(payload_bytes=500, seconds=0.1)
ALLOW_LOOPBACK = ("--set", 'relay.allowed_targets=["127.0.0.0/8"]')


@pytest.fixture
def pool() -> PqcPool:
    """Contexts for the peers."""
    return PqcPool(CryptographyProvider(), 10)


def _relay(place: Place, pool: PqcPool, *arguments: str) -> None:
    async def scenario() -> None:
        async with open_relay_sessions(place, node, pool, 2) as sessions:
            for direction in (Direction.UP, Direction.DOWN, Direction.BOTH):
                result = await measure_streams(sessions, direction, LOAD, node)
                assert 0 < result.delivered <= result.sent
                assert result.silent_sessions == 0
                assert result.cpu_s > 0

    with running_node(*arguments, where=place.server) as node:
        asyncio.run(scenario())


def test_relay_carries_each_way(pool: PqcPool) -> None:
    """From peer to host, back, and there and back."""
    with open_place("loopback") as place:
        _relay(place, pool, *ALLOW_LOOPBACK)


def test_relay_carries_each_way_across_namespaces(pool: PqcPool, root: None) -> None:
    """The port of a session is reached at the relay's other address."""
    with open_place("namespaces") as place:
        _relay(place, pool)


def test_stock_echo_is_measured_alike(pool: PqcPool) -> None:
    """Counted in the same units."""

    async def scenario() -> None:
        async with open_stock_streams(place, stock, pool, 2) as sessions:
            result = await measure_streams(sessions, Direction.ECHO, LOAD, stock)
            assert result.delivered == result.sent
            assert result.silent_sessions == 0

    with open_place("loopback") as place, running_stock_server("asyncio", place.server) as stock:
        asyncio.run(scenario())


def test_refusal_of_the_node_ends_the_benchmark(pool: PqcPool) -> None:
    """With status and reason of the response."""

    async def scenario() -> None:
        async with open_relay_sessions(place, node, pool, 1):
            pass

    with (
        open_place("loopback") as place,
        running_node("--set", "relay.enabled=false") as node,
        pytest.raises(CannotBootError, match="403 relay_disabled"),
    ):
        asyncio.run(scenario())


def test_target_that_is_refused_is_noticed(pool: PqcPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing arrives where the node may not send."""
    monkeypatch.setattr(relay_stream, "TIMEOUT_S", 1.0)

    async def scenario() -> None:
        async with open_relay_sessions(place, node, pool, 1):
            pass

    with (
        open_place("loopback") as place,
        running_node("--set", 'relay.denied_targets=["127.0.0.0/8"]') as node,
        pytest.raises(CannotBootError, match="does not deliver to a host"),
    ):
        asyncio.run(scenario())


def test_session_that_ends_is_no_result(pool: PqcPool) -> None:
    """Nothing arrives on a stream whose server is gone."""

    async def scenario() -> None:
        with running_stock_server("asyncio", place.server) as stock:
            async with open_stock_streams(place, stock, pool, 1) as sessions:
                sessions[0].connection.close()
                with pytest.raises(CannotBootError, match="stream echo delivered nothing"):
                    await measure_streams(sessions, Direction.ECHO, LOAD, stock)

    with open_place("loopback") as place:
        asyncio.run(scenario())
