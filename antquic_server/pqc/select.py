"""Choose the PQC provider: liboqs is several times faster at signing, ``cryptography`` is always there."""

from typing import Literal

from antquic_server.errors import ProviderUnavailableError
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.liboqs_library import load_liboqs
from antquic_server.pqc.liboqs_provider import LiboqsProvider
from antquic_server.pqc.provider import PqcProvider

__all__ = ["ProviderName", "load_provider"]

ProviderName = Literal["auto", "liboqs", "cryptography"]


def load_provider(name: ProviderName) -> PqcProvider:
    """
    Load the provider that ``pqc.provider`` names; ``auto`` is liboqs if it works here, else ``cryptography``.

    Nothing is downloaded, built or printed, and ``cryptography`` does not even look for liboqs.

    Raises:
        ProviderUnavailableError: It is not installed or does not work; one line, with the way to get it.
    """
    if name == "cryptography":
        return CryptographyProvider()
    try:
        return LiboqsProvider(load_liboqs())
    except ProviderUnavailableError:
        if name == "liboqs":
            raise
    return CryptographyProvider()
