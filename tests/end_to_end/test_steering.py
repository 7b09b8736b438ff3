"""Steering by connection ID: whatever a client's address does, its datagrams arrive at the worker that knows it."""

import itertools
import os
import time
from collections import Counter
from typing import Any

import pytest

from support.load import (
    UNLIMITED_RATES,
    LoadPeer,
    WatchedClient,
    a_few_at_once,
    ask,
    peers_of,
    run_clients,
    start_peer,
    until,
    worker_counts,
)
from support.node import Node, StartNode
from support.waiting import wait_for_value, wait_until

pytestmark = pytest.mark.end_to_end

ECHO_TIMEOUT_S = 10.0
FULL_DATAGRAM_BYTES = 1200
IPV6 = "::1"


async def echo(peer: LoadPeer) -> None:
    """Let a peer's own text come back."""
    text = f"from {peer.own_address} by {peer.peer_id} ".encode() * 10
    assert await peer.connection.echo(text, ECHO_TIMEOUT_S) == text


async def echo_from_two_addresses(peer: LoadPeer) -> None:
    """Echo, change the source port, echo right away again; the peer is told both its addresses."""
    await echo(peer)
    old_address = peer.own_address
    assert peer.observed_address == old_address
    peer.client.rebind()
    assert peer.own_address != old_address
    await echo(peer)
    await until(lambda: peer.observed_address == peer.own_address, timeout_s=ECHO_TIMEOUT_S, what="new address told")
    assert set(peer.client.sent_to) == {peer.slot}, "a connection ID names one slot for life"


async def move_all(node: Node, count: int, host: str) -> tuple[Counter[int], Counter[int]]:
    """Connect and move ``count`` peers; return their number, and that of the datagrams they sent, by slot."""
    async with peers_of(node, count, host=host) as peers:
        await a_few_at_once(echo_from_two_addresses, peers)
        await ask(check_directory, node, peers)
        owners = Counter(peer.slot for peer in peers)
    # The last datagrams are sent at the end of the block: the closes.
    return owners, sum((peer.client.sent_to for peer in peers), Counter())


def check_directory(node: Node, peers: list[LoadPeer]) -> None:
    """The hub knows each peer at one slot and its present address; workers tell with a moment's delay."""
    for peer in peers:
        expected = (peer.slot, str(peer.own_address.host), peer.own_address.port)

        def place(peer: LoadPeer = peer) -> list[tuple[Any, ...]]:
            return [(item["slot"], item["host"], item["port"]) for item in node.peer(peer.peer_id)]

        wait_for_value(place, [expected], timeout_s=15.0, what=f"place of {peer.peer_id}")


def received_by_slot(node: Node, total: int) -> dict[str, Any]:
    """Return the status once the workers have reported ``total`` datagrams."""

    def complete() -> dict[str, Any] | None:
        status = node.status()
        return status if sum(worker_counts(status, "datagrams_received")) >= total else None

    status = wait_until(complete, timeout_s=15.0, what=f"{total} datagrams in the workers' counts")
    assert status is not None
    return status


def drops_besides_late_ones(status: dict[str, Any]) -> dict[str, float]:
    """Return what was dropped; a flight the client repeats on a busy machine comes when its keys are gone."""
    return {
        key: value
        for key, value in status["totals"].items()
        if key.startswith("drops|") and value and key not in ("drops|undecryptable", "drops|key_unavailable")
    }


@pytest.mark.parametrize(
    ("workers", "connections", "host"),
    [(4, 400, "127.0.0.1"), (4, 60, IPV6), (3, 45, "127.0.0.1"), (5, 50, IPV6)],
    ids=["4 workers", "4 workers, IPv6", "3 workers", "5 workers, IPv6"],
)
def test_every_datagram_arrives_at_its_worker(start_node: StartNode, workers: int, connections: int, host: str) -> None:
    """Connections that change their source address stay with one worker: counted there, and nothing is misrouted."""
    # Canaries go through the node's own port, and would be counted among the clients' datagrams.
    settings = [*UNLIMITED_RATES, "relay.canary_interval_s=0"]
    node = start_node(workers=workers, echo=True, settings=settings, arguments=["--listen", "[::1]:0"])
    assert node.status()["node"]["steered"]

    owners, sent = run_clients(move_all(node, connections, host), timeout_s=120)

    status = received_by_slot(node, sent.total())
    assert sum(worker_counts(status, "misrouted_forwarded")) == 0
    assert sum(worker_counts(status, "misrouted_received")) == 0
    assert worker_counts(status, "datagrams_received") == [sent[slot] for slot in range(workers)]
    assert worker_counts(status, "handshakes") == [owners[slot] for slot in range(workers)]
    assert worker_counts(status, "address_changes") == [owners[slot] for slot in range(workers)]
    assert worker_counts(status, "streams_echoed") == [2 * owners[slot] for slot in range(workers)]
    assert not drops_besides_late_ones(status)
    assert len(owners) == workers, "clients spread over all workers"


