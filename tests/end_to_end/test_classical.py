"""Stock aioquic as a client that knows no post-quantum group: refused by default, admitted where configured."""

import asyncio
import ssl
from typing import Any

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent

from support.client_process import RunClient
from support.node import Node, StartNode
from support.waiting import wait_for_value

pytestmark = pytest.mark.end_to_end

# RFC 9001, section 4.8, with RFC 8446, section 6.2: CRYPTO_ERROR of alert 40.
HANDSHAKE_FAILURE = 0x128
TIMEOUT_S = 10.0


class RecordingProtocol(QuicConnectionProtocol):
    """Note how the connection ended."""

    terminated: ConnectionTerminated | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        """Keep the last event, then let the base class act on every one."""
        if isinstance(event, ConnectionTerminated):
            self.terminated = event
        super().quic_event_received(event)


async def _attempt(port: int, payload: bytes) -> tuple[bytes | None, ConnectionTerminated | None]:
    """Return what came back for ``payload`` (``None`` without a handshake) and how the connection ended."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["test"], verify_mode=ssl.CERT_NONE, server_name="localhost"
    )
    protocols: list[RecordingProtocol] = []

    def create_protocol(*args: Any, **kwargs: Any) -> RecordingProtocol:
        protocols.append(RecordingProtocol(*args, **kwargs))
        return protocols[-1]

    received = None
    try:
        async with connect("127.0.0.1", port, configuration=configuration, create_protocol=create_protocol) as protocol:
            reader, writer = await protocol.create_stream()
            writer.write(payload)
            writer.write_eof()
            received = await reader.read()
    except ConnectionError:
        received = None
    return received, protocols[0].terminated


def attempt(node: Node, payload: bytes = b"hello") -> tuple[bytes | None, ConnectionTerminated | None]:
    """Run ``_attempt`` against a node with a deadline."""
    return asyncio.run(asyncio.wait_for(_attempt(node.port, payload), TIMEOUT_S))


def test_classical_client_is_refused_and_the_node_serves_on(echo_node: Node) -> None:
    """Each attempt ends with alert 40 in CONNECTION_CLOSE, is counted, and leaves nothing behind."""
    attempts = 5

    for _ in range(attempts):
        received, terminated = attempt(echo_node)
        assert received is None
        assert terminated is not None
        assert terminated.error_code == HANDSHAKE_FAILURE

    # Workers report their counters with each heartbeat, so the page is a moment behind.
    wait_for_value(
        lambda: echo_node.total("antquic_handshake_failures_total"), attempts, timeout_s=15.0, what="failures"
    )
    wait_for_value(lambda: echo_node.total("antquic_active_connections"), 0, timeout_s=10.0, what="open connections")
    assert echo_node.healthy()


@pytest.mark.peers
def test_post_quantum_client_is_served_after_a_classical_one(echo_node: Node, openssl_client: RunClient) -> None:
    """The refusal of one client does not touch the next, at the same worker or another."""
    for _ in range(3):
        attempt(echo_node)
        served = openssl_client(echo_node.port, "--groups", "X25519MLKEM768", "--echo-bytes", "1000")
        assert served.ok, served.facts


def test_classical_client_is_admitted_where_the_operator_says_so(start_node: StartNode) -> None:
    """With ``pqc.mode = "any"`` stock aioquic completes over X25519 and its stream comes back."""
    node = start_node(echo=True, settings=['pqc.mode="any"', 'endpoint.alpn=["test"]'])

    received, terminated = attempt(node, b"classical")

    assert received == b"classical"
    assert terminated is None or terminated.error_code == 0
