"""Tests of ``antquic_server.protocol.seam.client_tls``: what our client refuses of a server, and what it imitates."""

from collections.abc import Callable
from typing import Any

import pytest
from aioquic import tls
from aioquic.buffer import Buffer

from antquic_server.protocol.codepoints import NamedGroup, SignatureScheme, TlsExtensionType
from antquic_server.protocol.profiles import Authentication, HandshakeProfile
from antquic_server.protocol.seam import server_tls
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.tls_context import HELLO_RETRY_REQUEST_RANDOM
from support.pair import Pair, client_connection, edited_hello, node_key, pool, server_connection

ML_KEM = NamedGroup.ML_KEM_768
HYBRID = NamedGroup.X25519_ML_KEM_768
X25519 = NamedGroup.X25519

ANT_QUIC = HandshakeProfile.ANT_QUIC
RAW_PUBLIC_KEY = HandshakeProfile.RAW_PUBLIC_KEY
X509 = HandshakeProfile.X509

ILLEGAL_PARAMETER = 0x100 + 47
BAD_CERTIFICATE = 0x100 + 42
DECRYPT_ERROR = 0x100 + 51
UNSUPPORTED_EXTENSION = 0x100 + 110


def closed_by_client(client: NodeQuicConnection) -> int | None:
    """Run a handshake that the client refuses; return the code with which it closed."""
    pair = Pair(client).connect()
    assert pair.run(lambda: any(pair.closing), 30.0), pair.describe()
    assert pair.closing == (True, False), f"it was the server that closed: {pair.describe()}"
    assert pair.run(lambda: pair.both_closed, 30.0), pair.describe()
    assert not pair.server.handshake_complete
    return client.close_code


def sent_hellos(client: NodeQuicConnection) -> list[tls.ClientHello]:
    """Connect and return the ClientHellos that went out."""
    hellos: list[tls.ClientHello] = []
    with edited_hello(lambda hello, _number: hellos.append(hello)):
        Pair(client).handshake()
    return hellos


def edited_server_hello(monkeypatch: pytest.MonkeyPatch, edit: Callable[[tls.ServerHello], None]) -> None:
    """Let ``edit`` change what the server says in its ServerHello or HelloRetryRequest."""
    push = tls.push_server_hello

    def push_edited(buf: Buffer, hello: tls.ServerHello) -> None:
        edit(hello)
        push(buf, hello)

    monkeypatch.setattr(tls, "push_server_hello", push_edited)


@pytest.mark.parametrize("profile", [ANT_QUIC, RAW_PUBLIC_KEY])
def test_pinned_key_matches(profile: HandshakeProfile) -> None:
    """A client that expects the server's key gets its connection."""
    client = client_connection(profile=profile, expected_public_key=node_key("server").public_key)
    assert Pair(client).handshake().client.peer_public_key == node_key("server").public_key


@pytest.mark.parametrize("profile", [ANT_QUIC, RAW_PUBLIC_KEY])
@pytest.mark.parametrize("expected", [node_key("somebody else").public_key, b"", b"x"])
def test_pinned_key_differs(profile: HandshakeProfile, expected: bytes) -> None:
    """A server with another key is refused with bad_certificate, before the client shows its own."""
    client = client_connection(profile=profile, expected_public_key=expected)
    assert closed_by_client(client) == BAD_CERTIFICATE


@pytest.mark.parametrize(
    ("profile", "types"),
    [
        (ANT_QUIC, {TlsExtensionType.CLIENT_CERTIFICATE_TYPE: b"\x01\x02"}),
        (
            RAW_PUBLIC_KEY,
            {
                TlsExtensionType.CLIENT_CERTIFICATE_TYPE: b"\x01\x02",
                TlsExtensionType.SERVER_CERTIFICATE_TYPE: b"\x01\x02",
            },
        ),
        (X509, {}),
    ],
)
def test_hello_imitates_the_profile(profile: HandshakeProfile, types: dict[int, bytes]) -> None:
    """Each profile offers exactly the certificate types its clients offer."""
    (hello,) = sent_hellos(client_connection(profile=profile))
    offered = {
        kind: value
        for kind, value in hello.other_extensions
        if kind in (TlsExtensionType.CLIENT_CERTIFICATE_TYPE, TlsExtensionType.SERVER_CERTIFICATE_TYPE)
    }
    assert offered == types
    only_ml_dsa = hello.signature_algorithms == [SignatureScheme.ML_DSA_65]
    assert only_ml_dsa == (profile is not X509)