async def connect_to_different_workers(node: Node, client: WatchedClient) -> tuple[LoadPeer, LoadPeer]:
    """Return two connections of one socket that two workers own."""
    peers: list[LoadPeer] = []
    while True:
        peers.append(start_peer(node, client=client))
        await peers[-1].connection.wait_connected(ECHO_TIMEOUT_S)
        for other in peers[:-1]:
            if other.slot != peers[-1].slot:
                return other, peers[-1]


def full_datagrams(peer: LoadPeer, data: bytes) -> tuple[int, list[bytes], list[bytes]]:
    """Put ``data`` on a new stream; return its number, the full-size datagrams to send, and the others."""
    quic = peer.connection.quic
    stream_id = quic.get_next_available_stream_id()
    quic.send_stream_data(stream_id, data, end_stream=True)
    datagrams = [datagram for datagram, _ in quic.datagrams_to_send(time.monotonic())]
    full = [datagram for datagram in datagrams if len(datagram) == FULL_DATAGRAM_BYTES]
    return stream_id, full, [datagram for datagram in datagrams if len(datagram) != FULL_DATAGRAM_BYTES]


async def glue_trains(node: Node, rounds: int) -> int:
    """Send trains that carry two connections; return how many datagrams followed one of the other worker."""
    client = WatchedClient(workers=int(node.ready["workers"]))
    pair = await connect_to_different_workers(node, client)
    for peer in pair:
        # So that a whole train of each fits the congestion window.
        await peer.connection.echo(bytes(200_000), ECHO_TIMEOUT_S)
    assert "gso" in client.udp.offloads
    strays = 0
    for number in range(rounds):
        texts = [os.urandom(8 * FULL_DATAGRAM_BYTES) for _ in pair]
        streams, full, rest = zip(*map(full_datagrams, pair, texts), strict=True)
        # Who comes first, and is steered right, alternates.
        order = (0, 1) if number % 2 else (1, 0)
        train = [
            datagram for group in itertools.zip_longest(*(full[i] for i in order)) for datagram in group if datagram
        ]
        calls = client.udp.send_calls
        server = pair[0].connection.server
        assert client.udp.send(server, train).sent == len(train)
        assert client.udp.send_calls == calls + 1, "one train"
        strays += len(full[order[1]])
        for datagrams in rest:
            client.udp.send(server, datagrams)
        client.flush([peer.connection for peer in pair])
        for peer, stream_id, text in zip(pair, streams, texts, strict=True):
            assert await peer.connection.read_stream(stream_id, ECHO_TIMEOUT_S) == text
    for peer in pair:
        assert not peer.connection.closed.is_set()
    for connection in list(client.connections):
        connection.close()
    client.close()
    return strays


def test_a_train_of_two_connections_is_taken_apart(start_node: StartNode) -> None:
    """The kernel steers a train by its first datagram; the others reach their own workers, and every echo is right."""
    node = start_node(workers=4, echo=True, settings=UNLIMITED_RATES)

    strays = run_clients(glue_trains(node, 10), timeout_s=30)

    assert strays >= 10

    def settled() -> dict[str, Any] | None:
        status = node.status()
        forwarded = sum(worker_counts(status, "misrouted_forwarded"))
        return status if forwarded == sum(worker_counts(status, "misrouted_received")) == strays else None

    status = wait_until(settled, timeout_s=15.0, what=f"{strays} strays forwarded and received")
    assert status is not None
    assert not drops_besides_late_ones(status)
    assert sum(worker_counts(status, "stateless_resets")) == 0
