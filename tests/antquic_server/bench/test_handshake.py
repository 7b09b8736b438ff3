"""``bench handshake``: what it measures is what happens on the wire."""

from antquic_server.bench import handshake


def test_rows_have_plausible_sizes_and_ratios() -> None:
    """
    Sizes follow from the protocol, so they can be checked exactly where QUIC pads and loosely elsewhere.

    A classical ClientHello fits one padded datagram, a post-quantum one takes two; a server flight with an ML-DSA key
    and signature exceeds 5.2 kB; the classical row is the unit.
    """
    report = handshake.run({"rounds": "3", "live_s": "0"})

    rows = report.tables[0].as_plain()
    classical, *others = rows
    assert classical["ClientHello B"] == 1200
    assert classical["x CPU"] == 1.0
    assert classical["x bytes"] == 1.0
    for row in others:
        assert row["ClientHello B"] == 2400
        assert isinstance(row["CPU us"], float)
        assert row["CPU us"] > 0
    pure = [row for row in others if str(row["handshake"]).startswith("pure")]
    assert pure
    for row in pure:
        flight_bytes = row["server flight B"]
        assert isinstance(flight_bytes, int)
        assert 5261 < flight_bytes <= 7200, "key 1952 + signature 3309 at least, three times 2400 at most"


def test_primitives_are_measured_for_every_row() -> None:
    """Every row has its primitives, as times and as ratios to the first row; only the mutual ones verify a client."""
    report = handshake.run({"rounds": "2", "live_s": "0"})

    rows = report.tables[1].as_plain()
    assert [row["handshake"] for row in rows] == [row["handshake"] for row in report.tables[0].as_plain()]
    for row in rows:
        mutual = str(row["handshake"]).startswith("pure")
        assert (row["verification"] is not None) == mutual
        for column in ("key generation", "key exchange", "signature"):
            value = row[column]
            unit = rows[0][column]
            assert isinstance(value, float)
            assert isinstance(unit, float)
            assert value > 0
            assert row[f"x {column}"] == value / unit
