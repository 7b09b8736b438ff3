"""``top``: its command line, and one frame where nobody looks."""

import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from antquic_server import cli
from antquic_server.commands.top import interval
from antquic_server.errors import ConfigurationError
from support.http_answers import answering


def document(sent: int, uptime_s: float = 5.0) -> dict[str, Any]:
    """What a node says that has sent so many bytes."""
    return {
        "node": {"pid": 1, "peer_id": "ab" * 32, "version": "0.1.0", "uptime_s": uptime_s},
        "workers": [{"slot": 0, "state": "ready", "counters": {"bytes_sent": sent}, "heartbeat_age_s": 0.0}],
        "totals": {"bytes_sent": sent},
        "directory": {"peers": 0},
        "talkers": [{"peer_id": "cd" * 32, "sent_bytes_per_s": 1, "received_bytes_per_s": 2}],
    }


def test_one_frame_is_printed_where_the_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """After one interval, so that it has rates; no escape sequences."""
    with answering(json.dumps(document(9)).encode()) as url:
        assert cli.main(["top", "--interval", "0.2", "--admin", url]) == 0

    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("antquic-server 0.1.0  serving 5 s")
    assert "\nsent               0 B/s            - datagrams" in printed.out
    assert "\x1b" not in printed.out


def test_node_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """From the beginning: a mistake in the address, most likely."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert cli.main(["top", "--once", "--admin", f"127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().err.endswith("Connection refused\n")


@pytest.mark.parametrize("text", ["0", "0.1", "-1", "3601", "nan", "inf", "often", ""])
def test_impossible_interval_is_a_mistake(text: str) -> None:
    """Too often is as wrong as no number at all."""
    with pytest.raises(ConfigurationError, match="--interval"):
        interval(text)


def test_interval_is_in_seconds() -> None:
    """Fractions included."""
    assert interval("0.5") == 0.5


def test_other_commands_do_not_wait_for_the_screen() -> None:
    """The library that draws it is loaded only when it is wanted."""
    code = "import sys, antquic_server.cli; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
