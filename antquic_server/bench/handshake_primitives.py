"""What the primitives of a handshake cost by themselves, on the server's side of the exchange."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric import ed25519

from antquic_server.bench.load_client import random_node_key
from antquic_server.bench.report import Column, Table
from antquic_server.bench.variants import Variant
from antquic_server.pqc.pool import PqcPool
from antquic_server.protocol.key_exchange import ClientKeyShare, answer_key_share_untrusted
from antquic_server.protocol.seam.tls_context import SigningKey

__all__ = ["primitive_table"]


def primitive_table(chosen: Sequence[Variant], pools: Mapping[str, PqcPool], rounds: int) -> Table:
    """
    Measure the primitives of each variant, ``rounds`` times each, and return the medians: CPU time of this thread, us.

    The first variant is the unit of the ratios. Nobody verifies anything for it, so verification has none.
    """
    table = Table(
        title="primitives alone: CPU us, and x times classical",
        columns=(
            "handshake",
            *(column for name in ("key generation", "key exchange", "signature") for column in _columns(name)),
            _columns("verification")[0],
        ),
        chart="x signature",
    )
    base_us: list[float] = []
    for variant in chosen:
        operations, verify = _primitives(variant, pools)
        times_us = [_median_us(operation, rounds) for operation in operations]
        base_us = base_us or times_us
        row: list[str | float | None] = [variant.label]
        for time_us, unit_us in zip(times_us, base_us, strict=True):
            row += [time_us, time_us / unit_us]
        table.rows.append([*row, None if verify is None else _median_us(verify, rounds)])
    return table


def _primitives(
    variant: Variant, pools: Mapping[str, PqcPool]
) -> tuple[list[Callable[[], object]], Callable[[], object] | None]:
    """Return key generation, key exchange and signature; then verification, where the client authenticates."""
    pool = pools.get(variant.provider) or next(iter(pools.values()))
    signer: SigningKey | ed25519.Ed25519PrivateKey
    message = b"m" * 130
    verify: Callable[[], object] | None = None
    if variant.mutual:
        signer = random_node_key(pool)
        key, signature = signer.public_key, signer.sign(message)
        verify = _verifier(pool, key, message, signature)
    else:
        signer = ed25519.Ed25519PrivateKey.generate()
    share = ClientKeyShare(pool, variant.group)
    share_bytes = share.share
    share.close()
    operations = [
        _share_maker(pool, variant.group),
        _share_answerer(pool, variant.group, share_bytes),
        _signer(signer, message),
    ]
    return operations, verify


def _share_maker(pool: PqcPool, group: int) -> Callable[[], object]:
    return lambda: ClientKeyShare(pool, group).close()


def _share_answerer(pool: PqcPool, group: int, share: bytes) -> Callable[[], object]:
    return lambda: answer_key_share_untrusted(pool, group, share)


def _signer(key: SigningKey | ed25519.Ed25519PrivateKey, message: bytes) -> Callable[[], object]:
    return lambda: key.sign(message)


def _verifier(pool: PqcPool, key: bytes, message: bytes, signature: bytes) -> Callable[[], object]:
    return lambda: pool.verify(key, message, signature)


def _median_us(operation: Callable[[], object], rounds: int) -> float:
    operation()
    samples = []
    for _ in range(rounds):
        started_ns = time.thread_time_ns()
        operation()
        samples.append((time.thread_time_ns() - started_ns) / 1000)
    return statistics.median(samples)


def _columns(name: str) -> tuple[Column, Column]:
    return Column(name=name, unit="us", better="lower"), Column(name=f"x {name}", unit="x", better="lower")
