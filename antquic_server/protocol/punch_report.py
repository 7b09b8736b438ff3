"""
How a hole punch has ended: one message of a peer of ours to the node that introduced it.

One unidirectional stream, whole: ``AQPR``, a version byte, then fields of fixed length, and the end of the stream::

    peer id of the other side   32 bytes
    outcome                     1 byte: 0 failed, 1 successful
    NAT of the sender           1 byte: 0 unknown, 1 the same address for everybody, 2 another for each destination

It is sent only to nodes that have declared the transport parameter ``relay_channels``, which ant-quic does not know.
The node answers nothing, and believes it only of a peer that it has introduced to that other (``supervisor.punches``).
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from antquic_server.errors import CoordinationDecodeError
from antquic_server.protocol.address_discovery import Mapping

__all__ = ["MAX_MESSAGE_BYTES", "PREFIX", "PunchReport", "decode_punch_report_untrusted", "encode_punch_report"]

PREFIX: Final = b"AQPR\x01"
PEER_ID_BYTES: Final = 32

_FIELDS: Final = Struct(f">{PEER_ID_BYTES}sBB")
MAX_MESSAGE_BYTES: Final = len(PREFIX) + _FIELDS.size

_MAPPINGS: Final = (Mapping.UNKNOWN, Mapping.ENDPOINT_INDEPENDENT, Mapping.DEPENDENT)
"""By their byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PunchReport:
    """The sender was introduced to ``other`` (a peer id, 32 bytes), and does or does not have a direct connection."""

    other: bytes
    succeeded: bool
    nat_mapping: Mapping


def decode_punch_report_untrusted(data: bytes) -> PunchReport:
    """
    Read one whole message.

    Raises:
        CoordinationDecodeError: Another length or version, or a byte that has no meaning.
    """
    if not data.startswith(PREFIX) or len(data) != MAX_MESSAGE_BYTES:
        raise CoordinationDecodeError(f"punch report of {len(data)} bytes, expected {MAX_MESSAGE_BYTES}")
    other, outcome, mapping = _FIELDS.unpack_from(data, len(PREFIX))
    if outcome > 1 or mapping >= len(_MAPPINGS):
        raise CoordinationDecodeError(f"punch report with outcome {outcome} and NAT {mapping}")
    return PunchReport(other=other, succeeded=bool(outcome), nat_mapping=_MAPPINGS[mapping])


def encode_punch_report(report: PunchReport) -> bytes:
    """Write one whole message, ready for a stream of its own."""
    return PREFIX + _FIELDS.pack(report.other, report.succeeded, _MAPPINGS.index(report.nat_mapping))
