"""Limits of the running node: it refuses or drops what is too much, counts it, and serves on."""

import pytest

from antquic_server.protocol.codepoints import TransportErrorCode
from support.load import HANDSHAKE_TIMEOUT_S, LoadPeer, connect_peers, run_clients, start_peer, until
from support.node import Node, StartNode
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

MAX_CONNECTIONS = 5
ECHO_TIMEOUT_S = 10.0


async def expect_refusal(node: Node) -> None:
    """A new client gets CONNECTION_REFUSED (RFC 9000, section 5.2.2)."""
    peer = start_peer(node)
    await until(peer.connection.closed.is_set, timeout_s=HANDSHAKE_TIMEOUT_S, what="refusal")
    assert peer.connection.termination is not None
    assert peer.connection.termination.error_code == TransportErrorCode.CONNECTION_REFUSED
    assert not peer.connection.connected.is_set()
    peer.leave()


async def echo(peer: LoadPeer) -> None:
    """Echo once."""
    assert await peer.connection.echo(b"still here", ECHO_TIMEOUT_S) == b"still here"


def test_full_node_refuses_and_recovers(start_node: StartNode) -> None:
    """With as many connections as allowed the next is refused; once one has ended there is room again."""
    node = start_node(workers=1, echo=True, settings=[f"endpoint.max_connections={MAX_CONNECTIONS}"])

    async def story() -> None:
        peers = await connect_peers(node, MAX_CONNECTIONS)
        for _ in range(3):
            await expect_refusal(node)
        for peer in peers:
            await echo(peer)
        peers.pop().leave()
        # The connection counts until its closing period is over (RFC 9000, section 10.2).
        await until_room(node)
        newcomer = start_peer(node)
        await newcomer.connection.wait_connected(HANDSHAKE_TIMEOUT_S)
        await echo(newcomer)
        await expect_refusal(node)
        for peer in (*peers, newcomer):
            await echo(peer)
            peer.leave()

    run_clients(story(), timeout_s=60)

    def refused() -> bool:
        return bool(node.status()["totals"].get("handshake_failures|max_connections", 0) >= 4)

    wait_until(refused, timeout_s=15.0, what="refusals counted")


async def until_room(node: Node) -> None:
    """Wait until the node reports fewer connections than allowed."""
    await until(
        lambda: node.total("antquic_active_connections") < MAX_CONNECTIONS, timeout_s=10.0, what="room on the node"
    )


def test_limit_counts_the_connections_of_all_workers(start_node: StartNode) -> None:
    """The limit is the node's, not a worker's: what the others hold counts as soon as heartbeats have told."""
    node = start_node(workers=3, echo=True, settings=[f"endpoint.max_connections={MAX_CONNECTIONS}"])

    async def story() -> None:
        peers = await connect_peers(node, MAX_CONNECTIONS)
        await until(
            lambda: node.total("antquic_active_connections") == MAX_CONNECTIONS, timeout_s=10.0, what="full node"
        )

        async def refused() -> bool:
            peer = start_peer(node)
            await until(
                lambda: peer.connection.closed.is_set() or peer.connection.connected.is_set(),
                timeout_s=HANDSHAKE_TIMEOUT_S,
                what="answer",
            )
            peer.leave()
            return not peer.connection.connected.is_set()

        # A worker learns of the others with the answer to its next heartbeat: until then it may let one in.
        outcomes: list[bool] = []
        while outcomes[-6:] != [True] * 6:
            outcomes.append(await refused())
            assert len(outcomes) < 60
        for peer in peers:
            await echo(peer)
            peer.leave()

    run_clients(story(), timeout_s=60)


def test_handshakes_beyond_the_rate_are_dropped_and_counted(start_node: StartNode) -> None:
    """One address gets its one handshake; the next attempts are met with silence, and the first connection lives."""
    node = start_node(workers=1, echo=True, settings=["limits.handshakes_per_address_per_s=0.01"])

    def dropped() -> float:
        return float(node.status()["totals"].get("drops|address_rate", 0))

    async def story() -> None:
        (first,) = await connect_peers(node, 1)
        # Both datagrams of a ClientHello count, and so do repetitions.
        late = [start_peer(node) for _ in range(4)]
        await until(lambda: dropped() >= 8, timeout_s=10.0, what="drops")
        assert not any(peer.connection.connected.is_set() for peer in late)
        assert not any(peer.connection.closed.is_set() for peer in late)
        await echo(first)
        first.leave()

    run_clients(story(), timeout_s=40)

    assert node.status()["totals"]["handshakes|ant_quic"] == 1
