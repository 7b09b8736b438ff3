"""Tests of the message that tells a node how a hole punch has ended."""

import pytest

from antquic_server.errors import CoordinationDecodeError
from antquic_server.protocol.address_discovery import Mapping
from antquic_server.protocol.punch_report import (
    MAX_MESSAGE_BYTES,
    PREFIX,
    PunchReport,
    decode_punch_report_untrusted,
    encode_punch_report,
)

OTHER = bytes(range(32))


def test_layout_is_as_written() -> None:
    """Prefix, the other side's peer id, outcome, NAT: what docs/wire.md says, byte for byte."""
    report = PunchReport(other=OTHER, succeeded=True, nat_mapping=Mapping.DEPENDENT)

    assert encode_punch_report(report) == b"AQPR\x01" + OTHER + b"\x01\x02"
    assert MAX_MESSAGE_BYTES == 39


@pytest.mark.parametrize("succeeded", [True, False])
@pytest.mark.parametrize("mapping", list(Mapping))
def test_every_report_can_be_read_back(succeeded: bool, mapping: Mapping) -> None:
    """Both outcomes, every mapping; the numbers of the mappings are fixed."""
    report = PunchReport(other=OTHER, succeeded=succeeded, nat_mapping=mapping)
    data = encode_punch_report(report)

    assert decode_punch_report_untrusted(data) == report
    assert data[-1] == {"unknown": 0, "endpoint_independent": 1, "dependent": 2}[mapping]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PREFIX,
        PREFIX + OTHER + b"\x01",
        PREFIX + OTHER + b"\x01\x00\x00",
        PREFIX + OTHER + b"\x02\x00",
        PREFIX + OTHER + b"\x01\x03",
        b"AQPR\x02" + OTHER + b"\x01\x00",
        b"AQCC\x01" + OTHER + b"\x01\x00",
    ],
    ids=["empty", "prefix only", "short", "long", "outcome", "mapping", "version", "another kind"],
)
def test_anything_else_is_refused(data: bytes) -> None:
    """There is one length, and no byte without a meaning."""
    with pytest.raises(CoordinationDecodeError, match="punch report"):
        decode_punch_report_untrusted(data)
