"""Whole peers on a virtual network: which NATs they get through, which settings change it, which connection stays."""

import itertools
import random

import pytest

from antquic_server.peer.events import DialFailed, PeerGone, PunchEnded
from antquic_server.peer.punching import Failure
from antquic_server.peer.settings import PeerSettings
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.protocol.coordination import RejectionReason
from support.virtual_network import (
    Dependence,
    Host,
    NatKind,
    VirtualNetwork,
    attempt,
    direct_by_guessing,
    direct_in_theory,
)

KINDS = [
    NatKind(mapping=mapping, filtering=filtering, step=step)
    for mapping, filtering, step in itertools.product(Dependence, Dependence, (0, 1))
]
SITES: list[NatKind | None] = [None, *KINDS]
PORT_RESTRICTED = NatKind(mapping=Dependence.NOTHING, filtering=Dependence.ADDRESS_AND_PORT)
SYMMETRIC = NatKind(mapping=Dependence.ADDRESS_AND_PORT, filtering=Dependence.ADDRESS_AND_PORT)
COUNTING = NatKind(mapping=Dependence.ADDRESS_AND_PORT, filtering=Dependence.ADDRESS_AND_PORT, step=1)
NAMED = {
    "full cone": NatKind(mapping=Dependence.NOTHING, filtering=Dependence.NOTHING),
    "address-restricted": NatKind(mapping=Dependence.NOTHING, filtering=Dependence.ADDRESS),
    "port-restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
}
IMPOSSIBLE = {("port-restricted", "symmetric"), ("symmetric", "port-restricted"), ("symmetric", "symmetric")}


def pair(
    one: NatKind | None,
    other: NatKind | None,
    *,
    seed: int = 0,
    loss: float = 0.0,
    real: bool = False,
    **settings: float,
) -> tuple[VirtualNetwork, Host, Host]:
    """Put two hosts and a node on a network."""
    network = VirtualNetwork(seed=seed, loss=loss, real=real, settings=PeerSettings(relay="never", **settings))  # type: ignore[arg-type]
    network.add_node()
    return network, network.add_host(one), network.add_host(other)


def end_of(host: Host) -> PunchEnded:
    """Return how the host's last attempt ended."""
    return [event for event in host.events if isinstance(event, PunchEnded)][-1]


@pytest.mark.parametrize(("one", "other"), list(itertools.product(NAMED, repeat=2)))
def test_the_matrix_of_named_nats(one: str, other: str) -> None:
    """Direct everywhere except port-restricted with symmetric and symmetric with symmetric."""
    network, initiator, target = pair(NAMED[one], NAMED[other])

    assert attempt(network, initiator, target) == ((one, other) not in IMPOSSIBLE)
    if (one, other) in IMPOSSIBLE:
        assert end_of(initiator).failure is Failure.NO_PATH


def test_every_pair_of_nats_meets_theory_without_guessing() -> None:
    """All 361 pairs of sites, exactly as theory says: nothing more, nothing less."""
    wrong = []
    for one, other in itertools.product(SITES, repeat=2):
        network, initiator, target = pair(one, other, enable_symmetric_nat=False)
        if attempt(network, initiator, target) != direct_in_theory(one, other):
            wrong.append(f"{one} x {other}")

    assert wrong == []


def test_guessing_reaches_what_can_be_guessed() -> None:
    """With port prediction every pair that counts upwards connects; of the others luck finds one in a hundred."""
    missed, lucky = [], 0
    for one, other in itertools.product(SITES, repeat=2):
        network, initiator, target = pair(one, other)
        connected = attempt(network, initiator, target)
        if direct_by_guessing(one, other) and not connected:
            missed.append(f"{one} x {other}")
        lucky += connected and not direct_by_guessing(one, other)

    assert missed == []
    assert lucky <= 10


def test_a_thousand_networks_with_loss() -> None:
    """Random NATs, 15 % loss, delays up to a quarter second: whoever can connect does, in its ten seconds."""
    randomness = random.Random(1)
    possible = [(a, b) for a, b in itertools.product(SITES, repeat=2) if direct_in_theory(a, b)]
    failed = []
    for seed in range(1000):
        one, other = randomness.choice(possible)
        network = VirtualNetwork(seed=seed, loss=0.15, delay_s=(0.005, randomness.choice((0.03, 0.25))))
        network.add_node()
        initiator, target = network.add_host(one), network.add_host(other)
        if not attempt(network, initiator, target):
            failed.append((seed, str(one), str(other), end_of(initiator).failure))

    # A request whose every repetition is lost is possible, and rare.
    assert len(failed) <= 3, failed


