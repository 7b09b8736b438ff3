"""The figures of the running node are those of what was really done to it: its page is held against its clients."""

from collections import Counter
from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from antquic_server.bench.load_client import ClientSettings
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.routing import STEERING_BYTE_INDEX
from support.load import (
    HANDSHAKE_TIMEOUT_S,
    LoadPeer,
    WatchedClient,
    ask,
    client_pool,
    node_port,
    peers_of,
    run_clients,
    until,
)
from support.node import Node, StartNode
from support.waiting import wait_for_value

pytestmark = pytest.mark.end_to_end

WORKERS = 2
PEERS = 6
ECHO_TIMEOUT_S = 10.0
SETTLE_TIMEOUT_S = 15.0
MALFORMED = b"\xc0\x00"
"""A long header that ends before its connection ID."""

DEMANDED = {
    "antquic_active_connections",
    "antquic_handshakes_total",
    "antquic_handshake_failures_total",
    "antquic_bytes_received_total",
    "antquic_bytes_sent_total",
    "antquic_datagrams_received_total",
    "antquic_datagrams_sent_total",
    "antquic_drops_total",
    "antquic_retries_total",
    "antquic_stateless_resets_total",
    "antquic_loop_lag_seconds",
    "antquic_pqc_pool_hits_total",
    "antquic_pqc_pool_misses_total",
}


def samples_by_worker(node: Node) -> dict[str, set[str]]:
    """Return which workers each metric of the page has samples of."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(node.get("/metrics")[1].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).add(sample.labels.get("worker", ""))
    return found


def traffic_of(node: Node) -> dict[str, float]:
    """Return what the node counts, under the clients' names for it: what one sends the other receives."""
    metrics = node.metrics()
    opposite = {"sent": "received", "received": "sent"}
    return {
        f"{unit}_{direction}": metrics[f"antquic_{unit}_{opposite[direction]}_total"]
        for unit in ("datagrams", "bytes")
        for direction in opposite
    }


async def check_traffic(node: Node, clients: Sequence[WatchedClient]) -> None:
    """Every byte and datagram either way is counted once; the last acknowledgements may still be on their way."""

    def difference() -> dict[str, float]:
        counted, real = traffic_of(node), sum((client.traffic for client in clients), Counter())
        return {name: counted[name] - real[name] for name in counted if counted[name] != real[name]}

    await ask(wait_for_value, difference, {}, timeout_s=SETTLE_TIMEOUT_S, what="surplus of the node's traffic")


async def refuse_a_classical_client(node: Node) -> WatchedClient:
    """Let a client without any post-quantum group fail."""
    client = WatchedClient(workers=WORKERS)
    settings = ClientSettings(
        pqc=client_pool(), profile=HandshakeProfile.CLASSICAL, groups=(NamedGroup.X25519,), server_name="localhost"
    )
    connection = client.connect("127.0.0.1", node_port(node), settings)
    await until(connection.closed.is_set, timeout_s=HANDSHAKE_TIMEOUT_S, what="refusal")
    assert not connection.connected.is_set()
    return client


def provoke_a_reset(peer: LoadPeer) -> None:
    """Send a packet for an ID that could be the node's, and is nobody's."""
    cid = bytearray(peer.connection.quic._peer_cid.cid)
    for index in range(STEERING_BYTE_INDEX + 1, len(cid)):
        cid[index] ^= 0xFF
    peer.client.udp.send(peer.connection.server, [(b"\x40" + bytes(cid)).ljust(60, b"\x55")])


def test_figures_of_the_page_are_those_of_the_clients(start_node: StartNode) -> None:
    """Connections, handshakes, failures, bytes and datagrams both ways, drops, resets, loop lag, the pool's hits."""
    # A worker whose loop lags asks for a Retry, and this test counts.
    node = start_node(workers=WORKERS, echo=True, settings=['limits.retry="off"'])

    async def story() -> None:
        async with peers_of(node, PEERS) as peers:
            for peer in peers:
                assert await peer.connection.echo(bytes(20_000), ECHO_TIMEOUT_S) == bytes(20_000)
            refused = await refuse_a_classical_client(node)
            provoke_a_reset(peers[0])
            address = PathAddress("127.0.0.1", node_port(node), 0, 0, b"", 0)
            refused.udp.send(address, [MALFORMED])
            await check_traffic(node, [*(peer.client for peer in peers), refused])

            expected = {
                'antquic_handshakes_total{profile="ant_quic"}': PEERS,
                'antquic_handshake_failures_total{reason="alert_handshake_failure"}': 1,
                'antquic_drops_total{reason="header_malformed"}': 1,
                "antquic_stateless_resets_total": 1,
                "antquic_retries_total": 0,
                "antquic_streams_echoed_total": PEERS,
                "antquic_active_connections": PEERS,
                "antquic_pqc_pool_misses_total": 0,
            }
            await ask(
                wait_for_value,
                lambda: {name: node.metrics().get(name) for name in expected},
                expected,
                timeout_s=SETTLE_TIMEOUT_S,
                what="figures",
            )
            # Each handshake of a peer encapsulates, signs and verifies.
            assert node.total("antquic_pqc_pool_hits_total") >= 3 * PEERS
            refused.close()

    run_clients(story(), timeout_s=60)

    page = samples_by_worker(node)
    assert DEMANDED - set(page) == set()
    assert page["antquic_loop_lag_seconds"] == {"supervisor", *map(str, range(WORKERS))}
