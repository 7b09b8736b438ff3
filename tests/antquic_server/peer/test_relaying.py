"""Whole peers on a virtual network whose nodes relay: who is reached, what survives, which way it goes in the end."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from antquic_server.peer.events import MessageArrived, PathChanged, PeerGone, PunchEnded
from antquic_server.peer.link import Link
from antquic_server.peer.punching import Failure
from antquic_server.peer.relaying import HANG_UP_S, UNUSED_S
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.superseding import LONGEST_DRAIN_S
from antquic_server.protocol.relay_limits import Refusal
from support.stand_in import StandIn, public_key_of
from support.virtual_network import Dependence, Host, NatKind, VirtualNetwork, attempt

SYMMETRIC = NatKind(mapping=Dependence.ADDRESS_AND_PORT, filtering=Dependence.ADDRESS_AND_PORT)
PORT_RESTRICTED = NatKind(mapping=Dependence.NOTHING, filtering=Dependence.ADDRESS_AND_PORT)
MESSAGES = 50


def network_of(
    one: NatKind | None = SYMMETRIC,
    other: NatKind | None = SYMMETRIC,
    *,
    nodes: int = 1,
    seed: int = 0,
    loss: float = 0.0,
    real: bool = False,
    **settings: Any,
) -> tuple[VirtualNetwork, Host, Host]:
    """Put two hosts and nodes on a network."""
    network = VirtualNetwork(seed=seed, loss=loss, real=real, settings=PeerSettings(**settings))
    for _ in range(nodes):
        network.add_node()
    return network, network.add_host(one), network.add_host(other)


def wall(network: VirtualNetwork) -> None:
    """Put a firewall between the NATs of the two hosts."""
    hosts = {"198.18.2.1", "198.18.2.2"}
    network.drop = lambda source, destination: source[0] in hosts and destination[0] in hosts


def live(here: Host, there: Host) -> Link:
    """Return the connection of one host to the other."""
    link = here.core.live_link(there.peer_id)
    assert link is not None
    return link


def relayed(network: VirtualNetwork, one: Host, other: Host, *, limit_s: float = 40.0) -> None:
    """Have one reach the other, through a node."""
    assert attempt(network, one, other, limit_s=limit_s)
    assert live(one, other).relayed
    assert live(other, one).relayed


def settle(network: VirtualNetwork, seconds: float) -> None:
    """Let time pass."""
    network.run(lambda: False, limit_s=seconds)


def talk(network: VirtualNetwork, one: Host, other: Host, count: int = MESSAGES) -> Callable[[], bool]:
    """Have both send messages, one each ten milliseconds; returns whether all have arrived, each once."""
    sent = {"n": 0}

    def send() -> bool:
        for here, there in ((one, other), (other, one)):
            link = live(here, there)
            link.quic.send_message(b"message %d" % sent["n"])
            here.core.links.touch(link)
        sent["n"] += 1
        return False

    for _ in range(count):
        send()
        network.run(lambda: False, limit_s=0.01)
    return lambda: all(sorted(got(host)) == sorted(b"message %d" % n for n in range(count)) for host in (one, other))


def got(host: Host) -> list[bytes]:
    """Return the messages that a host was given."""
    return [event.data for event in host.events if isinstance(event, MessageArrived)]


def ended(host: Host) -> PunchEnded:
    """Return how the last attempt ended."""
    return [event for event in host.events if isinstance(event, PunchEnded)][-1]


def test_what_cannot_be_punched_is_relayed() -> None:
    """Symmetric on both sides: after punching has had its time, a channel carries it, and both know why."""
    network, one, other = network_of(discovery_timeout_s=4)
    began_s = network.now_s
    relayed(network, one, other)

    assert network.now_s - began_s < 5
    link = live(one, other)
    assert link.why_not_direct == Failure.NO_PATH
    assert link.relayed_by == live(other, one).relayed_by == one.core.node_links[0].peer_id
    assert network.run(talk(network, one, other), limit_s=5)
    statistics = one.core.statistics()
    assert (statistics.relayed_connections, statistics.relay_channels) == (1, 1)
    assert statistics.relayed_bytes_sent > 0 < statistics.relayed_bytes_received
    assert network.nodes[0].channels.carried > MESSAGES


def test_only_means_no_punching() -> None:
    """Even where it would work, and at once."""
    network, one, other = network_of(None, None, relay="only")
    began_s = network.now_s
    relayed(network, one, other)

    assert network.now_s - began_s < 0.5
    assert network.nodes[0].requests == 0
    settle(network, 30)
    assert live(one, other).relayed


def test_never_means_no_relaying() -> None:
    """Neither as the one who asks nor as the one who is asked."""
    for here, there in (("never", "auto"), ("auto", "never")):
        network = VirtualNetwork()
        network.add_node()
        one = network.add_host(SYMMETRIC, settings=PeerSettings(relay=here, discovery_timeout_s=2))
        other = network.add_host(SYMMETRIC, settings=PeerSettings(relay=there, discovery_timeout_s=2))

        assert not attempt(network, one, other)
        assert ended(one).failure is Failure.NO_PATH
        assert (ended(one).relay_refusal is None) == (here == "never")


@pytest.mark.parametrize("policy", [{"accept_relays": False}, {"max_relays": 0}])
def test_an_offer_is_declined_if_settings_say_so(policy: dict[str, Any]) -> None:
    """The refusal is the target's, and is reported with the failure of punching."""
    network = VirtualNetwork()
    network.add_node()
    one = network.add_host(SYMMETRIC, settings=PeerSettings(discovery_timeout_s=2))
    other = network.add_host(SYMMETRIC, settings=PeerSettings(discovery_timeout_s=2, **policy))

    assert not attempt(network, one, other)
    assert ended(one).failure is Failure.NO_PATH
    assert ended(one).relay_refusal == Refusal.TARGET_DECLINED
    assert one.core.statistics().relay_refusals == {"target_declined": 1}
    assert other.core.statistics().drops["channel_offer_declined"] == 1


