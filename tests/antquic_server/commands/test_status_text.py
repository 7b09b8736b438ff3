"""Status text: what people read, for complete, partial and newer answers."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from antquic_server.commands import status_text
from antquic_server.commands.status_figures import Answer


def render_status(status: dict[str, Any], before: dict[str, Any] | None = None) -> str:
    """The text of one answer, or of two that are two seconds apart."""
    older = None if before is None else Answer(at_s=8.0, document=before)
    return status_text.render_status(Answer(at_s=10.0, document=status), older)


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
    assert lines[-2:] == [
        "DROPPED OR REFUSED      REASON             TOTAL  NOW",
        "relay sessions refused  channel open_rate      2    -",
    ]


def test_relay_that_is_off_says_so() -> None:
    """And what it does not say is shown as unknown."""
    text = render_status({**STATUS, "relay": {"enabled": False}})

    assert "relay        off; - channels and - stream sessions of - peers" in text
    assert "canary       -" in text


def test_punches_are_counted() -> None:
    """Where the node says anything of them."""
    text = render_status({**STATUS, "punches": {"successful": 1234, "failed": 5}})
    assert "\npunches      1,234 successful, 5 failed\n" in text


def test_talkers_and_losses_have_their_tables() -> None:
    """Words to the left, numbers to the right; a client without identity, and a peer whose address is not known."""
    talkers = [
        {
            "peer_id": "ab" * 32,
            "slot": 1,
            "host": "192.0.2.1",
            "port": 9,
            "received_bytes_per_s": 1000,
            "bytes_sent": 5,
        },
        {"peer_id": "", "slot": 0, "host": "", "port": 0, "sent_bytes_per_s": 20},
    ]
    totals = {"drops|not_quic": 1000, "drops|truncated": 1, "worker_restarts|frozen": 2}
    text = render_status({**STATUS, "totals": totals, "talkers": talkers})
    tables = text.partition("PEER")
    assert (tables[1] + tables[2]).splitlines() == [
        f"PEER{' ' * 60}  ADDRESS      SLOT        IN     OUT  RELAYED  IN TOTAL  OUT TOTAL",
        f"{'ab' * 32}  192.0.2.1 9     1  1.0 kB/s       -        -         -        5 B",
        f"no identity{' ' * 53}  - 0             0         -  20 B/s        -         -          -",
        "",
        "DROPPED OR REFUSED  REASON     TOTAL  NOW",
        "datagrams dropped   not_quic   1,000    -",
        "workers replaced    frozen         2    -",
        "datagrams dropped   truncated      1    -",
    ]


def test_two_answers_give_rates() -> None:
    """Beside the totals, since the older answer."""
    node = {**STATUS["node"], "pid": 7}
    counters = {"bytes_received": 1_200_000_000, "handshakes|x509": 17, "drops|truncated": 5}
    before = {**STATUS, "node": {**node, "uptime_s": 3723}, "totals": counters, "relay": RELAY}
    grown = {key: value + 3000 for key, value in counters.items()}
    lines = render_status({**STATUS, "node": node, "totals": grown, "relay": RELAY}, before).splitlines()

    assert lines[4] == "connections  0 (0 handshakes in flight), 1,500/s handshakes"
    assert lines[6] == "received     1.2 GB in 0 datagrams, 1.5 kB/s"
    assert lines[7] == "sent         0 B in 0 datagrams, -"
    assert lines[9] == "relayed      1.2 GB by channel, 5 B by stream, 0 B/s"
    assert any(line.split() == ["datagrams", "dropped", "truncated", "3,005", "1,500/s"] for line in lines)


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
    assert "datagrams dropped   \\x07\\n      1" in text


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
    talkers=ANY_JSON,
)
def test_any_answer_can_be_shown(node: Any, worker: Any, relay: Any, totals: Any, talkers: Any) -> None:
    """Whatever a node of another version says, the command shows what it can."""
    answer = {"node": node, "workers": [worker], "totals": totals, "directory": {}, "relay": relay, "talkers": talkers}
    text = render_status(answer, answer)

    assert text.startswith("node  ")
