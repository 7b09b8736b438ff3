"""
Who is connected to whom, and under which addresses.

::

                         core: a bridge, the public segment 198.18.0.0/24
             ┌──────────────────────────┼──────────────────────────┐
        node .1 .2                 A .11 (wan)                 B .12 (wan)
                                  10.11.0.1 (lan)             10.12.0.1 (lan)
                                    ┌───┴───┐                      │
                                a .2      a2 .3                  b .2

A carrier (CGNAT) is a further router between A and the core, with 100.64.11.0/24 in between. 198.18.0.0/15 is set
aside for benchmarks (RFC 2544) and 2001:2::/48 likewise (RFC 5180): peers that refuse documentation addresses take
these for public ones.

Everything here is text for ``ip -batch``; nothing is run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["HOSTS", "NODE_ADDRESSES", "NODE_ADDRESSES_V6", "ROLES", "SITES", "Addresses", "Site", "carrier_role"]

NODE_ADDRESSES = ("198.18.0.1", "198.18.0.2")
NODE_ADDRESSES_V6 = ("2001:2::1", "2001:2::2")
_GATEWAY, _GATEWAY_V6 = "198.18.0.254", "2001:2::fe"
"""An address of the core, which forwards nothing: packets to nowhere vanish silently, as on the Internet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One router and the network behind it; ``carrier_*`` count once a carrier is put around it."""

    router: str
    wan: str
    wan_v6: str
    lan_prefix: str
    lan_prefix_v6: str
    carrier_prefix: str
    hosts: tuple[str, ...]

    def host(self, name: str) -> str:
        """Return the IPv4 address of one host."""
        return f"{self.lan_prefix}.{2 + self.hosts.index(name)}"

    def host_v6(self, name: str) -> str:
        """Return the IPv6 address of one host."""
        return f"{self.lan_prefix_v6}::{2 + self.hosts.index(name)}"

    @property
    def lan_network(self) -> str:
        """The inside network, ``10.11.0.0/24``."""
        return f"{self.lan_prefix}.0/24"

    @property
    def inner_wan(self) -> str:
        """The router's outside address when it sits behind a carrier."""
        return f"{self.carrier_prefix}.2"


SITES: Mapping[str, Site] = MappingProxyType(
    {
        "A": Site(
            router="A",
            wan="198.18.0.11",
            wan_v6="2001:2::11",
            lan_prefix="10.11.0",
            lan_prefix_v6="2001:2:0:11",
            carrier_prefix="100.64.11",
            hosts=("a", "a2"),
        ),
        "B": Site(
            router="B",
            wan="198.18.0.12",
            wan_v6="2001:2::12",
            lan_prefix="10.12.0",
            lan_prefix_v6="2001:2:0:12",
            carrier_prefix="100.64.12",
            hosts=("b",),
        ),
    }
)

HOSTS: Mapping[str, Site] = MappingProxyType({host: site for site in SITES.values() for host in site.hosts})
"""Site of each host."""

ROLES = ("core", "node", *SITES, *HOSTS)
"""Every namespace a lab begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """
    Where everybody is: ``node`` and ``routers`` are public, ``hosts`` are inside.

    The IPv6 addresses are there in a lab that has IPv6, and public all of them.
    """

    node: tuple[str, ...]
    node_v6: tuple[str, ...]
    routers: Mapping[str, str]
    hosts: Mapping[str, str]
    hosts_v6: Mapping[str, str]


def addresses(*, ipv6: bool) -> Addresses:
    """Return all addresses of a lab."""
    return Addresses(
        node=NODE_ADDRESSES,
        node_v6=NODE_ADDRESSES_V6 if ipv6 else (),
        routers={name: site.wan for name, site in SITES.items()},
        hosts={host: site.host(host) for host, site in HOSTS.items()},
        hosts_v6={host: site.host_v6(host) for host, site in HOSTS.items()} if ipv6 else {},
    )


def carrier_role(router: str) -> str:
    """Return the role of the carrier's router around a site."""
    return f"carrier{router}"


def namespaces_script(names: Mapping[str, str]) -> str:
    """Return the batch that makes all namespaces; ``names`` gives the namespace of each role."""
    return _batch([f"netns add {names[role]}" for role in ROLES])


def wires_script(names: Mapping[str, str]) -> str:
    """Return the batch that connects them."""
    lines = [_wire(names["node"], "eth0", names["core"], "to-node")]
    for site in SITES.values():
        lines.append(_wire(names[site.router], "wan", names["core"], f"to-{site.router}"))
        lines += [_wire(names[host], "eth0", names[site.router], f"to-{host}") for host in site.hosts]
    return _batch(lines)


