"""
NAT behaviours as values, in the words of RFC 4787.

A NAT is described by how it chooses the outside address of an inside socket (mapping), by which packets from
outside it lets in through that address (filtering), and by how it picks ports. The four names of everyday use::

    full-cone            endpoint-independent mapping, endpoint-independent filtering
    address-restricted   endpoint-independent mapping, address-dependent filtering
    port-restricted      endpoint-independent mapping, address-and-port-dependent filtering
    symmetric            address-and-port-dependent mapping and filtering
"""

from collections.abc import Mapping as ReadOnlyMapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType

from antquic_server.errors import ConfigurationError

__all__ = [
    "ALIASES",
    "CONES_AND_SYMMETRIC",
    "KINDS",
    "PREDICTABLE",
    "Filtering",
    "Kind",
    "Mapping",
    "Nat",
    "Ports",
    "all_nats",
    "kind_named",
]

DEFAULT_LIFETIME_S = 30
"""The shortest mapping lifetime that is common in the field; RFC 4787 (REQ-5) asks for two minutes."""


class Mapping(StrEnum):
    """When an inside socket keeps its outside address (RFC 4787, section 4.1)."""

    ENDPOINT_INDEPENDENT = "eim"
    ADDRESS_DEPENDENT = "adm"
    ADDRESS_AND_PORT_DEPENDENT = "apdm"


class Filtering(StrEnum):
    """Who may send to an outside address (RFC 4787, section 5)."""

    ENDPOINT_INDEPENDENT = "eif"
    ADDRESS_DEPENDENT = "adf"
    ADDRESS_AND_PORT_DEPENDENT = "apdf"


class Ports(StrEnum):
    """How the outside port of a new mapping is picked (RFC 4787, section 4.2)."""

    PRESERVED = "preserved"
    RANDOM = "random"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nat:
    """
    One NAT's behaviour towards UDP.

    ``lifetime_s`` is how long a mapping lives without outbound packets, in whole seconds. With ``hairpin`` two
    hosts behind the same NAT reach each other through their outside addresses.
    """

    mapping: Mapping = Mapping.ENDPOINT_INDEPENDENT
    filtering: Filtering = Filtering.ADDRESS_AND_PORT_DEPENDENT
    ports: Ports = Ports.RANDOM
    lifetime_s: int = DEFAULT_LIFETIME_S
    hairpin: bool = False

    def __post_init__(self) -> None:
        """
        Refuse what no NAT can be.

        Raises:
            ConfigurationError: The lifetime is not positive, or ports are preserved by a NAT that is to give one
                socket several of them.
        """
        if self.lifetime_s < 1:
            raise ConfigurationError("nat", "lifetime_s", self.lifetime_s, "a whole number of seconds above 0")
        if self.ports is Ports.PRESERVED and self.mapping is not Mapping.ENDPOINT_INDEPENDENT:
            expected = f"random or sequential with {self.mapping.value}: one port kept is one mapping for all"
            raise ConfigurationError("nat", "ports", self.ports.value, expected)

    def __str__(self) -> str:
        """Name mapping, filtering and ports, like ``eim/apdf random``."""
        return f"{self.mapping.value}/{self.filtering.value} {self.ports.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """
    What stands between a host and the public segment: its NAT, and a carrier's NAT around it if there is one.

    ``udp_blocked`` lets no UDP pass at all, ``direct_udp_blocked`` none between the sites, which still reach the node.
    """

    name: str
    nat: Nat
    carrier: Nat | None = None
    udp_blocked: bool = False
    direct_udp_blocked: bool = False


_SYMMETRIC = Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT)
_PORT_RESTRICTED = Nat()

_ALL = (
    Kind(name="full-cone", nat=Nat(filtering=Filtering.ENDPOINT_INDEPENDENT)),
    Kind(name="address-restricted", nat=Nat(filtering=Filtering.ADDRESS_DEPENDENT)),
    Kind(name="port-restricted", nat=_PORT_RESTRICTED),
    Kind(name="symmetric", nat=_SYMMETRIC),
    Kind(
        name="symmetric-sequential",
        nat=Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, ports=Ports.SEQUENTIAL),
    ),
    Kind(name="port-preserving", nat=Nat(ports=Ports.PRESERVED)),
    # What a subscriber of a mobile or fibre network sits behind: the home router inside the carrier's NAT.
    Kind(name="cgnat", nat=_PORT_RESTRICTED, carrier=Nat(filtering=Filtering.ENDPOINT_INDEPENDENT)),
    Kind(name="cgnat-symmetric", nat=_PORT_RESTRICTED, carrier=_SYMMETRIC),
    Kind(name="udp-hostile", nat=_PORT_RESTRICTED, direct_udp_blocked=True),
    Kind(name="udp-blocked", nat=_PORT_RESTRICTED, udp_blocked=True),
)

KINDS: ReadOnlyMapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})
"""Every named kind, in the order tables show them."""

CONES_AND_SYMMETRIC = ("full-cone", "address-restricted", "port-restricted", "symmetric")
"""The matrix that is run when nothing else is asked for."""

PREDICTABLE = "symmetric-sequential"
"""The NAT that such a matrix has in addition when the peers predict ports."""

ALIASES: ReadOnlyMapping[str, str] = MappingProxyType({"easy": "port-restricted", "hard": "symmetric"})
"""Names in use elsewhere: easy NATs keep one mapping per socket, hard ones do not."""


def all_nats() -> list[Nat]:
    """Return every pair of mapping and filtering with every way to pick ports that goes with it."""
    return [
        Nat(mapping=mapping, filtering=filtering, ports=ports)
        for mapping in Mapping
        for filtering in Filtering
        for ports in Ports
        if ports is not Ports.PRESERVED or mapping is Mapping.ENDPOINT_INDEPENDENT
    ]


def kind_named(name: str) -> Kind:
    """
    Return the kind of that name or alias.

    Raises:
        ConfigurationError: There is none; the text lists those there are.
    """
    kind = KINDS.get(ALIASES.get(name, name))
    if kind is None:
        near = get_close_matches(name, [*KINDS, *ALIASES], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigurationError("command line", "NAT", name, "one of " + ", ".join([*KINDS, *ALIASES]) + hint)
    return kind
