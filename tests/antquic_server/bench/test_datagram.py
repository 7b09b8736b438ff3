"""``bench datagram``: ours and the yardstick in one run."""

import pytest

from antquic_server.bench import datagram

pytestmark = pytest.mark.end_to_end


def test_all_three_servers_echo_and_stock_is_the_unit() -> None:
    """The table has a row for stock aioquic, for it on uvloop, and for a node; ratios are to the first."""
    options = {**datagram.OPTIONS, "rounds": "1", "seconds": "1", "connections": "2"}

    rows = datagram.run(options).tables[0].as_plain()

    assert len(rows) == 3
    assert rows[0]["x stock"] == 1.0
    for row in rows:
        rate = row["echoes/s"]
        assert isinstance(rate, float)
        assert rate > 0
