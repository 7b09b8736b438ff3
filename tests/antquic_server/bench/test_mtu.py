"""``bench mtu``: with and without path MTU discovery in one run."""

import pytest

from antquic_server.bench import mtu

pytestmark = pytest.mark.end_to_end


def test_both_sizes_carry_data_and_1200_is_the_unit() -> None:
    """With a node and between peers: the first row stays at 1200 bytes, the second has found its maximum."""
    options = {**mtu.OPTIONS, "rounds": "1", "seconds": "1", "connections": "1", "kilobytes": "50", "max": "1400"}

    tables = mtu.run(options).tables

    assert len(tables) == 2
    for rows in (table.as_plain() for table in tables):
        assert [row["datagram bytes"] for row in rows] == [1200, 1400]
        assert rows[0]["x 1200"] == 1.0
        for row in rows:
            rate = row["MB/s"]
            assert isinstance(rate, float)
            assert rate > 0
