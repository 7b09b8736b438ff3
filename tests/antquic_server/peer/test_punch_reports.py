"""What peers tell nodes about their hole punches, on the virtual network, and what nodes make of it."""

from collections import Counter

from antquic_server.peer.link import Link
from antquic_server.peer.nat_behaviour import NatObserver
from antquic_server.peer.punch_reports import report_punch
from antquic_server.peer.settings import PeerSettings
from antquic_server.supervisor.punches import LINGER_S
from support.virtual_network import Dependence, Host, NatKind, Node, VirtualNetwork, attempt

SYMMETRIC = NatKind(mapping=Dependence.ADDRESS_AND_PORT, filtering=Dependence.ADDRESS_AND_PORT)
CONE = NatKind(mapping=Dependence.NOTHING, filtering=Dependence.ADDRESS_AND_PORT)


def stage(
    one: NatKind | None, other: NatKind | None, *, relay: str = "auto"
) -> tuple[VirtualNetwork, Node, Host, Host]:
    """Put two hosts behind NATs, and a node, on a network."""
    network = VirtualNetwork(settings=PeerSettings(relay=relay))
    node = network.add_node()
    return network, node, network.add_host(one), network.add_host(other)


def settled(network: VirtualNetwork, node: Node) -> dict[str, float]:
    """Let enough time pass and return what the node has counted, by the result."""
    network.run(lambda: False, limit_s=LINGER_S + 1)
    node.punches.tick(network.now_s)
    found: Counter[str] = Counter()
    for key, value in node.punches.counters().items():
        name, *labels = key.split("|")
        if name == "hole_punches":
            found[labels[0]] += int(value)
    return dict(found)


def test_both_sides_report_a_success() -> None:
    """Each names the other; the node counts one."""
    network, node, one, other = stage(CONE, CONE)
    assert attempt(network, one, other, limit_s=30)

    assert settled(network, node) == {"successful": 1}
    said = dict(node.reports)
    assert set(said) == {one.peer_id, other.peer_id}
    assert said[one.peer_id].other == other.peer_id
    assert all(report.succeeded for report in said.values())
    assert len(node.reports) == 2


def test_a_failure_is_reported_though_a_channel_follows() -> None:
    """They are connected by a channel then; punching has failed all the same."""
    network, node, one, other = stage(SYMMETRIC, SYMMETRIC)
    assert attempt(network, one, other, limit_s=30)
    link = one.core.live_link(other.peer_id)
    assert link is not None
    assert link.relayed
    assert (one.peer_id, False) in [(peer, report.succeeded) for peer, report in node.reports]
    assert not any(report.succeeded for _, report in node.reports)
    network.run(lambda: False, limit_s=120)
    assert settled(network, node) == {"failed": 1}
    assert node.punches.counters()["hole_punch_retries"] >= 2


def test_without_relays_both_sides_report_the_failure() -> None:
    """One attempt of several rounds, and one failure."""
    network, node, one, other = stage(SYMMETRIC, SYMMETRIC, relay="never")
    assert not attempt(network, one, other, limit_s=60)

    assert node.requests > 1
    assert settled(network, node) == {"failed": 1}


def test_a_direct_path_found_later_is_a_success_of_its_own() -> None:
    """The firewall goes: the connection that a node carries becomes direct, after another introduction."""
    network, node, one, other = stage(None, None)
    places = {one.place[0], other.place[0]}
    network.drop = lambda source, destination: {source[0], destination[0]} == places
    assert attempt(network, one, other, limit_s=30)
    network.drop = lambda _source, _destination: False

    def direct() -> bool:
        link = one.core.live_link(other.peer_id)
        return link is not None and not link.relayed

    assert network.run(direct, limit_s=120)
    assert settled(network, node) == {"failed": 1, "successful": 1}


def test_nodes_of_ant_quic_are_told_nothing() -> None:
    """They would take it for a message of the program."""
    network = VirtualNetwork()
    node = network.add_node()
    node.offers_channels = False
    one, other = network.add_host(CONE), network.add_host(CONE)
    assert attempt(network, one, other, limit_s=30)

    network.run(lambda: False, limit_s=5)
    assert node.reports == []


def test_what_no_node_has_introduced_is_nobodys_business() -> None:
    """A node that one is connected to is dialled, not punched."""
    network, node, one, _ = stage(None, None)
    network.run(lambda: bool(one.core.node_links), limit_s=10)
    network.run(lambda: False, limit_s=5)
    assert node.reports == []


def test_a_node_that_is_gone_is_not_told() -> None:
    """The report goes with the connection on which the introduction came."""

    def send(_link: Link, _data: bytes) -> bool:
        raise AssertionError("there is nowhere to send it")

    assert not report_punch(None, bytes(32), True, NatObserver(), send)
