"""SIGHUP to a running node: limits and the certificate change, connections do not notice, a mistake changes nothing."""

import asyncio
import os
import signal
import ssl
from pathlib import Path

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from cryptography.x509 import Certificate, load_pem_x509_certificate

from antquic_server.certificates import self_signed_certificate
from support.load import connect_peers, run_clients
from support.node import StartNode
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

ECHO_TIMEOUT_S = 10.0


def test_limits_change_below_living_connections(start_node: StartNode, tmp_path: Path) -> None:
    """Flags still win over the file, workers stay, and so do the connections on them."""
    path = tmp_path / "limits.toml"
    path.write_text("[relay]\nmax_sessions = 50\n")
    node = start_node(
        workers=2, echo=True, arguments=["--config", str(path)], settings=["relay.max_sessions_per_peer=3"]
    )
    workers = node.worker_pids

    def limits() -> tuple[int, int]:
        found = node.status()["relay"]["limits"]
        return found["max_sessions"], found["max_sessions_per_peer"]

    def reload(text: str) -> None:
        path.write_text(text)
        os.kill(node.pid, signal.SIGHUP)

    async def story() -> None:
        peers = await connect_peers(node, 4)
        reload("[relay]\nmax_sessions = 7\nmax_sessions_per_peer = 2\n")
        wait_until(lambda: limits() == (7, 3), timeout_s=5, what="limits to change")
        reload("[relay]\nmax_sessions = many\n")
        wait_until(lambda: "configuration not reloaded" in node.log(), timeout_s=5, what="complaint")
        for peer in peers:
            assert await peer.connection.echo(b"still here", ECHO_TIMEOUT_S) == b"still here"
            peer.leave()

    assert limits() == (50, 3)
    run_clients(story(), timeout_s=60)
    assert limits() == (7, 3)
    assert node.worker_pids == workers
    assert node.healthy()


CLASSICAL = QuicConfiguration(
    is_client=True, alpn_protocols=["test"], verify_mode=ssl.CERT_NONE, server_name="localhost"
)


def presented(protocol: QuicConnectionProtocol) -> Certificate:
    """The certificate that the node has shown."""
    certificate = protocol._quic.tls._peer_certificate
    assert certificate is not None
    return certificate


def test_renewed_certificate_reaches_new_connections(start_node: StartNode, tmp_path: Path) -> None:
    """Of all workers, later ones too, and no connection ends for it; a file that cannot be used changes nothing."""
    paths = (tmp_path / "certificate.pem", tmp_path / "key.pem")

    def write(pair: tuple[bytes, bytes]) -> Certificate:
        for path, content in zip(paths, pair, strict=True):
            path.write_bytes(content)
        return load_pem_x509_certificate(pair[0])

    first = write(self_signed_certificate("first"))
    files = [f"tls.certificate='{paths[0]}'", f"tls.private_key='{paths[1]}'"]
    node = start_node(workers=2, echo=True, settings=["pqc.mode='any'", *files])

    async def shown() -> set[Certificate]:
        """What several connections are shown; the kernel spreads them over the workers."""
        found = set()
        for _ in range(6):
            async with connect("127.0.0.1", node.port, configuration=CLASSICAL) as protocol:
                found.add(presented(protocol))
        return found

    async def echo(protocol: QuicConnectionProtocol, payload: bytes) -> None:
        reader, writer = await protocol.create_stream()
        writer.write(payload)
        writer.write_eof()
        assert await reader.read() == payload

    def reload_until(words: str) -> None:
        os.kill(node.pid, signal.SIGHUP)
        wait_until(lambda: words in node.log(), timeout_s=10, what=words)

    async def until_all_show(certificate: Certificate) -> None:
        while await shown() != {certificate}:
            pass

    async def story() -> None:
        async with connect("127.0.0.1", node.port, configuration=CLASSICAL) as old:
            assert await shown() == {presented(old)} == {first}
            second = write(self_signed_certificate("second"))
            reload_until("tls.certificate")
            await until_all_show(second)

            paths[1].write_bytes(self_signed_certificate("third")[1])
            reload_until("certificate not reloaded")
            assert f"{paths[1]}: not the private key of the first certificate in {paths[0]}" in node.log()
            assert await shown() == {second}
            await echo(old, b"still here")

        victims = node.worker_pids
        os.kill(victims[0], signal.SIGKILL)
        wait_until(
            lambda: victims[0] not in node.worker_pids and len(node.worker_pids) == len(victims),
            timeout_s=20,
            what="successor",
        )
        await until_all_show(second)

    asyncio.run(asyncio.wait_for(story(), 60))
    assert "Traceback" not in node.log()
    assert node.healthy()
