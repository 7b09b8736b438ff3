"""Tests of the admin endpoint: its answers, and its patience with clients."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from antquic_server.stats import prometheus
from antquic_server.supervisor import admin
from antquic_server.supervisor.admin import AdminServer, respond

ALICE = "aB" * 32


class View:
    """A node that is what the test says."""

    def __init__(self, problem: str | None = None) -> None:
        self.problem = problem

    def unhealthy(self) -> str | None:
        """Return what is wrong."""
        return self.problem

    def document(self) -> dict[str, object]:
        """Return a small document."""
        return {"node": {"workers": 2}}

    def history(self, after_s: float) -> dict[str, object]:
        """Return what was asked for."""
        return {"after_s": after_s}

    def metrics(self) -> bytes:
        """Return a small page."""
        return b"antquic_retries_total 1\n"

    def peer(self, peer_id: bytes) -> list[dict[str, object]]:
        """Return one connection for one peer."""
        return [{"slot": 1}] if peer_id == bytes.fromhex(ALICE) else []

    def nat_mapping(self, peer_id: bytes) -> str:
        """Return what is known."""
        return "unknown"


def test_health_is_a_status_code() -> None:
    """A balancer looks at the number, a person reads the line."""
    assert respond(View(), "GET", "/healthz").status == 200
    sick = respond(View("no ready worker for slot 1"), "GET", "/healthz")

    assert (sick.status, sick.body) == (503, b"no ready worker for slot 1\n")


def test_pages_have_their_content_types() -> None:
    """Status is JSON, metrics are what Prometheus expects; a query string changes nothing."""
    status = respond(View(), "GET", "/status?pretty=1")
    metrics = respond(View(), "HEAD", "/metrics")

    assert (status.status, status.content_type) == (200, "application/json")
    assert json.loads(status.body) == {"node": {"workers": 2}}
    assert (metrics.status, metrics.content_type) == (200, prometheus.CONTENT_TYPE)


def test_history_is_asked_from_a_moment_on() -> None:
    """Whoever has the older part asks for what came after it."""
    assert json.loads(respond(View(), "GET", "/history?after=17.25").body) == {"after_s": 17.25}
    assert json.loads(respond(View(), "GET", "/history").body) == {"after_s": 0}


def test_status_page_has_the_policy_of_its_scripts() -> None:
    """Other answers are no pages, and may do nothing at all."""
    page = respond(View(), "GET", "/")

    assert page.content_type == "text/html; charset=utf-8"
    assert page.body.startswith(b"<!doctype html>")
    assert "script-src 'sha256-" in page.policy
    for target in ("/status", "/healthz", "/metrics", "/nothing"):
        assert respond(View(), "GET", target).policy == "default-src 'none'; frame-ancestors 'none'"


def test_peer_is_shown_with_its_nat() -> None:
    """And its connections; the id as the node writes it."""
    document = json.loads(respond(View(), "GET", f"/peers/{ALICE}").body)
    assert document == {"peer_id": ALICE.lower(), "nat_mapping": "unknown", "connections": [{"slot": 1}]}


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"/peers/{ALICE}", 200),
        (f"/peers/{ALICE.lower()}", 200),
        ("/peers/" + "00" * 32, 404),
        ("/peers/", 400),
        (f"/peers/{ALICE}0", 400),
        ("/peers/" + "zz" * 32, 400),
        (f"/peers/{ALICE}/x", 400),
        ("/", 200),
        ("/?x", 200),
        ("/history", 200),
        ("/history?after=17.25", 200),
        ("/history?after=soon", 400),
        ("/index.html", 404),
        ("/style.css", 404),
        ("/status/", 404),
        ("*", 404),
        ("http://elsewhere/status", 404),
        ("/\xff", 404),
    ],
)
def test_targets_and_their_status(target: str, status: int) -> None:
    """What is not a page is 404, what is not a peer id 400."""
    assert respond(View(), "GET", target).status == status


@pytest.mark.parametrize("method", ["POST", "DELETE", "get", "OPTIONS"])
def test_only_questions_are_answered(method: str) -> None:
    """Nothing can be changed here."""
    assert respond(View(), method, "/status").status == 405


class Client:
    """A raw client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer by its Content-Length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body

    async def is_closed(self) -> bool:
        """Whether the server has ended the connection."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


Connect = Callable[[], Awaitable[Client]]


def play(story: Callable[[Connect, AdminServer], Awaitable[None]]) -> None:
    """Run a story against a server on loopback, within five seconds."""

    async def bounded() -> None:
        clients: list[Client] = []
        with socket.create_server(("127.0.0.1", 0)) as sock:
            sock.setblocking(False)
            server = AdminServer(View(), names=("node.example.org",))
            await server.start(sock)

            async def connect() -> Client:
                clients.append(Client(*await asyncio.open_connection(*sock.getsockname()[:2])))
                return clients[-1]

            try:
                async with asyncio.timeout(5):
                    await story(connect, server)
            finally:
                await server.stop()
                for client in clients:
                    client.writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


def test_one_connection_serves_many_requests() -> None:
    """Byte by byte or two at once, each request gets its answer; HEAD gets no body."""

    async def story(connect: Connect, server: AdminServer) -> None:
        client = await connect()
        for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n":
            await client.say(bytes([byte]))
        assert (await client.answer())[::2] == (200, b"ok\n")
        await client.say(
            b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\nGET /none HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        assert json.loads((await client.answer())[2]) == {"node": {"workers": 2}}
        assert (await client.answer())[0] == 404
        await client.say(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await client.reader.read()).endswith(b"\r\n\r\n")

    play(story)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:10001", 200),
        ("[::1]:10001", 200),
        ("localhost", 200),
        ("node.example.org:10001", 200),
        ("elsewhere.example:10001", 421),
        ("127.0.0.1.elsewhere.example", 421),
    ],
)
def test_strange_names_are_not_answered(host: str, status: int) -> None:
    """A name that only resolves to this machine is a stranger's page in our browser; no page reads from others."""

    async def story(connect: Connect, server: AdminServer) -> None:
        for target in ("/", "/status", "/metrics", "/peers/" + ALICE):
            client = await connect()
            request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n\r\n"
            await client.say(request.encode())
            code, headers, body = await client.answer()
            assert code == status
            assert ("admin.names" in body.decode()) == (status == 421)
            assert not [name for name in headers if name.startswith("access-control")]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]

    play(story)


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://127.0.0.1:10001/healthz", "127.0.0.1:10001", 200),
        ("HTTP://localhost/status", "localhost", 200),
        ("http://[::1]:10001", "[::1]:10001", 200),
        ("http://[::1]:10001?after=1", "[::1]:10001", 200),
        ("http://localhost/history?after=x", "localhost", 400),
        ("http://localhost/nowhere", "localhost", 404),
        ("http://elsewhere.example/status", "localhost", 421),
        ("http://localhost/status", "elsewhere.example", 421),
        ("http:///status", "localhost", 421),
        ("https://localhost/status", "localhost", 404),
    ],
)
def test_absolute_targets_are_answered(target: str, host: str, status: int) -> None:
    """As a proxy sends them (RFC 9112, section 3.2.2); the name in them is judged like that of Host."""

    async def story(connect: Connect, server: AdminServer) -> None:
        client = await connect()
        await client.say(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (await client.answer())[0] == status

    play(story)


def test_old_clients_need_no_name() -> None:
    """HTTP/1.0 has no Host; browsers do not speak it."""

    async def story(connect: Connect, server: AdminServer) -> None:
        client = await connect()
        await client.say(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await client.answer())[0] == 200

    play(story)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 9000, 431),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 413),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 413),
        (b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
    ],
)
def test_bad_requests_get_an_answer(request_bytes: bytes, status: int) -> None:
    """Nonsense, oversized and bodied requests are answered with the code that fits."""

    async def story(connect: Connect, server: AdminServer) -> None:
        client = await connect()
        await client.say(request_bytes)
        code, headers, _ = await client.answer()
        assert code == status
        if code != 405:
            assert headers["connection"] == "close"
            assert await client.is_closed()

    play(story)


