"""OpenSSL 3.5 as a client: every profile it can speak, and what it must refuse."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from antquic_server.protocol.codepoints import NamedGroup, SignatureScheme
from antquic_server.protocol.raw_public_key import peer_id
from support.client_process import HoldClient, RunClient
from support.node import Node, StartNode
from support.waiting import wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.peers]

RAW_KEY = ("--rpk", "--sigalgs", "mldsa65")
ECHO = ("--echo-bytes", "300000")
HANDSHAKE_FAILURE = 40
BAD_CERTIFICATE_ALERTS = {42, 43, 46, 48}
"""bad_certificate, unsupported_certificate, certificate_unknown, unknown_ca (RFC 8446, section 6.2)."""

EVERY_GROUP = pytest.mark.parametrize(
    ("name", "group"),
    [
        pytest.param("MLKEM768", NamedGroup.ML_KEM_768, id="pure"),
        pytest.param("X25519MLKEM768", NamedGroup.X25519_ML_KEM_768, id="hybrid"),
    ],
)


@EVERY_GROUP
def test_client_with_raw_public_keys_completes_and_echoes(
    echo_node: Node, openssl_client: RunClient, name: str, group: NamedGroup
) -> None:
    """Either group goes with the node's ML-DSA-65 raw public key, and a stream comes back whole."""
    result = openssl_client(echo_node.port, "--groups", name, *RAW_KEY, *ECHO)

    assert result.ok, result.facts
    assert result.group == group
    assert result.signature_scheme == SignatureScheme.ML_DSA_65
    assert result.certificate_type == "raw_public_key"
    assert result.peer_public_key == echo_node.public_key_info.hex()
    assert result.alpn == "test"
    assert result.echoed_bytes == 300000
    assert not result.hello_retry_request


def test_client_without_raw_public_keys_gets_a_certificate(echo_node: Node, openssl_client: RunClient) -> None:
    """An ordinary client is served with the hybrid group and an X.509 certificate."""
    result = openssl_client(echo_node.port, "--groups", "X25519MLKEM768", *ECHO)

    assert result.ok, result.facts
    assert result.group == NamedGroup.X25519_ML_KEM_768
    assert result.certificate_type == "x509"
    assert result.echoed_bytes == 300000


@EVERY_GROUP
def test_client_that_pins_our_key_accepts_us(
    echo_node: Node, openssl_client: RunClient, name: str, group: NamedGroup
) -> None:
    """OpenSSL, verifying, finds the pinned key in our handshake."""
    pin = echo_node.public_key_info.hex()

    result = openssl_client(echo_node.port, "--groups", name, *RAW_KEY, "--expect-rpk", pin)

    assert result.ok, result.facts
    assert result.group == group
    assert result.facts["verify_ok"]


def test_client_that_pins_another_key_refuses_us(echo_node: Node, openssl_client: RunClient) -> None:
    """The client itself ends the handshake with a certificate alert, and the node serves the next one."""
    another = MLDSA65PrivateKey.generate().public_key()
    pin = another.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()

    refused = openssl_client(echo_node.port, "--groups", "MLKEM768", *RAW_KEY, "--expect-rpk", pin)
    served = openssl_client(echo_node.port, "--groups", "MLKEM768", *RAW_KEY)

    assert not refused.ok
    assert refused.closed_by_peer is False
    assert refused.alert in BAD_CERTIFICATE_ALERTS
    assert not refused.facts["verify_ok"]
    assert served.ok, served.facts


@EVERY_GROUP
def test_node_knows_the_peer_that_authenticates_with_a_raw_key(
    echo_node: Node, held_openssl_client: HoldClient, tmp_path: Path, name: str, group: NamedGroup
) -> None:
    """With raw keys both ways the directory has the client's peer id while it is connected, and not after."""
    key = MLDSA65PrivateKey.generate()
    pem = tmp_path / "client.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    client_id = peer_id(key.public_key().public_bytes_raw()).hex()

    with held_openssl_client(echo_node.port, "--groups", name, *RAW_KEY, "--client-key", str(pem), *ECHO) as result:
        assert result.ok, result.facts
        assert result.group == group
        assert result.facts["client_certificate_type"] == "raw_public_key"
        wait_until(lambda: echo_node.peer(client_id), timeout_s=15.0, what="directory entry")

    wait_until(lambda: not echo_node.peer(client_id), timeout_s=15.0, what="removal from the directory")


@EVERY_GROUP
@pytest.mark.parametrize("key", [pytest.param(RAW_KEY, id="raw-key"), pytest.param((), id="x509")])
def test_client_with_the_wrong_share_is_asked_again(
    echo_node: Node, openssl_client: RunClient, name: str, group: NamedGroup, key: tuple[str, ...]
) -> None:
    """A client that lists a post-quantum group but sends an X25519 share completes after a HelloRetryRequest."""
    result = openssl_client(echo_node.port, "--groups", f"*X25519:{name}", *key, *ECHO)

    assert result.ok, result.facts
    assert result.hello_retry_request
    assert result.group == group
    assert result.echoed_bytes == 300000


def test_classical_client_is_refused_with_handshake_failure(echo_node: Node, openssl_client: RunClient) -> None:
    """Without a post-quantum group there is nothing to agree on: the node says so with alert 40."""
    refused = openssl_client(echo_node.port, "--groups", "X25519:P-256")
    served = openssl_client(echo_node.port, "--groups", "X25519MLKEM768", *ECHO)

    assert not refused.ok
    assert refused.closed_by_peer
    assert refused.alert == HANDSHAKE_FAILURE
    assert served.ok, served.facts


@pytest.mark.parametrize("key", [pytest.param(RAW_KEY, id="raw-key"), pytest.param((), id="x509")])
def test_client_may_offer_any_protocol_where_none_is_configured(
    start_node: StartNode, openssl_client: RunClient, key: tuple[str, ...]
) -> None:
    """A node without configuration takes what the client offers: QUIC clients with ALPN insist on an answer."""
    node = start_node(echo=True)

    result = openssl_client(node.port, "--groups", "X25519MLKEM768", *key, "--alpn", "anything", "--echo-bytes", "1000")

    assert result.ok, result.facts
    assert result.alpn == "anything"
    assert result.echoed_bytes == 1000
