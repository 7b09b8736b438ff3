"""What workers tell the supervisor about the peers that exchange the most bytes with them."""

from dataclasses import dataclass
from typing import Final

MAX_TALKERS: Final = 10
"""In one message, and in ``/status``."""

TALKERS_INTERVAL_S: Final = 2.0
"""Between two reports. Each looks at every connection of its worker: 30 ns for an idle one, 1 µs for a busy one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Talker:
    """
    A peer by what it moves: UDP payload, of those of its connections that had any traffic in the interval.

    ``peer_id`` is empty for a client without identity, which is listed by connection; ``host`` and ``port`` are where
    its busiest connection is. ``bytes_sent`` and ``bytes_received`` count from the beginning of the connections, seen
    from the node; the other two only what moved since the last report.
    """

    peer_id: bytes
    host: str
    port: int
    bytes_sent: int
    bytes_received: int
    interval_bytes_sent: int
    interval_bytes_received: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopTalkers:
    """
    The busiest peers of a worker, at most MAX_TALKERS, the busiest first; it stands for ``interval_s``.

    It replaces the report before and is sent while nobody talks as well.
    """

    interval_s: float
    talkers: list[Talker]
