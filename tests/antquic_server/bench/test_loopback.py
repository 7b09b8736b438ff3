"""``bench loopback``: latency without load."""

import pytest

from antquic_server.bench import loopback

pytestmark = pytest.mark.end_to_end


def test_all_three_servers_have_percentiles_and_stock_is_the_unit() -> None:
    """p50 is never above p99."""
    rows = loopback.run({**loopback.OPTIONS, **loopback.QUICK, "echoes": "50"}).tables[0].as_plain()

    assert len(rows) == 3
    assert (rows[0]["x stock p50"], rows[0]["x stock p99"]) == (1.0, 1.0)
    for row in rows:
        p50_us, p99_us = row["p50 us"], row["p99 us"]
        assert isinstance(p50_us, float)
        assert isinstance(p99_us, float)
        assert 0 < p50_us <= p99_us