def test_hello_carries_groups_and_share_as_asked() -> None:
    """Without a share group the first group gets the share; ``share_group`` makes it another."""
    (hello,) = sent_hellos(client_connection(groups=(HYBRID, ML_KEM)))
    assert hello.supported_groups == [HYBRID, ML_KEM]
    assert [group for group, _ in hello.key_share or []] == [HYBRID]
    (hello,) = sent_hellos(client_connection(groups=(HYBRID, ML_KEM), share_group=ML_KEM))
    assert [group for group, _ in hello.key_share or []] == [ML_KEM]


def test_second_hello_changes_the_share_only() -> None:
    """After a HelloRetryRequest everything but the share stays (RFC 8446, section 4.1.2)."""
    first, second = sent_hellos(client_connection(groups=(X25519, ML_KEM), share_group=X25519))
    assert [group for group, _ in second.key_share or []] == [ML_KEM]
    first.key_share = second.key_share
    assert first == second


@pytest.mark.parametrize(
    ("name", "expected"), [("peer", "peer"), (None, None), ("192.0.2.1", None), ("2001:db8::1", None)]
)
def test_literal_addresses_are_no_server_name(name: str | None, expected: str | None) -> None:
    """RFC 6066: SNI holds names only."""
    (hello,) = sent_hellos(client_connection(server_name=name))
    assert hello.server_name == expected


