"""What is tried in which order to reach a peer, on the virtual network."""

from collections.abc import Callable

import pytest

from antquic_server.peer.events import PunchEnded
from antquic_server.peer.punching import Failure
from antquic_server.peer.settings import PeerSettings
from antquic_server.protocol.relay_limits import Refusal
from support.virtual_network import Dependence, Host, NatKind, VirtualNetwork, attempt

SYMMETRIC = NatKind(mapping=Dependence.ADDRESS_AND_PORT, filtering=Dependence.ADDRESS_AND_PORT)
DISCOVERY_S, RELAY_AFTER_S = 10.0, 5.0
"""The defaults, which are what this is about."""

Make = Callable[..., tuple[VirtualNetwork, Host, Host]]


@pytest.fixture
def make() -> Make:
    """Return a function that puts two hosts behind symmetric NATs, and a node, on a network."""

    def build(*, target: PeerSettings | None = None, relay: str = "auto") -> tuple[VirtualNetwork, Host, Host]:
        network = VirtualNetwork(settings=PeerSettings(relay=relay))
        network.add_node()
        return network, network.add_host(SYMMETRIC), network.add_host(SYMMETRIC, settings=target)

    return build


def ends(host: Host) -> list[PunchEnded]:
    """Return how the attempts of a host itself have ended."""
    return [event for event in host.events if isinstance(event, PunchEnded) and not event.invited]


def test_a_channel_does_not_wait_for_the_last_round(make: Make) -> None:
    """Half the time that punching has is enough; the other half is spent with a connection."""
    network, one, other = make()
    began_s = network.now_s

    assert attempt(network, one, other, limit_s=30)
    link = one.core.live_link(other.peer_id)
    assert link is not None
    assert link.relayed
    assert RELAY_AFTER_S <= network.now_s - began_s < RELAY_AFTER_S + 1
    assert link.why_not_direct == Failure.NO_PATH
    assert one.core.statistics().failed_hole_punches == 1


def test_who_is_refused_a_channel_goes_on_punching(make: Make) -> None:
    """For the rest of the time; the end of it names both failures, once, and one punch has failed."""
    network, one, other = make(target=PeerSettings(accept_relays=False))
    began_s = network.now_s

    assert not attempt(network, one, other, limit_s=60)
    network.run(lambda: bool(ends(one)), limit_s=60)
    (end,) = ends(one)
    assert network.now_s - began_s >= DISCOVERY_S
    assert end.failure == Failure.NO_PATH
    assert end.relay_refusal == Refusal.TARGET_DECLINED
    assert one.core.statistics().failed_hole_punches == 1


def test_a_hole_that_opens_late_is_still_used() -> None:
    """The firewall goes while the channel is refused: a later round comes through."""
    network = VirtualNetwork()
    network.add_node()
    one, other = network.add_host(), network.add_host(settings=PeerSettings(accept_relays=False))
    places = {one.place[0], other.place[0]}
    network.drop = lambda source, destination: {source[0], destination[0]} == places
    began_s = network.now_s
    assert not attempt(network, one, other, limit_s=RELAY_AFTER_S + 0.5)
    network.drop = lambda _source, _destination: False

    assert network.run(lambda: one.core.live_link(other.peer_id) is not None, limit_s=DISCOVERY_S)
    link = one.core.live_link(other.peer_id)
    assert link is not None
    assert not link.relayed
    assert network.now_s - began_s < DISCOVERY_S + 1
    assert one.core.statistics().failed_hole_punches == 0


def test_without_channels_punching_has_all_its_time(make: Make) -> None:
    """As it is with an ant-quic node, or where relaying is not wanted."""
    network, one, other = make(relay="never")
    began_s = network.now_s

    assert not attempt(network, one, other, limit_s=60)
    assert network.run(lambda: bool(ends(one)), limit_s=60)
    assert network.now_s - began_s >= DISCOVERY_S
    assert ends(one)[0].failure == Failure.NO_PATH
