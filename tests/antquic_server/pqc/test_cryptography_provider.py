"""What only the ``cryptography`` provider does; the common behaviour is in ``test_provider.py``."""

from typing import NoReturn

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

from antquic_server.errors import KeyShareDecodeError, ProviderUnavailableError
from antquic_server.pqc import cryptography_provider
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from support.pqc import encapsulation_key


class Lacking:
    """A key class of a build against an old OpenSSL."""

    @staticmethod
    def generate() -> NoReturn:
        """Refuse, as such a build does."""
        raise UnsupportedAlgorithm("no ML-KEM here")


def test_provider_without_the_algorithms_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An OpenSSL too old for ML-KEM is a start-up error that says what to do."""
    monkeypatch.setattr(cryptography_provider, "MLKEM768PrivateKey", Lacking)
    with pytest.raises(ProviderUnavailableError, match=r"install its wheel, or build it against OpenSSL 3\.5"):
        CryptographyProvider()


@pytest.mark.parametrize("position", [0, 383, 767])
def test_library_makes_the_modulus_check_too(position: int) -> None:
    """OpenSSL refuses a coefficient out of range by itself (FIPS 203, section 7.2)."""
    with pytest.raises(ValueError, match=r"(?i)key"):
        MLKEM768PublicKey.from_public_bytes(encapsulation_key({position: 3329}))


def test_key_that_only_the_library_refuses_is_the_peers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal by the library alone becomes the same error."""
    monkeypatch.setattr(cryptography_provider, "validate_encapsulation_key_untrusted", bytes)
    with pytest.raises(KeyShareDecodeError, match="malformed"):
        CryptographyProvider().encapsulate(encapsulation_key({0: 3329}))
