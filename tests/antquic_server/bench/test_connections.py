"""``bench connections``: idle connections of both servers."""

import pytest

from antquic_server.bench import connections
from antquic_server.bench.connections import Idle
from antquic_server.errors import UsageError


def test_cpu_of_a_connection_is_what_came_with_it() -> None:
    """Per second and connection, less what the server uses without them."""
    idle = Idle(bytes_per_connection=1.0, base_cpu_share=0.01, cpu_share=0.03, connections=100)

    assert idle.cpu_us_per_connection_s == pytest.approx(200)


def test_number_of_connections_is_bounded() -> None:
    """The client has them all as well."""
    with pytest.raises(UsageError, match="connections = '5001': at most 5000"):
        connections.run({**connections.OPTIONS, "connections": "5001"})


@pytest.mark.end_to_end
def test_both_servers_grow_and_stock_is_the_unit() -> None:
    """A row for each number of connections and server; memory is there to be seen."""
    options = {**connections.OPTIONS, **connections.QUICK, "connections": "60"}

    rows = connections.run(options).tables[0].as_plain()

    assert [(row["connections"], row["server"]) for row in rows] == [
        (60, "aioquic.asyncio.serve"),
        (60, "antquic-server, 1 worker"),
    ]
    assert rows[0]["x stock memory"] == 1.0
    for row in rows:
        kilobytes = row["kB each"]
        assert isinstance(kilobytes, float)
        assert 5 < kilobytes < 1000
