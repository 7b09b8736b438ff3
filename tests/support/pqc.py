"""Both post-quantum providers for tests, and the published vectors they must agree with."""

from functools import cache
from typing import Literal

import cryptography_vectors

from antquic_server.errors import ProviderUnavailableError
from antquic_server.pqc.provider import PqcProvider
from antquic_server.pqc.select import load_provider
from support.require import require

__all__ = ["PROVIDERS", "ProviderName", "encapsulation_key", "load_or_skip", "read_vectors"]

ProviderName = Literal["cryptography", "liboqs"]
PROVIDERS: tuple[ProviderName, ...] = ("cryptography", "liboqs")


@cache
def load_or_skip(name: ProviderName) -> PqcProvider:
    """Load a provider; skip the test if it is missing (in CI: fail)."""
    try:
        return load_provider(name)
    except ProviderUnavailableError as exc:
        require(False, str(exc))
        raise


@cache
def read_vectors(path: str) -> list[dict[str, bytes]]:
    """
    Read a response file of known answers: ``name = hex`` lines, a ``count`` line before each vector.

    Args:
        path: Name inside the package ``cryptography_vectors``.
    """
    vectors: list[dict[str, bytes]] = []
    with cryptography_vectors.open_vector_file(path, "r") as file:
        for line in file:
            name, separator, value = line.strip().partition(" = ")
            if name == "count":
                vectors.append({})
            elif separator and not name.endswith("len"):
                vectors[-1][name] = bytes.fromhex(value)
    return vectors


def encapsulation_key(coefficients: dict[int, int], *, rest: int = 0) -> bytes:
    """
    Encode an ML-KEM-768 encapsulation key with chosen coefficients (FIPS 203, algorithm 5: 12 bits each).

    Args:
        coefficients: Value by index, 0 to 767; the others are ``rest``.
        rest: Value of the others.
    """
    packed = sum(coefficients.get(index, rest) << (12 * index) for index in range(768))
    return packed.to_bytes(1152, "little") + bytes(32)
