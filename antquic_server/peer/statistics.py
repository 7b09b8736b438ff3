"""What an endpoint counts."""

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

__all__ = ["PeerStatistics", "Tallies"]


@dataclass(slots=True, kw_only=True)
class Tallies:
    """Running totals since the endpoint was made."""

    successful_connections: int = 0
    failed_connections: int = 0
    direct_connections: int = 0
    punched_connections: int = 0
    successful_hole_punches: int = 0
    failed_hole_punches: int = 0
    coordination_requests: int = 0
    coordination_answers: int = 0
    coordination_wait_s: float = 0.0
    """From each request that was answered to its answer, together."""
    introductions_received: int = 0
    superseded_connections: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    datagrams_sent: int = 0
    datagrams_received: int = 0
    mtu_probes_sent: int = 0
    mtu_probes_lost: int = 0
    mtu_black_holes: int = 0
    coordination_rejections: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatistics:
    """
    A snapshot; the names are ant-quic's where it has the figure (``EndpointStats``).

    ``bytes_*`` and ``datagrams_*`` are UDP payloads. ``*_hole_punches`` count attempts through a node in both roles.
    ``average_coordination_s`` is from a request to the node's answer, 0 before the first. ``coordination_rejections``
    and ``drops`` are by reason. ``nat_mapping`` is how our NAT maps as far as nodes have told, ``nat_port_step`` the
    distance of the ports it gives out if that can be predicted. ``path_mtu_bytes`` is the largest datagram that goes to
    each connected peer, by peer id in hexadecimal.
    """

    active_connections: int
    connected_nodes: int
    successful_connections: int
    failed_connections: int
    direct_connections: int
    punched_connections: int
    successful_hole_punches: int
    failed_hole_punches: int
    coordination_requests: int
    coordination_answers: int
    average_coordination_s: float
    introductions_received: int
    superseded_connections: int
    bytes_sent: int
    bytes_received: int
    datagrams_sent: int
    datagrams_received: int
    external_addresses: tuple[str, ...]
    nat_mapping: str
    nat_port_step: int | None
    path_mtu_bytes: dict[str, int]
    mtu_probes_sent: int
    mtu_probes_lost: int
    mtu_black_holes: int
    coordination_rejections: dict[str, int]
    drops: dict[str, int]

    @classmethod
    def of(cls, tallies: Tallies, **facts: Any) -> Self:
        """Make a snapshot of the totals, and of facts that are no totals."""
        totals = {item.name: getattr(tallies, item.name) for item in fields(tallies)}
        answers, wait_s = tallies.coordination_answers, totals.pop("coordination_wait_s")
        totals["average_coordination_s"] = wait_s / answers if answers else 0.0
        return cls(**totals | {"coordination_rejections": dict(tallies.coordination_rejections)} | facts)

    def as_dict(self) -> dict[str, object]:
        """Return plain values, fit for JSON."""
        return asdict(self) | {"external_addresses": list(self.external_addresses)}
