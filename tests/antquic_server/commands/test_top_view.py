"""Frames of ``top``, made from two answers: every figure, every width and height, any answer."""

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from antquic_server.commands.status_figures import Answer, Figures
from antquic_server.commands.top_view import (
    HISTORY_LENGTH,
    KEYS_HELP,
    TALKER_ORDERS,
    WORKER_ORDERS,
    History,
    View,
    render,
    sparkline,
)


def worker(slot: int, **facts: Any) -> dict[str, Any]:
    """A worker as ``/status`` shows it."""
    return {
        "slot": slot,
        "pid": 4000 + slot,
        "state": "ready",
        "restarts": 0,
        "cpu_percent": 10.0 * (slot + 1),
        "rss_bytes": 60_000_000,
        "connections": 100 - slot,
        "loop_lag_s": 0.0015,
        "heartbeat_age_s": 0.1,
        "counters": {},
        **facts,
    }


def talker(peer: str, received: int, sent: int, relayed: int = 0, **facts: Any) -> dict[str, Any]:
    """A talker as ``/status`` shows it."""
    return {
        "peer_id": peer * 64,
        "slot": 1,
        "host": "192.0.2.1",
        "port": 9000,
        "bytes_sent": 10 * sent,
        "bytes_received": 10 * received,
        "sent_bytes_per_s": sent,
        "received_bytes_per_s": received,
        "relayed_bytes_per_s": relayed,
        **facts,
    }


def document(uptime_s: float, factor: int) -> dict[str, Any]:
    """What a node says that has been busy ``factor`` times."""
    counters = {
        "bytes_received": 1_000_000 * factor,
        "bytes_sent": 3_000_000 * factor,
        "datagrams_received": 1000 * factor,
        "datagrams_sent": 3000 * factor,
        "handshakes|ant_quic": 6 * factor,
        "relay_bytes|channel": 500_000 * factor,
        "drops|not_quic": 4 * factor,
    }
    return {
        "node": {"pid": 1, "peer_id": "ab" * 32, "version": "0.1.0", "uptime_s": uptime_s, "healthy": True},
        "workers": [worker(0, counters=counters), worker(1, state="starting", restarts=3)],
        "totals": {
            **counters,
            "active_connections": 1999,
            "handshakes_in_flight": 7,
            "relay_refusals|stream|peer_sessions": 11,
        },
        "directory": {"peers": 321},
        "relay": {
            "enabled": True,
            "sessions": {"channel": 12, "stream": 3},
            "introductions": {"direct": 30, "relayed": 10},
        },
        "punches": {"successful": 9, "failed": 1},
        "talkers": [talker("a", 10, 2000), talker("b", 900, 20, relayed=5), talker("", 1, 1, port=7, host="::1")],
    }


FIRST = Answer(at_s=10.0, document=document(100.0, 1))
SECOND = Answer(at_s=12.0, document=document(102.0, 2))


def frame(
    now: Answer = SECOND, before: Answer | None = FIRST, *, width: int = 120, height: int | None = None, **view: Any
) -> list[str]:
    """The lines of a frame."""
    figures = Figures(now, before)
    history = History()
    history.add(figures)
    console = Console(file=io.StringIO(), width=width, height=height or 500, color_system=None, emoji=False)
    console.print(render(figures, history, View(width=width, height=height, url="http://127.0.0.1:1", **view)))
    file = console.file
    assert isinstance(file, io.StringIO)
    return [line.rstrip() for line in file.getvalue().splitlines()]


