"""
ML-KEM-768 and ML-DSA-65 from liboqs, through its C functions and buffers of our own.

The functions get private prototypes, so nothing that liboqs-python set up is changed or relied on. Its
wrapper classes mirror C structures whose fields moved between versions; here a structure is only ever a
pointer that goes back to the library, and lengths are the constants of FIPS 203 and 204. Inputs are passed as
``bytes`` without a copy; outputs go to the context's buffers, which are allocated once.
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from antquic_server.errors import PqcError, ProviderUnavailableError
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.provider import (
    CIPHERTEXT_BYTES,
    DECAPSULATION_KEY_BYTES,
    ENCAPSULATION_KEY_BYTES,
    KEM_SEED_BYTES,
    SHARED_SECRET_BYTES,
    SIGNATURE_BYTES,
    SIGNING_KEY_BYTES,
    SIGNING_SEED_BYTES,
    VERIFICATION_KEY_BYTES,
    KemKeyPair,
    SigningKey,
    require_length,
    validate_ciphertext_untrusted,
    validate_encapsulation_key_untrusted,
)

__all__ = ["LiboqsContext", "LiboqsProvider"]

_SUCCESS = 0  # OQS_SUCCESS, oqs/common.h
_SECRETS_BYTES: Final = DECAPSULATION_KEY_BYTES + SHARED_SECRET_BYTES

_Function = Callable[..., Any]


class _Functions:
    """The C functions we call, each with a prototype of ours; AttributeError if the library lacks one."""

    def __init__(self, library: ctypes.CDLL) -> None:
        def bind(name: str, result: Any, *arguments: Any) -> _Function:
            return ctypes.CFUNCTYPE(result, *arguments)((name, library))

        # Inputs that are Python bytes are c_char_p (no conversion, no copy), handles and outputs are
        # addresses.
        status, address, data, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
        self.kem_new = bind("OQS_KEM_new", address, data)
        self.kem_free = bind("OQS_KEM_free", None, address)
        self.kem_keypair = bind("OQS_KEM_keypair", status, address, address, address)
        self.kem_keypair_derand = bind("OQS_KEM_keypair_derand", status, address, address, address, data)
        self.kem_encaps = bind("OQS_KEM_encaps", status, address, address, address, data)
        self.kem_decaps = bind("OQS_KEM_decaps", status, address, address, data, address)
        self.sig_new = bind("OQS_SIG_new", address, data)
        self.sig_free = bind("OQS_SIG_free", None, address)
        self.sig_keypair = bind("OQS_SIG_keypair", status, address, address, address)
        self.sig_sign = bind("OQS_SIG_sign", status, address, address, address, data, size, address)
        self.sig_verify = bind("OQS_SIG_verify_with_ctx_str", status, address, data, size, data, size, data, size, data)
        self.use_custom_random = bind("OQS_randombytes_custom_algorithm", None, _RANDOM_PROTOTYPE)
        self.switch_random = bind("OQS_randombytes_switch_algorithm", status, data)


class LiboqsContext:
    """
    One KEM handle, one signature handle and their output buffers; one operation at a time.

    Raises:
        PqcError: The library could not make the handles.
    """

    def __init__(self, functions: _Functions) -> None:
        self._functions = functions
        # Decapsulation key and shared secret share one buffer, so that one memset wipes both.
        self._secrets = ctypes.create_string_buffer(_SECRETS_BYTES)
        self._decapsulation_key_at = ctypes.addressof(self._secrets)
        self._secret_at = self._decapsulation_key_at + DECAPSULATION_KEY_BYTES
        # Ciphertexts, encapsulation keys and signatures are public and never in use together.
        self._output = ctypes.create_string_buffer(SIGNATURE_BYTES)
        self._output_at = ctypes.addressof(self._output)
        self._output_length = ctypes.c_size_t()
        self._output_length_at = ctypes.addressof(self._output_length)
        self._key_pair_number = 0
        self._kem = functions.kem_new(b"ML-KEM-768")
        self._sig = functions.sig_new(b"ML-DSA-65")
        self._finalizer = weakref.finalize(self, _free_context, functions, self._kem, self._sig, self._secrets)
        if self._kem is None or self._sig is None:
            self._finalizer()
            raise PqcError("liboqs cannot make an ML-KEM-768 or ML-DSA-65 context")

    def encapsulate(self, encapsulation_key: bytes) -> tuple[bytes, bytes]:
        """See ``PqcOperations.encapsulate``."""
        # mlkem-native makes the same check; implementations that other builds of liboqs may choose need not.
        validate_encapsulation_key_untrusted(encapsulation_key)
        status = self._functions.kem_encaps(self._kem, self._output_at, self._secret_at, encapsulation_key)
        if status != _SUCCESS:
            raise PqcError("liboqs failed to encapsulate with ML-KEM-768")
        ciphertext = ctypes.string_at(self._output_at, CIPHERTEXT_BYTES)
        return ciphertext, ctypes.string_at(self._secret_at, SHARED_SECRET_BYTES)

    def generate_kem_key_pair(self, seed: bytes | None = None) -> KemKeyPair:
        """See ``PqcOperations.generate_kem_key_pair``; ends the life of an earlier key pair of this context."""
        if seed is None:
            status = self._functions.kem_keypair(self._kem, self._output_at, self._decapsulation_key_at)
        else:
            require_length("ML-KEM-768 seed", seed, KEM_SEED_BYTES)
            status = self._functions.kem_keypair_derand(self._kem, self._output_at, self._decapsulation_key_at, seed)
        if status != _SUCCESS:
            raise PqcError("liboqs failed to make an ML-KEM-768 key pair")
        self._key_pair_number += 1
        return _KemKeyPair(self, self._key_pair_number, ctypes.string_at(self._output_at, ENCAPSULATION_KEY_BYTES))

    def decapsulate(self, key_pair_number: int, ciphertext: bytes) -> bytes:
        """See ``KemKeyPair.decapsulate``, which calls this with the number of its key pair."""
        validate_ciphertext_untrusted(ciphertext)
        if key_pair_number != self._key_pair_number:
            raise PqcError("ML-KEM-768 key pair is closed")
        status = self._functions.kem_decaps(self._kem, self._secret_at, ciphertext, self._decapsulation_key_at)
        if status != _SUCCESS:
            raise PqcError("liboqs failed to decapsulate with ML-KEM-768")
        return ctypes.string_at(self._secret_at, SHARED_SECRET_BYTES)

    def verify(self, public_key: bytes, message: bytes, signature: bytes, context: bytes = b"") -> bool:
        """See ``PqcOperations.verify``."""
        if self._sig is None:
            raise PqcError("PQC context is closed")
        if len(public_key) != VERIFICATION_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            return False
        status = self._functions.sig_verify(
            self._sig,
            message,
            len(message),
            signature,
            SIGNATURE_BYTES,
            context,
            len(context),
            public_key,
        )
        return bool(status == _SUCCESS)

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """See ``PqcContext.sign``."""
        if not isinstance(key, _SigningKey):
            raise PqcError(f"{type(key).__name__} is not a key of the liboqs provider")
        status = self._functions.sig_sign(
            self._sig, self._output_at, self._output_length_at, message, len(message), key.secret_at
        )
        if status != _SUCCESS or self._output_length.value != SIGNATURE_BYTES:
            raise PqcError("liboqs failed to sign with ML-DSA-65")
        return self._output.raw

    def expand_signing_seed(self, seed: bytes, signing_key_at: int) -> bytes:
        """
        Write the 4032-byte private key of a 32-byte ML-DSA-65 seed to an address; return the public key.

        liboqs has no such function, but its key generation draws exactly the seed, so it draws ours.

        Raises:
            PqcError: The seed has another length, or the library failed.
        """
        require_length("ML-DSA-65 seed", seed, SIGNING_SEED_BYTES)
        with _RANDOM_LOCK:
            _SEED_OF_THREAD.seed = seed
            self._functions.use_custom_random(_RANDOM_CALLBACK)
            try:
                made = self._functions.sig_keypair(self._sig, self._output_at, signing_key_at)
            finally:
                _SEED_OF_THREAD.seed = None
                restored = self._functions.switch_random(b"system")
        if made != _SUCCESS or restored != _SUCCESS:
            raise PqcError("liboqs failed to make an ML-DSA-65 key pair")
        return ctypes.string_at(self._output_at, VERIFICATION_KEY_BYTES)

    def close_key_pair(self, key_pair_number: int) -> None:
        """Wipe a key pair, unless the context has moved on: it may hold somebody else's key by now."""
        if key_pair_number == self._key_pair_number:
            self.wipe()

    def wipe(self) -> None:
        """See ``PqcContext.wipe``; a key pair made here is closed by it."""
        self._key_pair_number += 1
        ctypes.memset(self._decapsulation_key_at, 0, _SECRETS_BYTES)

    def close(self) -> None:
        """See ``PqcContext.close``; every later operation raises PqcError."""
        self._key_pair_number += 1
        # A null handle makes the library's functions fail without touching a buffer.
        self._kem = self._sig = None
        self._finalizer()


