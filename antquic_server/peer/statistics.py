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
    relayed_connections: int = 0
    moved_to_direct: int = 0
    moved_to_relay: int = 0
    failed_moves: int = 0
    relay_channels_opened: int = 0
    relay_streams_opened: int = 0
    relayed_bytes_sent: int = 0
    relayed_bytes_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    datagrams_sent: int = 0
    datagrams_received: int = 0
    mtu_probes_sent: int = 0
    mtu_probes_lost: int = 0
    mtu_black_holes: int = 0
    coordination_rejections: Counter[str] = field(default_factory=Counter)
    relay_refusals: Counter[str] = field(default_factory=Counter)
    relay_channels_lost: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)

    def connected(self, *, punched: bool, relayed: bool) -> None:
        """Count a connection by how it came about."""
        self.successful_connections += 1
        if relayed:
            self.relayed_connections += 1
        elif punched:
            self.punched_connections += 1
        else:
            self.direct_connections += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatistics:
    """
    A snapshot; the names are ant-quic's where it has the figure (``EndpointStats``).

    ``bytes_*`` and ``datagrams_*`` are UDP payloads. ``*_hole_punches`` count attempts through a node in both roles.
    ``average_coordination_s`` is from a request to the node's answer, 0 before the first. ``coordination_rejections``
    and ``drops`` are by reason. ``nat_mapping`` is how our NAT maps as far as nodes have told, ``nat_port_step`` the
    distance of the ports it gives out if that can be predicted. ``relayed_connections`` counts connections that began
    relayed, ``moved_to_*`` those that changed their path while they lived; ``relay_channels`` and ``relay_streams`` are
    those there are now, ``relay_addresses`` where relays of nodes make us reachable, ``relayed_bytes_*`` the part of
    the traffic that nodes carried, without their headers. ``path_mtu_bytes`` is the largest datagram that goes to each
    connected peer, by peer id in hexadecimal.
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
    relayed_connections: int
    moved_to_direct: int
    moved_to_relay: int
    failed_moves: int
    relay_channels: int
    relay_streams: int
    relay_addresses: tuple[str, ...]
    relay_channels_opened: int
    relay_streams_opened: int
    relayed_bytes_sent: int
    relayed_bytes_received: int
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
    relay_refusals: dict[str, int]
    relay_channels_lost: dict[str, int]
    drops: dict[str, int]

    @classmethod
    def of(cls, tallies: Tallies, **facts: Any) -> Self:
        """Make a snapshot of the totals, and of facts that are no totals."""
        totals = {item.name: getattr(tallies, item.name) for item in fields(tallies)}
        answers, wait_s = tallies.coordination_answers, totals.pop("coordination_wait_s")
        totals["average_coordination_s"] = wait_s / answers if answers else 0.0
        counters = {name: dict(value) for name, value in totals.items() if isinstance(value, Counter)}
        return cls(**totals | counters | facts)

    def as_dict(self) -> dict[str, object]:
        """Return plain values, fit for JSON."""
        lists = {"external_addresses": list(self.external_addresses), "relay_addresses": list(self.relay_addresses)}
        return asdict(self) | lists