EXPECTED = """\
antquic-server 0.1.0  serving 1 min 42 s  abababababab…  http://127.0.0.1:1  every 1 s
connections  1,999, 7 handshakes in flight; 321 listed peers
handshakes   3.0/s, failed 0/s
received      500.0 kB/s        500/s datagrams  █
sent            1.5 MB/s      1,500/s datagrams  █
relay        12 channels, 3 stream sessions, 250.0 kB/s
introduced   30 direct, 10 relayed (25.0% relayed)
punches      9 successful, 1 failed (90.0% successful)

WORKERS  by slot
SLOT   PID  STATE     RESTARTS    CPU   MEMORY  CONNS  HANDSHAKES          IN       OUT  LOOP LAG  HEARTBEAT
   0  4000  ready            0  10.0%  60.0 MB    100       3.0/s  500.0 kB/s  1.5 MB/s    1.5 ms   100.0 ms
   1  4001  starting         3  20.0%  60.0 MB     99         0/s           -         -    1.5 ms   100.0 ms

TOP TALKERS  by total
PEER              ADDRESS         SLOT       IN       OUT  RELAYED  IN TOTAL  OUT TOTAL
aaaaaaaaaaaaaaa…  192.0.2.1:9000     1   10 B/s  2.0 kB/s    0 B/s     100 B    20.0 kB
bbbbbbbbbbbbbbb…  192.0.2.1:9000     1  900 B/s    20 B/s    5 B/s    9.0 kB      200 B
no identity       [::1]:7            1    1 B/s     1 B/s    0 B/s      10 B       10 B

DROPPED AND REFUSED  since the start, and now
WHAT                    REASON                TOTAL    NOW
datagrams dropped       not_quic                  8  2.0/s
relay sessions refused  stream peer_sessions     11    0/s"""


def test_frame_shows_everything_of_two_answers() -> None:
    """Values of the newer one, rates between the two, and tables in columns."""
    assert "\n".join(frame()) == EXPECTED


def test_first_frame_has_no_rates_yet() -> None:
    """And does not pretend that nothing happens."""
    lines = frame(before=None)

    assert lines[2] == "handshakes   -, failed -"
    assert lines[3].split() == ["received", "-", "-", "datagrams"]
    assert lines[-2].split() == ["relay", "sessions", "refused", "stream", "peer_sessions", "11", "-"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"healthy": False}, "not healthy 1 min"),
        ({"healthy": False, "draining": True}, "draining 1 min"),
    ],
)
def test_state_of_the_node_is_said(facts: dict[str, Any], words: str) -> None:
    """Draining explains the rest."""
    now = {**SECOND.document, "node": {**document(102.0, 2)["node"], **facts}}
    assert words in frame(Answer(at_s=12.0, document=now))[0]


def test_node_that_is_away_is_said_to_be_so() -> None:
    """Its last figures stay below."""
    lines = frame(trouble="no node answers at http://127.0.0.1:1: Connection refused")

    assert "not answering" in lines[0]
    assert lines[1] == "trying again: no node answers at http://127.0.0.1:1: Connection refused"
    assert lines[3] == "handshakes   3.0/s, failed 0/s"


def test_pause_and_keys_are_shown() -> None:
    """Keys only where somebody can press them."""
    lines = frame(paused=True, keys=True)

    assert "PAUSED" in lines[0]
    assert lines[-1] == KEYS_HELP
    assert KEYS_HELP not in frame()


@pytest.mark.parametrize(
    ("order", "first"),
    [("total", "a"), ("in", "b"), ("out", "a"), ("relayed", "b")],
)
def test_talkers_are_ordered(order: str, first: str) -> None:
    """As the heading says."""
    lines = frame(talker_order=order)
    at = lines.index(f"TOP TALKERS  by {order}")
    assert lines[at + 2].startswith(first * 15)


@pytest.mark.parametrize(
    ("order", "first"),
    [("slot", "0"), ("cpu", "1"), ("memory", "0"), ("connections", "0"), ("throughput", "0"), ("lag", "0")],
)
def test_workers_are_ordered(order: str, first: str) -> None:
    """Whoever is equal, by slot."""
    lines = frame(worker_order=order)
    at = lines.index(f"WORKERS  by {order}")
    assert lines[at + 2].split()[0] == first


def test_every_order_is_tried() -> None:
    """By one of the tests above."""
    assert set(TALKER_ORDERS) == {"total", "in", "out", "relayed"}
    assert set(WORKER_ORDERS) == {"slot", "cpu", "memory", "connections", "throughput", "lag"}


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 132, 200])
@pytest.mark.parametrize("height", [1, 5, 10, 15, 24, 60])
def test_frame_fits_the_terminal(width: int, height: int) -> None:
    """Neither wider nor higher; the heading is always there, and the keys where there is room for a table."""
    lines = frame(width=width, height=height, keys=True)

    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("antquic-server")
    assert ("WORKERS" in "".join(lines)) == (height >= 15)
    assert ("q quit" in lines[-1]) == (height >= 10)


