"""
X.509 certificates for clients that do not speak raw public keys.

Either the operator configures one (``tls.certificate`` and ``tls.private_key``), or the node makes a
self-signed one at each start: such clients get encryption, and verify us by other means or not at all.
"""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from antquic_server.errors import CertificateError

__all__ = ["load_certificate", "self_signed_certificate"]

_LIFETIME = timedelta(days=3650)
"""Longer than any node runs: it is made at the start, and one that expires under a running node helps nobody."""
_CLOCK_SKEW = timedelta(hours=1)
"""A client whose clock is behind ours must not see a certificate from the future."""
_MAX_COMMON_NAME_CHARACTERS = 64  # RFC 5280, appendix A.1: ub-common-name
_MAX_FILE_BYTES = 1 << 20
_MIN_RSA_BITS = 2048
"""Clients take no less: not browsers, and not OpenSSL at its default security level."""


def self_signed_certificate(common_name: str) -> tuple[bytes, bytes]:
    """
    Make a self-signed ECDSA P-256 certificate, valid for 10 years, for ``localhost``, 127.0.0.1 and ::1.

    Returns:
        The certificate and its private key (PKCS #8), both PEM.

    Raises:
        CertificateError: The common name is empty or longer than 64 characters.
    """
    if not 1 <= len(common_name) <= _MAX_COMMON_NAME_CHARACTERS:
        raise CertificateError(f"common name {common_name!r}: expected 1 to {_MAX_COMMON_NAME_CHARACTERS} characters")
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    alternative_names = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(IPv4Address("127.0.0.1")),
            x509.IPAddress(IPv6Address("::1")),
        ]
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(alternative_names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_certificate(certificate_path: Path, key_path: Path) -> tuple[bytes, bytes]:
    """
    Read the configured certificate chain (leaf first) and its private key.

    Returns:
        Both files as they are, in PEM.

    Raises:
        CertificateError: A file cannot be read or parsed, the key is encrypted or of a kind TLS here cannot
            sign with (RSA of at least 2048 bits, ECDSA on P-256 or P-384, Ed25519 and Ed448 are fine), or it is not
            the key of the first certificate.
    """
    chain_pem = _read(certificate_path)
    key_pem = _read(key_path)
    try:
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
        certified = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise CertificateError(f"{certificate_path}: not a PEM certificate") from exc
    key = _parse_key(key_path, key_pem)
    if key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != certified:
        raise CertificateError(f"{key_path}: not the private key of the first certificate in {certificate_path}")
    return chain_pem, key_pem


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise CertificateError(f"{path}: cannot read it: {exc.strerror}") from exc
    if len(content) > _MAX_FILE_BYTES:
        raise CertificateError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
    return content


def _parse_key(path: Path, content: bytes) -> PrivateKeyTypes:
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as exc:
        raise CertificateError(f"{path}: the private key is encrypted, which is not supported") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise CertificateError(f"{path}: not a PEM private key") from exc
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey):
        raise CertificateError(f"{path}: unsupported kind of key, expected RSA, ECDSA, Ed25519 or Ed448")
    # aioquic has no signature algorithm for other curves: every handshake with the certificate would fail.
    if isinstance(key, EllipticCurvePrivateKey) and not isinstance(key.curve, SECP256R1 | SECP384R1):
        raise CertificateError(f"{path}: unsupported curve {key.curve.name}, expected P-256 or P-384")
    if isinstance(key, RSAPrivateKey) and key.key_size < _MIN_RSA_BITS:
        raise CertificateError(f"{path}: RSA key of {key.key_size} bits, expected at least {_MIN_RSA_BITS}")
    return key
