"""
What a post-quantum provider offers: ML-KEM-768 (FIPS 203) and ML-DSA-65 (FIPS 204), nothing else.

Three layers, each usable where the one above is expected::

    PqcProvider   a library: makes contexts, turns a seed into a signing key
    PqcContext    one set of native handles and buffers; does one operation at a time
    PqcPool       ``pool.py``: the provider's operations on a fixed number of ready contexts

ML-DSA is used in pure mode with an empty context string and hedged (randomised) signatures, as TLS 1.3 wants
it (draft-ietf-tls-mldsa). Secrets that leave as Python ``bytes`` live until the interpreter frees them; what
is wiped are the buffers that the native code wrote to.
"""

from typing import Final, Protocol

from antquic_server.errors import KeyShareDecodeError, PqcError

__all__ = [
    "CIPHERTEXT_BYTES",
    "DECAPSULATION_KEY_BYTES",
    "ENCAPSULATION_KEY_BYTES",
    "KEM_SEED_BYTES",
    "SHARED_SECRET_BYTES",
    "SIGNATURE_BYTES",
    "SIGNING_KEY_BYTES",
    "SIGNING_SEED_BYTES",
    "VERIFICATION_KEY_BYTES",
    "KemKeyPair",
    "PqcContext",
    "PqcOperations",
    "PqcProvider",
    "SigningKey",
    "require_length",
    "validate_ciphertext_untrusted",
    "validate_encapsulation_key_untrusted",
]

# FIPS 203, table 3 (ML-KEM-768).
ENCAPSULATION_KEY_BYTES: Final = 1184
DECAPSULATION_KEY_BYTES: Final = 2400
CIPHERTEXT_BYTES: Final = 1088
SHARED_SECRET_BYTES: Final = 32
KEM_SEED_BYTES: Final = 64  # d || z, FIPS 203, section 7.1
# FIPS 204, table 2 (ML-DSA-65).
VERIFICATION_KEY_BYTES: Final = 1952
SIGNING_KEY_BYTES: Final = 4032
SIGNATURE_BYTES: Final = 3309
SIGNING_SEED_BYTES: Final = 32  # xi, FIPS 204, section 5.1

# FIPS 203, section 7.2 asks that every 12-bit coefficient is below q = 3329. All 768 are checked with a
# handful of big-integer operations: the even and the odd coefficients are spread over 24-bit lanes each, 2^12
# - q is added to every lane, and a coefficient >= q shows as a carry into bit 12 of its lane. A loop over
# them costs thirty times more.
_Q = 3329
_VECTOR_BYTES = 1152  # 3 polynomials of 256 coefficients of 12 bits; the 32 bytes of rho follow
_LANES = int.from_bytes(b"\x01\x00\x00" * (_VECTOR_BYTES // 3), "little")
_COEFFICIENT_MASK = _LANES * 0xFFF
_HEADROOM = _LANES * (0x1000 - _Q)
_CARRIES = _LANES << 12


class KemKeyPair(Protocol):
    """An ML-KEM-768 key pair, for one exchange."""

    @property
    def public_key(self) -> bytes:
        """The encapsulation key, 1184 bytes."""

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """
        Return the 32-byte shared secret.

        A ciphertext that was not made for this key yields an unrelated secret, not an error (FIPS 203,
        section 6.3: implicit rejection).

        Raises:
            KeyShareDecodeError: The ciphertext is not 1088 bytes long.
            PqcError: The key pair is closed, or the library failed.
        """

    def close(self) -> None:
        """Wipe the decapsulation key and give its buffers back; calling it again does nothing."""


class SigningKey(Protocol):
    """An ML-DSA-65 key that signs; lives as long as the node."""

    @property
    def public_key(self) -> bytes:
        """The verification key, 1952 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Return a 3309-byte hedged signature over ``message``; PqcError if the library fails."""


class PqcOperations(Protocol):
    """What key exchange and authentication call; providers, contexts and pools have it."""

    def encapsulate(self, encapsulation_key: bytes) -> tuple[bytes, bytes]:
        """
        Make a secret for the holder of ``encapsulation_key``.

        Returns:
            The ciphertext (1088 bytes) and the shared secret (32 bytes).

        Raises:
            KeyShareDecodeError: The key has the wrong length or a coefficient that is out of range.
            PqcError: The library failed.
        """

    def generate_kem_key_pair(self, seed: bytes | None = None) -> KemKeyPair:
        """Make a key pair, from 64 bytes ``d || z`` if given (known-answer tests), else at random."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes, context: bytes = b"") -> bool:
        """
        Tell whether a pure ML-DSA-65 signature is good.

        A key or a signature of the wrong length makes it a bad one. ``context`` is empty in TLS; published
        test vectors have others, up to 255 bytes.
        """


class PqcContext(PqcOperations, Protocol):
    """
    Native handles and output buffers for one operation at a time.

    A key pair from ``generate_kem_key_pair`` occupies its context until it is closed.
    """

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """Sign with a key of the same provider; PqcError for a key of another."""

    def wipe(self) -> None:
        """Overwrite every secret in the buffers."""

    def close(self) -> None:
        """Wipe and free; calling it again does nothing."""


class PqcProvider(PqcOperations, Protocol):
    """A library; its own operations make a context each time, so use a pool where speed matters."""

    @property
    def name(self) -> str:
        """Name in the configuration: ``liboqs`` or ``cryptography``."""

    def new_context(self) -> PqcContext:
        """Make a context; PqcError if memory is short."""

    def signing_key(self, seed: bytes) -> SigningKey:
        """Expand a 32-byte ML-DSA-65 seed; PqcError for another length."""


def validate_encapsulation_key_untrusted(encapsulation_key: bytes) -> None:
    """
    Check an ML-KEM-768 encapsulation key that a peer sent (FIPS 203, section 7.2: type and modulus check).

    Raises:
        KeyShareDecodeError: The length is not 1184 bytes or a coefficient is 3329 or more.
    """
    if len(encapsulation_key) != ENCAPSULATION_KEY_BYTES:
        raise KeyShareDecodeError(
            f"ML-KEM-768 encapsulation key has {len(encapsulation_key)} bytes instead of {ENCAPSULATION_KEY_BYTES}"
        )
    packed = int.from_bytes(encapsulation_key[:_VECTOR_BYTES], "little")
    even = (packed & _COEFFICIENT_MASK) + _HEADROOM
    odd = ((packed >> 12) & _COEFFICIENT_MASK) + _HEADROOM
    if (even | odd) & _CARRIES:
        raise KeyShareDecodeError("ML-KEM-768 encapsulation key has a coefficient that is not below 3329")


def validate_ciphertext_untrusted(ciphertext: bytes) -> None:
    """Check the length of an ML-KEM-768 ciphertext (FIPS 203, section 7.3) or raise KeyShareDecodeError."""
    if len(ciphertext) != CIPHERTEXT_BYTES:
        raise KeyShareDecodeError(f"ML-KEM-768 ciphertext has {len(ciphertext)} bytes instead of {CIPHERTEXT_BYTES}")


def require_length(what: str, value: bytes, expected_bytes: int) -> None:
    """Check the length of something of our own, such as a seed, else raise PqcError."""
    if len(value) != expected_bytes:
        raise PqcError(f"{what} has {len(value)} bytes instead of {expected_bytes}")
