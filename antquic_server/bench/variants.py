"""The three kinds of handshake that are compared, and the parts they are made of."""

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from antquic_server.errors import ProviderUnavailableError
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile

POOL_CONTEXTS = 10
"""The default of ``pqc.memory_pool_size``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to shake hands: key exchange, authentication, and who computes the post-quantum part."""

    name: str
    provider: str
    group: int
    profile: HandshakeProfile

    @property
    def mutual(self) -> bool:
        """Whether the client authenticates as well."""
        return self.profile is HandshakeProfile.ANT_QUIC

    @property
    def label(self) -> str:
        """Name with provider, for a row."""
        return self.name if self.provider == "-" else f"{self.name}, {self.provider}"


def available_pools() -> dict[str, PqcPool]:
    """Return a pool for every provider that works here, by name."""
    pools = {}
    for name in ("liboqs", "cryptography"):
        try:
            pools[name] = PqcPool(load_provider(name), POOL_CONTEXTS)
        except ProviderUnavailableError:
            continue
    return pools


def variants(providers: list[str]) -> list[Variant]:
    """Return classical first, then hybrid and pure with each provider."""
    found = [
        Variant(
            name="classical (X25519 + Ed25519)",
            provider="-",
            group=NamedGroup.X25519,
            profile=HandshakeProfile.CLASSICAL,
        )
    ]
    found += [
        Variant(
            name="hybrid (X25519MLKEM768 + Ed25519)",
            provider=provider,
            group=NamedGroup.X25519_ML_KEM_768,
            profile=HandshakeProfile.X509,
        )
        for provider in providers
    ]
    found += [
        Variant(
            name="pure (ML-KEM-768 + ML-DSA-65, mutual)",
            provider=provider,
            group=NamedGroup.ML_KEM_768,
            profile=HandshakeProfile.ANT_QUIC,
        )
        for provider in providers
    ]
    return found


def ed25519_certificate() -> tuple[bytes, bytes]:
    """Return a self-signed Ed25519 certificate and its key, both PEM: what the guide's classical row uses."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, None)
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
