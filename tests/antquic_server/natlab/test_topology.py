"""The addresses and wires of the lab, as text."""

from ipaddress import ip_address, ip_network

from antquic_server.natlab import topology
from antquic_server.natlab.topology import HOSTS, NODE_ADDRESSES, ROLES, SITES, carrier_role

NAMES = {role: f"ns-{role}" for role in (*ROLES, *map(carrier_role, SITES))}


def test_every_public_address_is_one_that_peers_take_for_public() -> None:
    """Public addresses are from the network set aside for benchmarks, inside ones from private networks."""
    public = ip_network("198.18.0.0/24")

    assert all(ip_address(address) in public for address in (*NODE_ADDRESSES, *(site.wan for site in SITES.values())))
    for host, site in HOSTS.items():
        assert ip_address(site.host(host)) in ip_network(site.lan_network)
        assert ip_address(site.host(host)).is_private
        assert ip_address(site.inner_wan) in ip_network("100.64.0.0/10")


def test_no_address_is_given_out_twice() -> None:
    """Every host, router and node address is unique, in both families."""
    everybody = topology.addresses(ipv6=True)
    given = [*everybody.node, *everybody.node_v6, *everybody.routers.values()]
    given += [*everybody.hosts.values(), *everybody.hosts_v6.values()]

    assert len(given) == len(set(given))
    assert topology.addresses(ipv6=False).node_v6 == ()


def test_every_wire_has_both_ends_in_namespaces_of_the_lab() -> None:
    """Nothing is ever made in the namespace of the machine itself."""
    wires = topology.wires_script(NAMES).splitlines()

    assert topology.namespaces_script(NAMES).splitlines() == [f"netns add ns-{role}" for role in ROLES]
    assert len(wires) == 1 + len(SITES) + len(HOSTS)
    assert all(line.count("netns ns-") == 2 for line in wires)
    for site in SITES.values():
        assert topology.carrier_scripts(site, NAMES)[""].count("netns ns-") == 2 * 2


def test_ipv6_is_left_out_unless_asked_for() -> None:
    """A lab without IPv6 has no IPv6 address anywhere."""
    site = SITES["A"]
    for ipv6 in (False, True):
        scripts = [
            topology.core_script(ipv6=ipv6),
            topology.node_script(ipv6=ipv6),
            topology.router_script(site, ipv6=ipv6),
            topology.host_script(site, "a", ipv6=ipv6),
        ]
        assert all(("2001:" in script) == ipv6 for script in scripts)
