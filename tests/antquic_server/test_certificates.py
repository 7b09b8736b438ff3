"""X.509 certificates: the one made at start, and those an operator configures."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from aioquic.tls import Context
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from antquic_server.certificates import load_certificate, self_signed_certificate
from antquic_server.errors import CertificateError, ExitCode

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])


def certify(key: Any) -> bytes:
    """Make a self-signed certificate for any kind of key."""
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(NAME, NAME, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


def pem(key: Any, encryption: KeySerializationEncryption | None = None) -> bytes:
    """Encode a private key as PKCS #8."""
    encoded: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return encoded


def algorithms(key: Any) -> list[Any]:
    """Return the signature algorithms aioquic has for a key."""
    context = Context(is_client=False)
    context.certificate_private_key = key
    return context._signature_algorithms_for_private_key()


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key on disk."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate_pem, key_pem = self_signed_certificate("node")
    certificate.write_bytes(certificate_pem)
    key.write_bytes(key_pem)
    return certificate, key


def refusal(certificate: Path, key: Path) -> str:
    """Return the one line with which a pair is refused."""
    with pytest.raises(CertificateError) as caught:
        load_certificate(certificate, key)
    assert caught.value.exit_code is ExitCode.CANNOT_BOOT
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_self_signed_certificate_is_for_this_machine_and_outlives_a_run() -> None:
    """ECDSA P-256, localhost in three spellings, valid now and for ten years, no authority."""
    certificate_pem, key_pem = self_signed_certificate("antquic-server")
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    key = load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert certificate.public_key() == key.public_key()
    assert certificate.subject == certificate.issuer
    assert certificate.subject.rfc4514_string() == "CN=antquic-server"
    certificate.verify_directly_issued_by(certificate)
    now = datetime.now(UTC)
    assert certificate.not_valid_before_utc < now - timedelta(minutes=30)
    remaining = certificate.not_valid_after_utc - now
    assert timedelta(days=3649) < remaining <= timedelta(days=3650)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [IPv4Address("127.0.0.1"), IPv6Address("::1")]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_self_signed_certificate_is_taken_by_openssl(paths: tuple[Path, Path]) -> None:
    """A TLS library other than the one that made it loads the pair."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*paths)


def test_self_signed_certificates_differ() -> None:
    """Each start has a key of its own."""
    assert self_signed_certificate("a")[1] != self_signed_certificate("a")[1]


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_common_name_of_impossible_length_is_refused(name: str) -> None:
    """X.509 allows 1 to 64 characters."""
    with pytest.raises(CertificateError, match="expected 1 to 64 characters"):
        self_signed_certificate(name)


def test_matching_pair_is_returned_as_it_is(paths: tuple[Path, Path]) -> None:
    """The files' bytes are handed on."""
    assert load_certificate(*paths) == (paths[0].read_bytes(), paths[1].read_bytes())


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        ed448.Ed448PrivateKey.generate(),
    ],
    ids=lambda key: type(key).__name__,
)
def test_kinds_of_key_that_tls_signs_with(tmp_path: Path, key: Any) -> None:
    """RSA, ECDSA on P-256 and P-384, Ed25519 and Ed448 are accepted, and aioquic signs with each."""
    certificate_path, key_path = tmp_path / "c", tmp_path / "k"
    certificate_path.write_bytes(certify(key))
    key_path.write_bytes(pem(key))
    load_certificate(certificate_path, key_path)
    assert algorithms(key)


@pytest.mark.parametrize("curve", [ec.SECP521R1(), ec.SECP256K1(), ec.SECP224R1()], ids=lambda curve: curve.name)
def test_curve_that_aioquic_does_not_sign_with_is_refused(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    """Every handshake with such a certificate would fail, so the node does not start with it."""
    key = ec.generate_private_key(curve)
    certificate_path, key_path = tmp_path / "c", tmp_path / "k"
    certificate_path.write_bytes(certify(key))
    key_path.write_bytes(pem(key))
    assert algorithms(key) == []
    expected = f"{key_path}: unsupported curve {curve.name}, expected P-256 or P-384"
    assert refusal(certificate_path, key_path) == expected


def test_rsa_key_that_no_client_takes_is_refused(tmp_path: Path) -> None:
    """1024 bits are below what any client accepts."""
    key = rsa.generate_private_key(65537, 1024)
    certificate_path, key_path = tmp_path / "c", tmp_path / "k"
    certificate_path.write_bytes(certify(key))
    key_path.write_bytes(pem(key))
    assert refusal(certificate_path, key_path) == f"{key_path}: RSA key of 1024 bits, expected at least 2048"


def test_kind_of_key_that_tls_does_not_know_is_refused(tmp_path: Path) -> None:
    """A DSA pair is a pair, but no TLS 1.3 server can use it."""
    key = dsa.generate_private_key(2048)
    certificate_path, key_path = tmp_path / "c", tmp_path / "k"
    certificate_path.write_bytes(certify(key))
    key_path.write_bytes(pem(key))
    assert refusal(certificate_path, key_path).startswith(f"{key_path}: unsupported kind of key")


def test_leaf_of_a_chain_must_match(paths: tuple[Path, Path]) -> None:
    """In a chain file the first certificate counts; in the wrong order the key does not match."""
    certificate, key = paths
    leaf, issuer = certificate.read_bytes(), certify(ed25519.Ed25519PrivateKey.generate())
    certificate.write_bytes(leaf + issuer)
    assert load_certificate(certificate, key)[0] == leaf + issuer
    certificate.write_bytes(issuer + leaf)
    assert refusal(certificate, key) == (f"{key}: not the private key of the first certificate in {certificate}")


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 100], ids=["empty", "text", "binary"])
def test_garbage_is_refused_with_the_name_of_the_file(paths: tuple[Path, Path], content: bytes) -> None:
    """Whichever of the two is broken is the one that is named."""
    certificate, key = paths
    good = certificate.read_bytes()
    certificate.write_bytes(content)
    assert refusal(certificate, key) == f"{certificate}: not a PEM certificate"
    certificate.write_bytes(good)
    key.write_bytes(content)
    assert refusal(certificate, key) == f"{key}: not a PEM private key"


def test_files_in_each_others_place_are_refused(paths: tuple[Path, Path]) -> None:
    """Exchanging the two is a common slip."""
    certificate, key = paths
    assert refusal(key, certificate) == f"{key}: not a PEM certificate"


def test_missing_files_are_refused(paths: tuple[Path, Path], tmp_path: Path) -> None:
    """A file that is not there is named with the reason."""
    missing = tmp_path / "missing.pem"
    assert refusal(missing, paths[1]) == f"{missing}: cannot read it: No such file or directory"
    assert refusal(paths[0], missing) == f"{missing}: cannot read it: No such file or directory"
    assert refusal(paths[0], tmp_path) == f"{tmp_path}: cannot read it: Is a directory"


def test_huge_file_is_refused(paths: tuple[Path, Path]) -> None:
    """Nobody's certificate is larger than a megabyte."""
    paths[0].write_bytes(bytes((1 << 20) + 1))
    assert "larger than" in refusal(*paths)


def test_encrypted_key_is_refused(paths: tuple[Path, Path]) -> None:
    """There is nobody to ask for a passphrase."""
    key = load_pem_private_key(paths[1].read_bytes(), None)
    paths[1].write_bytes(pem(key, BestAvailableEncryption(b"secret")))
    assert refusal(*paths) == f"{paths[1]}: the private key is encrypted, which is not supported"
