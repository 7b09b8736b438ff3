"""The control socket: what it answers, whom it answers, and how much it takes."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop

from antquic_server.config.model import LogSettings
from antquic_server.supervisor import control
from antquic_server.supervisor.admin import AdminRequest, AdminResponse
from antquic_server.supervisor.control import MAX_BODY_BYTES, ControlServer, respond_control
from antquic_server.supervisor.log_control import LogControl

PEER = "aB" * 32


class Traces:
    """A desk of traces that has one capture, number 3, with one file of three bytes."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start(self, peer_id: bytes, seconds: float) -> int | str:
        """Begin."""
        self.calls.append(("start", peer_id.hex(), seconds))
        return "this peer is traced already" if peer_id == bytes(32) else 3

    def document(self, number: int) -> dict[str, object] | None:
        """Return the one there is."""
        return {"capture": 3} if number == 3 else None

    def documents(self) -> list[dict[str, object] | None]:
        """Return the one there is."""
        return [self.document(3)]

    def stop(self, number: int) -> bool:
        """End."""
        self.calls.append(("stop", number))
        return number == 3

    def remove(self, number: int) -> bool:
        """Forget."""
        self.calls.append(("remove", number))
        return number == 3

    def read(self, number: int, name: str, offset: int) -> bytes | None:
        """Return a piece."""
        return b"abc"[offset:] if (number, name) == (3, "a-1.qlog") else None


def levels() -> LogControl:
    """Return levels as they are by default."""
    return LogControl(LogSettings(), lambda _: None)


def answer(method: str, target: str, document: object = None, body: bytes | None = None) -> AdminResponse:
    """Ask, with a document or with a body as it is."""
    data = body if body is not None else (b"" if document is None else json.dumps(document).encode())
    traces: Any = Traces()
    return respond_control(levels(), traces, AdminRequest(method=method, target=target, body=data))


def test_levels_are_shown_changed_and_reset() -> None:
    """Each answer tells what holds."""
    traces: Any = Traces()
    it = levels()
    body = json.dumps({"set": ["warning", "net=debug"]}).encode()

    changed = respond_control(it, traces, AdminRequest(method="POST", target="/log", body=body))
    shown = respond_control(it, traces, AdminRequest(method="GET", target="/log"))
    reset = respond_control(it, traces, AdminRequest(method="POST", target="/log/reset"))

    assert changed.status == shown.status == reset.status == 200
    assert json.loads(changed.body) == json.loads(shown.body)
    assert json.loads(shown.body)["level"] == "warning"
    assert json.loads(shown.body)["modules"] == {"net": "debug"}
    assert json.loads(reset.body)["modules"] == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"set"',
        b"{}",
        b'{"set": 1}',
        b'{"set": []}',
        b'{"set": [1]}',
        b'{"set": "net=debug"}',
    ],
)
def test_levels_that_are_no_list_of_texts_are_one_line(body: bytes) -> None:
    """Whatever else they are, deep nesting and bytes that are no text included."""
    refused = answer("POST", "/log", body=body)
    assert refused.status == 400
    assert refused.body.startswith(b"request: set = ")
    assert refused.body.count(b"\n") == 1


@pytest.mark.parametrize("body", [b"[" * 10_000, b"\xff\xfe", b'{"set": ["\\ud800=debug"]}', b'{"set": ["a\\nb"]}'])
def test_hostile_bodies_are_mistakes(body: bytes) -> None:
    """Never an exception."""
    assert answer("POST", "/log", body=body).status == 400


def test_module_that_does_not_exist_is_one_line() -> None:
    """The same as on the command line."""
    refused = answer("POST", "/log", {"set": ["nets=debug"]})
    assert (refused.status, refused.body) == (
        400,
        b"control socket: log.nets = 'debug': expected a module that exists (did you mean net?)\n",
    )


