"""Tests of ``antquic_server.protocol.seam.server_tls`` through whole handshakes in memory."""

from collections.abc import Callable
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic.events import HandshakeCompleted

from antquic_server.protocol.codepoints import NamedGroup, TlsExtensionType
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.raw_public_key import encode_subject_public_key_info
from antquic_server.protocol.seam import tls_context
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.server_tls import ServerTlsContext
from support.pair import (
    TERRIBLE,
    Pair,
    client_connection,
    edited_hello,
    node_key,
    pool,
    server_connection,
)

HYBRID = NamedGroup.X25519_ML_KEM_768
ML_KEM = NamedGroup.ML_KEM_768
X25519 = NamedGroup.X25519
P256 = NamedGroup.SECP256R1
P384 = NamedGroup.SECP384R1

ANT_QUIC = HandshakeProfile.ANT_QUIC
RAW_PUBLIC_KEY = HandshakeProfile.RAW_PUBLIC_KEY
X509 = HandshakeProfile.X509

ILLEGAL_PARAMETER = 0x100 + 47
HANDSHAKE_FAILURE = 0x100 + 40


def closed_by_server(pair: Pair) -> int | None:
    """Run a handshake that the server refuses; return the code with which it closed, as the client sees it."""
    pair.connect()
    assert pair.run(lambda: any(pair.closing), 30.0), pair.describe()
    assert pair.closing == (False, True), f"it was the client that closed: {pair.describe()}"
    assert pair.run(lambda: pair.both_closed, 30.0), pair.describe()
    assert not pair.server.handshake_complete
    assert not pair.events(HandshakeCompleted)
    assert pair.server.close_code == pair.client.close_code
    return pair.server.close_code


def classical_server(cid: bytes, **settings: Any) -> NodeQuicConnection:
    """A server that admits classical clients."""
    return server_connection(cid, allow_classical=True, **settings)


class DoctoredKem:
    """A client's KEM that hands out an encapsulation key somebody has changed."""

    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        self._change = change

    def generate_kem_key_pair(self) -> Any:
        """A key pair with a changed public key; the client never gets as far as to decapsulate."""
        key_pair = pool().generate_kem_key_pair()
        public_key = self._change(key_pair.public_key)
        key_pair.close()
        return type("KeyPair", (), {"public_key": public_key, "close": lambda self: None})()


@pytest.mark.parametrize("profile", [ANT_QUIC, RAW_PUBLIC_KEY, X509])
@pytest.mark.parametrize(
    ("groups", "share", "chosen", "retry"),
    [
        ((ML_KEM,), ML_KEM, ML_KEM, False),
        ((HYBRID,), HYBRID, HYBRID, False),
        ((HYBRID, ML_KEM), HYBRID, HYBRID, False),
        ((HYBRID, ML_KEM), ML_KEM, ML_KEM, False),
        ((X25519, HYBRID), X25519, HYBRID, True),
        ((X25519, ML_KEM), X25519, ML_KEM, True),
        ((P256, ML_KEM, HYBRID), P256, HYBRID, True),
    ],
)
def test_every_profile_with_every_group(
    profile: HandshakeProfile, groups: tuple[int, ...], share: int, chosen: int, retry: bool
) -> None:
    """Each profile completes with each post-quantum group, straight or after a HelloRetryRequest."""
    pair = Pair(client_connection(profile=profile, groups=groups, share_group=share)).handshake()
    assert pair.server.profile is profile
    assert pair.server.negotiated_group == pair.client.negotiated_group == chosen
    assert pair.server.hello_retry_request is pair.client.hello_retry_request is retry
    assert pair.server.server_name == "peer"
    has_node_key = profile is not X509
    assert pair.server.peer_public_key == (node_key("client").public_key if has_node_key else None)
    assert pair.client.peer_public_key == (node_key("server").public_key if has_node_key else None)


