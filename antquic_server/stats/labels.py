"""
Every value that a label of a metric can have.

What is written here is all that can ever be seen: a word that is not listed is counted as ``other``, whoever made it
up, and a worker that has lost its mind cannot bring a new one to the page. So the number of series has a bound that
no peer moves, and none of them names a peer or an address.
"""

from collections.abc import Iterable, Mapping
from sys import version_info
from typing import Final

from aioquic.tls import AlertDescription

from antquic_server import __version__
from antquic_server.protocol import frames
from antquic_server.protocol.address_discovery import Mapping as NatMapping
from antquic_server.protocol.codepoints import ApplicationErrorCode, TransportErrorCode
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.relay_limits import Refusal, RelayEnd, RelayMode
from antquic_server.protocol.relay_targets import TargetVerdict

__all__ = ["CONNECTION_ENDS", "EXTENSION_FRAMES", "OTHER", "VALUES", "Words"]

OTHER: Final = "other"
"""Any word that is not listed; every set has it."""

Words = frozenset[str]
"""The values of one label."""


def _words(*groups: str | Iterable[str]) -> Words:
    listed = {OTHER}
    for group in groups:
        listed.update(group.split() if type(group) is str else map(str, group))
    return frozenset(listed)


_MODES: Final = _words(RelayMode)
_NATS: Final = _words(NatMapping)
_PROFILES: Final = _words(HandshakeProfile)

CONNECTION_ENDS: Final = _words(
    "idle_timeout handshake_timeout internal_error no_viable_path application alert_other",
    (code.name.lower() for code in ApplicationErrorCode),
    (code.name.lower() for code in TransportErrorCode),
    (f"alert_{alert.name}" for alert in AlertDescription),
)
"""How connections end, and handshakes that began (``workers.outcome``)."""

EXTENSION_FRAMES: Final = (
    frames.ObservedAddress,
    frames.AddAddress,
    frames.PunchMeNow,
    frames.RemoveAddress,
    frames.TryConnectTo,
    frames.TryConnectToResponse,
    frames.AckFrequency,
    frames.ImmediateAck,
)

_DROPS: Final = _words(
    # Received, for nobody.
    "truncated stray_malformed stray_queue_full not_quic header_malformed not_initial initial_too_small dcid_too_short",
    "initial_undecryptable handshake_datagrams draining address_rate prefix_rate",
    "unknown_connection_id too_short_for_reset reset_rate undecryptable key_unavailable",
    # Not sent.
    "above_link_mtu send_error send_queue_full answer_blocked datagram_frame_above_mtu",
    "echo_datagram_too_large echo_queue_full echo_message_too_long",
)

_RELAY_DROPS: Final = _words(
    # Channels.
    "above_link_mtu send_error blocked session_rate node_rate bind_malformed bind_rate bind_collision bad_mac",
    "bind_unproven replayed_bind unbound_source other_leg_unbound other_slot unexpected_kind unknown_channel",
    "unknown_channel_unanswered",
    # Streams.
    "address_family frame_malformed new_targets queue_full rate socket_full",
    (verdict for verdict in TargetVerdict if verdict is not TargetVerdict.ALLOWED),
)

VALUES: Final[Mapping[str, tuple[Words, ...]]] = {
    "build_info": (
        frozenset((__version__,)),
        frozenset((f"{version_info.major}.{version_info.minor}.{version_info.micro}",)),
        _words("liboqs cryptography none"),
    ),
    "handshakes": (_PROFILES,),
    "handshake_duration_s": (_PROFILES,),
    "handshake_failures": (CONNECTION_ENDS | {"max_connections"},),
    "connections_closed": (CONNECTION_ENDS,),
    "drops": (_DROPS,),
    "tokens": (_words("valid invalid foreign"),),
    "extension_frames_received": (
        _words(
            (kind.__name__ for kind in EXTENSION_FRAMES),
            (f"{kind.__name__}_ignored" for kind in EXTENSION_FRAMES),
        ),
    ),
    "coordinations": (
        _words(
            "accepted self_target unknown_target expired rate_limited unauthenticated internal_error",
            "malformed not_a_request forged_initiator",
        ),
    ),
    "introductions_limited": (_words("initiator target target_share unproven_address"),),
    "introductions": (_words("direct relayed"),),
    "hole_punches": (_words("successful failed"), _NATS, _NATS),
    "hole_punches_unknown": (_words("relay_held none"),),
    "punch_reports": (_words("malformed unauthenticated rate_limited hub_busy", "counted repeated not_introduced"),),
    "relay_sessions": (_MODES,),
    "relay_sessions_opened": (_MODES,),
    "relay_sessions_closed": (_MODES, _words(RelayEnd, Refusal)),
    "relay_refusals": (_MODES, _words(Refusal, RelayEnd)),
    "relay_bytes": (_MODES,),
    "relay_datagrams": (_MODES,),
    "relay_drops": (_MODES, _RELAY_DROPS),
    "relay_canaries": (_MODES, _words("ok failed")),
    "relay_canary_latency_s": (_MODES,),
    "channel_messages": (
        _words(
            "request answer closed unexpected malformed unauthenticated undeclared rate_limited hub_busy",
            "peer_gone answer_blocked",
        ),
    ),
    "worker_restarts": (_words("boot crashed frozen late protocol channel"),),
}
"""By metric, in the order of its labels."""