def test_trace_is_begun_looked_at_ended_and_forgotten() -> None:
    """By number."""
    traces: Any = Traces()

    def ask(method: str, target: str, document: object = None) -> AdminResponse:
        body = b"" if document is None else json.dumps(document).encode()
        return respond_control(levels(), traces, AdminRequest(method=method, target=target, body=body))

    begun = ask("POST", "/qlog", {"peer_id": PEER, "seconds": 2})
    assert (begun.status, json.loads(begun.body)) == (201, {"capture": 3})
    assert json.loads(ask("GET", "/qlog").body) == {"captures": [{"capture": 3}]}
    assert json.loads(ask("GET", "/qlog/3").body) == {"capture": 3}
    assert ask("GET", "/qlog/3/a-1.qlog").body == b"abc"
    assert ask("GET", "/qlog/3/a-1.qlog?offset=2").body == b"c"
    assert ask("GET", "/qlog/3/a-1.qlog?offset=3").body == b""
    assert ask("POST", "/qlog/3/stop").status == 200
    assert ask("DELETE", "/qlog/3").status == 200
    assert traces.calls == [("start", PEER.lower(), 2.0), ("stop", 3), ("remove", 3)]


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({"peer_id": "ab", "seconds": 1}, b"request: peer_id = 'ab': expected 64 hexadecimal digits"),
        ({"peer_id": 7, "seconds": 1}, b"request: peer_id = 7"),
        ({"peer_id": PEER}, b"request: seconds = None: expected a number above 0, at most 600"),
        ({"peer_id": PEER, "seconds": 0}, b"seconds = 0"),
        ({"peer_id": PEER, "seconds": 601}, b"seconds = 601"),
        ({"peer_id": PEER, "seconds": True}, b"seconds = True"),
        ({"peer_id": PEER, "seconds": float("nan")}, b"seconds = nan"),
    ],
)
def test_trace_without_peer_or_time_is_one_line(document: object, line: bytes) -> None:
    """That names what is wrong."""
    refused = answer("POST", "/qlog", document)
    assert refused.status == 400
    assert line in refused.body


def test_trace_that_cannot_be_is_a_conflict() -> None:
    """With the reason."""
    refused = answer("POST", "/qlog", {"peer_id": "00" * 32, "seconds": 1})
    assert (refused.status, refused.body) == (409, b"this peer is traced already\n")


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/status", 404),
        ("GET", "/qlog/4", 404),
        ("GET", "/qlog/x", 404),
        ("GET", "/qlog/3/../../etc/passwd", 404),
        ("GET", "/qlog/3/b-1.qlog", 404),
        ("GET", "/qlog/3/a-1.qlog?offset=-1", 400),
        ("GET", "/qlog/3/a-1.qlog?offset=" + "9" * 30, 400),
        ("POST", "/qlog/4/stop", 404),
        ("DELETE", "/qlog/4", 404),
        ("PUT", "/qlog/3", 405),
        ("PUT", "/qlog", 405),
        ("DELETE", "/log", 405),
        ("GET", "/log/reset", 405),
    ],
)
def test_targets_and_their_status(method: str, target: str, status: int) -> None:
    """What there is not, and what cannot be done with what there is."""
    found = answer(method, target)
    assert found.status == status
    if status == 405:
        assert "GET" in found.allow


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def play(story: Callable[[Connect, ControlServer], Awaitable[None]]) -> None:
    """Run a story against a server on a Unix socket."""

    async def bounded() -> None:
        with TemporaryDirectory(prefix="aq") as directory, socket.socket(socket.AF_UNIX) as sock:
            path = Path(directory) / "control.sock"
            sock.bind(str(path))
            sock.listen()
            sock.setblocking(False)
            traces: Any = Traces()
            view: Any = None
            server = ControlServer(view, levels(), traces)
            await server.start(sock)
            writers = []

            async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                reader, writer = await asyncio.open_unix_connection(str(path))
                writers.append(writer)
                return reader, writer

            try:
                async with asyncio.timeout(10):
                    await story(connect, server)
            finally:
                await server.stop()
                for writer in writers:
                    writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


def test_owner_is_answered_with_a_body() -> None:
    """On one connection, one request after the other."""

    async def story(connect: Connect, _server: ControlServer) -> None:
        reader, writer = await connect()
        body = b'{"set": ["net=debug"]}'
        writer.write(b"POST /log HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"}\n")
        writer.write(b"GET /log HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b'"modules": {"net": "debug"}' in await reader.read()

    play(story)


def test_body_that_is_too_long_is_refused() -> None:
    """Before it has arrived."""

    async def story(connect: Connect, _server: ControlServer) -> None:
        reader, writer = await connect()
        writer.write(b"POST /log HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(MAX_BODY_BYTES + 1))
        assert b"413" in await reader.readline()
        assert b"a body has at most 16384 bytes here" in await reader.read()

    play(story)


def test_stranger_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who got through to the socket all the same; root may."""

    async def story(connect: Connect, server: ControlServer) -> None:
        for user, answered in ((4711, False), (0, True)):
            monkeypatch.setattr(control, "peer_user", lambda _sock, user=user: user)
            reader, writer = await connect()
            writer.write(b"GET /log HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            try:
                found = await reader.read()
            except ConnectionResetError:
                found = b""
            assert bool(found) is answered
        assert server.refused == 1

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    play(story)
