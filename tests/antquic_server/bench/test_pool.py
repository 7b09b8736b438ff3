"""``bench pool``: hit rates follow from the work, whatever the time it takes."""

from antquic_server.bench import pool
from antquic_server.bench.variants import available_pools


def test_hits_and_misses_are_those_of_the_work() -> None:
    """Accepting never misses; of four dials at a time a pool of one context serves one."""
    options = {**pool.OPTIONS, "rounds": "2", "sizes": "1,4", "dials": "4", "handshakes": "3"}

    tables = pool.run(options).tables

    assert len(tables) == 2 * len(available_pools())
    for accepting, dialling in zip(tables[::2], tables[1::2], strict=True):
        assert [row["hit rate %"] for row in accepting.as_plain()] == [None, 100.0, 100.0]
        assert [row["hit rate %"] for row in dialling.as_plain()] == [None, 25.0, 100.0]
        assert [row["misses"] for row in dialling.as_plain()] == [None, 6, 0]
        for table in (accepting, dialling):
            rows = table.as_plain()
            assert [row["pool size"] for row in rows] == ["none", "1", "4"]
            assert rows[0]["x none"] == 1.0
            for row in rows:
                cpu_us = row["CPU us per handshake"]
                assert isinstance(cpu_us, float)
                assert cpu_us > 0
