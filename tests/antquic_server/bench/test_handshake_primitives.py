"""Primitives of a handshake by themselves."""

from antquic_server.bench.handshake_primitives import primitive_table
from antquic_server.bench.variants import variants
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.pool import PqcPool


def test_every_handshake_has_its_primitives() -> None:
    """Times and ratios to the first row; only the mutual one verifies a client."""
    chosen = variants(["cryptography"])

    rows = primitive_table(chosen, {"cryptography": PqcPool(CryptographyProvider(), 4)}, 2).as_plain()

    assert [row["handshake"] for row in rows] == [variant.label for variant in chosen]
    for row, variant in zip(rows, chosen, strict=True):
        assert (row["verification"] is not None) == variant.mutual
        for column in ("key generation", "key exchange", "signature"):
            value, unit = row[column], rows[0][column]
            assert isinstance(value, float)
            assert isinstance(unit, float)
            assert value > 0
            assert row[f"x {column}"] == value / unit