def test_real_connections_punch_as_the_stand_ins_do() -> None:
    """The same over post-quantum QUIC, for the pair that just works, the one that guesses and the one that cannot."""
    for one, other, expected in (
        (PORT_RESTRICTED, PORT_RESTRICTED, True),
        (PORT_RESTRICTED, COUNTING, True),
        (COUNTING, COUNTING, True),
        (SYMMETRIC, SYMMETRIC, False),
    ):
        network, initiator, target = pair(one, other, real=True)

        assert attempt(network, initiator, target) == expected, f"{one} x {other}"


def counting(step: int) -> NatKind:
    """Return a symmetric NAT that gives out every so manieth port."""
    return NatKind(mapping=Dependence.ADDRESS_AND_PORT, filtering=Dependence.ADDRESS_AND_PORT, step=step)


@pytest.mark.parametrize(("max_candidates", "reached"), [(1, False), (3, False), (6, True)])
def test_max_candidates_bounds_guessing(max_candidates: int, reached: bool) -> None:
    """Five steps up is one of the first five guesses; with room for the exact address only there are none at all."""
    network, initiator, target = pair(PORT_RESTRICTED, counting(5), max_candidates=max_candidates, hole_punch_retries=1)

    assert attempt(network, initiator, target) == reached


@pytest.mark.parametrize(("retries", "reached"), [(0, False), (1, True)])
def test_hole_punch_retries_allow_guessing(retries: int, reached: bool) -> None:
    """Guessing begins in the second round, so without one it does not happen."""
    network, initiator, target = pair(COUNTING, COUNTING, hole_punch_retries=retries)

    assert attempt(network, initiator, target) == reached
    assert end_of(initiator).failure is (None if reached else Failure.NO_PATH)


def test_every_retry_widens_the_guesses() -> None:
    """Three windows of two ports each: six steps up is within the third, which three retries reach and two do not."""
    for retries, reached in ((2, False), (3, True)):
        network, initiator, target = pair(PORT_RESTRICTED, counting(6), max_candidates=3, hole_punch_retries=retries)

        assert attempt(network, initiator, target) == reached


@pytest.mark.parametrize(("one", "other"), [(PORT_RESTRICTED, COUNTING), (COUNTING, COUNTING)])
@pytest.mark.parametrize("enabled", [True, False])
def test_enable_symmetric_nat_decides_whether_a_counting_nat_is_got_through(
    one: NatKind, other: NatKind, enabled: bool
) -> None:
    """Either side initiates; without it the failure has its reason."""
    for sites in ((one, other), (other, one)):
        network, initiator, target = pair(*sites, enable_symmetric_nat=enabled)

        assert attempt(network, initiator, target) == enabled
        assert end_of(initiator).failure is (None if enabled else Failure.NO_PATH)


@pytest.mark.parametrize(
    ("steps", "nodes", "reached"), [((2, 1), 2, True), ((2, 2), 2, True), ((3, 2), 2, True), ((2, 1), 1, False)]
)
def test_two_nodes_teach_the_step_that_one_cannot(steps: tuple[int, int], nodes: int, reached: bool) -> None:
    """Two counting NATs meet if each side knows the step of its own; from one node it cannot be learnt."""
    for one, other in (steps, steps[::-1]):
        network = VirtualNetwork()
        for _ in range(nodes):
            network.add_node()
        initiator, target = network.add_host(counting(one)), network.add_host(counting(other))

        assert attempt(network, initiator, target) == reached
        learnt = one if nodes > 1 else None
        assert initiator.core.statistics().nat_port_step == learnt


def test_nodes_met_in_different_orders_do_not_confuse_the_prediction() -> None:
    """Of the node that introduces them, one side has its newest port and the other an older one."""
    network = VirtualNetwork()
    one, other = network.add_node(), network.add_node()
    initiator = network.add_host(COUNTING)
    network.nodes.reverse()
    target = network.add_host(COUNTING)

    assert attempt(network, initiator, target)
    assert one.requests + other.requests >= 2


def test_the_observed_mapping_is_in_the_statistics() -> None:
    """As far as the nodes' words tell it."""
    for kind, mapping, step in (
        (None, "endpoint_independent", None),
        (PORT_RESTRICTED, "endpoint_independent", None),
        (SYMMETRIC, "dependent", None),
        (counting(2), "dependent", 2),
    ):
        network = VirtualNetwork(seed=3)
        network.add_node()
        network.add_node()
        statistics = network.add_host(kind).core.statistics()

        assert (statistics.nat_mapping, statistics.nat_port_step) == (mapping, step)


