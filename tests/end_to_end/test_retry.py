"""Retry against the running node: tokens that outlive a worker, tokens of others, and Retry under pressure only."""

import itertools
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from antquic_server.net.udp import PathAddress
from antquic_server.protocol.codepoints import TransportErrorCode
from support.load import (
    HANDSHAKE_TIMEOUT_S,
    UNLIMITED_RATES,
    LoadPeer,
    WatchedClient,
    ask,
    distinct_first_flights,
    node_port,
    ready_spares,
    run_clients,
    start_peer,
    until,
    wait_healthy,
)
from support.node import Node, StartNode
from support.waiting import wait_for_value, wait_until

pytestmark = pytest.mark.end_to_end

ALWAYS = 'limits.retry="always"'
TOKEN_LIFETIME_S = 15.0
FOREIGN_TOKEN = bytes(range(100))
ECHO_TIMEOUT_S = 10.0
CALM_TIMEOUT_S = 10.0


def count(node: Node, key: str) -> float:
    """Return one of the node's totals; workers tell them with a moment's delay."""
    return float(node.status()["totals"].get(key, 0))


async def stop_before_second_flight(node: Node) -> LoadPeer:
    """Begin a connection and hold back what follows the Retry; return it once that is there."""
    peer = start_peer(node)
    peer.client.holding = True
    await until(lambda: len(peer.client.held) >= 2, timeout_s=HANDSHAKE_TIMEOUT_S, what="second Initial")
    assert peer.connection.quic._retry_count == 1
    assert not peer.connection.connected.is_set()
    return peer


async def finish(peer: LoadPeer) -> None:
    """Wait for the handshake and echo once."""
    await peer.connection.wait_connected(HANDSHAKE_TIMEOUT_S)
    assert await peer.connection.echo(b"with a token", ECHO_TIMEOUT_S) == b"with a token"
    peer.leave()


async def until_unpressed(connect: Callable[[], Awaitable[int]]) -> None:
    """
    Connect until it takes no Retry.

    A worker whose loop lags by a quarter of a second asks for one, as on a machine where others are busy too, and
    learns that the pressure is gone from the next Initial it sees.
    """
    deadline_s = time.monotonic() + CALM_TIMEOUT_S
    while await connect():
        assert time.monotonic() < deadline_s, "Retry is on for no reason"


async def expect_invalid_token(peer: LoadPeer) -> None:
    """Wait for the refusal."""
    await until(peer.connection.closed.is_set, timeout_s=HANDSHAKE_TIMEOUT_S, what="close")
    termination = peer.connection.termination
    assert termination is not None
    assert termination.error_code == TransportErrorCode.INVALID_TOKEN
    assert termination.frame_type is not None, "a transport error"


def test_handshake_completes_with_a_retry(start_node: StartNode) -> None:
    """The client takes one Retry and finds both connection IDs in the transport parameters (RFC 9000, section 7.3)."""
    node = start_node(workers=2, echo=True, settings=[ALWAYS])

    async def story() -> None:
        peer = start_peer(node)
        first_cid = peer.connection.quic.original_destination_connection_id
        await peer.connection.wait_connected(HANDSHAKE_TIMEOUT_S)
        quic = peer.connection.quic
        assert quic._retry_count == 1
        # The client has compared them with the parameters, or there would be no handshake; so they are real ones.
        assert quic._remote_initial_source_connection_id != quic._retry_source_connection_id
        assert quic._retry_source_connection_id is not None
        assert quic.original_destination_connection_id == first_cid
        await finish(peer)

    run_clients(story(), timeout_s=30)

    wait_for_value(lambda: count(node, "tokens|valid"), 1, timeout_s=15.0, what="valid tokens")
    # A later heartbeat than the token's may bring it.
    wait_for_value(lambda: count(node, "handshakes|ant_quic"), 1, timeout_s=15.0, what="handshakes")
    assert count(node, "retries") >= 1


def test_token_outlives_the_worker_that_made_it(start_node: StartNode) -> None:
    """The worker dies between its Retry and the client's answer; its replacement accepts the token."""
    node = start_node(workers=2, echo=True, settings=[ALWAYS])

    async def story() -> None:
        # The token lives for 15 s, which a process that is only being started could take on a busy machine.
        await ask(wait_until, lambda: ready_spares(node), timeout_s=40.0, what="spare")
        peer = await stop_before_second_flight(node)
        victim = node.worker_pids[peer.slot]
        os.kill(victim, signal.SIGKILL)
        await ask(wait_healthy, node, besides=[victim])
        peer.client.release()
        await finish(peer)
        assert peer.connection.quic._retry_count == 1

    run_clients(story(), timeout_s=100)

    wait_until(lambda: count(node, "tokens|valid") >= 1, timeout_s=15.0, what="valid token")
    assert count(node, "tokens|foreign") == 0
    assert count(node, "tokens|invalid") == 0


