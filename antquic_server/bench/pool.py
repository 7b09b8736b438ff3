"""
``bench pool``: what ``pqc.memory_pool_size`` is worth, as CPU time of this process, in one run.

Two kinds of work, each with pools of several sizes and with new memory for every operation:

1. *Accepting*: what a node does for a pure handshake of a peer (encapsulate, sign, verify), one handshake after
   another, as a worker does it. No operation keeps its context, so one context is enough.
2. *Dialling*: a number of handshakes that have all been begun before the first one ends; each key pair keeps its
   context until its share has been decapsulated. Where they are more than the pool has, the rest is made and freed: a
   miss.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from antquic_server.bench.progress import Progress
from antquic_server.bench.report import Column, Report, Table, whole, whole_list
from antquic_server.bench.variants import available_pools
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.provider import PqcContext, PqcProvider, SigningKey

__all__ = ["OPTIONS", "QUICK", "run"]

OPTIONS: Mapping[str, str] = {"rounds": "50", "sizes": "1,10", "dials": "10", "handshakes": "10"}
QUICK: Mapping[str, str] = {"rounds": "3"}

NO_POOL: Final = "none"
_MESSAGE: Final = b"m" * 130


@dataclass(slots=True)
class _Measured:
    """CPU microseconds for one handshake, round by round; hits and misses, which only a pool has."""

    times_us: list[float] = field(default_factory=list)
    hits: int = 0
    misses: int = 0


def run(options: Mapping[str, str]) -> Report:
    """Measure every size in turn, round by round."""
    rounds = whole(options, "rounds", 1)
    sizes = whole_list(options, "sizes", 1)
    dials = whole(options, "dials", 1)
    handshakes = whole(options, "handshakes", 1)
    tables = []
    providers = {name: pool.provider for name, pool in available_pools().items()}
    progress = Progress(rounds * len(providers))
    for name, provider in providers.items():
        benches = [_Bench(provider, size) for size in (None, *sizes)]
        accepted = {bench.label: _Measured() for bench in benches}
        dialled = {bench.label: _Measured() for bench in benches}
        for _ in range(rounds):
            progress.step(name)
            for bench in benches:
                bench.measure(accepted[bench.label], bench.accept, handshakes)
                bench.measure(dialled[bench.label], bench.dial, dials)
        tables += [
            _table(f"accepting handshakes, {name}", accepted),
            _table(f"dialling, {dials} handshakes at a time, {name}", dialled),
        ]
        for bench in benches:
            bench.close()
    return Report(tables=tables, notes=_notes())


class _Bench:
    """One provider with a pool of one size, or with none."""

    def __init__(self, provider: PqcProvider, size: int | None) -> None:
        self.label = NO_POOL if size is None else str(size)
        self._pool = None if size is None else PqcPool(provider, size)
        self._operations = self._pool or _NewMemory(provider)
        self._key = provider.signing_key(os.urandom(32))
        self._public_key = self._key.public_key
        self._signature = self._key.sign(_MESSAGE)
        key_pair = provider.generate_kem_key_pair()
        self._share = key_pair.public_key
        self._ciphertext, _ = provider.encapsulate(self._share)
        key_pair.close()

    def measure(self, found: _Measured, work: Callable[[int], None], handshakes: int) -> None:
        """Time one round of work."""
        before = (0, 0) if self._pool is None else (self._pool.hits, self._pool.misses)
        started_ns = time.thread_time_ns()
        work(handshakes)
        found.times_us.append((time.thread_time_ns() - started_ns) / 1000 / handshakes)
        if self._pool is not None:
            found.hits += self._pool.hits - before[0]
            found.misses += self._pool.misses - before[1]

    def accept(self, handshakes: int) -> None:
        """Do the node's part of pure handshakes, one after another."""
        for _ in range(handshakes):
            self._operations.encapsulate(self._share)
            self._operations.sign(self._key, _MESSAGE)
            self._operations.verify(self._public_key, _MESSAGE, self._signature)

    def dial(self, dials: int) -> None:
        """Begin handshakes, then go on with each: decapsulate what a node has answered."""
        key_pairs = [self._operations.generate_kem_key_pair() for _ in range(dials)]
        for key_pair in key_pairs:
            # As good as an answer: what does not fit the key decapsulates to something, in the same time.
            key_pair.decapsulate(self._ciphertext)
            key_pair.close()

    def close(self) -> None:
        """Free the pool."""
        if self._pool is not None:
            self._pool.close()


class _NewMemory:
    """Makes a context for every operation and frees it afterwards."""

    def __init__(self, provider: PqcProvider) -> None:
        self._provider = provider

    def encapsulate(self, encapsulation_key: bytes) -> tuple[bytes, bytes]:
        """See ``PqcOperations.encapsulate``."""
        with closing(self._provider.new_context()) as context:
            return context.encapsulate(encapsulation_key)

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """See ``PqcContext.sign``."""
        with closing(self._provider.new_context()) as context:
            return context.sign(key, message)

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """See ``PqcOperations.verify``."""
        with closing(self._provider.new_context()) as context:
            return context.verify(public_key, message, signature)

    def generate_kem_key_pair(self) -> "_OwnKeyPair":
        """See ``PqcOperations.generate_kem_key_pair``."""
        return _OwnKeyPair(self._provider.new_context())


class _OwnKeyPair:
    """A key pair in a context of its own, which ends with it."""

    def __init__(self, context: PqcContext) -> None:
        self._context = context
        self._key_pair = context.generate_kem_key_pair()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        return self._key_pair.decapsulate(ciphertext)

    def close(self) -> None:
        self._key_pair.close()
        self._context.close()


def _table(title: str, results: Mapping[str, _Measured]) -> Table:
    table = Table(
        title=title,
        columns=(
            "pool size",
            Column(name="hit rate %", unit="%", better="higher"),
            Column(name="misses", better="lower"),
            Column(name="CPU us per handshake", unit="us", better="lower"),
            Column(name="x none", unit="x", better="lower"),
        ),
        chart="CPU us per handshake",
    )
    base_us = statistics.median(results[NO_POOL].times_us)
    for label, found in results.items():
        operations = found.hits + found.misses
        median_us = statistics.median(found.times_us)
        table.rows.append(
            (
                label,
                100 * found.hits / operations if operations else None,
                found.misses if operations else None,
                median_us,
                median_us / base_us,
            )
        )
    return table


def _notes() -> list[str]:
    return [
        "CPU time of this thread, post-quantum operations alone; medians of the rounds, in which the sizes take turns.",
        "none: new memory for every operation, freed afterwards. A miss does the same, beside the pool.",
        "A pool wipes the memory after each operation, so that no secret stays in it; that is what it costs.",
        "Contexts of the cryptography provider have no memory of their own, so that a pool has nothing to spare there.",
    ]