@pytest.mark.parametrize(
    ("groups", "share", "chosen"),
    [((X25519,), X25519, X25519), ((P384,), P384, P384), ((P256, X25519), P384, X25519)],
)
def test_classical_client_is_admitted_by_permission_only(groups: tuple[int, ...], share: int, chosen: int) -> None:
    """Without ML-KEM: alert handshake_failure, or a counted classical handshake where the operator wants it."""

    def client() -> NodeQuicConnection:
        return client_connection(profile=X509, groups=groups, share_group=share)

    assert closed_by_server(Pair(client())) == HANDSHAKE_FAILURE
    pair = Pair(client(), classical_server).handshake()
    assert pair.server.profile is HandshakeProfile.CLASSICAL
    assert pair.server.negotiated_group == chosen
    assert pair.server.hello_retry_request is (share != chosen)


def test_permission_does_not_talk_anybody_down() -> None:
    """A client with both kinds of groups gets the post-quantum one, also when its only share is classical."""
    client = client_connection(profile=X509, groups=(X25519, ML_KEM), share_group=X25519)
    pair = Pair(client, classical_server).handshake()
    assert pair.server.profile is X509
    assert pair.server.negotiated_group == ML_KEM


@pytest.mark.parametrize("group", [ML_KEM, HYBRID])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda key: key[:-1], id="short"),
        pytest.param(lambda key: key + b"\x00", id="long"),
        pytest.param(lambda key: b"\xff\xff\xff" + key[3:], id="coefficient-out-of-range"),
    ],
)
def test_malformed_encapsulation_key(group: int, change: Callable[[bytes], bytes]) -> None:
    """A malformed ML-KEM share is answered with illegal_parameter."""
    client = client_connection(groups=(group,), pqc=DoctoredKem(change))
    in_use = pool().in_use
    assert closed_by_server(Pair(client)) == ILLEGAL_PARAMETER
    assert pool().in_use == in_use


@pytest.mark.parametrize("group", [HYBRID, X25519])
def test_all_zero_x25519_share(group: int) -> None:
    """An X25519 share that yields zero is answered with illegal_parameter, in the hybrid as well."""

    def zero_share(hello: tls.ClientHello, _number: int) -> None:
        assert hello.key_share is not None
        hello.key_share = [(kind, share[:-32] + bytes(32)) for kind, share in hello.key_share]

    with edited_hello(zero_share):
        pair = Pair(client_connection(profile=X509, groups=(group,)), classical_server)
        assert closed_by_server(pair) == ILLEGAL_PARAMETER


def test_ant_quic_client_must_authenticate() -> None:
    """The ant-quic profile without a client key ends with certificate_required."""
    assert closed_by_server(Pair(client_connection(without_key=True))) == 0x100 + 116


def test_raw_public_key_client_may_stay_anonymous() -> None:
    """RFC 7250's own profile is content with an empty certificate."""
    pair = Pair(client_connection(profile=RAW_PUBLIC_KEY, without_key=True)).handshake()
    assert pair.server.profile is RAW_PUBLIC_KEY
    assert pair.server.peer_public_key is None


class ForgingKey:
    """Claims one public key and signs with another, or not at all."""

    def __init__(self, signature: Callable[[bytes], bytes]) -> None:
        self.public_key = node_key("client").public_key
        self.sign = signature


