"""
What theory says about two peers behind NATs that try to punch through at the same time.

Each knows the address under which the node sees the other. A packet to a peer's address arrives if the peer's NAT

1. filters by nothing, or
2. keeps that address for all destinations (or picks the next one predictably), so that the hole the peer has opened
   is where the packet goes, and, if the NAT also looks at the port the packet comes from, that port is the one the
   peer sent to: the sender's NAT keeps its address for all destinations, or picks the next one predictably.

One packet in one direction is enough: its receiver answers to where it came from, and the sender's NAT lets answers
in. So a direct path exists when a packet arrives in at least one of the directions.
"""

from dataclasses import replace
from enum import StrEnum

from antquic_server.natlab.model import Filtering, Kind, Mapping, Nat, Ports

__all__ = ["Expected", "combined", "expected_outcome", "expected_outcome_of_kinds"]

_MAPPINGS = list(Mapping)
_FILTERINGS = list(Filtering)


class Expected(StrEnum):
    """What should come of a meeting."""

    DIRECT = "direct"
    RELAYED = "relayed"
    NO_DIRECT = "no direct"


def expected_outcome(nat_a: Nat, nat_b: Nat, *, prediction: bool = True) -> Expected:
    """
    Say whether peers behind ``nat_a`` and ``nat_b`` can end up directly connected.

    Args:
        nat_a: The NAT of one peer; which of the two initiates does not matter.
        nat_b: The NAT of the other.
        prediction: Whether the peers try the next ports of a NAT that picks them in sequence.
    """
    arrives = _arrives(nat_b, nat_a, prediction=prediction) or _arrives(nat_a, nat_b, prediction=prediction)
    return Expected.DIRECT if arrives else Expected.NO_DIRECT


def expected_outcome_of_kinds(
    kind_a: Kind, kind_b: Kind, *, prediction: bool = True, relaying: bool = False
) -> Expected:
    """
    Say the same of two kinds, with their carriers and with UDP blocked where it is.

    With ``relaying`` the peers have a node carry what cannot go directly, which it can as long as both reach it.
    """
    if kind_a.udp_blocked or kind_b.udp_blocked:
        return Expected.NO_DIRECT
    expected = Expected.NO_DIRECT
    if not (kind_a.direct_udp_blocked or kind_b.direct_udp_blocked):
        expected = expected_outcome(combined(kind_a), combined(kind_b), prediction=prediction)
    return Expected.RELAYED if relaying and expected is Expected.NO_DIRECT else expected


def combined(kind: Kind) -> Nat:
    """Return the one NAT that a home router and a carrier's NAT around it amount to: the stricter of each."""
    if kind.carrier is None:
        return kind.nat
    inner, outer = kind.nat, kind.carrier
    return replace(
        inner,
        mapping=max(inner.mapping, outer.mapping, key=_MAPPINGS.index),
        filtering=max(inner.filtering, outer.filtering, key=_FILTERINGS.index),
        ports=_combined_ports(inner, outer),
        lifetime_s=min(inner.lifetime_s, outer.lifetime_s),
    )


def _combined_ports(inner: Nat, outer: Nat) -> Ports:
    """The ports the outer NAT picks; one that preserves them shows those of the inner."""
    return inner.ports if outer.ports is Ports.PRESERVED else outer.ports


def _arrives(sender: Nat, receiver: Nat, *, prediction: bool) -> bool:
    """Whether a packet of ``sender`` gets in at ``receiver``, which is punching as well."""
    if receiver.filtering is Filtering.ENDPOINT_INDEPENDENT:
        return True
    if not _address_is_known(receiver, prediction=prediction):
        return False
    if receiver.filtering is Filtering.ADDRESS_DEPENDENT:
        return True
    return _address_is_known(sender, prediction=prediction)


def _address_is_known(nat: Nat, *, prediction: bool) -> bool:
    """Whether a stranger can tell under which address a peer behind ``nat`` will come to them."""
    if nat.mapping is Mapping.ENDPOINT_INDEPENDENT:
        return True
    return prediction and nat.ports is Ports.SEQUENTIAL
