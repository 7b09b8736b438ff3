"""
The admin endpoint: health, status and metrics over HTTP/1.1.

It only answers questions, so it has no authentication; by default only this machine can ask. A browser that was told
another name for this machine than its own gets no answer (``admin_request``), and no page of elsewhere may read one.

=====================  ==========================================================================
``GET /``              the status page, for people (``status_page``)
``GET /healthz``       200 while every slot is served, else 503 and one line that says why
``GET /status``        what the node is doing, JSON (``status``)
``GET /history``       its last minutes second by second, JSON (``history``); ``?after=SECONDS`` the newer ones
``GET /metrics``       Prometheus text
``GET /peers/<hex>``   connections and NAT of one peer id (64 hex digits), 404 if it has none
=====================  ==========================================================================

The endpoint shares the supervisor's event loop, so a client may cost little: requests are short, have no
body, come from a bounded number of connections and each within a time.
"""

import asyncio
import json
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol, Self

import h11

from antquic_server import __version__
from antquic_server.logs import get_logger
from antquic_server.stats import prometheus
from antquic_server.supervisor.admin_request import after_untrusted, names_us_untrusted, split_target_untrusted
from antquic_server.supervisor.status_page import load_page

MAX_CONNECTIONS: Final = 32
MAX_REQUEST_BYTES: Final = 8192
REQUEST_TIMEOUT_S: Final = 10.0
"""For a request to arrive whole, from the answer to the one before, and for each answer to be taken."""

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
HTML_TYPE: Final = "text/html; charset=utf-8"

