"""The command line of ``antquic-server peer``."""

import pytest

from antquic_server.cli import main


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["dance"], "listen, connect, send, receive"),
        (["connect"], "PEER_ID"),
        (["connect", "nonsense"], "64 hexadecimal digits"),
        (["send", "file"], "FILE PEER_ID"),
        (["listen", "x"], "nothing more"),
        (["send", "/does/not/exist", "0" * 64], "a file that exists"),
        (["receive", "/does/not/exist"], "a directory that exists"),
        (["listen", "--timeout", "0"], "discovery_timeout_s"),
        (["listen", "--via", "nowhere"], "known_peers"),
    ],
)
def test_a_wrong_command_line_is_one_line(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what was expected, and exit code 2."""
    assert main(["peer", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


def test_an_unreachable_peer_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason, and exit code 1."""
    assert main(["peer", "connect", "ab" * 32, "--listen", "127.0.0.1:0"]) == 1
    assert "no_coordinator" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """Of every action."""
    with pytest.raises(SystemExit):
        main(["peer", "--help"])
    text = capsys.readouterr().out
    for action in ("listen", "connect", "send", "receive"):
        assert f"antquic-server peer {action}" in text