def core_script(*, ipv6: bool) -> str:
    """Return the batch for the core."""
    lines = ["link set lo up", "link add br0 type bridge", "link set br0 up"]
    for port in ("to-node", *(f"to-{router}" for router in SITES)):
        lines += [f"link set {port} master br0", f"link set {port} up"]
    lines.append(f"addr add {_GATEWAY}/24 dev br0")
    if ipv6:
        lines.append(f"addr add {_GATEWAY_V6}/64 dev br0 nodad")
    return _batch(lines)


def node_script(*, ipv6: bool) -> str:
    """Return the batch for the node's namespace, which knows the way to the IPv6 networks of all sites."""
    lines = ["link set lo up", *(f"addr add {address}/24 dev eth0" for address in NODE_ADDRESSES), "link set eth0 up"]
    lines.append(f"route add default via {_GATEWAY}")
    if ipv6:
        lines += [f"addr add {address}/64 dev eth0 nodad" for address in NODE_ADDRESSES_V6]
        lines += [f"route add {site.lan_prefix_v6}::/64 via {site.wan_v6}" for site in SITES.values()]
        lines.append(f"route add default via {_GATEWAY_V6}")
    return _batch(lines)


def router_script(site: Site, *, ipv6: bool) -> str:
    """Return the batch for a router."""
    lines = ["link set lo up", f"addr add {site.wan}/24 dev wan", "link set wan up", *_lan(site)]
    lines.append(f"route add default via {_GATEWAY}")
    if ipv6:
        lines += [f"addr add {site.wan_v6}/64 dev wan nodad", f"addr add {site.lan_prefix_v6}::1/64 dev lan nodad"]
        others = [other for other in SITES.values() if other is not site]
        lines += [f"route add {other.lan_prefix_v6}::/64 via {other.wan_v6}" for other in others]
        lines.append(f"route add default via {_GATEWAY_V6}")
    return _batch(lines)


def host_script(site: Site, host: str, *, ipv6: bool) -> str:
    """Return the batch for a host."""
    lines = ["link set lo up", f"addr add {site.host(host)}/24 dev eth0", "link set eth0 up"]
    lines.append(f"route add default via {site.lan_prefix}.1")
    if ipv6:
        lines.append(f"addr add {site.host_v6(host)}/64 dev eth0 nodad")
        lines.append(f"route add default via {site.lan_prefix_v6}::1")
    return _batch(lines)


def carrier_scripts(site: Site, names: Mapping[str, str]) -> dict[str, str]:
    """
    Return the batches that put a carrier around a site, by role, in the order they must run.

    The role ``""`` stands for the batch that belongs to no namespace.
    """
    carrier = carrier_role(site.router)
    to_router = f"to-{site.router}"
    return {
        # Taking one end of a wire away takes the other with it, routes and addresses included.
        site.router: "link del wan\n",
        "": _batch(
            [
                f"netns add {names[carrier]}",
                _wire(names[carrier], "wan", names["core"], to_router),
                _wire(names[site.router], "wan", names[carrier], to_router),
            ]
        ),
        "core": _batch([f"link set {to_router} master br0", f"link set {to_router} up"]),
        carrier: _batch(
            [
                *("link set lo up", f"addr add {site.wan}/24 dev wan", "link set wan up"),
                *("link add lan type bridge", "link set lan up"),
                *(f"link set {to_router} master lan", f"link set {to_router} up"),
                *(f"addr add {site.carrier_prefix}.1/24 dev lan", f"route add default via {_GATEWAY}"),
            ]
        ),
    }


def behind_carrier_script(site: Site) -> str:
    """Return the batch for a router that has just been put behind a carrier."""
    return _batch(
        [
            *(f"addr add {site.inner_wan}/24 dev wan", "link set wan up"),
            f"route add default via {site.carrier_prefix}.1",
        ]
    )


def _lan(site: Site) -> list[str]:
    lines = ["link add lan type bridge", "link set lan up", f"addr add {site.lan_prefix}.1/24 dev lan"]
    for host in site.hosts:
        lines += [f"link set to-{host} master lan", f"link set to-{host} up"]
    return lines


def _wire(namespace: str, name: str, other_namespace: str, other_name: str) -> str:
    return f"link add {name} netns {namespace} type veth peer name {other_name} netns {other_namespace}"


def _batch(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