def test_token_of_another_address_is_refused(start_node: StartNode) -> None:
    """A token brought from another port ends the attempt with INVALID_TOKEN (RFC 9000, section 8.1.3)."""
    node = start_node(workers=2, echo=True, settings=[ALWAYS])

    async def story() -> None:
        peer = await stop_before_second_flight(node)
        peer.client.rebind()
        peer.client.release()
        await expect_invalid_token(peer)
        peer.leave()
        await finish(start_peer(node))

    run_clients(story(), timeout_s=30)

    wait_until(lambda: count(node, "tokens|invalid") >= 1, timeout_s=15.0, what="invalid token")
    assert count(node, "handshake_failures|invalid_token") >= 1


@pytest.mark.slow
def test_expired_token_is_refused(start_node: StartNode) -> None:
    """A client that takes longer than a token lives has to begin anew."""
    node = start_node(workers=1, echo=True, settings=[ALWAYS])

    async def story() -> None:
        peer = await stop_before_second_flight(node)
        expires_s = time.monotonic() + TOKEN_LIFETIME_S
        await until(lambda: time.monotonic() > expires_s, timeout_s=TOKEN_LIFETIME_S + 5.0, what="end of the token")
        peer.client.release()
        await expect_invalid_token(peer)
        peer.leave()

    run_clients(story(), timeout_s=40)

    assert count(node, "handshakes|ant_quic") == 0


@pytest.mark.parametrize(("mode", "retries"), [("off", 0), ("auto", 0), ("always", 1)])
def test_token_of_another_node_counts_as_none(start_node: StartNode, mode: str, retries: int) -> None:
    """ant-quic peers present tokens that other nodes issued: they are served as if they had none."""
    node = start_node(workers=1, echo=True, settings=[f'limits.retry="{mode}"'])

    async def connect() -> int:
        # The first flight is lost; its repetition carries the token.
        peer = start_peer(node, holding=True)
        peer.client.take_held()
        peer.connection.quic._peer_token = FOREIGN_TOKEN
        peer.client.holding = False
        await finish(peer)
        return int(peer.connection.quic._retry_count)

    async def story() -> None:
        if mode == "auto":
            await until_unpressed(connect)
        else:
            assert await connect() == retries

    run_clients(story(), timeout_s=40)

    wait_until(lambda: count(node, "tokens|foreign") >= 1, timeout_s=15.0, what="foreign token")
    assert count(node, "tokens|invalid") == 0
    if mode != "auto":
        assert bool(count(node, "retries")) == bool(retries)


WORKERS = 2
THRESHOLD = 8
BATCHES = 12
FLIGHTS_PER_BATCH = 200


async def connect_honestly(node: Node) -> int:
    """Connect, echo and leave; return how many Retries it took."""
    peer = start_peer(node)
    await finish(peer)
    return int(peer.connection.quic._retry_count)


async def flood_and_connect(node: Node) -> tuple[list[float], list[int]]:
    """Send first flights nobody follows up, an honest client after each batch; return half-open counts and Retries."""
    half_open, retries = [], []
    flights = distinct_first_flights(node, BATCHES * FLIGHTS_PER_BATCH)
    attacker = WatchedClient(workers=WORKERS)
    path = PathAddress("127.0.0.1", node_port(node), 0, 0, b"", 0)
    for _ in range(BATCHES):
        for flight in itertools.islice(flights, FLIGHTS_PER_BATCH):
            attacker.udp.send(path, flight)
        retries.append(await connect_honestly(node))
        half_open.append(await ask(count, node, "handshakes_in_flight"))
    attacker.close()
    return half_open, retries


def test_pressure_switches_retry_on_and_its_end_switches_it_off(start_node: StartNode) -> None:
    """Thousands of half-open handshakes cost no more than the threshold, and honest clients connect meanwhile."""
    node = start_node(
        workers=WORKERS,
        echo=True,
        settings=[
            *UNLIMITED_RATES,
            f"limits.half_open_retry_threshold={THRESHOLD}",
            "pqc.handshake_timeout_multiplier=1.0",
        ],
    )

    async def story() -> None:
        await until_unpressed(lambda: connect_honestly(node))
        half_open, retries = await flood_and_connect(node)
        # An honest client with its token comes on top.
        assert max(half_open) <= WORKERS * (THRESHOLD + 1)
        assert sum(retries) > 0
        assert set(retries) <= {0, 1}
        await ask(
            wait_until, lambda: count(node, "handshakes_in_flight") == 0, timeout_s=15.0, what="end of the handshakes"
        )
        await until_unpressed(lambda: connect_honestly(node))

    run_clients(story(), timeout_s=60)

    sent = BATCHES * FLIGHTS_PER_BATCH
    wait_until(lambda: count(node, "handshakes|ant_quic") >= BATCHES + 2, timeout_s=15.0, what="honest handshakes")
    assert count(node, "retries") >= sent / 2
    assert count(node, "handshake_failures|handshake_timeout") <= sent / 2
