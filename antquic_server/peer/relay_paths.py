"""Paths that lead through a node: what a link has for ``path`` when its datagrams do not go to the peer themselves."""

from typing import Any, NamedTuple

from antquic_server.protocol.relay_channel import HEADER_BYTES

__all__ = ["RelayPath", "StreamRelayPath", "is_relayed"]

_FRAME_HEADER_BYTES = 24
"""Length, context, family, IPv6 address and port of a stream relay's frame."""


class RelayPath(NamedTuple):
    """A channel of a node; host and port are the node's, as both ends have no other address of each other."""

    host: str
    port: int
    channel_id: bytes

    @property
    def overhead_bytes(self) -> int:
        """What each datagram is made longer by; see ``protocol.seam.mtu_probing``."""
        return HEADER_BYTES


class StreamRelayPath(NamedTuple):
    """A remote address as seen from the port of a stream relay; ``session`` is our own number for the relay."""

    host: str
    port: int
    session: int

    @property
    def overhead_bytes(self) -> int:
        """What each datagram is made longer by; see ``protocol.seam.mtu_probing``."""
        return _FRAME_HEADER_BYTES


def is_relayed(path: Any) -> bool:
    """Whether a node carries what goes there."""
    return isinstance(path, RelayPath | StreamRelayPath)
