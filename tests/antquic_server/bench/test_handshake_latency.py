"""Latency of handshakes by round-trip time."""

import pytest

from antquic_server.bench.handshake_latency import Latency, latency_table, measure_latencies
from antquic_server.bench.variants import variants


def test_table_has_round_trips_and_ratios_at_each_time() -> None:
    """Median, half the range and least in ms, the first handshake as the unit; without delay no round trips."""
    results = {
        "classical": [Latency(rtt_s=0.0, times_s=[0.004]), Latency(rtt_s=0.1, times_s=[0.1, 0.11, 0.12])],
        "pure": [Latency(rtt_s=0.0, times_s=[0.006]), Latency(rtt_s=0.1, times_s=[0.22])],
    }

    assert [list(row.values()) for row in latency_table(results).as_plain()] == [
        ["classical", 0, 4.0, 0.0, 4.0, None, 1.0],
        ["classical", 100, 110.0, pytest.approx(10.0), 100.0, pytest.approx(1.0), 1.0],
        ["pure", 0, 6.0, 0.0, 6.0, None, 1.5],
        ["pure", 100, 220.0, 0.0, 220.0, pytest.approx(2.2), 2.0],
    ]


@pytest.mark.end_to_end
def test_real_handshake_takes_at_least_its_round_trips() -> None:
    """A pure handshake across 40 ms needs one round trip at least; every dial is counted."""
    pure = variants(["cryptography"])[-1]

    (latency,) = measure_latencies(pure, [40], 2)

    assert len(latency.times_s) == 2
    assert min(latency.times_s) >= 0.04
