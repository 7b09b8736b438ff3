"""The kinds of handshake that are compared."""

from aioquic.tls import load_pem_private_key, load_pem_x509_certificates
from cryptography.hazmat.primitives.asymmetric import ed25519

from antquic_server.bench.variants import available_pools, ed25519_certificate, variants
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile


def test_classical_comes_first_and_each_provider_has_both_others() -> None:
    """Ratios are taken to the first row; every provider appears with hybrid and pure."""
    found = variants(["liboqs", "cryptography"])

    assert found[0].profile is HandshakeProfile.CLASSICAL
    assert found[0].group == NamedGroup.X25519
    assert [(item.provider, item.group, item.mutual) for item in found[1:]] == [
        ("liboqs", NamedGroup.X25519_ML_KEM_768, False),
        ("cryptography", NamedGroup.X25519_ML_KEM_768, False),
        ("liboqs", NamedGroup.ML_KEM_768, True),
        ("cryptography", NamedGroup.ML_KEM_768, True),
    ]


def test_labels_are_unique() -> None:
    """A row is found again by its label."""
    labels = [item.label for item in variants(["liboqs", "cryptography"])]

    assert len(set(labels)) == len(labels)


def test_cryptography_is_always_there() -> None:
    """There is something to measure on every machine."""
    assert "cryptography" in available_pools()


def test_certificate_is_ed25519_and_fits_its_key() -> None:
    """The classical row signs with Ed25519, as the guide's does."""
    pem, key_pem = ed25519_certificate()
    key = load_pem_private_key(key_pem)

    assert isinstance(key, ed25519.Ed25519PrivateKey)
    assert load_pem_x509_certificates(pem)[0].public_key() == key.public_key()
