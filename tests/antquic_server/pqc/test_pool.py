"""The pool of contexts: how many, who waits for none, and that no user sees what another left."""

import gc

import pytest

from antquic_server.errors import KeyShareDecodeError, PqcError
from antquic_server.pqc.cryptography_provider import CryptographyContext, CryptographyProvider
from antquic_server.pqc.liboqs_provider import LiboqsContext
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.provider import PqcProvider
from support.pqc import PROVIDERS, ProviderName, load_or_skip


class WatchedContext(CryptographyContext):
    """A context that counts its wipes and closings."""

    def __init__(self) -> None:
        self.wiped = 0
        self.closed = 0

    def wipe(self) -> None:
        """Count."""
        self.wiped += 1

    def close(self) -> None:
        """Count."""
        self.closed += 1


class WatchedProvider(CryptographyProvider):
    """A provider that remembers the contexts it made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[WatchedContext] = []

    def new_context(self) -> WatchedContext:
        """Make one and remember it."""
        self.made.append(WatchedContext())
        return self.made[-1]


@pytest.fixture
def watched() -> WatchedProvider:
    """A provider whose contexts can be looked at."""
    return WatchedProvider()


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> PqcProvider:
    """Each provider in turn."""
    return load_or_skip(request.param)


def test_pool_makes_its_contexts_at_once_and_reuses_them(watched: WatchedProvider) -> None:
    """``size`` contexts serve any number of operations, and each use ends with a wipe."""
    pool = PqcPool(watched, 3)
    assert len(watched.made) == 3
    key = pool.signing_key(bytes(32))
    for _ in range(5):
        assert pool.verify(key.public_key, b"m", key.sign(b"m"))
    assert len(watched.made) == 3
    assert (pool.hits, pool.misses, pool.in_use) == (10, 0, 0)
    assert sum(context.wiped for context in watched.made) == 10
    assert not any(context.closed for context in watched.made)


def test_pool_of_no_contexts_is_refused(watched: WatchedProvider) -> None:
    """A pool has at least one context."""
    with pytest.raises(PqcError, match="expected 1 or more"):
        PqcPool(watched, 0)


def test_key_pair_occupies_a_context_until_it_is_closed(watched: WatchedProvider) -> None:
    """While more key pairs live than contexts were made, operations make temporary ones and count misses."""
    pool = PqcPool(watched, 2)
    first, second = pool.generate_kem_key_pair(), pool.generate_kem_key_pair()
    assert (pool.hits, pool.misses, pool.in_use) == (2, 0, 2)
    pool.encapsulate(first.public_key)
    third = pool.generate_kem_key_pair()
    assert (pool.hits, pool.misses, pool.in_use) == (2, 2, 3)
    for key_pair in (first, second, third):
        key_pair.close()
    assert pool.in_use == 0
    assert len(pool._ready) == 2
    pool.encapsulate(first.public_key)
    assert (pool.hits, pool.misses) == (3, 2)


def test_temporary_contexts_are_closed_when_the_pool_is_full_again(watched: WatchedProvider) -> None:
    """A burst does not make the pool larger for ever."""
    pool = PqcPool(watched, 1)
    key_pairs = [pool.generate_kem_key_pair() for _ in range(4)]
    for key_pair in key_pairs:
        key_pair.close()
    assert sorted(context.closed for context in watched.made) == [0, 1, 1, 1]
    assert len(pool._ready) == 1


def test_closing_a_key_pair_twice_gives_one_context_back(watched: WatchedProvider) -> None:
    """A context is never given to two users."""
    pool = PqcPool(watched, 2)
    key_pair = pool.generate_kem_key_pair()
    key_pair.close()
    key_pair.close()
    assert pool.in_use == 0
    assert len(pool._ready) == len({id(context) for context in pool._ready}) == 2


def test_forgotten_key_pair_gives_its_context_back(watched: WatchedProvider) -> None:
    """A handshake dropped without closing its key pair does not drain the pool."""
    pool = PqcPool(watched, 1)
    key_pair = pool.generate_kem_key_pair()
    assert pool.in_use == 1
    del key_pair
    gc.collect()
    assert pool.in_use == 0
    assert len(pool._ready) == 1


def test_failed_operations_give_their_context_back(watched: WatchedProvider) -> None:
    """Malformed input and wrong keys do not drain the pool."""
    pool = PqcPool(watched, 1)
    for _ in range(3):
        with pytest.raises(KeyShareDecodeError):
            pool.encapsulate(b"")
        with pytest.raises(PqcError):
            pool.generate_kem_key_pair(b"")
        with pytest.raises(PqcError):
            pool.sign(pool.signer(watched.signing_key(bytes(32))), b"m")
    assert (pool.hits, pool.misses, pool.in_use) == (9, 0, 0)


def test_closed_pool_frees_its_contexts(watched: WatchedProvider) -> None:
    """Ready contexts are freed at once, those in use when they come back."""
    pool = PqcPool(watched, 2)
    key_pair = pool.generate_kem_key_pair()
    pool.close()
    assert sorted(context.closed for context in watched.made) == [0, 1]
    key_pair.close()
    assert [context.closed for context in watched.made] == [1, 1]


def test_pool_is_a_provider(provider: PqcProvider) -> None:
    """Everything a provider does, the pool does too, with the same results."""
    pool: PqcProvider = PqcPool(provider, 2)
    assert pool.name == provider.name
    key_pair = pool.generate_kem_key_pair(bytes(64))
    assert key_pair.public_key == provider.generate_kem_key_pair(bytes(64)).public_key
    ciphertext, secret = pool.encapsulate(key_pair.public_key)
    assert key_pair.decapsulate(ciphertext) == secret
    key = pool.signing_key(bytes(32))
    signature = key.sign(b"m")
    assert pool.verify(key.public_key, b"m", signature)
    assert not pool.verify(key.public_key, b"n", signature)
    assert not pool.verify(key.public_key, b"m", signature, b"context")
    pool.new_context().close()


def test_secrets_are_gone_from_contexts_that_are_ready() -> None:
    """With liboqs, whose buffers can be looked at: a context that waits holds no secret."""
    pool = PqcPool(load_or_skip("liboqs"), 1)
    key_pair = pool.generate_kem_key_pair()
    ciphertext, _ = pool.encapsulate(key_pair.public_key)
    key_pair.decapsulate(ciphertext)
    key_pair.close()
    with pytest.raises(PqcError, match="closed"):
        key_pair.decapsulate(ciphertext)
    (context,) = pool._ready
    assert isinstance(context, LiboqsContext)
    assert context._secrets.raw == bytes(2432)


@pytest.mark.parametrize("name", PROVIDERS)
def test_forgotten_key_pair_in_a_cycle_gives_back_a_living_context(name: ProviderName) -> None:
    """
    A key pair that only the cyclic collector finds returns a context that still works.

    The collector frees native handles of all garbage before it runs finalizers, so a context that were garbage as well
    would come back dead, and its next user would read freed memory.
    """
    pool = PqcPool(load_or_skip(name), 1)

    class Forgotten:
        """Holds a key pair and itself."""

        def __init__(self) -> None:
            self.key_pair = pool.generate_kem_key_pair()
            self.itself = self

    for _ in range(3):
        Forgotten()
        gc.collect()
        assert pool.in_use == 0
        assert all(item._finalizer.alive for item in pool._ready if isinstance(item, LiboqsContext))
        key_pair = pool.generate_kem_key_pair()
        ciphertext, secret = pool.encapsulate(key_pair.public_key)
        assert key_pair.decapsulate(ciphertext) == secret
        key_pair.close()