class LiboqsProvider:
    """
    The provider named ``liboqs``.

    Args:
        library: An initialised liboqs, 0.13 or newer.

    Raises:
        ProviderUnavailableError: The library was built without one of the two algorithms, or computes
            something else than ``cryptography`` does.
    """

    name = "liboqs"

    def __init__(self, library: ctypes.CDLL) -> None:
        try:
            self._functions = _Functions(library)
        except AttributeError as exc:
            raise ProviderUnavailableError(f"liboqs lacks a function: {exc}") from exc
        try:
            self._self_test()
        except PqcError as exc:
            raise ProviderUnavailableError(f"liboqs does not work here: {exc}") from exc

    def new_context(self) -> LiboqsContext:
        """See ``PqcProvider.new_context``."""
        return LiboqsContext(self._functions)

    def encapsulate(self, encapsulation_key: bytes) -> tuple[bytes, bytes]:
        """See ``PqcOperations.encapsulate``."""
        return self.new_context().encapsulate(encapsulation_key)

    def generate_kem_key_pair(self, seed: bytes | None = None) -> KemKeyPair:
        """See ``PqcOperations.generate_kem_key_pair``."""
        return self.new_context().generate_kem_key_pair(seed)

    def verify(self, public_key: bytes, message: bytes, signature: bytes, context: bytes = b"") -> bool:
        """See ``PqcOperations.verify``."""
        return self.new_context().verify(public_key, message, signature, context)

    def signing_key(self, seed: bytes) -> SigningKey:
        """See ``PqcProvider.signing_key``; checks that ``cryptography`` derives the same public key."""
        key = _SigningKey(self)
        key.public_key = self.new_context().expand_signing_seed(seed, key.secret_at)
        if key.public_key != CryptographyProvider().signing_key(seed).public_key:
            raise PqcError("liboqs makes another ML-DSA-65 key of the same seed than cryptography")
        return key

    def _self_test(self) -> None:
        """Tell a library that is broken, or implements a draft, at start and not in the first handshake."""
        self.signing_key(bytes(SIGNING_SEED_BYTES))
        seed = bytes(KEM_SEED_BYTES)
        reference = CryptographyProvider().generate_kem_key_pair(seed)
        ciphertext, secret = self.encapsulate(reference.public_key)
        ours = self.generate_kem_key_pair(seed)
        if not secret == reference.decapsulate(ciphertext) == ours.decapsulate(ciphertext):
            raise PqcError("its ML-KEM-768 is not that of cryptography")


