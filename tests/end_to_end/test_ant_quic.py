"""The real peers: ant-quic 0.27.44 connects, learns its address, stays, and survives a NAT that rebinds."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.ant_quic import AntQuicPeer, host_of, port_of
from support.forwarder import StartForwarder, UdpForwarder
from support.node import Node, StartNode
from support.require import slow_tests_wanted
from support.waiting import hold_for, wait_for_value, wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.peers]

# The idle timeout is 30 s on both sides: whoever is connected after 35 s is kept alive, not forgotten.
STAY_S = 120.0 if slow_tests_wanted() else 35.0
CROWD_SIZE = 50
CROWD_STAY_S = STAY_S if slow_tests_wanted() else 5.0
# A peer gives one direct attempt about 2 s; all the rest is starting processes on a small machine.
CONNECT_TIMEOUT_S = 20.0
CROWD_TIMEOUT_S = 60.0
# A silent peer sends its next packet after 15 s at the latest, and only then can anybody notice a rebinding.
REBIND_TIMEOUT_S = 25.0
# Longer than any delayed acknowledgement or probe on loopback.
SILENCE_S = 2.0


@contextmanager
def crowd(count: int, known_peers: Sequence[str], program: Path) -> Iterator[list[AntQuicPeer]]:
    """Run that many peers; they are all asked to stop before the first is awaited."""
    with ExitStack() as stack:
        peers = [stack.enter_context(AntQuicPeer(known_peers, program=program)) for _ in range(count)]
        yield peers
        for peer in peers:
            peer.ask_to_stop()


def assert_connected_and_told(peer: AntQuicPeer, node: Node, port: int, *, timeout_s: float) -> None:
    """Wait until the peer has connected to the node and was told ``127.0.0.1:port`` as its address."""
    connected = peer.wait_connected(node.peer_id, timeout_s=timeout_s)
    assert connected["connection_type"] == "direct", peer.describe()
    wait_told(peer, port, timeout_s=timeout_s)


def wait_told(peer: AntQuicPeer, port: int, *, timeout_s: float) -> None:
    """Wait until the peer reports ``127.0.0.1:port`` as its external address."""
    peer.wait_for(
        "external_address_discovered",
        lambda message: host_of(message["addr"]) == "127.0.0.1" and port_of(message["addr"]) == port,
        timeout_s=timeout_s,
    )


def still_connected(peer: AntQuicPeer) -> bool:
    """Whether the peer runs and has never lost a connection."""
    return peer.running and not peer.events("peer_disconnected")


def assert_one_handshake_each(node: Node, peer_count: int) -> None:
    """No peer has come back with a second connection, and none is gone."""

    def counts() -> tuple[float, float]:
        return node.total("antquic_handshakes_total"), node.total("antquic_active_connections")

    # Workers report their counters with each heartbeat, so the page is a moment behind.
    wait_for_value(counts, (peer_count, peer_count), timeout_s=15.0, what="handshakes and connections")


@pytest.mark.parametrize("fixture", ["ant_quic_program", "e2e_test_node_program"])
def test_peer_connects_and_is_told_its_address(
    start_node: StartNode, request: pytest.FixtureRequest, fixture: str
) -> None:
    """It prints our peer id, then its own source address as we saw it, and our directory has its id."""
    program: Path = request.getfixturevalue(fixture)
    node = start_node()

    with AntQuicPeer([node.address], program=program) as peer:
        assert_connected_and_told(peer, node, peer.listen_port, timeout_s=CONNECT_TIMEOUT_S)
        wait_until(lambda: node.peer(peer.peer_id), timeout_s=15.0, what="directory entry")
        peer_id = peer.peer_id

    wait_until(lambda: not node.peer(peer_id), timeout_s=15.0, what="removal from the directory")


def test_peer_stays_connected(start_node: StartNode, ant_quic_program: Path) -> None:
    """Longer than the idle timeout, with nothing to say, the one connection is still there on both sides."""
    node = start_node()

    with AntQuicPeer([node.address], program=ant_quic_program) as peer:
        peer.wait_connected(node.peer_id, timeout_s=CONNECT_TIMEOUT_S)
        hold_for(lambda: still_connected(peer), duration_s=STAY_S, what="the connection")
        assert node.peer(peer.peer_id)
        assert_one_handshake_each(node, 1)


def test_fifty_peers_at_once_are_served_by_two_workers(start_node: StartNode, ant_quic_program: Path) -> None:
    """All fifty connect, are told their own address, and stay; both workers have some of them."""
    node = start_node(workers=2)

    with crowd(CROWD_SIZE, [node.address], ant_quic_program) as peers:
        for peer in peers:
            assert_connected_and_told(peer, node, peer.listen_port, timeout_s=CROWD_TIMEOUT_S)
        hold_for(lambda: all(map(still_connected, peers)), duration_s=CROWD_STAY_S, what="a connection")

        assert_one_handshake_each(node, CROWD_SIZE)
        assert all(worker["connections"] > 0 for worker in node.status()["workers"])
        assert all(node.peer(peer.peer_id) for peer in peers)


@pytest.mark.parametrize(
    "silence_s",
    [pytest.param(0.0, id="talking"), pytest.param(SILENCE_S, id="silent", marks=pytest.mark.slow)],
)
def test_peer_keeps_its_connection_when_its_nat_rebinds(
    start_node: StartNode, start_forwarder: StartForwarder, ant_quic_program: Path, silence_s: float
) -> None:
    """After a rebinding the same connection goes on from the new port, which the peer is told."""
    node = start_node(workers=2)
    nat = start_forwarder(node)

    with AntQuicPeer([f"127.0.0.1:{nat.port}"], program=ant_quic_program) as peer:
        old_port = mapped_port(nat, node, peer)
        wait_until(lambda: nat.silent_for_s() >= silence_s, timeout_s=20.0, what="silence")
        ((_, new_port),) = nat.rebind()
        wait_told(peer, new_port, timeout_s=REBIND_TIMEOUT_S)

        assert new_port != old_port
        assert still_connected(peer), peer.describe()
        assert_one_handshake_each(node, 1)
        wait_for_value(lambda: node.total("antquic_address_changes_total"), 1, timeout_s=15.0, what="address changes")


def test_messages_go_on_after_a_rebinding(
    start_node: StartNode, start_forwarder: StartForwarder, ant_quic_program: Path
) -> None:
    """A peer that counts aloud hears its numbers from the echoing node before and after the rebinding."""
    node = start_node(workers=2, echo=True)
    nat = start_forwarder(node)
    arguments = ["--counter-test", "--counter-interval", "200"]

    with AntQuicPeer([f"127.0.0.1:{nat.port}"], program=ant_quic_program, arguments=arguments) as peer:
        mapped_port(nat, node, peer)
        heard = peer.wait_for("counter_received")["counter"]
        ((_, new_port),) = nat.rebind()

        wait_told(peer, new_port, timeout_s=REBIND_TIMEOUT_S)
        sent = peer.events("counter_sent")[-1]["counter"]
        peer.wait_for("counter_received", lambda message: message["counter"] > max(heard, sent))
        assert still_connected(peer), peer.describe()


def mapped_port(nat: UdpForwarder, node: Node, peer: AntQuicPeer) -> int:
    """Wait until the peer has connected through the NAT and was told its mapping; return that port."""
    peer.wait_connected(node.peer_id, timeout_s=CONNECT_TIMEOUT_S)
    ((_, port),) = nat.source_addresses()
    wait_told(peer, port, timeout_s=CONNECT_TIMEOUT_S)
    return port
