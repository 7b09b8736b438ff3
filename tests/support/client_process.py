"""Foreign QUIC clients in processes of their own: start one, read its result, let it go."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.json_lines import JsonLineProcess

__all__ = [
    "OPENSSL_CLIENT",
    "QH3_CLIENT",
    "ClientResult",
    "HoldClient",
    "RunClient",
    "held_client",
    "run_client",
]

OPENSSL_CLIENT = Path(__file__).with_name("openssl_client.py")
QH3_CLIENT = Path(__file__).with_name("qh3_client.py")

# Beyond the client's own deadline: starting an interpreter on a busy machine.
START_ALLOWANCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientResult:
    """
    What a client saw; ``None`` where it cannot tell or the handshake did not get that far.

    ``group`` and ``signature_scheme`` are the numbers of RFC 8446, ``alert`` the TLS alert inside a CRYPTO_ERROR of
    either side, ``facts`` everything the client printed.
    """

    ok: bool
    error: str | None = None
    alert: int | None = None
    closed_by_peer: bool | None = None
    group: int | None = None
    hello_retry_request: bool | None = None
    signature_scheme: int | None = None
    certificate_type: str | None = None
    peer_public_key: str | None = None
    alpn: str | None = None
    echoed_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def _to_result(message: dict[str, Any]) -> ClientResult:
    known = {name: message[name] for name in ClientResult.__slots__ if name in message and name != "facts"}
    return ClientResult(**known, facts=message)


def _start(script: Path, port: int, arguments: Sequence[str], timeout_s: float) -> JsonLineProcess:
    command = [sys.executable, str(script), "--connect", f"127.0.0.1:{port}", "--timeout", str(timeout_s)]
    return JsonLineProcess([*command, *arguments], environment=os.environ)


def _read_result(process: JsonLineProcess, timeout_s: float) -> ClientResult:
    message = process.wait_for(
        lambda message: "ok" in message, timeout_s=timeout_s + START_ALLOWANCE_S, what="result line"
    )
    return _to_result(message)


def run_client(script: Path, port: int, *arguments: str, timeout_s: float = 10.0) -> ClientResult:
    """Run one client against a port of 127.0.0.1 to its end and return what it saw."""
    process = _start(script, port, arguments, timeout_s)
    try:
        return _read_result(process, timeout_s)
    finally:
        process.end_input()
        process.wait(timeout_s=START_ALLOWANCE_S)


@contextmanager
def held_client(script: Path, port: int, *arguments: str, timeout_s: float = 10.0) -> Iterator[ClientResult]:
    """Run one client that stays connected inside the ``with`` block; for scripts that know ``--hold``."""
    process = _start(script, port, ["--hold", *arguments], timeout_s)
    try:
        yield _read_result(process, timeout_s)
    finally:
        process.end_input()
        process.wait(timeout_s=START_ALLOWANCE_S)


# What the fixtures of tests/conftest.py hand out: the two functions above with the script filled in.
RunClient = Callable[..., ClientResult]
HoldClient = Callable[..., AbstractContextManager[ClientResult]]