def test_a_refusing_node_is_followed_by_another() -> None:
    """The first has no room; the second carries it."""
    network, one, other = network_of(nodes=2, discovery_timeout_s=2)
    network.nodes[1].channels.refuse = Refusal.NODE_SESSIONS.value
    relayed(network, one, other)

    assert network.nodes[0].channels.carried > 0 == network.nodes[1].channels.carried


@pytest.mark.parametrize("trouble", ["silent", "deaf", "refuse"])
def test_a_node_that_does_not_relay_is_a_bounded_wait(trouble: str) -> None:
    """It does not answer, it answers and carries nothing, or it refuses: a reason, in time."""
    network, one, other = network_of(discovery_timeout_s=2, relay_timeout_s=4)
    setattr(network.nodes[0].channels, trouble, Refusal.PEER_DENIED.value if trouble == "refuse" else True)
    began_s = network.now_s

    assert not attempt(network, one, other)
    assert network.now_s - began_s < 2 + 4 + 0.5
    assert ended(one).failure is Failure.NO_PATH
    assert ended(one).relay_refusal
    settle(network, UNUSED_S + 1)
    assert one.core.statistics().relay_channels == other.core.statistics().relay_channels == 0


def test_hundreds_of_relayed_pairs_with_loss() -> None:
    """Each connects and every message of both arrives, whatever is lost on the way."""
    failed, unreached = [], []
    for seed in range(120):
        network, one, other = network_of(seed=seed, loss=0.1, relay="only")
        if not attempt(network, one, other):
            unreached.append(seed)
            continue
        done = talk(network, one, other, 10)
        if not network.run(done, limit_s=20):
            failed.append(seed)

    assert failed == []
    # A handshake of the stand-ins whose every repetition is lost is possible, and rare.
    assert len(unreached) <= 4


# To a direct path.


def test_a_direct_path_is_taken_when_there_is_one() -> None:
    """A firewall that opens: the same connection goes on, the channel is hung up, spares are closed."""
    network, one, other = network_of(PORT_RESTRICTED, PORT_RESTRICTED, discovery_timeout_s=2)
    wall(network)
    relayed(network, one, other)
    before = live(one, other), live(other, one)
    network.drop = lambda _source, _destination: False

    assert network.run(lambda: not live(one, other).relayed and not live(other, one).relayed, limit_s=30)
    assert (live(one, other), live(other, one)) == before
    settle(network, HANG_UP_S + 20)
    for host, peer in ((one, other), (other, one)):
        statistics = host.core.statistics()
        assert statistics.relay_channels == 0
        assert statistics.moved_to_direct == 1
        assert len(host.core.registry.numbers(peer.peer_id)) == 1
        assert sum(link.peer_id == peer.peer_id for link in host.core.links) == 1
        assert (live(host, peer).why_not_direct, live(host, peer).relayed_by) == (None, None)
        assert live(host, peer).punched
        assert [event for event in host.events if isinstance(event, PathChanged)]
        assert not [event for event in host.events if isinstance(event, PeerGone)]