def test_narrow_terminal_has_fewer_columns() -> None:
    """What says most of a worker stays."""
    lines = frame(width=40)
    at = next(index for index, line in enumerate(lines) if line.startswith("WORKERS"))
    assert lines[at + 1].split() == ["SLOT", "STATE", "CPU", "CONNS", "LOOP", "LAG"]


def test_rows_that_are_left_out_are_counted() -> None:
    """Of 64 workers a low terminal shows some; talkers and losses keep a place."""
    many = {**SECOND.document, "workers": [worker(slot) for slot in range(64)]}
    lines = frame(Answer(at_s=12.0, document=many), height=30)

    heading = next(line for line in lines if line.startswith("WORKERS"))
    shown = sum(line.endswith("1.5 ms   100.0 ms") for line in lines)
    assert heading == f"WORKERS  by slot, {64 - shown} more"
    assert 5 < shown < 20
    assert any(line.startswith("TOP TALKERS") for line in lines)
    assert any(line.startswith("DROPPED AND REFUSED") for line in lines)


def test_older_node_without_the_newer_sections() -> None:
    """What it does not say is not shown, or unknown."""
    bare: dict[str, Any] = {"node": {}, "workers": [], "totals": {}, "directory": {}}
    lines = frame(Answer(at_s=12.0, document=bare), None)

    assert lines[0].startswith("antquic-server -  serving -  -")
    assert len(lines) == 5


def test_text_cannot_command_the_terminal() -> None:
    """Nor is it taken for markup of the printing library."""
    wicked = {**SECOND.document, "talkers": [talker("a", 1, 1, host="[red]\x1b[2J")]}
    text = "\n".join(frame(Answer(at_s=12.0, document=wicked)))

    assert "\x1b" not in text
    assert "[red]\\x1b[2J" in text


def test_sparkline_draws_the_last_values() -> None:
    """The largest has full height; without Unicode the bars are of ASCII."""
    assert sparkline([9, 0, 1, 2], 3) == "▁▅█"
    assert sparkline([0, 1], 5, unicode=False) == "_@"
    assert sparkline([0.0, 0.0], 5) == "▁▁"
    assert sparkline([1.0], 0) == sparkline([], 9) == ""


def test_history_is_bounded() -> None:
    """By the length of the longest line; an answer without rates adds nothing."""
    history = History()
    figures = Figures(SECOND, FIRST)
    for _ in range(HISTORY_LENGTH + 9):
        history.add(figures)
    history.add(Figures(FIRST))

    assert history.received == [500_000.0] * HISTORY_LENGTH
    assert history.sent == [1_500_000.0] * HISTORY_LENGTH


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e15, 1e15) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "node": st.dictionaries(st.sampled_from(["uptime_s", "peer_id", "pid", "healthy"]), ANY_JSON) | ANY_JSON,
        "workers": st.lists(st.dictionaries(st.sampled_from(sorted(worker(0))), ANY_JSON), max_size=3) | ANY_JSON,
        "totals": st.dictionaries(st.sampled_from(sorted(document(1, 1)["totals"])), ANY_JSON) | ANY_JSON,
        "relay": st.dictionaries(st.sampled_from(["sessions", "introductions", "enabled"]), ANY_JSON) | ANY_JSON,
        "punches": ANY_JSON,
        "directory": ANY_JSON,
        "talkers": st.lists(st.dictionaries(st.sampled_from(sorted(talker("a", 1, 1))), ANY_JSON)) | ANY_JSON,
    },
)


@settings(deadline=None)
@given(
    now=SECTIONS,
    before=SECTIONS,
    talker_order=st.sampled_from(sorted(TALKER_ORDERS)),
    worker_order=st.sampled_from(sorted(WORKER_ORDERS)),
)
def test_any_answers_can_be_shown(now: Any, before: Any, talker_order: str, worker_order: str) -> None:
    """Whatever a node of another version says."""
    lines = frame(
        Answer(at_s=2.0, document=now),
        Answer(at_s=1.0, document=before),
        talker_order=talker_order,
        worker_order=worker_order,
    )
    assert lines[0].startswith("antquic-server")
