"""
How often one peer may be bothered on behalf of others.

An introduction makes its target dial somebody, the offer of a relay channel makes it send packets. Whatever it is, the
same two limits hold for each target: for all who ask together, and for those who ask from one address (IPv6: one /48),
who can use up no more than a part of the first, so that nobody makes a peer unreachable for everybody else.
"""

from enum import StrEnum
from typing import Final

from antquic_server.config.model import NatSettings
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.limits import KeyedBuckets, address_prefixes

__all__ = ["RATE_TABLE_ENTRIES", "TARGET_SHARE", "Limit", "TargetLimits"]

RATE_TABLE_ENTRIES: Final = 1 << 16
"""Buckets per table, 1 MB; peers that collide share one (``protocol.limits``)."""

TARGET_SHARE: Final = 0.5
"""Part of a target's limit that requests from one address can use."""


class Limit(StrEnum):
    """What a request was too much for; a word for the metrics."""

    INITIATOR = "initiator"
    TARGET = "target"
    TARGET_SHARE = "target_share"
    UNPROVEN_ADDRESS = "unproven_address"


class TargetLimits:
    """The limits of all targets; time is monotonic seconds."""

    def __init__(self, nat: NatSettings) -> None:
        rate_per_s, burst = nat.introductions_per_target_per_s, nat.introductions_per_target_burst
        self._together = KeyedBuckets(rate_per_s, burst, RATE_TABLE_ENTRIES)
        self._share = KeyedBuckets(rate_per_s * TARGET_SHARE, max(1.0, burst * TARGET_SHARE), RATE_TABLE_ENTRIES)

    def exceeded(self, target: bytes, asked_from: SocketAddress, now_s: float) -> Limit | None:
        """Count one more request for ``target``, or return the limit that it exceeds."""
        if not self._share.take(target + address_prefixes(asked_from)[-1], now_s):
            return Limit.TARGET_SHARE
        if not self._together.take(target, now_s):
            return Limit.TARGET
        return None
