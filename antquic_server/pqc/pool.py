"""
The PQC memory pool: a fixed number of ready contexts (native handles and buffers), one pool per worker.

An operation takes a context and gives it back when it is done; a KEM key pair keeps its context until it is
closed, so that is what can empty the pool. A pool that is empty is not an error: the operation gets a
temporary context, which is freed afterwards and counted as a miss. Every context is wiped before the next
user can see it.

Taking and giving back are single list operations, so threads may share a pool; the counters are then
approximate.
"""

from collections.abc import Callable
from functools import partial

from antquic_server.errors import PqcError
from antquic_server.pqc.provider import KemKeyPair, PqcContext, PqcProvider, SigningKey

__all__ = ["PqcPool"]


class PqcPool:
    """
    A provider's operations on ``size`` reused contexts; is itself a ``PqcProvider``.

    Args:
        provider: Makes the contexts.
        size: Contexts kept ready, 1 or more (``pqc.memory_pool_size``).
    """

    def __init__(self, provider: PqcProvider, size: int) -> None:
        if size < 1:
            raise PqcError(f"PQC pool of {size} contexts: expected 1 or more")
        self.provider = provider
        self.size = size
        self.hits = 0
        """Operations that found a ready context."""
        self.misses = 0
        """Operations that had to make a temporary one."""
        self._ready = [provider.new_context() for _ in range(size)]
        # Contexts taken are held here as well: one that became garbage together with its key pair would be freed
        # before the key pair could give it back, and a freed one would be handed out again.
        self._taken: dict[int, PqcContext] = {}
        self._closed = False

    @property
    def in_use(self) -> int:
        """Contexts taken now, temporary ones included."""
        return len(self._taken)

    @property
    def name(self) -> str:
        """Name of the provider."""
        return self.provider.name

    def encapsulate(self, encapsulation_key: bytes) -> tuple[bytes, bytes]:
        """See ``PqcOperations.encapsulate``."""
        context = self._take()
        try:
            return context.encapsulate(encapsulation_key)
        finally:
            self._give_back(context)

    def generate_kem_key_pair(self, seed: bytes | None = None) -> KemKeyPair:
        """See ``PqcOperations.generate_kem_key_pair``; closing the key pair gives its context back."""
        context = self._take()
        try:
            key_pair = context.generate_kem_key_pair(seed)
        except BaseException:
            self._give_back(context)
            raise
        return _PooledKemKeyPair(key_pair, partial(self._give_back, context))

    def verify(self, public_key: bytes, message: bytes, signature: bytes, context: bytes = b"") -> bool:
        """See ``PqcOperations.verify``."""
        taken = self._take()
        try:
            return taken.verify(public_key, message, signature, context)
        finally:
            self._give_back(taken)

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """Sign with a key of this pool's provider; PqcError for a key of another."""
        context = self._take()
        try:
            return context.sign(key, message)
        finally:
            self._give_back(context)

    def signer(self, key: SigningKey) -> SigningKey:
        """Bind a key of this pool's provider, so that it signs in pooled contexts."""
        return _PooledSigningKey(self, key)

    def signing_key(self, seed: bytes) -> SigningKey:
        """Expand a 32-byte ML-DSA-65 seed to a key that signs in pooled contexts."""
        return self.signer(self.provider.signing_key(seed))

    def new_context(self) -> PqcContext:
        """Make a context that does not belong to the pool."""
        return self.provider.new_context()

    def close(self) -> None:
        """Wipe and free every context; those in use follow when they are given back."""
        self._closed = True
        while self._ready:
            self._ready.pop().close()

    def _take(self) -> PqcContext:
        try:
            context = self._ready.pop()
        except IndexError:
            context = self.provider.new_context()
            self.misses += 1
        else:
            self.hits += 1
        self._taken[id(context)] = context
        return context

    def _give_back(self, context: PqcContext) -> None:
        del self._taken[id(context)]
        if self._closed or self.in_use + len(self._ready) >= self.size:
            context.close()
        else:
            context.wipe()
            self._ready.append(context)


class _PooledKemKeyPair:
    """Returns its context exactly once: on ``close``, or when it is forgotten."""

    def __init__(self, key_pair: KemKeyPair, give_back: Callable[[], None]) -> None:
        self._key_pair = key_pair
        self._give_back: Callable[[], None] | None = give_back

    @property
    def public_key(self) -> bytes:
        return self._key_pair.public_key

    def decapsulate(self, ciphertext: bytes) -> bytes:
        return self._key_pair.decapsulate(ciphertext)

    def close(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            self._key_pair.close()
            give_back()

    def __del__(self) -> None:
        # A handshake dropped without close() must not drain the pool for ever.
        self.close()


class _PooledSigningKey:
    def __init__(self, pool: PqcPool, key: SigningKey) -> None:
        self._pool = pool
        self._key = key

    @property
    def public_key(self) -> bytes:
        return self._key.public_key

    def sign(self, message: bytes) -> bytes:
        return self._pool.sign(self._key, message)