@pytest.mark.parametrize("profile", [ANT_QUIC, RAW_PUBLIC_KEY])
@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(lambda message: node_key("somebody else").sign(message), id="other-key"),
        pytest.param(lambda message: node_key("client").sign(message + b"."), id="other-message"),
        pytest.param(lambda message: node_key("client").sign(message)[:-1], id="short"),
        pytest.param(lambda message: b"", id="empty"),
    ],
)
def test_client_signature_that_does_not_verify(profile: HandshakeProfile, signature: Callable[[bytes], bytes]) -> None:
    """Nobody gets in under another's key: decrypt_error."""
    key: Any = ForgingKey(signature)
    assert closed_by_server(Pair(client_connection(profile=profile, key=key))) == 0x100 + 51


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda der: der[:-1], id="short"),
        pytest.param(lambda der: der + b"\x00", id="long"),
        pytest.param(lambda der: der[:20] + b"\xff" + der[21:], id="odd-header"),
        pytest.param(lambda der: b"", id="empty"),
    ],
)
def test_client_key_that_does_not_parse(change: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A SubjectPublicKeyInfo of any but the one form is a bad_certificate."""
    encode = encode_subject_public_key_info

    def encode_changed(public_key: bytes) -> bytes:
        der = encode(public_key)
        return change(der) if public_key == node_key("client").public_key else der

    monkeypatch.setattr(tls_context, "encode_subject_public_key_info", encode_changed)
    assert closed_by_server(Pair()) == 0x100 + 42


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("random", ILLEGAL_PARAMETER),
        ("group", ILLEGAL_PARAMETER),
        ("no-share", ILLEGAL_PARAMETER),
        ("two-shares", ILLEGAL_PARAMETER),
        ("suite", ILLEGAL_PARAMETER),
        ("withdrawn", HANDSHAKE_FAILURE),
    ],
)
def test_second_hello_must_answer_the_retry_request(name: str, code: int) -> None:
    """After a HelloRetryRequest only the share may change (RFC 8446, section 4.1.2)."""

    def edit(hello: tls.ClientHello, number: int) -> None:
        assert hello.key_share is not None
        assert hello.supported_groups is not None
        if number == 0:
            hello.cipher_suites = [tls.CipherSuite.AES_128_GCM_SHA256, tls.CipherSuite.AES_256_GCM_SHA384]
        elif name == "random":
            hello.random = bytes(32)
        elif name == "group":
            hello.key_share = [(ML_KEM, pool().generate_kem_key_pair().public_key)]
        elif name == "no-share":
            hello.key_share = []
        elif name == "two-shares":
            hello.key_share = [*hello.key_share, (X25519, bytes([9]) + bytes(31))]
        elif name == "suite":
            hello.cipher_suites = [tls.CipherSuite.AES_128_GCM_SHA256]
        elif name == "withdrawn":
            hello.supported_groups = [X25519]

    client = client_connection(groups=(HYBRID, ML_KEM, X25519), share_group=X25519)
    with edited_hello(edit):
        assert closed_by_server(Pair(client)) == code


def test_unchanged_second_hello_is_accepted() -> None:
    """The counterpart of the refusals above: the same edits of the first hello alone do no harm."""

    def edit(hello: tls.ClientHello, number: int) -> None:
        hello.cipher_suites = [tls.CipherSuite.AES_128_GCM_SHA256, tls.CipherSuite.AES_256_GCM_SHA384]

    client = client_connection(groups=(HYBRID, ML_KEM, X25519), share_group=X25519)
    with edited_hello(edit):
        assert Pair(client).handshake().server.hello_retry_request


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        pytest.param(lambda h: setattr(h, "cipher_suites", [0x1304]), HANDSHAKE_FAILURE, id="no-suite"),
        pytest.param(lambda h: setattr(h, "supported_versions", [0x0303]), 0x100 + 70, id="no-tls13"),
        pytest.param(lambda h: setattr(h, "legacy_compression_methods", [1]), ILLEGAL_PARAMETER, id="compressed"),
        pytest.param(lambda h: setattr(h, "legacy_session_id", bytes(32)), 0x0A, id="session-id"),
        pytest.param(
            lambda h: setattr(h, "other_extensions", [e for e in h.other_extensions if e[0] != 0x39]),
            0x100 + 109,
            id="no-transport-parameters",
        ),
        pytest.param(
            lambda h: h.other_extensions.append((TlsExtensionType.SERVER_CERTIFICATE_TYPE, b"\x03\x02")),
            0x100 + 50,
            id="malformed-certificate-types",
        ),
    ],
)
def test_hello_nobody_can_serve(edit: Callable[[tls.ClientHello], None], code: int) -> None:
    """Each flaw of a ClientHello has its own error."""
    with edited_hello(lambda hello, _number: edit(hello)):
        assert closed_by_server(Pair()) == code


def test_unknown_extensions_and_groups_are_ignored() -> None:
    """GREASE (RFC 8701) and extensions of the future do no harm."""

    def grease(hello: tls.ClientHello, _number: int) -> None:
        assert hello.supported_groups is not None
        assert hello.key_share is not None
        hello.other_extensions.insert(0, (0x0A0A, b""))
        hello.other_extensions.append((0xFAFA, bytes(7)))
        hello.supported_groups.insert(0, 0x2A2A)
        hello.key_share.insert(0, (0x2A2A, b"\x00"))
        hello.cipher_suites = [0x4A4A, *hello.cipher_suites]

    with edited_hello(grease):
        assert Pair().handshake().server.negotiated_group == ML_KEM


@pytest.mark.parametrize(
    ("server_alpn", "client_alpn", "agreed"),
    [
        (None, None, None),
        (["antquic"], None, None),
        (["antquic", "other"], ["other", "antquic"], "antquic"),
    ],
)
def test_alpn_is_negotiated_where_both_have_one(
    server_alpn: list[str] | None, client_alpn: list[str] | None, agreed: str | None
) -> None:
    """ant-quic peers offer no protocol and are served; who offers one gets one of ours."""
    client = client_connection(alpn_protocols=client_alpn)
    pair = Pair(client, lambda cid: server_connection(cid, alpn_protocols=server_alpn)).handshake()
    assert [event.alpn_protocol for event in pair.events(HandshakeCompleted)] == [agreed]


def test_no_alpn_in_common() -> None:
    """Offering only protocols we do not have ends with no_application_protocol."""
    client = client_connection(alpn_protocols=["x"])
    assert closed_by_server(Pair(client, lambda cid: server_connection(cid, alpn_protocols=["y"]))) == 0x100 + 120


def test_session_tickets_of_other_nodes_are_ignored() -> None:
    """A pre_shared_key neither resumes anything nor disturbs, and no ticket is ever given."""

    def offer_ticket(hello: tls.ClientHello, _number: int) -> None:
        hello.psk_key_exchange_modes = [tls.PskKeyExchangeMode.PSK_DHE_KE]
        hello.pre_shared_key = tls.OfferedPsks(identities=[(b"foreign ticket", 0)], binders=[bytes(32)])

    with edited_hello(offer_ticket):
        pair = Pair().handshake()
    assert not any(event.session_resumed for event in pair.events(HandshakeCompleted))
    assert pair.server.tls.early_data_accepted is False


def test_server_without_name_serves_too() -> None:
    """A client without SNI is served; there is just no name to read."""
    assert Pair(client_connection(server_name=None)).handshake().server.server_name is None


@pytest.mark.parametrize("suite", list(tls.CipherSuite)[:3])
def test_every_cipher_suite(suite: tls.CipherSuite) -> None:
    """All three suites of TLS 1.3 over QUIC complete and carry data."""
    pair = Pair(client_connection(cipher_suites=[suite])).handshake()
    context = pair.server.tls
    assert isinstance(context, ServerTlsContext)
    assert context.key_schedule is not None
    assert context.key_schedule.cipher_suite == suite


@pytest.mark.parametrize("profile", [ANT_QUIC, RAW_PUBLIC_KEY, X509])
def test_retry_request_over_a_terrible_link(profile: HandshakeProfile) -> None:
    """The longest handshake, with a HelloRetryRequest, gets through loss, repetition and reordering."""
    for seed in range(5):
        client = client_connection(profile=profile, groups=(X25519, ML_KEM), share_group=X25519)
        pair = Pair(client, link=TERRIBLE, seed=seed).handshake()
        assert pair.server.hello_retry_request
