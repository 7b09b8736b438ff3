"""``bench handshake``: what it measures is what happens on the wire."""

import pytest

from antquic_server.bench import handshake
from antquic_server.bench.variants import variants

VARIANTS = variants(["cryptography"])
IN_MEMORY = {"rounds": "3", "live_s": "0", "rtt_ms": "0", "dials": "0"}


def test_rows_have_plausible_sizes_and_ratios() -> None:
    """
    Sizes follow from the protocol, so they can be checked exactly where QUIC pads and loosely elsewhere.

    A classical ClientHello fits one padded datagram, a post-quantum one takes two; a server flight with an ML-DSA key
    and signature exceeds 5.2 kB; the classical row is the unit.
    """
    report = handshake.run(IN_MEMORY)

    rows = report.tables[0].as_plain()
    classical, *others = rows
    assert classical["ClientHello B"] == 1200
    assert classical["x CPU"] == 1.0
    assert classical["x bytes"] == 1.0
    for row in others:
        assert row["ClientHello B"] == 2400
        assert (row["datagrams up"], row["datagrams down"]) > (2, 2)
        assert isinstance(row["CPU us"], float)
        assert row["CPU us"] > 0
    pure = [row for row in others if str(row["handshake"]).startswith("pure")]
    assert pure
    for row in pure:
        flight_bytes = row["server flight B"]
        assert isinstance(flight_bytes, int)
        assert 5261 < flight_bytes <= 7200, "key 1952 + signature 3309 at least, three times 2400 at most"


@pytest.mark.end_to_end
def test_whole_run_has_every_table_for_every_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, primitives, real sockets and latency, classical being the unit. Two handshakes of all, to be short."""
    monkeypatch.setattr(handshake, "variants", lambda _: [VARIANTS[0], VARIANTS[-1]])
    report = handshake.run({"rounds": "1", "live_s": "1", "rtt_ms": "0,10", "dials": "1"})

    labels = [row["handshake"] for row in report.tables[0].as_plain()]
    assert [len(table.rows) for table in report.tables] == [len(labels)] * 3 + [2 * len(labels)]
    for table in report.tables[1:]:
        assert list(dict.fromkeys(row["handshake"] for row in table.as_plain())) == labels
    assert all(isinstance(row["x latency"], float) for row in report.tables[3].as_plain())


def test_options_leave_out_what_is_not_wanted() -> None:
    """Without seconds no real sockets, without dials no latency."""
    assert len(handshake.run(IN_MEMORY).tables) == 2