@pytest.mark.parametrize("delay_s", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("real", [False, True])
def test_both_dials_at_one_moment_leave_the_one_connection(real: bool, delay_s: float) -> None:
    """Without any jitter the second direct handshake completes while the connection moves, or just after."""
    settings = PeerSettings(discovery_timeout_s=2)
    network = VirtualNetwork(delay_s=(delay_s, delay_s), real=real, settings=settings)
    network.add_node()
    one, other = network.add_host(PORT_RESTRICTED), network.add_host(PORT_RESTRICTED)
    wall(network)
    relayed(network, one, other)
    before = live(one, other), live(other, one)
    network.drop = lambda _source, _destination: False
    settle(network, 30)

    assert (live(one, other), live(other, one)) == before
    assert not before[0].relayed
    assert not before[1].relayed
    assert one.core.statistics().superseded_connections == other.core.statistics().superseded_connections == 0


def test_a_dial_that_completes_in_the_moment_of_the_move_is_a_spare() -> None:
    """At either end: the connection has moved already, and nobody has looked at it since."""
    network, one, other = network_of(PORT_RESTRICTED, PORT_RESTRICTED, discovery_timeout_s=2)
    wall(network)
    relayed(network, one, other)
    for host, peer in ((one, other), (other, one)):
        link, path = live(host, peer), ("198.18.2.9", 4433)
        if link.dialled_by_us:
            host.core.relaying._moves.begin(link, path, network.now_s, network.now_s + 10)
        quic: Any = link.quic
        quic._addr = link.path = path
        other_quic = StandIn(public_key=public_key_of("p"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
        late = Link(number=999, quic=other_quic, path=path, handshake_deadline_s=None)
        late.peer_id, late.ready = peer.peer_id, True

        assert host.core.relaying.keep_as_spare(late, link, network.now_s)
        assert late.spare
        assert (other_quic._close is not None) == link.dialled_by_us


def test_no_message_is_lost_or_doubled_on_the_way_to_direct() -> None:
    """Hundreds of networks with loss: messages in both directions while the connection moves."""
    failed, unreached, moved = [], [], 0
    for seed in range(120):
        randomness = random.Random(seed)
        network, one, other = network_of(
            PORT_RESTRICTED,
            PORT_RESTRICTED,
            seed=seed,
            loss=randomness.choice((0.0, 0.05, 0.15)),
            relay="auto",
            discovery_timeout_s=2,
        )
        wall(network)
        if not attempt(network, one, other):
            unreached.append(seed)
            continue
        network.drop = lambda _source, _destination: False
        one.core.relaying.address_changed(network.now_s)
        done = talk(network, one, other)
        if not network.run(done, limit_s=30):
            failed.append((seed, "lost"))
        moved += not live(one, other).relayed

    assert failed == []
    # A way through the node loses half of all round trips at worst: a dial may fail then, and that of one seed does.
    assert len(unreached) <= 1
    assert moved > 115


@pytest.mark.parametrize("seed", range(6))
def test_real_connections_move_with_a_stream_under_way(seed: int) -> None:
    """The same over post-quantum QUIC: 200 kB in both directions on one stream, with loss."""
    network, one, other = network_of(
        PORT_RESTRICTED, PORT_RESTRICTED, seed=seed, loss=0.02 * (seed % 3), real=True, discovery_timeout_s=2
    )
    wall(network)
    relayed(network, one, other)
    here, there = live(one, other), live(other, one)
    data = random.Random(seed).randbytes(200_000)
    here.quic.send_stream_data(0, data, end_stream=True)
    there.quic.send_stream_data(1, data, end_stream=True)
    for host, link in ((one, here), (other, there)):
        host.core.links.touch(link)
    network.drop = lambda _source, _destination: False
    one.core.relaying.address_changed(network.now_s)

    assert network.run(lambda: not here.relayed and not there.relayed, limit_s=30)
    network.run(lambda: len(stream_data(one)) == len(data) == len(stream_data(other)), limit_s=60)
    assert stream_data(one) == data == stream_data(other)
    assert here is live(one, other)


def stream_data(host: Host) -> bytes:
    """Return everything that has come on bidirectional streams."""
    events = [event.event for event in host.events if hasattr(event, "event")]
    return b"".join(event.data for event in events)


def test_a_direct_path_that_swallows_the_move_leaves_two_connections() -> None:
    """The handshake passes, the move does not: the rule for two connections decides, and both ends agree."""
    network, one, other = network_of(None, None, discovery_timeout_s=2)
    network.drop = lambda source, destination: {source[0], destination[0]} == {"198.18.1.1", "198.18.1.2"}
    relayed(network, one, other)
    network.drop = lambda _source, _destination: False
    live(one, other).quic.probe_path = lambda addr: False  # type: ignore[method-assign]
    settle(network, 60)

    assert one.core.statistics().failed_moves >= 1
    here, there = live(one, other), live(other, one)
    assert here.quic.export_keying_material(b"", b"", 32) == there.quic.export_keying_material(b"", b"", 32)
    assert not [event for event in one.events + other.events if isinstance(event, PeerGone)]


# When a relay is lost.


@pytest.mark.parametrize("announce", [True, False])
def test_a_lost_channel_is_replaced_within_two_seconds(announce: bool) -> None:
    """Its worker dies; the node says so, or its successor does when it is asked."""
    network, one, other = network_of(nodes=1, relay="only")
    relayed(network, one, other)
    before = live(one, other)
    network.nodes[0].channels.kill(announce=announce)
    began_s = network.now_s
    done = talk(network, one, other)

    assert network.run(done, limit_s=10)
    assert network.now_s - began_s < 2
    assert live(one, other) is before
    assert one.core.statistics().moved_to_relay == other.core.statistics().moved_to_relay == 1
    settle(network, HANG_UP_S + 1)
    assert one.core.statistics().relay_channels == 1 == len(network.nodes[0].channels.channels)


def test_another_node_takes_over() -> None:
    """The node is gone without a word, with the connections to it: the other one carries what it carried."""
    network, one, other = network_of(nodes=2, relay="only")
    relayed(network, one, other)
    carrier = max(network.nodes, key=lambda node: node.channels.carried)
    place = carrier.place
    network.drop = lambda source, destination: place in (source, destination)
    began_s = network.now_s
    done = talk(network, one, other)

    assert network.run(done, limit_s=20)
    assert network.now_s - began_s < 8
    assert not [
        event
        for event in one.events + other.events
        if isinstance(event, PeerGone) and event.peer_id in (one.peer_id, other.peer_id)
    ]


def test_the_channel_outlives_the_connection_to_its_node() -> None:
    """Another worker has it: the legs are proven by their keys, and nothing moves."""
    network, one, other = network_of(relay="only")
    relayed(network, one, other)
    network.nodes[0].lose_connections(silently=False)
    done = talk(network, one, other)

    assert network.run(done, limit_s=5)
    assert one.core.statistics().moved_to_relay == 0


def test_a_repair_waits_for_the_node_to_come_back() -> None:
    """Channel and connections are lost together; once both are connected again the same connection goes on."""
    network, one, other = network_of(relay="only")
    relayed(network, one, other)
    before = live(one, other)
    network.nodes[0].channels.kill(announce=False)
    network.nodes[0].lose_connections(silently=False)
    settle(network, 1.0)
    for host in (one, other):
        host.core.dial(network.nodes[0].address, network.now_s)
    began_s = network.now_s
    done = talk(network, one, other)

    assert network.run(done, limit_s=10)
    assert network.now_s - began_s < 2
    assert live(one, other) is before


def test_a_repair_ends_when_nobody_can_help() -> None:
    """The connection dies of silence then, and everybody is told."""
    network, one, other = network_of(relay="only", idle_timeout_s=30)
    relayed(network, one, other)
    network.nodes[0].channels.refuse = Refusal.DRAINING.value
    network.nodes[0].channels.kill(announce=True)

    assert network.run(lambda: not one.connected_to(other) and not other.connected_to(one), limit_s=60)
    settle(network, 60)
    assert len(one.core.relaying.attempts._attempts) == 0


def test_a_nat_that_forgets_is_noticed_within_seconds() -> None:
    """Our port changes while messages flow: the next bind moves the leg."""
    network, one, other = network_of(relay="only")
    relayed(network, one, other)
    assert one.nat is not None
    one.nat.rebind()
    done = talk(network, one, other)

    assert network.run(done, limit_s=10)
    assert one.core.statistics().moved_to_relay == 0


def test_closing_a_peer_hangs_up() -> None:
    """The node need not wait for the channel to become idle."""
    network, one, other = network_of(relay="only")
    relayed(network, one, other)
    one.core.close_peer(other.peer_id, 0, "enough")
    settle(network, 2)

    assert network.nodes[0].channels.channels == {}
    assert one.core.statistics().relay_channels == other.core.statistics().relay_channels == 0


def only_direct(here: Host, there: Host) -> bool:
    """Return whether one connection is left, and no node carries it."""
    link = here.core.live_link(there.peer_id)
    return link is not None and not link.relayed and len(here.core.registry.numbers(there.peer_id)) == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_peer_that_does_not_move_gets_a_second_connection_and_loses_nothing(seed: int) -> None:
    """As ant-quic's: what was begun on the relayed connection ends there, and only then is that one closed."""
    settings = PeerSettings(discovery_timeout_s=2)
    network = VirtualNetwork(seed=seed, loss=0.02 * (seed % 2), real=True, settings=settings)
    network.add_node().offers_channels = False
    one = network.add_host(PORT_RESTRICTED)
    # Half of them declare channels, and do not know either that this one connection is relayed.
    known = "never" if seed < 2 else "auto"
    other = network.add_host(PORT_RESTRICTED, settings=PeerSettings(relay=known, discovery_timeout_s=2))
    wall(network)
    assert attempt(network, one, other)
    # Both have dialled: until one of the two connections is left.
    settle(network, 10)
    here, there = live(one, other), live(other, one)
    assert here.relayed
    data = random.Random(seed).randbytes(300_000)
    for host, link in ((one, here), (other, there)):
        link.quic.send_stream_data(0 if link.dialled_by_us else 1, data, end_stream=True)
        host.core.links.touch(link)
    network.drop = lambda _source, _destination: False
    one.core.relaying.address_changed(network.now_s)

    assert network.run(lambda: len(one.core.registry.numbers(other.peer_id)) > 1, limit_s=30)
    network.run(lambda: len(stream_data(one)) == len(data) == len(stream_data(other)), limit_s=60)
    assert stream_data(one) == data == stream_data(other)
    # Nobody ends the other directions of these streams. And of two opposite dials the relayed one may be the one that
    # both keep, by ant-quic's rule, until the next try.
    assert network.run(lambda: only_direct(one, other) and only_direct(other, one), limit_s=10 * LONGEST_DRAIN_S)
    assert one.core.statistics().superseded_connections >= 1
    assert not [event for event in one.events + other.events if isinstance(event, PeerGone)]


@pytest.mark.parametrize("real", [False, True])
def test_a_direct_connection_that_stops_goes_on_through_a_node(real: bool) -> None:
    """Nothing passes between the two any more, and dialling does not help: the same connection, by a channel."""
    network, one, other = network_of(None, PORT_RESTRICTED, real=real, discovery_timeout_s=3)
    assert attempt(network, one, other)
    # Both have dialled: until one of the two connections is left.
    settle(network, 8)
    before = live(one, other)
    assert not before.relayed
    pair = {one.place[0], "198.18.2.2"}
    network.drop = lambda source, destination: {source[0], destination[0]} == pair
    before.quic.send_message(b"under way when it stopped")
    one.core.links.touch(before)

    assert network.run(lambda: got(other) == [b"under way when it stopped"], limit_s=25)
    assert live(one, other).relayed
    network.drop = lambda _source, _destination: False
    assert network.run(lambda: not live(one, other).relayed, limit_s=30)
