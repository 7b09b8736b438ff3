"""
Why a relay session is refused or ends, in words that peers, logs and metrics share.

A peer of our library is told the word itself; an ant-quic peer gets the status that its relays use for it, and the word
as the reason phrase.
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from antquic_server.protocol.relay_stream import RelayStatus

__all__ = ["STATUS", "Refusal", "RelayEnd", "RelayMode"]


class RelayMode(StrEnum):
    """The two ways to relay; a label of the metrics."""

    CHANNEL = "channel"
    STREAM = "stream"


class Refusal(StrEnum):
    """The limit or rule that forbids a session."""

    BAD_REQUEST = "bad_request"
    DISABLED = "relay_disabled"
    DRAINING = "draining"
    FAMILY = "address_family"
    INTERNAL = "internal_error"
    NODE_BYTES = "node_bytes"
    NODE_SESSIONS = "node_sessions"
    NO_PORT = "no_free_port"
    OPEN_RATE = "open_rate"
    PEER_BYTES = "peer_bytes"
    PEER_DENIED = "peer_denied"
    PEER_SESSIONS = "peer_sessions"
    PREFIX_SESSIONS = "prefix_sessions"
    SELF_TARGET = "self_target"
    TARGET_DECLINED = "target_declined"
    TARGET_RATE = "target_rate"
    TARGET_SILENT = "target_silent"
    TARGET_UNKNOWN = "target_unknown"
    UNAUTHENTICATED = "unauthenticated"
    UNSUPPORTED = "unsupported"


class RelayEnd(StrEnum):
    """Why a session that was there has ended, where no :class:`Refusal` says it."""

    CLOSED = "closed"
    CONNECTION_LOST = "connection_lost"
    IDLE = "idle"
    NEVER_BOUND = "never_bound"
    STREAM_ENDED = "stream_ended"
    STREAM_MALFORMED = "stream_malformed"
    WORKER_LOST = "worker_lost"


STATUS: Final = MappingProxyType(
    {
        Refusal.BAD_REQUEST: RelayStatus.BAD_REQUEST,
        Refusal.DISABLED: RelayStatus.FORBIDDEN,
        Refusal.DRAINING: RelayStatus.UNAVAILABLE,
        Refusal.FAMILY: RelayStatus.NOT_IMPLEMENTED,
        Refusal.INTERNAL: RelayStatus.INTERNAL_ERROR,
        Refusal.NODE_BYTES: RelayStatus.UNAVAILABLE,
        Refusal.NODE_SESSIONS: RelayStatus.UNAVAILABLE,
        Refusal.NO_PORT: RelayStatus.UNAVAILABLE,
        Refusal.OPEN_RATE: RelayStatus.UNAVAILABLE,
        Refusal.PEER_BYTES: RelayStatus.UNAVAILABLE,
        Refusal.PEER_DENIED: RelayStatus.FORBIDDEN,
        Refusal.PEER_SESSIONS: RelayStatus.CONFLICT,
        Refusal.PREFIX_SESSIONS: RelayStatus.UNAVAILABLE,
        Refusal.SELF_TARGET: RelayStatus.BAD_REQUEST,
        Refusal.TARGET_DECLINED: RelayStatus.FORBIDDEN,
        Refusal.TARGET_RATE: RelayStatus.UNAVAILABLE,
        Refusal.TARGET_SILENT: RelayStatus.NOT_FOUND,
        Refusal.TARGET_UNKNOWN: RelayStatus.NOT_FOUND,
        Refusal.UNAUTHENTICATED: RelayStatus.FORBIDDEN,
        Refusal.UNSUPPORTED: RelayStatus.NOT_IMPLEMENTED,
    }
)
"""What an ant-quic peer is answered."""
