"""What workers tell the supervisor about hole punches; ``messages`` has the timeline."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PunchReported:
    """
    A peer of the sending worker says how its attempt to meet ``other`` has ended.

    ``peer_id`` is who says so, as its connection has proven; ``nat_mapping`` how it believes that its NAT maps, a
    ``protocol.address_discovery.Mapping``.
    """

    peer_id: bytes
    other: bytes
    succeeded: bool
    nat_mapping: str
