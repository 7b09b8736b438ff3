"""Wire numbers: unique per registry, each with its source, and the ones both sides must agree on."""

import re
from enum import IntEnum
from pathlib import Path

import pytest
from aioquic import tls
from aioquic.quic.packet import QuicErrorCode

from antquic_server.protocol import codepoints
from antquic_server.protocol.codepoints import (
    ApplicationErrorCode,
    CertificateType,
    FrameType,
    NamedGroup,
    SignatureScheme,
    TlsExtensionType,
    TransportErrorCode,
    TransportParameterId,
    TryConnectToError,
)

REGISTRIES: list[type[IntEnum]] = [getattr(codepoints, name) for name in codepoints.__all__]


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.__name__)
def test_each_number_has_one_name(registry: type[IntEnum]) -> None:
    """An alias would be a number with two meanings."""
    assert len(registry.__members__) == len(set(registry.__members__.values()))


def test_each_member_names_its_source() -> None:
    """A number without a source cannot be checked by the next reader."""
    text = Path(codepoints.__file__).read_text(encoding="utf-8")
    members = [line for line in text.splitlines() if re.match(r"    [A-Z][A-Z0-9_]* = ", line)]
    assert len(members) == sum(len(registry) for registry in REGISTRIES)
    for line in members:
        assert re.search(r"  # (RFC \d|draft-|ant-quic|antquic-server: )", line), line


@pytest.mark.parametrize(
    ("member", "number"),
    [
        (NamedGroup.ML_KEM_768, 0x0201),
        (NamedGroup.X25519_ML_KEM_768, 0x11EC),
        (SignatureScheme.ML_DSA_65, 0x0905),
        (CertificateType.RAW_PUBLIC_KEY, 2),
        (TlsExtensionType.CLIENT_CERTIFICATE_TYPE, 19),
        (TlsExtensionType.SERVER_CERTIFICATE_TYPE, 20),
        (FrameType.ADD_ADDRESS_IPV4, 0x3D7E90),
        (FrameType.PUNCH_ME_NOW_IPV4, 0x3D7E92),
        (FrameType.REMOVE_ADDRESS, 0x3D7E94),
        (FrameType.TRY_CONNECT_TO_IPV4, 0x3D7E95),
        (FrameType.TRY_CONNECT_TO_RESPONSE_IPV6, 0x3D7E98),
        (FrameType.OBSERVED_ADDRESS_IPV4, 0x9F81A6),
        (FrameType.OBSERVED_ADDRESS_IPV6, 0x9F81A7),
        (TransportParameterId.NAT_TRAVERSAL, 0x3D7E9F0BCA12FEA6),
        (TransportParameterId.RFC_NAT_TRAVERSAL, 0x3D7E9F0BCA12FEA8),
        (TransportParameterId.ADDRESS_DISCOVERY, 0x9F81A176),
        (ApplicationErrorCode.SUPERSEDED, 0x4E5B00),
        (ApplicationErrorCode.PEER_SHUTDOWN, 0x4E5B02),
        (TryConnectToError.INTERNAL, 255),
    ],
    ids=str,
)
def test_number_is_the_one_real_peers_use(member: IntEnum, number: int) -> None:
    """These decide whether a real peer understands us."""
    assert member == number


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (NamedGroup, tls.Group),
        (SignatureScheme, tls.SignatureAlgorithm),
        (TlsExtensionType, tls.ExtensionType),
        (TransportErrorCode, QuicErrorCode),
    ],
    ids=lambda registry: registry.__name__,
)
def test_shared_names_have_the_numbers_of_the_quic_stack(ours: type[IntEnum], theirs: type[IntEnum]) -> None:
    """Two independent transcriptions of a registry agree wherever they use the same name."""
    shared = ours.__members__.keys() & theirs.__members__.keys()
    assert len(shared) >= 3
    for name in shared:
        assert ours[name] == theirs[name], name
