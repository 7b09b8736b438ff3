"""
ML-KEM-768 and ML-DSA-65 from the ``cryptography`` package, which is always there: aioquic needs it too.

The library keeps its keys and buffers to itself, so a context holds nothing and has nothing to wipe: OpenSSL
cleanses a key when the object that owns it is freed.
"""

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from antquic_server.errors import KeyShareDecodeError, PqcError, ProviderUnavailableError
from antquic_server.pqc.provider import (
    KEM_SEED_BYTES,
    SIGNATURE_BYTES,
    SIGNING_SEED_BYTES,
    VERIFICATION_KEY_BYTES,
    KemKeyPair,
    SigningKey,
    require_length,
    validate_ciphertext_untrusted,
    validate_encapsulation_key_untrusted,
)

__all__ = ["CryptographyContext", "CryptographyProvider"]


class CryptographyContext:
    """A :class:`~antquic_server.pqc.provider.PqcContext` without state."""

    def encapsulate(self, encapsulation_key: bytes) -> tuple[bytes, bytes]:
        """See ``PqcOperations.encapsulate``."""
        validate_encapsulation_key_untrusted(encapsulation_key)
        try:
            secret, ciphertext = MLKEM768PublicKey.from_public_bytes(encapsulation_key).encapsulate()
        except ValueError as exc:
            # OpenSSL makes the same checks; were it to refuse more than we do, the fault is still the peer's.
            raise KeyShareDecodeError("ML-KEM-768 encapsulation key is malformed") from exc
        return ciphertext, secret

    def generate_kem_key_pair(self, seed: bytes | None = None) -> KemKeyPair:
        """See ``PqcOperations.generate_kem_key_pair``."""
        if seed is None:
            return _KemKeyPair(MLKEM768PrivateKey.generate())
        require_length("ML-KEM-768 seed", seed, KEM_SEED_BYTES)
        return _KemKeyPair(MLKEM768PrivateKey.from_seed_bytes(seed))

    def verify(self, public_key: bytes, message: bytes, signature: bytes, context: bytes = b"") -> bool:
        """See ``PqcOperations.verify``."""
        if len(public_key) != VERIFICATION_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            return False
        try:
            MLDSA65PublicKey.from_public_bytes(public_key).verify(signature, message, context)
        except (InvalidSignature, ValueError):
            return False
        return True

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """See ``PqcContext.sign``."""
        if not isinstance(key, _SigningKey):
            raise PqcError(f"{type(key).__name__} is not a key of the cryptography provider")
        return key.sign(message)

    def wipe(self) -> None:
        """Nothing to wipe, see the module docstring."""

    def close(self) -> None:
        """Nothing to free."""


class CryptographyProvider(CryptographyContext):
    """
    The provider named ``cryptography``.

    Raises:
        ProviderUnavailableError: The OpenSSL inside ``cryptography`` lacks the algorithms (a build against a
            system library older than 3.5).
    """

    name = "cryptography"

    def __init__(self) -> None:
        try:
            MLKEM768PrivateKey.generate()
            MLDSA65PrivateKey.generate()
        except UnsupportedAlgorithm as exc:
            raise ProviderUnavailableError(
                "the cryptography package here has no ML-KEM and ML-DSA: "
                "install its wheel, or build it against OpenSSL 3.5"
            ) from exc

    def new_context(self) -> CryptographyContext:
        """See ``PqcProvider.new_context``."""
        return CryptographyContext()

    def signing_key(self, seed: bytes) -> SigningKey:
        """See ``PqcProvider.signing_key``."""
        require_length("ML-DSA-65 seed", seed, SIGNING_SEED_BYTES)
        return _SigningKey(MLDSA65PrivateKey.from_seed_bytes(seed))


class _KemKeyPair:
    def __init__(self, key: MLKEM768PrivateKey) -> None:
        self._key: MLKEM768PrivateKey | None = key
        self._public_key = key.public_key().public_bytes_raw()

    @property
    def public_key(self) -> bytes:
        return self._public_key

    def decapsulate(self, ciphertext: bytes) -> bytes:
        validate_ciphertext_untrusted(ciphertext)
        if self._key is None:
            raise PqcError("ML-KEM-768 key pair is closed")
        return self._key.decapsulate(ciphertext)

    def close(self) -> None:
        self._key = None


class _SigningKey:
    def __init__(self, key: MLDSA65PrivateKey) -> None:
        self._key = key
        self._public_key = key.public_key().public_bytes_raw()

    @property
    def public_key(self) -> bytes:
        return self._public_key

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)
