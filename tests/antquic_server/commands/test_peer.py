"""The command line of ``antquic-server peer``."""

import argparse
import json
import socket
import time
from pathlib import Path

import pytest

from antquic_server.cli import main
from antquic_server.commands import peer
from antquic_server.config.load import CONFIG_VARIABLE
from antquic_server.peer.punching import ADVICE, DETAILS, Failure
from antquic_server.peer.settings import PeerSettings


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["dance"], "listen, connect, send, receive"),
        (["connect"], "PEER_ID"),
        (["connect", "nonsense"], "64 hexadecimal digits"),
        (["connect", "xy" * 32], "64 hexadecimal digits"),
        (["send", "file"], "FILE PEER_ID"),
        (["listen", "x"], "nothing more"),
        (["send", "/does/not/exist", "0" * 64], "a file that exists"),
        (["receive", "/does/not/exist"], "a directory that exists"),
        (["listen", "--timeout", "0"], "--timeout: nat.discovery_timeout_s = 0.0: expected a number from 0.1 to 300"),
        (["listen", "--retries", "21"], "--retries: nat.hole_punch_retries = 21: expected an integer from 0 to 20"),
        (["listen", "--retries", "many"], "--retries"),
        (["listen", "--set", "nat.max_candidates=0"], "--set: nat.max_candidates = 0"),
        (["listen", "--set", "nat.hole_punch_retry=1"], "did you mean nat.hole_punch_retries?"),
        (["listen", "--set", "mtu.max=1100"], "--set: mtu.max = 1100: expected an integer from 1200 to 65527"),
        (["listen", "--set", "mtu.min=1453"], "at most mtu.max, which is 1452"),
        (["listen", "--config", "/does/not/exist.toml"], "command line: --config"),
        (["receive", ".", "--count", "0"], "a number above 0"),
        (["listen", "--via", "nowhere"], "known_peers"),
    ],
)
def test_a_wrong_command_line_is_one_line(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what was expected, and exit code 2."""
    assert main(["peer", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


def settings_of(*words: str) -> PeerSettings:
    """Return the settings that a command line makes."""
    parser = argparse.ArgumentParser()
    peer.add_arguments(parser)
    return peer._settings(parser.parse_args(words))


def test_a_file_is_for_peers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags win over it, ``--set`` over everything; what is for nodes only does no harm."""
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    file = tmp_path / "peer.toml"
    file.write_text(
        "[nat]\ndiscovery_timeout_s = 20\nhole_punch_retries = 5\nenable_symmetric_nat = false\n"
        "[mtu]\nmax = 1280\n[pqc]\nprovider = 'cryptography'\n[endpoint]\nworkers = 4\nmax_connections = 9\n"
    )
    settings = settings_of("listen", "--config", str(file), "--timeout", "7", "--set", "nat.hole_punch_retries=6")

    assert (settings.discovery_timeout_s, settings.hole_punch_retries, settings.enable_symmetric_nat) == (7, 6, False)
    assert (settings.mtu_max, settings.pqc_provider, settings.max_connections) == (1280, "cryptography", 9)
    assert settings.dial_timeout_s == PeerSettings().dial_timeout_s == 5
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    assert settings_of("listen", "--via", "198.18.0.1:1").hole_punch_retries == 5


def test_without_a_file_the_defaults_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags apart."""
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)

    assert settings_of("listen") == PeerSettings()
    assert settings_of("connect", "ab" * 32, "--via", "198.18.0.1:1", "--retries", "0") == PeerSettings(
        known_peers=("198.18.0.1:1",), hole_punch_retries=0
    )


def test_the_timeout_bounds_a_dial_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By address, where nobody is asked for an introduction."""
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)

    assert settings_of("connect", "198.18.0.1:1", "--timeout", "2").dial_timeout_s == 2
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        node = f"127.0.0.1:{silent.getsockname()[1]}"
        started_s = time.monotonic()
        assert main(["peer", "connect", node, "--listen", "127.0.0.1:0", "--timeout", "0.3"]) == 1
        assert time.monotonic() - started_s < 4
    assert f"cannot reach {node}: dial_timeout: " in capsys.readouterr().err


def test_a_refused_command_makes_no_key(tmp_path: Path) -> None:
    """It is not left behind."""
    key = tmp_path / "key.pem"

    assert main(["peer", "listen", "--identity", str(key), "--set", "mtu.max=1"]) == 2
    assert not key.exists()


def test_an_unreachable_peer_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason, what it means and what to do, and exit code 1."""
    assert main(["peer", "connect", "ab" * 32, "--listen", "127.0.0.1:0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot reach {'ab' * 32}: no_coordinator: " in line
    assert DETAILS[Failure.NO_COORDINATOR] in line
    assert ADVICE[Failure.NO_COORDINATOR] in line


def test_an_unreachable_peer_is_an_event_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """With the same facts, and the line for people all the same."""
    assert main(["peer", "connect", "ab" * 32, "--listen", "127.0.0.1:0", "--json"]) == 1
    written = capsys.readouterr()
    event = json.loads(written.out.splitlines()[-1])
    assert (event["event"], event["reason"], event["target"]) == ("unreachable", "no_coordinator", "ab" * 32)
    assert event["advice"] == ADVICE[Failure.NO_COORDINATOR]
    assert len(written.err.splitlines()) == 1


def test_a_node_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """As the target that was not reached."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        node = f"127.0.0.1:{silent.getsockname()[1]}"
        faster = ["--set", "pqc.handshake_timeout_multiplier=1"]
        assert main(["peer", "listen", "--via", node, "--listen", "127.0.0.1:0", *faster]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot reach {node}: dial_timeout: " in line
    assert ADVICE[Failure.DIAL_TIMEOUT] in line


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """Of every action."""
    with pytest.raises(SystemExit):
        main(["peer", "--help"])
    text = capsys.readouterr().out
    for action in ("listen", "connect", "send", "receive"):
        assert f"antquic-server peer {action}" in text
