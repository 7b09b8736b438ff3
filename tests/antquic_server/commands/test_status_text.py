"""Status text: what people read, for complete, partial and newer answers."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from antquic_server.commands.status_text import render_status

WORKER = {
    "slot": 0,
    "pid": 4711,
    "generation": 2,
    "state": "ready",
    "cpu_percent": 12.34,
    "rss_bytes": 52_428_800,
    "open_files": 21,
    "connections": 1234,
    "loop_lag_s": 0.0015,
    "heartbeat_age_s": 0.1,
    "restarts": 1,
}

STATUS: dict[str, Any] = {
    "node": {
        "peer_id": "ab" * 4,
        "uptime_s": 3725,
        "version": "0.1.0",
        "workers": 2,
        "listen": ["0.0.0.0:10000", "[::]:10000"],
        "pqc_provider": "liboqs",
        "draining": False,
    },
    "workers": [
        WORKER,
        {**WORKER, "slot": 1, "pid": 99, "state": "starting", "cpu_percent": None, "loop_lag_s": None},
    ],
    "totals": {
        "active_connections": 2468,
        "handshakes_in_flight": 3,
        "datagrams_received": 1_000_000,
        "bytes_received": 1_200_000_000,
        "datagrams_sent": 10,
        "bytes_sent": 999,
        "loop_lag_s": 0.5,
        "handshakes|ant-quic": 2000,
        "handshakes|x509": 17,
        "drops|queue_full": 0,
        "retries": 4,
    },
    "directory": {"peers": 2000, "connections": 2010},
}

EXPECTED = """\
node         serving for 1 h 2 min, version 0.1.0
peer id      abababab
listen       0.0.0.0:10000, [::]:10000
provider     liboqs
connections  2,468 (3 handshakes in flight)
directory    2,000 peers with 2,010 connections
received     1.2 GB in 1,000,000 datagrams
sent         999 B in 10 datagrams

SLOT   PID     STATE  GENERATION  RESTARTS    CPU   MEMORY  FILES  CONNECTIONS  LOOP LAG  HEARTBEAT
   0  4711     ready           2         1  12.3%  52.4 MB     21        1,234    1.5 ms   100.0 ms
   1    99  starting           2         1      -  52.4 MB     21        1,234         -   100.0 ms

handshakes  ant-quic 2,000, x509 17
retries     4"""


def test_complete_answer_gives_aligned_tables() -> None:
    """Node, workers and non-zero counters stand in columns."""
    assert render_status(STATUS) == EXPECTED


RELAY: dict[str, Any] = {
    "enabled": True,
    "sessions": {"channel": 1200, "stream": 3, "peers": 900},
    "delivered": {"channel": {"bytes": 1_200_000_000}, "stream": {"bytes": 5}},
    "introductions": {"direct": 15, "relayed": 2},
    "canary": {"channel": {"ok": 4, "latency_s": 0.0012}, "stream": {"latency_s": None}},
}


def test_relay_has_its_lines_between_node_and_workers() -> None:
    """What it holds and delivers, whether it forwards, and what the peers were given instead."""
    totals = {"relay_bytes|channel": 1, "relay_sessions|stream": 3, "relay_refusals|channel|open_rate": 2}
    lines = render_status({**STATUS, "totals": totals, "relay": RELAY}).splitlines()

    assert lines[8:12] == [
        "relay        1,200 channels and 3 stream sessions of 900 peers",
        "relayed      1.2 GB by channel, 5 B by stream",
        "canary       channel 1.2 ms, stream -",
        "introduced   15 direct, 2 relayed",
    ]
    assert lines[-1] == "relay refusals  channel open_rate 2"


def test_relay_that_is_off_says_so() -> None:
    """And what it does not say is shown as unknown."""
    text = render_status({**STATUS, "relay": {"enabled": False}})

    assert "relay        off; - channels and - stream sessions of - peers" in text
    assert "canary       -" in text


def test_draining_node_says_so() -> None:
    """A node on its way out is not shown as serving."""
    assert "draining for" in render_status({**STATUS, "node": {**STATUS["node"], "draining": True}})


def test_unhealthy_node_says_so() -> None:
    """A node with a slot that nobody serves is not shown as serving."""
    assert "not healthy for" in render_status({**STATUS, "node": {**STATUS["node"], "healthy": False}})


def test_empty_answer_is_shown_as_unknown() -> None:
    """Missing values are dashes, not errors."""
    text = render_status({"node": {}, "workers": [], "totals": {}, "directory": {}})

    assert "peer id      -" in text
    assert "serving for -, version -" in text


def test_text_cannot_command_the_terminal() -> None:
    """Escape sequences in names and labels are shown as escapes."""
    text = render_status({"node": {"peer_id": "\x1b[2J"}, "totals": {"drops|\x07\n": 1}})

    assert "\x1b" not in text
    assert "\\x1b[2J" in text
    assert "\\x07\\n 1" in text


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e15, 1e15) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    node=st.dictionaries(st.sampled_from(sorted(STATUS["node"])), ANY_JSON),
    worker=st.dictionaries(st.sampled_from(sorted(WORKER)), ANY_JSON),
    relay=st.dictionaries(st.sampled_from(sorted(RELAY)), ANY_JSON),
    totals=st.dictionaries(st.sampled_from(sorted(STATUS["totals"])) | st.text(max_size=8), ANY_JSON),
)
def test_any_answer_can_be_shown(node: Any, worker: Any, relay: Any, totals: Any) -> None:
    """Whatever a node of another version says, the command shows what it can."""
    text = render_status({"node": node, "workers": [worker], "totals": totals, "directory": {}, "relay": relay})

    assert text.startswith("node  ")
