"""Conclusions from what was observed; real NATs are classified in tests/natlab."""

import pytest

from antquic_server.natlab.classifier import Classification, filtering_of, mapping_of, ports_of
from antquic_server.natlab.model import Filtering, Mapping, Nat, Ports


@pytest.mark.parametrize(
    ("ports", "mapping"),
    [
        ((1, 1, 1, 1), Mapping.ENDPOINT_INDEPENDENT),
        ((1, 1, 2, 2), Mapping.ADDRESS_DEPENDENT),
        ((1, 2, 3, 4), Mapping.ADDRESS_AND_PORT_DEPENDENT),
        ((1, 2, 1, 2), Mapping.ADDRESS_AND_PORT_DEPENDENT),
        ((1, 1, 2, 3), Mapping.ADDRESS_AND_PORT_DEPENDENT),
    ],
)
def test_mapping(ports: tuple[int, ...], mapping: Mapping) -> None:
    """One outside port for all, one per address, or more than that."""
    assert mapping_of([("198.18.0.11", port) for port in ports]) is mapping


def test_another_outside_address_is_another_mapping() -> None:
    """A NAT with several outside addresses that uses them in turn does not keep its mapping."""
    addresses = [("198.18.0.11", 1), ("198.18.0.12", 1), ("198.18.0.11", 1), ("198.18.0.12", 1)]

    assert mapping_of(addresses) is Mapping.ADDRESS_AND_PORT_DEPENDENT


@pytest.mark.parametrize(
    ("other_address", "other_port", "filtering"),
    [
        (True, True, Filtering.ENDPOINT_INDEPENDENT),
        (False, True, Filtering.ADDRESS_DEPENDENT),
        (False, False, Filtering.ADDRESS_AND_PORT_DEPENDENT),
    ],
)
def test_filtering(other_address: bool, other_port: bool, filtering: Filtering) -> None:
    """Whoever may answer tells what is filtered."""
    assert filtering_of(other_address=other_address, other_port=other_port) is filtering


@pytest.mark.parametrize(
    ("inside", "outside", "ports"),
    [
        ((5, 9, 7), (5, 9, 7), Ports.PRESERVED),
        ((5, 9, 7), (20000, 20001, 20002), Ports.SEQUENTIAL),
        ((5, 9, 7), (20000, 20003, 20004), Ports.SEQUENTIAL),
        ((5, 9, 7), (20000, 20000, 20001), Ports.RANDOM),
        ((5, 9, 7), (20002, 20001, 20000), Ports.RANDOM),
        ((5, 9, 7), (31337, 20411, 44444), Ports.RANDOM),
    ],
)
def test_ports(inside: tuple[int, ...], outside: tuple[int, ...], ports: Ports) -> None:
    """The same as inside, going up in small steps, or neither."""
    assert ports_of(inside, outside) is ports


def test_agreement_passes_over_what_was_not_observed() -> None:
    """Hairpinning counts only where it was tested."""
    seen = Classification(
        mapping=Mapping.ENDPOINT_INDEPENDENT, filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT, ports=Ports.RANDOM
    )

    assert str(seen) == str(Nat())
    assert seen.agrees_with(Nat())
    assert seen.agrees_with(Nat(hairpin=True))
    assert not seen.agrees_with(Nat(ports=Ports.SEQUENTIAL))
