"""
Token buckets: how often something may happen.

A bucket holds up to ``burst`` tokens and gains ``rate_per_s`` of them each second; what happens costs
tokens, and does not happen without. Time is passed in as monotonic seconds. A clock that steps back adds
nothing.
"""

from array import array
from ipaddress import IPv4Address

from antquic_server.protocol.address import SocketAddress

__all__ = ["KeyedBuckets", "TokenBucket", "address_prefixes"]

_IPV6_PREFIX_LENGTHS_BYTES = (8, 7, 6)


class TokenBucket:
    """
    One limit, starting full with what happens first.

    Or with ``tokens`` at ``since_s``; fewer than none are a debt, which has to be paid before anything happens.
    """

    __slots__ = ("_burst", "_rate_per_s", "_tokens", "_updated_s")

    def __init__(
        self, rate_per_s: float, burst: float, *, tokens: float | None = None, since_s: float | None = None
    ) -> None:
        _require_sound(rate_per_s, burst)
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst if tokens is None else min(burst, tokens)
        self._updated_s = since_s

    def take(self, now_s: float, amount: float = 1.0) -> bool:
        """Take ``amount`` tokens, or none and return ``False`` when there are fewer."""
        self._refill(now_s)
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True

    def overdraw(self, now_s: float, amount: float) -> bool:
        """
        Take ``amount`` tokens if there are any at all, owing the rest, or return ``False`` when there are none.

        For what comes in lumps that cannot be cut, and may be greater than ``burst``: it passes, and the next waits.
        """
        # Whoever handles a burst asks many times at one moment.
        if now_s != self._updated_s:
            self._refill(now_s)
        if self._tokens <= 0:
            return False
        self._tokens -= amount
        return True

    def give_back(self, amount: float) -> None:
        """Return tokens taken for something that did not happen after all."""
        self._tokens = min(self._burst, self._tokens + amount)

    def owed(self, now_s: float) -> float:
        """Return how many tokens were overdrawn and are not paid yet."""
        self._refill(now_s)
        return max(0.0, -self._tokens)

    def change(self, rate_per_s: float, burst: float, now_s: float) -> None:
        """Apply another limit from now on; nothing is won by it: tokens are what they were, or the new ``burst``."""
        _require_sound(rate_per_s, burst)
        self.take(now_s, 0.0)  # what the old rate has earned until now
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = min(self._tokens, burst)

    def _refill(self, now_s: float) -> None:
        if self._updated_s is None:
            self._updated_s = now_s
        elif now_s > self._updated_s:
            gained = (now_s - self._updated_s) * self._rate_per_s
            self._tokens = min(self._burst, self._tokens + gained)
            self._updated_s = now_s


class KeyedBuckets:
    """
    One limit per key, in memory that is fixed from the start.

    Keys with the same hash share a bucket, and no bucket is ever handed to a new key with fresh tokens:
    whoever floods the table with keys can only slow down strangers that collide, never win tokens, as
    eviction would let them. The hash is Python's own for ``bytes``, which is keyed with a secret of the
    process (SipHash), so that nobody can aim at a victim's bucket. 16 bytes per bucket.
    """

    __slots__ = ("_burst", "_capacity", "_rate_per_s", "_tokens", "_updated_s")

    def __init__(self, rate_per_s: float, burst: float, capacity: int) -> None:
        _require_sound(rate_per_s, burst)
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, expected at least 1")
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._capacity = capacity
        self._tokens = array("d", [burst]) * capacity
        # A bucket nobody has used is full, so its first gain is cut to nothing whatever the clock says.
        self._updated_s = array("d", [0.0]) * capacity

    def take(self, key: bytes, now_s: float) -> bool:
        """Take one token of the key's bucket, or return ``False`` when there is none."""
        taken = self.tokens(key, now_s) >= 1.0
        if taken:
            self.spend(key, 1.0)
        return taken

    def tokens(self, key: bytes, now_s: float) -> float:
        """Return what is in the key's bucket; less than nothing if more was spent."""
        index = hash(key) % self._capacity
        elapsed_s = now_s - self._updated_s[index]
        if elapsed_s > 0:
            self._tokens[index] = min(self._burst, self._tokens[index] + elapsed_s * self._rate_per_s)
            self._updated_s[index] = now_s
        return self._tokens[index]

    def spend(self, key: bytes, amount: float) -> None:
        """Take so much of the key's bucket, whether it is there or not."""
        self._tokens[hash(key) % self._capacity] -= amount


def address_prefixes(address: SocketAddress) -> list[bytes]:
    """
    List the prefixes under which an address is limited, the narrowest first.

    IPv4: the address itself (/32), since behind a carrier's NAT even that is many people. IPv6: /64, which
    one host gets, then /56 and /48, which one customer gets. Prefixes of different length differ in length,
    so they can share one table. IPv4-mapped addresses count as IPv4.
    """
    host = address.normalised().host
    if isinstance(host, IPv4Address):
        return [host.packed]
    return [host.packed[:length] for length in _IPV6_PREFIX_LENGTHS_BYTES]


def _require_sound(rate_per_s: float, burst: float) -> None:
    if not rate_per_s >= 0:
        raise ValueError(f"rate_per_s is {rate_per_s}, expected 0 or more")
    if not burst >= 0:
        raise ValueError(f"burst is {burst}, expected 0 or more")
