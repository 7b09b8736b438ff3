"""
A QUIC client made of qh3 (AWS-LC underneath), printed as one JSON line.

It offers key shares for X25519MLKEM768 and X25519 and wants an X.509 certificate, as browsers do. Run it as a script,
in a process of its own; tests start it through ``support.client_process``.
"""

import argparse
import asyncio
import json
import os
import ssl
import sys
import time
from typing import Any

import qh3.tls
from qh3.asyncio.client import connect
from qh3.asyncio.protocol import QuicConnectionProtocol
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent

# RFC 9000, section 20.1: a TLS alert is this plus the alert's number.
CRYPTO_ERROR = 0x100


class RecordingProtocol(QuicConnectionProtocol):
    """Note how the connection ended and which protocol was chosen; qh3 hands these to nobody else."""

    terminated: ConnectionTerminated | None = None
    alpn: str | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        """Keep the two events, then let the base class act on every one."""
        if isinstance(event, ConnectionTerminated):
            self.terminated = event
        elif isinstance(event, ProtocolNegotiated):
            self.alpn = event.alpn_protocol
        super().quic_event_received(event)


def record_server_hello(result: dict[str, Any]) -> None:
    """Have the group the server chose written to ``result``: qh3 keeps it nowhere, but parses it in one function."""
    pull_server_hello = qh3.tls.pull_server_hello

    def recording_pull_server_hello(buf: Any) -> Any:
        hello = pull_server_hello(buf)
        if hello.key_share is not None:
            result["group"] = int(hello.key_share[0])
        return hello

    qh3.tls.pull_server_hello = recording_pull_server_hello


async def echo(protocol: QuicConnectionProtocol, length_bytes: int) -> int:
    """Send that many bytes on a bidirectional stream and return how many came back unchanged."""
    payload = os.urandom(length_bytes)
    reader, writer = await protocol.create_stream()
    writer.write(payload)
    writer.write_eof()
    received = await reader.read()
    return length_bytes if received == payload else 0


async def converse(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Connect, echo, close, and fill ``result`` on the way."""
    host, _, port = arguments.connect.rpartition(":")
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=[arguments.alpn],
        server_name=arguments.server_name,
        verify_mode=ssl.CERT_NONE,
        idle_timeout=arguments.timeout,
    )
    protocols: list[RecordingProtocol] = []

    def create_protocol(*args: Any, **kwargs: Any) -> RecordingProtocol:
        protocols.append(RecordingProtocol(*args, **kwargs))
        return protocols[-1]

    started_s = time.monotonic()
    try:
        async with connect(
            host.strip("[]"), int(port), configuration=configuration, create_protocol=create_protocol
        ) as protocol:
            result["handshake_s"] = time.monotonic() - started_s
            result["certificate_type"] = "x509" if protocol._quic.get_peercert() is not None else None
            if arguments.echo_bytes:
                result["echoed_bytes"] = await echo(protocol, arguments.echo_bytes)
            result["ok"] = result.get("echoed_bytes", 0) == arguments.echo_bytes
    except (ConnectionError, ssl.SSLError) as error:
        result["error"] = f"{type(error).__name__}: {error}"
    for recorder in protocols:
        result["alpn"] = recorder.alpn
        if recorder.terminated is not None:
            code = int(recorder.terminated.error_code)
            result["close_code"] = code
            result["close_reason"] = recorder.terminated.reason_phrase
            result["alert"] = code - CRYPTO_ERROR if CRYPTO_ERROR <= code < CRYPTO_ERROR + 256 else None


def main() -> int:
    """Hold one conversation, print its result as one JSON line, return 0 when it went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connect", required=True, metavar="HOST:PORT", help="address literal of the server")
    parser.add_argument("--alpn", default="test")
    parser.add_argument("--server-name", default="localhost")
    parser.add_argument("--echo-bytes", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for the whole conversation")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"ok": False, "error": None, "group": None}
    record_server_hello(result)
    try:
        asyncio.run(asyncio.wait_for(converse(arguments, result), arguments.timeout))
    except TimeoutError:
        result |= {"ok": False, "error": "deadline exceeded"}
    print(json.dumps(result), flush=True)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
