"""``status``: asking a node, and telling apart what can answer instead."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from antquic_server import cli
from antquic_server.commands import status
from antquic_server.errors import ConfigurationError
from support.http_answers import answering

ANSWER: dict[str, Any] = {
    "node": {
        "peer_id": "ab" * 32,
        "uptime_s": 90061.5,
        "version": "0.1.0",
        "workers": 1,
        "listen": ["0.0.0.0:10000", "[::]:10000"],
        "pqc_provider": "liboqs",
        "draining": False,
    },
    "workers": [
        {
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
    ],
    "totals": {"active_connections": 1234, "handshakes|ant-quic": 7},
    "directory": {"peers": 1200, "connections": 1234},
}


def test_status_is_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """The answer of a node becomes readable text on standard output."""
    with answering(json.dumps(ANSWER).encode()) as url:
        exit_code = cli.main(["status", "--admin", url])

    printed = capsys.readouterr()
    assert exit_code == 0
    assert printed.err == ""
    assert "serving for 1 d 1 h" in printed.out
    assert "4711" in printed.out


def test_status_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the answer is passed on unchanged."""
    with answering(json.dumps(ANSWER).encode()) as url:
        exit_code = cli.main(["status", "--json", "--admin", url])

    assert exit_code == 0
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_rates_are_taken_between_two_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --rates the node is asked twice."""
    monkeypatch.setattr(status, "RATES_S", 0.05)
    with answering(json.dumps(ANSWER).encode()) as url:
        assert cli.main(["status", "--rates", "--admin", url]) == 0

    assert "(0 handshakes in flight), 0/s handshakes\n" in capsys.readouterr().out


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def test_dead_node_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody listens: one line, exit code 1."""
    port = _free_port()
    exit_code = cli.main(["status", "--admin", f"127.0.0.1:{port}"])

    printed = capsys.readouterr()
    assert exit_code == 1
    assert printed.out == ""
    assert printed.err == (f"antquic-server: error: no node answers at http://127.0.0.1:{port}: Connection refused\n")


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        (b"nothing here", 500, "what answers there is no node (HTTP status 500)"),
        (b"<html>", 200, "what answers there is no node (not a node's status)"),
        (b"[1]", 200, "what answers there is no node (not a node's status)"),
        (b'{"node": {}, "workers": [1]}', 200, "what answers there is no node (not a node's status)"),
        (b"[" * 100_000, 200, "what answers there is no node (not a node's status)"),
    ],
)
def test_somebody_elses_answer_is_one_line(
    body: bytes, code: int, detail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program at the admin port is recognised as such."""
    with answering(body, code) as url:
        exit_code = cli.main(["status", "--admin", url])

    assert exit_code == 1
    assert capsys.readouterr().err == f"antquic-server: error: no node answers at {url}: {detail}\n"


@contextmanager
def _listener(answer: bytes | None) -> Iterator[int]:
    """Accept one connection and say ``answer``, or nothing at all; yields the port."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                if answer is None:
                    done.wait(30)
                    return
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            thread.join()


def test_silent_listener_is_a_timeout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A node that accepts but never answers does not hold the command for ever."""
    monkeypatch.setattr(status, "TIMEOUT_S", 0.2)
    with _listener(None) as port:
        exit_code = cli.main(["status", "--admin", f"127.0.0.1:{port}"])

    assert exit_code == 1
    assert capsys.readouterr().err.endswith("no answer within 0.2 s\n")


def test_listener_of_another_protocol_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    """Something that does not speak HTTP is named as the reason."""
    with _listener(b"SSH-2.0-OpenSSH\r\n") as port:
        exit_code = cli.main(["status", "--admin", f"127.0.0.1:{port}"])

    assert exit_code == 1
    assert capsys.readouterr().err.endswith("what answers there does not speak HTTP\n")


def test_impossible_host_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that cannot even be asked for is no traceback."""
    exit_code = cli.main(["status", "--admin", f"http://{'a' * 70}.example:1"])

    assert exit_code == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("http://127.0.0.1:10001", "127.0.0.1", 10001),
        ("http://127.0.0.1:10001/", "127.0.0.1", 10001),
        ("127.0.0.1:10001", "127.0.0.1", 10001),
        ("http://[::1]:80", "::1", 80),
        ("localhost:1", "localhost", 1),
    ],
)
def test_admin_url_is_split(text: str, host: str, port: int) -> None:
    """Host and port are taken from a URL, or from its short form."""
    assert status.admin_url(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "http://", "https://127.0.0.1:1", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:70000",
     "http://u@127.0.0.1:1", "http://127.0.0.1:1/status", "[::1:1", "a b:1", "a\nb:1"],
)  # fmt: skip
def test_bad_admin_url_is_refused(text: str) -> None:
    """Anything else is a mistake on the command line."""
    with pytest.raises(ConfigurationError, match="--admin"):
        status.admin_url(text)


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}"),
        ("0.0.0.0:{port}", "http://127.0.0.1:{port}"),
        ("[::]:{port}", "http://[::1]:{port}"),
    ],
)
def test_configured_admin_address_is_asked(
    listen: str, url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --admin the configuration says where; a wildcard is reached over loopback."""
    port = _free_port()
    path = tmp_path / "node.toml"
    path.write_text(f'[admin]\nlisten = "{listen.format(port=port)}"\nallow_remote = true\n')
    monkeypatch.setenv("ANTQUIC_CONFIG", str(path))

    assert cli.main(["status"]) == 1
    assert f"no node answers at {url.format(port=port)}: " in capsys.readouterr().err


def test_configured_free_port_asks_for_the_url(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Port 0 says nothing about where the node is now."""
    path = tmp_path / "node.toml"
    path.write_text('[admin]\nlisten = "127.0.0.1:0"\n')
    monkeypatch.setenv("ANTQUIC_CONFIG", str(path))

    assert cli.main(["status"]) == 2
    assert "or --admin with the URL" in capsys.readouterr().err