def test_a_coordinator_is_told_the_ports_that_come_next() -> None:
    """Of a predictable NAT, if guessing is allowed; never more than ``max_candidates``."""
    for allowed, predict, expected in ((4, True, 4), (2, True, 2), (4, False, 1)):
        network = VirtualNetwork(
            settings=PeerSettings(relay="never", max_candidates=allowed, enable_symmetric_nat=predict)
        )
        network.add_node()
        network.add_node()
        host = network.add_host(counting(2))
        asked = host.core._own_candidates(host.core.node_links[0])

        assert len(asked) == expected
        assert [item.port - asked[0].port for item in asked] == list(range(0, 2 * expected, 2))


@pytest.mark.parametrize("timeout_s", [1.0, 4.0, 10.0])
def test_discovery_timeout_is_kept(timeout_s: float) -> None:
    """An impossible pair is reported when the configured time is over."""
    network, initiator, target = pair(SYMMETRIC, SYMMETRIC, discovery_timeout_s=timeout_s)
    began_s = network.now_s

    assert not attempt(network, initiator, target)
    assert network.now_s - began_s == pytest.approx(timeout_s, abs=0.1)


@pytest.mark.parametrize(
    ("reason", "failure", "within_s"),
    [
        (RejectionReason.UNKNOWN_TARGET, Failure.UNKNOWN_TARGET, 0.5),
        (RejectionReason.INTERNAL_ERROR, Failure.COORDINATOR_ERROR, 0.5),
        (RejectionReason.RATE_LIMITED, Failure.RATE_LIMITED, 10.5),
    ],
)
def test_a_rejection_is_reported_with_its_reason(reason: RejectionReason, failure: Failure, within_s: float) -> None:
    """At once, unless it is only for now."""
    network, initiator, target = pair(None, None)
    network.nodes[0].refuse = reason
    began_s = network.now_s

    assert not attempt(network, initiator, target)
    assert end_of(initiator).failure is failure
    assert network.now_s - began_s < within_s
    assert initiator.core.statistics().coordination_rejections[reason.value] >= 1


def test_a_silent_node_is_reported() -> None:
    """The reason is the node, not the path."""
    network, initiator, target = pair(None, None)
    network.nodes[0].silent = True

    assert not attempt(network, initiator, target)
    assert end_of(initiator).failure is Failure.COORDINATOR_SILENT


def test_another_node_is_asked_when_the_first_cannot_help() -> None:
    """The newest is asked first; that it does not know the target is no reason to give up."""
    network = VirtualNetwork()
    network.add_node()
    network.add_node().refuse = RejectionReason.UNKNOWN_TARGET
    initiator, target = network.add_host(PORT_RESTRICTED), network.add_host(PORT_RESTRICTED)

    assert attempt(network, initiator, target)
    assert [node.requests for node in network.nodes] == [1, 1]


def test_oneself_and_nobody_are_refused_without_asking() -> None:
    """There is a reason for each."""
    network = VirtualNetwork()
    lonely = network.add_host()

    network.connect_peer(lonely, lonely)
    assert end_of(lonely).failure is Failure.SELF_TARGET
    network.connect_peer(lonely, bytes(32))
    assert end_of(lonely).failure is Failure.NO_COORDINATOR


def test_a_peer_that_accepts_no_introductions_is_not_made_to_dial() -> None:
    """Behind a filter it cannot be reached then."""
    network = VirtualNetwork()
    network.add_node()
    initiator = network.add_host(PORT_RESTRICTED)
    target = network.add_host(PORT_RESTRICTED, settings=PeerSettings(relay="never", accept_introductions=False))

    assert not attempt(network, initiator, target)
    assert target.core.statistics().drops["introduction_refused"] >= 1


@pytest.mark.parametrize("seed", range(20))
def test_simultaneous_attempts_end_with_the_same_connection_at_both_ends(seed: int) -> None:
    """Both ask, both dial; after the drain one connection is left, and both call it theirs."""
    network, one, other = pair(PORT_RESTRICTED, NAMED["address-restricted"], seed=seed)
    network.connect_peer(one, other)
    network.connect_peer(other, one)

    network.run(lambda: False, limit_s=20)
    assert len(one.core.registry.numbers(other.peer_id)) == 1
    assert len(other.core.registry.numbers(one.peer_id)) == 1
    here, there = one.core.live_link(other.peer_id), other.core.live_link(one.peer_id)
    assert here is not None
    assert there is not None
    assert here.dialled_by_us != there.dialled_by_us
    assert here.quic.export_keying_material(b"", b"", 32) == there.quic.export_keying_material(b"", b"", 32)
    assert not [event for event in one.events + other.events if isinstance(event, PeerGone)]


