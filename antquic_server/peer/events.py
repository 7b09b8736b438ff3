"""What the core of the peer library tells its shell."""

from dataclasses import dataclass
from typing import Any

from antquic_server.peer.link import Link
from antquic_server.peer.punching import Failure
from antquic_server.protocol.address import SocketAddress

__all__ = [
    "AddressObserved",
    "DatagramArrived",
    "DialFailed",
    "LinkReady",
    "LiveLinkChanged",
    "MessageArrived",
    "PathChanged",
    "PeerEvent",
    "PeerGone",
    "PunchEnded",
    "RelayListening",
    "StreamActivity",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkReady:
    """A handshake is complete; ``live`` is the connection to use for this peer from now on, perhaps an older one."""

    link: Link
    live: Link


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLinkChanged:
    """The live connection of a peer has ended, and an older one takes its place."""

    peer_id: bytes
    live: Link


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerGone:
    """The last connection of a peer has ended."""

    peer_id: bytes
    code: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DialFailed:
    """A dial that no introduction led to came to nothing."""

    link: Link
    failure: Failure
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PunchEnded:
    """
    An attempt to reach a peer through a node is over; ``failure`` is None when it succeeded.

    ``relay_refusal`` is why no node carries the connection instead, None if none was asked.
    """

    target: bytes
    failure: Failure | None
    invited: bool
    relay_refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChanged:
    """A connection goes another way now: direct instead of relayed, or through another relay."""

    link: Link


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayListening:
    """The address of a node at which anybody reaches us, or None and why there is none."""

    address: SocketAddress | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressObserved:
    """A node has told us an address of ours that we did not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageArrived:
    """A whole unidirectional stream."""

    link: Link
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramArrived:
    """A DATAGRAM frame."""

    link: Link
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamActivity:
    """Something happened on a bidirectional stream; ``event`` is QUIC's own."""

    link: Link
    event: Any


PeerEvent = (
    LinkReady
    | LiveLinkChanged
    | PeerGone
    | DialFailed
    | PunchEnded
    | PathChanged
    | RelayListening
    | AddressObserved
    | MessageArrived
    | DatagramArrived
    | StreamActivity
)