@pytest.mark.parametrize("profile", [ANT_QUIC, RAW_PUBLIC_KEY])
def test_server_signature_that_does_not_verify(profile: HandshakeProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has the key's public half only is found out."""
    sign = tls.KeySchedule.certificate_verify_data

    def other_data(schedule: tls.KeySchedule, context_string: bytes) -> bytes:
        return sign(schedule, context_string) + (b"." if next(calls) == 0 else b"")

    calls = iter(range(10))
    monkeypatch.setattr(tls.KeySchedule, "certificate_verify_data", other_data)
    assert closed_by_client(client_connection(profile=profile)) == DECRYPT_ERROR


@pytest.mark.parametrize("profile", [ANT_QUIC, RAW_PUBLIC_KEY])
def test_server_finished_that_does_not_verify(profile: HandshakeProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transcript that somebody has changed shows in Finished."""
    push = tls.push_finished
    monkeypatch.setattr(tls, "push_finished", lambda buf, _finished: push(buf, tls.Finished(verify_data=bytes(48))))
    assert closed_by_client(client_connection(profile=profile)) == DECRYPT_ERROR


@pytest.mark.parametrize("group", [ML_KEM, HYBRID])
@pytest.mark.parametrize("change", [lambda share: share[:-1], lambda share: share + b"\x00", lambda share: b"\x00"])
def test_malformed_server_share(group: int, change: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server share of the wrong length is an illegal_parameter, and no private key is left behind."""

    def edit(hello: tls.ServerHello) -> None:
        assert hello.key_share is not None
        hello.key_share = (hello.key_share[0], change(hello.key_share[1]))

    edited_server_hello(monkeypatch, edit)
    in_use = pool().in_use
    assert closed_by_client(client_connection(groups=(group,))) == ILLEGAL_PARAMETER
    assert pool().in_use == in_use


def test_share_for_a_group_we_sent_none_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ServerHello must answer the share we sent."""

    def edit(hello: tls.ServerHello) -> None:
        hello.key_share = (X25519, bytes([9]) + bytes(31))

    edited_server_hello(monkeypatch, edit)
    assert closed_by_client(client_connection()) == ILLEGAL_PARAMETER


@pytest.mark.parametrize(
    ("group", "code"),
    [
        (HYBRID, ILLEGAL_PARAMETER),  # we have sent a share for it already
        (NamedGroup.SECP384R1, ILLEGAL_PARAMETER),  # we have not offered it
        (None, ILLEGAL_PARAMETER),  # it asks for nothing
    ],
)
def test_retry_request_that_makes_no_sense(group: int | None, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A HelloRetryRequest has to ask for a share that can be given and is missing."""

    def edit(hello: tls.ServerHello) -> None:
        hello.random = HELLO_RETRY_REQUEST_RANDOM
        hello.key_share = None
        hello.other_extensions = [] if group is None else [(tls.ExtensionType.KEY_SHARE, group.to_bytes(2, "big"))]

    edited_server_hello(monkeypatch, edit)
    assert closed_by_client(client_connection(groups=(HYBRID, ML_KEM))) == code


def test_second_retry_request_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8446, section 4.1.4: at most one HelloRetryRequest."""
    asked = iter([HYBRID, ML_KEM])

    def edit(hello: tls.ServerHello) -> None:
        hello.random = HELLO_RETRY_REQUEST_RANDOM
        hello.key_share = None
        hello.other_extensions = [(tls.ExtensionType.KEY_SHARE, int(next(asked)).to_bytes(2, "big"))]

    edited_server_hello(monkeypatch, edit)
    client = client_connection(groups=(X25519, ML_KEM, HYBRID), share_group=X25519)
    assert closed_by_client(client) == 0x100 + 10


@pytest.mark.parametrize(
    ("profile", "extension", "code"),
    [
        # An ant-quic server must not answer server_certificate_type, which was not offered.
        (ANT_QUIC, (TlsExtensionType.SERVER_CERTIFICATE_TYPE, b"\x02"), UNSUPPORTED_EXTENSION),
        (X509, (TlsExtensionType.CLIENT_CERTIFICATE_TYPE, b"\x02"), UNSUPPORTED_EXTENSION),
        (RAW_PUBLIC_KEY, (TlsExtensionType.SERVER_CERTIFICATE_TYPE, b"\x00"), ILLEGAL_PARAMETER),
        (RAW_PUBLIC_KEY, (TlsExtensionType.CLIENT_CERTIFICATE_TYPE, b"\x01\x02"), ILLEGAL_PARAMETER),
    ],
)
def test_certificate_type_answers_are_checked(
    profile: HandshakeProfile, extension: tuple[int, bytes], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may answer only what was offered, with the one type that was."""
    push = tls.push_encrypted_extensions

    def push_more(buf: Buffer, extensions: tls.EncryptedExtensions) -> None:
        others = [item for item in extensions.other_extensions if item[0] != extension[0]]
        extensions.other_extensions = [*others, extension]
        push(buf, extensions)

    monkeypatch.setattr(tls, "push_encrypted_extensions", push_more)
    assert closed_by_client(client_connection(profile=profile)) == code


def test_x509_server_is_no_ant_quic_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that expects a raw key refuses a certificate chain."""

    def as_x509(*_: Any) -> Authentication:
        return Authentication(
            profile=X509,
            answer_client_certificate_type=False,
            answer_server_certificate_type=False,
            request_client_certificate=False,
            require_client_certificate=False,
        )

    monkeypatch.setattr(server_tls, "choose_authentication", as_x509)
    monkeypatch.setattr(server_tls.ServerTlsContext, "_signature_algorithm", lambda *_: tls.SignatureAlgorithm(0x0403))
    assert closed_by_client(client_connection()) == BAD_CERTIFICATE


def test_client_asked_without_having_offered_sends_an_empty_certificate() -> None:
    """An anonymous client answers a CertificateRequest with an empty list, and the server decides."""
    client = client_connection(profile=RAW_PUBLIC_KEY, without_key=True)
    pair = Pair(client, server_connection).handshake()
    assert pair.server.peer_public_key is None
