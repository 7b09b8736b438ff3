"""Learning a NAT's behaviour, and guessing ports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.peer.nat_behaviour import MAX_OBSERVATIONS, Mapping, NatObserver, PortGrowth, dial_plan
from antquic_server.protocol.address import SocketAddress

ADDRESSES = st.integers(1, 65535).map(lambda port: SocketAddress.parse(f"198.18.2.1:{port}"))


def at(text: str) -> SocketAddress:
    """Read an address."""
    return SocketAddress.parse(text)


def observer_with(*ports: int) -> NatObserver:
    """Return an observer that as many nodes have told a port each."""
    observer = NatObserver()
    for number, port in enumerate(ports, 1):
        observer.observe(at(f"198.18.0.{number}:10000"), at(f"198.18.2.1:{port}"))
    return observer


def test_one_observation_says_nothing_about_the_mapping() -> None:
    """Two are needed to compare."""
    assert observer_with().mapping() is Mapping.UNKNOWN
    assert observer_with(20000).mapping() is Mapping.UNKNOWN


def test_equal_observations_mean_one_mapping_for_everybody() -> None:
    """No step between ports is seen then, and nothing can be predicted."""
    observer = observer_with(20000, 20000)

    assert observer.mapping() is Mapping.ENDPOINT_INDEPENDENT
    assert observer.port_deltas() == []
    assert observer.port_step() is None


def test_different_observations_mean_a_symmetric_nat() -> None:
    """Small steps upwards are predictable, others are not."""
    assert observer_with(20000, 20001).mapping() is Mapping.DEPENDENT
    assert observer_with(20000, 20001, 20003).port_step() == 1
    assert observer_with(20000, 20002).port_step() == 2
    assert observer_with(20000, 41234).port_step() is None
    assert observer_with(20000, 19999).port_step() is None


def test_ports_that_others_have_taken_do_not_hide_the_step() -> None:
    """It is what all differences have in common."""
    assert observer_with(20000, 20004, 20010).port_step() == 2


def test_the_order_of_the_ports_is_that_of_the_connections() -> None:
    """What the first node tells may be lost and repeated, and then come last."""
    observer = NatObserver()
    observer.observe(at("198.18.0.2:10000"), at("198.18.2.1:20001"), order=2)
    observer.observe(at("198.18.0.1:10000"), at("198.18.2.1:20000"), order=1)

    assert observer.port_deltas() == [1]


def test_two_ports_of_one_node_count_as_two() -> None:
    """A node with two listen addresses is enough to learn from."""
    observer = NatObserver()
    observer.observe(at("198.18.0.1:10000"), at("198.18.2.1:20000"))
    observer.observe(at("198.18.0.1:10001"), at("198.18.2.1:20002"))

    assert observer.port_deltas() == [2]


def test_the_families_are_not_compared() -> None:
    """An IPv6 address beside an IPv4 one is no sign of a symmetric NAT."""
    observer = observer_with(20000)
    observer.observe(at("[2001:db8::1]:10000"), at("[2001:db8::2]:20001"))

    assert observer.mapping() is Mapping.UNKNOWN
    assert observer.mapping(ipv4=False) is Mapping.UNKNOWN


def test_an_observation_replaces_the_earlier_one_of_the_same_node() -> None:
    """A rebinding is not mistaken for a symmetric NAT."""
    observer = observer_with(20000)

    assert observer.observe(at("198.18.0.1:10000"), at("198.18.2.1:30000"))
    assert not observer.observe(at("198.18.0.1:10000"), at("198.18.2.1:30000"))
    assert observer.addresses == [at("198.18.2.1:30000")]
    assert observer.seen_by(at("198.18.0.1:10000")) == at("198.18.2.1:30000")


def test_what_was_observed_before_a_rebinding_is_not_compared() -> None:
    """The other node has not told us yet that we have moved; once it has, both count again."""
    observer = observer_with(20000, 20000)
    observer.observe(at("198.18.0.1:10000"), at("198.18.2.1:30000"))

    assert observer.mapping() is Mapping.UNKNOWN
    assert observer.port_step() is None
    observer.observe(at("198.18.0.2:10000"), at("198.18.2.1:30000"))
    assert observer.mapping() is Mapping.ENDPOINT_INDEPENDENT


def test_growth_says_how_far_our_nat_has_got_since_a_node_saw_us() -> None:
    """The newest node knows the newest port; of one that has told nothing, nothing is assumed."""
    observer = observer_with(20000, 20002, 20004)

    assert observer.port_growth(at("198.18.0.3:10000")) == PortGrowth(step=2)
    assert observer.port_growth(at("198.18.0.1:10000")) == PortGrowth(step=2, ahead=4)
    assert observer.port_growth(at("198.18.0.9:10000")) == PortGrowth()
    assert observer_with(20000, 20000).port_growth(at("198.18.0.1:10000")) == PortGrowth()


def test_observations_are_bounded() -> None:
    """The oldest goes first."""
    observer = observer_with(*range(20000, 20000 + MAX_OBSERVATIONS + 5))

    assert len(observer.addresses) == MAX_OBSERVATIONS
    assert at("198.18.2.1:20000") not in observer.addresses


def test_candidates_begin_with_what_the_coordinator_sees() -> None:
    """Only a predictable NAT adds guesses, and no more than allowed."""
    coordinator = at("198.18.0.1:10000")

    assert observer_with(20000, 20001).candidates(coordinator, 3, predict=True) == [
        at("198.18.2.1:20000"),
        at("198.18.2.1:20002"),
        at("198.18.2.1:20003"),
    ]
    assert observer_with(20000, 20001).candidates(coordinator, 3, predict=False) == [at("198.18.2.1:20000")]
    assert observer_with(20000, 20000).candidates(coordinator, 3, predict=True) == [at("198.18.2.1:20000")]
    assert observer_with().candidates(coordinator, 3, predict=True) == []


def test_the_first_round_dials_exactly_what_it_was_given() -> None:
    """Another port would make a counting NAT of ours go on counting."""
    assert dial_plan([at("198.18.2.1:20000")], round_number=1, max_candidates=10, predict=True) == [
        at("198.18.2.1:20000")
    ]


@pytest.mark.parametrize("step", [1, 2, 3, 7])
@pytest.mark.parametrize("ahead", [0, 4])
def test_what_goes_to_an_offset_leaves_from_the_same_offset(step: int, ahead: int) -> None:
    """Round after round, whatever the step of our own NAT and however old the node's knowledge of it."""
    there, growth = at("198.18.2.1:20000"), PortGrowth(step=step, ahead=ahead)
    own_port, leaves_from = 30000 + ahead, dict[int, int]()
    for round_number in (1, 2, 3):
        plan = dial_plan(
            [there],
            round_number=round_number,
            max_candidates=5,
            predict=True,
            guessed=max(0, len(leaves_from) - 1),
            growth=growth,
        )
        for address in plan:
            if address.port not in leaves_from:
                own_port += step
                leaves_from[address.port] = own_port

    matching = [port for port, source in leaves_from.items() if port - 20000 == source - 30000]
    # All but the exact address and the port that comes last in each window.
    assert len(leaves_from) == 9
    assert len(matching) == 6


