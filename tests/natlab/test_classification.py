"""Every NAT of the lab does what it is called, as seen from inside."""

from dataclasses import replace

import pytest

from antquic_server.natlab.classifier import Classification, classify
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import KINDS, Filtering, Mapping, Nat, Ports, all_nats

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("nat", all_nats(), ids=str)
def test_nine_pairs(lab: Lab, nat: Nat) -> None:
    """Each pair of mapping and filtering, with each way to pick ports, is classified as what it was built as."""
    lab.nat("A", nat)

    assert classify(lab, "a", neighbour="a2") == Classification(
        mapping=nat.mapping, filtering=nat.filtering, ports=nat.ports, hairpin=False
    )


@pytest.mark.parametrize("filtering", list(Filtering))
@pytest.mark.parametrize("mapping", list(Mapping))
def test_nine_pairs_with_hairpin(lab: Lab, mapping: Mapping, filtering: Filtering) -> None:
    """Hairpinning works with every pair and changes nothing else."""
    nat = Nat(mapping=mapping, filtering=filtering, hairpin=True)
    lab.nat("A", nat)

    seen = classify(lab, "a", neighbour="a2")

    assert seen is not None
    assert seen.hairpin is True
    assert replace(seen, hairpin=None).agrees_with(nat)


def test_sites_are_independent(lab: Lab) -> None:
    """Each router has its own behaviour, and both begin as port-restricted."""
    lab.nat("A", KINDS["full-cone"].nat)
    lab.nat("B", KINDS["symmetric"].nat)

    seen = {host: classify(lab, host) for host in ("a", "a2", "b")}

    assert {host: str(found) for host, found in seen.items()} == {
        "a": "eim/eif random",
        "a2": "eim/eif random",
        "b": "apdm/apdf random",
    }


def test_a_router_can_change_its_behaviour(lab: Lab) -> None:
    """The last behaviour counts, and nothing of those before is left."""
    for name in ("symmetric", "full-cone", "port-restricted"):
        lab.nat("A", KINDS[name].nat)
        seen = classify(lab, "a")
        assert seen is not None
        assert seen.agrees_with(KINDS[name].nat)


@pytest.mark.parametrize(("name", "seen"), [("cgnat", "eim/apdf random"), ("cgnat-symmetric", "apdm/apdf random")])
def test_double_nat(lab: Lab, name: str, seen: str) -> None:
    """Behind a carrier the stricter of both NATs shows, and the outside address is the site's public one."""
    lab.kind("A", KINDS[name])

    assert str(classify(lab, "a")) == seen
    server, client = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a")
    server.settimeout(2.0)
    client.sendto(b"hello", server.getsockname())
    assert server.recvfrom(16)[1][0] == lab.addresses.routers["A"]


def test_blocked_udp_cannot_be_classified(lab: Lab) -> None:
    """Where no UDP passes there is nothing to see."""
    lab.kind("A", KINDS["udp-blocked"])

    assert classify(lab, "a") is None


def test_sequential_ports_go_up_by_one(lab: Lab) -> None:
    """Each new destination of one socket takes exactly the next port, so that a peer can predict it."""
    lab.nat("A", Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, ports=Ports.SEQUENTIAL))
    client = lab.udp_socket("a")
    ports = []
    for _ in range(20):
        server = lab.udp_socket("node", ("198.18.0.1", 0))
        server.settimeout(2.0)
        client.sendto(b"hello", server.getsockname())
        ports.append(server.recvfrom(16)[1][1])

    assert ports == list(range(ports[0], ports[0] + 20))


def test_a_preserved_port_is_not_given_to_a_second_host(lab: Lab) -> None:
    """Two hosts with the same inside port, talking to different servers, get two outside ports."""
    lab.nat("A", Nat(filtering=Filtering.ENDPOINT_INDEPENDENT, ports=Ports.PRESERVED))
    sources = []
    for host, address in (("a", "198.18.0.1"), ("a2", "198.18.0.2")):
        server, client = lab.udp_socket("node", (address, 0)), lab.udp_socket(host, ("0.0.0.0", 40404))
        server.settimeout(2.0)
        client.sendto(b"hello", server.getsockname())
        sources.append(server.recvfrom(16)[1])

    assert sources[0] == ("198.18.0.11", 40404)
    assert sources[1][1] != 40404