def test_slow_clients_are_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request does not hold a place for ever."""
    monkeypatch.setattr(admin, "REQUEST_TIMEOUT_S", 0.05)

    async def story(connect: Connect, server: AdminServer) -> None:
        client = await connect()
        await client.say(b"GET /status HT")
        assert await client.is_closed()

    play(story)


def test_too_many_clients_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """One past the bound is closed and counted; a freed place serves again."""
    monkeypatch.setattr(admin, "MAX_CONNECTIONS", 2)

    async def story(connect: Connect, server: AdminServer) -> None:
        held = [await connect(), await connect()]
        for client in held:
            await client.say(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await client.answer()
        assert await (await connect()).is_closed()
        assert server.refused == 1
        held[0].writer.close()
        # Two answers on the other connection: the server has had time to see the first one leave.
        for _ in range(2):
            await held[1].say(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await held[1].answer()
        client = await connect()
        await client.say(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.answer())[0] == 200

    play(story)


def test_stopping_ends_idle_connections() -> None:
    """A client that keeps its connection open does not keep the node from ending."""

    async def story(connect: Connect, server: AdminServer) -> None:
        client = await connect()
        await client.say(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await client.answer()
        reported: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["message"]))
        await server.stop()
        assert await client.is_closed()
        assert reported == [], "a page that is open when the node ends is no error"

    play(story)
