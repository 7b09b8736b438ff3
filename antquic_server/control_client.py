"""Asking a node over its control socket: HTTP on a Unix socket, every way it can fail told in one line."""

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from antquic_server.errors import AdminUnreachableError, ControlRefusedError, UsageError

__all__ = ["ControlClient"]

TIMEOUT_S: Final = 10.0
"""For connecting and for each read; the supervisor answers from memory, or reads a quarter of a megabyte."""

MAX_ANSWER_BYTES: Final = 1 << 20


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


class ControlClient:
    """Talks to the control socket at ``path``; each question is a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, method: str, target: str, document: Mapping[str, object] | None = None) -> dict[str, object]:
        """
        Ask, and return the document of the answer.

        Raises:
            UsageError: The node says that the request makes no sense.
            ControlRefusedError: It refuses, or may not be asked by us.
            AdminUnreachableError: Nobody answers.
        """
        body = self.ask_bytes(method, target, b"" if document is None else json.dumps(document).encode())
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise AdminUnreachableError(str(self.path), "what answers there is no node")
        return answer

    def ask_bytes(self, method: str, target: str, body: bytes = b"") -> bytes:
        """Ask, and return the answer as it came; raises as ``ask`` does."""
        connection = _UnixConnection(self.path)
        try:
            connection.request(method, target, body=body)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES + 1)
        except TimeoutError:
            raise AdminUnreachableError(str(self.path), f"no answer within {TIMEOUT_S:g} s") from None
        except PermissionError:
            raise ControlRefusedError(f"{self.path}: only root and the user that the node runs as may") from None
        except (ConnectionResetError, BrokenPipeError):
            raise ControlRefusedError(f"{self.path}: the node does not talk to this user") from None
        except OSError as error:
            raise AdminUnreachableError(str(self.path), error.strerror or type(error).__name__) from None
        except http.client.HTTPException:
            raise AdminUnreachableError(str(self.path), "what answers there does not speak HTTP") from None
        finally:
            connection.close()
        if response.status == http.client.BAD_REQUEST:
            raise UsageError(_line(answer))
        if not 200 <= response.status < 300:
            raise ControlRefusedError(_line(answer) or f"{self.path}: HTTP status {response.status}")
        return answer


def _line(answer: bytes) -> str:
    return " ".join(answer[:1000].decode(errors="replace").split())
