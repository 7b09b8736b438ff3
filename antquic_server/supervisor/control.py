"""
The control socket: what the owner of a node may change while it runs, over HTTP/1.1 on a Unix socket.

=====================================  ======================================================================
``GET /log``                           the levels that hold, JSON (``log_control``)
``POST /log``                          ``{"set": ["net=debug", "warning"]}`` changes levels
``POST /log/reset``                    takes all changes back
``GET /qlog``                          all captures (``qlog_desk``)
``POST /qlog``                         ``{"peer_id": "64 hex digits", "seconds": 10}`` begins one
``GET /qlog/<n>``                      its state
``POST /qlog/<n>/stop``                ends it before its time
``DELETE /qlog/<n>``                   forgets it and its files
``GET /qlog/<n>/<file>?offset=<n>``    a piece of a file, empty at its end
=====================================  ======================================================================

A mistake is answered with status 400 and one line. Only the user that the node runs as, and root, are talked to. The
rest, bounds on connections and time included, is that of the admin endpoint.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable
from typing import Final, TypeVar

from antquic_server.errors import ConfigurationError
from antquic_server.logs import get_logger
from antquic_server.supervisor.admin import AdminRequest, AdminResponse, AdminServer, AdminView
from antquic_server.supervisor.control_socket import peer_user
from antquic_server.supervisor.log_control import LogControl
from antquic_server.supervisor.qlog_desk import MAX_SECONDS, QlogDesk

__all__ = ["ControlServer", "respond_control"]

MAX_BODY_BYTES: Final = 1 << 14
"""256 levels of some 50 bytes."""

_CAPTURE: Final = re.compile(r"/qlog/([0-9]{1,9})(/[a-z0-9.-]{1,80})?")
_PEER_ID: Final = re.compile(r"[0-9a-fA-F]{64}")
_OFFSET: Final = re.compile(r"(?:offset=([0-9]{1,15}))?")
_PIECE_TYPE: Final = "application/octet-stream"

_T = TypeVar("_T")

log = get_logger(__name__)


def respond_control(levels: LogControl, traces: QlogDesk, request: AdminRequest) -> AdminResponse:
    """Answer one request; never raises for what a client asks."""
    path, _, query = request.target.partition("?")
    try:
        if path in ("/log", "/log/reset"):
            return _log(levels, request, path)
        if path == "/qlog":
            return _qlog(traces, request)
        match = _CAPTURE.fullmatch(path)
        if match is not None:
            return _capture(traces, request, int(match[1]), (match[2] or "").lstrip("/"), query)
    except ConfigurationError as error:
        return AdminResponse.of_text(400, str(error))
    return AdminResponse.of_text(404, "no such page; there are /log, /log/reset, /qlog and /qlog/<number>")


def _log(levels: LogControl, request: AdminRequest, path: str) -> AdminResponse:
    if request.method == "POST":
        if path == "/log":
            texts = _field(request, "set", 'a list of levels, like ["net=debug", "warning"]', _texts)
            levels.set(texts)
        else:
            levels.reset()
        log.info("log levels changed", level=levels.effective.level, modules=levels.effective.modules)
    elif request.method != "GET" or path != "/log":
        return AdminResponse.of_text(405, "only GET /log, POST /log and POST /log/reset", allow="GET, POST")
    return AdminResponse.of_json(200, levels.document())


def _qlog(traces: QlogDesk, request: AdminRequest) -> AdminResponse:
    if request.method == "GET":
        return AdminResponse.of_json(200, {"captures": traces.documents()})
    if request.method != "POST":
        return AdminResponse.of_text(405, "only GET and POST", allow="GET, POST")
    peer_id = _field(request, "peer_id", "64 hexadecimal digits", _peer_id)
    seconds = _field(request, "seconds", f"a number above 0, at most {MAX_SECONDS:g}", _seconds)
    number = traces.start(peer_id, seconds)
    if isinstance(number, str):
        return AdminResponse.of_text(409, number)
    log.warning("connections are traced", peer_id=peer_id, seconds=seconds)
    return AdminResponse.of_json(201, traces.document(number))


def _capture(traces: QlogDesk, request: AdminRequest, number: int, name: str, query: str) -> AdminResponse:
    missing = AdminResponse.of_text(404, f"no trace {number}, or no such file of it")
    if (request.method, name) == ("POST", "stop"):
        return AdminResponse.of_json(200, traces.document(number)) if traces.stop(number) else missing
    if (request.method, name) == ("DELETE", ""):
        return AdminResponse.of_text(200, "forgotten") if traces.remove(number) else missing
    if request.method != "GET":
        return AdminResponse.of_text(405, "only GET, DELETE and POST …/stop", allow="GET, POST, DELETE")
    if not name:
        document = traces.document(number)
        return missing if document is None else AdminResponse.of_json(200, document)
    match = _OFFSET.fullmatch(query)
    if match is None:
        return AdminResponse.of_text(400, "expected ?offset=BYTES")
    piece = traces.read(number, name, int(match[1] or 0))
    return missing if piece is None else AdminResponse(status=200, content_type=_PIECE_TYPE, body=piece)


def _texts(value: object) -> list[str] | None:
    texts = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
    return texts if texts and isinstance(value, list) and len(texts) == len(value) else None


def _peer_id(value: object) -> bytes | None:
    return bytes.fromhex(value) if isinstance(value, str) and _PEER_ID.fullmatch(value) else None


def _seconds(value: object) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 < value <= MAX_SECONDS else None  # type: ignore[arg-type,operator]


def _field(request: AdminRequest, key: str, expected: str, read: Callable[[object], _T | None]) -> _T:
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError):
        document = None
    value = document.get(key) if isinstance(document, dict) else None
    found = read(value)
    if found is None:
        raise ConfigurationError("request", key, value, expected)
    return found


class ControlServer(AdminServer):
    """Serves the control socket; the socket stays the caller's to close."""

    max_body_bytes = MAX_BODY_BYTES

    def __init__(self, view: AdminView, levels: LogControl, traces: QlogDesk) -> None:
        super().__init__(view)
        self._levels = levels
        self._traces = traces

    def answer(self, request: AdminRequest) -> AdminResponse:
        """Answer one request; never raises for what a client asks."""
        return respond_control(self._levels, self._traces, request)

    def admits(self, writer: asyncio.StreamWriter) -> bool:
        """Whether the client is of our user, or root's."""
        user = peer_user(writer.get_extra_info("socket"))
        if user in (None, 0, os.geteuid()):
            return True
        log.warning("control socket refused a stranger", uid=user)
        return False
