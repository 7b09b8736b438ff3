"""``bench reuse``: a request on a new connection and on a live one."""

import pytest

from antquic_server.bench import reuse
from antquic_server.bench.variants import variants

pytestmark = pytest.mark.end_to_end


def test_every_handshake_has_both_ways_and_live_is_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new connection is never free. Two of the handshakes, to be short."""
    chosen = variants(["cryptography"])
    monkeypatch.setattr(reuse, "variants", lambda _: [chosen[0], chosen[-1]])

    rows = reuse.run({**reuse.OPTIONS, **reuse.QUICK}).tables[0].as_plain()

    assert [row["request on a"] for row in rows] == ["live connection", "new connection"] * 2
    for live, new in zip(rows[::2], rows[1::2], strict=True):
        assert live["handshake"] == new["handshake"]
        assert (live["x CPU"], live["x latency"]) == (1.0, 1.0)
        ratio = new["x CPU"]
        assert isinstance(ratio, float)
        assert ratio > 1
