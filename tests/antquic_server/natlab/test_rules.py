"""The rules of a NAT as text; what they do to packets is tested in tests/natlab."""

import pytest

from antquic_server.natlab.model import Filtering, Mapping, Nat, Ports, all_nats
from antquic_server.natlab.rules import (
    SEQUENCE_PORTS,
    block_udp_rules,
    firewall_rules,
    forget_rules,
    loss_rules,
    nat_rules,
    rebinding_rules,
)

WAN, LAN = "198.18.0.11", "10.11.0.0/24"


def rules(nat: Nat) -> str:
    """Return the rules of ``nat`` at the usual place."""
    return nat_rules(nat, wan=WAN, lan=LAN, first_port=30000)


@pytest.mark.parametrize("nat", all_nats(), ids=str)
def test_rules_begin_from_nothing_and_close_every_brace(nat: Nat) -> None:
    """A new behaviour leaves nothing of the one before it, and the text is whole."""
    text = rules(nat)

    assert text.startswith("flush ruleset\n")
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("nat", all_nats(), ids=str)
def test_a_rebinding_flushes_exactly_the_tables_there_are(nat: Nat) -> None:
    """Flushing a table that does not exist is an error."""
    text = rules(nat)
    for line in forget_rules(nat).splitlines():
        _, kind, *_, name = line.split()
        assert f"{kind} {name} {{" in text
    assert ("map outside {" in text) == ("outside" in forget_rules(nat))


def test_a_sequence_has_its_ports_in_order() -> None:
    """The table of a sequence goes up by one from its first port."""
    text = rules(Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, ports=Ports.SEQUENTIAL))

    assert "{ 0 : 30000, 1 : 30001, 2 : 30002," in text
    assert f", {SEQUENCE_PORTS - 1} : {30000 + SEQUENCE_PORTS - 1} }}" in text


def test_lifetime_is_that_of_every_table() -> None:
    """A mapping, its way back and the memory of who was talked to end together."""
    text = rules(Nat(lifetime_s=7))

    assert text.count("timeout 7s; size") == 3
    assert "timeout 30s" not in text


def test_only_a_hairpin_leads_the_inside_back_in() -> None:
    """Without hairpin, packets from inside to the outside address are dropped without an answer."""
    assert f'iifname "lan" ip daddr {WAN} meta l4proto udp dnat' in rules(Nat(hairpin=True))
    without = rules(Nat(filtering=Filtering.ENDPOINT_INDEPENDENT))
    assert f'iifname "lan" ip daddr {WAN} meta l4proto udp drop' in without
    assert "dnat to" in without
    assert 'iifname "lan" ip daddr 198.18.0.11 meta l4proto udp dnat' not in without


def test_switches_replace_what_they_switched() -> None:
    """Loss, blocking and the firewall each have a table of their own, declared and deleted before it is made."""
    for text, table in [
        (loss_rules(20), "inet loss"),
        (block_udp_rules(remote=None, blocked=True), "inet blocked"),
        (rebinding_rules(rebinding=True), "inet rebinding"),
        (firewall_rules(enabled=True), "ip6 firewall"),
    ]:
        assert text.splitlines()[:3] == [f"table {table}", f"delete table {table}", f"table {table} {{"]
        assert "drop" in text
    nothing = (loss_rules(0), block_udp_rules(remote=None, blocked=False), firewall_rules(enabled=False))
    for text in (*nothing, rebinding_rules(rebinding=False)):
        assert "drop" not in text


def test_blocking_one_address_spares_the_others() -> None:
    """Both directions of one address are named."""
    text = block_udp_rules(remote="198.18.0.12", blocked=True)

    assert "ip saddr 198.18.0.12 meta l4proto udp drop" in text
    assert "ip daddr 198.18.0.12 meta l4proto udp drop" in text
    assert "\nmeta l4proto udp drop" not in text
