"""The screen of ``top``: what keys and answers do to it. A real terminal is in tests/end_to_end/test_top.py."""

import io
from typing import Any

from rich.console import Console

from antquic_server.commands.status_figures import Answer
from antquic_server.commands.top_screen import Screen
from antquic_server.commands.top_view import View


def document(sent: int, uptime_s: float = 5.0) -> dict[str, Any]:
    """What a node says that has sent so many bytes."""
    return {
        "node": {"pid": 1, "peer_id": "ab" * 32, "version": "0.1.0", "uptime_s": uptime_s},
        "workers": [{"slot": 0, "state": "ready", "counters": {"bytes_sent": sent}, "heartbeat_age_s": 0.0}],
        "totals": {"bytes_sent": sent},
        "directory": {"peers": 0},
        "talkers": [{"peer_id": "cd" * 32, "sent_bytes_per_s": 1, "received_bytes_per_s": 2}],
    }


def shown(screen: Screen) -> str:
    """What is to be seen of a screen."""
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(screen.frame(120, None))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_keys_set_order_and_pause() -> None:
    """Letters go round one way, arrows both; the heading says by what."""
    screen = Screen(View(width=120))
    screen.take(Answer(at_s=1.0, document=document(0)))
    assert "TOP TALKERS  by total" in shown(screen)
    for key, words in (
        ("t", "TOP TALKERS  by in"),
        ("left", "TOP TALKERS  by total"),
        ("left", "TOP TALKERS  by relayed"),
        ("right", "TOP TALKERS  by total"),
        ("w", "WORKERS  by cpu"),
        ("up", "WORKERS  by slot"),
        ("up", "WORKERS  by lag"),
        ("down", "WORKERS  by slot"),
        ("x", "WORKERS  by slot"),
    ):
        assert screen.press(key)
        assert words in shown(screen), key
    assert not screen.press("q")


def test_paused_screen_stands_still() -> None:
    """Until it goes on with the newest answer."""
    screen = Screen(View(width=120))
    screen.take(Answer(at_s=1.0, document=document(0)))
    screen.press("p")
    screen.take(Answer(at_s=2.0, document=document(5000, 6.0)))
    assert "PAUSED" in shown(screen)
    assert "serving 5 s" in shown(screen)
    screen.press(" ")
    screen.take(Answer(at_s=3.0, document=document(7000, 7.0)))
    assert "PAUSED" not in shown(screen)
    assert "2.0 kB/s" in shown(screen)


def test_node_may_go_away_and_come_back() -> None:
    """Its last figures are kept meanwhile; one that was started anew has no rates over that."""
    screen = Screen(View(width=120))
    screen.take(Answer(at_s=1.0, document=document(9000)))
    screen.take("no node answers at http://127.0.0.1:1: Connection refused")
    assert "not answering" in shown(screen)
    assert "Connection refused" in shown(screen)
    screen.take(Answer(at_s=5.0, document=document(10, 1.0)))
    assert "serving 1 s" in shown(screen)
    assert "sent                   -" in shown(screen)


def test_screen_without_an_answer_is_empty() -> None:
    """There is nothing to be shown yet."""
    assert shown(Screen(View(width=80))) == "\n"
