"""What theory says of two NATs, as a table."""

from itertools import product

import pytest

from antquic_server.natlab.expectation import Expected, combined, expected_outcome, expected_outcome_of_kinds
from antquic_server.natlab.model import KINDS, Filtering, Kind, Mapping, Nat, Ports, all_nats

RANDOM_TABLE = {
    "full-cone": "DDDD",
    "address-restricted": "DDDD",
    "port-restricted": "DDD-",
    "symmetric": "DD--",
}
"""D for a direct path, columns in the order of the rows: the table of every text on hole punching."""

NAMES = list(RANDOM_TABLE)


@pytest.mark.parametrize(("row", "column"), list(product(NAMES, NAMES)))
def test_classical_table(row: str, column: str) -> None:
    """Every pair is direct, except port-restricted with symmetric and symmetric with symmetric."""
    expected = Expected.DIRECT if RANDOM_TABLE[row][NAMES.index(column)] == "D" else Expected.NO_DIRECT

    assert expected_outcome(KINDS[row].nat, KINDS[column].nat) is expected


@pytest.mark.parametrize("other", [*NAMES, "symmetric-sequential"])
def test_sequential_ports_are_as_good_as_one_mapping_for_peers_that_predict(other: str) -> None:
    """A symmetric NAT with predictable ports meets whom a port-restricted one meets, and its own like."""
    sequential = KINDS["symmetric-sequential"].nat
    like_a_cone = expected_outcome(KINDS["port-restricted"].nat, KINDS[other].nat)

    assert expected_outcome(sequential, KINDS[other].nat) is like_a_cone
    without = expected_outcome(sequential, KINDS[other].nat, prediction=False)
    stand_in = "symmetric" if other == "symmetric-sequential" else other
    assert without is expected_outcome(KINDS["symmetric"].nat, KINDS[stand_in].nat)


def test_theory_does_not_care_who_is_who() -> None:
    """The outcome is the same with both sides exchanged."""
    for a, b, prediction in product(all_nats(), all_nats(), (False, True)):
        assert expected_outcome(a, b, prediction=prediction) is expected_outcome(b, a, prediction=prediction)


def test_laxer_filtering_never_hurts() -> None:
    """What is direct stays direct when one side filters less."""
    strictness = list(Filtering)
    for a, b in product(all_nats(), all_nats()):
        if expected_outcome(a, b) is Expected.DIRECT:
            for laxer in strictness[: strictness.index(a.filtering)]:
                lax = Nat(mapping=a.mapping, filtering=laxer, ports=a.ports)
                assert expected_outcome(lax, b) is Expected.DIRECT


def test_a_mapping_per_address_cannot_be_told_by_the_node() -> None:
    """Address-dependent mapping opens another port for the peer than the node saw: two of them miss each other."""
    nat = Nat(mapping=Mapping.ADDRESS_DEPENDENT, filtering=Filtering.ADDRESS_DEPENDENT)

    assert expected_outcome(nat, nat) is Expected.NO_DIRECT
    assert expected_outcome(nat, KINDS["address-restricted"].nat) is Expected.DIRECT


def test_a_carrier_makes_a_nat_stricter_never_laxer() -> None:
    """Two NATs in a row map and filter as the stricter of them, and show the outer one's ports."""
    assert combined(KINDS["cgnat"]) == Nat()
    symmetric = combined(KINDS["cgnat-symmetric"])
    assert (symmetric.mapping, symmetric.filtering) == (KINDS["symmetric"].nat.mapping, Nat().filtering)
    preserving = Kind(name="", nat=Nat(ports=Ports.SEQUENTIAL), carrier=Nat(ports=Ports.PRESERVED, lifetime_s=5))
    assert combined(preserving) == Nat(ports=Ports.SEQUENTIAL, lifetime_s=5)


def test_blocked_udp_ends_every_hope() -> None:
    """Without UDP nothing is direct, whatever the other side is."""
    blocked = KINDS["udp-blocked"]
    for kind in KINDS.values():
        assert expected_outcome_of_kinds(blocked, kind) is Expected.NO_DIRECT
        assert expected_outcome_of_kinds(kind, blocked) is Expected.NO_DIRECT
    assert expected_outcome_of_kinds(KINDS["cgnat"], KINDS["port-restricted"]) is Expected.DIRECT


@pytest.mark.parametrize("relaying", [False, True])
def test_a_node_carries_what_cannot_go_directly(relaying: bool) -> None:
    """Between symmetric NATs, and where no UDP passes between the sites; not where none reaches the node."""
    indirect = Expected.RELAYED if relaying else Expected.NO_DIRECT
    symmetric, hostile, cone = KINDS["symmetric"], KINDS["udp-hostile"], KINDS["full-cone"]

    assert expected_outcome_of_kinds(symmetric, symmetric, relaying=relaying) is indirect
    assert expected_outcome_of_kinds(hostile, cone, relaying=relaying) is indirect
    assert expected_outcome_of_kinds(cone, hostile, relaying=relaying) is indirect
    assert expected_outcome_of_kinds(symmetric, cone, relaying=relaying) is Expected.DIRECT
    assert expected_outcome_of_kinds(KINDS["udp-blocked"], cone, relaying=relaying) is Expected.NO_DIRECT
