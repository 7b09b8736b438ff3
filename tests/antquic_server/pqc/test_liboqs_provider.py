"""What only the liboqs provider does; the common behaviour is in ``test_provider.py``."""

import ctypes
import gc
import threading
import weakref
from typing import Any, cast

import pytest

from antquic_server.errors import PqcError, ProviderUnavailableError
from antquic_server.pqc import liboqs_provider
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.liboqs_library import load_liboqs
from antquic_server.pqc.liboqs_provider import LiboqsProvider
from support.pqc import encapsulation_key, load_or_skip

SECRETS_BYTES = 2400 + 32


@pytest.fixture
def provider() -> LiboqsProvider:
    """The provider, if the library is here."""
    return cast(LiboqsProvider, load_or_skip("liboqs"))


def test_library_without_our_functions_is_unavailable() -> None:
    """A library that is not liboqs is told apart before anything is called in it."""
    with pytest.raises(ProviderUnavailableError, match="OQS_KEM_new"):
        LiboqsProvider(ctypes.CDLL(None))


def test_library_without_the_algorithms_is_unavailable(
    provider: LiboqsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that lacks ML-DSA-65 gives a null handle, which is a start-up error."""

    class Lacking(liboqs_provider._Functions):
        def __init__(self, library: ctypes.CDLL) -> None:
            super().__init__(library)
            self.sig_new = lambda _name: None

    monkeypatch.setattr(liboqs_provider, "_Functions", Lacking)
    with pytest.raises(ProviderUnavailableError, match="cannot make an ML-KEM-768 or ML-DSA-65 context"):
        LiboqsProvider(load_liboqs())


@pytest.mark.parametrize("broken", ["kem_encaps", "kem_keypair_derand"])
def test_library_that_computes_something_else_is_unavailable(
    provider: LiboqsProvider, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A library that claims success but disagrees with ``cryptography`` is found out at start."""

    class Broken(liboqs_provider._Functions):
        def __init__(self, library: ctypes.CDLL) -> None:
            super().__init__(library)
            setattr(self, broken, lambda *_arguments: 0)

    monkeypatch.setattr(liboqs_provider, "_Functions", Broken)
    with pytest.raises(ProviderUnavailableError, match=r"^liboqs does not work here: "):
        LiboqsProvider(load_liboqs())


def test_signing_key_that_cryptography_disagrees_with_is_refused(
    provider: LiboqsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expanded seed must give the public key ``cryptography`` gives."""

    class Disagreeing(CryptographyProvider):
        def signing_key(self, seed: bytes) -> Any:
            return super().signing_key(bytes(reversed(seed)))

    monkeypatch.setattr(liboqs_provider, "CryptographyProvider", Disagreeing)
    with pytest.raises(PqcError, match="another ML-DSA-65 key"):
        provider.signing_key(bytes(range(32)))


@pytest.mark.parametrize("position", [0, 383, 767])
def test_library_makes_the_modulus_check_too(provider: LiboqsProvider, position: int) -> None:
    """The ML-KEM of liboqs refuses a coefficient out of range by itself (FIPS 203, section 7.2)."""
    context = provider.new_context()
    refused = encapsulation_key({position: 3329})
    accepted = encapsulation_key({position: 3328})
    arguments = context._kem, context._output_at, context._secret_at
    assert provider._functions.kem_encaps(*arguments, refused) != 0
    assert provider._functions.kem_encaps(*arguments, accepted) == 0


def test_failures_of_the_library_are_ours(provider: LiboqsProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing C function becomes PqcError, not a wrong result."""
    context = provider.new_context()
    key = provider.signing_key(bytes(32))
    key_pair = context.generate_kem_key_pair()
    functions = [
        "kem_encaps", "kem_decaps", "kem_keypair", "kem_keypair_derand", "sig_sign", "sig_keypair",
    ]  # fmt: skip
    for function in functions:
        monkeypatch.setattr(context._functions, function, lambda *_arguments: -1)
    with pytest.raises(PqcError, match="encapsulate"):
        context.encapsulate(encapsulation_key({}))
    with pytest.raises(PqcError, match="decapsulate"):
        key_pair.decapsulate(bytes(1088))
    for seed in (None, bytes(64)):
        with pytest.raises(PqcError, match="key pair"):
            context.generate_kem_key_pair(seed)
    with pytest.raises(PqcError, match="sign"):
        context.sign(key, b"m")
    with pytest.raises(PqcError, match="ML-DSA-65 key pair"):
        context.expand_signing_seed(bytes(32), context._output_at)


def test_wipe_overwrites_every_secret(provider: LiboqsProvider) -> None:
    """After an operation the secret is still in the buffer; after wiping nothing is."""
    context = provider.new_context()
    key_pair = context.generate_kem_key_pair()
    _, secret = context.encapsulate(key_pair.public_key)
    assert context._secrets.raw.endswith(secret)
    assert context._secrets.raw[:2400] != bytes(2400)
    context.wipe()
    assert context._secrets.raw == bytes(SECRETS_BYTES)
    with pytest.raises(PqcError, match="closed"):
        key_pair.decapsulate(bytes(1088))


def test_closing_a_key_pair_wipes_its_context(provider: LiboqsProvider) -> None:
    """The decapsulation key does not outlive the key pair."""
    context = provider.new_context()
    context.generate_kem_key_pair().close()
    assert context._secrets.raw == bytes(SECRETS_BYTES)


def test_late_close_leaves_the_next_key_pair_alone(provider: LiboqsProvider) -> None:
    """A context that was reused is not wiped by the key pair it held before."""
    context = provider.new_context()
    first = context.generate_kem_key_pair()
    second = context.generate_kem_key_pair()
    first.close()
    ciphertext, secret = provider.encapsulate(second.public_key)
    assert second.decapsulate(ciphertext) == secret
    with pytest.raises(PqcError, match="closed"):
        first.decapsulate(ciphertext)


def test_closed_context_does_nothing(provider: LiboqsProvider) -> None:
    """Every operation on a closed context is an error, and its secrets are gone."""
    context = provider.new_context()
    key = provider.signing_key(bytes(32))
    key_pair = context.generate_kem_key_pair()
    signature = context.sign(key, b"m")
    context.close()
    assert context._secrets.raw == bytes(SECRETS_BYTES)
    with pytest.raises(PqcError):
        context.encapsulate(key_pair.public_key)
    with pytest.raises(PqcError):
        key_pair.decapsulate(bytes(1088))
    with pytest.raises(PqcError):
        context.generate_kem_key_pair()
    with pytest.raises(PqcError):
        context.sign(key, b"m")
    with pytest.raises(PqcError):
        context.verify(key.public_key, b"m", signature)


def test_forgotten_context_is_wiped_and_freed(provider: LiboqsProvider) -> None:
    """A context nobody closed gives everything back when it is collected."""
    context = provider.new_context()
    context.generate_kem_key_pair()
    secrets = context._secrets
    gone = weakref.ref(context)
    del context
    gc.collect()
    assert gone() is None
    assert secrets.raw == bytes(SECRETS_BYTES)


def test_forgotten_signing_key_is_wiped(provider: LiboqsProvider) -> None:
    """The expanded private key is overwritten when its owner is collected."""
    key = cast(Any, provider.signing_key(bytes(32)))
    buffer = key._wipe.peek()[2][0]
    assert buffer.raw != bytes(4032)
    del key
    gc.collect()
    assert buffer.raw == bytes(4032)


def test_expanding_a_seed_leaves_randomness_random(provider: LiboqsProvider) -> None:
    """After a seed was expanded, key pairs are fresh again."""
    provider.signing_key(bytes(32))
    seen = {provider.generate_kem_key_pair().public_key for _ in range(4)}
    assert len(seen) == 4


def test_only_the_expanding_thread_draws_the_seed_and_only_once() -> None:
    """Another thread, a second draw and a draw of another length get real random bytes."""
    seed = b"\x5a" * 32

    def draw(length_bytes: int) -> bytes:
        buffer = ctypes.create_string_buffer(length_bytes)
        liboqs_provider._fill_random(ctypes.addressof(buffer), length_bytes)
        return buffer.raw

    elsewhere: list[bytes] = []
    liboqs_provider._SEED_OF_THREAD.seed = seed
    thread = threading.Thread(target=lambda: elsewhere.append(draw(32)))
    thread.start()
    thread.join()
    assert elsewhere[0] not in (seed, bytes(32))
    assert draw(64) not in (seed * 2, bytes(64))
    assert draw(32) == seed
    assert draw(32) not in (seed, bytes(32))


def test_threads_may_use_one_provider(provider: LiboqsProvider) -> None:
    """Operations of a provider do not share buffers, though C runs without the interpreter lock."""
    failures: list[int] = []

    def run(number: int) -> None:
        key = provider.signing_key(bytes([number]) * 32)
        for _ in range(20):
            key_pair = provider.generate_kem_key_pair()
            ciphertext, secret = provider.encapsulate(key_pair.public_key)
            message = bytes([number]) * 100
            good = provider.verify(key.public_key, message, key.sign(message))
            if key_pair.decapsulate(ciphertext) != secret or not good:
                failures.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