class _KemKeyPair:
    """Number ``number`` of its context; the key itself is in the context's buffer."""

    def __init__(self, context: LiboqsContext, number: int, public_key: bytes) -> None:
        self._context = context
        self._number = number
        self._public_key = public_key

    @property
    def public_key(self) -> bytes:
        return self._public_key

    def decapsulate(self, ciphertext: bytes) -> bytes:
        return self._context.decapsulate(self._number, ciphertext)

    def close(self) -> None:
        self._context.close_key_pair(self._number)


class _SigningKey:
    """Owns the expanded private key; each signature is made in a context of its own, or in the pool's."""

    def __init__(self, provider: LiboqsProvider) -> None:
        self._provider = provider
        secret = ctypes.create_string_buffer(SIGNING_KEY_BYTES)
        self.secret_at = ctypes.addressof(secret)
        self._wipe = weakref.finalize(self, ctypes.memset, secret, 0, SIGNING_KEY_BYTES)
        self.public_key = b""

    def sign(self, message: bytes) -> bytes:
        return self._provider.new_context().sign(self, message)


def _free_context(functions: _Functions, kem: int | None, sig: int | None, secrets: Any) -> None:
    ctypes.memset(secrets, 0, _SECRETS_BYTES)
    functions.kem_free(kem)
    functions.sig_free(sig)


# The random source of liboqs is one pointer for the whole process. While it points here, only the thread that
# expands a seed gets that seed, once; whoever else draws random bytes at that moment gets real ones. The
# callback lives as long as the process, since another thread may be inside it when the pointer is set back.
_RANDOM_LOCK = threading.Lock()
_SEED_OF_THREAD = threading.local()
_RANDOM_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)


def _fill_random(destination: int, length_bytes: int) -> None:
    seed: bytes | None = getattr(_SEED_OF_THREAD, "seed", None)
    if seed is None or len(seed) != length_bytes:
        seed = os.urandom(length_bytes)
    else:
        _SEED_OF_THREAD.seed = None
    ctypes.memmove(destination, seed, length_bytes)


_RANDOM_CALLBACK = _RANDOM_PROTOTYPE(_fill_random)
