"""What the settings of a peer change about real NATs: our peers behind them, our node the only thing they know."""

import time

import pytest

from antquic_server.errors import PeerUnreachableError
from antquic_server.peer.endpoint import Endpoint
from support.behind_nats import Meet

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


async def reached(one: Endpoint, other: Endpoint) -> None:
    """Each reaches the other through the node, and bytes pass both ways."""
    connection = await one.connect_peer(other.peer_id)
    assert connection.path == "punched"
    assert await connection.ping() > 0


async def not_reached(one: Endpoint, other: Endpoint) -> None:
    """Neither reaches the other; the reason is the path, and it is told in time."""
    for initiator, target in ((one, other), (other, one)):
        began_s = time.monotonic()
        with pytest.raises(PeerUnreachableError) as caught:
            await initiator.connect_peer(target.peer_id)
        assert caught.value.reason == "no_path"
        assert time.monotonic() - began_s < initiator.settings.discovery_timeout_s + 1


@pytest.mark.parametrize(
    ("kind_a", "kind_b"),
    [
        ("port-restricted", "symmetric-sequential"),
        ("symmetric-sequential", "port-restricted"),
        ("symmetric-sequential", "symmetric-sequential"),
    ],
)
def test_enable_symmetric_nat_gets_through_a_nat_that_counts(meet: Meet, kind_a: str, kind_b: str) -> None:
    """Whoever asks."""
    meet(kind_a, kind_b, reached)


@pytest.mark.parametrize("kind_a", ["port-restricted", "symmetric-sequential"])
def test_without_enable_symmetric_nat_a_nat_that_counts_keeps_peers_out(meet: Meet, kind_a: str) -> None:
    """The same two fail, with a reason."""
    meet(kind_a, "symmetric-sequential", not_reached, enable_symmetric_nat=False)


def test_guessing_takes_a_retry_and_room_for_candidates(meet: Meet) -> None:
    """The first round has the exact address alone."""
    meet("port-restricted", "symmetric-sequential", not_reached, hole_punch_retries=0)


def test_one_candidate_leaves_no_room_for_guesses(meet: Meet) -> None:
    """However many rounds there are."""
    meet("port-restricted", "symmetric-sequential", not_reached, max_candidates=1)


def test_discovery_timeout_ends_an_impossible_attempt(meet: Meet) -> None:
    """When the configured time is over, not before."""

    async def story(one: Endpoint, other: Endpoint) -> None:
        began_s = time.monotonic()
        await not_reached(one, other)
        assert 2 * 1.5 <= time.monotonic() - began_s < 2 * 1.5 + 1

    meet("symmetric", "symmetric", story, discovery_timeout_s=1.5)


@pytest.mark.parametrize(
    ("kind", "mapping", "step"),
    [
        ("port-restricted", "endpoint_independent", None),
        ("port-preserving", "endpoint_independent", None),
        ("symmetric-sequential", "dependent", 1),
    ],
)
def test_two_addresses_of_one_node_teach_how_a_nat_maps(meet: Meet, kind: str, mapping: str, step: int | None) -> None:
    """Before anybody is asked for; one address teaches nothing."""

    async def story(one: Endpoint, _other: Endpoint) -> None:
        statistics = one.stats()
        assert (statistics.nat_mapping, statistics.nat_port_step) == (mapping, step)

    meet(kind, "full-cone", story)


def test_one_address_teaches_nothing(meet: Meet) -> None:
    """There is nothing to compare."""

    async def story(one: Endpoint, _other: Endpoint) -> None:
        assert one.stats().nat_mapping == "unknown"

    meet("symmetric-sequential", "full-cone", story, nodes=1)
