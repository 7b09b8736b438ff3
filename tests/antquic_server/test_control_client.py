"""Asking over the control socket: what can answer instead, and in which line it ends."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from antquic_server import control_client as module
from antquic_server.control_client import ControlClient
from antquic_server.errors import AdminUnreachableError, ControlRefusedError, UsageError


@contextmanager
def _answering(answer: bytes | None) -> Iterator[Path]:
    """A Unix socket that gives one answer, or hangs up at once; yields its path."""
    with TemporaryDirectory(prefix="aq") as directory, socket.socket(socket.AF_UNIX) as sock:
        path = Path(directory) / "control.sock"
        sock.bind(str(path))
        sock.listen()

        def serve() -> None:
            with sock.accept()[0] as client:
                if answer is None:
                    return
                client.recv(65536)
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                # To close over what has not been read would take the answer back.
                while client.recv(65536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            thread.join(10)


def _http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def test_document_is_returned() -> None:
    """Of any success."""
    with _answering(_http(201, b'{"capture": 3}')) as path:
        assert ControlClient(path).ask("POST", "/qlog", {"a": 1}) == {"capture": 3}


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (_http(400, b"log.nets: no\nsuch thing"), UsageError, "^log.nets: no such thing$"),
        (_http(409, b"this peer is traced already\n"), ControlRefusedError, "^this peer is traced already$"),
        (_http(500, b""), ControlRefusedError, "HTTP status 500"),
        (_http(200, b"[]"), AdminUnreachableError, "no node"),
        (_http(200, b"[" * 100_000), AdminUnreachableError, "no node"),
        (b"SSH-2.0-x\r\n", AdminUnreachableError, "does not speak HTTP"),
        (None, ControlRefusedError, "does not talk to this user"),
    ],
)
def test_whatever_answers_is_one_line(answer: bytes | None, error: type[Exception], words: str) -> None:
    """And the right exit code: a mistake of the caller is 2, the rest 1."""
    with _answering(answer) as path, pytest.raises((error, AdminUnreachableError), match=words) as caught:
        ControlClient(path).ask("GET", "/log")
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_nobody_there(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(AdminUnreachableError, match="No such file"):
        ControlClient(tmp_path / "none.sock").ask("GET", "/log")


def test_no_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel says to another user."""

    def refuse(self: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module._UnixConnection, "connect", refuse)
    with pytest.raises(ControlRefusedError, match="only root and the user that the node runs as may"):
        ControlClient(Path("/x")).ask("GET", "/log")
