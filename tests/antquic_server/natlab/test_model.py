"""NAT behaviours as values."""

import pytest

from antquic_server.errors import ConfigurationError
from antquic_server.natlab.model import (
    ALIASES,
    CONES_AND_SYMMETRIC,
    KINDS,
    Filtering,
    Mapping,
    Nat,
    Ports,
    all_nats,
    kind_named,
)


def test_a_nat_says_what_it_does() -> None:
    """The text names mapping, filtering and ports by the abbreviations of RFC 4787."""
    assert str(Nat()) == "eim/apdf random"
    assert str(Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, ports=Ports.SEQUENTIAL)) == "apdm/apdf sequential"


@pytest.mark.parametrize("mapping", [Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT])
def test_ports_are_preserved_only_by_one_mapping_for_all(mapping: Mapping) -> None:
    """A NAT cannot keep the inside port and give a socket several outside ports."""
    with pytest.raises(ConfigurationError, match="random or sequential"):
        Nat(mapping=mapping, ports=Ports.PRESERVED)


def test_a_lifetime_is_at_least_a_second() -> None:
    """A mapping that ends at once is refused."""
    with pytest.raises(ConfigurationError, match="lifetime_s"):
        Nat(lifetime_s=0)


def test_all_nats_are_the_nine_pairs_with_every_way_to_pick_ports() -> None:
    """Nine pairs with random and sequential ports, and three of them with preserved ones."""
    nats = all_nats()

    assert len({(nat.mapping, nat.filtering) for nat in nats}) == 9
    assert len(set(nats)) == len(nats) == 9 * 2 + 3


def test_kinds_are_found_by_name_and_alias() -> None:
    """Each name and each alias leads to a kind; the four of the matrix are among them."""
    assert all(kind_named(name).name == name for name in KINDS)
    assert all(kind_named(alias) is KINDS[name] for alias, name in ALIASES.items())
    assert set(CONES_AND_SYMMETRIC) <= set(KINDS)


def test_the_four_everyday_names_mean_what_they_are_known_for() -> None:
    """Three cones keep one mapping and differ in filtering; symmetric depends on address and port in both."""
    pairs = [(KINDS[name].nat.mapping, KINDS[name].nat.filtering) for name in CONES_AND_SYMMETRIC]

    cones = [(Mapping.ENDPOINT_INDEPENDENT, filtering) for filtering in Filtering]
    assert pairs == [*cones, (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT)]


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    """A typing mistake is answered with the nearest name."""
    with pytest.raises(ConfigurationError, match=r"did you mean symmetric\?"):
        kind_named("symetric")