NOTHING_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of answers that are no page."""

_ALWAYS: Final = (
    ("Cache-Control", "no-store"),
    ("Server", f"antquic-server/{__version__}"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    # Without it, pages of elsewhere could load an answer as a picture or script.
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)

_PEER_PATH: Final = re.compile(r"/peers/([0-9a-fA-F]{64})")
_READ_BYTES: Final = 4096

log = get_logger(__name__)


class AdminView(Protocol):
    """What the endpoint can be asked; ``status.NodeStatus``."""

    def unhealthy(self) -> str | None:
        """None while every slot is served, else what is wrong."""

    def document(self) -> dict[str, object]:
        """The document of ``/status``."""

    def history(self, after_s: float) -> dict[str, object]:
        """The document of ``/history``, of what came after so many seconds since the start."""

    def metrics(self) -> bytes:
        """The Prometheus page."""

    def peer(self, peer_id: bytes) -> list[dict[str, object]]:
        """The connections of a peer."""

    def nat_mapping(self, peer_id: bytes) -> str:
        """How a peer's NAT maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRequest:
    """One request, whole."""

    method: str
    target: str
    body: bytes = b""
    hosts: tuple[str, ...] = ()
    """What the client called us, in its Host header and in an absolute target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminResponse:
    """Status code, content type and body of an answer; ``policy`` is its Content-Security-Policy."""

    status: int
    content_type: str = TEXT_TYPE
    body: bytes = b""
    policy: str = NOTHING_POLICY
    allow: str = "GET, HEAD"
    """Methods that there are, told with status 405 (RFC 9110, section 10.2.1)."""

    @classmethod
    def of_text(cls, status: int, line: str, *, allow: str = "GET, HEAD") -> Self:
        """Return an answer of one line."""
        return cls(status=status, body=f"{line}\n".encode(errors="backslashreplace"), allow=allow)

    @classmethod
    def of_json(cls, status: int, document: object) -> Self:
        """Return an answer that is a document."""
        return cls(status=status, content_type=JSON_TYPE, body=json.dumps(document).encode() + b"\n")


def respond(view: AdminView, method: str, target: str) -> AdminResponse:
    """Answer one request; never raises for what a client asks."""
    if method not in ("GET", "HEAD"):
        return _text(405, "only GET and HEAD")
    path, _, query = target.partition("?")
    if path == "/":
        page = load_page()
        return AdminResponse(status=200, content_type=HTML_TYPE, body=page.body, policy=page.policy)
    if path == "/healthz":
        problem = view.unhealthy()
        return _text(200, "ok") if problem is None else _text(503, problem)
    if path == "/status":
        return _json(200, view.document())
    if path == "/history":
        after_s = after_untrusted(query)
        return _text(400, "after= takes a number of seconds") if after_s is None else _json(200, view.history(after_s))
    if path == "/metrics":
        return AdminResponse(status=200, content_type=prometheus.CONTENT_TYPE, body=view.metrics())
    if path.startswith("/peers/"):
        return _peer(view, path)
    return _text(404, "no such page; there are /, /healthz, /status, /history, /metrics and /peers/<peer id>")


def _peer(view: AdminView, path: str) -> AdminResponse:
    match = _PEER_PATH.fullmatch(path)
    if match is None:
        return _text(400, "a peer id has 64 hexadecimal digits")
    peer_id = bytes.fromhex(match[1])
    connections = view.peer(peer_id)
    document = {"peer_id": peer_id.hex(), "nat_mapping": view.nat_mapping(peer_id), "connections": connections}
    return _json(200 if connections else 404, document)


def _text(status: int, line: str) -> AdminResponse:
    return AdminResponse.of_text(status, line)


def _json(status: int, document: object) -> AdminResponse:
    return AdminResponse.of_json(status, document)


class AdminServer:
    """
    Serves ``view`` on a listening socket, which stays the caller's to close.

    A subclass may answer other requests, take bodies, and look at who asks: ``control`` does.

    ``names`` are host names by which clients may call the node, besides addresses and loopback names.
    """

    max_body_bytes = 0

    def __init__(self, view: AdminView, names: Collection[str] = ()) -> None:
        self.refused = 0
        self._view = view
        self._names = names
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        """Begin to answer."""
        # The server closes the socket it was given; the descriptor of the endpoint lives on.
        self._server = await asyncio.start_server(self._accepted, sock=sock.dup(), limit=MAX_REQUEST_BYTES)

    async def stop(self) -> None:
        """Stop answering and end all connections."""
        if self._server is not None:
            self._server.close()
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def answer(self, request: AdminRequest) -> AdminResponse:
        """Answer one request; never raises for what a client asks."""
        # HTTP/1.1 has exactly one Host, which h11 sees to; whoever speaks 1.0 without it is no browser.
        if not all(names_us_untrusted(host, self._names) for host in request.hosts):
            return _text(421, "ask by address, as localhost, or by a name that admin.names lists")
        return respond(self._view, request.method, request.target)

    def admits(self, _writer: asyncio.StreamWriter) -> bool:
        """Whether to talk to the client at the other end at all."""
        return True

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= MAX_CONNECTIONS or not self.admits(writer):
            self.refused += 1
            writer.close()
            return
        self._tasks.add(task)
        try:
            await _Conversation(self, reader, writer).run()
        except (TimeoutError, OSError) as error:
            # A client that is slow or gone is no event of the node.
            log.debug("admin client lost", error=type(error).__name__)
        except asyncio.CancelledError:
            # Our own word to end. The streams of Python 3.11 would log a task that ends so as an unhandled exception.
            if not self._stopping:
                raise
        finally:
            self._tasks.discard(task)
            writer.close()


class _Conversation:
    """One client connection: requests and answers by turns."""

    def __init__(self, server: AdminServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)

    async def run(self) -> None:
        """Answer until the client closes, keeps silent for too long or cannot be understood."""
        while True:
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    request = await self._next_request()
            except h11.RemoteProtocolError as error:
                await self._send(_text(error.error_status_hint, str(error)), close=True)
                return
            if request is None:
                return
            await self._send(self._server.answer(request), close=False, head=request.method == "HEAD")
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> AdminRequest | None:
        """Read one request to its end; None when the client has closed."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._server.max_body_bytes:
                    limit = self._server.max_body_bytes
                    expected = f"a body has at most {limit} bytes" if limit else "requests have no body"
                    raise h11.RemoteProtocolError(f"{expected} here", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                method = head.method.decode("ascii")
                authority, target = split_target_untrusted(head.target.decode("latin-1"))
                hosts = tuple(value.decode("latin-1") for name, value in head.headers if name == b"host")
                if authority is not None:
                    hosts += (authority,)
                return AdminRequest(method=method, target=target, body=bytes(body), hosts=hosts)
            else:
                return None

    async def _send(self, answer: AdminResponse, *, close: bool, head: bool = False) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Content-Security-Policy", answer.policy),
            *_ALWAYS,
        ]
        if answer.status == 405:
            headers.append(("Allow", answer.allow))
        if close:
            headers.append(("Connection", "close"))
        data = self._http.send(h11.Response(status_code=answer.status, headers=headers)) or b""
        if not head:
            data += self._http.send(h11.Data(data=answer.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        self._writer.write(data)
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            await self._writer.drain()