def test_the_second_round_guesses_in_the_order_that_makes_two_counting_nats_meet() -> None:
    """The port that the first round has used up comes last."""
    plan = dial_plan([at("198.18.2.1:20000")], round_number=2, max_candidates=5, predict=True)

    assert [item.port for item in plan] == [20000, 20002, 20003, 20004, 20001]


@given(st.lists(ADDRESSES, min_size=1, max_size=5), st.integers(1, 6), st.integers(1, 20), st.booleans())
def test_a_plan_keeps_its_bounds(
    addresses: list[SocketAddress], round_number: int, max_candidates: int, predict: bool
) -> None:
    """Never more than allowed, nothing twice, the given addresses first, no impossible port."""
    plan = dial_plan(addresses, round_number=round_number, max_candidates=max_candidates, predict=predict)

    assert len(plan) == len(set(plan)) <= max_candidates
    assert plan[: len(set(addresses))] == list(dict.fromkeys(addresses))[:max_candidates]
    assert all(item.port for item in plan)


@given(st.integers(2, 20), st.integers(1, 30_000))
def test_rounds_cover_ports_without_gaps(max_candidates: int, port: int) -> None:
    """Three rounds together have every port from the given one up to the last."""
    dialled: set[int] = set()
    for round_number in (1, 2, 3):
        plan = dial_plan(
            [at(f"198.18.2.1:{port}")],
            round_number=round_number,
            max_candidates=max_candidates,
            predict=True,
            guessed=max(0, len(dialled) - 1),
        )
        dialled |= {item.port for item in plan}

    assert dialled == set(range(port, max(dialled) + 1))
    assert len(dialled) == 2 * max_candidates - 1