def test_a_peer_that_comes_back_with_the_same_key_is_reachable_again() -> None:
    """The old connection, whose other end is gone without a word, gives way when it shows no sign of life."""
    network, one, other = pair(None, None)
    assert attempt(network, one, other)
    network.run(lambda: False, limit_s=8)
    forgotten = other.core.live_link(one.peer_id)
    assert forgotten is not None
    # It dies silently at one end only.
    other.core.registry.remove(one.peer_id, forgotten.number)
    other.core.links._forget(forgotten)

    network.connect_peer(other, one)
    network.run(lambda: False, limit_s=15)
    here, there = one.core.live_link(other.peer_id), other.core.live_link(one.peer_id)
    assert here is not None
    assert there is not None
    assert here.quic.export_keying_material(b"", b"", 32) == there.quic.export_keying_material(b"", b"", 32)


def test_a_dial_into_nothing_fails_in_time() -> None:
    """Nobody is at that address."""
    network = VirtualNetwork(settings=PeerSettings(dial_timeout_s=3))
    host = network.add_host()
    host.core.dial(SocketAddress.parse("198.18.9.9:1"), network.now_s)
    began_s = network.now_s

    assert network.run(lambda: any(isinstance(event, DialFailed) for event in host.events), limit_s=10)
    assert network.now_s - began_s == pytest.approx(3)
    assert host.core.statistics().failed_connections == 1


def test_an_idle_connection_is_kept_alive_or_ends() -> None:
    """With keep-alives it outlives the idle timeout, without it does not."""
    for keep_alive_s, alive in ((10.0, True), (0.0, False)):
        network, one, other = pair(None, None, keep_alive_s=keep_alive_s)
        attempt(network, one, other)

        network.run(lambda: False, limit_s=100)
        assert one.connected_to(other) == alive


def test_close_is_heard_by_everybody() -> None:
    """The other side learns the reason."""
    network, one, other = pair(None, None)
    attempt(network, one, other)
    one.core.close(ApplicationErrorCode.PEER_SHUTDOWN, "PeerShutdown")

    assert network.run(lambda: any(isinstance(event, PeerGone) for event in other.events), limit_s=5)
    gone = next(event for event in other.events if isinstance(event, PeerGone))
    assert (gone.peer_id, gone.code) == (one.peer_id, ApplicationErrorCode.PEER_SHUTDOWN)


def test_statistics_tell_how_long_nodes_take_to_answer() -> None:
    """On the average of the requests that were answered: a round trip each."""
    network, one, other = pair(None, None)
    assert one.core.statistics().average_coordination_s == 0.0
    assert attempt(network, one, other)
    network.connect_peer(one, bytes(32))
    network.run(lambda: bytes(32) not in one.core.introductions, limit_s=5)
    network.nodes[0].silent = True
    network.connect_peer(one, bytes(31) + b"x")
    network.run(lambda: False, limit_s=1)

    statistics = one.core.statistics()
    assert (statistics.coordination_requests, statistics.coordination_answers) == (3, 2)
    assert 0.02 <= statistics.average_coordination_s <= 0.06


def test_statistics_count_both_sides_of_a_punch() -> None:
    """One success each; the initiator asked, the target was introduced."""
    network, one, other = pair(PORT_RESTRICTED, PORT_RESTRICTED)
    attempt(network, one, other)
    network.run(lambda: False, limit_s=1)
    asked, introduced = one.core.statistics(), other.core.statistics()

    assert (asked.successful_hole_punches, introduced.successful_hole_punches) == (1, 1)
    assert (asked.coordination_requests, introduced.coordination_requests) == (1, 0)
    assert (asked.introductions_received, introduced.introductions_received) == (0, 1)
    assert asked.connected_nodes == 1
    assert asked.active_connections == 2
    assert asked.bytes_sent > 0
    assert asked.external_addresses


def test_a_handshake_under_way_when_the_peer_is_closed_brings_it_not_back() -> None:
    """Both have dialled: the dial of the other side that completes after the close is closed as well."""
    network, one, other = pair(None, None)
    assert attempt(network, one, other)
    late = other.core.dial(SocketAddress.from_host(*one.place), network.now_s)
    assert late is not None
    other.flush(network.now_s)
    assert network.run(lambda: any(not link.ready for link in one.core.links), limit_s=1)
    one.core.close_peer(other.peer_id, ApplicationErrorCode.PEER_SHUTDOWN, "PeerShutdown")

    network.run(lambda: False, limit_s=5)
    assert late.closed
    assert one.core.live_link(other.peer_id) is None
    assert other.core.live_link(one.peer_id) is None
